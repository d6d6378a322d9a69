"""Reads a packed set from the disk: random access without unpacking. Called by the trainer's loader.

Memory is 8 bytes a sample; images are read with pread, sample lines through a read-only map, so that one
open set serves all threads, and the worker processes forked from it.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import dictionary
from rectrain_data.findings import Place
from rectrain_data.lines import LineFile
from rectrain_data.packed.index import (
    DICTIONARY,
    INDEX,
    Entry,
    PackedIndex,
    StoredFile,
    lines_name,
    parse_entry,
    read_index,
)
from rectrain_data.split import Split
from rectrain_data.transfer.files import local_error, sha256_bytes, sha256_file


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a packed set."""
    return (folder / INDEX).is_file()


class PackedSet:
    """Samples of one split of a packed set, or of all. A `rectrain_data.samples.SampleSet`."""

    def __init__(self, folder: Path, index: PackedIndex, splits: Sequence[Split]) -> None:
        self.folder = folder
        self.index = index
        self.splits = list(splits)
        self._lines = [LineFile(self._file(lines_name(split))) for split in splits]
        self._shards: dict[int, int] = {}
        for split, lines in zip(splits, self._lines, strict=True):
            if len(lines) != index.counts[split]:
                raise DatasetInvalid(
                    f"{lines.path} has {len(lines)} samples and {folder / INDEX} counts "
                    f"{index.counts[split]}: pack the set again, or fetch it again."
                )
        for number, shard in enumerate(index.shards):
            if shard.split in splits:
                self._shards[number] = self._open_shard(self._file(shard.name))

    @classmethod
    def open(cls, folder: Path, split: Split | None = None) -> "PackedSet":
        """The set in a folder: one split, or all one after the other.

        Raises:
            InputMissing: a file isn't there.
            DatasetInvalid: there is no such split, or a file contradicts index.json.
        """
        index = cls.read_index(folder)
        if split is not None and split not in index.splits:
            raise DatasetInvalid(
                f"{folder} has no {split} split (it has {' and '.join(index.splits) or 'none'}): "
                "pack it with one, or name another set."
            )
        return cls(folder, index, index.splits if split is None else [split])

    @classmethod
    def files(cls, folder: Path) -> list[StoredFile]:
        """What belongs to the set besides index.json, which alone must be there."""
        return cls.read_index(folder).files

    @staticmethod
    def read_index(folder: Path) -> PackedIndex:
        """index.json of a folder. Raises InputMissing, DatasetInvalid."""
        path = folder / INDEX
        try:
            return read_index(path.read_bytes(), str(path))
        except FileNotFoundError as exc:
            raise InputMissing(
                f"{folder} isn't a packed set (it has no {INDEX}): make one with rectrain-data pack."
            ) from exc
        except OSError as exc:
            raise local_error(exc, path) from exc

    def close(self) -> None:
        """Give the files back. The set is unusable afterwards."""
        for descriptor in self._shards.values():
            os.close(descriptor)
        self._shards = {}

    def __len__(self) -> int:
        return sum(len(lines) for lines in self._lines)

    def entry(self, index: int) -> Entry:
        """All that the index holds of a sample. Raises DatasetInvalid, IndexError."""
        left = index
        for split, lines in zip(self.splits, self._lines, strict=True):
            if 0 <= left < len(lines):
                return parse_entry(lines[left], self.index, split, f"{lines.path} line {left + 1}")
            left -= len(lines)
        raise IndexError(f"{self.folder} has {len(self)} samples, not {index + 1}")

    def label(self, index: int) -> str:
        """The text in the image."""
        return self.entry(index).label

    def sample_id(self, index: int) -> str:
        """The name of the image in its tar."""
        return self.entry(index).name

    def place(self, index: int) -> Place:
        """The set, and the image in it."""
        entry = self.entry(index)
        return Place(str(self.folder / self.index.shards[entry.shard].name), None, entry.name)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image. Raises DatasetInvalid when the shard is cut off."""
        return self._read(self.entry(index))

    def dictionary(self) -> dictionary.Dictionary:
        """The characters that the set was packed with. Raises DatasetInvalid, InputMissing."""
        found = dictionary.read(self._file(DICTIONARY))
        return dictionary.Dictionary(found.characters, self.index.use_space_char, found.source)

    def verify_index(self) -> None:
        """Check every sample's line: afterwards no access fails but for the disk. Raises DatasetInvalid."""
        for number in range(len(self)):
            self.entry(number)

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Compare every file with index.json, and every image with its line. Raises DatasetInvalid."""
        for stored in self.index.files_of(self.splits):
            path = self._file(stored.name)
            if path.stat().st_size != stored.size or sha256_file(path) != stored.sha256:
                raise DatasetInvalid(
                    f"{path} isn't what {self.folder / INDEX} says (size or sha256): it was damaged or "
                    "changed; pack the set again, or fetch it again."
                )
            if progress:
                progress(stored.size)
        for number in range(len(self)):
            entry = self.entry(number)
            if sha256_bytes(self._read(entry)) != entry.sha256:
                raise DatasetInvalid(f"{self.place(number)} doesn't match its sha256: pack the set again.")

    def __reduce__(self) -> tuple[Callable[..., "PackedSet"], tuple[object, ...]]:
        return (PackedSet, (self.folder, self.index, self.splits))

    def __del__(self) -> None:
        if hasattr(self, "_shards"):
            self.close()

    def _read(self, entry: Entry) -> bytes:
        data = os.pread(self._shards[entry.shard], entry.length, entry.offset)
        if len(data) != entry.length:
            raise DatasetInvalid(
                f"{self.folder / self.index.shards[entry.shard].name} ends before byte "
                f"{entry.offset + entry.length}: it was cut off; fetch it again."
            )
        return data

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise InputMissing(f"{path} of the packed set isn't there: fetch the set again.")
        return path

    @staticmethod
    def _open_shard(path: Path) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise local_error(exc, path) from exc
