"""Overrides in a config's own keys: "Global.epoch_num", "Optimizer.lr.learning_rate". Pure."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from rectrain_api.errors import InvalidSpec
from rectrain_api.overrides import apply_overrides
from rectrain_api.upstream_config.words import DEFAULTS, FRACTIONS, PATHS

_BATCH, _FIRST = ("Train", "loader", "batch_size_per_card"), ("Train", "sampler", "first_bs")


def overridden(content: Mapping[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a config with each dotted key set, parsed against what it replaces.

    Raises InvalidSpec: a key that neither the config nor PaddleOCR has, or a value of another type.
    """
    result = copy.deepcopy(dict(content))
    together = look_up(result, _BATCH) == look_up(result, _FIRST)
    for key, text in overrides.items():
        parts = tuple(key.split("."))
        _supply(result, parts)
        holder = look_up(result, parts[:-1])
        if isinstance(holder, dict) and parts[-1] in PATHS and parts[-1] in holder:
            holder[parts[-1]] = _places(text, holder[parts[-1]])
            continue
        if isinstance(holder, dict) and parts[-1] in FRACTIONS and type(holder.get(parts[-1])) is int:
            holder[parts[-1]] = float(holder[parts[-1]])
        result = apply_overrides(result, {key: text})
    _sampler_follows(result, overrides, together)
    return result


def look_up(content: Any, parts: tuple[str, ...]) -> Any:
    """What lies under these keys; None when nothing does."""
    for part in parts:
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict):
            content = content.get(part)
        else:
            return None
    return content


def _supply(content: dict[str, Any], parts: tuple[str, ...]) -> None:
    """Upstream's default for a key that the config leaves out."""
    holder, default = look_up(content, parts[:-1]), look_up(DEFAULTS, parts[:-1])
    known = isinstance(holder, dict) and isinstance(default, dict) and parts[-1] in default
    if known and parts[-1] not in holder:
        holder[parts[-1]] = copy.deepcopy(default[parts[-1]])


def _places(text: str, like: Any) -> Any:
    """A place is any text; a list of them JSON, or one alone."""
    if not isinstance(like, list):
        return text.strip() or None
    if not text.strip().startswith("["):
        return [text.strip()]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidSpec(f'overrides: {text!r} isn\'t a list of places such as ["a.txt", "b.txt"].')
    return value


def _sampler_follows(content: dict[str, Any], overrides: Mapping[str, str], together: bool) -> None:
    """Upstream's sampler has a batch size of its own, which its configs tie to the loader's by an anchor."""
    named = {key for key in overrides if key in (".".join(_BATCH), ".".join(_FIRST))}
    if together and named == {".".join(_BATCH)}:
        content["Train"]["sampler"]["first_bs"] = content["Train"]["loader"]["batch_size_per_card"]
