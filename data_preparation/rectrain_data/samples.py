"""What a set of labelled images is to the trainer and the checks, packed or loose."""

from typing import Protocol

from rectrain_data.findings import Place


class SampleSet(Protocol):
    """Random access to labelled images; thread- and fork-safe."""

    def __len__(self) -> int: ...

    def label(self, index: int) -> str:
        """The text in the image."""
        ...

    def image_bytes(self, index: int) -> bytes:
        """The encoded image (PNG, JPEG, …). Raises InputMissing, DatasetInvalid."""
        ...

    def sample_id(self, index: int) -> str:
        """What identifies the sample, whatever its place in the set; unique."""
        ...

    def place(self, index: int) -> Place:
        """Where the user finds it."""
        ...
