"""What `rectrain-data` shows on stderr: progress bars on a terminal, plain lines now and then otherwise."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from rectrain_data.transfer import RetryEvent

err = Console(stderr=True, highlight=False, soft_wrap=True)
_EVERY_S = 5.0
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@contextmanager
def progress(title: str, total: int, *, unit: str = "samples") -> Iterator[Callable[[int], None]]:
    """A function to be told how much was just done, from any thread. `unit` "bytes" shows MiB and so on."""
    if not sys.stderr.isatty():
        yield _plain(title, total, unit)
        return
    count = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


def _plain(title: str, total: int, unit: str) -> Callable[[int], None]:
    done, said, lock = 0, time.monotonic(), Lock()
    say(f"{title}: {_amount(total, unit)}")

    def advance(amount: int) -> None:
        nonlocal done, said
        with lock:
            done += amount
            now = time.monotonic()
            if now - said < _EVERY_S:
                return
            said = now
            percent = 100 * done // max(total, 1)
        say(f"{title}: {percent}% of {_amount(total, unit)}")

    return advance


def _amount(value: int, unit: str) -> str:
    return human(value) if unit == "bytes" else f"{value:,} {unit}"


def human(size_bytes: int) -> str:
    """Bytes for people: 12.3 MiB."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def say(text: str) -> None:
    """One message; names in it can't steer the terminal."""
    err.print(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), markup=False)


def say_retry(event: RetryEvent) -> None:
    """The store is away, and will be tried again."""
    say(f"{event.sentence} Trying again in {event.wait_s:.0f} s.")
