"""What must hold of a run's place whatever has happened, checked from outside. What doesn't is a sentence."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rectrain_api.records import AttemptStart, CheckpointRecord, Record
from rectrain_api.run_state import RunState
from rectrain_data.transfer import sha256_bytes
from tests.chaos.recipe import Outcome, Recipe, Row, outcome_of
from tests.support.trainer import Place


def broken(place: Place, recipe: Recipe, wanted: Outcome) -> list[str]:
    """Everything that is wrong with a run that ended."""
    records, found = place.records(), outcome_of(place)
    return [
        *_differences(found, wanted),
        *_holes(found.training, recipe.steps),
        *_damaged(place, place.state()),
        *_unfenced(records),
        *_done_again(place, records),
    ]


def _differences(found: Outcome, wanted: Outcome) -> Iterator[str]:
    for name in ("weights", "export", "best"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        if ours != theirs:
            yield f"{name} differ from those of the run without faults: {ours} instead of {theirs}"
    for name in ("evaluations", "report"):
        for ours, theirs in zip_longest(getattr(found, name), getattr(wanted, name)):
            if ours != theirs:
                yield f"{name} differ from those of the run without faults, first {ours} instead of {theirs}"
                break
    for step in sorted(found.checkpoints.keys() & wanted.checkpoints.keys()):
        if not found.checkpoints[step] <= wanted.checkpoints[step]:
            yield f"the weights of step {step} differ from those of the run without faults"
            break
    rows = {r["step"]: r for r in wanted.training}
    for row in found.training:
        if row != rows.get(row["step"]):
            yield f"the metrics of step {row['step']} differ: {row} instead of {rows.get(row['step'])}"
            break


def _holes(rows: Sequence[Row], steps: int) -> Iterator[str]:
    have = [r["step"] for r in rows]
    missing = sorted(set(range(1, steps + 1)) - set(have))
    if missing:
        yield f"no row of metrics for {len(missing)} of {steps} steps, such as {missing[:5]}"
    if len(have) != len(set(have)):
        yield f"rows of metrics twice: {sorted({s for s in have if have.count(s) > 1})[:5]}"


def _damaged(place: Place, state: RunState) -> Iterator[str]:
    """Every checkpoint that a record stands for has its files, byte for byte."""
    for checkpoint in state.checkpoints:
        for file in checkpoint.files:
            key = f"{checkpoint.prefix}/{file.name}"
            data = place.store.get(key)
            if data is None or (len(data), sha256_bytes(data)) != (file.size, file.sha256):
                yield f"{key} is {'gone' if data is None else 'damaged'}, though its record counts"
    if state.best is None or state.checkpoint_at(state.best.prefix) is None:
        yield "the best checkpoint isn't there"


def _unfenced(records: Sequence[Record]) -> Iterator[str]:
    newest = 0
    for number, record in enumerate(records, 1):
        if record.attempt < newest:
            yield f"record {number} ({record.kind}) is of attempt {record.attempt}, after {newest} had begun"
        newest = max(newest, record.attempt)


def resumed_steps(records: Sequence[Record]) -> dict[int, int]:
    """By attempt: the newest step committed before it began, which it must go on from."""
    steps, state = {}, RunState()
    for record in records:
        if isinstance(record, AttemptStart):
            steps[record.attempt] = max((c.step for c in state.checkpoints), default=0)
        state.apply(record)
    return steps


def committed_steps(records: Sequence[Record], attempt: int) -> list[int]:
    """Steps of an attempt's checkpoints, in the order of their records."""
    return [r.step for r in records if isinstance(r, CheckpointRecord) and r.attempt == attempt]


def _done_again(place: Place, records: Sequence[Record]) -> Iterator[str]:
    """Nothing that was committed is done again."""
    for attempt, step in resumed_steps(records).items():
        rows = place.trained(attempt)
        if rows and min(rows) != step + 1:
            yield f"attempt {attempt} began with step {min(rows)}, and {step} was committed before it"
        committed = committed_steps(records, attempt)
        if committed != sorted(set(committed)) or (committed and committed[0] < step):
            yield f"attempt {attempt} went on from {step} and committed {committed}"
