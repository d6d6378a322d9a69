"""A bound on what we do to the API server: so many writes at once, so many a second.

Wrapped round every write by `client`. The rate is far above Kubeflow's 20 a second, which makes a burst of
runs wait for minutes; the API server's own priority and fairness still protects it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

WRITES_AT_ONCE: Final = 64
WRITES_PER_SECOND: Final = 400.0
BURST: Final = 800


class WriteLimits:
    """A semaphore and a token bucket. `clock` gives seconds that never go back."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        at_once: int = WRITES_AT_ONCE,
        per_second: float = WRITES_PER_SECOND,
        burst: int = BURST,
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._clock = clock
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at = clock()

    def reserve(self) -> float:
        """Take a token; returns how long to wait until it is really there [s]."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_second)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Hold a slot for the length of one write."""
        async with self._slots:
            wait_s = self.reserve()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            yield
