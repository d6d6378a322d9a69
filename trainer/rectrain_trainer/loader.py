"""Batches for training: deterministic, resumable at any batch, honest about bad samples.

Called by the train stage and the benchmark. What a batch holds depends on (seed, epoch, position) alone:
not on the number of workers, nor on what was loaded before. Every sample comes exactly once an epoch (of
label files with a ratio: each of the epoch's part), on one of the ranks; the last batch may be smaller. An
unusable sample is an error (the check stage came first), never replaced by another one as upstream's loader
does. RecConAug joins others to a sample: which ones is drawn like the rest of its augmentation, and that they
were used so counts nowhere.
"""

import copy
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from rectrain_api.errors import DatasetInvalid, RectrainError
from rectrain_api.presets import Scale
from rectrain_trainer import seeding, upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.model import written_dictionary
from rectrain_trainer.ranks import ALONE, Share
from rectrain_trainer.sampler import Sampler
from rectrain_trainer.samples import Samples, Source
from rectrain_trainer.workers import WorkerPool

PREFETCH: Final = 2
"""Batches that wait ready for each worker: bounds the memory, hides the jitter."""


JOIN: Final = "RecConAug"
_JOINED: Final = "ext_data"
"""Where it looks for other samples."""


class Batch(tuple[np.ndarray[Any, Any], ...]):
    """One training batch: what upstream's KeepKeys gives, in its order; images come first.

    With CTC alone: labels (N x max_text_length class indices, padded with 0) and lengths (N). With a guide
    also its own labels, and the share of each image's width that isn't padding (N, float64).
    """

    __slots__ = ()

    @property
    def images(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """N x 3 x H x W in [-1, 1], padded with 0."""
        return self[0]

    @property
    def targets(self) -> tuple[np.ndarray[Any, Any], ...]:
        """All that isn't images."""
        return self[1:]


class Task(NamedTuple):
    """One batch to make."""

    epoch: int
    scale: Scale
    positions: list[int]


class BatchMaker:
    """Turns positions into a batch. Lives in the trainer, or once in each worker."""

    def __init__(self, recipe: Recipe, source: Source) -> None:
        import cv2

        cv2.setNumThreads(0)  # its pool beside paddle's would only fight for the same cores
        self.source = source
        self.samples: Samples = source.open()
        self.seed = recipe.seed
        written = written_dictionary(recipe.characters, use_space_char=recipe.use_space_char)
        with written as section, seeding.untouched_generators():
            self._operators: dict[Scale, list[upstream.Operator]] = {}
            for scale in recipe.sampler.scales:
                seeding.seed_operators(recipe.seed)
                chain = train_operators(recipe, scale)
                self._operators[scale] = upstream.load().create_operators(chain, section)
        self._augmentations = len(recipe.augment)
        self._others = _others(recipe)

    def __call__(self, task: Task) -> Batch:
        with seeding.untouched_generators():
            rows = [self._sample(task.epoch, task.scale, i) for i in task.positions]
        return Batch(np.stack(column) for column in zip(*rows, strict=True))

    def _sample(self, epoch: int, scale: Scale, i: int) -> list[Any]:
        """What a batch keeps of one sample, augmented for this epoch, at this size."""
        seeding.seed_sample(self.seed, epoch, i)
        label = self.samples.label(i)
        data: Any = {"image": self.samples.image_bytes(i), "label": label}
        operators = self._fresh_operators(scale)
        if self._others:  # drawn first, as upstream does, also for a sample that is left as it is
            drawn = [int(np.random.randint(len(self.samples))) for _ in range(self._others)]
            data[_JOINED] = Others(self.samples, self.source, operators[0], drawn)
        try:
            for number, operator in enumerate(operators):
                data = operator(data)
                if data is None:
                    break
                if number == self._augmentations:  # the last of them: what follows would copy it
                    data.pop(_JOINED, None)
        except RectrainError:
            raise
        except Exception as failed:
            raise DatasetInvalid(f"{self.source.name(i)} can't be used: {failed}.") from failed
        if data is None:
            raise DatasetInvalid(
                f"{self.source.name(i)} can't be used: its image can't be decoded, or its label {label!r} is "
                "empty, too long, or wholly outside the dictionary."
            )
        return list(data)

    def _fresh_operators(self, scale: Scale) -> list[upstream.Operator]:
        """Some of upstream's augmentations keep what they drew: no sample may see another one's."""
        operators = self._operators[scale]
        return copy.deepcopy(operators) if self._augmentations else operators


class Others:
    """Samples to be joined to another one, decoded when they are asked for."""

    def __init__(
        self, samples: Samples, source: Source, decode: upstream.Operator, positions: list[int]
    ) -> None:
        self._samples, self._source, self._decode, self._positions = samples, source, decode, positions

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for i in self._positions:
            data = self._decode({"image": self._samples.image_bytes(i), "label": self._samples.label(i)})
            if data is None:
                raise DatasetInvalid(
                    f"{self._source.name(i)} can't be used: its image can't be decoded, and RecConAug was "
                    "to join it to another one."
                )
            yield data


def _others(recipe: Recipe) -> int:
    """How many samples RecConAug may join to one; upstream takes the first such operator's number."""
    joining = (op[JOIN] or {} for op in recipe.augment if JOIN in op)
    return next((int(arguments.get("ext_data_num", 1)) for arguments in joining), 0)


def train_operators(recipe: Recipe, scale: Scale) -> list[dict[str, Any]]:
    """Upstream's chain for training: decode, augment, encode, resize to `scale`."""
    width, height = scale
    shape = [recipe.image_shape[0], height, width]
    return [
        {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
        *(_augmentation(recipe, operator) for operator in recipe.augment),
        recipe.encode,
        {recipe.resize: {"image_shape": shape, "padding": recipe.padded}},
        {"KeepKeys": {"keep_keys": list(recipe.keep_keys)}},
    ]


def _augmentation(recipe: Recipe, operator: dict[str, Any]) -> dict[str, Any]:
    """RecConAug joins what still fits this model."""
    if JOIN not in operator:
        return operator
    _, height, width = recipe.image_shape
    arguments = {"image_shape": [height, width, 3], **(operator[JOIN] or {})}
    longest = min(arguments.get("max_text_length", recipe.max_text_length), recipe.max_text_length)
    return {JOIN: {**arguments, "max_text_length": longest}}


def blank_batch(recipe: Recipe, images: int, scale: Scale) -> Batch:
    """A batch of nothing but black images, each with as long a text as there may be."""
    width, height = scale
    letters = recipe.characters[:2]  # by turns: a repeated one would need a blank between
    text = "".join(letters[i % len(letters)] for i in range(recipe.max_text_length))
    with written_dictionary(recipe.characters, use_space_char=recipe.use_space_char) as section:
        [encode] = upstream.load().create_operators([recipe.encode], section)
    blank = np.zeros((recipe.image_shape[0], height, width), np.float32)
    encoded: Any = encode({"image": blank, "label": text})
    row = [{**encoded, "valid_ratio": 1.0}[key] for key in recipe.keep_keys]
    return Batch(np.stack([column] * images) for column in row)


class Loader:
    """Batches of one source, epoch by epoch. `with Loader(...) as loader`, or close() it."""

    def __init__(self, recipe: Recipe, source: Source, *, workers: int = 0, share: Share = ALONE) -> None:
        """`share`: this rank's part of every step's samples, of `batch_size` for each rank."""
        self.share = share
        self._source = source
        self._seed = recipe.seed
        self._parts = source.parts()
        self.samples = len(source.open())
        """Of which an epoch takes all, or a part: which ones follows from how many there are."""
        if not self.samples:
            raise DatasetInvalid("The training set holds no samples.")
        taken = self._parts.count if self._parts else self.samples
        self._sampler = Sampler(
            recipe.sampler, taken, batch_size=recipe.batch_size, world=share.world, seed=recipe.seed
        )
        self._pool = WorkerPool(BatchMaker, (recipe, source), workers) if workers else None
        self._maker = None if self._pool else BatchMaker(recipe, source)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._sampler)

    def samples_of(self, epoch: int, number: int) -> int:
        """Samples of batch `number` of `epoch`, over all ranks."""
        return self._sampler.size_of(epoch, number)

    def names_of(self, epoch: int, number: int, limit: int) -> list[str]:
        """Where the first samples of batch `number` of `epoch` are found."""
        _, positions = next(self._drawn(epoch, number))
        return [self._source.name(i) for i in positions[:limit]]

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """The batches of `epoch` from number `start` on. One such iterator at a time."""
        drawn = self._drawn(epoch, start)
        tasks = (Task(epoch, scale, self.share.of(positions)) for scale, positions in drawn)
        if self._maker:
            yield from map(self._maker, tasks)
        elif self._pool:
            yield from self._pool.map(tasks, ahead=PREFETCH)

    def _drawn(self, epoch: int, start: int) -> Iterator[tuple[Scale, list[int]]]:
        """The sampler's batches, in positions of the source."""
        chosen = self._parts.of(self._seed, epoch) if self._parts else None
        for scale, positions in self._sampler.batches(epoch, start):
            yield scale, positions if chosen is None else chosen[positions].tolist()

    def close(self) -> None:
        if self._pool:
            self._pool.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
