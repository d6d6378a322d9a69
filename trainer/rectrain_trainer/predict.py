"""Reading images with an exported model, from its folder alone.

Called by `rectrain-trainer predict`, by export's parity gate and by the demo. Needs no preset and no
training state: rectrain.json in the folder says how images are prepared and what the classes mean.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from rectrain_api.errors import DatasetInvalid, InputMissing, RectrainError
from rectrain_trainer.evaluate import EVAL_BATCH, Images, Preparation, Reading
from rectrain_trainer.model import build_decoder

CARD: Final = "rectrain.json"
NEEDED: Final = ("inference.json", "inference.pdiparams", CARD)
"""Files of an export that reading takes."""
ENDINGS: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
"""Of images, in folders."""


@dataclass(frozen=True)
class ModelCard:
    """rectrain.json: what an exported model takes and gives."""

    preset: str
    image_shape: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=3, max_length=3)]
    padded: bool
    characters: Annotated[list[str], Field(min_length=1)]
    use_space_char: bool
    max_text_length: int
    max_aspect: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Width / height up to which images are read without being squeezed."""
    version: str = ""
    """Of RecTrain, which exported it; empty in older exports."""
    files: list[str] = field(default_factory=list)
    """All files of the export, inference.onnx among them if there is one."""

    @property
    def widest(self) -> int:
        """The same as a width in pixels."""
        return round(self.max_aspect * self.image_shape[1])


class Prediction(NamedTuple):
    path: Path
    text: str
    confidence: float


class Unread(NamedTuple):
    """An image that can't be read."""

    path: Path
    problem: RectrainError


def image_files(named: Sequence[Path]) -> list[Path]:
    """Files as they are named, and of folders all images in them and below, sorted.

    Raises InputMissing for a folder without any.
    """
    found: list[Path] = []
    for path in named:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        if not inside:
            raise InputMissing(f"The folder {path} holds no images ({', '.join(ENDINGS)}).")
        found += inside
    return found


def of_same_shape(images: Sequence[Images]) -> list[list[int]]:
    """Positions of images that fit into one batch, in order of their first. Pure."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    return list(groups.values())


class Predictor:
    """An exported model, loaded."""

    def __init__(self, model_dir: Path, load: Callable[[Path], Any] | None = None) -> None:
        """`load` gives the network of a folder, as a function of a batch: Paddle's inference engine."""
        self.card = load_card(model_dir)
        self.prepare = Preparation(self.card.image_shape, padded=self.card.padded, widest=self.card.widest)
        self.decode = build_decoder(self.card.characters, use_space_char=self.card.use_space_char)
        self.forward = (load or load_paddle)(model_dir)
        """N x 3 x H x W -> N x T x classes: the probabilities."""

    def predict(self, images: Iterable[Path]) -> Iterator[Prediction | Unread]:
        """What it reads in each image file, in order; as they are done, a batch or so at a time."""
        for paths in _chunks(images, EVAL_BATCH):
            opened = [self._opened(path) for path in paths]
            readings = iter(self.read([image for image in opened if not isinstance(image, Unread)]))
            for path, image in zip(paths, opened, strict=True):
                yield image if isinstance(image, Unread) else Prediction(path, *next(readings))

    def read(self, images: Sequence[Images]) -> list[Reading]:
        """(text, confidence) of each prepared image (3 x H x W), in order."""
        readings: dict[int, Reading] = {}
        for group in of_same_shape(images):
            outputs = self.forward(np.stack([images[i] for i in group]))
            readings |= dict(zip(group, self.decode(outputs), strict=True))
        return [readings[i] for i in range(len(images))]

    def _opened(self, path: Path) -> Images | Unread:
        try:
            image = self.prepare(path.read_bytes())
        except OSError as failed:
            return Unread(path, InputMissing(f"{path} can't be read: {failed.strerror}."))
        if image is None:
            return Unread(path, DatasetInvalid(f"{path} is no image that can be decoded."))
        return image


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    waiting = iter(paths)
    while chunk := list(itertools.islice(waiting, size)):
        yield chunk


def load_card(model_dir: Path) -> ModelCard:
    """The folder's rectrain.json. Raises InputMissing if this is no exported model of ours."""
    path = model_dir / CARD
    try:
        return TypeAdapter(ModelCard).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputMissing(
            f"{model_dir} holds no {CARD}: name the folder of an exported model (…/export)."
        ) from None
    except ValidationError as failed:
        first = failed.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DatasetInvalid(
            f"{path} can't be read ({where}: {first['msg']}): export the model again."
        ) from failed


def load_paddle(model_dir: Path) -> Any:
    """The network of a folder, by Paddle's inference engine on the CPU."""
    from paddle import inference

    for name in NEEDED:
        if not (model_dir / name).is_file():
            raise InputMissing(f"{model_dir} holds no {name}: the export is incomplete.")
    config = inference.Config(str(model_dir / "inference.json"), str(model_dir / "inference.pdiparams"))
    config.disable_glog_info()
    network: Any = inference.create_predictor(config)

    def forward(images: Images) -> Any:
        given = network.get_input_handle(network.get_input_names()[0])
        given.copy_from_cpu(np.ascontiguousarray(images))
        network.run()
        return network.get_output_handle(network.get_output_names()[0]).copy_to_cpu()

    return forward
