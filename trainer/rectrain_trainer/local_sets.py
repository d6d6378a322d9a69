"""Data of this machine, used where it lies: nothing is copied, and nothing written beside it.

Called by the stage stage for file:// places, which only a run without S3 has.
"""

from pathlib import Path
from typing import NamedTuple

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_api.plan import LabelFiles
from rectrain_data.lmdb_set import DATA, folders_of
from rectrain_data.packed import INDEX, PackedIndex, PackedSet, is_packed
from rectrain_data.split import Split
from rectrain_data.transfer import local_path
from rectrain_trainer.passed_over import PassedOver, Validation, read_local


class LocalSet(NamedTuple):
    """A set, its labels read once."""

    path: Path
    packed: bool = False
    splits: tuple[Split, ...] = ()
    files: tuple[Path, ...] = ()
    ratios: tuple[float, ...] = ()
    passed_over: PassedOver = PassedOver()


def learn_local(
    field: str, path: Path, named: LabelFiles | None, wanted: list[Split], validation: Validation
) -> LocalSet:
    """A packed set, a label file or several, or LMDBs.

    Raises:
        InputMissing: there is no such thing.
        DatasetInvalid: an index or, with Strict, a label file isn't what it should be.
    """
    if named:
        files = tuple(local_path(uri) for uri in named.files)
        folder, ratios = local_path(named.folder), tuple(named.ratios or ())
        others = read_local(folder, files, validation, anywhere=True)
        return LocalSet(folder, files=files, ratios=ratios, passed_over=others)
    if is_packed(path):
        return LocalSet(path, True, splits_of(PackedSet.read_index(path), wanted, str(path)))
    if path.is_dir() and folders_of(path):
        return LocalSet(path)
    if path.is_dir():
        raise InputMissing(
            f"{path} is neither a packed set (it holds no {INDEX}) nor an LMDB (it holds no {DATA}): name a "
            f"label file, or correct data.{field}."
        )
    return LocalSet(path, passed_over=read_local(path.parent, [path], validation))


def splits_of(index: PackedIndex, wanted: list[Split], where: str) -> tuple[Split, ...]:
    """What of a packed set is needed: the wanted splits, or all of a set that has none of them."""
    splits = tuple(s for s in index.splits if s in wanted) or tuple(index.splits)
    if not splits:
        raise DatasetInvalid(f"{where} holds no samples: pack a set with some.")
    return splits
