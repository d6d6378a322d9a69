"""Several sets as one, such as the label files of one training set. Called by the trainer."""

import bisect
import itertools
from collections.abc import Sequence

from rectrain_data.findings import Place
from rectrain_data.samples import SampleSet


class JoinedSet:
    """A `rectrain_data.samples.SampleSet`: the samples of some sets, one after the other."""

    def __init__(self, sets: Sequence[SampleSet]) -> None:
        self._sets = sets
        self.ends = list(itertools.accumulate(len(one) for one in sets))
        """Where each set ends."""

    def __len__(self) -> int:
        return self.ends[-1]

    def _locate(self, index: int) -> tuple[int, int]:
        """Which set, and which sample of it."""
        which = bisect.bisect_right(self.ends, index)
        return which, index - self.ends[which] + len(self._sets[which])

    def label(self, index: int) -> str:
        """The text in the image."""
        which, inside = self._locate(index)
        return self._sets[which].label(inside)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image."""
        which, inside = self._locate(index)
        return self._sets[which].image_bytes(inside)

    def sample_id(self, index: int) -> str:
        """The image's own: one that two of the sets have mustn't train and be held out."""
        which, inside = self._locate(index)
        return self._sets[which].sample_id(inside)

    def place(self, index: int) -> Place:
        """Where the user finds it."""
        which, inside = self._locate(index)
        return self._sets[which].place(inside)
