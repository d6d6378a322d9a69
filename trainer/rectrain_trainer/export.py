"""Export: the trained model as a Paddle inference model, proven to read what training read.

Called by the export stage. Three files are Paddle's (inference.json,
inference.pdiparams) and PaddleOCR's (inference.yml, written so that PyPI paddleocr's
`TextRecognition(model_name=loads_as(...), model_dir=...)` loads it); rectrain.json is ours, for `predict`;
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

import numpy as np
import yaml

from rectrain_trainer.config import Recipe
from rectrain_trainer.consumer import loads_as
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
            save_network(deployable(model, recipe, params), recipe, folder)
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
        "Global": {"model_name": loads_as(recipe.preset)},
        "PreProcess": {"transform_ops": operators},
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": list(recipe.characters)},
    }
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


def deployable(model: Any, recipe: Recipe, params: Mapping[str, Any]) -> Any:
    """The same network as engines run it best: another copy, so that what was trained is there to compare
    with; the model itself where there is nothing to do.

    Layers whose branches can be one (PPLCNetV3) are folded, as upstream's export does it. STN's resize, which
    fails under oneDNN, is a product of matrices.
    """
    import paddle

    transform = recipe.architecture.get("Transform") or {}
    straightens = transform.get("name") == "STN_ON"
    if not straightens and not any(hasattr(layer, "rep") for layer in model.sublayers()):
        return model
    copied = build_model(recipe)
    set_params(copied, params)
    copied.eval()
    with paddle.utils.unique_name.guard("deployed_"):  # what is made now mustn't be called as what is there
        for layer in copied.sublayers():
            if hasattr(layer, "rep") and not getattr(layer, "is_repped", False):
                layer.rep()
        if straightens:
            copied.transform = _resized_by_products(copied.transform, recipe.image_shape)
    return copied


def _resized_by_products(stn: Any, image_shape: Sequence[int]) -> Any:
    """Upstream's STN_ON for images of exactly this shape."""
    import paddle

    _, height, width = image_shape

    class Straightened(paddle.nn.Layer):
        """Its network finds the points in a small copy of the image, and the image is bent by them."""

        def __init__(self) -> None:
            super().__init__()
            self.stn_head, self.tps = stn.stn_head, stn.tps
            self.out_channels = stn.out_channels
            small_height, small_width = stn.tps_inputsize
            self.register_buffer("down", paddle.to_tensor(_corners_aligned(height, small_height)))
            self.register_buffer("across", paddle.to_tensor(_corners_aligned(width, small_width).T))

        def forward(self, image: Any) -> Any:
            ops: Any = paddle
            _, points = self.stn_head(ops.matmul(ops.matmul(self.down, image), self.across))
            return self.tps(image, points)[0]

    straightened = Straightened()
    straightened.eval()
    return straightened


def _corners_aligned(size: int, wanted: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """`wanted` x `size`: linear interpolation that leaves the first and the last where they are."""
    at = np.arange(wanted) * (size - 1) / (wanted - 1)
    weights: np.ndarray[Any, np.dtype[np.float64]] = 1 - np.abs(at[:, None] - np.arange(size)[None])
    weights[weights < 0] = 0
    return weights.astype(np.float32)


def save_network(model: Any, recipe: Recipe, folder: Path) -> None:
    """Paddle's two files, of the network alone."""
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
