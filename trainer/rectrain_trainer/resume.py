"""Finds where to go on: the newest checkpoint whose files are whole.

Called by the run, once it holds the log. A checkpoint whose bytes in S3 are gone or differ is reported and
retired (recorded; its files go later), and the one before it is used. Everything else that can go wrong
(this node's disk, a store that is away, another version's files) says nothing about the checkpoint, so it
ends the attempt and costs no checkpoint.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_api.errors import InputMissing, RectrainError, RunConflict
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    PlanChange,
    RetireRecord,
)
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Corrupt, Download, Store
from rectrain_trainer.loop import Best, TrainState
from rectrain_trainer.place import now
from rectrain_trainer.snapshot import Snapshot
from rectrain_trainer.snapshot_files import load_snapshot

log = logging.getLogger(__name__)

DAMAGED: Final = (Corrupt, InputMissing)
"""Bytes that differ or are gone."""


@dataclass(frozen=True)
class Found:
    """A checkpoint, read."""

    record: CheckpointRecord
    snapshot: Snapshot


def find_newest(run_log: RunLog, store: Store, folder: Path) -> Found | None:
    """The newest whole checkpoint; None when none was ever committed: train from the start.

    Raises RunConflict when there were some and none is whole: nothing is retired then, since starting at
    step 0 would throw away what somebody may still bring back.
    """
    damaged: list[str] = []
    found, why = None, None
    for record in run_log.state.newest_first():
        try:
            found = Found(record, fetch(record, store, folder))
            break
        except DAMAGED as e:
            log.warning("The checkpoint of step %d is damaged and is passed over: %s", record.step, e)
            damaged.append(record.prefix)
            why = why or e
    if found is None and run_log.state.checkpointed_attempts:
        raise _none_is_whole(store.uri, len(damaged), why)
    if damaged:
        run_log.append(RetireRecord(attempt=run_log.attempt, time=now(), prefixes=damaged))
    return found


def mend(run_log: RunLog, state: TrainState) -> None:
    """Append what the last attempt was killed before it could: a better `best`, a `plan-change`.

    Then `state.best` is the one to beat: the log's. What only a checkpoint knows of has lost its weights.
    """
    best = _best_of(run_log)
    if best is not None and best is not run_log.state.best:
        run_log.append(best)
    state.best = Best(best.accuracy, best.step, best.epoch) if best is not None else None
    was, epochs = run_log.state.epochs, state.recipe.epochs
    if was != epochs:
        step = state.position.step
        run_log.append(PlanChange(attempt=run_log.attempt, time=now(), was=was, epochs=epochs, step=step))
        log.info("%d epochs instead of %d from step %d on.", epochs, was, step)


def _best_of(run_log: RunLog) -> BestRecord | None:
    """The log's best, unless a checkpoint is better: a kill came between its record and its `best`."""
    best = run_log.state.best
    for record in sorted(run_log.state.checkpoints, key=lambda c: c.step):
        accuracy = record.accuracy
        if accuracy is not None and (best is None or accuracy > best.accuracy):
            best = BestRecord.of(record, accuracy, attempt=run_log.attempt, time=now())
    return best


def fetch(record: CheckpointRecord, store: Store, folder: Path) -> Snapshot:
    """Download and read one checkpoint; sizes and hashes are checked.

    Raises one of DAMAGED when its bytes aren't there twice in a row: once may be the way here.
    """
    try:
        try:
            _download(record, store, folder)
        except DAMAGED as e:
            log.warning(
                "The checkpoint of step %d didn't come whole, and is fetched again: %s", record.step, e
            )
            _download(record, store, folder)
        return load_snapshot(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(record: CheckpointRecord, store: Store, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    store.download_all(
        [Download(f"{record.prefix}/{f.name}", folder / f.name, f.size, f.sha256) for f in record.files]
    )


def _none_is_whole(uri: str, tried: int, why: RectrainError | None) -> RunConflict:
    newest = f" (the newest: {str(why).rstrip('.')})" if why else ""
    return RunConflict(
        f"{uri} holds a run with checkpoints, and none of the {tried} still there is whole{newest}: bring "
        "their files back, or give this run a checkpoint.uri of its own to start again."
    )
