"""Every byte of what a run committed, read and compared. Called by `checkpoints verify`.

A few files are read at once, in parts that are dropped when they are counted, so that memory is bounded
however large a checkpoint is.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rectrain_api.base import ApiModel
from rectrain_api.errors import InputMissing
from rectrain_api.records import CheckpointRecord, StoredFile
from rectrain_api.run_log import read_records
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Corrupt, Store
from rectrain_data.transfer.bulk import for_each
from rectrain_data.transfer.downloads import PART_BYTES
from rectrain_trainer.checkpoints.listing import DamagedRow, is_finished

FILES_AT_ONCE: Final = 4
"""Each holds one part of `PART_BYTES` in memory."""


class Problem(ApiModel):
    """A file that isn't what its record says."""

    checkpoint: int | None
    """Its step; None for the exported model."""
    file: str
    problem: str


class Verification(ApiModel):
    """The document of `checkpoints verify --json`."""

    place: str
    files: int
    bytes: int
    whole: bool
    problems: list[Problem]
    damaged: list[DamagedRow]
    """Records that can't be read: nobody knows what files they named."""
    resumes_from: int | None
    """Step that a resumed run goes on from; None when it would refuse, or has nothing left to do."""
    resume: str
    """The same as a sentence."""


@dataclass(frozen=True)
class Item:
    """A file to verify."""

    key: str
    file: StoredFile
    checkpoint: CheckpointRecord | None


def items_of(state: RunState) -> list[Item]:
    """All files of checkpoints that are kept, the newest first, and of the exported model. Pure."""
    items = [Item(f"{c.prefix}/{f.name}", f, c) for c in state.newest_first() for f in c.files]
    if state.final:
        prefix = state.final.export_prefix
        items += [Item(f"{prefix}/{f.name}", f, None) for f in state.final.export_files]
    return items


def verify(store: Store, state: RunState, items: list[Item], progress: Callable[[int], None]) -> Verification:
    """Read everything. What was retired while it was read isn't missed."""
    found: dict[str, str] = {}

    def look(item: Item) -> None:
        problem = problem_of(store, item, progress)
        if problem:
            found[item.key] = problem

    for_each(items, look, limit=FILES_AT_ONCE)
    if found:
        for entry in read_records(store, state.records):
            state.apply(entry)
    return conclude(store.uri, state, items, found)


def conclude(place: str, state: RunState, items: list[Item], found: dict[str, str]) -> Verification:
    """What the problems mean, by key of the file. Pure."""
    kept = {c.prefix for c in state.checkpoints}
    items = [i for i in items if i.checkpoint is None or i.checkpoint.prefix in kept]
    bad = [i for i in items if i.key in found]
    damaged = {i.checkpoint.prefix for i in bad if i.checkpoint}
    step, sentence = resumption(state, damaged)
    return Verification(
        place=place,
        files=len(items),
        bytes=sum(i.file.size for i in items),
        whole=not bad and not state.damaged,
        problems=[
            Problem(
                checkpoint=i.checkpoint.step if i.checkpoint else None,
                file=f"{place}/{i.key}",
                problem=found[i.key],
            )
            for i in bad
        ],
        damaged=[DamagedRow(record=f"{place}/{d.key}", problem=d.problem) for d in state.damaged],
        resumes_from=step,
        resume=sentence,
    )


def resumption(state: RunState, damaged: set[str]) -> tuple[int | None, str]:
    """Where a resumed run would go on, when the checkpoints at these prefixes are damaged. Pure."""
    if is_finished(state):
        return None, "The run is finished: nothing is left to train."
    whole = [c for c in state.newest_first() if c.prefix not in damaged]
    if whole:
        return whole[0].step, f"A resumed run goes on from step {whole[0].step} (epoch {whole[0].epoch})."
    if state.checkpointed_attempts:
        return None, "A resumed run would refuse to go on: none of its checkpoints is whole."
    return 0, "A resumed run starts from the beginning: no checkpoint was committed yet."


def problem_of(store: Store, item: Item, progress: Callable[[int], None]) -> str | None:
    """How a file differs from its record; None when it is whole."""
    try:
        there = store.head(item.key)
        if there is None:
            return "is missing"
        if there.size != item.file.size:
            return f"has {there.size} bytes instead of {item.file.size}"
        digest = hashlib.sha256()
        for start in range(0, there.size, PART_BYTES):
            end = min(start + PART_BYTES, there.size)
            digest.update(store.request_part(item.key, start, end, there.e_tag))
            progress(end - start)
    except InputMissing:
        return "is missing"
    except Corrupt:
        return "was changed while it was read"
    return None if digest.hexdigest() == item.file.sha256 else "doesn't match its sha256"
