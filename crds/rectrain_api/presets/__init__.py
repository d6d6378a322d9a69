"""Presets: ready-made models, one YAML file each, named in `spec.model.preset`.

Read by `plan()` (which resolves them into the run plan), by `rectrain-data` (training height and
width) and by the reference docs. Upstream's own config names are aliases, each with what its config
has of its own.
"""

import difflib
import functools
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from rectrain_api.base import ApiModel
from rectrain_api.errors import InvalidSpec
from rectrain_api.overrides import apply_overrides

Side = Annotated[int, Field(ge=8, le=4096)]
Scale = tuple[Side, Side]
"""Width and height of a batch's images [px]."""


class SamplerConfig(ApiModel):
    """Batches of several image sizes, after upstream's MultiScaleSampler.

    Upstream's `first_bs` is training.batchSize: the size of a batch at the first scale.
    """

    scales: Annotated[list[Scale], Field(min_length=1, max_length=16)]
    fix_bs: Annotated[bool, Field(alias="fix_bs")] = False
    """Every batch has as many images as the first scale's; else as many as have its area."""


class EmaConfig(ApiModel):
    """An average of the weights over the steps, after upstream's `Global.use_ema`, with its defaults."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9998
    gamma: Annotated[int, Field(ge=1)] = 2000
    """Steps in which an exponential decay comes near `decay`."""
    decay_type: Annotated[Literal["threshold", "exponential", "normal"], Field(alias="decay_type")] = (
        "threshold"
    )
    """How the decay grows: with the steps up to `decay`, by `gamma`, or not at all."""


class AmpConfig(ApiModel):
    """Mixed precision, after upstream's `Global.use_amp`, with its defaults. Paddle has it on GPUs alone."""

    level: Literal["O1", "O2"] = "O2"
    """O1: the operators that gain by it; O2: all but those that can't."""
    dtype: Literal["float16", "bfloat16"] = "float16"
    custom_black_list: Annotated[list[str], Field(alias="custom_black_list")] = []
    custom_white_list: Annotated[list[str], Field(alias="custom_white_list")] = []
    scale_loss: Annotated[float, Field(alias="scale_loss", gt=0)] = 1.0
    """Factor of the loss before it goes backward, so that small gradients aren't zero."""
    use_dynamic_loss_scaling: Annotated[bool, Field(alias="use_dynamic_loss_scaling")] = False
    """The factor grows while it works, and halves when a gradient isn't finite: that step is left out."""


RESIZE = "RecResizeImg"
Operator = dict[str, dict[str, Any] | None]
"""One of upstream's operators with its arguments."""


class PresetConfig(ApiModel):
    """The model in upstream's own words, section by section."""

    architecture: Annotated[dict[str, Any], Field(alias="Architecture")]
    loss: Annotated[dict[str, Any], Field(alias="Loss")]
    optimizer: Annotated[dict[str, Any], Field(alias="Optimizer")]
    post_process: Annotated[dict[str, Any], Field(alias="PostProcess")]
    label_encode: Annotated[str | Operator, Field(alias="label_encode")] = "CTCLabelEncode"
    """One operator: its name alone, or with arguments."""
    augment: list[dict[str, Any]] = []
    resize: str = RESIZE
    """The operator that brings an image to the size of its batch."""
    keep_keys: Annotated[list[str], Field(alias="keep_keys")] = ["image", "label", "length"]
    sampler: SamplerConfig | None = None
    """None: every batch has the image_shape."""
    ema: EmaConfig | None = None
    """None: no average is kept."""
    amp: AmpConfig | None = None
    """None: single precision throughout."""

    def dump(self) -> dict[str, Any]:
        """Plain JSON types. What is off, or at its default, is left out: a plan's hash doesn't know of it."""
        off = {name for name in ("sampler", "ema", "amp") if getattr(self, name) is None}
        off |= {"resize"} if self.resize == RESIZE else set()
        return self.model_dump(mode="json", by_alias=True, exclude=off)


class Published(ApiModel):
    """An accuracy that somebody else measured."""

    accuracy: Annotated[float, Field(ge=0, le=100)]
    """Percent of lines read exactly."""
    test_set: Annotated[str, Field(alias="test_set")]
    source: str


class Alias(ApiModel):
    """Upstream's name of a model, and what its config has of its own; what is None is as in the preset."""

    name: str
    dictionary: str | None = None
    """One of upstream's dictionaries, which its weights are for."""
    max_text_length: Annotated[int | None, Field(alias="max_text_length", ge=1)] = None
    epochs: Annotated[int | None, Field(ge=1)] = None
    batch_size: Annotated[int | None, Field(alias="batch_size", ge=1)] = None
    learning_rate: Annotated[float | None, Field(alias="learning_rate", gt=0)] = None
    published: Published | None = None


class Preset(ApiModel):
    """One model and the defaults it trains well with."""

    name: str
    aliases: list[Alias] = []
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
    dictionary: str | None = None
    """Of data that names none; None: what the labels hold."""
    published: Published | None = None
    """Of the model by its own name; an alias has its own."""
    config: PresetConfig

    @field_validator("aliases", mode="before")
    @classmethod
    def _named_alone(cls, aliases: list[Any]) -> list[Any]:
        """An alias without anything of its own may be its name alone."""
        return [{"name": alias} if isinstance(alias, str) else alias for alias in aliases]

    def under(self, alias: Alias) -> "Preset":
        """The same model with what this alias has of its own."""
        own = alias.model_dump(exclude={"name", "published"}, exclude_none=True)
        return self.model_copy(update=own)

    def configured(self, overrides: Mapping[str, str]) -> dict[str, Any]:
        """The configuration with overrides. Naming a key of a section that is off turns it on.

        Raises InvalidSpec.
        """
        _, height, width = self.image_shape
        config = self.config.dump()
        off = {
            "sampler": SamplerConfig(scales=[(width, height)]).model_dump(mode="json", by_alias=True),
            "ema": EmaConfig().model_dump(mode="json", by_alias=True),
            "amp": AmpConfig().model_dump(mode="json", by_alias=True),
            "resize": RESIZE,
        }
        changed = apply_overrides(off | config, overrides)
        named = {key.partition(".")[0] for key in overrides}
        wanted = {name: section for name, section in changed.items() if name in config or name in named}
        try:
            return PresetConfig.model_validate(wanted).dump()
        except ValidationError as wrong:
            first = wrong.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidSpec(f"overrides: {where}: {first['msg']}.") from wrong


@functools.cache
def all_presets() -> dict[str, Preset]:
    """Every preset by its own name, sorted."""
    folder = resources.files(__package__)
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    presets = (Preset.model_validate(yaml.safe_load(f.read_text("utf-8"))) for f in files)
    return {p.name: p for p in presets}


def load(name: str) -> Preset:
    """A preset by its name, or by upstream's name for it (of the model or of its config's file).

    Raises InvalidSpec naming those there are.
    """
    presets = all_presets()
    if name in presets:
        return presets[name]
    bare = name.removesuffix(".yml").removesuffix(".yaml")
    for preset in presets.values():
        for alias in preset.aliases:
            if alias.name == bare:
                return preset.under(alias)
    raise InvalidSpec(
        f'model.preset "{name}" is unknown'
        f"{_near(bare, [alias.name for preset in presets.values() for alias in preset.aliases])}"
        f": choose one of {', '.join(presets)}, or one of PaddleOCR's names (rectrain-trainer config list)."
    )


def _near(name: str, aliases: list[str]) -> str:
    """Upstream's names that may have been meant."""
    near = difflib.get_close_matches(name, aliases)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
