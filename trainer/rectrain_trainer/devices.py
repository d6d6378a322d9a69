"""What a run trains on, in words for its status. Called by the run."""

import contextlib
import platform
from pathlib import Path
from typing import Final

from rectrain_api.status import Devices

_NAME_LIMIT: Final = 128


def describe_devices(kind: str, ranks: int = 1) -> Devices:
    """Kind, count (over all ranks, of which each has one) and name; Paddle must have been configured."""
    if kind == "gpu":
        import paddle

        name = str(paddle.device.cuda.get_device_name())
        return Devices(kind=kind, count=ranks, name=name[:_NAME_LIMIT])
    return Devices(kind=kind, count=ranks, name=_cpu_name()[:_NAME_LIMIT])


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
