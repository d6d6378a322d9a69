"""A text file of many lines with random access by line, in little memory. Used by packed indexes and labels.

The file is mapped, and 8 bytes a line are held; a million samples cost 8 MB. Safe across threads and forks
(nothing is shared but read-only pages), and pickled as its path.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_SCAN = 1 << 24


class LineFile:
    """Read-only lines of a file, split at newlines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._size = file.seek(0, 2)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._size else None
        self._ends = self._scan()

    def _scan(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Offset just behind each line's text."""
        found = []
        for start in range(0, self._size, _SCAN):
            block = np.frombuffer(self._bytes(start, min(start + _SCAN, self._size)), dtype=np.uint8)
            found.append(np.flatnonzero(block == 0x0A).astype(np.int64) + start)
        if self._size and self._bytes(self._size - 1, self._size) != b"\n":
            found.append(np.array([self._size], dtype=np.int64))
        return np.concatenate(found) if found else np.empty(0, dtype=np.int64)

    def _bytes(self, start: int, end: int) -> bytes:
        return self._map[start:end] if self._map is not None else b""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self._ends):
            raise IndexError(f"{self.path} has {len(self._ends)} lines, not {index + 1}")
        start = int(self._ends[index - 1]) + 1 if index else 0
        return self._bytes(start, int(self._ends[index]))

    def __iter__(self) -> Iterator[bytes]:
        for index in range(len(self)):
            yield self[index]

    def __reduce__(self) -> tuple[type["LineFile"], tuple[Path]]:
        return (LineFile, (self.path,))
