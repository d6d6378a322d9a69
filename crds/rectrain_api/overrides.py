"""`spec.model.overrides`: dotted key -> string, laid over a preset's configuration. Pure.

Called by a preset for `plan()`, so a typing error is refused before a pod starts. Values are parsed against
the type of what they replace; nothing is ever eval'ed. Only keys that the configuration already has may be
changed: a key that upstream would ignore silently is a typing error here. `augment` alone takes names.
"""

import copy
import difflib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from rectrain_api.errors import InvalidSpec

# Upstream eval's some strings ("nn.LayerNorm"): a dotted word can look something up, but call nothing.
WORD: Final = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
AUGMENTS: Final = frozenset({"RecAug", "RecConAug", "SVTRRecAug", "ABINetRecAug", "ParseQRecAug"})
"""Upstream's augmentations that RecTrain runs."""
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


def apply_overrides(config: dict[str, Any], overrides: Mapping[str, str]) -> dict[str, Any]:
    """A copy of `config` with each dotted key set. Raises InvalidSpec that names the key and the way out."""
    result = copy.deepcopy(config)
    for key, text in overrides.items():
        _set(result, key, text)
    return result


def _set(config: dict[str, Any], key: str, text: str) -> None:
    if key == "augment":
        config[key] = _augmentations(text)
        return
    parts = key.split(".")
    node: Any = config
    for depth, part in enumerate(parts[:-1]):
        node = node[_index(node, part, parts[:depth], key)]
    last = _index(node, parts[-1], parts[:-1], key)
    node[last] = parse_value(text, like=node[last], key=key)


def _augmentations(text: str) -> list[dict[str, Any]]:
    """Names, separated by commas, as operators with upstream's own strengths."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in AUGMENTS]
    if unknown:
        raise InvalidSpec(
            f"overrides: 'augment': {', '.join(unknown)} is not one that RecTrain runs: "
            f"name some of {', '.join(sorted(AUGMENTS))}, separated by commas."
        )
    return [{name: {}} for name in names]


def _index(node: Any, part: str, above: list[str], key: str) -> str | int:
    """Where `part` leads inside `node`: a key of a mapping or a position in a list."""
    where = ".".join(above) or "the configuration"
    if isinstance(node, list):
        if part.isdecimal() and int(part) < len(node):
            return int(part)
        raise InvalidSpec(f"overrides: {key!r}: {where} is a list of {len(node)}; give a position from 0.")
    if not isinstance(node, dict):
        raise InvalidSpec(f"overrides: {key!r}: {where} is a single value ({node!r}) and has no keys.")
    if part in node:
        return part
    raise InvalidSpec(f"overrides: {key!r}: {where} has no key {part!r}{_suggestion(part, node)}.")


def _suggestion(part: str, node: Mapping[str, Any]) -> str:
    folded = {str(name).lower(): str(name) for name in node}
    near = difflib.get_close_matches(part.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f" (did you mean {folded[near[0]]!r}?)"
    return f" (it has {', '.join(sorted(map(str, node)))})"


def parse_value(text: str, *, like: Any, key: str) -> Any:
    """`text` as a value of the type that `like` has."""
    if isinstance(like, dict):
        raise InvalidSpec(
            f"overrides: {key!r} is a section; name a key inside it ({', '.join(sorted(like))})."
        )
    parsers: tuple[tuple[type | tuple[type, ...], Callable[[str, Any], Any], str], ...] = (
        (bool, _bool, "true or false"),
        (int, _int, "a whole number"),
        (float, _float, "a finite number"),
        (str, _word, "a plain word (letters, digits, _ and dots)"),
        (list, _list, "a JSON list like the one it replaces"),
        (type(None), _scalar, "a number, true, false, null or a plain word"),
    )
    for kind, parse, expected in parsers:
        if isinstance(like, kind):
            try:
                return parse(text.strip(), like)
            except ValueError:
                raise InvalidSpec(
                    f"overrides: {key!r} must be {expected} (it is {json.dumps(like)}), not {text!r}."
                ) from None
    raise InvalidSpec(f"overrides: {key!r} holds a {type(like).__name__}, which cannot be overridden.")


def _bool(text: str, _like: Any) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _int(text: str, _like: Any) -> int:
    return int(text)


def _float(text: str, _like: Any) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _word(text: str, _like: Any) -> str:
    if not WORD.fullmatch(text):
        raise ValueError(text)
    return text


def _list(text: str, like: Any) -> list[Any]:
    value = json.loads(text)
    if not isinstance(value, list):
        raise ValueError(text)
    return [_like_item(item, like) for item in value]


def _like_item(item: Any, like: list[Any]) -> Any:
    """One item of a list, of a type that the replaced list's items have."""
    if isinstance(item, list):
        inner = next((one for one in like if isinstance(one, list)), None)
        if inner is None:
            raise ValueError(item)
        return [_like_item(one, inner) for one in item]
    if isinstance(item, int) and not isinstance(item, bool) and any(type(one) is float for one in like):
        return float(item)
    if isinstance(item, str):
        _word(item, None)
    if like and not any(type(item) is type(one) for one in like):
        raise ValueError(item)
    if not isinstance(item, bool | int | float | str):
        raise ValueError(item)
    return item


def _scalar(text: str, _like: Any) -> Any:
    """For a key that is null: nothing to compare with, so JSON's own scalars, else a word."""
    try:
        value = json.loads(text)
    except ValueError:
        return _word(text, None)
    if isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(text)
    return _word(value, None) if isinstance(value, str) else value
