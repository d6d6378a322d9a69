"""What a run trains on, in words for its status. Called by the run."""

import contextlib
import platform
from pathlib import Path
from typing import Final

from rectrain_api.status import Devices

_NAME_LIMIT: Final = 128


def describe_devices(kind: str, gpus: int, nodes: int = 1) -> Devices:
    """Kind, count (over all pods) and name of the devices; Paddle must have been configured."""
    if kind == "gpu":
        import paddle

        name = str(paddle.device.cuda.get_device_name())
        return Devices(kind=kind, count=gpus * nodes, name=name[:_NAME_LIMIT])
    return Devices(kind=kind, count=nodes, name=_cpu_name()[:_NAME_LIMIT])


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
