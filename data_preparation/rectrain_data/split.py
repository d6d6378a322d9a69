"""Which samples train and which are held out. Pure.

By a hash of the sample's identity, so that a sample stays where it is when others are added, removed or
reordered. Called by `rectrain-data` and by the trainer for a set without a split of its own.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "eval"]
TRAIN: Split = "train"
EVAL: Split = "eval"
DEFAULT_EVAL_FRACTION = 0.2
_SCALE = float(2**64)


def position(identity: str, seed: int) -> float:
    """Where a sample stands in [0, 1), the same on every machine."""
    digest = hashlib.sha256(f"{seed}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _SCALE


def split_of(identity: str, *, eval_fraction: float = DEFAULT_EVAL_FRACTION, seed: int = 0) -> Split:
    """The split of one sample."""
    return EVAL if position(identity, seed) < eval_fraction else TRAIN


def partition(
    identities: Iterable[str], *, eval_fraction: float = DEFAULT_EVAL_FRACTION, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Indices of the training and of the held-out samples; from two samples on, neither is empty."""
    positions = [position(identity, seed) for identity in identities]
    held_out = {i for i, p in enumerate(positions) if p < eval_fraction}
    if len(positions) > 1:
        if not held_out:
            held_out = {min(range(len(positions)), key=positions.__getitem__)}
        elif len(held_out) == len(positions):
            held_out.remove(max(range(len(positions)), key=positions.__getitem__))
    return [i for i in range(len(positions)) if i not in held_out], sorted(held_out)
