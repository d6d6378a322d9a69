"""Evaluation: what the model reads in held-out images, against what their labels say.

Called by the train stage at its evaluation points, on every rank, and by export's parity gate. Images are
prepared as PaddleOCR's inference does it: the height is the model's, the width follows the image's ratio.
Upstream's own evaluation squeezes wide ones to the width of training instead; images that this changes are
read both ways.
"""

import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from rectrain_api.errors import DatasetInvalid
from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.consumer import width_of
from rectrain_trainer.figures import Evaluation, Found
from rectrain_trainer.misread import Misread, misread_of, worst_of
from rectrain_trainer.ranks import ALONE, Ranks, Share
from rectrain_trainer.samples import Samples, Source
from rectrain_trainer.scores import tally_of
from rectrain_trainer.upstream_scores import UpstreamLabels

EVAL_BATCH: Final = 64
"""Images of the training width that are read at once; fewer of wider ones."""
WAITING_BYTES: Final = 128 << 20
"""Of images that wait for others of their width."""

Images = np.ndarray[Any, np.dtype[np.float32]]
Reading = tuple[str, float]  # text, confidence in [0, 1]


class Prepared(NamedTuple):
    """One image as a network takes it: 3 x H x W in [-1, 1], padded with 0."""

    deployed: Images
    """As inference prepares it."""
    as_trained: Images
    """Squeezed to the width of training; the very same array where that changes nothing."""


class Preparation:
    """Encoded image -> network input, by upstream's operators. Shared by evaluate, export and predict."""

    def __init__(self, image_shape: Sequence[int], *, padded: bool, widest: int | None = None) -> None:
        """`widest`: width up to which inference keeps the ratio [px]; left out: that of training."""
        self._shape = tuple(image_shape)
        self._padded = padded
        self._widest = widest or self._shape[2]
        decode = {"DecodeImage": {"img_mode": "BGR", "channel_first": False}}
        [self._decode] = upstream.load().create_operators([decode], {})
        self._resize = functools.cache(self._resize_to)

    @classmethod
    def of(cls, recipe: Recipe) -> "Preparation":
        """As a model of this recipe is trained and deployed."""
        return cls(recipe.image_shape, padded=recipe.padded, widest=recipe.widest)

    def __call__(self, encoded: bytes) -> Images | None:
        """As inference prepares it, or None if this is no image."""
        image = self._decoded(encoded)
        return None if image is None else self._deployed(image)

    def both(self, encoded: bytes) -> Prepared | None:
        """As inference prepares it and as training does, or None if this is no image."""
        image = self._decoded(encoded)
        if image is None:
            return None
        as_trained = self._as_trained(image)
        return Prepared(as_trained if self._fits(image) else self._deployed(image), as_trained)

    def _deployed(self, image: Any) -> Images:
        if self._fits(image):
            return self._as_trained(image)
        prepared: Images = self._resize(self._width(image), True)({"image": image})["image"]
        return prepared

    def _as_trained(self, image: Any) -> Images:
        prepared: Images = self._resize(self._shape[2], self._padded)({"image": image})["image"]
        return prepared

    def _fits(self, image: Any) -> bool:
        """Whether inference and training prepare it alike: always, for a network of fixed width."""
        fixed = self._widest == self._shape[2]
        return fixed or (self._padded and self._width(image) == self._shape[2])

    def _width(self, image: Any) -> int:
        rows, columns = image.shape[:2]
        return width_of(columns, rows, self._shape, self._widest)

    def _resize_to(self, width: int, padded: bool) -> upstream.Operator:
        shape = [*self._shape[:2], width]
        [operator] = upstream.load().create_operators(
            [{"RecResizeImg": {"image_shape": shape, "padding": padded}}], {}
        )
        return operator

    def _decoded(self, encoded: bytes) -> Any:
        decoded = self._decode({"image": encoded}) if encoded else None
        return None if decoded is None else decoded["image"]


class EvalSet:
    """Held-out samples of one source, as the model sees them: no augmentation."""

    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.source = source
        self.samples: Samples = source.open()
        self.recipe = recipe
        self.prepare = Preparation.of(recipe)
        self.on_batch: Callable[[], None] = lambda: None
        """Called before each batch of an evaluation: a sign of life."""

    def __len__(self) -> int:
        return len(self.samples)

    def labels(self) -> list[str]:
        return [self.samples.label(i) for i in range(len(self))]

    def image(self, i: int) -> Prepared:
        """Image `i`. Raises DatasetInvalid naming the sample if it is no image."""
        prepared = self.prepare.both(self.samples.image_bytes(i))
        if prepared is None:
            raise DatasetInvalid(f"{self.source.name(i)} can't be used: its image can't be decoded.")
        return prepared

    @functools.cached_property
    def upstream(self) -> UpstreamLabels:
        """Its labels as upstream's evaluation sees them."""
        return UpstreamLabels(self.recipe, self.labels())


class _Way(NamedTuple):
    """One image and one way of preparing it."""

    position: int
    as_trained: bool


def _by_width(
    images: Iterable[tuple[_Way, Images]], trained_width: int
) -> Iterator[tuple[list[_Way], Images]]:
    """Batches of images of equal width each, in any order: none is padded to another's width.

    A batch has the pixels of EVAL_BATCH images of the training width at most, and WAITING_BYTES bounds what
    waits for others of its width.
    """
    waiting: dict[int, list[tuple[_Way, Images]]] = {}
    size = 0

    def taken(width: int) -> tuple[list[_Way], Images]:
        nonlocal size
        ways, batch = zip(*waiting.pop(width), strict=True)
        size -= sum(image.nbytes for image in batch)
        return [*ways], np.stack(batch)

    for way, image in images:
        width = image.shape[2]
        waiting.setdefault(width, []).append((way, image))
        size += image.nbytes
        if len(waiting[width]) >= max(1, EVAL_BATCH * trained_width // width):
            yield taken(width)
        elif size > WAITING_BYTES:
            yield taken(max(waiting, key=lambda w: w * len(waiting[w])))
    for width in sorted(waiting):
        yield taken(width)


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


def share_statistics(model: Any, ranks: Ranks) -> None:
    """Every rank takes rank 0's running statistics: each has its own, those of rank 0 are what is saved."""
    if ranks.alone:
        return
    own = {name: tensor for name, tensor in model.state_dict().items() if tensor.stop_gradient}
    packed = io.BytesIO()
    np.savez(packed, **{name: tensor.numpy() for name, tensor in own.items()})
    with np.load(io.BytesIO(ranks.of_first(packed.getvalue())), allow_pickle=False) as shared:
        for name, tensor in own.items():
            tensor.set_value(shared[name])


def evaluate(model: Any, decoder: Any, held_out: EvalSet, ranks: Ranks | None = None) -> Evaluation:
    """All figures of `model` on all held-out samples: on rank 0, while the others `take_part`."""
    ranks = ranks or Ranks()
    found = find(model, decoder, held_out, ranks.share)
    for other in ranks.collect(held_out.on_batch):
        found.merge(Found.of(json.loads(other)))
    if not found.tally.samples:
        raise DatasetInvalid("The evaluation set holds no samples.")
    labels = held_out.upstream
    return Evaluation.of(found, cut=labels.cut, replaced=labels.replaced)


def take_part(model: Any, decoder: Any, held_out: EvalSet, ranks: Ranks) -> None:
    """Evaluate this rank's share for rank 0."""
    ranks.hand_in(json.dumps(find(model, decoder, held_out, ranks.share).to_json()).encode())


def find(model: Any, decoder: Any, held_out: EvalSet, share: Share = ALONE) -> Found:
    """What `model` reads in one rank's share: every so many-th sample."""
    mine = range(share.rank, len(held_out), share.world)
    order: list[_Way] = []

    def images() -> Iterator[tuple[_Way, Images]]:
        for i in mine:
            deployed, as_trained = held_out.image(i)
            yield _Way(i, False), deployed
            if as_trained is not deployed:
                yield _Way(i, True), as_trained

    def batches() -> Iterator[Images]:
        for ways, batch in _by_width(images(), held_out.recipe.image_shape[2]):
            held_out.on_batch()
            order.extend(ways)
            yield batch

    readings = read(model, decoder, batches())
    return _found(dict(zip(order, readings, strict=True)), mine, held_out)


def _found(readings: dict[_Way, Reading], mine: Sequence[int], held_out: EvalSet) -> Found:
    labels = [held_out.samples.label(i) for i in mine]
    texts = {way: text for way, (text, _) in readings.items()}
    deployed = [texts[_Way(i, False)] for i in mine]
    as_trained = [texts.get(_Way(i, True), text) for i, text in zip(mine, deployed, strict=True)]
    found = Found(
        tally_of(zip(labels, deployed, strict=True)),
        exact_as_trained=sum(map(str.__eq__, labels, as_trained)),
        squeezed=sum(way.as_trained for way in texts),
        worst=worst_of(_misread(labels, readings, mine)),
    )
    found.upstream.add(held_out.upstream.pairs(mine, as_trained))
    return found


def _misread(labels: Sequence[str], readings: dict[_Way, Reading], mine: Sequence[int]) -> Iterator[Misread]:
    for i, label in zip(mine, labels, strict=True):
        text, confidence = readings[_Way(i, False)]
        if text != label:
            yield misread_of(i, label, text, confidence)
