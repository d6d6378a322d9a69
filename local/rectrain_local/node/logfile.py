"""A container's log on disk: one line of the container per line, with time and stream, bounded in size.

The format is the one container runtimes write: `2026-11-23T18:30:00.123456789Z stdout F text`; P instead of F
is a piece of a line without its end. `process` feeds it, `logread` reads it. When a file is full it becomes
`NAME.1` and the one before is dropped, so a pod that prints for days keeps its newest tens of megabytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

log = logging.getLogger(__name__)

ROTATE_BYTES: Final = 25 * 1024 * 1024
PIECE_BYTES: Final = 16 * 1024


def stamp(time_ns: int) -> str:
    """RFC 3339 with nanoseconds, of fixed width: order of text is order of time."""
    seconds, rest = divmod(time_ns, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


class LogFile:
    """The writing end. `feed` as output comes, `close` when the container has ended."""

    def __init__(
        self, path: Path, *, rotate_bytes: int = ROTATE_BYTES, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._now_ns = now_ns
        self._pending: dict[str, bytearray] = {}
        self._out: BinaryIO = path.open("ab", buffering=0)
        self._size = self._out.tell()
        self.changed = asyncio.Event()
        """Take it before reading, wait for it after: it is set, and replaced, with each write and the end."""
        self.closed = False

    def feed(self, stream: str, data: bytes) -> None:
        """Take what the container wrote; lines go to disk at once, an unfinished one waits for its end."""
        pending = self._pending.setdefault(stream, bytearray())
        pending += data
        head = f"{stamp(self._now_ns())} {stream} ".encode()
        *lines, rest = bytes(pending).split(b"\n")
        records = [head + b"F " + line + b"\n" for line in lines]
        while len(rest) >= PIECE_BYTES:
            records.append(head + b"P " + rest[:PIECE_BYTES] + b"\n")
            rest = rest[PIECE_BYTES:]
        self._pending[stream] = bytearray(rest)
        if records:
            self._write(b"".join(records))

    def close(self) -> None:
        for stream, rest in self._pending.items():
            if rest:
                self._write(f"{stamp(self._now_ns())} {stream} P ".encode() + bytes(rest) + b"\n")
        self._pending.clear()
        self._out.close()
        self.closed = True
        self._wake()

    def _write(self, records: bytes) -> None:
        if self._size + len(records) > self._rotate_bytes and self._size:
            self._out.close()
            self.path.replace(older(self.path))
            self._out = self.path.open("ab", buffering=0)
            self._size = 0
        try:
            self._out.write(records)
        except OSError as failed:
            # A full disk must stop neither the container nor its other output.
            log.warning("output of a container is lost: %s: %s", self.path, failed)
            return
        self._size += len(records)
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def older(path: Path) -> Path:
    return path.with_name(path.name + ".1")
