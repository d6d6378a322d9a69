"""A run as its log tells it, for `checkpoints ls`. Pure but for `read_run`."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from rectrain_api.base import ApiModel
from rectrain_api.errors import InputMissing
from rectrain_api.records import (
    CheckpointRecord,
    Damage,
    FinalRecord,
    PlanChange,
    Record,
)
from rectrain_api.run_log import check_ours, read_records
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Store

FINISHED: Final = "Finished"
RUNNING_OR_KILLED: Final = "RunningOrKilled"
KILLED: Final = "Killed"
NAME_A_PLACE: Final = "name a run's place, as checkpoint.uri of its RecTrainingJob has it."


class AttemptRow(ApiModel):
    """One pod's try. Times are UTC; None where the record that said it is missing."""

    attempt: int
    started: str | None
    ended: str | None
    end: str
    """Its reason; Killed for one that couldn't say; RunningOrKilled for the newest."""
    reached_training: bool
    first_checkpoint: int | None
    """Steps of the first and the last checkpoint that it committed, kept or not."""
    last_checkpoint: int | None


class CheckpointRow(ApiModel):
    """One checkpoint that is kept."""

    step: int
    epoch: int
    time: str
    bytes: int
    accuracy: float | None
    best: bool
    newest: bool
    """Where a resumed run would go on."""
    attempt: int
    uri: str


class PlanChangeRow(ApiModel):
    """Epochs that were changed while the run went on."""

    time: str
    step: int
    was: int
    epochs: int


class RollbackRow(ApiModel):
    """The loss wasn't a number: back to a checkpoint, and on with a lower learning rate."""

    time: str
    attempt: int
    step: int
    to_step: int
    factor: float
    """Of the plan's learning rate."""


class FinalRow(ApiModel):
    """What came out of it."""

    attempt: int
    time: str
    epochs: int
    stopped_early: int | None
    """The epoch that training ended in, if that wasn't the last."""
    step: int
    export: str
    metrics: dict[str, Any]


class DamagedRow(ApiModel):
    """A record that was passed over."""

    record: str
    problem: str


class Listing(ApiModel):
    """The document of `checkpoints ls --json`."""

    place: str
    run: str
    state: str
    """Finished, RunningOrKilled, or the reason that its last attempt ended with."""
    epochs: int
    plan: dict[str, Any]
    attempts: list[AttemptRow]
    checkpoints: list[CheckpointRow]
    plan_changes: list[PlanChangeRow]
    rollbacks: list[RollbackRow]
    final: FinalRow | None
    damaged: list[DamagedRow]


def read_run(store: Store) -> tuple[list[Record], RunState]:
    """The records of the run at a place that can be read, and what follows from all.

    Raises:
        InputMissing: there is no run.
        RunConflict: the log isn't one that this version reads.
    """
    entries = read_records(store)
    if not entries:
        there = next(iter(store.list_objects()), None)
        if there is None:
            raise InputMissing(f"There is nothing at {store.uri}: {NAME_A_PLACE}")
        raise InputMissing(
            f"{store.uri} isn't a run's place (it has {there.key}, and no log/00000001.json): {NAME_A_PLACE}"
        )
    state = RunState()
    for entry in entries:
        state.apply(entry)
    check_ours(state, store.uri)
    return [entry for entry in entries if not isinstance(entry, Damage)], state


def listing_of(
    place: str, records: Sequence[Record], state: RunState, reached_training: Callable[[int], bool]
) -> Listing:
    """Everything that the log says. `reached_training` is asked for attempts that were killed."""
    last = state.starts[-1]
    return Listing(
        place=place,
        run=str(last.identity),
        state=_state_of(state),
        epochs=state.epochs,
        plan=last.plan,
        attempts=_attempts(records, state, reached_training),
        checkpoints=_checkpoints(place, state),
        plan_changes=[
            PlanChangeRow(time=r.time, step=r.step, was=r.was, epochs=r.epochs)
            for r in records
            if isinstance(r, PlanChange)
        ],
        rollbacks=[
            RollbackRow(time=r.time, attempt=r.attempt, step=r.step, to_step=r.to_step, factor=r.factor)
            for r in state.rollbacks
        ],
        final=_final(place, state.final) if state.final else None,
        damaged=[DamagedRow(record=f"{place}/{d.key}", problem=d.problem) for d in state.damaged],
    )


def is_finished(state: RunState) -> bool:
    """Whether nothing is left to do. Who starts after `final` has more epochs to train, or a lost model."""
    return state.final is not None and state.final.attempt >= state.attempt


def _state_of(state: RunState) -> str:
    if is_finished(state):
        return FINISHED
    end = state.ends.get(state.attempt)
    return end.reason if end else RUNNING_OR_KILLED


def _attempts(
    records: Sequence[Record], state: RunState, reached_training: Callable[[int], bool]
) -> list[AttemptRow]:
    started = {start.attempt: start.time for start in state.starts}
    steps: dict[int, list[int]] = {}
    for record in records:
        of_attempt = steps.setdefault(record.attempt, [])
        if isinstance(record, CheckpointRecord):
            of_attempt.append(record.step)
    rows = []
    for attempt in sorted(steps):
        end = state.ends.get(attempt)
        told = RUNNING_OR_KILLED if attempt == state.attempt and not is_finished(state) else KILLED
        reached = bool(steps[attempt]) or (end.reached_training if end else reached_training(attempt))
        rows.append(
            AttemptRow(
                attempt=attempt,
                started=started.get(attempt),
                ended=end.time if end else None,
                end=end.reason if end else told,
                reached_training=reached,
                first_checkpoint=min(steps[attempt], default=None),
                last_checkpoint=max(steps[attempt], default=None),
            )
        )
    return rows


def _checkpoints(place: str, state: RunState) -> list[CheckpointRow]:
    newest_first = state.newest_first()
    return [
        CheckpointRow(
            step=record.step,
            epoch=record.epoch,
            time=record.time,
            bytes=record.bytes,
            accuracy=record.accuracy,
            best=state.best is not None and state.best.prefix == record.prefix,
            newest=record is newest_first[0],
            attempt=record.attempt,
            uri=f"{place}/{record.prefix}",
        )
        for record in reversed(newest_first)
    ]


def _final(place: str, final: FinalRecord) -> FinalRow:
    return FinalRow(
        attempt=final.attempt,
        time=final.time,
        epochs=final.epochs,
        stopped_early=final.stopped_early,
        step=final.step,
        export=f"{place}/{final.export_prefix}",
        metrics=final.metrics,
    )
