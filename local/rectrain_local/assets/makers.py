"""The ways that make programs, in their order. Called by `cli` and by tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from rectrain_local.assets.cache import Cache
from rectrain_local.assets.download import Download
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import Maker, resolve_tool
from rectrain_local.progress import Progress


def default_makers() -> list[Maker]:
    """The official download (a minute), then a Go toolchain (nine)."""
    return [Download(), GoBuild()]


def find_helm(cache: Cache, progress: Progress) -> Path:
    """helm of the user's PATH, be it 3 or 4; else ours, built from its Go module once."""
    found = shutil.which("helm")
    return Path(found) if found else resolve_tool("helm", cache, [GoBuild()], progress)
