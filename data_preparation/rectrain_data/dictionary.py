"""The characters that a model tells apart: one code point a line, never a space line.

The space is a switch of its own (`use_space_char`), derived from what the labels need: upstream adds it
at the end of the dictionary, and a space line besides gives two. Called by `rectrain-data` and the
trainer; the dictionaries that upstream ships are found without importing paddle. Those of its 3.x, which
2.10 lacks, are here in `dictionaries`.
"""

import difflib
import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from rectrain_api.errors import InputMissing
from rectrain_data.findings import Code, Finding, Place, Report
from rectrain_data.samples import SampleSet
from rectrain_data.transfer.files import local_error

SPACE = " "
_UPSTREAM = "unstructured_paddleocr"
_OURS = Path(__file__).parent / "dictionaries"


@dataclass(frozen=True)
class Dictionary:
    """Characters in the order of the model's output; the space isn't among them."""

    characters: tuple[str, ...]
    use_space_char: bool = False
    source: str = ""

    def __len__(self) -> int:
        return len(self.characters) + self.use_space_char

    def __contains__(self, character: object) -> bool:
        return character in self.known

    @cached_property
    def known(self) -> frozenset[str]:
        """All that a label may hold, the space if it is on among them."""
        return frozenset(self.characters) | ({SPACE} if self.use_space_char else set())

    def with_space_of(self, counts: "CharacterCounts") -> "Dictionary":
        """The same characters, with the space switched on when the labels hold one."""
        return replace(self, use_space_char=self.use_space_char or SPACE in counts.counts)

    def write(self, path: Path) -> None:
        """One character a line, UTF-8."""
        path.write_bytes("".join(f"{c}\n" for c in self.characters).encode())


@dataclass
class CharacterCounts:
    """How often each character occurs in labels, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, Place] = field(default_factory=dict)

    def add(self, text: str, place: Place | Callable[[], Place]) -> None:
        """Count one label. A place that is costly to tell is asked for when a character is new."""
        for character in set(text).difference(self.first):
            self.first[character] = place() if callable(place) else place
        self.counts.update(text)


def count_set(samples: SampleSet, *others: SampleSet) -> CharacterCounts:
    """Characters of all labels of one set or more, streaming."""
    counts = CharacterCounts()
    for one in (samples, *others):
        for index in range(len(one)):
            counts.add(one.label(index), partial(one.place, index))
    return counts


def from_counts(counts: CharacterCounts, source: str = "the labels") -> Dictionary:
    """The dictionary that covers these labels: code points in order, so that it is stable."""
    return Dictionary(tuple(sorted(set(counts.counts) - {SPACE})), SPACE in counts.counts, source)


def missing(dictionary: Dictionary, counts: CharacterCounts) -> Finding | None:
    """Characters of the labels that the dictionary lacks, most frequent first, or None."""
    lacking = [(c, n) for c, n in counts.counts.most_common() if c not in dictionary]
    if not lacking:
        return None
    finding = Finding(Code.UNKNOWN_CHARACTER)
    for character, count in lacking:
        place = counts.first[character]
        times = f"{count} time{'s' if count > 1 else ''}"
        where = f"{place.detail}, " if place.detail else ""
        finding.add(Place(place.file, place.line, f"{where}{describe(character)}, {times}"))
    return finding


def describe(character: str) -> str:
    """A character so that it can be seen and found: "ฃ" U+0E03."""
    shown = f'"{character}" ' if character.isprintable() else ""
    return shown + " ".join(f"U+{ord(c):04X}" for c in character)


def parse(data: bytes, source: str, report: Report) -> Dictionary:
    """A dictionary file. A line that is one space switches the space on, as upstream's en_dict does."""
    characters: dict[str, int] = {}
    space = False
    for number, raw in enumerate(_lines(data), start=1):
        try:
            text = raw.removesuffix(b"\r").decode("utf-8").removeprefix("\ufeff" if number == 1 else "")
        except UnicodeDecodeError:
            report.add(Code.NOT_UTF8, source, number)
            continue
        if text == SPACE:
            space = True
        elif len(text) != 1:
            report.add(Code.DICTIONARY_LINE, source, number, repr(text))
        elif characters.setdefault(text, number) != number:
            report.add(Code.DICTIONARY_DUPLICATE, source, number, describe(text))
    if not characters:
        report.add(Code.DICTIONARY_EMPTY, source)
    return Dictionary(tuple(characters), space, source)


def read(path: Path, source: str | None = None) -> Dictionary:
    """A user's dictionary file, strictly. `source` is how messages name it.

    Raises:
        InputMissing: there is no such file.
        DatasetInvalid: a line isn't one character, or stands twice.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise local_error(exc, path) from exc
    report = Report()
    found = parse(data, source or str(path), report)
    report.raise_if_any()
    return found


def builtin(name: str) -> Dictionary:
    """One of PaddleOCR's own, by file name without .txt. Lines that can never match (several code points,
    duplicates) are left out: upstream's models carry them as dead classes.

    Raises:
        InputMissing: there is no dictionary of that name.
    """
    found = builtin_names()
    if name not in found:
        near = difflib.get_close_matches(name, found)
        known = near or sorted(found) or ["none (PaddleOCR is not installed)"]
        raise InputMissing(
            f"There is no built-in dictionary {name!r}: use FromLabels, an s3:// URI of a text file, or one "
            f"of {', '.join(known)}{f' (or another of the {len(found)})' if near else ''}."
        )
    return parse(found[name].read_bytes(), name, Report())


def builtin_names() -> dict[str, Path]:
    """Names and files of the dictionaries of PaddleOCR: of the checkout in PADDLEOCR_HOME or of the package,
    and beside them those that we have."""
    return {file.stem: file for file in sorted(_OURS.glob("*.txt"))} | _upstreams()


def _upstreams() -> dict[str, Path]:
    home = os.environ.get("PADDLEOCR_HOME")
    spec = None if home else importlib.util.find_spec(_UPSTREAM)
    if spec is not None and spec.origin:
        home = str(Path(spec.origin).parent)  # once on sys.path, a module in it is found by its name
    if not home:
        return {}
    utils = Path(home) / "ppocr" / "utils"
    files = [*utils.glob("dict/*_dict.txt"), *utils.glob("*dict*.txt"), *utils.glob("ppocr_keys_v1.txt")]
    return {file.stem: file for file in files if "table" not in file.stem}


def _lines(data: bytes) -> list[bytes]:
    """Lines by newline alone: a dictionary may hold U+2028 and other characters that split a line."""
    lines = data.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines
