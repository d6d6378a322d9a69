"""The files of the report, from a run's place and back to it. Called by the run at its end.

A report that can't be made is a line of the log: it never decides how a run ends.
"""

import logging
import threading
from typing import Final

from rectrain_api.errors import RectrainError
from rectrain_api.records import attempt_prefix
from rectrain_api.run_state import ROLLED_BACK
from rectrain_data.transfer import Store
from rectrain_trainer.reporting.gather import gather, metrics_jsonl
from rectrain_trainer.reporting.keys import INDEX, METRICS
from rectrain_trainer.reporting.page import page
from rectrain_trainer.reporting.vdl import write_vdl

log = logging.getLogger(__name__)

FAILURE_S: Final = 60.0
_NOT_NOW: Final = ("Interrupted", "Fenced", "PeerLost", ROLLED_BACK, "StoreUnavailable")
"""Ends after which another attempt comes, or is here already; or S3 is away."""


def make_report(store: Store, attempt: int) -> str | None:
    """Make and upload the report as `attempt`; its URI, or None when that failed. Never raises."""
    try:
        run = gather(store)
        files = (
            (METRICS, metrics_jsonl(run.rows), "application/x-ndjson"),
            (INDEX, page(run).encode(errors="replace"), "text/html; charset=utf-8"),
        )
        for key, data, kind in files:
            own = f"{attempt_prefix(attempt)}{key}"
            store.put_bytes(own, data, kind)
            store.copy(own, key)
        write_vdl(store, run.rows)
        log.info("Report: %s", store.uri_of(INDEX))
    except Exception as e:
        why = str(e) if isinstance(e, RectrainError) else f"{type(e).__name__}: {e}"
        log.warning("The report couldn't be made (%s): rectrain-trainer report %s makes it.", why, store.uri)
        log.debug("", exc_info=e)
        return None
    return store.uri_of(INDEX)


def ensure_report(store: Store, attempt: int) -> str | None:
    """The URI of a finished run's report, which is made again where it is missing."""
    return store.uri_of(INDEX) if store.head(INDEX) is not None else make_report(store, attempt)


def report_failure(store: Store, attempt: int, reason: str) -> str | None:
    """The report of a run that won't go on by itself, if it can be made soon. `store` has short retries."""
    if reason in _NOT_NOW:
        return None
    made: list[str | None] = []
    thread = threading.Thread(
        target=lambda: made.append(make_report(store, attempt)), name="report", daemon=True
    )
    thread.start()
    thread.join(FAILURE_S)
    return made[0] if made else None
