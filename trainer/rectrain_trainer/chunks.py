"""Metrics and log lines, kept in S3 beside the run: attempts/NNNN/metrics/000001.jsonl, log/000001.txt.

Called by the run. Lines are gathered in bounded memory and written as numbered chunks from one thread of
its own; what can't be written is kept for the next try, then dropped oldest first. Losing them never hurts
training; but a checkpoint is committed only when the metrics up to it are there (`store_metrics`), so that a
resumed run's curves have no hole. The first chunk of them is written at the first step: it shows that a
killed attempt got there.
"""

import collections
import contextlib
import json
import logging
import threading
import time
from typing import Any, Final

from rectrain_api.errors import RectrainError
from rectrain_api.records import attempt_prefix
from rectrain_data.transfer import Store

EVERY_S: Final = 30.0
CHUNK_BYTES: Final = 1 << 20
KEPT_BYTES: Final = 8 << 20
METRICS: Final = ("metrics", "jsonl")
LOG: Final = ("log", "txt")


class _Buffer:
    """Lines of one kind that aren't in S3 yet. Not thread-safe, but for `writing`."""

    def __init__(self, kind: str, suffix: str) -> None:
        self.kind, self.suffix = kind, suffix
        self.lines: collections.deque[bytes] = collections.deque()
        self.size = 0
        self.written = 0
        self.writing = threading.Lock()
        """Held by the thread that writes the next chunk."""

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.size += len(line)
        while self.size > KEPT_BYTES:
            self.size -= len(self.lines.popleft())

    def take(self) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while self.lines and (not taken or size + len(self.lines[0]) <= CHUNK_BYTES):
            taken.append(self.lines.popleft())
            size += len(taken[-1])
        self.size -= size
        return taken

    def give_back(self, lines: list[bytes]) -> None:
        self.lines.extendleft(reversed(lines))
        self.size += sum(map(len, lines))


class Chunks:
    """Lines may be added before the attempt has its number; they are written from `start` on."""

    def __init__(self) -> None:
        self._buffers = {kind: _Buffer(kind, suffix) for kind, suffix in (METRICS, LOG)}
        self._wake = threading.Condition()
        self._flush = self._closing = False
        self._store: Store | None = None
        self._thread: threading.Thread | None = None

    def start(self, store: Store, attempt: int) -> None:
        """Begin to write under this attempt. `store` is at the run's place, with short retries."""
        self._store = store.at(attempt_prefix(attempt))
        self._thread = threading.Thread(target=self._run, name="chunks", daemon=True)
        self._thread.start()

    def metric(self, row: dict[str, Any], *, at_once: bool = False) -> None:
        """One row of numbers."""
        row = {"time": round(time.time(), 3), **row}
        self._add(METRICS[0], json.dumps(row, separators=(",", ":")) + "\n", at_once)

    def line(self, text: str) -> None:
        """One line of the log."""
        self._add(LOG[0], text + "\n", False)

    def store_metrics(self) -> None:
        """Write every row that was given until now. Raises what a store raises."""
        self._write(self._buffers[METRICS[0]])

    def flush(self) -> None:
        """Write soon what there is."""
        with self._wake:
            self._flush = True
            self._wake.notify()

    def close(self, wait_s: float = 5.0) -> None:
        """Write what is left if it can be written soon, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread:
            self._thread.join(wait_s)

    def _add(self, kind: str, text: str, at_once: bool) -> None:
        with self._wake:
            self._buffers[kind].add(text.encode(errors="replace"))
            if at_once:
                self._flush = True
                self._wake.notify()

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._wake:
                self._wake.wait_for(lambda: self._flush or self._closing, timeout=EVERY_S)
                self._flush, closing = False, self._closing
            for buffer in self._buffers.values():
                with contextlib.suppress(RectrainError):
                    self._write(buffer)

    def _write(self, buffer: _Buffer) -> None:
        """Write all lines of one kind. Raises what a store raises; they are kept then."""
        assert self._store is not None
        with buffer.writing:
            while True:
                with self._wake:
                    lines = buffer.take()
                if not lines:
                    return
                key = f"{buffer.kind}/{buffer.written + 1:06d}.{buffer.suffix}"
                try:
                    self._store.put_bytes(key, b"".join(lines))
                except RectrainError:
                    with self._wake:
                        buffer.give_back(lines)
                    raise
                buffer.written += 1


class ChunkHandler(logging.Handler):
    """Sends the process's own log lines to the chunks."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__()
        self._chunks = chunks

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        self._chunks.line(self.format(record))
