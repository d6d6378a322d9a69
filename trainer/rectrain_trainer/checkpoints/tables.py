"""A listing for people: plain tables, as wide as they must be. Called by `checkpoints ls`."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rectrain_data.console import human
from rectrain_trainer.checkpoints.listing import (
    FINISHED,
    KILLED,
    RUNNING_OR_KILLED,
    AttemptRow,
    CheckpointRow,
    Listing,
)

_WORDS: Final = {FINISHED: "finished", RUNNING_OR_KILLED: "running or killed", KILLED: "killed"}
_SHORT: Final = {**_WORDS, RUNNING_OR_KILLED: "running?"}
"""For a column: two times and a range of steps beside it fill a terminal of 80."""
_PIPE_WIDTH: Final = 10_000
"""Nothing is folded where there is no terminal."""


def show(listing: Listing) -> None:
    """Print it to stdout."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    for name, value in _facts(listing):
        _line(console, f"{name:<9}{value}")
    for title, columns, rows in _sections(listing):
        console.print()
        _line(console, title, style="bold")
        console.print(_table(columns, rows))
    if listing.damaged:
        console.print()
        _line(console, "Damaged records: what they said is lost", style="bold")
        for row in listing.damaged:
            _line(console, f"{row.record} {row.problem}")


def _line(console: Console, text: str, style: str = "") -> None:
    """A line that the terminal itself wraps, so that a URI can be copied."""
    console.print(Text(_printable(text), style=style), soft_wrap=True)


def _sections(listing: Listing) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    yield (
        "Attempts",
        ("#", "started (UTC)", "ended (UTC)", "end", "trained", "checkpoints"),
        [_attempt(row) for row in listing.attempts],
    )
    if listing.checkpoints:
        yield (
            "Checkpoints",
            ("step", "epoch", "time (UTC)", "size", "accuracy", "attempt", ""),
            [_checkpoint(row) for row in listing.checkpoints],
        )
    if listing.plan_changes:
        rows = [[str(c.step), _time(c.time), f"{c.was} → {c.epochs}"] for c in listing.plan_changes]
        yield "Changes of the plan", ("step", "time (UTC)", "epochs"), rows
    if listing.rollbacks:
        yield (
            "Rollbacks, since the loss wasn't a number",
            ("from step", "to step", "time (UTC)", "learning rate", "attempt"),
            [
                [str(r.step), str(r.to_step), _time(r.time), f"{r.factor:.1%} of the plan's", str(r.attempt)]
                for r in listing.rollbacks
            ],
        )


def _facts(listing: Listing) -> list[tuple[str, str]]:
    plan, final = listing.plan, listing.final
    training = (
        f"{listing.epochs} epochs, batch size {_of(plan, 'training', 'batchSize')}, "
        f"learning rate {_of(plan, 'training', 'learningRate')}, seed {_of(plan, 'training', 'seed')}"
    )
    facts = [
        ("run", listing.run),
        ("place", listing.place),
        ("model", _of(plan, "model", "preset")),
        ("data", _of(plan, "data", "train")),
        ("training", training),
        ("state", _WORDS.get(listing.state, f"stopped ({listing.state})")),
    ]
    if final:
        shares = {name: value for name, value in final.metrics.items() if isinstance(value, float)}
        metrics = ", ".join(f"{name} {value:.1%}" for name, value in shares.items())
        early = f", stopped early in epoch {final.stopped_early}" if final.stopped_early else ""
        facts += [
            ("finished", f"{_time(final.time)} UTC by attempt {final.attempt}, step {final.step}{early}"),
            ("export", final.export),
            ("metrics", metrics),
        ]
    return facts


def _attempt(row: AttemptRow) -> list[str]:
    first, last = row.first_checkpoint, row.last_checkpoint
    steps = "none" if first is None else f"{first}" if first == last else f"{first} to {last}"
    return [
        str(row.attempt),
        _time(row.started) if row.started else "unknown",
        _time(row.ended) if row.ended else "",
        _SHORT.get(row.end, row.end),
        "yes" if row.reached_training else "no",
        steps,
    ]


def _checkpoint(row: CheckpointRow) -> list[str]:
    marks = [mark for mark, is_so in (("best", row.best), ("newest", row.newest)) if is_so]
    return [
        str(row.step),
        str(row.epoch),
        _time(row.time),
        human(row.bytes),
        "" if row.accuracy is None else f"{row.accuracy:.1%}",
        str(row.attempt),
        ", ".join(marks),
    ]


def _table(columns: Sequence[str], rows: list[list[str]]) -> Table:
    """A table without lines; on a narrow terminal its cells are folded, never cut."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell), overflow="fold") for cell in row))
    return table


def _printable(text: str) -> str:
    """What a hand put into a record can't steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _of(plan: dict[str, Any], section: str, name: str) -> str:
    found = plan.get(section)
    return str(found.get(name, "unknown")) if isinstance(found, dict) else "unknown"


def _time(time: str) -> str:
    return time.removesuffix("Z").replace("T", " ")
