"""Recipes for tests: as `plan()` resolves a preset, but small."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rectrain_api import presets
from rectrain_api.plan import EvalInterval, ModelPlan, TrainingPlan
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.sources import StagedSource

DIGITS = list("0123456789")
RECAUG: dict[str, Any] = {"RecAug": {"tia_prob": 0.4, "reverse_prob": 0.4}}


def make_recipe(
    preset: str = "svtr_nano",
    *,
    epochs: int = 2,
    batch_size: int = 8,
    seed: int = 7,
    width: int | None = None,
    augment: list[dict[str, Any]] | None = None,
    overrides: Mapping[str, str] | None = None,
    characters: list[str] = DIGITS,
    use_space_char: bool = False,
) -> Recipe:
    chosen = presets.load(preset)
    config = chosen.configured(overrides or {})
    if augment is not None:
        config["augment"] = augment
    model = ModelPlan(
        preset=chosen.name,
        image_shape=[3, chosen.image_shape[1], width or chosen.image_shape[2]],
        padded=chosen.padded,
        max_text_length=chosen.max_text_length,
        config=config,
    )
    training = TrainingPlan(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=chosen.learning_rate,
        eval_interval=EvalInterval(every=1, unit="epochs"),
        seed=seed,
        deterministic=True,
        workers=None,
    )
    return resolve(model, training, characters, use_space_char=use_space_char)


def loose(folder: Path) -> StagedSource:
    return StagedSource(folder / "labels.txt", packed=False)
