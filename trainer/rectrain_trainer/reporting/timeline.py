"""What happened when, and what it took: attempts, rollbacks, checkpoints. Pure; called by `page`."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from rectrain_trainer.disk import human
from rectrain_trainer.pace import duration
from rectrain_trainer.reporting.gather import Attempt, Run
from rectrain_trainer.reporting.headline import percent, repeated_steps

_EVENTS: Final = 200
_SOFT: Final = ("Interrupted", "PeerLost", "Fenced", "RolledBack", "RunningOrKilled")
"""Ends that are no fault of the run."""


@dataclass(frozen=True)
class Event:
    """A line of the timeline."""

    time: str
    kind: str
    text: str
    step: int | None = None


def events(run: Run) -> list[Event]:
    """Everything that happened, in order; of very many checkpoints only those around other events."""
    found: list[Event] = []
    for attempt in run.attempts:
        where = f" on {attempt.environment.node}" if attempt.environment.node else ""
        after = f", from step {attempt.first_step:,} on" if attempt.first_step else ""
        if attempt.started:
            found.append(Event(attempt.started, "start", f"Attempt {attempt.number} started{where}{after}."))
        if ended := attempt.ended or _clock(attempt.seen_until):
            found.append(Event(ended, _kind_of(attempt), _ending(attempt), attempt.last_step))
    for rollback in run.rollbacks:
        text = (
            f"The loss wasn't a number: back to step {rollback.to_step:,}, {rollback.factor:g} of the rate."
        )
        found.append(Event(rollback.time, "rollback", text, rollback.step))
    found += [
        Event(change.time, "change", f"{change.epochs} epochs instead of {change.was}.", change.step)
        for change in run.listing.plan_changes
    ]
    for checkpoint in run.checkpoints:
        of = "" if checkpoint.accuracy is None else f", accuracy {percent(checkpoint.accuracy)}"
        text = f"Checkpoint ({human(checkpoint.bytes)}{of})."
        found.append(Event(checkpoint.time, "checkpoint", text, checkpoint.step))
    found.sort(key=lambda event: event.time)
    return _fewer(found)


def _fewer(found: list[Event]) -> list[Event]:
    if len(found) <= _EVENTS:
        return found
    others = [event for event in found if event.kind != "checkpoint"]
    checkpoints = [event for event in found if event.kind == "checkpoint"]
    every = -(-len(checkpoints) // max(1, _EVENTS - len(others)))
    return sorted([*others, *checkpoints[::every]], key=lambda event: event.time)


def _kind_of(attempt: Attempt) -> str:
    if attempt.end == "Completed":
        return "done"
    return "stop" if attempt.end in _SOFT else "failure"


def _ending(attempt: Attempt) -> str:
    words = {
        "Completed": "finished the run",
        "Interrupted": "was told to stop",
        "Killed": "was killed (its last sign is from then)",
        "RunningOrKilled": "gave its last sign",
    }
    return f"Attempt {attempt.number} {words.get(attempt.end, f'ended with {attempt.end}')}."


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    first, last = attempt.first_step, attempt.last_step
    steps = f"{first:,} to {last:,}" if first and last else "—"
    return {
        "number": attempt.number,
        "started": said(attempt.started) if attempt.started else "—",
        "took": duration_of(seconds_of(attempt)),
        "steps": steps,
        "checkpoints": attempt.checkpoints,
        "end": attempt.end,
        "kind": _kind_of(attempt),
    }


def said(time: str) -> str:
    """A record's time for people; always UTC."""
    return time.replace("T", " ").removesuffix("Z")


def _clock(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds < 1e11:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(attempt: Attempt) -> float:
    """Time at work, as far as it is known."""
    begun = _parsed(attempt.started)
    ended = _parsed(attempt.ended) or attempt.seen_until
    return max(0.0, ended - begun) if begun and ended else 0.0


def _parsed(time: str | None) -> float | None:
    try:
        return datetime.datetime.fromisoformat(time).timestamp() if time else None
    except ValueError:
        return None


def duration_of(seconds: float) -> str:
    return duration(seconds) if seconds else "—"


def usage(run: Run) -> Iterator[tuple[str, str]]:
    seconds = sum(seconds_of(attempt) for attempt in run.attempts)
    nodes, gpus = run.plan.get("nodes", 1), run.plan.get("gpus", 0)
    if not (isinstance(nodes, int) and isinstance(gpus, int)):
        nodes, gpus = 1, 0
    yield "Pod time", duration_of(seconds * nodes)
    if gpus:
        yield "GPU time", duration_of(seconds * nodes * gpus)
    again = repeated_steps(run)
    yield "Steps trained twice", f"{again:,}" if again else "none"
    yield "Checkpoints committed", f"{len(run.checkpoints):,}"
    yield "Stored", human(run.stored_bytes)
