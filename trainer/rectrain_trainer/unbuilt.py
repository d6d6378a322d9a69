"""Why upstream's code can't build what a config names, in words of the config. Pure.

Upstream asserts against lists of its own, or fails somewhere inside: its 2.10 hasn't what 3.x added.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rectrain_api.errors import InvalidSpec


def unbuilt(architecture: Mapping[str, Any], wrong: Exception, home: Path) -> InvalidSpec:
    """The refusal for an architecture that upstream's builder broke on."""
    missing = _missing(architecture, str(wrong))
    if missing:
        return InvalidSpec(
            f"Architecture: {missing} isn't in the PaddleOCR that trains ({home}): a config of a newer "
            "version needs that version's code, a checkout of which PADDLEOCR_HOME names."
        )
    cause = " ".join(str(wrong).split())[:200] or type(wrong).__name__
    return InvalidSpec(f"Architecture can't be built as it is configured: {type(wrong).__name__}: {cause}.")


def _missing(architecture: Mapping[str, Any], said: str) -> str:
    """The class that upstream's list lacks, with its section; empty when that isn't it."""
    match = re.search(r"\b(backbone|neck|head|transforms?) only support", said)
    if match:
        section = match[1].removesuffix("s").capitalize()
        name = (architecture.get(section) or {}).get("name")
        return f"{section} {name}" if name else ""
    match = re.match(r"(\w+) must in (?:\[|dict_keys)", said)
    return f"Neck {match[1]}" if match else ""
