"""Starts one program so that it can't outlive us: run as a script by `processes`, never imported by it.

A script of its own instead of `preexec_fn`, which may deadlock in a process with threads (tests, notebooks).
Uses the standard library only and starts without site-packages, so it costs some 20 ms.

    launch.py exec  PARENT_PID PROGRAM ARG…   become the program; SIGKILL when the parent's thread ends
    launch.py guard PARENT_PID PROGRAM ARG…   stay beside it; when it or the parent ends, kill all it started

`guard` is for programs that start others (a user's command, `go build`): it adopts their orphans as a
subreaper, so that nothing escapes by daemonising. Signals that arrive at the guard go on to the program,
unless they came from the terminal, which has already sent them to the whole foreground group.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CANNOT_START = 127
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
SI_KERNEL = 0x80


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def die_with_parent(parent_pid: int, signum: int) -> None:
    """Ask for `signum` when the thread that started us ends; leave at once if it already has."""
    _prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent_pid:
        os._exit(CANNOT_START)


def _become(program: list[str]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for signum in (*PASSED_ON, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvpe(program[0], program, os.environ)  # noqa: S606 - this is what the script is for
    except OSError as failed:
        print(f"cannot start {program[0]}: {failed.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(CANNOT_START)


def _parent_of(stat: str) -> int:
    return int(stat[stat.rindex(")") + 1 :].split()[1])  # the name before it may hold anything


def descendants(root: int) -> list[int]:
    """All processes below `root`, by one look at /proc; zombies too."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = _parent_of((entry / "stat").read_text())
            except (OSError, ValueError):
                continue  # ended while we looked
    found: list[int] = []
    wave = {root}
    while wave:
        wave = {pid for pid, parent in parents.items() if parent in wave}
        found.extend(wave)
    return found


def _kill_all_below(root: int) -> None:
    while True:
        below = descendants(root)
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG if not below else 0) != (0, 0):
                pass
        except ChildProcessError:
            return


def _guard(parent_pid: int, program: list[str]) -> int:
    watched = {*PASSED_ON, signal.SIGCHLD, signal.SIGALRM}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    die_with_parent(parent_pid, signal.SIGALRM)  # a signal that nobody else sends us
    me = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(me, signal.SIGKILL)
        _become(program)
    status: int | None = None
    while status is None:
        info = signal.sigwaitinfo(watched)
        if info.si_signo == signal.SIGALRM:
            break
        if info.si_signo == signal.SIGCHLD:
            status = _reap(child)
        elif info.si_code != SI_KERNEL:
            os.kill(child, info.si_signo)
    _kill_all_below(me)
    if status is None:
        return CANNOT_START
    return os.waitstatus_to_exitcode(status)


def _reap(child: int) -> int | None:
    """Collect every ended child (orphans too); the wait status of ours once it has ended."""
    status: int | None = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = ended


def main(argv: list[str]) -> int:
    mode, parent_pid, program = argv[0], int(argv[1]), argv[2:]
    if mode == "guard":
        code = _guard(parent_pid, program)
        return code if code >= 0 else 128 - code
    die_with_parent(parent_pid, signal.SIGKILL)
    _become(program)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
