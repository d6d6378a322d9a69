"""Local ends of a transfer: hashing, and files that appear only when whole.

Used by `transfer.store`. A download is written beside its place under a `.part` name, in parts, by
several threads; size and sha256 are checked before it is renamed.
"""

import contextlib
import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from rectrain_api.errors import (
    DatasetInvalid,
    DiskTooSmall,
    InputMissing,
    PermissionRefused,
    RectrainError,
    UsageError,
)

_CHUNK = 1 << 20


class Corrupt(DatasetInvalid):
    """Bytes that came differ from those that were promised."""


def sha256_bytes(data: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in chunks.

    Raises:
        InputMissing, PermissionRefused: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise local_error(exc, path) from exc


def file_size(path: Path) -> int:
    """Bytes of a file. Raises as `sha256_file`."""
    try:
        return path.stat().st_size
    except OSError as exc:
        raise local_error(exc, path) from exc


def local_error(exc: OSError, path: Path) -> RectrainError:
    """An error of the local disk, as one of ours."""
    no_file = isinstance(exc, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    if no_file or exc.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return InputMissing(f"{path} isn't a readable file ({exc.strerror}): correct the path.")
    if isinstance(exc, FileExistsError):
        return UsageError(f"{path} is in the way ({exc.strerror}): choose another, or remove it.")
    if isinstance(exc, PermissionError):
        return PermissionRefused(f"{path} may not be accessed by this user: change its permissions.")
    return DiskTooSmall(
        f"{path} can't be read or written ({exc.strerror}): check the disk and its free space."
    )


@dataclass(frozen=True)
class Download:
    """One object to fetch to one path. A known size saves a request; a known sha256 is checked."""

    key: str
    path: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Upload:
    """One file to send. A sha256 that is given is trusted, and saves reading the file twice."""

    path: Path
    key: str
    sha256: str | None = None


class PartFile:
    """A file that is being written in parts. Thread-safe; `finish` or `abandon` ends it."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._part = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise local_error(exc, target) from exc
        self._lock = threading.Lock()
        self._open = True

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write one part."""
        try:
            while data:
                written = os.pwrite(self._fd, data[:_CHUNK], offset)
                offset, data = offset + written, data[written:]
        except OSError as exc:
            raise local_error(exc, self.target) from exc

    def finish(self, uri: str, size: int, sha256: str | None) -> None:
        """Check and rename. Raises Corrupt, leaving nothing behind."""
        self._close()
        found = self._part.stat().st_size
        problem = f"has {found} bytes instead of {size}" if found != size else None
        if not problem and sha256 and sha256_file(self._part) != sha256:
            problem = "doesn't match its sha256"
        if problem:
            self._part.unlink(missing_ok=True)
            raise Corrupt(f"{uri} {problem}: it was damaged or changed; upload it again.")
        self._part.replace(self.target)

    def abandon(self) -> None:
        """Drop what was written; harmless after `finish`."""
        self._close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        with self._lock:
            if self._open:
                os.close(self._fd)
                self._open = False
