"""A work queue of keys: coalescing, one worker a key at a time, delays, back-off after errors.

Everything that changes puts a key here (kopf's feed, the watches, reports, resync); the workers of `app`
take keys and reconcile. As client-go's queue: a key added while it is worked on is worked on once more.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_BACKOFF_S: Final = 0.2
LONGEST_BACKOFF_S: Final = 60.0


class WorkQueue(Generic[Key]):
    """See the module. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._urgent: deque[Key] = deque()
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._counter = 0
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._ready)

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Work on `key` as soon as a worker is free; urgent ones go first."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            (self._urgent if urgent else self._ready).append(key)
            self._wake.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Work on `key` after a while, unless an earlier time is already set."""
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock() + delay_s
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        self._counter += 1
        heapq.heappush(self._later, (due, self._counter, key))
        self._wake.set()

    def retry(self, key: Key, at_least_s: float = 0.0) -> float:
        """Work on `key` again after an error, later each time; returns the delay [s]."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff_s = min(FIRST_BACKOFF_S * 2.0 ** min(failures, 20), LONGEST_BACKOFF_S)
        delay_s = max(at_least_s, backoff_s)
        self.add_after(key, delay_s)
        return delay_s

    def succeeded(self, key: Key) -> None:
        """Forget earlier errors of `key`."""
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """The next key to work on; give it back with `done`."""
        while True:
            wait_s = self._promote()
            if len(self):
                key = (self._urgent or self._ready).popleft()
                self._dirty.discard(key)
                self._working.add(key)
                if len(self):
                    self._wake.set()
                return key
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), wait_s)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """The worker has finished with `key`; if it was added meanwhile, it is next."""
        self._working.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake.set()

    def _promote(self) -> float | None:
        """Move what is due to the ready ones; returns the time to the next [s]."""
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # else an earlier time replaced it
                del self._due[key]
                self.add(key)
        return self._later[0][0] - now if self._later else None
