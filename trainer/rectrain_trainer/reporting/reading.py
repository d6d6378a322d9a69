"""What is misread, as the page shows it: worst samples, confusions, characters. Pure; called by `page`."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rectrain_trainer.reporting.diff import Piece, pieces
from rectrain_trainer.reporting.gather import Confusion, Run, Sample

IMAGE_BYTES: Final = 1_200_000
"""Of the images of worst samples, all together."""
_TEXT_SHOWN: Final = 120
"""Characters of a label or reading; longer ones are cut."""
_HEAT: Final = 14
"""Characters on each side of the heat map."""
_CHARACTERS: Final = 40

_NAMES: Final = {"": "nothing", " ": "space", "\u00a0": "no-break space", "\t": "tab"}


@dataclass(frozen=True)
class Misreading:
    """A sample as the page shows it."""

    name: str
    label: list[Piece]
    read: list[Piece]
    confidence: str
    distance: int
    image: str | None


@dataclass(frozen=True)
class Heat:
    """What is read for what, as a table."""

    columns: list[str]
    rows: list[tuple[str, list[tuple[int, float]]]]
    """Label, and for each column how often and how strong [0, 1]."""


def misreadings(run: Run) -> list[Misreading]:
    """Worst first; images only as far as the page stays small."""
    left, found = IMAGE_BYTES, []
    for sample in run.samples.samples if run.samples else []:
        image = _image(sample)
        left -= len(image or "")
        label, read = pieces(_cut(sample.label), _cut(sample.read))
        found.append(
            Misreading(
                sample.name,
                label,
                read,
                f"{sample.confidence:.0%}",
                sample.distance,
                image if left > 0 else None,
            )
        )
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else f"{text[: _TEXT_SHOWN - 1]}…"


def _image(sample: Sample) -> str | None:
    """Nothing but an image, whatever the file says."""
    kinds = ("data:image/jpeg;base64,", "data:image/png;base64,")
    return sample.image if sample.image and sample.image.startswith(kinds) else None


def heat(confusions: Sequence[Confusion]) -> Heat | None:
    """The characters that are confused most: labels down, readings across."""
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for one in confusions:
        rows[one.label] = rows.get(one.label, 0) + one.count
        columns[one.read] = columns.get(one.read, 0) + one.count
    labels = sorted(sorted(rows, key=lambda c: -rows[c])[:_HEAT])
    reads = sorted(sorted(columns, key=lambda c: -columns[c])[:_HEAT])
    counts = {(one.label, one.read): one.count for one in confusions}
    most = max(counts.values(), default=0)
    if not most:
        return None
    cells = [[counts.get((label, read), 0) for read in reads] for label in labels]
    return Heat(
        reads, [(label, [(n, n / most) for n in row]) for label, row in zip(labels, cells, strict=True)]
    )


def shown(character: str) -> str:
    """A character as a table shows it: what can't be seen is named, and a mark stands on a circle."""
    kind = unicodedata.category(character[:1] or "x")
    if kind.startswith("M"):
        return f"\u25cc{character}"
    if kind in ("Cf", "Zs") and character not in _NAMES:
        return unicodedata.name(character[:1], f"U+{ord(character[0]):04X}").lower()
    return _NAMES.get(character, character)


def characters(run: Run) -> list[tuple[str, int, int, float]]:
    """Those that cost most errors: character, how often, how often wrong, share read right."""
    rows = run.quality.by_character if run.quality else []
    return [
        (row.character, row.occurrences, row.occurrences - row.right, row.right / row.occurrences)
        for row in rows
        if row.occurrences > 0
    ][:_CHARACTERS]
