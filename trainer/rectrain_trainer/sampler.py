"""Which samples each batch of an epoch has, and at which image size. Pure.

Called by the loader. Batches go round the scales as those of upstream's MultiScaleSampler do. But upstream
draws sizes and batch-mates once for the whole run, repeats some samples to fill its batches, and with several
ranks never sees others. Here order, sizes and batch-mates are another draw each epoch, from (seed, epoch)
alone, and every sample comes exactly once. How many batches there are of each size is the same in every
epoch: the schedule of the learning rate counts on it.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

from rectrain_api.presets import SamplerConfig, Scale
from rectrain_trainer import seeding


class Sampler:
    """The batches of `count` samples, over all ranks."""

    def __init__(
        self, config: SamplerConfig, count: int, *, batch_size: int, world: int = 1, seed: int
    ) -> None:
        """`batch_size`: a rank's, at the first scale."""
        sizes = [size * world for size in batch_sizes(config, batch_size)]
        self._count = count
        self._seed = seed
        self._batches = lay_out(count, config.scales, sizes)
        scale, size = self._batches[-1]
        self._whole = len(self._batches) - (size < sizes[config.scales.index(scale)])
        self._turns = functools.lru_cache(maxsize=1)(self._draw_turns)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._batches)

    def size_of(self, epoch: int, number: int) -> int:
        """Samples in batch `number` of `epoch`."""
        return self._batches[self._turns(epoch)[number]][1]

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Scale, list[int]]]:
        """Scale and samples of each batch of `epoch`, from number `start` on."""
        order = seeding.epoch_order(self._seed, epoch, self._count)
        turns = self._turns(epoch)
        begin = sum(self._batches[turn][1] for turn in turns[:start])
        for turn in turns[start:]:
            scale, size = self._batches[turn]
            yield scale, order[begin : begin + size].tolist()
            begin += size

    def _draw_turns(self, epoch: int) -> list[int]:
        """Numbers of `_batches` in the order of `epoch`; one that isn't full stays the last."""
        turns: list[int] = seeding.epoch_turns(self._seed, epoch, self._whole).tolist()
        return turns + list(range(self._whole, len(self._batches)))


def batch_sizes(config: SamplerConfig, first: int) -> list[int]:
    """Images in a full batch at each scale: `first` at the first one, elsewhere what fills the same area."""
    if config.fix_bs:
        return [first] * len(config.scales)
    width, height = config.scales[0]
    area = first * width * height
    return [max(1, area // (w * h)) for w, h in config.scales]


def lay_out(count: int, scales: Sequence[Scale], sizes: Sequence[int]) -> list[tuple[Scale, int]]:
    """Scale and size of each batch: round and round the scales until `count` is used up."""
    batches: list[tuple[Scale, int]] = []
    rounds = itertools.cycle(zip(scales, sizes, strict=True))
    while count:
        scale, size = next(rounds)
        batches.append((scale, min(size, count)))
        count -= batches[-1][1]
    return batches
