"""Reading images with an exported model, from its folder alone.

Called by `rectrain-trainer predict`, by export's parity gate and by the demo. Needs no preset and no
training state: rectrain.json in the folder says how images are prepared and what the classes mean.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_trainer.evaluate import Images, Preparation, Reading, in_batches
from rectrain_trainer.model import build_decoder

CARD: Final = "rectrain.json"


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

    @property
    def widest(self) -> int:
        """The same as a width in pixels."""
        return round(self.max_aspect * self.image_shape[1])


class Prediction(NamedTuple):
    path: Path
    text: str
    confidence: float


def predict(model_dir: Path, images: Sequence[Path]) -> list[Prediction]:
    """What the exported model in `model_dir` reads in each image, in order."""
    predictor = Predictor(model_dir)
    readings = predictor.read(predictor.prepared(images))
    return [Prediction(path, *reading) for path, reading in zip(images, readings, strict=True)]


class Predictor:
    """An exported model, loaded."""

    def __init__(self, model_dir: Path) -> None:
        self.card = load_card(model_dir)
        self._prepare = Preparation(self.card.image_shape, padded=self.card.padded, widest=self.card.widest)
        self._decode = build_decoder(self.card.characters, use_space_char=self.card.use_space_char)
        self._network = _load_network(model_dir)

    def prepared(self, images: Iterable[Path]) -> Iterator[Images]:
        """Image files as batches for `read`."""
        return in_batches(self._prepared(path) for path in images)

    def read(self, batches: Iterable[Images]) -> list[Reading]:
        """(text, confidence) of each image, in order."""
        readings: list[Reading] = []
        for images in batches:
            readings += self._decode(self._forward(images))
        return readings

    def _forward(self, images: Images) -> Any:
        """N x T x classes: the probabilities."""
        given = self._network.get_input_handle(self._network.get_input_names()[0])
        given.copy_from_cpu(np.ascontiguousarray(images))
        self._network.run()
        return self._network.get_output_handle(self._network.get_output_names()[0]).copy_to_cpu()

    def _prepared(self, path: Path) -> Images:
        try:
            image = self._prepare(path.read_bytes())
        except OSError as failed:
            raise InputMissing(f"{path} can't be read: {failed.strerror}.") from failed
        if image is None:
            raise DatasetInvalid(f"{path} is no image that can be decoded.")
        return image


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


def _load_network(model_dir: Path) -> Any:
    from paddle import inference

    for name in ("inference.json", "inference.pdiparams"):
        if not (model_dir / name).is_file():
            raise InputMissing(f"{model_dir} holds no {name}: the export is incomplete.")
    config = inference.Config(str(model_dir / "inference.json"), str(model_dir / "inference.pdiparams"))
    config.disable_glog_info()
    network: Any = inference.create_predictor(config)
    return network
