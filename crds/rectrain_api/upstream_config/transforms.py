"""The chain of `Train.dataset.transforms`, against the operators that RecTrain runs. Pure."""

from dataclasses import dataclass, field
from typing import Any, Final

from rectrain_api.errors import InvalidSpec
from rectrain_api.overrides import AUGMENTS
from rectrain_api.upstream_config.notes import Note
from rectrain_api.upstream_config.words import ENCODERS, RESIZES

CON_AUG: Final = "RecConAug"
_AUGMENTS: Final = AUGMENTS | {CON_AUG}
_KNOWN: Final = _AUGMENTS | ENCODERS | RESIZES | {"DecodeImage", "KeepKeys"}
_RESIZE_KEYS: Final = frozenset({"image_shape", "padding", "character_dict_path", "infer_mode", "eval_mode"})


@dataclass
class Transforms:
    """What the chain says."""

    label_encode: str | dict[str, Any] = ""
    augment: list[dict[str, Any]] = field(default_factory=list)
    resize: str | None = None
    """None: a sampler's batches are resized by the data set."""
    image_shape: list[int] | None = None
    padded: bool = True

    @property
    def keep_keys(self) -> list[str]:
        """What a batch holds, which follows from how labels are encoded."""
        if isinstance(self.label_encode, str):
            return ["image", "label", "length"]
        ((_, given),) = self.label_encode.items()
        guide = "label_gtc" if given.get("gtc_encode") else "label_sar"
        return ["image", "label_ctc", guide, "length", "valid_ratio"]


def read_transforms(chain: Any, notes: list[Note]) -> Transforms:
    """Raises InvalidSpec that names the operator which can't be run, with the reason."""
    where = "Train.dataset.transforms"
    if not isinstance(chain, list) or not chain:
        raise InvalidSpec(f"{where} must be a list of operators.")
    result = Transforms()
    for operator in chain:
        if not isinstance(operator, dict) or len(operator) != 1:
            raise InvalidSpec(f"{where}: {operator!r} must be one operator, its name and a colon.")
        ((name, given),) = operator.items()
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise InvalidSpec(f"{where}.{name} must be a section, not {given!r}.")
        if name not in _KNOWN:
            raise InvalidSpec(
                f"{where}: {name} isn't an operator that RecTrain runs: remove it, or use one of "
                f"{', '.join(sorted(_KNOWN))}."
            )
        _take(result, str(name), dict(given), notes)
    if not result.label_encode:
        raise InvalidSpec(f"{where} must have one of {' and '.join(sorted(ENCODERS))}.")
    return result


def _take(result: Transforms, name: str, given: dict[str, Any], notes: list[Note]) -> None:
    where = f"Train.dataset.transforms.{name}"
    if name in _AUGMENTS:
        result.augment.append({name: given})
    elif name in ENCODERS:
        _encode(result, name, given, where, notes)
    elif name in RESIZES:
        result.resize, result.image_shape = name, given.get("image_shape")
        result.padded = bool(given.get("padding", True))
        _tell(given, _RESIZE_KEYS, where, notes)
    elif name == "DecodeImage":
        if given.get("img_mode", "RGB") != "BGR" or given.get("channel_first"):
            raise InvalidSpec(
                f"{where}: images are trained as PaddleOCR reads them later, with img_mode BGR and "
                "channel_first false."
            )
    elif given.get("keep_keys") and result.label_encode and set(given["keep_keys"]) != set(result.keep_keys):
        notes.append(Note(where, "Replaced", ", ".join(result.keep_keys)))


def _encode(result: Transforms, name: str, given: dict[str, Any], where: str, notes: list[Note]) -> None:
    if result.label_encode:
        raise InvalidSpec(f"{where}: labels are encoded twice.")
    if name == "CTCLabelEncode":
        result.label_encode = name
        _tell(given, frozenset(), where, notes)
        return
    guide = given.get("gtc_encode")
    if guide not in (None, "NRTRLabelEncode", "SARLabelEncode"):
        raise InvalidSpec(
            f"{where}.gtc_encode: {guide!r} can't be used here: NRTRLabelEncode, or none (SAR)."
        )
    kept = {"gtc_encode": guide} if guide == "NRTRLabelEncode" else {}
    result.label_encode = {name: kept}
    _tell(given, frozenset({"gtc_encode"}), where, notes)


def _tell(given: dict[str, Any], used: frozenset[str], where: str, notes: list[Note]) -> None:
    """Arguments that a chain of ours hasn't."""
    notes.extend(
        Note(f"{where}.{key}", "Unused", "it follows from the model and the data")
        for key, value in given.items()
        if key not in used and value is not None
    )
