"""The parity gate: an exported model reads what training read, or it isn't published.

Called by export. The same held-out images go through the trained network, Paddle's inference engine,
onnxruntime and, where there is one, PyPI's paddleocr. Networks are compared by their outputs, engines by
their texts; each engine prepares and decodes as its own files in the export say, so that a wrong height or
dictionary shows here. All of it on the CPU: what a GPU rounds otherwise is no fault of an export.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from rectrain_api.errors import ExportMismatch
from rectrain_data import images as encoded_images
from rectrain_trainer.config import Recipe
from rectrain_trainer.consumer import VARIABLE, Consumer, named, read_files, width_of
from rectrain_trainer.evaluate import EvalSet, Images
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_decoder
from rectrain_trainer.onnx_export import ONNX, load_onnx
from rectrain_trainer.predict import Predictor, of_same_shape

log = logging.getLogger(__name__)

SAMPLES: Final = 512
LOOKED_THROUGH: Final = 8 * SAMPLES
"""Images that are read at most to find those: of a model that reads next to nothing, not the whole set."""
ENOUGH: Final = 64
"""Images, below which the log says that there were few."""
TOLERANCE: Final = 5e-3
"""Largest difference of two outputs (probabilities). Measured on a CPU, with weights that make every output
loud: 2e-5 with svtr_nano, 1e-4 with crnn_mv3; 0.14 and more without any one layer of svtr_nano."""
_BATCH: Final = 16
PADDLE: Final = "Paddle inference"
ONNXRUNTIME: Final = "onnxruntime"
PADDLEOCR: Final = "PaddleOCR"

Probabilities = np.ndarray[Any, Any]  # N x T x classes


@dataclass
class Parity:
    """What was compared, and found equal."""

    images: int
    with_text: int
    """Of these, how many the trained model reads something in."""
    engines: dict[str, int] = field(default_factory=dict)
    """Images by engine."""
    differences: dict[str, float] = field(default_factory=dict)
    """Largest difference of outputs by engine, where outputs can be seen."""
    not_tried: str = ""
    """Why PyPI's paddleocr read nothing; empty when it did."""

    def sentence(self) -> str:
        """For the log and for the model card."""
        said = []
        for name, count in self.engines.items():
            outputs = f", outputs within {self.differences[name]:.1g}" if name in self.differences else ""
            said.append(f"{name} ({count} images{outputs})")
        few = (" There were few images to compare." if self.images < ENOUGH else "") + (
            " Fewer than half hold text that it reads: that outputs are equal says more than that texts are."
            if 2 * self.with_text < self.images
            else ""
        )
        untried = f" PyPI's paddleocr wasn't tried: {self.not_tried}." if self.not_tried else ""
        return (
            f"Of {self.images} held-out images ({self.with_text} with text), read alike as in training by "
            f"{', '.join(said)}.{few}{untried}"
        )


class Trained(NamedTuple):
    """What was trained: the network, in evaluation mode and on the CPU, and what its classes mean."""

    model: Any
    recipe: Recipe
    decode: Any

    @classmethod
    def of(cls, model: Any, recipe: Recipe) -> "Trained":
        """With training's own decoder."""
        return cls(model, recipe, build_decoder(recipe.characters, use_space_char=recipe.use_space_char))

    def forward(self, images: Images) -> Probabilities:
        """N x T x classes."""
        import paddle

        with paddle.no_grad():
            found: Probabilities = self.model(paddle.to_tensor(images)).numpy()
        return found


class Seen(NamedTuple):
    """One batch of images of the same shape, as training sees them."""

    positions: list[int]
    encoded: list[bytes]
    images: Images
    outputs: Probabilities
    texts: list[str]


def check_parity(trained: Trained, folder: Path, held_out: EvalSet, interrupt: Interrupt) -> Parity:
    """All engines read what training read.

    Raises:
        ExportMismatch: naming engine, image, texts and likely cause.
        Interrupted: told to stop.
    """
    chosen = _choose(trained, held_out, interrupt)
    parity = Parity(len(chosen), 0)
    described = _Described(folder, trained.recipe)
    engines = {PADDLE: _opened(PADDLE, lambda: Predictor(folder))}
    if (folder / ONNX).exists():
        engines[ONNXRUNTIME] = _opened(ONNXRUNTIME, lambda: Predictor(folder, load_onnx))
    asked: list[tuple[int, bytes, str]] = []
    for seen in _batches(trained, held_out, chosen):
        interrupt.check()  # for a signal whose exception got lost in an engine
        parity.with_text += sum(map(bool, seen.texts))
        described.check(seen, held_out)
        for name, engine in engines.items():
            worst = _check(name, engine, seen, held_out)
            parity.differences[name] = max(parity.differences.get(name, 0.0), worst)
        if named():
            asked += _for_paddleocr(seen, trained.recipe)
    parity.engines = dict.fromkeys(engines, len(chosen))
    _check_paddleocr(parity, folder, held_out, asked)
    log.info("Export: %s", parity.sentence())
    return parity


def choose(texts: Iterable[str], limit: int) -> list[int]:
    """Positions of `limit` images, at least half of them with text if there are that many. Reads no further
    than it must. Pure."""
    full: list[int] = []
    empty: list[int] = []
    for i, text in enumerate(texts):
        (full if text else empty).append(i)
        if len(full) + len(empty) >= limit and 2 * len(full) >= limit:
            break
    return sorted(full[:limit] + empty[: max(limit - len(full), 0)])


def likely_cause(*, same_images: bool, difference: float | None) -> str:
    """Where to look. `difference` is None when outputs have another shape, or there are none. Pure."""
    if not same_images:
        return "the image's height, width or padding in rectrain.json"
    if difference is None:
        return "the network's height, width or number of characters"
    if not difference <= TOLERANCE:
        return "weights that are missing or stale"
    return "the dictionary, or its order: the outputs are the same"


def _choose(trained: Trained, held_out: EvalSet, interrupt: Interrupt) -> list[int]:
    count = len(held_out)
    if count <= SAMPLES:
        return list(range(count))
    return choose(islice(_texts(trained, held_out, interrupt), LOOKED_THROUGH), SAMPLES)


def _texts(trained: Trained, held_out: EvalSet, interrupt: Interrupt) -> Iterator[str]:
    for start in range(0, len(held_out), SAMPLES):
        positions = range(start, min(start + SAMPLES, len(held_out)))
        found: dict[int, str] = {}
        for seen in _batches(trained, held_out, positions):
            interrupt.check()
            found |= dict(zip(seen.positions, seen.texts, strict=True))
        yield from (found[i] for i in positions)


def _batches(trained: Trained, held_out: EvalSet, positions: Sequence[int]) -> Iterator[Seen]:
    for start in range(0, len(positions), _BATCH):
        part = positions[start : start + _BATCH]
        encoded = [held_out.samples.image_bytes(i) for i in part]
        prepared = [held_out.prepare(data) for data in encoded]
        usable = [image for image in prepared if image is not None]
        assert len(usable) == len(part), "evaluation has read them all"
        for group in of_same_shape(usable):
            images = np.stack([usable[k] for k in group])
            outputs = trained.forward(images)
            texts = [text for text, _ in trained.decode(outputs)]
            yield Seen([part[k] for k in group], [encoded[k] for k in group], images, outputs, texts)


def _opened(name: str, load: Callable[[], Predictor]) -> Predictor:
    try:
        return load()
    except Exception as e:
        cause = likely_cause(same_images=True, difference=float("inf"))
        raise ExportMismatch(
            f"{name} can't load the exported model ({_said(e)}). Likely cause: {cause}. {_advice(name)}"
        ) from e


def _check(name: str, engine: Predictor, seen: Seen, held_out: EvalSet) -> float:
    """The largest difference of outputs of one batch; or ExportMismatch."""
    theirs = [engine.prepare(data) for data in seen.encoded]
    same = [
        image is not None and np.array_equal(image, ours)
        for image, ours in zip(theirs, seen.images, strict=True)
    ]
    first = held_out.source.name(seen.positions[0])
    try:
        outputs = engine.forward(np.stack([image for image in theirs if image is not None]))
        texts = [text for text, _ in engine.decode(outputs)]
        alike = [text for text, _ in engine.decode(seen.outputs)]
    except Exception as e:
        raise ExportMismatch(
            f"{name} fails on {first} ({_said(e)}), in which training read {seen.texts[0]!r}. Likely cause: "
            f"{likely_cause(same_images=all(same), difference=None)}. {_advice(name)}"
        ) from e
    largest = 0.0
    for k, position in enumerate(seen.positions):
        difference = (
            float(np.abs(outputs[k] - seen.outputs[k]).max()) if outputs.shape == seen.outputs.shape else None
        )
        close = same[k] and difference is not None and difference <= TOLERANCE
        # Of two classes that are equally likely within the tolerance either may be read.
        if not close or seen.texts[k] not in (texts[k], alike[k]):
            cause = likely_cause(same_images=same[k], difference=difference)
            raise _mismatch(name, held_out.source.name(position), texts[k], seen.texts[k], difference, cause)
        largest = max(largest, difference or 0.0)
    return largest


class _Described:
    """inference.yml, which PaddleOCR reads images by: it says what training did."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        content = yaml.safe_load((folder / "inference.yml").read_text(encoding="utf-8"))
        operators = content["PreProcess"]["transform_ops"]
        shape = next(op["RecResizeImg"]["image_shape"] for op in operators if "RecResizeImg" in op)
        if list(shape) != list(recipe.image_shape):
            raise ExportMismatch(
                f"inference.yml says that images are {'x'.join(map(str, shape))} and training had "
                f"{'x'.join(map(str, recipe.image_shape))}: PaddleOCR would read otherwise. Likely cause: "
                f"the image's height or width in inference.yml. {_advice(PADDLEOCR)}"
            )
        # PaddleOCR appends a space, whatever was trained.
        self._decode = build_decoder(content["PostProcess"]["character_dict"], use_space_char=True)

    def check(self, seen: Seen, held_out: EvalSet) -> None:
        """Its dictionary makes the same texts of the same outputs."""
        try:
            texts = [text for text, _ in self._decode(seen.outputs)]
        except IndexError:
            texts = ["?"] * len(seen.texts)  # a class that it has no character for
        for position, theirs, ours in zip(seen.positions, texts, seen.texts, strict=True):
            if theirs != ours:
                cause = likely_cause(same_images=True, difference=0.0)
                name = f"{PADDLEOCR} (by inference.yml)"
                raise _mismatch(name, held_out.source.name(position), theirs, ours, 0.0, cause)


def _for_paddleocr(seen: Seen, recipe: Recipe) -> Iterator[tuple[int, bytes, str]]:
    """Those images that it prepares as training does, and that no rounding can change."""
    best = np.partition(seen.outputs, -2, axis=-1)[..., -2:]
    decided = (best[..., 1] - best[..., 0]).min(axis=-1) > 2 * TOLERANCE
    for k, position in enumerate(seen.positions):
        try:
            rows, columns = encoded_images.decode(seen.encoded[k]).shape[:2]
        except encoded_images.Unreadable:  # cut off: what is read of the rest is up to the reader
            continue
        if (
            recipe.padded
            and decided[k]
            and width_of(columns, rows, recipe.image_shape) == seen.images.shape[3]
        ):
            yield position, seen.encoded[k], seen.texts[k]


def _check_paddleocr(
    parity: Parity, folder: Path, held_out: EvalSet, asked: Sequence[tuple[int, bytes, str]]
) -> None:
    """PyPI's paddleocr reads the same texts; notes in `parity` that it did, or why it wasn't tried."""
    if not named():
        parity.not_tried = f"{VARIABLE} names no Python that has it"
        return
    if not asked:
        parity.not_tried = "it prepares none of the images as training does"
        return
    found = read_files(folder, [data for _, data, _ in asked])
    if not found.version:
        parity.not_tried = found.problem
        return
    name = f"{PADDLEOCR} {found.version}"
    for (position, _, ours), theirs in zip(asked, found.texts, strict=False):
        if theirs != ours:
            cause = "the dictionary, or the image's height or width, in inference.yml"
            raise _mismatch(name, held_out.source.name(position), theirs, ours, None, cause)
    _refuse_incomplete(name, found)
    parity.engines[name] = len(asked)


def _refuse_incomplete(name: str, found: Consumer) -> None:
    if found.problem:
        raise ExportMismatch(
            f"{name} (of {VARIABLE}) can't read with the exported model: {found.problem}. {_advice(name)}"
        )


def _mismatch(
    name: str, image: str, theirs: str, ours: str, difference: float | None, cause: str
) -> ExportMismatch:
    numbers = (
        "its outputs have another shape, or can't be seen"
        if difference is None
        else f"outputs differ by up to {difference:.2g}, and {TOLERANCE:g} is allowed"
    )
    return ExportMismatch(
        f"The exported model doesn't read what training read: in {image} {name} reads {theirs!r}, training "
        f"{ours!r}; {numbers}. Likely cause: {cause}. {_advice(name)}"
    )


def _advice(name: str) -> str:
    leave_out = ", with export.onnx: false to do without ONNX" if name == ONNXRUNTIME else ""
    return f"The checkpoints are kept: apply the run again to export it once more{leave_out}."


def _said(error: Exception) -> str:
    """The first line of what an engine says: the rest is where in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "Invalid" in line]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")[:300]
