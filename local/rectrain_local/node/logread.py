"""Reading a container's log as `kubectl logs` asks. Called by `logserver`, and for termination messages."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from .logfile import LogFile, older, stamp

BLOCK_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class LogQuery:
    """The options of `kubectl logs`."""

    tail: int | None = None
    since_ns: int | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    follow: bool = False


async def read(path: Path, query: LogQuery, live: LogFile | None = None) -> AsyncIterator[bytes]:
    """The log, block by block. `live` is its writer while the container runs; `follow` waits for its end."""
    left = query.limit_bytes
    async for block in _blocks(path, query, live):
        text = b"".join(_shown(record, query) for record in block.splitlines(keepends=True))
        if left is not None:
            text = text[:left]
            left -= len(text)
        if text:
            yield text
        if left == 0:
            return


def last_lines(path: Path, lines: int, size_bytes: int) -> bytes:
    """The end of a finished log: at most so many lines and bytes."""
    with ExitStack() as open_files:
        streams: list[BinaryIO] = [open_files.enter_context(file.open("rb")) for file in _files(path)]
        _seek_tail(streams, lines)
        query = LogQuery()
        text = b"".join(
            _shown(record, query)
            for stream in streams
            for block in _whole(stream)
            for record in block.splitlines(keepends=True)
        )
    return text[-size_bytes:]


def _files(path: Path) -> list[Path]:
    return [file for file in (older(path), path) if file.exists()]


def _shown(record: bytes, query: LogQuery) -> bytes:
    when, _, rest = record.partition(b" ")
    _, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if query.since_ns is not None and when < stamp(query.since_ns).encode():
        return b""
    if tag != b"F":
        text = text[:-1]  # a piece of a line: its end is the log's, not the container's
    return when + b" " + text if query.timestamps else text


async def _blocks(path: Path, query: LogQuery, live: LogFile | None) -> AsyncIterator[bytes]:
    with ExitStack() as open_files:
        # Opened before anything is read: a rotation meanwhile only renames them.
        streams: list[BinaryIO] = [open_files.enter_context(file.open("rb")) for file in _files(path)]
        if query.tail is not None:
            _seek_tail(streams, query.tail)
        for stream in streams:
            for block in _whole(stream):
                yield block
        if not streams or live is None or not query.follow:
            return
        stream = streams[-1]
        while True:
            changed, closed = live.changed, live.closed
            rotated = not _is_same(stream, path)
            for block in _whole(stream):
                yield block
            if rotated:
                stream = open_files.enter_context(path.open("rb"))
            elif closed:
                return
            else:
                await changed.wait()


def _is_same(stream: BinaryIO, path: Path) -> bool:
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return True  # the pod is gone, and its log with it: what is open is all there is


def _whole(stream: BinaryIO) -> Iterator[bytes]:
    """Blocks of complete records up to the present end; an incomplete one stays for the next call."""
    while block := stream.read(BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        stream.seek(end - len(block), os.SEEK_CUR)
        if not end:
            return
        yield block[:end]


def _seek_tail(streams: list[BinaryIO], lines: int) -> None:
    """Move each stream so that together they hold the last `lines` records."""
    for stream in reversed(streams):
        lines -= _seek_last(stream, lines)


def _seek_last(stream: BinaryIO, lines: int) -> int:
    """Move to the start of the last `lines` records; how many there are from there on."""
    position = stream.seek(0, os.SEEK_END)
    found, later = 0, b""
    while position and found <= lines:
        size = min(BLOCK_BYTES, position)
        position -= size
        stream.seek(position)
        later = stream.read(size)
        found += later.count(b"\n")
    if found <= lines:
        stream.seek(0)
        return found
    # One record end too many lies in this block: the records after it are the ones to keep.
    start = 0
    for _ in range(found - lines):
        start = later.index(b"\n", start) + 1
    stream.seek(position + start)
    return lines
