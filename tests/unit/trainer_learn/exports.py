"""An exported model that reads something and was never trained, for the tests of export and parity."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from rectrain_api import presets
from rectrain_data.dictionary import builtin
from rectrain_trainer.config import Recipe
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.export import Exported, export
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loader import blank_batch
from rectrain_trainer.model import build_model
from tests.support.rig import ROOT
from tests.unit.trainer_learn.recipes import DIGITS, loose, make_recipe

CONSUMER = ROOT / ".venv" / "consumer" / "bin" / "python"
"""It has PyPI's paddleocr, as its users install it."""


@dataclass(frozen=True)
class Done:
    recipe: Recipe
    exported: Exported
    model: Any
    held_out: EvalSet

    @property
    def folder(self) -> Path:
        return self.exported.folder


def wordy(recipe: Recipe, held_out: EvalSet) -> dict[str, Any]:
    """Weights that make an untrained model read something, and not the same in every image: normalised
    features, and a loud head without a preference for blank."""
    rng = np.random.default_rng(1)
    model = build_model(recipe)
    prepared = [held_out.prepare(held_out.samples.image_bytes(i)) for i in range(min(32, len(held_out)))]
    images = paddle.to_tensor(np.stack([image for image in prepared if image.shape == prepared[0].shape]))
    scale = recipe.sampler.scales[0]  # of the blank labels alone
    for layer in model.sublayers():
        if hasattr(layer, "_momentum"):
            layer._momentum = 0.0  # running averages are those of the last batch
    model(images, data=[paddle.to_tensor(part) for part in blank_batch(recipe, len(images), scale)[1:]])
    params = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    head = "head.ctc_head.fc" if recipe.guided else "head.fc"
    params[f"{head}.weight"] = rng.normal(0, 3, params[f"{head}.weight"].shape).astype(np.float32)
    params[f"{head}.bias"] = np.zeros_like(params[f"{head}.bias"])
    return params


def exported(preset: str, digits: Path, folder: Path) -> Done:
    """With ONNX, read by all engines. The characters are those of the preset's name, or digits."""
    dictionary = presets.load(preset).dictionary
    characters = list(builtin(dictionary).characters) if dictionary else DIGITS
    recipe = make_recipe(preset, characters=characters, use_space_char=True)
    held_out = EvalSet(recipe, loose(digits))
    params = wordy(recipe, held_out)
    found = export(recipe, params, folder, held_out, Interrupt(10), onnx=True)
    model = build_model(recipe)
    model.set_state_dict(params)
    model.eval()
    return Done(recipe, found, model, held_out)
