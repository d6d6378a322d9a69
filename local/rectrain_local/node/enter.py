"""Runs a command inside a running sandbox: for exec probes and lifecycle hooks. A script of its own.

    enter.py PID TARGET_CWD COMMAND ARG…

`nsenter` can't do it: bubblewrap nests two user namespaces, and the others belong to the outer one, so that
has to be entered first (found by asking who owns the mount namespace), the inner one last. The command gets
the environment of the sandbox's first process, no capabilities, and dies with this script (see `execute`).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from typing import Final

NS_GET_USERNS: Final = 0xB701
PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
CANNOT_START: Final = 126


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _enter(libc: ctypes.CDLL, pid: int) -> None:
    spaces = {
        name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("mnt", "pid", "uts", "ipc", "user")
    }
    outer = fcntl.ioctl(spaces["mnt"], NS_GET_USERNS)
    here = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116 - the link's target, not a path
    for name, fd in (("user", outer), *((n, spaces[n]) for n in ("ipc", "uts", "pid", "mnt"))):
        if name != "user" or os.fstat(fd).st_ino != here:
            _checked(libc.setns(fd, 0), f"setns {name}")
    if os.fstat(spaces["user"]).st_ino != os.fstat(outer).st_ino:
        _checked(libc.setns(spaces["user"], 0), "setns inner user")


def main(argv: list[str]) -> int:
    pid, work_dir, command = int(argv[0]), argv[1], argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/environ", "rb") as stream:  # noqa: PTH123 - starts in 20 ms without pathlib
        pairs = (entry.partition(b"=") for entry in stream.read().split(b"\0") if entry)
        environment = {name: value for name, _, value in pairs}
    _enter(libc, pid)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    child = os.fork()  # only a child is in the entered pid namespace
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        os.chdir(work_dir)
        os.execvpe(command[0], command, environment)  # noqa: S606 - this is what the script is for
    except OSError as failed:
        print(f"{command[0]}: {failed.strerror}", flush=True)  # noqa: T201
        os._exit(CANNOT_START)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
