"""Staged sets as the learning half wants them: a small value that each loader worker opens for itself.

Made by the stage stage. Messages name what the user knows: the place in S3, not the copy on this disk.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rectrain_api.errors import DatasetInvalid
from rectrain_data.joined import JoinedSet
from rectrain_data.labels import LooseSet
from rectrain_data.lmdb_set import LmdbSet
from rectrain_data.packed import PackedSet
from rectrain_data.samples import SampleSet
from rectrain_data.split import EVAL, Split, partition
from rectrain_trainer.parts import Parts


@dataclass(frozen=True)
class StagedSource:
    """A set on this disk, or one part of it."""

    path: Path
    """Folder of a packed set or of an LMDB, a label file, or the folder that `files` begin at."""
    packed: bool
    split: Split | None = None
    """The set's own split."""
    part: Split | None = None
    """A part chosen by hash, for a set without splits."""
    eval_fraction: float = 0.0
    passed_over: tuple[bytes, ...] = ()
    """Of each label file, a bit for each line: set where it is no sample. Empty: all of them are."""
    left_out: bytes = b""
    """A bit for each sample of the whole set: set where it can't be used. Empty: all of them can."""
    files: tuple[Path, ...] = ()
    """Label files that are one set."""
    ratios: tuple[float, ...] = ()
    """The part of each of them that an epoch of training takes; empty: all of all."""

    def open(self) -> "PartOfSet":
        """Open it, in this process."""
        whole = open_set(self.whole)
        indices: Sequence[int] = range(len(whole))
        if self.part is not None:
            identities = [whole.sample_id(i) for i in range(len(whole))]
            train, held_out = partition(identities, eval_fraction=self.eval_fraction)
            indices = held_out if self.part == EVAL else train
        if self.left_out:
            bits = np.unpackbits(np.frombuffer(self.left_out, dtype=np.uint8))
            chosen = np.array(indices, dtype=np.int64)
            indices = chosen[bits[chosen] == 0].tolist()
        return PartOfSet(whole, indices)

    def parts(self) -> Parts | None:
        """Of what an epoch takes a part; None: it takes everything. Raises DatasetInvalid when it is none."""
        if all(ratio == 1 for ratio in self.ratios):
            return None
        opened = self.open()
        assert isinstance(opened.whole, JoinedSet)
        file_of = np.searchsorted(opened.whole.ends, np.array(opened.indices, dtype=np.int64), side="right")
        parts = Parts(tuple(np.flatnonzero(file_of == n) for n in range(len(self.files))), self.ratios)
        if opened.indices and not parts.count:
            raise DatasetInvalid(
                "There is nothing to train on: an epoch takes too little of its label files "
                f"(Train.dataset.ratio_list is {list(self.ratios)})."
            )
        return parts

    def without(self, indices: Iterable[int]) -> "StagedSource":
        """The same but for these samples of the whole set."""
        bad = np.fromiter(indices, dtype=np.int64)
        if not len(bad):
            return self
        bits = np.zeros(len(open_set(self.whole)), dtype=np.uint8)
        bits[bad] = 1
        return replace(self, left_out=np.packbits(bits).tobytes())

    @property
    def whole(self) -> "Whole":
        """The set that it is of."""
        return Whole(self.path, self.packed, self.split, self.files, self.passed_over)

    def name(self, i: int) -> str:
        """Where sample `i` is found."""
        return self.open().name(i)


class Whole(NamedTuple):
    """A set, whole."""

    path: Path
    packed: bool
    split: Split | None = None
    files: tuple[Path, ...] = ()
    passed_over: tuple[bytes, ...] = ()


def wholes_of(*sources: StagedSource) -> list[Whole]:
    """The sets behind these sources, each once, in order."""
    return list(dict.fromkeys(s.whole for s in sources))


def open_set(whole: Whole) -> SampleSet:
    """A staged set. Labels were checked once, when it was staged."""
    path = whole.path
    if whole.packed:
        return PackedSet.open(path, split=whole.split)
    if whole.files:
        others = whole.passed_over or (b"",) * len(whole.files)
        return JoinedSet([LooseSet(f, path, bits) for f, bits in zip(whole.files, others, strict=True)])
    return LmdbSet(path) if path.is_dir() else LooseSet(path, None, *whole.passed_over)


class PartOfSet:
    """Samples of a set by their position in a part."""

    def __init__(self, whole: SampleSet, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def label(self, i: int) -> str:
        """The text in image `i`."""
        return self.whole.label(self.indices[i])

    def image_bytes(self, i: int) -> bytes:
        """The encoded image `i`."""
        return self.whole.image_bytes(self.indices[i])

    def name(self, i: int) -> str:
        """Where sample `i` is found."""
        return str(self.whole.place(self.indices[i]))
