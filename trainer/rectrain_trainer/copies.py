"""The convenience copies of a finished run: best/, export/ and report/ at its place, for people.

Called by the run after `final`, and by whoever finds a run finished: missing or damaged copies are made
again. What they are copied from may have been deleted as well; only the exported model can't be missed.
"""

import logging
from typing import Final

from rectrain_api.errors import InputMissing
from rectrain_api.records import FinalRecord, StoredFile, attempt_prefix
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Store

log = logging.getLogger(__name__)

REPORT: Final = "report/report.json"
EXPORT: Final = "export"
BEST: Final = "best"


def make_copies(store: Store, state: RunState, final: FinalRecord) -> None:
    """The copies, where they are missing or differ. Raises InputMissing when the exported model is gone."""
    for file in final.export_files:
        if not _is_whole(store, EXPORT, file):
            store.copy(f"{final.export_prefix}/{file.name}", f"{EXPORT}/{file.name}")
    best = state.checkpoint_at(final.best.prefix) if final.best else None
    try:
        for file in best.files if best else []:
            if best and not _is_whole(store, BEST, file):
                store.copy(f"{best.prefix}/{file.name}", f"{BEST}/{file.name}")
        store.copy(f"{attempt_prefix(final.attempt)}{REPORT}", REPORT)
    except InputMissing as e:
        log.warning("A convenience copy can't be made, and what it is made from is gone: %s", e)


def lost_export(store: Store, final: FinalRecord) -> str | None:
    """URI of the first file of the exported model that is neither at its own place nor copied."""
    for file in final.export_files:
        key = f"{final.export_prefix}/{file.name}"
        there = store.head(key)
        whole = there is not None and there.size == file.size and there.sha256 in (file.sha256, None)
        if not whole and not _is_whole(store, EXPORT, file):
            return store.uri_of(key)
    return None


def _is_whole(store: Store, folder: str, file: StoredFile) -> bool:
    """Whether a copy is certainly the same."""
    there = store.head(f"{folder}/{file.name}")
    return there is not None and (there.size, there.sha256) == (file.size, file.sha256)
