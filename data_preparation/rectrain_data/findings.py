"""What is wrong with a data set: stable codes, places and a sentence each. Pure.

Shared by the label reader, the dictionary, the checks and, through them, the trainer's check stage. A set
may hold a million bad rows, so a `Report` keeps a count and the first places of each code only.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from rectrain_api.errors import DatasetInvalid

_PLACES_KEPT = 5
_FINDINGS_IN_SENTENCE = 3


class Code(StrEnum):
    """Never renumbered; reasons and docs refer to them."""

    NOT_UTF8 = "RD001"
    BOM = "RD002"
    CRLF = "RD003"
    NO_TAB = "RD004"
    EXTRA_TAB = "RD005"
    EMPTY_LABEL = "RD006"
    BLANK_LINE = "RD007"
    PATH_OUTSIDE = "RD008"
    DUPLICATE_PATH = "RD009"
    IMAGE_MISSING = "RD010"
    IMAGE_UNREADABLE = "RD011"
    UNKNOWN_CHARACTER = "RD012"
    LABEL_TOO_LONG = "RD013"
    CTC_INFEASIBLE = "RD014"
    NO_SAMPLES = "RD015"
    CONTROL_CHARACTER = "RD016"
    DICTIONARY_LINE = "RD017"
    DICTIONARY_DUPLICATE = "RD018"
    DICTIONARY_EMPTY = "RD019"
    UNKNOWN_LABEL = "RD020"
    BATCH_EXCEEDS_DATA = "RD021"
    FEW_EVALUATIONS = "RD022"
    WARMUP_TOO_LONG = "RD023"
    SMOKE_TEST = "RD025"
    FRESH_HEAD = "RD026"


WARNINGS = frozenset((Code.BATCH_EXCEEDS_DATA, Code.FEW_EVALUATIONS, Code.FRESH_HEAD))
"""Said, and never refused; every other code is an error."""
SCHEDULE = frozenset((Code.BATCH_EXCEEDS_DATA, Code.FEW_EVALUATIONS, Code.WARMUP_TOO_LONG))
"""Of the run's settings, not of its data."""

# What is wrong, and how to mend it; one row a code, so that no code lacks either.
_WORDS: dict[Code, tuple[str, str]] = {
    Code.NOT_UTF8: ("the text isn't UTF-8", "save the file as UTF-8"),
    Code.BOM: ("the file begins with a byte order mark", "save the file as UTF-8 without BOM"),
    Code.CRLF: ("the line ends with a carriage return", "convert the file to Unix line ends (dos2unix)"),
    Code.NO_TAB: ("there is no tab between image path and text", "write path, tab, text"),
    Code.EXTRA_TAB: (
        "the text holds a second tab, and PaddleOCR drops what is behind it",
        "replace tabs in the text by spaces",
    ),
    Code.EMPTY_LABEL: ("the label is empty", "write the text, or remove the line"),
    Code.BLANK_LINE: ("the line is blank", "remove it"),
    Code.PATH_OUTSIDE: (
        "the image path leaves the folder of the label file",
        "write a path relative to that folder, with '/' and without '..'",
    ),
    Code.DUPLICATE_PATH: ("the image is listed twice", "keep one of the lines"),
    Code.IMAGE_MISSING: ("the image isn't there", "add the file, or remove its line"),
    Code.IMAGE_UNREADABLE: ("the image can't be decoded", "replace it, or remove the sample"),
    Code.UNKNOWN_CHARACTER: (
        "labels have characters that the dictionary lacks",
        "add them to the dictionary (or set data.dictionary: FromLabels), or correct the labels",
    ),
    Code.LABEL_TOO_LONG: (
        "the label is longer than the model reads",
        "shorten it, or use a model.preset that reads longer texts",
    ),
    Code.CTC_INFEASIBLE: (
        "the label is too long for the width of the model's input (CTC needs a step for each character, and "
        "one between equal ones)",
        "remove the sample, or use a model.preset with wider input",
    ),
    Code.NO_SAMPLES: ("there are no samples", "add labelled images"),
    Code.CONTROL_CHARACTER: ("the label holds a control character", "remove it"),
    Code.DICTIONARY_LINE: (
        "the line isn't exactly one character, so it could never match",
        "write one character a line, as UTF-8",
    ),
    Code.DICTIONARY_DUPLICATE: ("the character is listed twice", "keep one of the lines"),
    Code.DICTIONARY_EMPTY: ("there are no characters", "write one character a line"),
    Code.UNKNOWN_LABEL: (
        "the dictionary has none of the label's characters",
        "use a dictionary of this language (or data.dictionary: FromLabels), or correct the labels",
    ),
    Code.BATCH_EXCEEDS_DATA: (
        "a batch is larger than the training set, so that an epoch is a single step",
        "lower training.batchSize, or add data",
    ),
    Code.FEW_EVALUATIONS: (
        "fewer than three evaluations in the run, so that there is little to choose the best weights from",
        "lower training.evalInterval, or raise training.epochs",
    ),
    Code.WARMUP_TOO_LONG: (
        "the schedule of the learning rate reaches the end of the run, or beyond",
        "raise training.epochs, or shorten the schedule (model.overrides)",
    ),
    Code.SMOKE_TEST: (
        "the model couldn't learn a few images by heart",
        "see that images and labels belong together, and try another training.learningRate",
    ),
    Code.FRESH_HEAD: (
        "no character is carried over from the weights to start from, so that reading is learnt anew",
        "see that they are the ones you mean, and name their dictionary (model.pretrained.dictionary)",
    ),
}


@dataclass(frozen=True)
class Place:
    """Where: a file, a line of it (from 1), and what of it."""

    file: str
    line: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        where = f"{self.file} line {self.line}" if self.line else self.file
        return f"{where} ({self.detail})" if self.detail else where


@dataclass
class Finding:
    """One kind of fault: how often, and where first."""

    code: Code
    count: int = 0
    places: list[Place] = field(default_factory=list)

    @property
    def is_error(self) -> bool:
        """Whether validation refuses it, where it is strict."""
        return self.code not in WARNINGS

    @property
    def is_of_schedule(self) -> bool:
        """Whether no sample is at fault."""
        return self.code in SCHEDULE

    @property
    def first(self) -> Place:
        """Where it was met first."""
        return self.places[0]

    def add(self, place: Place) -> None:
        """One more."""
        self.count += 1
        if len(self.places) < _PLACES_KEPT:
            self.places.append(place)

    def __str__(self) -> str:
        what, mend = _WORDS[self.code]
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.code} at {self.first}{more}: {what}; {mend}"


class Report:
    """Findings by code, in the order of their first place."""

    def __init__(self) -> None:
        self._by_code: dict[Code, Finding] = {}

    def add(self, code: Code, file: str, line: int | None = None, detail: str = "") -> None:
        """Note one fault."""
        self._by_code.setdefault(code, Finding(code)).add(Place(file, line, detail))

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return list(self._by_code.values())

    def raise_if_any(self) -> None:
        """Raises DatasetInvalid naming the first few."""
        if self._by_code:
            raise DatasetInvalid(sentence(self.findings))


def codes(findings: Iterable[Finding], what: str = "The data can't be trained on") -> str:
    """The same of findings that are shown besides."""
    return f"{what}: see the findings ({', '.join(dict.fromkeys(f.code for f in findings))})."


def sentence(findings: Iterable[Finding], what: str = "The data can't be trained on") -> str:
    """What an error or a status says of these findings."""
    found = list(findings)
    said = ". ".join(str(f) for f in found[:_FINDINGS_IN_SENTENCE])
    rest = len(found) - _FINDINGS_IN_SENTENCE
    more = f" ({rest} more kind{'s' if rest > 1 else ''} of fault)" if rest > 0 else ""
    return f"{what}: {said}{more}."
