"""Which samples an epoch takes where label files give a part of theirs: upstream's `ratio_list`. Pure.

Called by the loader. Every epoch draws anew, from (seed, epoch) alone; how many it draws stays the same, as
the schedule of the learning rate counts on it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rectrain_trainer import seeding


@dataclass(frozen=True)
class Parts:
    """Positions of samples in groups, and the part of each group that an epoch takes."""

    groups: "tuple[np.ndarray[Any, np.dtype[np.int64]], ...]"
    ratios: tuple[float, ...]

    @property
    def count(self) -> int:
        """Samples an epoch."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [round(len(group) * ratio) for group, ratio in zip(self.groups, self.ratios, strict=True)]

    def of(self, seed: int, epoch: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The positions that an epoch takes, each once."""
        drawn = [
            group[seeding.epoch_part(seed, epoch, number, len(group), size)]
            for number, (group, size) in enumerate(zip(self.groups, self._sizes, strict=True))
        ]
        return np.concatenate(drawn)
