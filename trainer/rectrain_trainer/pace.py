"""How fast training goes, over the last half minute of steps. Pure but for its clock."""

import collections
import time
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 30.0


class Pace:
    """Steps in a sliding window; pauses (evaluations) don't count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: collections.deque[tuple[float, float, int, float]] = collections.deque()
        """(end, seconds it took, samples, seconds that it waited for data)"""
        self._last = clock()

    def step(self, samples: int, wait_s: float) -> None:
        """One step has ended."""
        now = self._clock()
        self._steps.append((now, now - self._last, samples, wait_s))
        self._last = now
        while len(self._steps) > 1 and now - self._steps[0][0] > WINDOW_S:
            self._steps.popleft()

    def pause(self) -> None:
        """What passed since the last step was something else."""
        self._last = self._clock()

    @property
    def samples_per_second(self) -> float | None:
        """Images trained a second."""
        took = self._took()
        return round(sum(s[2] for s in self._steps) / took, 1) if took else None

    @property
    def wait_percent(self) -> float | None:
        """Part of the time spent waiting for data [%]."""
        took = self._took()
        return round(min(100.0, 100 * sum(s[3] for s in self._steps) / took), 1) if took else None

    def seconds_for(self, steps: int) -> float | None:
        """How long so many more steps take."""
        took = self._took()
        return steps * took / len(self._steps) if took else None

    def _took(self) -> float:
        return sum(s[1] for s in self._steps)


def duration(seconds: float) -> str:
    """Such as 40s, 12m, 3h20m, 2d4h."""
    total = round(seconds)
    if total < 60:
        return f"{total}s"
    minutes = round(total / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h" if hours else f"{days}d"
