"""The files of an export for people: README.md, the model's card, and SHA256SUMS.

Called when a run is published, after the parity gate. The lines of code in the card are run by a test.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from rectrain_api.plan import RunPlan
from rectrain_data.transfer import sha256_file
from rectrain_trainer import upstream
from rectrain_trainer.config import Recipe
from rectrain_trainer.consumer import WIDEST, loads_as
from rectrain_trainer.export import README, SUMS, Exported
from rectrain_trainer.figures import MEANING
from rectrain_trainer.onnx_export import ONNX, OPSET

_FILES: Final = {
    "inference.json": "the network, for Paddle's inference engine",
    "inference.pdiparams": "its weights",
    "inference.yml": "how PaddleOCR prepares images, and its dictionary",
    "rectrain.json": "the same for `rectrain-trainer predict`",
    ONNX: f"network and weights as ONNX, opset {OPSET}",
    SUMS: "hashes of all files, for `sha256sum --check`",
}
_PACKAGES: Final = ("rectrain", "paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnxruntime")


def write_card(
    exported: Exported, plan: RunPlan, recipe: Recipe, metrics: Mapping[str, Any], train_samples: int
) -> None:
    """README.md and SHA256SUMS of an export whose other files are there."""
    folder = exported.folder
    text = card_text(exported, plan, recipe, metrics, train_samples)
    (folder / README).write_text(text, encoding="utf-8")
    hashed = [name for name in exported.names if name != SUMS]
    (folder / SUMS).write_text("".join(f"{sha256_file(folder / name)}  {name}\n" for name in hashed))


def card_text(
    exported: Exported, plan: RunPlan, recipe: Recipe, metrics: Mapping[str, Any], train_samples: int
) -> str:
    """README.md."""
    _, height, width = recipe.image_shape
    held_out = plan.data.eval or f"held out of it (its own split, or {plan.data.eval_fraction:g} of it)"
    training = plan.training
    files = [(f"`{name}`", _FILES[name]) for name in exported.names if name in _FILES]
    return f"""# {plan.identity.name}: reads one line of text

A PaddleOCR text-recognition model, trained by RecTrain ({plan.identity}, model {recipe.preset}).

{_table(files)}

## What it reads

Images of one line of text, of any size: they are brought to a height of {height} px. {_widths(recipe)}
Trained on texts of up to {recipe.max_text_length} characters.

{len(recipe.characters)} characters{", and spaces" if recipe.use_space_char else "; no spaces"}:

{_table(_scripts(recipe.characters))}

## Use it

With PaddleOCR 3.x (`model_name` is a name that it knows; the model is this one):

```python
from paddleocr import TextRecognition
model = TextRecognition(model_name="{loads_as(recipe.preset)}", model_dir=".")
print(model.predict("image.png")[0]["rec_text"])
```

With RecTrain: `rectrain-trainer predict . image.png`
{_onnx_lines(recipe) if ONNX in exported.names else ""}
## How good it is

On {metrics["samples"]} images that it wasn't trained on:

{_figures(metrics)}

How it was verified: {exported.parity.sentence()}

## How it was trained

{
        _table(
            [
                ("data", f"{plan.data.train}, {train_samples} samples"),
                ("evaluation", held_out),
                ("dictionary", plan.data.dictionary),
                ("image", f"{width} x {height} px, {'padded' if recipe.padded else 'not padded'}"),
                (
                    "first weights",
                    plan.model.pretrained.uri if plan.model.pretrained else f"seed {training.seed}",
                ),
                ("epochs", recipe.epochs),
                ("batch size", training.batch_size),
                ("learning rate", _rate(training.learning_rate, recipe.rate_factor)),
                ("seed", training.seed),
                ("step of these weights", metrics["step"]),
                ("versions", ", ".join(versions())),
            ]
        )
    }

## Licence

PaddleOCR's code, of which the network is built, is under the Apache License 2.0, RecTrain under MIT. These
weights are of whoever trained them; what the training data allows is for them to say.
"""


def versions() -> list[str]:
    """What the model was made with."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    home = upstream.locate()
    checkout = home.name != "unstructured_paddleocr"
    return [*found, f"PaddleOCR's {home.name}" if checkout else f"{home.name} {version(home.name)}"]


def _rate(planned: float, factor: float) -> str:
    lowered = f", {planned * factor:g} at last, since the loss wasn't a number" if factor != 1 else ""
    return f"{planned:g}{lowered}"


def _widths(recipe: Recipe) -> str:
    _, height, width = recipe.image_shape
    aspect = f"{width / height:.3g}"
    if recipe.fixed_width:
        return (
            f"The width is fixed at {width} px: images wider than {aspect} times their height are squeezed, "
            "and read worse."
        )
    return f"Narrower ones than {aspect} times their height are padded; it takes widths up to {WIDEST} px."


def _scripts(characters: Iterable[str]) -> list[tuple[str, str]]:
    """(script, count and range) by the names that Unicode gives characters."""
    groups: dict[str, list[str]] = {}
    for character in characters:
        groups.setdefault(_script(character), []).append(character)
    return [
        (name, f"{len(held)}, U+{ord(min(held)):04X} to U+{ord(max(held)):04X}")
        for name, held in sorted(groups.items())
    ]


def _script(character: str) -> str:
    category = unicodedata.category(character)
    if category.startswith("N"):
        return "digits and numbers"
    if category[0] in "LM":
        return unicodedata.name(character, "other").split()[0].capitalize()
    return "punctuation and symbols"


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {metrics[name]:.2%} | {meaning} |"
        for name, meaning in MEANING.items()
        if metrics.get(name) is not None
    ]
    return "\n".join(["| | | |", "| --- | --- | --- |", *rows])


def _table(rows: Iterable[tuple[str, object]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _onnx_lines(recipe: Recipe) -> str:
    width = "W" if recipe.fixed_width else f"min(max(W, int(natural)), {WIDEST})"
    return f"""
With onnxruntime alone:

```python
import json, math, cv2, numpy as np, onnxruntime
card = json.load(open("rectrain.json", encoding="utf-8"))
image, (_, H, W) = cv2.imread("image.png"), card["image_shape"]
natural = H * image.shape[1] / image.shape[0]
width = {width}
used = min(width, math.ceil(natural))
x = np.zeros((1, 3, H, width), np.float32)  # BGR in [-1, 1], padded with 0 on the right
x[0, :, :, :used] = cv2.resize(image, (used, H)).transpose(2, 0, 1) / 127.5 - 1
best = onnxruntime.InferenceSession("{ONNX}").run(None, {{"x": x}})[0][0].argmax(-1)
letters = ["", *card["characters"], " "]  # class 0 is CTC's blank; repeated classes are one character
print("".join(letters[c] for c, before in zip(best, [0, *best]) if c != before))
```
"""
