"""What the learning half wants of data: labelled images by position, and a small value that opens them.

`sources` (staged sets) implements it; loader and evaluate use it.
"""

from typing import Protocol

from rectrain_trainer.parts import Parts


class Samples(Protocol):
    """Labelled images by position."""

    def __len__(self) -> int: ...

    def label(self, i: int) -> str:
        """The text in image `i`."""
        ...

    def image_bytes(self, i: int) -> bytes:
        """The encoded image `i`."""
        ...


class Source(Protocol):
    """A picklable description of samples: each loader worker opens it for itself."""

    def open(self) -> Samples:
        """Open it, in this process."""
        ...

    def parts(self) -> Parts | None:
        """Of what an epoch takes a part; None: it takes everything."""
        ...

    def name(self, i: int) -> str:
        """What to call sample `i` in a message."""
        ...
