"""Looks at all of a data set before a GPU is paid for: every label, every image. Strict.

`check_set` is what the trainer's check stage and `rectrain-data` call; the rules beneath it are pure.
"""

from collections.abc import Callable
from itertools import pairwise

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import images
from rectrain_data.dictionary import Dictionary, count_set, missing
from rectrain_data.findings import Code, Finding, Report
from rectrain_data.ordered import map_ordered
from rectrain_data.samples import SampleSet

CtcSteps = Callable[[int, int], int]
"""Time steps that the model gives an image of this width and height [px]."""
_CHUNK = 64


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


def check_set(
    samples: SampleSet,
    dictionary: Dictionary,
    *,
    max_text_length: int,
    ctc_steps: CtcSteps | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Every fault of a set, by code: empty when it can be trained on.

    `progress` is told the samples just checked. Memory doesn't grow with the set.
    """
    report = Report()
    if not len(samples):
        report.add(Code.NO_SAMPLES, _name_of(samples))
        return report.findings
    lacking = missing(dictionary, count_set(samples))

    def check_chunk(start: int) -> list[tuple[int, Code, str]]:
        chunk = range(start, min(start + _CHUNK, len(samples)))
        return [
            (index, *fault)
            for index in chunk
            for fault in _sample_faults(samples, index, max_text_length, ctc_steps)
        ]

    starts = range(0, len(samples), _CHUNK)
    for start, faults in zip(starts, map_ordered(check_chunk, starts, threads), strict=True):
        for index, code, detail in faults:
            place = samples.place(index)
            report.add(code, place.file, place.line, ", ".join(filter(None, (place.detail, detail))))
        if progress:
            progress(min(_CHUNK, len(samples) - start))
    return [*([lacking] if lacking else []), *report.findings]


def _sample_faults(
    samples: SampleSet, index: int, max_text_length: int, ctc_steps: CtcSteps | None
) -> list[tuple[Code, str]]:
    text = samples.label(index)
    found = [label_fault(text, max_text_length)]
    try:
        height, width = images.decode(samples.image_bytes(index)).shape[:2]
    except images.Unreadable as exc:
        found.append((Code.IMAGE_UNREADABLE, str(exc)))
    except InputMissing:
        found.append((Code.IMAGE_MISSING, ""))
    except DatasetInvalid:
        found.append((Code.IMAGE_UNREADABLE, "the file is cut off"))
    else:
        if ctc_steps is not None:
            found.append(ctc_fault(text, ctc_steps(width, height)))
    return [fault for fault in found if fault is not None]


def _name_of(samples: SampleSet) -> str:
    return str(getattr(samples, "folder", None) or getattr(samples, "file", "the set"))
