"""PaddleOCR's LMDB layout, read only: `num-samples`, and `image-%09d`, `label-%09d` from 1 on.

Called by the trainer. A folder may hold several, each in a folder of its own (with a `data.mdb`), as
upstream's LMDBDataSet walks them. Every label and key is looked at once by `LmdbSet.open`: upstream takes
`num-samples` at its word and skips what isn't there. A file that was cut off kills the process that maps it,
so its size is compared first.
"""

import bisect
import itertools
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import lmdb

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data.findings import Code, Place, Report
from rectrain_data.labels import CONTROL
from rectrain_data.transfer.files import local_error

DATA: Final = "data.mdb"
_COUNT: Final = b"num-samples"
_META: Final = struct.Struct("=16xI20xI92xQQ")
"""Of a meta page: magic, size of a page, last page, transaction."""
_MAGIC: Final = 0xBEEFC0DE

_open: "weakref.WeakValueDictionary[Path, lmdb.Environment]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def folders_of(root: Path) -> list[Path]:
    """The folders with a data.mdb, in order: `root`, or any below it; each once, whatever links there are."""
    found, seen = [], set()
    for folder, below, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:
            below.clear()
            continue
        seen.add(here)
        below.sort()
        if DATA in files:
            found.append(Path(folder))
    return sorted(found)


class _Part(NamedTuple):
    """One LMDB of the set."""

    folder: Path
    env: lmdb.Environment
    samples: int

    def get(self, kind: str, number: int) -> bytes:
        """The value of one of a sample's keys. Raises DatasetInvalid."""
        key = f"{kind}-{number:09d}"
        try:
            with self.env.begin() as transaction:
                value = transaction.get(key.encode())
        except lmdb.Error as exc:
            _refuse(self.folder, f"is damaged ({exc})")
        if value is None:
            _refuse(self.folder, f"has no {key}")
        return bytes(value)


class LmdbSet:
    """A `rectrain_data.samples.SampleSet` over one LMDB or several. Thread- and fork-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = folders_of(folder)
        if not found:
            raise InputMissing(f"{folder} isn't an LMDB: neither it nor a folder in it holds {DATA}.")
        self._parts = [_open_part(one) for one in found]
        self._ends = list(itertools.accumulate(part.samples for part in self._parts))

    @classmethod
    def open(cls, folder: Path) -> "LmdbSet":
        """Look at every key and label.

        Raises:
            InputMissing: there is no LMDB.
            DatasetInvalid: it isn't one, is cut off, or lacks samples; or a label isn't text.
        """
        found, report = cls(folder), Report()
        for part in found._parts:
            _check_images(part)
            _check_labels(part, report)
        report.raise_if_any()
        return found

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, index: int) -> tuple[_Part, int]:
        """The LMDB of a sample, and its number in it, from 1."""
        which = bisect.bisect_right(self._ends, index)
        part = self._parts[which]
        return part, index - self._ends[which] + part.samples + 1

    def label(self, index: int) -> str:
        """The text in the image."""
        part, number = self._locate(index)
        return part.get("label", number).decode()

    def image_bytes(self, index: int) -> bytes:
        """The encoded image."""
        part, number = self._locate(index)
        return part.get("image", number)

    def sample_id(self, index: int) -> str:
        """Folder and number."""
        part, number = self._locate(index)
        return f"{part.folder.relative_to(self.folder).as_posix()}/{number:09d}"

    def place(self, index: int) -> Place:
        """File and key of the image."""
        part, number = self._locate(index)
        return Place(str(part.folder / DATA), detail=f"image-{number:09d}")


def _open_part(folder: Path) -> _Part:
    path = folder / DATA
    try:
        with path.open("rb") as file:
            _check_size(folder, file.read(2 << 16), os.fstat(file.fileno()).st_size)
    except OSError as exc:
        raise local_error(exc, path) from exc
    try:
        env = _environment(folder.resolve())
        with env.begin() as transaction:
            count = transaction.get(_COUNT)
    except lmdb.Error as exc:
        _refuse(folder, f"is damaged ({exc})")
    if count is None or not count.isdigit():
        said = "no num-samples" if count is None else f"{count[:20]!r} for num-samples"
        raise DatasetInvalid(
            f"{path} has {said}: it isn't in PaddleOCR's layout (num-samples, image-000000001, "
            "label-000000001 and so on)."
        )
    return _Part(folder, env, int(count))


def _environment(folder: Path) -> lmdb.Environment:
    """One a process: LMDB must not be opened twice in it. It is closed when nobody has it any more."""
    with _opening:
        env = _open.get(folder)
        if env is None:
            env = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, max_spare_txns=16)
            _open[folder] = env
        return env


def _check_size(folder: Path, head: bytes, size: int) -> None:
    """Raises DatasetInvalid when it isn't an LMDB, or shorter than it says."""
    first = _meta_of(head, 0)
    if first is None:
        raise DatasetInvalid(f"{folder / DATA} isn't an LMDB: it doesn't begin as one.")
    page = first[1]
    newest = max((m for m in (first, _meta_of(head, page)) if m), key=lambda m: m[3])
    if size < (needed := (newest[2] + 1) * page):
        raise DatasetInvalid(
            f"{folder / DATA} is cut off: it has {size} bytes, and should have {needed}; copy it again."
        )


def _meta_of(head: bytes, offset: int) -> tuple[int, int, int, int] | None:
    """Magic, page size, last page and transaction of a meta page."""
    if len(head) < offset + _META.size:
        return None
    found: tuple[int, int, int, int] = _META.unpack_from(head, offset)
    return found if found[0] == _MAGIC else None


def _check_images(part: _Part) -> None:
    for _ in _values(part, "image"):
        pass


def _check_labels(part: _Part, report: Report) -> None:
    for number, value in enumerate(_values(part, "label"), start=1):
        place = str(part.folder / DATA), None, f"label-{number:09d}"
        try:
            text = bytes(value).decode()
        except UnicodeDecodeError:
            report.add(Code.NOT_UTF8, *place)
            continue
        if text.strip() and CONTROL.search(text):
            report.add(Code.CONTROL_CHARACTER, *place)


def _values(part: _Part, kind: str) -> Iterator[memoryview | bytes]:
    """What each sample has under its key of a kind, in order. Raises DatasetInvalid for the first gap."""
    prefix = f"{kind}-".encode()
    try:
        with part.env.begin(buffers=True) as transaction, transaction.cursor() as cursor:  # copies nothing
            cursor.set_range(prefix)
            rows = cursor.iternext()
            for number in range(1, part.samples + 1):
                key, value = next(rows, (b"", b""))
                if key != b"%s%09d" % (prefix, number):
                    _refuse_gap(part, kind, number, ended=not bytes(key).startswith(prefix))
                yield value
    except lmdb.Error as exc:
        _refuse(part.folder, f"is damaged ({exc})")


def _refuse_gap(part: _Part, kind: str, number: int, *, ended: bool) -> NoReturn:
    key = f"{kind}-{number:09d}"
    if ended:
        _refuse(part.folder, f"counts {part.samples} samples (num-samples) and ends before {key}")
    _refuse(part.folder, f"has no {key}")


def _refuse(folder: Path, why: str) -> NoReturn:
    raise DatasetInvalid(f"{folder / DATA} {why}: make it again, or copy it again.")
