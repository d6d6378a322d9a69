"""Export: the trained model as a Paddle inference model, proven to read what training read.

Called by the export stage. Three files are Paddle's (inference.json,
inference.pdiparams) and PaddleOCR's (inference.yml, written so that PyPI paddleocr's
`TextRecognition(model_name=MASQUERADE, model_dir=...)` loads it); rectrain.json is ours, for `predict`.

A network of fixed width gets a squeeze in front: PaddleOCR widens its input to the image's own ratio, and a
position table of another length would end in a broadcast error.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_api.errors import ExportMismatch
from rectrain_trainer.config import Recipe
from rectrain_trainer.evaluate import EvalSet, read
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.model import build_decoder, build_model, set_params
from rectrain_trainer.predict import CARD, ModelCard, Predictor

MASQUERADE: Final = "en_PP-OCRv5_mobile_rec"
"""PaddleX only loads models under names that it knows."""
PARITY_SAMPLES: Final = 512
FILES: Final = ("inference.json", "inference.pdiparams", "inference.yml", CARD)


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    folder: Path
    files: tuple[Path, ...]
    compared: int
    """Images that both read, equally."""


def export(
    recipe: Recipe, params: Mapping[str, Any], folder: Path, held_out: EvalSet, interrupt: Interrupt
) -> Exported:
    """Write the inference model of `params` into `folder` and compare both on held-out images.

    Raises ExportMismatch naming the first image that they read differently, Interrupted.
    """
    model = build_model(recipe)
    set_params(model, params)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    with interrupt.deferred():  # an exception within Paddle's tracer ends in a segmentation fault
        _save_network(model, recipe, folder)
    interrupt.check()
    (folder / "inference.yml").write_text(inference_yml(recipe), encoding="utf-8")
    (folder / CARD).write_text(
        json.dumps(asdict(card_of(recipe)), ensure_ascii=False, indent=2) + "\n", "utf-8"
    )
    compared = check_parity(model, recipe, folder, held_out)
    return Exported(folder, tuple(folder / name for name in FILES), compared)


def check_parity(model: Any, recipe: Recipe, folder: Path, held_out: EvalSet) -> int:
    """Both read the same texts in the same images, or ExportMismatch. Returns the number of images."""
    decoder = build_decoder(recipe.characters, use_space_char=recipe.use_space_char)
    trained = read(model, decoder, held_out.batches(PARITY_SAMPLES))
    exported = Predictor(folder).read(held_out.batches(PARITY_SAMPLES))
    differing = [i for i, (a, b) in enumerate(zip(trained, exported, strict=True)) if a[0] != b[0]]
    if differing:
        i = differing[0]
        raise ExportMismatch(
            f"The exported model reads {len(differing)} of {len(trained)} images differently, first "
            f"{held_out.source.name(i)}: {exported[i][0]!r}, in training {trained[i][0]!r}. "
            "The checkpoints are kept; export again with another version of PaddlePaddle."
        )
    return len(trained)


def card_of(recipe: Recipe) -> ModelCard:
    return ModelCard(
        preset=recipe.preset,
        image_shape=list(recipe.image_shape),
        padded=recipe.padded,
        characters=list(recipe.characters),
        use_space_char=recipe.use_space_char,
        max_text_length=recipe.max_text_length,
        max_aspect=recipe.widest / recipe.image_shape[1],
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
