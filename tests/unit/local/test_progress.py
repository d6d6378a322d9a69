"""Without a terminal, progress is an occasional plain line."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from rectrain_local.progress import Progress


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def seconds(*moments: float) -> Iterator[float]:
    yield from moments


def test_lines_come_seldom_and_say_how_far_it_is(out: io.StringIO) -> None:
    clock = seconds(0, 1, 20, 21, 30)
    progress = Progress(Console(file=out), clock=lambda: next(clock))
    with progress.work("compiling", 300, "packages") as advance:
        for done in (10, 200, 210):
            advance(done)
    assert out.getvalue().splitlines() == [
        "compiling …",
        "compiling: 200 of 300 packages, 20 s",
        "compiling: done after 30 s",
    ]


def test_an_unknown_total_is_left_out(out: io.StringIO) -> None:
    clock = seconds(0, 16, 20)
    progress = Progress(Console(file=out), clock=lambda: next(clock))
    with progress.work("getting", None, "modules") as advance:
        advance(7)
    assert "getting: 7 modules, 16 s" in out.getvalue()


def test_a_terminal_gets_a_bar(out: io.StringIO) -> None:
    progress = Progress(Console(file=out, force_terminal=True, width=100))
    with progress.work("compiling", 3, "packages") as advance:
        advance(3)
    assert "3/3" in out.getvalue()
