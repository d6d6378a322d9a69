"""Waiting in tests: for a condition, with a deadline, and with words for the failure."""

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until(predicate: Callable[[], object], deadline_s: float, what: str | Callable[[], str]) -> None:
    """Poll until `predicate` is true; AssertionError naming `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while not predicate():
        if time.monotonic() > end:
            said = what() if callable(what) else what
            raise AssertionError(f"not within {deadline_s:.0f} s: {said}")
        time.sleep(POLL_S)
