"""The run's place in S3, as the trainer uses it: what it needs of a store, and how it is opened.

Called by the run. The log's pure core is `rectrain_api.run_log`; `rectrain_data.transfer.Store` already is
the store that it asks for.
"""

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from rectrain_api.errors import InvalidSpec
from rectrain_api.plan import PlanFrame
from rectrain_api.records import attempt_prefix
from rectrain_api.run_log import LogStore
from rectrain_api.run_state import RunState
from rectrain_data.transfer import (
    ObjectInfo,
    Retries,
    S3Options,
    Store,
    Upload,
    is_local,
    local_uri,
    open_store,
)
from rectrain_data.transfer.retries import DEFAULT_DEADLINE_S, OnRetry

DEADLINE_VARIABLE: Final = "RECTRAIN_S3_DEADLINE_SECONDS"
QUICK_DEADLINE_S: Final = 5.0
"""For what may be lost: chunks of metrics and log."""


class Place(LogStore, Protocol):
    """A store at the run's place. `Store` is one; tests have one in memory."""

    def uri_of(self, key: str) -> str: ...
    def upload_all(self, items: Iterable[Upload], *, limit: int = 8) -> int: ...
    def head(self, key: str) -> ObjectInfo | None: ...
    def copy(self, source: str, target: str) -> None: ...
    def delete(self, keys: Sequence[str]) -> None: ...
    def list_objects(self, prefix: str = "") -> Iterator[ObjectInfo]: ...


class Unfenced:
    """For stores without conditional writes (`fencing: Off`): look, then put."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.get = store.get
        self.get_all = store.get_all
        self.list_keys = store.list_keys

    def create(self, key: str, data: bytes) -> bool:
        """Not atomic: two pods at once may both believe that they created it."""
        if self._store.head(key) is not None:
            return False
        self._store.put_bytes(key, data)
        return True


def options_of(plan: PlanFrame) -> S3Options:
    """How S3 is reached: the plan's own settings, then AWS's names in the environment, then a profile.

    A run in a local folder reaches no S3, so nothing is asked for.
    """
    if is_local(plan.checkpoint.uri):
        return S3Options()
    return S3Options.from_environment(
        endpoint=plan.s3.endpoint, region=plan.s3.region, addressing_style=plan.s3.addressing_style
    )


def deadline_s() -> float:
    """How long one request is retried: just under two minutes, or what the environment says."""
    named = os.environ.get(DEADLINE_VARIABLE, "")
    try:
        return float(named) if named else DEFAULT_DEADLINE_S
    except ValueError as e:
        raise InvalidSpec(f"{DEADLINE_VARIABLE}={named} isn't a number of seconds.") from e


def open_place(
    uri: str, options: S3Options, on_retry: OnRetry | None = None, deadline: float | None = None
) -> Store:
    """A store with retries of its own."""
    return open_store(uri, options, Retries(deadline_s() if deadline is None else deadline, on_retry))


def open_named(named: str, on_retry: OnRetry | None = None) -> Store:
    """The place that a command was given: in S3, or a folder of this machine."""
    uri = local_uri(Path(named)) if "://" not in named and Path(named).is_dir() else named
    return open_place(uri, S3Options() if is_local(uri) else S3Options.from_environment(), on_retry)


def log_store(store: Store, plan: PlanFrame) -> LogStore:
    """What the log is kept in."""
    return store if plan.checkpoint.fencing == "On" else Unfenced(store)


def reached_training(store: LogStore, attempt: int) -> bool:
    """Whether a killed attempt got to its first step: it writes metrics from there on."""
    return bool(store.list_keys(f"{attempt_prefix(attempt)}metrics/"))


def leftovers(keys: Iterable[str], state: RunState, attempt: int) -> list[str]:
    """Files of older attempts' checkpoints that were never committed, or retired but not deleted. Pure.

    None while the log is damaged: a record that is lost may be theirs, and may be put back.
    """
    if state.damaged:
        return []
    committed = {c.prefix for c in state.checkpoints}
    gone = []
    for key in keys:
        parts = key.split("/")
        if len(parts) < 4 or not parts[2].startswith("step-") or not parts[1].isdigit():
            continue
        if int(parts[1]) < attempt and "/".join(parts[:3]) not in committed:
            gone.append(key)
    return gone


def now() -> str:
    """The time, as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
