"""Signals to end as an exception, so that every `finally` runs. Used by the commands and the supervisor."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupted(BaseException):
    """Asked to end by a signal; not an error, so no `except Exception` catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


def _raise(signum: int, _frame: FrameType | None) -> None:
    raise Interrupted(signum)


def install() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _raise)
