"""The folder of one cluster: whose it is, whether it lives, and what `status` and `env` say about it.

A cluster lives exactly as long as its supervisor holds the lock in the folder: the kernel drops it however
the supervisor ends, so no PID can be mistaken. Only folders that carry our marker are ever deleted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from rectrain_local.errors import ClusterBusy, UsageError
from rectrain_local.files import private_dir, write_private

MARKER: Final = ".rectrain-local"
LOCK: Final = "lock"
RECORD: Final = "cluster.json"
EXEC_PREFIX: Final = "exec-"


class Record(BaseModel):
    """What the supervisor says about its cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phase: Literal["starting", "ready", "failed"]
    pid: int
    nodes: int
    gpus: int
    images: dict[str, str]
    message: str = ""
    env: dict[str, str] = {}
    processes: dict[str, int] = {}


def state_base() -> Path:
    """Our part of the user's state folder."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "rectrain"


def default_state() -> Path:
    """The folder of `rectrain-local up` without --state."""
    return state_base() / "cluster"


def read_record(folder: Path) -> Record | None:
    try:
        return Record.model_validate_json((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_record(folder: Path, record: Record) -> None:
    write_private(folder / RECORD, record.model_dump_json(indent=2))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_live(folder: Path) -> bool:
    """Whether a supervisor holds this folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


def check_ours(folder: Path) -> None:
    """Raise UsageError for a folder that holds something that isn't a cluster's."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"--state {folder} is not a folder: name one that doesn't exist, or an empty one")
    if any(folder.iterdir()) and not (folder / MARKER).exists():
        raise UsageError(
            f"--state {folder} holds files that no cluster made: name a folder that doesn't exist or is empty"
        )


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Own the folder, cleaned of a dead cluster's files. Raises ClusterBusy, UsageError."""
    check_ours(folder)
    private_dir(folder).chmod(0o700)  # it is empty or ours
    (folder / MARKER).touch(mode=0o600)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(descriptor) or not _same_file(descriptor, folder / LOCK):
            raise ClusterBusy(
                f"another command is using {folder}: see `rectrain-local status`, or name a --state"
            )
        for entry in folder.iterdir():
            if entry.name not in {MARKER, LOCK}:
                _delete(entry)
        yield
    finally:
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    """False if the folder was removed between our open and our lock."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a cluster's folder; harmless if it is gone. The lock goes last: nobody sees a free half."""
    if not (folder / MARKER).exists():
        return
    for entry in folder.iterdir():
        if entry.name not in {LOCK, MARKER}:
            _delete(entry)
    shutil.rmtree(folder, ignore_errors=True)


def remove_dead_runs(base: Path) -> None:
    """Delete what killed `rectrain-local exec` commands have left."""
    for folder in base.glob(f"{EXEC_PREFIX}*"):
        if (folder / MARKER).exists() and not is_live(folder):
            remove(folder)
