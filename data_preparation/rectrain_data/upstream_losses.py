"""What PaddleOCR's own training would have done with these labels and images, and said nothing. Pure.

Counted in one pass, streaming, by the rules of its code (ppocr/data/simple_dataset.py and
imaug/label_ops.py, the same in 2.10 and 3.7): a label file's line is cut at tabs and its second part taken;
a label that is empty, longer than max_text_length or wholly unknown is no label, and another sample is taken
in its place, as for an image that can't be decoded; unknown characters are left out.

Called by the trainer's check stage. The tests compare with that code itself.
"""

from dataclasses import dataclass
from typing import Final

from rectrain_data.dictionary import SPACE, Dictionary

RANKS: Final = (2, 4, 8)
"""Numbers of GPUs that the loss of samples is told for."""


@dataclass
class Losses:
    """Of one set. The first cause that upstream meets counts, so that the causes of `swapped` add up."""

    samples: int = 0
    unreadable: int = 0
    """Image missing, or none that OpenCV opens."""
    empty: int = 0
    too_long: int = 0
    unknown: int = 0
    """No character of the label is in the dictionary."""
    shortened: int = 0
    """Trained on, or compared with, without some of its characters."""
    characters: int = 0
    """That those labels lose."""
    spaced: int = 0
    """Labels with a space left: `acc` is computed without."""

    @property
    def swapped(self) -> int:
        """Samples in whose place another one is taken, every time."""
        return self.unreadable + self.empty + self.too_long + self.unknown

    @property
    def dropped(self) -> int:
        """Of those, the ones whose label is the cause."""
        return self.empty + self.too_long + self.unknown


class LossCounter:
    """Counts the losses of one set, sample by sample."""

    def __init__(self, dictionary: Dictionary, max_text_length: int, *, ends: int = 0) -> None:
        """`ends`: classes that a guide's label has beside its characters: they count as such."""
        self._known = dictionary.known
        self._max_text_length = max_text_length
        self._most_known = max_text_length - ends
        self.losses = Losses()

    def add(self, text: str, *, opens: bool = True) -> None:
        """One sample: what stands behind the first tab of its line, and whether its image opens."""
        losses = self.losses
        losses.samples += 1
        label = text.partition("\t")[0]
        kept = sum(character in self._known for character in label)
        if not opens:
            losses.unreadable += 1
        elif not label:
            losses.empty += 1
        elif len(label) > self._max_text_length or kept > self._most_known:
            losses.too_long += 1
        elif not kept:
            losses.unknown += 1
        else:
            losses.shortened += kept < len(text)
            losses.characters += len(text) - kept
            losses.spaced += SPACE in label and SPACE in self._known


def never_seen(samples: int, ranks: int) -> int:
    """Samples that none of `ranks` processes is expected to train on, rounded.

    In 3.7 each process puts the lines in an order of its own (`random.seed(None)`), and the sampler deals out
    places in that order: each rank draws samples/ranks lines, whatever the others draw.
    """
    if not samples:
        return 0
    drawn = samples // ranks
    return round(samples * (1 - drawn / samples) ** ranks)
