"""Weights of one model put into another: whole tensors, and of a head the rows that both know. Pure.

Called by `pretrained`. Tensors are known by upstream's names. A head's tensors have one axis that counts
classes, in the order of upstream's label encoders: first some that are no character, then the dictionary's
lines, then the space if it is on. With another dictionary the same character is another class, so a head
that is loaded as it is, or made anew, has forgotten what it knew.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rectrain_api.errors import InvalidSpec

Arrays = Mapping[str, Any]
SPACE: Final = " "
_NAMED: Final = 3
"""Tensors that a sentence names."""


@dataclass(frozen=True)
class Kind:
    """One kind of head, and how its classes are counted."""

    name: str
    tensors: re.Pattern[str]
    """Those with a class axis."""
    before: int
    """Classes before the first character."""
    after: int
    """Classes behind the last one."""


KINDS: Final = (
    # The blank. With mid_channels fc1 knows no classes, fc2 does.
    Kind("CTC", re.compile(r"^head\.(ctc_head\.)?fc2?\.(weight|bias)$"), 1, 0),
    # blank, <unk>, <s>, </s>; and the Transformer has one class more than its encoder.
    Kind("NRTR", re.compile(r"^head\.(gtc_head\.)?(embedding\.embedding|tgt_word_prj)\.weight$"), 4, 1),
)


@dataclass(frozen=True)
class HeadReport:
    """What became of one head."""

    kind: str
    carried: int
    """Characters whose rows were carried over."""
    of: int
    """Characters of this run."""
    note: str = ""
    """What there is to know beside the numbers."""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind} head: {self.carried} of {self.of} characters carried over{note}"


@dataclass(frozen=True)
class Report:
    """What was loaded, and what keeps its first weights."""

    tensors: int
    """Of this model."""
    fresh: tuple[str, ...]
    """Names of those of which nothing was loaded."""
    heads: tuple[HeadReport, ...]
    body: int
    """Tensors loaded beside the heads'."""

    @property
    def loaded(self) -> int:
        """Tensors that were loaded, whole or by rows."""
        return self.tensors - len(self.fresh)

    def __str__(self) -> str:
        parts = [f"{self.loaded} of {self.tensors} tensors loaded", *map(str, self.heads)]
        if self.fresh:
            more = ", …" if len(self.fresh) > _NAMED else ""
            parts.append(f"first weights stay in {', '.join(self.fresh[:_NAMED])}{more}")
        return "; ".join(parts)


def transplant(
    own: Arrays, given: Arrays, own_characters: Sequence[str], given_characters: Sequence[str] | None
) -> tuple[dict[str, Any], Report]:
    """`own` with what fits of `given`, each by tensor name; and what that was.

    Characters are in the order of classes, a space among them where it is on; of `given` they may be
    unknown (None). Tensors of one head go together or not at all. Nothing of what goes in is changed.
    """
    result = dict(own)
    heads = []
    for kind, names in _heads(own):
        rows, report = _rows(kind, names, own, given, own_characters, given_characters)
        result |= rows
        heads.append(report)
    in_heads = {name for _, names in _heads(own) for name in names}
    body = [name for name in own if name not in in_heads and _fits(own[name], given.get(name))]
    result |= {name: given[name].astype(own[name].dtype) for name in body}
    fresh = tuple(name for name in own if result[name] is own[name])
    return result, Report(len(own), fresh, tuple(heads), len(body))


def characters_of(given: Arrays, lines: Sequence[str]) -> tuple[str, ...]:
    """A dictionary's lines as the characters of these weights: whether a space comes after them shows in how
    wide the head is.

    Raises InvalidSpec when the head has another width.
    """
    for kind, names in _heads(given):
        classes = given[names[0]].shape[_axis(names[0], given[names[0]])]
        characters = classes - kind.before - kind.after
        if characters not in (len(lines), len(lines) + 1):
            raise InvalidSpec(
                f"its head tells {characters} characters apart, and the dictionary has {len(lines)} lines: "
                "name the dictionary that these weights were trained with"
            )
        return (*lines, SPACE) if characters > len(lines) else tuple(lines)
    return tuple(lines)


def _heads(arrays: Arrays) -> Iterator[tuple[Kind, list[str]]]:
    """The heads that are there, each with its tensors that have a class axis."""
    for kind in KINDS:
        names = [name for name in arrays if kind.tensors.match(name)]
        if names:
            yield kind, names


def _rows(
    kind: Kind,
    names: Sequence[str],
    own: Arrays,
    given: Arrays,
    own_characters: Sequence[str],
    given_characters: Sequence[str] | None,
) -> tuple[dict[str, Any], HeadReport]:
    """One head with the rows of classes that both have."""
    of = len(own_characters)
    if not all(_fits(own[name], given.get(name), but=_axis(name, own[name])) for name in names):
        return {}, HeadReport(kind.name, 0, of, "it is of another shape")
    if given_characters is None:
        if not all(_fits(own[name], given[name]) for name in names):
            note = "the dictionary of these weights isn't known: name it in model.pretrained.dictionary"
            return {}, HeadReport(kind.name, 0, of, note)
        note = "taken to be the same, since no dictionary is named"
        return {n: given[n].astype(own[n].dtype) for n in names}, HeadReport(kind.name, of, of, note)
    if not (_counts(kind, names, own, own_characters) and _counts(kind, names, given, given_characters)):
        return {}, HeadReport(kind.name, 0, of, "it counts its classes in a way that isn't known")
    mine, theirs, carried = _classes(kind, own_characters, given_characters)
    rows = {}
    for name in names:
        axis = _axis(name, own[name])
        array = np.moveaxis(own[name].copy(), axis, 0)
        array[mine] = np.moveaxis(given[name], axis, 0)[theirs]
        rows[name] = np.moveaxis(array, 0, axis)
    return rows, HeadReport(kind.name, carried, of)


def _axis(name: str, array: Any) -> int:
    """The axis that counts classes: of an embedding the first, of a layer's weight and bias the last."""
    return 0 if "embedding" in name else array.ndim - 1


def _counts(kind: Kind, names: Sequence[str], arrays: Arrays, characters: Sequence[str]) -> bool:
    """Whether a head has the classes that these characters ask for."""
    classes = kind.before + len(characters) + kind.after
    return all(arrays[name].shape[_axis(name, arrays[name])] == classes for name in names)


def _classes(
    kind: Kind, own_characters: Sequence[str], given_characters: Sequence[str]
) -> tuple[list[int], list[int], int]:
    """Classes of this model and the same ones of the other; how many of them are characters."""
    there = {c: kind.before + i for i, c in enumerate(given_characters)}  # of two alike the later one counts
    shared = [(kind.before + i, there[c]) for i, c in enumerate(own_characters) if c in there]
    ends = [
        (kind.before + len(own_characters) + i, kind.before + len(given_characters) + i)
        for i in range(kind.after)
    ]
    pairs = [*((i, i) for i in range(kind.before)), *shared, *ends]
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs], len(shared)


def _fits(own: Any, given: Any, but: int | None = None) -> bool:
    """Whether one array can stand for the other: shape (`but` for one axis) and kind of number."""
    if not isinstance(given, np.ndarray) or given.ndim != own.ndim or given.dtype.kind != own.dtype.kind:
        return False
    return all(
        axis == but or mine == theirs
        for axis, (mine, theirs) in enumerate(zip(own.shape, given.shape, strict=True))
    )
