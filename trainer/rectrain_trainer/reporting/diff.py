"""Label and reading side by side: which graphemes agree, and which don't. Pure; called by `page`."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

from rectrain_trainer.scores import clusters_of

Kind = Literal["same", "wrong", "extra"]


class Piece(NamedTuple):
    """A stretch of text of one kind."""

    kind: Kind
    text: str


def pieces(label: str, read: str) -> tuple[list[Piece], list[Piece]]:
    """Of the label (what wasn't read is `extra`) and of the reading (what is too much is `extra`)."""
    meant, got = clusters_of(label), clusters_of(read)
    of_label: list[Piece] = []
    of_read: list[Piece] = []
    for block in Levenshtein.opcodes(meant, got):
        there, here = meant[block.src_start : block.src_end], got[block.dest_start : block.dest_end]
        kind: Kind = {"equal": "same", "replace": "wrong"}.get(block.tag, "extra")  # type: ignore[assignment]
        of_label += _joined(kind, there)
        of_read += _joined(kind, here)
    return of_label, of_read


def _joined(kind: Kind, clusters: list[str]) -> Iterator[Piece]:
    if clusters:
        yield Piece(kind, "".join(clusters))
