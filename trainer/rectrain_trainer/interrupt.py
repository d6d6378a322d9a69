"""Being told to stop, inside the process that trains.

The supervisor forwards SIGTERM once. Outside the training loop it raises Interrupted wherever the main
thread is: staging, checking, evaluation and export can be left anywhere. Inside the loop it is only noted
(`deferred`), and the loop ends at the next step boundary with a last checkpoint.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from rectrain_api.errors import Interrupted

MESSAGE: Final = "Told to stop (SIGTERM)"


class Interrupt:
    """One per process. `install` in the main thread."""

    def __init__(self, grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`grace_s`: from the signal to the end, of which the supervisor keeps a margin."""
        self._grace_s = grace_s
        self._clock = clock
        self._since: float | None = None
        self._deferred = 0
        self._told: list[Callable[[float], None]] = []

    def install(self) -> None:
        """Take SIGTERM, and leave SIGINT to the supervisor. Unblocks what the supervisor had blocked."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD))

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Around an import of Paddle, which puts a handler of its own (that dies) in place of ours."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        try:
            yield
        finally:
            self.install()

    @property
    def requested(self) -> bool:
        """Whether we were told to stop."""
        return self._since is not None

    def when_told(self, tell: Callable[[float], None]) -> None:
        """Call `tell(seconds left)` when told to stop: retries shrink by it."""
        self._told.append(tell)

    def left_s(self) -> float:
        """Seconds left; the whole grace period as long as nobody told us to stop."""
        return self._grace_s - (0.0 if self._since is None else self._clock() - self._since)

    def check(self) -> None:
        """Raise Interrupted if told to stop."""
        if self.requested:
            raise Interrupted(f"{MESSAGE}.")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, being told to stop is noted and nothing is raised: look at `requested`."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within, inside of `deferred`, it is raised again: for an evaluation between two steps."""
        outer, self._deferred = self._deferred, 0
        try:
            self.check()
            yield
        finally:
            self._deferred = outer

    def _on_signal(self, _signo: int, _frame: FrameType | None) -> None:
        if self.requested:
            return
        self._since = self._clock()
        for tell in self._told:
            tell(self._grace_s)
        if not self._deferred:
            raise Interrupted(f"{MESSAGE}.")
