"""Runs a user's command beside a cluster: `rectrain-local exec`. Called by `cli`.

The command stays in the terminal's foreground group, so that it can read keys and gets Ctrl-C from the
terminal itself; signals sent to us are passed on. Whatever it started is gone when we return (`launch.py`'s
guard).
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rectrain_local.errors import LocalError
from rectrain_local.launch import SI_KERNEL
from rectrain_local.processes import launcher_argv

LOOK_EVERY_S: Final = 0.2
GRACE_S: Final = 10.0
PASSED_ON: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def run_command(argv: Sequence[str], env: Mapping[str, str], failure: Callable[[], LocalError | None]) -> int:
    """Run it to its end and return its status (128 + n for signal n). `failure` tells of a dying cluster."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        process = subprocess.Popen(launcher_argv("guard", argv), env=dict(env))
        try:
            return _attend(process, failure)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGALRM)  # the guard's word for: kill all and leave
                process.wait()
    finally:
        while signal.sigtimedwait(PASSED_ON, 0) is not None:
            pass  # meant for the command, which is over
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _attend(process: subprocess.Popen[bytes], failure: Callable[[], LocalError | None]) -> int:
    while process.poll() is None:
        info = signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, LOOK_EVERY_S)
        if info is not None and info.si_signo in PASSED_ON and info.si_code != SI_KERNEL:
            process.send_signal(info.si_signo)
        failed = failure()
        if failed is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            raise failed
    return process.wait()
