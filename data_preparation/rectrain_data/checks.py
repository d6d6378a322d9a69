"""Looks at a data set before a GPU is paid for: every label, every image's bytes, and as many decoded images
as fit into half a minute.

`check_set` is what the trainer's check stage calls; the rules beneath it are pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import images
from rectrain_data.dictionary import CharacterCounts, Dictionary, missing
from rectrain_data.findings import Code, Finding, Report
from rectrain_data.ordered import map_ordered
from rectrain_data.samples import SampleSet

DECODED: Final = 10_000
"""Images that are decoded; of the others only the bytes are looked at."""
_CHUNK = 64


class Seen(NamedTuple):
    """What the check has seen of one sample."""

    position: int
    text: str
    opens: bool
    """Whether OpenCV makes some image of it: upstream trains on one that is cut off, too."""


@dataclass
class Checked:
    """What was found in one set. Memory grows with what is bad alone."""

    findings: list[Finding] = field(default_factory=list)
    samples: int = 0
    decoded: int = 0
    """Images decoded; of the other samples the images' bytes begin and end as they should."""
    bad_labels: list[int] = field(default_factory=list)
    """Samples whose label can't be trained on."""
    unreadable: list[int] = field(default_factory=list)
    """Samples whose image isn't there or can't be decoded."""


def label_fault(text: str, max_text_length: int) -> tuple[Code, str] | None:
    """What is wrong with a label, whatever the image."""
    if not text.strip():
        return Code.EMPTY_LABEL, ""
    if len(text) > max_text_length:
        return Code.LABEL_TOO_LONG, f"{len(text)} characters, and the model reads {max_text_length}"
    return None


def steps_needed(text: str) -> int:
    """Time steps that CTC needs for a text: one a character, and a blank between equal neighbours."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def ctc_fault(text: str, steps: int) -> tuple[Code, str] | None:
    """Whether a text can come out of so many steps at all; if not, its loss is infinite."""
    needed = steps_needed(text)
    return (Code.CTC_INFEASIBLE, f"needs {needed} steps and has {steps}") if needed > steps else None


def is_decoded(index: int, count: int, limit: int) -> bool:
    """Whether a sample is one of the `limit` that are decoded, spread evenly over `count`."""
    return count <= limit or index * limit % count < limit


def check_set(
    samples: SampleSet,
    dictionary: Dictionary,
    *,
    max_text_length: int,
    ctc_steps: int | None = None,
    decode_limit: int = DECODED,
    threads: int | None = None,
    see: Callable[[Seen], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Checked:
    """Every fault of a set, by code: no finding when all of it can be trained on.

    `ctc_steps` is what the model gives an image; `see` is told each sample, in order, and `progress` how
    many were just checked.
    """
    checked, report, counts = Checked(samples=len(samples)), Report(), CharacterCounts()
    if not len(samples):
        report.add(Code.NO_SAMPLES, _name_of(samples))
    rules = _Rules(dictionary, max_text_length, ctc_steps)

    def look_at(start: int) -> list[_Look]:
        return [
            _look_at(samples, index, rules, decode=is_decoded(index, len(samples), decode_limit))
            for index in range(start, min(start + _CHUNK, len(samples)))
        ]

    for looks in map_ordered(look_at, range(0, len(samples), _CHUNK), threads):
        for look in looks:
            counts.add(look.text, partial(samples.place, look.position))
            _note(look, checked, report, samples)
            if see:
                see(Seen(look.position, look.text, look.opens))
        if progress:
            progress(len(looks))
    lacking = missing(dictionary, counts)
    checked.findings = [*([lacking] if lacking else []), *report.findings]
    return checked


class _Rules:
    """What a label must be."""

    def __init__(self, dictionary: Dictionary, max_text_length: int, ctc_steps: int | None) -> None:
        self._known = dictionary.known
        self._max_text_length, self._ctc_steps = max_text_length, ctc_steps

    def faults(self, text: str) -> list[tuple[Code, str]]:
        """What is wrong with a label, but for single unknown characters: those are counted over the set."""
        found = [label_fault(text, self._max_text_length)]
        if text.strip() and self._known.isdisjoint(text):
            found.append((Code.UNKNOWN_LABEL, repr(text)))
        if self._ctc_steps is not None:
            found.append(ctc_fault(text, self._ctc_steps))
        return [fault for fault in found if fault is not None]

    def knows(self, text: str) -> bool:
        """Whether the dictionary has every character."""
        return self._known.issuperset(text)


class _Look(NamedTuple):
    """One sample, looked at in a thread."""

    position: int
    text: str
    label_faults: list[tuple[Code, str]]
    knows: bool
    image_fault: tuple[Code, str] | None
    opens: bool
    decoded: bool


def _look_at(samples: SampleSet, index: int, rules: _Rules, *, decode: bool) -> _Look:
    text = samples.label(index)
    fault, opens = _image_fault(samples, index, decode=decode)
    return _Look(index, text, rules.faults(text), rules.knows(text), fault, opens, decode)


def _image_fault(samples: SampleSet, index: int, *, decode: bool) -> tuple[tuple[Code, str] | None, bool]:
    """What is wrong with an image, and whether OpenCV makes something of it all the same."""
    data = b""
    try:
        data = samples.image_bytes(index)
        if decode:
            images.decode(data)
        else:
            images.look(data)
    except images.Unreadable as exc:
        return (Code.IMAGE_UNREADABLE, str(exc)), images.opens(data)
    except InputMissing:
        return (Code.IMAGE_MISSING, ""), False
    except DatasetInvalid:
        return (Code.IMAGE_UNREADABLE, images.CUT_OFF), False
    return None, True


def _note(look: _Look, checked: Checked, report: Report, samples: SampleSet) -> None:
    """Add one sample to the findings."""
    checked.decoded += look.decoded
    if look.label_faults or not look.knows:
        checked.bad_labels.append(look.position)
    if look.image_fault:
        checked.unreadable.append(look.position)
    for code, detail in [*look.label_faults, *([look.image_fault] if look.image_fault else [])]:
        place = samples.place(look.position)
        report.add(code, place.file, place.line, ", ".join(filter(None, (place.detail, detail))))


def _name_of(samples: SampleSet) -> str:
    return str(getattr(samples, "folder", None) or getattr(samples, "file", "the set"))
