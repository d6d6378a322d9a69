"""What this process has to work with: device and driver, memory, shared memory, disk. For the log.

Called by the run before data is staged. Never fails: what can't be known isn't said.
"""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rectrain_api.errors import RectrainError
from rectrain_api.status import Devices
from rectrain_trainer import upstream
from rectrain_trainer.device import usable_cores
from rectrain_trainer.disk import human
from rectrain_trainer.memory import memory_limit

log = logging.getLogger(__name__)

_SHM: Final = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of cgroups v2 and v1."""


def log_surroundings(devices: Devices, folder: Path) -> None:
    """A line each; `folder` is where data is staged."""
    for line in surroundings(devices, folder):
        log.info("%s.", line)


def surroundings(devices: Devices, folder: Path) -> Iterator[str]:
    """The lines."""
    yield _gpu(devices) if devices.kind == "gpu" else f"Device: CPU {devices.name}, {_cores(usable_cores())}"
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit(_LIMITS)
    if limit is not None and limit < whole:
        yield f"Memory: {human(limit)}, the limit of this container"
    else:
        yield f"Memory: {human(whole)}, all of this machine"
    with contextlib.suppress(OSError):
        size = human(shutil.disk_usage(_SHM).total)
        yield f"Shared memory: {size} at {_SHM} (image loading needs none)"
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(folder)
        yield f"Disk: {human(usage.free)} of {human(usage.total)} free at {folder}"
    with contextlib.suppress(RectrainError):
        yield f"PaddleOCR's training code: {upstream.locate()}"


def driver_version(text: str) -> str | None:
    """Of NVIDIA's kernel module, as its line in /proc says it."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return found.group(1) if found else None


def _gpu(devices: Devices) -> str:
    import paddle

    said = [f"Device: GPU {devices.name}"]
    with contextlib.suppress(Exception):  # Paddle's, of many kinds
        said.append(human(paddle.device.cuda.get_device_properties().total_memory))
    with contextlib.suppress(Exception):
        said.append(f"CUDA {paddle.version.cuda()}")
    with contextlib.suppress(OSError):
        if driver := driver_version(_NVIDIA.read_text()):
            said.append(f"driver {driver}")
    return ", ".join(said)


def _cores(count: int) -> str:
    return f"{count} core{'s' if count > 1 else ''}"
