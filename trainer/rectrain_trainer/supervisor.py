"""Runs the training in a child process, and says how it ended: the one place for exit code and result.

Called by the command line. In a pod this is PID 1: it gets the kubelet's SIGTERM, sees when the child
crashes (Paddle is C++), hangs or is killed for memory, reaps orphans, and keeps the deadline of the grace
period. It does nothing else, so that nothing here can fail.

Signals are blocked and waited for, never handled: no code runs in the middle of other code.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_api.errors import Interrupted, Stalled
from rectrain_api.exit_codes import EX_SOFTWARE, outcome_of
from rectrain_api.report import TerminationResult
from rectrain_api.status import Reason
from rectrain_trainer.flight import RUNNING, FlightRecorder
from rectrain_trainer.memory import memory_limit
from rectrain_trainer.stacks import DUMP, TELL
from rectrain_trainer.stall import STACKS_S, Stall, Watch

log = logging.getLogger(__name__)

WATCHED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1)
"""SIGUSR1 is our own: a thread has something for the supervisor of one rank among several (`gang`)."""
_MEMORY_EVENTS: Final = Path("/sys/fs/cgroup/memory.events")
_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class ChildEnd:
    """What the kernel says of the child, and what we know besides."""

    exit_code: int | None
    """None: a signal ended it."""
    signal: int = 0
    told_to_stop: bool = False
    out_of_memory: bool = False
    stall: Stall | None = None
    """It was ended for this."""


def stop_margin_s(grace_s: float) -> float:
    """What is kept of the grace period for ourselves: ending the child, the termination message."""
    return min(5.0, 1.0 + 0.1 * grace_s)


def block_signals() -> None:
    """Before anything else: from here on no signal is lost, and none interrupts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)


def unblock_signals() -> None:
    """For a command that is its own: Ctrl-C ends it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


def trainer_command(arguments: Sequence[str], recorder: FlightRecorder) -> list[str]:
    """How the process that trains is started."""
    return [sys.executable, "-m", "rectrain_trainer.child", *arguments, "--recorder", str(recorder.fd)]


def supervise(
    command: Sequence[str],
    recorder: FlightRecorder,
    *,
    grace_s: float,
    stall_timeout_s: float,
    variables: Mapping[str, str] | None = None,
) -> TerminationResult:
    """Run a command that writes the recorder, to its end. Call `block_signals` first.

    `variables` are set over this process's own environment.
    """
    child = Child.start(command, recorder, variables or {})
    status, told = _watch(child, grace_s, Watch(recorder, stall_timeout_s))
    return child.conclude(status, told_to_stop=told)


@dataclass
class Child:
    """A process that trains, and what its end is read from."""

    pid: int
    recorder: FlightRecorder
    _process: subprocess.Popen[bytes]
    _killed_before: int
    stall: Stall | None = None

    @classmethod
    def start(cls, command: Sequence[str], recorder: FlightRecorder, variables: Mapping[str, str]) -> "Child":
        """Run a command that writes the recorder."""
        killed_before = _memory_kills()
        process = subprocess.Popen(
            command,
            env=os.environ | variables,
            pass_fds=[recorder.fd],
            start_new_session=True,  # a terminal's Ctrl-C comes to us alone
        )
        return cls(process.pid, recorder, process, killed_before)

    def end_stalled(self, stall: Stall) -> float:
        """Ask where it stands; seconds until it is to be killed."""
        self.stall = stall
        for signo in (DUMP, TELL):
            os.kill(self.pid, signo)
        return STACKS_S

    def dump_stacks(self, why: str) -> None:
        """Have it write where it stands to stderr, and go on: rank 0's process is the one that is ended."""
        log.error("%s on rank 0: the stacks of all threads here follow.", why)
        os.kill(self.pid, DUMP)

    def conclude(self, status: int, *, told_to_stop: bool) -> TerminationResult:
        """How it ended, from its wait status."""
        self._process.returncode = os.waitstatus_to_exitcode(status)  # reaped by us: Popen must not look
        end = ChildEnd(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            told_to_stop=told_to_stop,
            out_of_memory=_memory_kills() > self._killed_before,
            stall=self.stall,
        )
        return conclude(self.recorder.read(), end)


def _watch(child: Child, grace_s: float, watch: Watch) -> tuple[int, bool]:
    """Wait status of the child, and whether it was told to stop."""
    deadline, told, pid = math.inf, False, child.pid
    while True:
        if (status := reap([pid]).get(pid)) is not None:
            return status, told
        if deadline == math.inf and (stall := watch.look()) is not None:
            log.error("%s: the stacks of all threads follow; then it is ended.", stall.sentence)
            deadline = time.monotonic() + child.end_stalled(stall)
        left = min(deadline - time.monotonic(), watch.every_s if deadline == math.inf else 3600.0)
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            left = 60.0
        got = signal.sigtimedwait(WATCHED, left)
        if got is None or got.si_signo in (signal.SIGCHLD, signal.SIGUSR1):
            continue
        if not told:
            told = True
            deadline = min(deadline, time.monotonic() + grace_s - stop_margin_s(grace_s))
            say_stopping(got.si_signo, grace_s)
            os.kill(pid, signal.SIGTERM)
        elif got.si_signo == signal.SIGINT:
            log.warning("Stopping at once.")
            os.kill(pid, signal.SIGKILL)


def say_stopping(signo: int, grace_s: float) -> None:
    """What is being done, and for how long."""
    again = " (Ctrl-C again stops at once)" if signo == signal.SIGINT else ""
    log.warning("Told to stop: saving a last checkpoint, for at most %.0f s%s.", grace_s, again)


def reap(pids: Collection[int]) -> dict[int, int]:
    """Take every ended process off the table; the wait statuses of those of `pids` that are among them."""
    found: dict[int, int] = {}
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # none is left
            return dict.fromkeys(pids, 0) | found
        if not ended:
            return found
        if ended in pids:
            found[ended] = status


def conclude(said: TerminationResult | None, end: ChildEnd) -> TerminationResult:
    """How the run ended, from what the trainer last said and what the kernel says. Pure."""
    if said is not None and said.reason != RUNNING:
        return said
    known = said or TerminationResult(exit_code=EX_SOFTWARE, reason=RUNNING)
    code, reason, message = _verdict(end)
    latest = known.checkpoint.latest if known.checkpoint else None
    kept = f" The newest checkpoint is {latest.uri}." if latest else ""
    return known.model_copy(update={"exit_code": code, "reason": reason, "message": message + kept})


def _verdict(end: ChildEnd) -> tuple[int, str, str]:
    if end.stall is not None:
        row = outcome_of(Stalled())
        return (
            row.exit_code,
            row.reason,
            f"{end.stall.sentence}: the training process hung, and was ended. Its log has the stacks of all "
            "threads from just before: see what they wait for (a device or driver that hangs, a disk, "
            "another pod); if a step may take so long, raise runPolicy.stallTimeout.",
        )
    if end.told_to_stop:
        row = outcome_of(Interrupted())
        return row.exit_code, row.reason, "Told to stop, and ended before a last checkpoint was committed."
    if end.out_of_memory or end.signal == signal.SIGKILL:
        sure = "ran out of memory" if end.out_of_memory else "was killed (SIGKILL), most likely for memory"
        limit = _memory_limit()
        return (
            128 + signal.SIGKILL,
            Reason.OUT_OF_MEMORY if end.out_of_memory else Reason.CRASHED,
            f"The training process {sure}{limit}: raise replicas.resources.limits.memory, or lower "
            "training.batchSize or training.workers.",
        )
    if end.signal:
        name = signal.Signals(end.signal).name
        return (
            128 + end.signal,
            Reason.CRASHED,
            f"The training process crashed ({name}): its log has the last lines before it.",
        )
    return (
        EX_SOFTWARE,
        "InternalError",
        f"The training process ended with exit code {end.exit_code} without a result: see its log.",
    )


def _memory_kills() -> int:
    """How often the kernel has killed for memory in this container (cgroup v2); 0 where it can't be seen."""
    try:
        lines = _MEMORY_EVENTS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _memory_limit() -> str:
    limit = memory_limit([_MEMORY_LIMIT])
    return "" if limit is None else f" (limit {limit / 2**20:.0f} MiB)"
