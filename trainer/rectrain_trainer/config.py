"""From the run plan and its dictionary to one resolved `Recipe`. Pure.

Called by the train stage, by export and by the tests. Nothing of a configuration is eval'ed by us, and
upstream eval's some strings: so every string must be a plain dotted word, which can call nothing.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rectrain_api.errors import DatasetInvalid, InvalidSpec
from rectrain_api.overrides import AUGMENTS, WORD
from rectrain_api.plan import ModelPlan, TrainingPlan
from rectrain_api.presets import EmaConfig, SamplerConfig
from rectrain_trainer.consumer import WIDEST

_CTC_ONLY: Final = {
    "Loss": "CTCLoss",
    "PostProcess": "CTCLabelDecode",
    "label_encode": "CTCLabelEncode",
}
_KEEP: Final = ["image", "label", "length"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what is trained; upstream's sections as upstream wants them."""

    preset: str
    architecture: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    augment: list[dict[str, Any]]
    image_shape: tuple[int, int, int]
    """Channels, height, width [px]."""
    padded: bool
    max_text_length: int
    characters: tuple[str, ...]
    """The dictionary's lines, in order; never a space."""
    use_space_char: bool
    epochs: int
    batch_size: int
    seed: int
    sampler: SamplerConfig
    """Sizes that batches have; that of `image_shape` where the model names none."""
    ema: EmaConfig | None
    rate_factor: float = 1.0
    """Of the learning rate: less after a rollback."""

    @property
    def classes(self) -> int:
        """Width of the head: CTC's blank, the dictionary, and the space if it is on."""
        return 1 + len(self.characters) + int(self.use_space_char)

    @property
    def fixed_width(self) -> bool:
        """The network has a position table: it takes images of exactly `image_shape`."""
        return bool(self.architecture["Backbone"]["name"] == "SVTRNet")

    @property
    def widest(self) -> int:
        """Width up to which inference reads an image of the trained height unsqueezed [px]."""
        return self.image_shape[2] if self.fixed_width else max(self.image_shape[2], WIDEST)

    @property
    def fixed_height(self) -> bool:
        """The network folds exactly the height of `image_shape` into one row."""
        return self.fixed_width or bool(self.architecture["Backbone"]["name"] == "MobileNetV3")


def resolve(
    model: ModelPlan, training: TrainingPlan, characters: Sequence[str], *, use_space_char: bool = False
) -> Recipe:
    """The recipe of one run. `characters` are the dictionary's lines, `use_space_char` adds a space to them.

    Raises:
        InvalidSpec: the configuration can't be trained here.
        DatasetInvalid: the dictionary can't be used.
    """
    config: dict[str, Any] = copy.deepcopy(model.config)
    check_sections(config)
    check_characters(characters)
    channels, height, width = _checked_shape(model.image_shape)
    config["Optimizer"]["lr"]["learning_rate"] = training.learning_rate
    recipe = Recipe(
        preset=model.preset,
        architecture=config["Architecture"],
        loss=config["Loss"],
        optimizer=config["Optimizer"],
        augment=config["augment"],
        image_shape=(channels, height, width),
        padded=model.padded,
        max_text_length=model.max_text_length,
        characters=tuple(characters),
        use_space_char=use_space_char,
        epochs=training.epochs,
        batch_size=training.batch_size,
        seed=training.seed,
        sampler=SamplerConfig.model_validate(config.get("sampler", {"scales": [(width, height)]})),
        ema=EmaConfig.model_validate(config["ema"]) if "ema" in config else None,
    )
    _check_scales(recipe)
    return dataclasses.replace(recipe, architecture=_sized(recipe))


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuse what this trainer can't train, and every string that could be more than a name."""
    _check_words(config, "")
    for section, only in _CTC_ONLY.items():
        name = config[section] if isinstance(config[section], str) else config[section].get("name")
        if name != only:
            raise InvalidSpec(f"{section}: {name!r} is not supported; recognition here is CTC ({only}).")
    if config["Architecture"].get("Head", {}).get("name") != "CTCHead":
        raise InvalidSpec("Architecture.Head.name must be CTCHead: recognition here is CTC.")
    if config["keep_keys"] != _KEEP:
        raise InvalidSpec(f"keep_keys must be {_KEEP}: CTC needs no other.")
    for op in config["augment"]:
        unknown = sorted(set(op) - AUGMENTS)
        if unknown or len(op) != 1:
            raise InvalidSpec(
                f"augment: {', '.join(unknown) or op!r} is not one that RecTrain runs: "
                f"use {', '.join(sorted(AUGMENTS))}."
            )


def _checked_shape(shape: Sequence[int]) -> Sequence[int]:
    if len(shape) != 3 or shape[0] != 3 or min(shape[1:]) < 8:
        raise InvalidSpec(f"image_shape must be [3, height, width] in pixels, not {list(shape)}.")
    return shape


def _check_scales(recipe: Recipe) -> None:
    """Every size of the sampler is one that the network takes."""
    _, height, width = recipe.image_shape
    for scale in recipe.sampler.scales:
        if recipe.fixed_width and scale != (width, height):
            taken = f"exactly [{width}, {height}], the size of its position table"
        elif recipe.fixed_height and scale[1] != height:
            taken = f"any width, but the height {height} alone"
        else:
            continue
        raise InvalidSpec(
            f"sampler.scales: {recipe.preset} can't take {list(scale)} (width, height): it takes {taken}."
        )


def _check_words(node: Any, where: str) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            _check_words(value, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list):
        for item in node:
            _check_words(item, where)
    elif isinstance(node, str) and not all(WORD.fullmatch(word) for word in node.split(" ")):
        raise InvalidSpec(f"{where}: {node!r} must be plain words (letters, digits, _ and dots).")


def check_characters(characters: Sequence[str]) -> None:
    """A dictionary that upstream's per-character encoder can use: see its issues 1169, 13990."""
    seen: set[str] = set()
    for number, character in enumerate(characters, 1):
        if character == " ":
            problem = "is a space: leave it out and switch the space character on instead"
        elif len(character) != 1:
            problem = f"must be exactly one character, not {character!r}"
        elif character in seen:
            problem = f"repeats {character!r}"
        else:
            seen.add(character)
            continue
        raise DatasetInvalid(f"dictionary line {number} {problem}.")
    if not seen:
        raise DatasetInvalid("The dictionary is empty.")


def _sized(recipe: Recipe) -> dict[str, Any]:
    """Architecture with what follows from the image's shape and the dictionary."""
    architecture = copy.deepcopy(recipe.architecture)
    architecture["Head"]["out_channels"] = recipe.classes
    if recipe.fixed_width:
        _, height, width = recipe.image_shape
        if height % 16 or width % 4:
            raise InvalidSpec(
                f"SVTRNet takes height in steps of 16, width in steps of 4, not {height}x{width}."
            )
        architecture["Backbone"] |= {"img_size": [height, width], "out_char_num": width // 4}
    return architecture
