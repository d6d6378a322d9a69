"""VisualDL's log while a run goes on: after checkpoints, from a thread of its own. Called by the run.

It is made from the metrics in S3, which a checkpoint brings there; it takes a small part of the time at
most, and what goes wrong is a line of the log.
"""

import logging
import threading
import time
from typing import Final

from rectrain_data.transfer import Store
from rectrain_trainer.curves import merge, rows_in
from rectrain_trainer.reporting.vdl import write_vdl

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
_PART: Final = 0.05
"""Of the time that may go into it."""


class VdlSync:
    """`checkpointed` after each checkpoint's metrics; it returns at once."""

    def __init__(self, store: Store, attempt: int, every_s: float = EVERY_S) -> None:
        """`store` is at the run's place, with short retries."""
        self._store, self._attempt = store, attempt
        self._every_s = every_s
        self._next = time.monotonic() + every_s
        self._thread: threading.Thread | None = None

    def checkpointed(self) -> None:
        """Write the log soon, unless it was written a moment ago or still is."""
        if time.monotonic() < self._next or (self._thread and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._write, name="vdl", daemon=True)
        self._thread.start()

    def wait(self, limit_s: float) -> None:
        """For what is being written, before the last one is."""
        self._next = float("inf")
        if self._thread:
            self._thread.join(limit_s)

    def _write(self) -> None:
        started = time.monotonic()
        try:
            attempts = range(1, self._attempt + 1)
            write_vdl(self._store, merge([rows_in(self._store, attempt) for attempt in attempts]))
        except Exception as e:
            log.warning("VisualDL's log couldn't be written (%s: %s).", type(e).__name__, e)
        ended = time.monotonic()
        self._next = ended + max(self._every_s, (ended - started) / _PART)
