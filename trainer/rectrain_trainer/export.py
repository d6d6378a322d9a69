"""Export: the trained model as a Paddle inference model, proven to read what training read.

Called by the export stage. Three files are Paddle's (inference.json,
inference.pdiparams) and PaddleOCR's (inference.yml, written so that PyPI paddleocr's
`TextRecognition(model_name=MASQUERADE, model_dir=...)` loads it); rectrain.json is ours, for `predict`;
inference.onnx is for everything else. `model_card` adds the files for people.

A network of fixed width gets a squeeze in front: PaddleOCR widens its input to the image's own ratio, and a
position table of another length would end in a broadcast error.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_trainer.config import Recipe
from rectrain_trainer.consumer import MASQUERADE
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_model, set_params
from rectrain_trainer.onnx_export import ONNX, convert
from rectrain_trainer.parity import Parity, Trained, check_parity
from rectrain_trainer.predict import CARD, ModelCard

FILES: Final = ("inference.json", "inference.pdiparams", "inference.yml", CARD)
"""Of every export."""
README: Final = "README.md"
SUMS: Final = "SHA256SUMS"


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    folder: Path
    names: tuple[str, ...]
    """All files that it is to have: those for people are written by `model_card`."""
    parity: Parity


def export(
    recipe: Recipe,
    params: Mapping[str, Any],
    folder: Path,
    held_out: EvalSet,
    interrupt: Interrupt,
    *,
    onnx: bool = False,
) -> Exported:
    """Write the inference model of `params` into `folder` and compare what reads it on held-out images.

    Raises ExportMismatch naming the first image that is read differently, Interrupted.
    """
    names = (*FILES, *([ONNX] if onnx else []), README, SUMS)
    folder.mkdir(parents=True, exist_ok=True)
    with _on_the_cpu():
        model = build_model(recipe)
        set_params(model, params)
        model.eval()
        with interrupt.deferred():  # an exception within Paddle's tracer ends in a segmentation fault
            _save_network(model, recipe, folder)
        interrupt.check()
        (folder / "inference.yml").write_text(inference_yml(recipe), encoding="utf-8")
        card = asdict(card_of(recipe, names))
        (folder / CARD).write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", "utf-8")
        (folder / ONNX).unlink(missing_ok=True)  # of an attempt that was killed here
        if onnx:
            convert(folder)
        return Exported(folder, names, check_parity(Trained.of(model, recipe), folder, held_out, interrupt))


@contextlib.contextmanager
def _on_the_cpu() -> Iterator[None]:
    """Where all engines can be compared: a GPU rounds otherwise."""
    import paddle

    before = paddle.device.get_device()
    paddle.device.set_device("cpu")
    try:
        yield
    finally:
        paddle.device.set_device(before)


def card_of(recipe: Recipe, files: Sequence[str]) -> ModelCard:
    return ModelCard(
        preset=recipe.preset,
        image_shape=list(recipe.image_shape),
        padded=recipe.padded,
        characters=list(recipe.characters),
        use_space_char=recipe.use_space_char,
        max_text_length=recipe.max_text_length,
        max_aspect=recipe.widest / recipe.image_shape[1],
        version=version("rectrain"),
        files=list(files),
    )


def inference_yml(recipe: Recipe) -> str:
    """PaddleOCR's description of the model: only operators that its inference code knows.

    PaddleOCR always appends a space to `character_dict`; that is the class we put last, or one that the
    network never gives.
    """
    operators = [
        {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
        {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}},
        {"RecResizeImg": {"image_shape": list(recipe.image_shape)}},
        {"KeepKeys": {"keep_keys": ["image", "label_ctc", "label_gtc", "length", "valid_ratio"]}},
    ]
    content = {
        "Global": {"model_name": MASQUERADE},
        "PreProcess": {"transform_ops": operators},
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": list(recipe.characters)},
    }
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


def _save_network(model: Any, recipe: Recipe, folder: Path) -> None:
    import paddle

    channels, height, width = recipe.image_shape

    class Squeezed(paddle.nn.Layer):
        """The network behind a resize to its own width."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, images: Any) -> Any:
            return self.network(_squeeze(images, width))

    network = Squeezed() if recipe.fixed_width else model
    network.eval()
    spec = paddle.static.InputSpec([None, channels, height, None], dtype="float32", name="x")
    paddle.jit.save(
        paddle.jit.to_static(network, input_spec=[spec], full_graph=True), str(folder / "inference")
    )


def _squeeze(images: Any, width: int) -> Any:
    """N x C x H x any -> N x C x H x `width` by linear interpolation; exactly the identity at `width`.

    As training's own resize does it (OpenCV, two neighbours a pixel). A product with a matrix, because under
    oneDNN Paddle's interpolation and adaptive pooling fail on exported models.
    """
    import paddle

    ops: Any = paddle
    relu = ops.nn.functional.relu
    size = ops.shape(images)[3]
    pixels = ops.arange(size).astype("float32").unsqueeze(1)
    last = size.astype("float32") - 1
    scale = (last + 1) / width
    centres = (ops.arange(width, dtype="float32").unsqueeze(0) + 0.5) * scale - 0.5
    centres = ops.minimum(relu(centres), last)
    return ops.matmul(images, relu(1 - ops.abs(pixels - centres)))
