"""A folder of files that changes as one, the way a kubelet does it. Used for all volumes made of API data.

token -> ..data/token        what a program opens
..data -> ..2026_11_23_18_30_00.123456   replaced by rename: all files change at once
..2026_11_23_18_30_00.123456/token
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

DATA: Final = "..data"
DATA_NEXT: Final = "..data_tmp"


@dataclass(frozen=True)
class FileEntry:
    """One file of a volume."""

    data: bytes
    mode: int


class UnsafePath(ValueError):
    """A file's path would leave its volume."""


def check_path(path: str) -> str:
    """A relative path without `..`, as the API allows for items."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise UnsafePath(f"{path!r} would leave its volume")
    return path


def current(folder: Path) -> dict[str, FileEntry]:
    """What the folder shows now; empty if nothing was written yet."""
    data = folder / DATA
    if not data.is_dir():
        return {}
    return {
        str(path.relative_to(data)): FileEntry(path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def write(folder: Path, files: Mapping[str, FileEntry], now: datetime) -> bool:
    """Make the folder show exactly `files`; False if it already did."""
    if (folder / DATA).is_symlink() and current(folder) == dict(files):
        return False
    fresh = folder / now.strftime("..%Y_%m_%d_%H_%M_%S.%f")
    fresh.mkdir(mode=0o755)
    for name, entry in files.items():
        target = fresh / check_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(entry.data)
        target.chmod(entry.mode)
    old = (folder / DATA).readlink() if (folder / DATA).is_symlink() else None
    _point(folder / DATA, folder / DATA_NEXT, fresh.name)
    _link_names(folder, {name.split("/")[0] for name in files})
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)
    return True


def _point(link: Path, temporary: Path, target: str) -> None:
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _link_names(folder: Path, names: set[str]) -> None:
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{DATA}/{name}")
