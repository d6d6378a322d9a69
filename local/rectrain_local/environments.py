"""Which part of the host an image name stands for: Python environments, described for the process node.

A sandbox sees nothing of home, so everything the environment needs is named: the environment itself, the
Python it was made from, and the folders that its .pth files add (editable installs). Called by `nodes`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rectrain_local.errors import UsageError

SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
ANY_IMAGE: Final = "*"


def _base_prefix(environment: Path) -> Path | None:
    """The Python that a virtual environment was made from."""
    settings = environment / "pyvenv.cfg"
    if not settings.is_file():
        return None
    for line in settings.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "home":
            return Path(value.strip()).parent
    return None


def _added_paths(environment: Path) -> Iterator[Path]:
    """Folders that .pth files put on sys.path."""
    for listed in sorted(environment.glob("lib*/python*/site-packages/*.pth")):
        for line in listed.read_text(errors="replace").splitlines():
            path = Path(line.strip())
            if path.is_absolute() and path.is_dir():
                yield path


def _outermost(paths: Iterator[Path]) -> list[str]:
    """Without duplicates, and without what is inside another or in /usr, which is always there."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(outer) for outer in (Path("/usr"), *kept)):
            kept.append(path)
    return [str(path) for path in kept]


def describe(environment: Path) -> dict[str, Any]:
    """The `Environment` of the node's configuration for one Python environment."""

    def needed() -> Iterator[Path]:
        yield environment
        base = _base_prefix(environment)
        interpreter = (environment / "bin" / "python").resolve()
        for prefix in (base, interpreter.parent.parent):
            if prefix is not None and prefix != Path("/"):
                yield prefix
        yield from _added_paths(environment)

    return {"read_only_paths": _outermost(needed()), "path": f"{environment / 'bin'}:{SYSTEM_PATH}"}


def parse_images(options: Sequence[str]) -> dict[str, Path]:
    """`NAME=ENVDIR` options as a mapping; none at all: every image is the running environment."""
    if not options:
        return {ANY_IMAGE: Path(sys.prefix)}
    images: dict[str, Path] = {}
    for option in options:
        name, separator, folder = option.rpartition("=")
        environment = Path(folder).expanduser().absolute()
        if not separator or not name:
            raise UsageError(f"--image {option!r} is not NAME=ENVDIR")
        if not (environment / "bin" / "python").exists():
            raise UsageError(
                f"--image {option!r}: {environment} is no Python environment (bin/python is missing)"
            )
        images[name] = environment
    return images
