"""The samples that are read worst, kept while an evaluation goes on: few, whatever the size of the set. Pure.

Made by evaluate; `reporting.worst` adds their images, for the report.
"""

import heapq
from collections.abc import Iterable
from typing import Final, NamedTuple

from rapidfuzz.distance import Levenshtein

WORST_KEPT: Final = 40
_CONFIDENCE_DIGITS: Final = 4


class Misread(NamedTuple):
    """One sample that isn't read exactly."""

    distance: int
    """Edits between label and reading, in code points."""
    position: int
    """In the evaluation set."""
    label: str
    read: str
    confidence: float
    """Of the reading, in [0, 1]."""


def misread_of(position: int, label: str, read: str, confidence: float) -> Misread:
    """With its distance."""
    distance = Levenshtein.distance(label, read)
    return Misread(distance, position, label, read, round(float(confidence), _CONFIDENCE_DIGITS))


def worst_of(found: Iterable[Misread]) -> list[Misread]:
    """Those with most edits, worst first; of equals the first in the set."""
    return heapq.nsmallest(WORST_KEPT, found, key=lambda one: (-one.distance, one.position))
