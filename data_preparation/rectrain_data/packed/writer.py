"""Writes a packed set, whole or not at all. Called by `rectrain-data demo|convert|pack`.

Everything goes into a folder beside the target, index.json last; then one rename makes the set. Ctrl-C
or a crash leaves at most that folder, which no reader takes for a set. The same samples in the same order
give the same bytes.
"""

import contextlib
import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from rectrain_api.errors import DatasetInvalid
from rectrain_data.dictionary import CharacterCounts, Dictionary, from_counts, missing
from rectrain_data.findings import Code, Place, Report, sentence
from rectrain_data.labels import faults_of
from rectrain_data.packed.index import (
    DICTIONARY,
    INDEX,
    Entry,
    PackedIndex,
    Shard,
    StoredFile,
    lines_name,
)
from rectrain_data.split import EVAL, TRAIN, Split
from rectrain_data.transfer.files import local_error, sha256_file
from rectrain_data.wholeness import put_in_place, refuse_existing

MIB = 1 << 20
MIN_SHARD_BYTES = 64 * MIB
MAX_SHARD_BYTES = 256 * MIB
DEFAULT_SHARD_BYTES = 128 * MIB
_TAR_END = b"\0" * 1024
_BLOCK = 512


class _ShardFile:
    """One tar being written; offsets are known as it grows."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0
        self.samples = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        offset = self.size
        self._write(data)
        self._write(b"\0" * (-len(data) % _BLOCK))
        self.samples += 1
        return offset

    def close(self) -> str:
        """Ends the archive; returns its sha256."""
        self._write(_TAR_END)
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Closes it as it is."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)


class PackedWriter:
    """Use as a context manager: `add` samples, then `finish`; leaving without it removes everything."""

    def __init__(self, target: Path, *, shard_bytes: int = DEFAULT_SHARD_BYTES) -> None:
        refuse_existing(target)
        self.target = target
        self._shard_bytes = shard_bytes
        self._folder = target.with_name(f".{target.name}.{os.getpid()}.part")
        self._open: dict[Split, tuple[int, _ShardFile]] = {}
        self._lines: dict[Split, BinaryIO] = {}
        self._shards: list[Shard] = []
        self._files: list[StoredFile] = []
        self._names: set[bytes] = set()
        self._counts: dict[Split, int] = {TRAIN: 0, EVAL: 0}
        self._characters = CharacterCounts()
        self._heights: set[int] = set()
        self._longest = 0

    def __enter__(self) -> Self:
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            (self._folder / "shards").mkdir(parents=True)
            (self._folder / "index").mkdir()
        except OSError as exc:
            raise local_error(exc, self.target) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shards = [shard.abandon for _, shard in self._open.values()]
        for close in (*shards, *(file.close for file in self._lines.values())):
            with contextlib.suppress(OSError):  # a full disk doesn't take what was buffered
                close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise local_error(error, self.target) from error

    def add(self, split: Split, name: str, data: bytes, label: str, *, width: int, height: int) -> None:
        """Append one sample. Raises DatasetInvalid for a name or label that no set may hold."""
        self._check(name, label)
        number, shard = self._shard_for(split, len(data))
        offset = shard.add(name, data)
        entry = Entry(
            shard=number,
            offset=offset,
            length=len(data),
            name=name,
            label=label,
            sha256=hashlib.sha256(data).hexdigest(),
            width=width,
            height=height,
        )
        if split not in self._lines:
            self._lines[split] = (self._folder / lines_name(split)).open("wb")
        self._lines[split].write(entry.to_line())
        self._counts[split] += 1
        self._characters.add(label, lambda: Place(name))
        self._heights.add(height)
        self._longest = max(self._longest, len(label))

    def finish(self, dictionary: Dictionary | None = None) -> PackedIndex:
        """Write the rest, index.json last, and rename the set into place.

        Raises:
            DatasetInvalid: no samples, or characters that the given dictionary lacks.
        """
        if not sum(self._counts.values()):
            report = Report()
            report.add(Code.NO_SAMPLES, str(self.target))
            report.raise_if_any()
        chosen = from_counts(self._characters) if dictionary is None else dictionary
        chosen = chosen.with_space_of(self._characters)
        lacking = missing(chosen, self._characters)
        if lacking:
            raise DatasetInvalid(sentence([lacking]))
        for split in list(self._open):
            self._close_shard(split)
        for split, file in self._lines.items():
            file.close()
            self._note(lines_name(split))
        chosen.write(self._folder / DICTIONARY)
        self._note(DICTIONARY)
        index = PackedIndex(
            height=next(iter(self._heights)) if len(self._heights) == 1 else None,
            max_label_length=self._longest,
            use_space_char=chosen.use_space_char,
            counts=self._counts,
            shards=self._shards,
            files=sorted(self._files, key=lambda file: file.name),
        )
        (self._folder / INDEX).write_bytes(index.to_json())
        put_in_place(self._folder, self.target)
        return index

    def _check(self, name: str, label: str) -> None:
        report = Report()
        for code, detail in faults_of(name, label):
            report.add(code, name, detail=detail)
        key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if key in self._names:
            report.add(Code.DUPLICATE_PATH, name)
        self._names.add(key)
        report.raise_if_any()

    def _shard_for(self, split: Split, length: int) -> tuple[int, _ShardFile]:
        if split in self._open and self._open[split][1].size + length + 2 * _BLOCK > self._shard_bytes:
            self._close_shard(split)
        if split not in self._open:
            number = len(self._shards)
            name = f"shards/{number:05d}.tar"
            self._shards.append(Shard(name=name, split=split, samples=0))
            self._open[split] = (number, _ShardFile(self._folder / name))
        return self._open[split]

    def _close_shard(self, split: Split) -> None:
        number, shard = self._open.pop(split)
        digest = shard.close()
        name = self._shards[number].name
        self._shards[number] = Shard(name=name, split=split, samples=shard.samples)
        self._files.append(StoredFile(name=name, size=shard.size, sha256=digest))

    def _note(self, name: str) -> None:
        path = self._folder / name
        self._files.append(StoredFile(name=name, size=path.stat().st_size, sha256=sha256_file(path)))
