"""Child processes that never outlive us. Used by every part that starts a program.

The safety net is the kernel's: each child is started through `launch.py`, which asks for SIGKILL when the
thread that started it ends. So start children from a thread that lives as long as they should: the main one.
On top of that comes the orderly way: SIGTERM, a grace period, SIGKILL, in reverse order of starting. Children
have sessions of their own, so that a Ctrl-C in the terminal reaches only us, and we decide the order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rectrain_local.errors import ComponentFailed, PortTaken

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_S = 0.05
LOG_TAIL_LINES = 12
_KEPT_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "USER")


def launcher_argv(mode: str, argv: Sequence[str]) -> list[str]:
    """The command line that starts `argv` bound to this process; mode: see `launch.py`."""
    return [sys.executable, "-I", "-S", "-B", str(LAUNCHER), mode, str(os.getpid()), *argv]


def plain_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What our own components see: no proxy settings, no credentials of the user's."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, **(extra or {})}


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The end of a log file, bounded in memory; empty if there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 32768))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True)
class Child:
    """A running (or ended) program with its log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def failure(self, what: str) -> ComponentFailed:
        """The error to raise for this child, quoting the end of its log."""
        last = tail(self.log)
        kind = PortTaken if "address already in use" in last else ComponentFailed
        return kind(f"{self.name} {what}. The end of its log {self.log}:\n{last or '(empty)'}")

    def check(self) -> None:
        """Raise if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise self.failure(f"ended with status {code}")

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after the grace period. Harmless for a child that has ended."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        self.finish(grace_s)

    def finish(self, grace_s: float) -> None:
        """Wait for an end already asked for, at most `grace_s`, then SIGKILL."""
        try:
            self.process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None
) -> Child:
    """Start a program bound to the calling thread's life, output appended to `log` (0600)."""
    if threading.current_thread() is not threading.main_thread():
        # The kernel ties the child to the thread; one that ends sooner would take the child along.
        raise RuntimeError(f"{name}: children are started from the main thread only")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            launcher_argv("exec", argv),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Child(name, process, log)


class Children:
    """The children of one cluster, in the order of their start."""

    def __init__(self) -> None:
        self._running: dict[str, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(self._running.values())

    def add(self, child: Child) -> Child:
        self._running[child.name] = child
        return child

    def get(self, name: str) -> Child:
        return self._running[name]

    def stop(self, name: str, grace_s: float = 10.0) -> None:
        child = self._running.pop(name, None)
        if child is not None:
            child.stop(grace_s)

    def check(self) -> None:
        """Raise for the first child that has ended unasked."""
        for child in self:
            child.check()

    def stop_all(self, grace_s: float = 10.0) -> None:
        for name in reversed(list(self._running)):
            self.stop(name, grace_s)


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    deadline_s: float,
    check: Callable[[], None],
    child: Child | None = None,
) -> None:
    """Poll `ready` until true; `check` raises when waiting has become pointless.

    Raises ComponentFailed after the deadline, with the log of `child` if it is given.
    """
    end = time.monotonic() + deadline_s
    while not ready():
        check()
        if time.monotonic() > end:
            message = f"didn't become ready within {deadline_s:.0f} s ({what})"
            raise child.failure(message) if child else ComponentFailed(f"{what}: {message}")
        time.sleep(POLL_S)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Tearing down isn't interrupted by a second Ctrl-C or SIGTERM (signals are ignored meanwhile)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
