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
from rectrain_api.records import CheckpointRecord, RetireRecord, RunLog
from rectrain_data.transfer import Corrupt, Download, Store
from rectrain_trainer.place import now
from rectrain_trainer.snapshot import Snapshot, load_snapshot

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
