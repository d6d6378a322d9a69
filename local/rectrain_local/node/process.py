"""A running sandbox: start, output, signals, end. The only place that starts processes.

bubblewrap's child dies with the *thread* that started it, so `start` must be called in the main thread, where
the agent's event loop runs; the agent's death then takes every container with it. A signal sent to bubblewrap
itself would kill the pod, so signals go to the container's first process, known from `--json-status-fd`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .api import Obj
from .logfile import LogFile

DRAIN_S: Final = 5.0
SETUP_S: Final = 5.0
SETUP_POLL_S: Final = 0.01
READ_BYTES: Final = 64 * 1024
START_ERROR: Final = 128  # the exit code that runtimes report for a command that couldn't be started


@dataclass(frozen=True)
class Exit:
    """How a sandbox ended. `error` says why the command never started."""

    code: int
    error: str | None = None


class Sandbox:
    """One container's processes."""

    def __init__(self, bwrap: subprocess.Popen[bytes], program: str, status_fd: int, log: LogFile) -> None:
        self._bwrap = bwrap
        self._program = program
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._status = b""
        self._child_fd: int | None = None
        self._last_words = b""
        self._open: set[int] = set()
        self._drained = asyncio.Event()
        self._ended = asyncio.Event()
        self._known = asyncio.Event()
        self.child_pid: int | None = None
        self._exit_fd = os.pidfd_open(bwrap.pid)
        self._loop.add_reader(self._exit_fd, self._ended.set)
        assert bwrap.stdout is not None
        assert bwrap.stderr is not None
        self._pump(bwrap.stdout.fileno(), "stdout")
        self._pump(bwrap.stderr.fileno(), "stderr")
        self._pump(status_fd, "")
        self._status_fd = status_fd

    async def wait(self) -> Exit:
        """Until the container has ended and all its output is in the log."""
        await self._ended.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), DRAIN_S)
        return self._close()

    async def started(self) -> int:
        """The host's number of the container's first process, once it runs its own program.

        Until then it is still bubblewrap, deaf to SIGTERM and half outside the sandbox. Waits for ever if the
        container never begins; callers end with the instance.
        """
        await self._known.wait()
        assert self.child_pid is not None
        deadline = self._loop.time() + SETUP_S
        still = Path(f"/proc/{self.child_pid}/exe")
        # Nothing tells of an exec, so it is polled for.
        while _is_same_file(still, self._program) and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(SETUP_POLL_S)
        return self.child_pid

    def signal(self, signum: int) -> None:
        """To the container's first process; before it exists there is nothing to end gracefully."""
        if self._child_fd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._child_fd, signum)
        elif not self._ended.is_set():
            self._bwrap.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _pump(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self._open.add(fd)
        self._loop.add_reader(fd, self._readable, fd, stream)

    def _readable(self, fd: int, stream: str) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(fd)
            self._open.discard(fd)
            if not self._open:
                self._drained.set()
        elif not stream:
            self._status += data
            self._learn_child()
        else:
            if stream == "stderr":
                self._last_words = (self._last_words + data)[-4096:]
            self._log.feed(stream, data)

    def _learn_child(self) -> None:
        pid = next((one["child-pid"] for one in _documents(self._status) if "child-pid" in one), None)
        if pid is not None and self.child_pid is None:
            self.child_pid = int(pid)
            self._known.set()
            # Still bubblewrap's unreaped child or alive, so the number is its own: take a handle on it now.
            with suppress(ProcessLookupError):
                self._child_fd = os.pidfd_open(self.child_pid)

    def _close(self) -> Exit:
        code = self._bwrap.wait()
        for fd in self._open:
            self._loop.remove_reader(fd)
        self._loop.remove_reader(self._exit_fd)
        os.close(self._exit_fd)
        os.close(self._status_fd)
        if self._child_fd is not None:
            os.close(self._child_fd)
            self._child_fd = None
        for pipe in (self._bwrap.stdout, self._bwrap.stderr):
            if pipe is not None:
                pipe.close()
        self._log.close()
        reported = next((one["exit-code"] for one in _documents(self._status) if "exit-code" in one), None)
        if reported is not None:
            return Exit(int(reported))
        if code < 0:
            return Exit(128 - code)  # bubblewrap itself was killed, and the container with it
        words = [line for line in self._last_words.decode("utf-8", "replace").splitlines() if line]
        return Exit(START_ERROR, words[-1] if words else f"bubblewrap ended with status {code}")


def start(bwrap: str, options: Sequence[str], command: Sequence[str], log: LogFile) -> Sandbox:
    """Start a container. Raises OSError when bubblewrap can't be run."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a sandbox dies with the thread that starts it: start it in the main thread")
    status_read, status_write = os.pipe()
    arguments = os.memfd_create("arguments")
    try:
        os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in options))
        os.lseek(arguments, 0, os.SEEK_SET)
        process = subprocess.Popen(
            [bwrap, "--args", str(arguments), "--json-status-fd", str(status_write), "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(arguments, status_write),
            cwd="/",
            env={},
            start_new_session=True,
        )
    except BaseException:
        os.close(status_read)
        raise
    finally:
        os.close(status_write)
        os.close(arguments)
    return Sandbox(process, shutil.which(bwrap) or bwrap, status_read, log)


def _is_same_file(one: Path, other: str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # it has ended


def _documents(text: bytes) -> list[Obj]:
    """bubblewrap writes one JSON document after the other; an incomplete last one is left out."""
    decoder, found = json.JSONDecoder(), []
    rest = text.decode("ascii", "replace").lstrip()
    while rest:
        try:
            document, end = decoder.raw_decode(rest)
        except ValueError:
            break
        found.append(document)
        rest = rest[end:].lstrip()
    return found
