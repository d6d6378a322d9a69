"""What readings are worth: every figure of an evaluation, from one additive tally. Pure.

Called by evaluate, and by publish for the report. Labels count whole: spaces included, and characters that
the dictionary lacks are errors like any other. A tally is JSON; those of several ranks are merged into what
one rank alone would have found, to the last bit.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import regex
from rapidfuzz.distance import Levenshtein

CONFUSIONS_KEPT: Final = 50
CHARACTERS_KEPT: Final = 100
LENGTH_ROWS: Final = 32


@dataclass
class Edits:
    """Edit distances of readings from their labels, in one unit: code points or grapheme clusters."""

    units: int = 0
    """Of all labels."""
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many pairs had this distance, and this length of the longer one."""

    def add(self, distance: int, length: int, read: int) -> None:
        """One pair: its distance, and the lengths of label and reading."""
        self.units += length
        self.pairs[distance, max(length, read)] += 1

    @property
    def errors(self) -> int:
        return sum(distance * count for (distance, _), count in self.pairs.items())

    @property
    def error_rate(self) -> float:
        """Errors per unit of the labels; it can exceed 1."""
        return self.errors / self.units if self.units else float(self.errors > 0)

    @property
    def normalised(self) -> float:
        """1 - mean of the distances over the longer one's length: 1 is perfect."""
        total = math.fsum(d / longer * count for (d, longer), count in self.pairs.items() if longer)
        return 1 - total / self.pairs.total() if self.pairs else 0.0

    def merge(self, other: "Edits") -> None:
        self.units += other.units
        self.pairs.update(other.pairs)

    def to_json(self) -> dict[str, Any]:
        return {"units": self.units, "pairs": _rows(self.pairs)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Edits":
        return cls(content["units"], _counter(content["pairs"]))


@dataclass
class Tally:
    """Counts over pairs of label and reading."""

    samples: int = 0
    exact: int = 0
    space_only: int = 0
    """Pairs that differ in spaces alone."""
    points: Edits = field(default_factory=Edits)
    clusters: Edits = field(default_factory=Edits)
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """What was read for what; nothing ("") read for a character, or a character for nothing."""
    seen: Counter[str] = field(default_factory=Counter)
    """How often each character stands in the labels…"""
    missed: Counter[str] = field(default_factory=Counter)
    """…and how often it wasn't read there."""
    lengths: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By the length of the label: samples, those read exactly, errors."""

    def add(self, truth: str, reading: str) -> None:
        """Count one pair."""
        exact = truth == reading
        edits = [] if exact else list(Levenshtein.editops(truth, reading))
        labelled, read = clusters_of(truth), clusters_of(reading)
        self.samples += 1
        self.exact += int(exact)
        self.space_only += int(not exact and truth.replace(" ", "") == reading.replace(" ", ""))
        self.points.add(len(edits), len(truth), len(reading))
        self.clusters.add(0 if exact else Levenshtein.distance(labelled, read), len(labelled), len(read))
        self.seen.update(truth)
        for edit in edits:
            meant = "" if edit.tag == "insert" else truth[edit.src_pos]
            self.confusions[meant, "" if edit.tag == "delete" else reading[edit.dest_pos]] += 1
            if meant:
                self.missed[meant] += 1
        for what, count in (("samples", 1), ("exact", int(exact)), ("errors", len(edits))):
            self.lengths[len(truth), what] += count

    def merge(self, other: "Tally") -> None:
        """Count what another one has counted too."""
        self.samples += other.samples
        self.exact += other.exact
        self.space_only += other.space_only
        self.points.merge(other.points)
        self.clusters.merge(other.clusters)
        self.confusions.update(other.confusions)
        self.seen.update(other.seen)
        self.missed.update(other.missed)
        self.lengths.update(other.lengths)

    @property
    def accuracy(self) -> float:
        """Share of samples read exactly."""
        return self.exact / self.samples if self.samples else 0.0

    def to_json(self) -> dict[str, Any]:
        """For another process: `of` makes the same of it."""
        return {
            "samples": self.samples,
            "exact": self.exact,
            "spaceOnly": self.space_only,
            "points": self.points.to_json(),
            "clusters": self.clusters.to_json(),
            "confusions": _rows(self.confusions),
            "seen": dict(self.seen),
            "missed": dict(self.missed),
            "lengths": _rows(self.lengths),
        }

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Tally":
        return cls(
            content["samples"],
            content["exact"],
            content["spaceOnly"],
            Edits.of(content["points"]),
            Edits.of(content["clusters"]),
            _counter(content["confusions"]),
            Counter(content["seen"]),
            Counter(content["missed"]),
            _counter(content["lengths"]),
        )


def tally_of(pairs: Iterable[tuple[str, str]]) -> Tally:
    """Of (label, reading) pairs."""
    tally = Tally()
    for truth, reading in pairs:
        tally.add(truth, reading)
    return tally


def clusters_of(text: str) -> list[str]:
    """What a reader calls characters: น้ำ is one, of three code points."""
    return [*regex.findall(r"\X", text)]


def confusions(tally: Tally) -> list[dict[str, Any]]:
    """What is read for what, most frequent first; "" where nothing was read, or nothing was there."""
    most = sorted(tally.confusions.items(), key=lambda item: (-item[1], item[0]))[:CONFUSIONS_KEPT]
    return [{"label": meant, "read": read, "count": count} for (meant, read), count in most]


def by_length(tally: Tally) -> list[dict[str, Any]]:
    """Samples, exact ones and character errors by length of the label; a row spans several of long labels."""
    lengths = sorted({length for length, _ in tally.lengths})
    span = math.ceil((lengths[-1] + 1) / LENGTH_ROWS) if lengths else 1
    rows: dict[int, dict[str, Any]] = {}
    for length in lengths:
        first = length - length % span
        row = rows.setdefault(
            first, {"from": first, "to": first + span - 1, "samples": 0, "exact": 0, "errors": 0}
        )
        for what in ("samples", "exact", "errors"):
            row[what] += tally.lengths[length, what]
    return list(rows.values())


def by_character(tally: Tally) -> list[dict[str, Any]]:
    """Occurrences in the labels and how many were read right, those that cost most errors first."""
    worst = sorted(tally.seen, key=lambda c: (-tally.missed[c], tally.seen[c], c))
    return [
        {"character": c, "occurrences": tally.seen[c], "right": tally.seen[c] - tally.missed[c]}
        for c in worst[:CHARACTERS_KEPT]
    ]


def _rows(counts: Counter[Any]) -> list[list[Any]]:
    return [[*key, count] for key, count in counts.items()]


def _counter(rows: Sequence[Sequence[Any]]) -> Counter[Any]:
    return Counter({tuple(key): count for *key, count in rows})
