"""PaddleOCR's label format, the interchange format: `image_path<TAB>text`, UTF-8, one sample a line.

Read strictly: upstream drops or mangles what it doesn't understand (text after a second tab, a BOM stuck
to the first path, a CR kept in the text), so every such line is a finding with its number. Called by
`rectrain-data` and the trainer's check stage; `LooseSet` is a label file with its images beside it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data.findings import Code, Place, Report
from rectrain_data.lines import LineFile
from rectrain_data.transfer.files import local_error

_BOM = b"\xef\xbb\xbf"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc and Cs."""
_NOWHERE = frozenset(("", ".", ".."))
Fault = tuple[Code, str]


@dataclass(frozen=True, slots=True)
class Label:
    """One line: an image path as written (relative, `/`), its text, and the line's number from 1."""

    path: str
    text: str
    line: int


def parse(lines: Iterable[bytes], file: str, report: Report, *, anywhere: bool = False) -> Iterator[Label]:
    """The good lines, in order; what is wrong with the others goes into the report. Pure, streaming.

    `anywhere`: paths may leave the folder. They may on the user's own machine.
    """
    seen: dict[bytes, int] = {}  # digests: paths of a million lines would cost far more
    number = 0
    for number, raw in enumerate(lines, start=1):
        label, faults = parse_line(raw.removesuffix(b"\n"), number, anywhere=anywhere)
        for code, detail in faults:
            report.add(code, file, number, detail)
        if label is None:
            continue
        first = seen.setdefault(hashlib.blake2b(label.path.encode(), digest_size=12).digest(), number)
        if first == number:
            yield label
        else:
            report.add(Code.DUPLICATE_PATH, file, number, f"{label.path}, first at line {first}")
    if number == 0:
        report.add(Code.NO_SAMPLES, file)


def parse_line(raw: bytes, number: int, *, anywhere: bool = False) -> tuple[Label | None, list[Fault]]:
    """One line without its newline: the label if nothing is wrong with it, and what is."""
    faults: list[Fault] = []
    if number == 1 and raw.startswith(_BOM):
        faults.append((Code.BOM, ""))
        raw = raw.removeprefix(_BOM)
    if raw.endswith(b"\r"):
        faults.append((Code.CRLF, ""))
        raw = raw.removesuffix(b"\r")
    if not raw.strip():
        return None, [*faults, (Code.BLANK_LINE, "")]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        return None, [*faults, (Code.NOT_UTF8, f"byte {exc.start + 1} of the line")]
    path, tab, content = text.partition("\t")
    if not tab:
        return None, [*faults, (Code.NO_TAB, "")]
    faults += faults_of(path, content, anywhere=anywhere)
    return (None if faults else Label(path, content, number)), faults


def faults_of(path: str, text: str, *, anywhere: bool = False) -> list[Fault]:
    """What is wrong with a path and its text, wherever they come from."""
    faults: list[Fault] = []
    named = anywhere and bool(path.strip()) and not CONTROL.search(path)
    if not named and not is_inside(path):
        faults.append((Code.PATH_OUTSIDE, repr(path)))
    if "\t" in text:
        faults.append((Code.EXTRA_TAB, path))
    elif not text.strip():
        faults.append((Code.EMPTY_LABEL, path))
    elif CONTROL.search(text):
        faults.append((Code.CONTROL_CHARACTER, path))
    return faults


def is_inside(path: str) -> bool:
    """Whether a relative path stays in its folder, as a path, as a tar member and as an S3 key."""
    if path != path.strip() or "\\" in path or CONTROL.search(path):
        return False
    return _NOWHERE.isdisjoint(path.split("/"))


def read(path: Path, report: Report, *, anywhere: bool = False) -> Iterator[Label]:
    """The good lines of a label file. Raises InputMissing, PermissionRefused."""
    try:
        with path.open("rb") as file:
            yield from parse(file, str(path), report, anywhere=anywhere)
    except OSError as exc:
        raise local_error(exc, path) from exc


def write(path: Path, labels: Iterable[tuple[str, str]]) -> int:
    """Write (image path, text) pairs; returns how many. The file appears when whole.

    Raises:
        DatasetInvalid: a pair can't be written so that it reads back the same.
    """
    part, count = path.with_name(path.name + ".part"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for count, (image, text) in enumerate(labels, start=1):
                file.write(format_line(image, text, f"{path} line {count}"))
        part.replace(path)
    except OSError as exc:
        raise local_error(exc, path) from exc
    finally:
        part.unlink(missing_ok=True)
    return count


def format_line(image: str, text: str, where: str) -> bytes:
    """One line of a label file. Raises DatasetInvalid."""
    report = Report()
    for code, detail in faults_of(image, text):
        report.add(code, where, detail=detail)
    report.raise_if_any()
    return f"{image}\t{text}\n".encode()


class LooseSet:
    """A label file with its images beside it: random access, 8 bytes of memory a sample (16 where lines are
    passed over).

    A `rectrain_data.samples.SampleSet`. Thread- and fork-safe.
    """

    def __init__(self, file: Path, folder: Path | None = None, passed_over: bytes = b"") -> None:
        """`folder`: where the paths begin, if not beside the file; they may leave it.

        `passed_over`: a bit for each line, set where it is no sample. Empty: all of them are.
        """
        self.file = file
        self.folder = folder or file.parent
        self._anywhere = folder is not None
        try:
            self._lines = LineFile(file)
        except OSError as exc:
            raise local_error(exc, file) from exc
        self._rows: Sequence[int] = range(len(self._lines))
        if passed_over:
            bits = np.unpackbits(np.frombuffer(passed_over, dtype=np.uint8), count=len(self._lines))
            self._rows = np.flatnonzero(bits == 0)  # type: ignore[assignment]

    @classmethod
    def open(cls, file: Path) -> "LooseSet":
        """Read and check every line.

        Raises:
            InputMissing: there is no such file.
            DatasetInvalid: a line isn't a good label; the message says which, why, and how to mend it.
        """
        report = Report()
        for _ in read(file, report):
            pass
        report.raise_if_any()
        return cls(file)

    def __len__(self) -> int:
        return len(self._rows)

    def _line(self, index: int) -> Label:
        row = int(self._rows[index])
        label, faults = parse_line(self._lines[row], row + 1, anywhere=self._anywhere)
        if label is None:
            report = Report()
            for code, detail in faults:
                report.add(code, str(self.file), row + 1, detail)
            raise DatasetInvalid(f"{self.file} was changed while it was in use: {report.findings[0]}.")
        return label

    def label(self, index: int) -> str:
        """The text in the image."""
        return self._line(index).text

    def sample_id(self, index: int) -> str:
        """The image path, as written."""
        return self._line(index).path

    def place(self, index: int) -> Place:
        """The line of the label file, and the image."""
        label = self._line(index)
        return Place(str(self.file), label.line, label.path)

    def image_path(self, index: int) -> Path:
        """The image on the disk."""
        return self.folder / self.sample_id(index)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image. Raises InputMissing."""
        path = self.image_path(index)
        try:
            if not path.is_file():  # a pipe would be waited for, for ever
                raise FileNotFoundError
            return path.read_bytes()
        except FileNotFoundError as exc:
            raise InputMissing(
                f"The image {path}, named in {self.file} line {self._line(index).line}, isn't there: add it, "
                "or remove the line."
            ) from exc
        except OSError as exc:
            raise local_error(exc, path) from exc
