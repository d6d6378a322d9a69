"""Randomness as a function of where training is, not of what ran before.

Every step and every sample seeds its generators from (seed, position). So there is no generator state to
save: a run resumed at step 700 draws what the uninterrupted one drew there, with any number of loader
workers, and whatever an evaluation in between has drawn. Seeding costs about 20 microseconds.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_ORDER, _SAMPLE, _STEP, _BUILD, _OPERATORS, _TURNS, _PARTS = range(7)  # streams that never meet


def _words(stream: int, *key: int) -> tuple[int, int]:
    first, second = np.random.SeedSequence([stream, *key]).generate_state(2)
    return int(first), int(second)


def epoch_order(seed: int, epoch: int, count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The order of `count` samples in one epoch: every sample exactly once."""
    return np.random.Generator(np.random.PCG64(_words(_ORDER, seed, epoch))).permutation(count)


def epoch_part(
    seed: int, epoch: int, group: int, count: int, size: int
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """`size` of a group's `count` samples: those that one epoch takes."""
    return np.random.Generator(np.random.PCG64(_words(_PARTS, seed, epoch, group))).permutation(count)[:size]


def epoch_turns(seed: int, epoch: int, batches: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The order in which an epoch's batches of several sizes come."""
    return np.random.Generator(np.random.PCG64(_words(_TURNS, seed, epoch))).permutation(batches)


def seed_sample(seed: int, epoch: int, index: int) -> None:
    """Before one sample's augmentation: upstream's operators draw from `random` and `numpy.random`."""
    first, second = _words(_SAMPLE, seed, epoch, index)
    random.seed(first)
    np.random.seed(second)


def seed_operators(seed: int) -> None:
    """Before upstream's operators are built: some draw their strength then, once for all samples."""
    first, second = _words(_OPERATORS, seed)
    random.seed(first)
    np.random.seed(second)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Before one optimizer step: dropout and stochastic depth draw from paddle's generator, a rank's own."""
    import paddle

    paddle.seed(_words(_STEP, seed, step, *([rank] if rank else []))[0])


def seed_build(seed: int) -> None:
    """Before the model is built: its first weights."""
    import paddle

    first, second = _words(_BUILD, seed)
    random.seed(first)
    np.random.seed(second)
    paddle.seed(first)


@contextmanager
def untouched_generators() -> Iterator[None]:
    """Put the process's own generators back: a loader without workers mustn't disturb its caller."""
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
