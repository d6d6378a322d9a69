"""How much the disk can take, asked before a download. Called by the stage stage."""

import os
from pathlib import Path

from rectrain_api.errors import DiskTooSmall
from rectrain_api.plan import WORK_RESERVE_BYTES


def check_room(folder: Path, needed: int, *, staged: int, limit: int | None) -> None:
    """Refuse a download that wouldn't fit.

    `staged` bytes are there already; `limit` is what `data.cache` allows for all of it.
    Raises DiskTooSmall with needed and free bytes.
    """
    stat = os.statvfs(folder)
    disk = max(stat.f_bavail * stat.f_frsize - WORK_RESERVE_BYTES, 0)
    allowed = disk if limit is None else max(limit - staged, 0)
    free = min(disk, allowed)
    if needed <= free:
        return
    bound = "data.cache.size allows" if allowed < disk else f"the disk of {folder} has"
    raise DiskTooSmall(
        f"The data needs {needed} bytes ({human(needed)}) and {bound} {free} bytes ({human(free)}): raise "
        "data.cache.size, choose a node with a larger disk, or train on a smaller set."
    )


def human(size: float) -> str:
    """Such as 3.2 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
