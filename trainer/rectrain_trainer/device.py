"""The process's device and threads. Called once, before anything imports paddle or OpenCV.

Paddle reads these from the environment while it is being imported, and sets OMP_NUM_THREADS=1 by itself
when nobody else has: one core of many would train.
"""

import contextlib
import io
import math
import os
from pathlib import Path
from typing import Final

from rectrain_api.errors import DeviceUnavailable
from rectrain_trainer.environment import IN_POD

_CGROUP = Path("/sys/fs/cgroup")
_DETERMINISTIC: Final = ("FLAGS_cpu_deterministic", "FLAGS_cudnn_deterministic")


def configure_device(gpus: int, *, deterministic: bool = False) -> str:
    """Set flags and threads for `gpus` devices (0 = CPU); returns the paddle device ("cpu" or "gpu").

    Raises DeviceUnavailable if a GPU is asked for and this Paddle or node has none.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("FLAGS_use_mkldnn", "1")
    os.environ.setdefault("GLOG_minloglevel", "2")  # its warnings are about itself
    if deterministic:
        os.environ |= dict.fromkeys(_DETERMINISTIC, "1")
    return _select(gpus)


def _select(gpus: int) -> str:
    with contextlib.redirect_stderr(io.StringIO()):  # it warns of the threads that we mean
        import paddle

    device = "gpu" if gpus else "cpu"
    if gpus and not paddle.device.is_compiled_with_cuda():
        raise DeviceUnavailable(
            "The PaddlePaddle here is built for CPUs, and the job asks for GPUs: "
            "use the GPU image, or set replicas.gpusPerNode to 0."
        )
    if gpus and paddle.device.cuda.device_count() < gpus:
        raise DeviceUnavailable(
            f"The job asks for {gpus} GPUs, and the driver shows {paddle.device.cuda.device_count()} here: "
            "look at the node's driver and device plugin."
        )
    paddle.device.set_device(device)
    return device


def usable_cores() -> int:
    """Cores that this process may really use: affinity, the cgroup's CPU limit (v2 or v1), and its part of
    them, where it shares them with the other ranks of its pod.
    """
    cores = len(os.sched_getaffinity(0))
    limit = _cgroup_limit()
    cores = min(cores, math.ceil(limit)) if limit else cores
    return max(1, cores // int(os.environ.get(IN_POD, "1")))


def _cgroup_limit() -> float | None:
    """CPU limit in cores, None without one. In a pod the container's own cgroup is the root here."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in {"max", "-1"}:
        return None
    return int(quota) / int(period)
