"""Whether what a config has under upstream's keys is of upstream's kinds: sections, lists, names. Pure.

Looked at once, before anything of it is read, so that whoever reads it can rely on it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rectrain_api.errors import InvalidSpec

_SECTIONS: Final = (
    "Architecture.Transform",
    "Architecture.Backbone",
    "Architecture.Neck",
    "Architecture.Head",
    "Optimizer.lr",
    "Optimizer.regularizer",
    "Train.dataset",
    "Train.loader",
    "Train.sampler",
    "Eval.dataset",
    "Eval.loader",
)
_NAMED: Final = ("Architecture.Head.head_list", "Loss.loss_config_list")
"""Lists of sections with one name each."""
_CHAINS: Final = ("Train.dataset.transforms", "Eval.dataset.transforms")
_OPERATORS: Final = {"image_shape": int, "keep_keys": str}
"""Lists among an operator's arguments, and what they are of."""


def check_kinds(content: Mapping[str, Any]) -> None:
    """Raises InvalidSpec that names the key which is of another kind."""
    _check_names(content, "")
    for key in _SECTIONS:
        if not isinstance(_at(content, key), Mapping | None):
            raise InvalidSpec(f"{key} must be a section, not {_at(content, key)!r}.")
    for key in _NAMED:
        _check_named(_at(content, key), key)
    for key in _CHAINS:
        _check_chain(_at(content, key), key)
    backbone = _at(content, "Architecture.Backbone")
    if backbone and "img_size" in backbone:
        _check_list(backbone["img_size"], int, "Architecture.Backbone.img_size")


def _check_names(node: Any, where: str) -> None:
    """Keys are text everywhere, and so is what is called `name`."""
    for key, value in _pairs(node):
        below = f"{where}.{key}".lstrip(".")
        if isinstance(node, Mapping) and not isinstance(key, str):
            raise InvalidSpec(f"{below}: a key must be text, and {key!r} isn't.")
        if key == "name" and not isinstance(value, str | None):
            raise InvalidSpec(f"{below} must be text, not {value!r}.")
        _check_names(value, below)


def _pairs(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Mapping):
        yield from node.items()
    elif isinstance(node, list):
        yield from enumerate(node)


def _at(content: Mapping[str, Any], key: str) -> Any:
    """What lies under a dotted key; None when nothing does."""
    node: Any = content
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _check_named(given: Any, where: str) -> None:
    if given is None:
        return
    if not isinstance(given, list) or not all(
        isinstance(one, Mapping) and len(one) == 1 and isinstance(next(iter(one.values())), Mapping | None)
        for one in given
    ):
        raise InvalidSpec(f"{where} must be a list of names with a section each, not {given!r}.")


def _check_chain(given: Any, where: str) -> None:
    for operator in given if isinstance(given, list) else []:
        for name, arguments in _pairs(operator):
            for key, kind in _OPERATORS.items():
                if isinstance(arguments, Mapping) and arguments.get(key) is not None:
                    _check_list(arguments[key], kind, f"{where}.{name}.{key}")


def _check_list(given: Any, kind: type, where: str) -> None:
    if not isinstance(given, list) or not all(type(one) is kind for one in given):
        of = "whole numbers" if kind is int else "names"
        raise InvalidSpec(f"{where} must be a list of {of}, not {given!r}.")
