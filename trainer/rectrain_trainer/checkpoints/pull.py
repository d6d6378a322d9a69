"""One checkpoint on the disk, for PaddleOCR's own tools or a look. Called by `checkpoints pull`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from rectrain_api.base import ApiModel
from rectrain_api.errors import DatasetInvalid, InputMissing, UsageError
from rectrain_api.records import CheckpointRecord
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Corrupt, Download, Store
from rectrain_data.wholeness import whole_folder

BEST: Final = "best"
LATEST: Final = "latest"
MODEL: Final = "model"
"""Stem of model.pdparams, as PaddleOCR's Global.pretrained_model wants it."""


class Pulled(ApiModel):
    """The document of `checkpoints pull --json`."""

    folder: str
    uri: str
    step: int
    epoch: int
    accuracy: float | None
    bytes: int
    files: list[str]
    pretrained_model: str


def choose(state: RunState, which: str | None, place: str) -> CheckpointRecord:
    """The checkpoint that was asked for: best, latest, a step; by default the best, else the latest. Pure.

    Raises:
        UsageError: it isn't one of these.
        InputMissing: it isn't there; names those that are.
    """
    newest_first = state.newest_first()
    if not newest_first:
        raise InputMissing(f"The run at {place} has no checkpoint yet: wait for its first one.")
    best = state.checkpoint_at(state.best.prefix) if state.best else None
    if which == LATEST or (which is None and best is None):
        return newest_first[0]
    if which in (BEST, None):
        if best is None:
            raise InputMissing(f"The run at {place} has no best checkpoint yet: ask for {LATEST}.")
        return best
    if not which.isascii() or not which.isdigit():
        raise UsageError(f"--checkpoint {which!r} isn't one: name {BEST}, {LATEST} or a step.")
    found = next((c for c in newest_first if c.step == int(which)), None)
    if found is None:
        steps = ", ".join(str(c.step) for c in reversed(newest_first))
        raise InputMissing(f"The run at {place} has no checkpoint of step {int(which)}; it has {steps}.")
    return found


def default_folder(state: RunState, record: CheckpointRecord) -> Path:
    """Named after run and step."""
    return Path(f"{state.starts[-1].identity.name}-step-{record.step:06d}")


def pull(store: Store, record: CheckpointRecord, folder: Path, progress: Callable[[int], None]) -> Pulled:
    """Download and check it; the folder appears when it is whole.

    Raises:
        UsageError: the folder exists and isn't empty.
        DatasetInvalid: the checkpoint is damaged.
    """
    with whole_folder(folder) as part:
        files = [(f"{record.prefix}/{f.name}", part / f.name, f) for f in record.files]
        try:
            store.download_all([Download(k, p, f.size, f.sha256) for k, p, f in files], progress=progress)
        except (Corrupt, InputMissing) as e:
            why = str(e).rpartition(": ")[0]
            raise DatasetInvalid(
                f"The checkpoint of step {record.step} is damaged ({why}): name another with --checkpoint; "
                f"rectrain-trainer checkpoints verify {store.uri} says which are whole."
            ) from e
    return Pulled(
        folder=str(folder),
        uri=store.uri_of(record.prefix),
        step=record.step,
        epoch=record.epoch,
        accuracy=record.accuracy,
        bytes=record.bytes,
        files=[f.name for f in record.files],
        pretrained_model=str(folder / MODEL),
    )
