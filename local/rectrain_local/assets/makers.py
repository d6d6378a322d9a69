"""The ways that make programs, in their order. Called by `cli` and by tests."""

from __future__ import annotations

from rectrain_local.assets.download import Download
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import Maker


def default_makers() -> list[Maker]:
    """The official download (a minute), then a Go toolchain (nine)."""
    return [Download(), GoBuild()]
