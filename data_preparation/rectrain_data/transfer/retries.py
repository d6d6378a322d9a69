"""Bounded retries with backoff and jitter, whose deadline can shrink while they wait.

Used by `transfer.store` around every request. One `Retries` is shared by all threads of a store: at
SIGTERM the trainer calls `shrink`, and every wait, running or to come, ends in time.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rectrain_api.errors import RectrainError
from rectrain_data.transfer.errors import Failure

T = TypeVar("T")
DEFAULT_DEADLINE_S = 115.0
"""Just under two minutes, so that a pod whose store is away says so within two."""
_FIRST_WAIT_S = 0.25
_MAX_WAIT_S = 10.0


@dataclass(frozen=True)
class RetryEvent:
    """A request failed and will be tried again."""

    sentence: str
    """What failed, for the user."""
    attempt: int
    waited_s: float
    """Since the first try."""
    wait_s: float
    """Until the next one."""


OnRetry = Callable[[RetryEvent], None]


class Retries:
    """Runs requests until they succeed, can't succeed, or time is up."""

    def __init__(
        self,
        deadline_s: float = DEFAULT_DEADLINE_S,
        on_retry: OnRetry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline_s = deadline_s
        self.on_retry = on_retry
        self._clock = clock
        self._changed = threading.Condition()
        self._ends: float | None = None
        self._random = random.Random()  # noqa: S311 - spreads load, keeps no secret

    def shrink(self, seconds: float) -> None:
        """From now on nothing is retried after `seconds`. Wakes the threads that wait."""
        with self._changed:
            end = self._clock() + seconds
            self._ends = end if self._ends is None else min(self._ends, end)
            self._changed.notify_all()

    def run(self, request: Callable[[], T], understand: Callable[[BaseException], Failure]) -> T:
        """The request's result, or the error that it ended with, as one of ours."""
        started, attempt = self._clock(), 0
        while True:
            try:
                return request()
            except RectrainError:  # not the store's: SIGTERM's Interrupted comes out of whatever runs
                raise
            except Exception as exc:
                failure = understand(exc)
                attempt += 1
                wait_s = self._next_wait(attempt)
                elapsed = self._clock() - started
                if not failure.transient or self._left(started) <= wait_s:
                    raise failure.error from exc
                if self.on_retry:
                    self.on_retry(RetryEvent(str(failure.error), attempt, elapsed, wait_s))
                if not self._sleep(wait_s, started):
                    raise failure.error from exc

    def _next_wait(self, attempt: int) -> float:
        ceiling = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 16))
        return ceiling * self._random.uniform(0.5, 1.0)

    def _left(self, started: float) -> float:
        end = started + self.deadline_s
        if self._ends is not None:
            end = min(end, self._ends)
        return end - self._clock()

    def _sleep(self, wait_s: float, started: float) -> bool:
        """Wait; False when the deadline was moved before the end of the wait."""
        until = self._clock() + wait_s
        with self._changed:
            while (left := until - self._clock()) > 0:
                if self._left(started) < left:
                    return False
                self._changed.wait(left)
        return True
