"""When a container runs again, and after which wait. Pure; called by `container`."""

from __future__ import annotations

from typing import Final

FIRST_WAIT_S: Final = 10.0
LONGEST_WAIT_S: Final = 300.0
FORGET_AFTER_S: Final = 600.0
"""A container that ran this long starts again as if it had never failed."""


def runs_again(policy: str, exit_code: int) -> bool:
    """The pod's restartPolicy (Always for a sidecar) applied to one exit."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


class Backoff:
    """A kubelet's waits: none before the first restart, then 10 s doubling to 5 min."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def after(self, ran_for_s: float) -> float:
        """The wait after an instance that ran so long."""
        if ran_for_s >= FORGET_AFTER_S:
            self._next_s = 0.0
        wait = self._next_s
        self._next_s = min(max(wait * 2, FIRST_WAIT_S), LONGEST_WAIT_S)
        return wait
