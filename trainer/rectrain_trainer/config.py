"""From the run plan and its dictionary to one resolved `Recipe`. Pure.

Called by the train stage, by export and by the tests. Nothing of a configuration is eval'ed by us, and
upstream eval's some strings: so every string must be a plain dotted word, which can call nothing.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rectrain_api.errors import DatasetInvalid, InvalidSpec
from rectrain_api.overrides import AUGMENTS, WORD
from rectrain_api.plan import ModelPlan, TrainingPlan
from rectrain_api.presets import RESIZE, AmpConfig, EmaConfig, SamplerConfig
from rectrain_trainer.consumer import WIDEST

RESIZES: Final = frozenset({RESIZE, "SVTRRecResizeImg"})
"""Upstream's operators that bring an image to size as we evaluate and export it; the two are the same."""
_FIXED_HEIGHT: Final = frozenset({"SVTRNet", "MobileNetV3", "MobileNetV1Enhance"})
"""Backbones that fold exactly one height into a row. In training others of upstream's pool what is there."""


class Guide(NamedTuple):
    """An attention head that guides the network in training, beside the CTC head that is kept."""

    loss: str
    decoder: str
    """What upstream files the number of classes under."""
    more_classes: int
    """Than CTC has."""
    encoder: str | None
    """MultiLabelEncode's gtc_encode."""
    key: str
    """What it calls the labels."""


GUIDES: Final = {
    "NRTRHead": Guide("NRTRLoss", "NRTRLabelDecode", 3, "NRTRLabelEncode", "label_gtc"),
    "SARHead": Guide("SARLoss", "SARLabelDecode", 2, None, "label_sar"),
}
GUIDE_ENDS: Final = 2
"""Of a guide's label, its begin and its end: upstream takes them off the longest text."""


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
    label_encode: dict[str, Any]
    """One of upstream's operators, with its arguments."""
    resize: str
    """Upstream's operator for it."""
    keep_keys: tuple[str, ...]
    """What a batch holds, in order; images first."""
    amp: AmpConfig | None = None
    rate_factor: float = 1.0
    """Of the learning rate: less after a rollback."""

    @property
    def classes(self) -> int:
        """Width of the head: CTC's blank, the dictionary, and the space if it is on."""
        return 1 + len(self.characters) + int(self.use_space_char)

    @property
    def guided(self) -> bool:
        """An attention head is trained beside the CTC head."""
        return bool(self.architecture["Head"]["name"] == "MultiHead")

    @property
    def encode(self) -> dict[str, Any]:
        """The label encoder, for texts up to `max_text_length`: upstream's drops longer ones."""
        [(name, arguments)] = self.label_encode.items()
        longest = self.max_text_length + GUIDE_ENDS * self.guided
        return {name: {**(arguments or {}), "max_text_length": longest}}

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
        return self.architecture["Backbone"]["name"] in _FIXED_HEIGHT


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
        label_encode=_operator(config["label_encode"]),
        resize=config.get("resize", RESIZE),
        keep_keys=tuple(config["keep_keys"]),
        amp=AmpConfig.model_validate(config["amp"]) if "amp" in config else None,
    )
    _check_scales(recipe)
    return dataclasses.replace(recipe, architecture=_sized(recipe), loss=_sized_loss(recipe))


def check_sections(config: Mapping[str, Any]) -> None:
    """Refuse what this trainer can't train, and every string that could be more than a name."""
    _check_words(config, "")
    _check_heads(config)
    if config["PostProcess"].get("name") != "CTCLabelDecode":
        raise InvalidSpec(
            f"PostProcess: {config['PostProcess'].get('name')!r} is not supported; recognition here is CTC "
            "(CTCLabelDecode)."
        )
    if config.get("resize", RESIZE) not in RESIZES:
        raise InvalidSpec(f"resize: {config['resize']!r} is not one of {', '.join(sorted(RESIZES))}.")
    for op in config["augment"]:
        unknown = sorted(set(op) - AUGMENTS)
        if unknown or len(op) != 1:
            raise InvalidSpec(
                f"augment: {', '.join(unknown) or op!r} is not one that RecTrain runs: "
                f"use {', '.join(sorted(AUGMENTS))}."
            )


def _check_heads(config: Mapping[str, Any]) -> None:
    """Heads, losses, labels and what a batch holds belong together."""
    head = config["Architecture"].get("Head") or {}
    if head.get("name") == "CTCHead":
        wanted: dict[str, Any] = {
            "Loss": ["CTCLoss"],
            "label_encode": {"CTCLabelEncode": {}},
            "keep_keys": ["image", "label", "length"],
        }
    elif head.get("name") == "MultiHead":
        names = _names(head.get("head_list"))
        if len(names) != 2 or names[0] != "CTCHead" or names[1] not in GUIDES:
            raise InvalidSpec(
                f"Architecture.Head.head_list must be CTCHead and one of {', '.join(GUIDES)}, not "
                f"{', '.join(names) or 'nothing'}."
            )
        guide = GUIDES[names[1]]
        wanted = {
            "Loss": ["MultiLoss", "CTCLoss", guide.loss],
            "label_encode": {
                "MultiLabelEncode": {"gtc_encode": guide.encoder} if guide.encoder is not None else {}
            },
            "keep_keys": ["image", "label_ctc", guide.key, "length", "valid_ratio"],
        }
    else:
        raise InvalidSpec(
            f"Architecture.Head: {head.get('name')!r} is not supported; recognition here is CTC: CTCHead, or "
            f"MultiHead of CTCHead and one of {', '.join(GUIDES)}."
        )
    found = {
        "Loss": _losses(config["Loss"]),
        "label_encode": _known_arguments(_operator(config["label_encode"])),
        "keep_keys": config["keep_keys"],
    }
    for section, want in wanted.items():
        if found[section] != want:
            raise InvalidSpec(
                f"{section}: {_said(found[section])} is not supported with {head['name']}; use {_said(want)}."
            )


def _said(section: Any) -> str:
    return ", ".join(map(str, section)) if isinstance(section, list) else str(section)


def _names(operators: Any) -> list[str]:
    """Of a list of one-name sections."""
    if not isinstance(operators, list):
        return []
    return [str(name) for section in operators if isinstance(section, Mapping) for name in section]


def _losses(loss: Mapping[str, Any]) -> list[str]:
    return [str(loss.get("name")), *_names(loss.get("loss_config_list"))]


def _operator(section: Any) -> dict[str, Any]:
    """One operator with its arguments, also when it is its name alone."""
    return dict(section) if isinstance(section, Mapping) else {str(section): {}}


def _known_arguments(operator: Mapping[str, Any]) -> dict[str, Any]:
    """Without the longest text, which is the model's."""
    return {
        name: {k: v for k, v in (arguments or {}).items() if v is not None and k != "max_text_length"}
        for name, arguments in operator.items()
    }


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
    """Architecture with what follows from the image's shape, the longest text and the dictionary."""
    architecture = copy.deepcopy(recipe.architecture)
    head = architecture["Head"]
    if recipe.guided:
        [(name, arguments)] = head["head_list"][1].items()
        guide = GUIDES[name]
        head["head_list"][1] = {name: {**(arguments or {}), "max_text_length": recipe.max_text_length}}
        head["out_channels_list"] = {
            "CTCLabelDecode": recipe.classes,
            guide.decoder: recipe.classes + guide.more_classes,
        }
    else:
        head["out_channels"] = recipe.classes
    if recipe.fixed_width:
        height, width = _straightened(architecture) or recipe.image_shape[1:]
        if height % 16 or width % 4:
            raise InvalidSpec(
                f"SVTRNet takes height in steps of 16, width in steps of 4, not {height}x{width}."
            )
        backbone = architecture["Backbone"]
        backbone |= {"img_size": [height, width], "out_char_num": backbone.get("out_char_num", width // 4)}
    return architecture


def _straightened(architecture: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of what the Transform makes of an image, where there is one that says."""
    size = (architecture.get("Transform") or {}).get("tps_outputsize")
    return (int(size[0]), int(size[1])) if size else None


def _sized_loss(recipe: Recipe) -> dict[str, Any]:
    """SAR's padding is no class to learn: it is the last of its own."""
    loss = copy.deepcopy(recipe.loss)
    for section in loss.get("loss_config_list", []):
        if "SARLoss" in section:
            section["SARLoss"] = {**(section["SARLoss"] or {}), "ignore_index": recipe.classes + 1}
    return loss
