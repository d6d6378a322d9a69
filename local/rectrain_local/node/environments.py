"""Which part of the host stands for an image. Pure; called when a container starts."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from .config import Environment


def choose(image: str, environments: Mapping[str, Environment]) -> tuple[str, Environment] | None:
    """The first pattern that the image's name matches, with its environment."""
    return next(
        ((pattern, known) for pattern, known in environments.items() if fnmatchcase(image, pattern)), None
    )


def unknown_image(image: str, environments: Mapping[str, Environment]) -> str:
    """What a user reads whose image has no environment here."""
    known = ", ".join(sorted(environments)) or "none"
    return (
        f'no environment of this machine stands for image "{image}": a process node pulls nothing. '
        f"Known image names: {known}"
    )
