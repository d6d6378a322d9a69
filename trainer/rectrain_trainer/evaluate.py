"""Evaluation: what the model reads in held-out images, against what their labels say.

Called by the train stage at its evaluation points and by export's parity gate. The truth is the raw label:
upstream decodes it back from the encoded one, where characters outside the dictionary have vanished, and by
default ignores spaces; its accuracy is too high.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rapidfuzz.distance import Levenshtein

from rectrain_api.errors import DatasetInvalid
from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.samples import Samples, Source

EVAL_BATCH: Final = 64

Images = np.ndarray[Any, np.dtype[np.float32]]
Reading = tuple[str, float]  # text, confidence in [0, 1]


@dataclass(frozen=True)
class Metrics:
    """Results on the evaluation set, named as status names them."""

    accuracy: float
    """Share of images read exactly."""
    norm_edit_distance: float
    """1 - mean normalised edit distance: 1 is perfect."""
    samples: int


def score(truths: Sequence[str], readings: Sequence[Reading]) -> Metrics:
    """Compare raw labels with readings. Pure."""
    pairs = [(truth, text) for truth, (text, _) in zip(truths, readings, strict=True)]
    if not pairs:
        raise DatasetInvalid("The evaluation set holds no samples.")
    exact = sum(truth == text for truth, text in pairs)
    distance = sum(Levenshtein.normalized_distance(truth, text) for truth, text in pairs)
    return Metrics(exact / len(pairs), 1 - distance / len(pairs), len(pairs))


class EvalSet:
    """Held-out samples of one source, as the model sees them: no augmentation."""

    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.source = source
        self.samples: Samples = source.open()
        self.prepare = Preparation(recipe.image_shape, padded=recipe.padded)
        self.on_batch: Callable[[], None] = lambda: None
        """Called before each batch: a sign of life."""

    def __len__(self) -> int:
        return len(self.samples)

    def labels(self, limit: int | None = None) -> list[str]:
        return [self.samples.label(i) for i in range(self._count(limit))]

    def batches(self, limit: int | None = None) -> Iterator[Images]:
        """N x 3 x H x W, in order, of the first `limit` samples."""
        count = self._count(limit)
        for start in range(0, count, EVAL_BATCH):
            stop = min(start + EVAL_BATCH, count)
            self.on_batch()
            yield np.stack([self._image(i) for i in range(start, stop)])

    def _count(self, limit: int | None) -> int:
        return len(self) if limit is None else min(limit, len(self))

    def _image(self, i: int) -> Images:
        image = self.prepare(self.samples.image_bytes(i))
        if image is None:
            raise DatasetInvalid(f"{self.source.name(i)} can't be used: its image can't be decoded.")
        return image


class Preparation:
    """Encoded image -> network input, by upstream's operators. Shared by evaluate, export and predict."""

    def __init__(self, image_shape: Sequence[int], *, padded: bool) -> None:
        self.operators = upstream.load().create_operators(
            [
                {"DecodeImage": {"img_mode": "BGR", "channel_first": False}},
                {"RecResizeImg": {"image_shape": list(image_shape), "padding": padded}},
            ],
            {},
        )

    def __call__(self, encoded: bytes) -> Images | None:
        """3 x H x W in [-1, 1], or None if this is no image."""
        if not encoded:
            return None
        data: Any = {"image": encoded}
        for operator in self.operators:
            data = operator(data)
            if data is None:
                return None
        image: Images = data["image"]
        return image


def read(model: Any, decoder: Any, batches: Iterator[Images]) -> list[Reading]:
    """What the model reads, image by image. Leaves it in training mode if that is where it was."""
    import paddle

    was_training = model.training
    model.eval()
    readings: list[Reading] = []
    try:
        with paddle.no_grad():
            for images in batches:
                readings += decoder(model(paddle.to_tensor(images)).numpy())
    finally:
        if was_training:
            model.train()
    return readings


def evaluate(model: Any, decoder: Any, held_out: EvalSet) -> Metrics:
    """Accuracy and edit distance of `model` on all held-out samples."""
    return score(held_out.labels(), read(model, decoder, held_out.batches()))
