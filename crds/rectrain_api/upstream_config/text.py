"""A config's text as plain data: YAML that can neither run code nor grow. Pure.

Anchors and merges are fine, as upstream's configs have them; a document that they make larger than
`MOST_NODES` is refused before anything of it is built.
"""

import re
from typing import Any, Final

import yaml

from rectrain_api.errors import InvalidSpec

MOST_BYTES: Final = 96 << 10
"""Less than an environment variable may have, by which it comes to a pod."""
MOST_NODES: Final = 20_000
DEEPEST: Final = 32
_PLAIN: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")
)

_NO_TEXT: Final = re.compile("[\\x00\\ud800-\\udfff]")
"""Neither a place nor a message may hold it; YAML's escapes can write it."""


class _Loader(yaml.SafeLoader):
    """Safe, without dates, and with YAML 1.2's numbers: PyYAML takes 5e-4 for a word."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def parse(text: str | bytes, source: str) -> tuple[dict[str, Any], list[str]]:
    """The document, and the keys that stand in it twice (the last of them holds, as upstream takes it).

    Raises InvalidSpec: it isn't a mapping of YAML, or is larger than a config can be.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > MOST_BYTES:
        raise InvalidSpec(
            f"{source} has {len(data)} bytes, and a config of PaddleOCR has few thousand: it may have "
            f"{MOST_BYTES}."
        )
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise InvalidSpec(f"{source} isn't a config of PaddleOCR: it has no sections.")
            _bounded(root, source)
            twice = _repeated(root)
            return loader.construct_document(root), twice
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InvalidSpec(f"{source}{where} isn't YAML: {wrong.problem}.") from wrong
    except (yaml.YAMLError, ValueError) as wrong:
        raise InvalidSpec(f"{source} isn't YAML: {' '.join(str(wrong).split())}.") from wrong
    except (KeyError, IndexError) as wrong:  # PyYAML's, of such as `!!bool maybe`
        raise InvalidSpec(f"{source} isn't YAML: a value isn't what its tag says ({wrong}).") from wrong
    except RecursionError as wrong:
        raise InvalidSpec(f"{source} is nested too deeply.") from wrong


def _bounded(root: yaml.Node, source: str) -> None:
    """Refuse tags, and what aliases make too large or endless. Each node is looked at once."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > DEEPEST:
            raise InvalidSpec(f"{source} is nested too deeply, or an alias in it holds itself.")
        if node.tag not in _PLAIN:
            where = f"line {node.start_mark.line + 1}"
            raise InvalidSpec(f"{source} {where}: the tag {node.tag} is none that a config may have.")
        if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
            where = f"line {node.start_mark.line + 1}"
            raise InvalidSpec(f"{source} {where}: {node.value!r} holds a character that no text may have.")
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in _children(node))
        if sizes[id(node)] > MOST_NODES:
            raise InvalidSpec(f"{source} holds more than {MOST_NODES} values once its aliases are followed.")
        return sizes[id(node)]

    size(root, 0)


def _repeated(root: yaml.MappingNode) -> list[str]:
    """Keys that stand twice in one mapping."""
    twice: list[str] = []

    def look(node: yaml.Node, where: str) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = f"{where}.{key.value}".lstrip(".")
                if name in seen and key.tag in _PLAIN and not key.tag.endswith(":merge"):
                    twice.append(name)
                seen.add(name)
                look(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                look(child, where)

    look(root, "")
    return list(dict.fromkeys(twice))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
