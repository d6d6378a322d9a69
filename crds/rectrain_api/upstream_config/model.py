"""Which models of a config RecTrain trains: those that read by CTC. Pure."""

import copy
from collections.abc import Mapping
from typing import Any, Final

from rectrain_api.errors import InvalidSpec
from rectrain_api.upstream_config.words import FORMULA_HEADS, GUIDES, STUDENTS

SUPPORTED: Final = "RecTrain trains CTCHead, and MultiHead of CTCHead with NRTRHead or SARHead"
STRAIGHTENED: Final = "STN_ON"
"""Upstream's transform that is exported and read alike."""


def check_model(content: Mapping[str, Any]) -> None:
    """Refuse what isn't read by CTC, and say what is there instead. Raises InvalidSpec."""
    architecture = content["Architecture"]
    if "Models" in architecture or architecture.get("name") == "DistillationModel":
        raise InvalidSpec(_of_distillation(architecture))
    kind = architecture.get("model_type")
    if kind != "rec":
        raise InvalidSpec(f"Architecture.model_type is {kind!r}, and RecTrain trains text recognition (rec).")
    for name in ("Backbone", "Head"):
        if not isinstance(architecture.get(name), dict) or not architecture[name].get("name"):
            raise InvalidSpec(f"Architecture.{name} must be a section with a name.")
    _check_head(architecture["Head"])
    transform = (architecture.get("Transform") or {}).get("name")
    if transform not in (None, STRAIGHTENED):
        raise InvalidSpec(
            f"Architecture.Transform.name: {transform} can't be used here, since Paddle 3 can't load what it "
            f"is exported to: set Transform to null, or to {STRAIGHTENED} as in upstream's rec_svtrnet.yml."
        )
    guided = architecture["Head"]["name"] == "MultiHead"
    loss, wanted = content["Loss"].get("name"), "MultiLoss" if guided else "CTCLoss"
    if loss != wanted:
        raise InvalidSpec(
            f"Loss.name: {loss} can't be trained here: with {architecture['Head']['name']} it must be "
            f"{wanted}."
        )
    decoder = content["PostProcess"].get("name")
    if decoder != "CTCLabelDecode":
        raise InvalidSpec(
            f"PostProcess.name: {decoder} can't be used here: what RecTrain trains is read by CTCLabelDecode."
        )


def without_derived(
    architecture: Mapping[str, Any], loss: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copies without what follows from the dictionary, the image's shape and the longest text."""
    built, lost = copy.deepcopy(dict(architecture)), copy.deepcopy(dict(loss))
    head = built["Head"]
    head.pop("out_channels", None)
    head.pop("out_channels_list", None)
    for one in head.get("head_list") or []:
        for name, given in one.items():
            if name in GUIDES and given:
                given.pop("max_text_length", None)
    for one in lost.get("loss_config_list") or []:
        for name, given in one.items():
            one[name] = given or None
            if name == "SARLoss" and given:
                given.pop("ignore_index", None)
    backbone = built["Backbone"]
    if backbone["name"] == "SVTRNet":
        size = backbone.pop("img_size", None)
        if isinstance(size, list) and len(size) == 2 and backbone.get("out_char_num") == size[1] // 4:
            del backbone["out_char_num"]
    return built, lost


def _check_head(head: Mapping[str, Any]) -> None:
    name = head["name"]
    if name in FORMULA_HEADS:
        raise InvalidSpec(
            f"Architecture.Head.name: {name} writes formulas, and can't be trained here: {SUPPORTED}."
        )
    if name not in ("CTCHead", "MultiHead"):
        raise InvalidSpec(
            f"Architecture.Head.name: {name} doesn't read by CTC, and can't be trained here: {SUPPORTED}; "
            "for lines of text use one of its presets, such as svtr_tiny."
        )
    if name == "CTCHead":
        return
    heads = head.get("head_list")
    names = [next(iter(one), "") for one in heads if isinstance(one, dict)] if isinstance(heads, list) else []
    if len(names) != 2 or names[0] != "CTCHead" or names[1] not in GUIDES:
        raise InvalidSpec(
            f"Architecture.Head.head_list: {', '.join(map(str, names)) or heads!r} can't be trained here: "
            "it must be CTCHead and one of NRTRHead and SARHead, in this order."
        )


def _of_distillation(architecture: Mapping[str, Any]) -> str:
    """What to use instead: the student's own config, told by its backbone and head."""
    models = architecture.get("Models")
    models = models if isinstance(models, dict) else {}
    student = next((one for name, one in models.items() if str(name).startswith("Student")), None)
    parts = student if isinstance(student, dict) else {}
    backbone, head = (str((parts.get(part) or {}).get("name")) for part in ("Backbone", "Head"))
    instead = STUDENTS.get(
        (backbone, head), "the student's own config, with its Backbone and Head in Architecture"
    )
    return (
        f"Architecture.Models: distillation trains {' and '.join(map(str, models)) or 'several models'} at "
        f"once, and RecTrain trains one: use {instead}."
    )


def check_labels(head: Mapping[str, Any], label_encode: str | Mapping[str, Any]) -> None:
    """Labels are encoded for the head that there is. Raises InvalidSpec."""
    if head["name"] == "CTCHead":
        wanted: str | dict[str, Any] = "CTCLabelEncode"
    else:
        guided_by_nrtr = "NRTRHead" in head["head_list"][1]
        wanted = {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"} if guided_by_nrtr else {}}
    if label_encode != wanted:
        named = wanted if isinstance(wanted, str) else f"MultiLabelEncode {wanted['MultiLabelEncode']}"
        raise InvalidSpec(f"Train.dataset.transforms: labels must be encoded by {named} for this head.")
