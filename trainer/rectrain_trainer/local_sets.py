"""Data of this machine, used where it lies: nothing is copied, and nothing written beside it.

Called by the stage stage for file:// places, which only a run without S3 has.
"""

from pathlib import Path
from typing import NamedTuple

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_api.plan import LabelFiles
from rectrain_data import labels
from rectrain_data.findings import Report
from rectrain_data.lmdb_set import DATA, folders_of
from rectrain_data.packed import INDEX, PackedIndex, PackedSet, is_packed
from rectrain_data.split import Split
from rectrain_data.transfer import local_path


class LocalSet(NamedTuple):
    """A set, its labels read once."""

    path: Path
    packed: bool = False
    splits: tuple[Split, ...] = ()
    files: tuple[Path, ...] = ()
    ratios: tuple[float, ...] = ()


def learn_local(field: str, path: Path, named: LabelFiles | None, wanted: list[Split]) -> LocalSet:
    """A packed set, a label file or several, or LMDBs.

    Raises:
        InputMissing: there is no such thing.
        DatasetInvalid: a label file or an index isn't what it should be.
    """
    if named:
        files = tuple(local_path(uri) for uri in named.files)
        _read(local_path(named.folder), *files, anywhere=True)
        return LocalSet(local_path(named.folder), files=files, ratios=tuple(named.ratios or ()))
    if is_packed(path):
        return LocalSet(path, True, splits_of(PackedSet.read_index(path), wanted, str(path)))
    if path.is_dir() and folders_of(path):
        return LocalSet(path)
    if path.is_dir():
        raise InputMissing(
            f"{path} is neither a packed set (it holds no {INDEX}) nor an LMDB (it holds no {DATA}): name a "
            f"label file, or correct data.{field}."
        )
    _read(path.parent, path)
    return LocalSet(path)


def splits_of(index: PackedIndex, wanted: list[Split], where: str) -> tuple[Split, ...]:
    """What of a packed set is needed: the wanted splits, or all of a set that has none of them."""
    splits = tuple(s for s in index.splits if s in wanted) or tuple(index.splits)
    if not splits:
        raise DatasetInvalid(f"{where} holds no samples: pack a set with some.")
    return splits


def _read(folder: Path, *files: Path, anywhere: bool = False) -> None:
    """Raises what is wrong with label files, with all of them at once, and which images aren't there."""
    report, missing, count = Report(), "", 0
    for file in files:
        for row in labels.read(file, report, anywhere=anywhere):
            if not (folder / row.path).is_file():
                missing, count = missing or f"{folder / row.path} ({file} line {row.line})", count + 1
    report.raise_if_any()
    if count:
        many = f", nor are {count - 1} more" if count > 1 else ""
        raise InputMissing(
            f"The image {missing} isn't there{many}: add it, remove its line, or correct the folder that the "
            "paths begin at."
        )
