"""Sees that the training process hangs: its pulse in the flight recorder stands still for too long.

Used by both supervisors (`supervisor`, `gang`), which then ask for the stacks and end the process. Only time
in which the supervisor itself ran counts: a pod that was frozen, or a laptop that slept, hasn't stalled.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rectrain_trainer.flight import FlightRecorder, Pulse
from rectrain_trainer.pace import duration

STACKS_S: Final = 5.0
"""For the stacks to be written, to the log in S3 too, before the process is ended."""
_LOOKS: Final = 20
"""So often a timeout."""
_LONGEST_LOOK_S: Final = 30.0


@dataclass(frozen=True)
class Stall:
    """What was seen."""

    timeout_s: float
    step: int

    @property
    def sentence(self) -> str:
        """What happened, and at which step."""
        return (
            f"No step, and no batch of an evaluation, for {duration(self.timeout_s)} after step {self.step}"
        )


class Watch:
    """Call `look` at least every `every_s`."""

    def __init__(
        self, recorder: FlightRecorder, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recorder = recorder
        self._timeout_s = timeout_s
        self._clock = clock
        self._last, self._looked_at, self._still_s = Pulse(), clock(), 0.0
        self.every_s = min(timeout_s / _LOOKS, _LONGEST_LOOK_S)

    def look(self) -> Stall | None:
        """The stall, once the pulse has stood still for the timeout."""
        pulse, now = self._recorder.pulse(), self._clock()
        passed_s, self._looked_at = min(now - self._looked_at, 2 * self.every_s), now
        if pulse != self._last or not pulse.beats:
            self._last, self._still_s = pulse, 0.0
            return None
        self._still_s += passed_s
        return Stall(self._timeout_s, pulse.step) if self._still_s >= self._timeout_s else None
