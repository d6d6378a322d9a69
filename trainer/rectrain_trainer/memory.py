"""How much memory a process may still take: its pod's, its machine's, its own limit. Called by the trial.

The kubelet has the kernel kill a whole container when its memory runs out (memory.oom.group), supervisor
included. So what may fail for memory runs under a limit of its own (`confine`), and fails alone.
"""

import contextlib
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")  # in a pod the container's own cgroup is the root here
_PROC: Final = Path("/proc")
_KIB: Final = 1024


@dataclass(frozen=True)
class Room:
    """What a process may still take [bytes], and what says so."""

    left: int
    limit: int | None
    """Of the pod, or of the process; None: the machine has no more."""
    of: str
    """"pod", "process" or "machine"."""

    def shared(self, processes: int) -> "Room":
        """What each of so many may take."""
        return replace(self, left=self.left // processes)


def room(cgroup: Path = _CGROUP, proc: Path = _PROC) -> Room:
    """The narrowest of the pod's limit (cgroup v2), this process's (RLIMIT_DATA) and the machine's memory."""
    rooms = [_of_machine(proc), _of_pod(cgroup), _of_process(proc)]
    return min((r for r in rooms if r), key=lambda r: r.left)


def confine(left: int, proc: Path = _PROC) -> None:
    """From here on this process gets `left` bytes more; asking for more fails as malloc does."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _taken(proc) + left
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def memory_limit(files: Sequence[Path]) -> int | None:
    """What the cgroup allows [bytes], by the first of its files that there is; None: all of it."""
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            text = file.read_text().strip()
            return None if text == "max" else int(text)
    return None


def _of_machine(proc: Path) -> Room:
    return Room(_field(proc / "meminfo", "MemAvailable:") * _KIB, None, "machine")


def _of_pod(cgroup: Path) -> Room | None:
    """Its files in the page cache are no burden: the kernel drops them when memory is asked for."""
    limit = memory_limit([cgroup / "memory.max"])
    if limit is None:
        return None
    with contextlib.suppress(OSError, ValueError):
        used = int((cgroup / "memory.current").read_text())
        stat = cgroup / "memory.stat"
        cached = _field(stat, "inactive_file") + _field(stat, "active_file")
        return Room(max(limit - used + cached, 0), limit, "pod")
    return None


def _of_process(proc: Path) -> Room | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return None
    return Room(max(limit - _taken(proc), 0), limit, "process")


def _taken(proc: Path) -> int:
    """What counts against RLIMIT_DATA."""
    return _field(proc / "self/status", "VmData:") * _KIB


def _field(path: Path, name: str) -> int:
    """The number behind `name` in a table of the kernel's. Raises ValueError."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    raise ValueError(f"{path} has no {name}")
