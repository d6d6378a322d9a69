"""A config of PaddleOCR (configs/rec/**, 2.x and 3.x) as a preset of the user's. Pure.

Called by `plan()`, and by the trainer's `config` and `run -c`. What of a config decides the model, its loss,
its optimizer and its batches is read; what RecTrain decides otherwise (places, devices, intervals) is told in
notes; what it can't train is refused with the reason. Nothing is eval'ed, and only known operators pass.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rectrain_api.errors import InvalidSpec
from rectrain_api.presets import Preset
from rectrain_api.upstream_config.notes import Note
from rectrain_api.upstream_config.overrides import overridden
from rectrain_api.upstream_config.places import ConfigData, DataSet, places_of
from rectrain_api.upstream_config.read import Reader
from rectrain_api.upstream_config.text import parse

__all__ = ["ConfigData", "DataSet", "Note", "UpstreamConfig", "read_config"]


@dataclass(frozen=True)
class UpstreamConfig:
    """What a config says, and what becomes of it."""

    preset: Preset
    model_name: str | None
    """Of the exported model, as 3.x (`model_name`) or 2.10 (`pdx_model_name`) has it."""
    data: ConfigData
    notes: tuple[Note, ...]
    content: dict[str, Any]
    """The whole config, overrides applied."""
    sha256: str
    """Of the text, before overrides."""


def read_config(text: str | bytes, source: str, overrides: Mapping[str, str] | None = None) -> UpstreamConfig:
    """The preset that a config of PaddleOCR describes. `source` is how messages name it.

    Raises InvalidSpec: it isn't such a config, an override has no such key, or it can't be trained here.
    """
    content, twice = parse(text, source)
    try:
        changed = overridden(content, overrides or {})
        reader = Reader(changed, source)
        preset = reader.preset()
        data = places_of(changed)
    except InvalidSpec as wrong:
        raise InvalidSpec(f"{source}: {wrong}") from wrong
    doubled = [Note(key, "Unused", "it stands twice: the last one holds") for key in twice]
    raw = text.encode() if isinstance(text, str) else text
    return UpstreamConfig(
        preset=preset,
        model_name=reader.model_name,
        data=data,
        notes=(*doubled, *reader.notes),
        content=changed,
        sha256=hashlib.sha256(raw).hexdigest(),
    )
