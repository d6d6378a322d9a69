"""Starts, finds and ends the supervisor of a cluster in the background. Called by `cli`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from rectrain_local import state
from rectrain_local.errors import ClusterBusy, ComponentFailed, LocalError, NotRunning
from rectrain_local.files import private_dir
from rectrain_local.processes import POLL_S, launcher_argv, tail, undisturbed
from rectrain_local.supervisor import DETACH, Event, Order

STARTING_DEADLINE_S: Final = 300.0
STOPPING_DEADLINE_S: Final = 60.0
GRACE_S: Final = 45.0


class StartFailed(LocalError):
    """The supervisor's own error, as it told us."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def start(folder: Path, order: Order, progress: Callable[[str], None]) -> state.Record:
    """Start a supervisor; returns when its cluster is ready. Killed on the way, it leaves nothing behind."""
    state.check_ours(folder)
    log = private_dir(folder.parent) / f".{folder.name}.supervisor.log"
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as errors:
        process = subprocess.Popen(
            launcher_argv("exec", [sys.executable, "-m", "rectrain_local.supervisor", str(folder)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd="/",
            start_new_session=True,
        )
    try:
        _converse(process, order, progress, log)
    except BaseException:
        with undisturbed():
            process.terminate()
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        raise
    finally:
        log.unlink(missing_ok=True)
    return running(folder)


def _converse(
    process: subprocess.Popen[str], order: Order, progress: Callable[[str], None], log: Path
) -> None:
    said, told = _pipes(process)
    _write(told, order.model_dump_json() + "\n")
    for line in said:
        event = Event.model_validate_json(line)
        if event.step:
            progress(event.step)
        if event.error:
            raise StartFailed(event.error, event.exit_code)
        if event.ready:
            _write(told, DETACH)
        if event.detached:
            return
    raise ComponentFailed(f"the cluster's supervisor ended early: {tail(log) or 'it left no message'}")


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    if process.stdout is None or process.stdin is None:
        raise ComponentFailed("the cluster's supervisor has no pipes")
    return process.stdout, process.stdin


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        return  # it has ended; what it said last tells why


def running(folder: Path) -> state.Record:
    """The record of the live cluster in this folder, waiting for one that is starting. Raises NotRunning."""
    end = time.monotonic() + STARTING_DEADLINE_S
    while state.is_live(folder):
        record = state.read_record(folder)
        if record is not None and record.phase == "ready":
            return record
        if time.monotonic() > end:
            raise NotRunning(f"the cluster in {folder} is still starting after {STARTING_DEADLINE_S:.0f} s")
        time.sleep(POLL_S)
    record = state.read_record(folder)
    if record is not None and record.phase == "failed":
        raise NotRunning(f"the cluster in {folder} has failed: {record.message}")
    if record is not None:
        raise NotRunning(f"the cluster in {folder} was killed; `rectrain-local up` starts a new one")
    raise NotRunning(f"no cluster is running in {folder}; `rectrain-local up` starts one")


def stop(folder: Path) -> bool:
    """End the cluster in this folder and delete its files; False if there was none."""
    state.check_ours(folder)
    record = state.read_record(folder)
    if state.is_live(folder):
        if record is None:
            raise ClusterBusy(f"another command is using {folder}; it ends its cluster itself")
        _end(record.pid, folder)
    state.remove(folder)
    return record is not None


def _end(pid: int, folder: Path) -> None:
    """SIGTERM, then SIGKILL: the kernel takes the children along. The lock tells when it is over."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return
        end = time.monotonic() + STOPPING_DEADLINE_S
        while time.monotonic() < end:
            if not state.is_live(folder):
                return
            time.sleep(POLL_S)
