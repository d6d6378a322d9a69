"""Bulk downloads: large objects as parts shared among the workers, small ones whole.

Used by `transfer.store`. A single connection to S3 is slow and a request costs a round trip, so a few large
shards are fetched as many parts at once, and thousands of small files side by side.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from rectrain_data.transfer.bulk import for_each
from rectrain_data.transfer.files import Corrupt, Download, PartFile

Progress = Callable[[int], None]
"""Told the bytes just transferred, from any thread."""
PART_BYTES = 8 << 20


class Requests(Protocol):
    """What a bulk download needs of the store."""

    def uri_of(self, key: str) -> str:
        """The whole URI of a key."""
        ...

    def request_whole(self, key: str) -> tuple[int, str | None, bytes | None]:
        """Size, ETag and bytes of an object; no bytes when it is larger than one part."""
        ...

    def request_part(self, key: str, start: int, end: int, e_tag: str | None) -> bytes:
        """One part of an object, of the version with this ETag if one is given."""
        ...


class _File:
    """One download in progress."""

    def __init__(self, item: Download, size: int, parts: int) -> None:
        self.item, self.size, self.left = item, size, parts
        self.out = PartFile(item.path)


class Downloads:
    """One bulk download: large objects as parts shared among the workers, small ones whole."""

    def __init__(self, store: Requests, progress: Progress | None) -> None:
        self._store = store
        self._progress = progress
        self._open: set[_File] = set()
        self._lock = threading.Lock()

    def run(self, items: Iterable[Download], limit: int) -> None:
        """Fetch all; on an error or Ctrl-C nothing half-written stays."""
        try:
            for_each(self._jobs(items), lambda job: job(), limit=limit)
        finally:
            for file in list(self._open):
                file.out.abandon()

    def _jobs(self, items: Iterable[Download]) -> Iterator[Callable[[], None]]:
        for item in items:
            if item.size is None or item.size <= PART_BYTES:
                yield partial(self._whole, item)
                continue
            starts = range(0, item.size, PART_BYTES)
            file = self._begin(item, item.size, len(starts))
            for start in starts:
                yield partial(self._part, file, start, None)

    def _begin(self, item: Download, size: int, parts: int) -> _File:
        file = _File(item, size, parts)
        with self._lock:
            self._open.add(file)
        return file

    def _whole(self, item: Download) -> None:
        size, e_tag, data = self._store.request_whole(item.key)
        if item.size not in (None, size):
            raise Corrupt(
                f"{self._store.uri_of(item.key)} has {size} bytes instead of {item.size}: it was damaged or "
                "changed; upload it again."
            )
        starts = range(0, size, PART_BYTES)
        file = self._begin(item, size, 1 if data is not None else len(starts))
        if data is not None:
            self._wrote(file, 0, data)
            return
        for start in starts:
            self._part(file, start, e_tag)

    def _part(self, file: _File, start: int, e_tag: str | None) -> None:
        end = min(start + PART_BYTES, file.size)
        self._wrote(file, start, self._store.request_part(file.item.key, start, end, e_tag))

    def _wrote(self, file: _File, start: int, data: bytes) -> None:
        file.out.write_at(start, memoryview(data))
        if self._progress:
            self._progress(len(data))
        with self._lock:
            file.left -= 1
            last = file.left == 0
        if last:
            file.out.finish(self._store.uri_of(file.item.key), file.size, file.item.sha256)
            with self._lock:
                self._open.discard(file)
