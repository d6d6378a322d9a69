"""Presets: ready-made models, one YAML file each, named in `spec.model.preset`.

Read by `plan()` (which resolves them into the run plan), by `rectrain-data` (training height and
width) and by the reference docs. Upstream's own config names are aliases.
"""

import functools
from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import Field

from rectrain_api.base import ApiModel
from rectrain_api.errors import InvalidSpec


class PresetConfig(ApiModel):
    """The model in upstream's own words, section by section."""

    architecture: Annotated[dict[str, Any], Field(alias="Architecture")]
    loss: Annotated[dict[str, Any], Field(alias="Loss")]
    optimizer: Annotated[dict[str, Any], Field(alias="Optimizer")]
    post_process: Annotated[dict[str, Any], Field(alias="PostProcess")]
    label_encode: Annotated[str, Field(alias="label_encode")] = "CTCLabelEncode"
    augment: list[dict[str, Any]] = []
    keep_keys: Annotated[list[str], Field(alias="keep_keys")] = ["image", "label", "length"]


class Preset(ApiModel):
    """One model and the defaults it trains well with."""

    name: str
    aliases: list[str] = []
    title: str
    description: str
    source: str
    image_shape: Annotated[list[int], Field(alias="image_shape", min_length=3, max_length=3)]
    """Channels, height [px], width [px]."""
    padded: bool = True
    """Keep the aspect ratio and pad to the width (else the image is squeezed to it)."""
    max_text_length: Annotated[int, Field(alias="max_text_length", ge=1)]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(alias="batch_size", ge=1)]
    learning_rate: Annotated[float, Field(alias="learning_rate", gt=0)]
    config: PresetConfig


@functools.cache
def all_presets() -> dict[str, Preset]:
    """Every preset by its own name, sorted."""
    folder = resources.files(__package__)
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    presets = (Preset.model_validate(yaml.safe_load(f.read_text("utf-8"))) for f in files)
    return {p.name: p for p in presets}


def load(name: str) -> Preset:
    """A preset by its name or by upstream's name for it. Raises InvalidSpec naming those there are."""
    presets = all_presets()
    for preset in presets.values():
        if name == preset.name or name in preset.aliases:
            return preset
    raise InvalidSpec(f'model.preset "{name}" is unknown: choose one of {", ".join(presets)}.')
