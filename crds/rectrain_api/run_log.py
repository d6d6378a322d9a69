"""Reads and appends the log of a run in S3, and refuses a place that isn't this run's.

Taking an attempt number is appending an `attempt-start`: an older pod's next append meets it, and that pod is
fenced. The trainer gives it a store over S3; tests give it memory. A record that somebody deleted or damaged
is passed over: what it said is lost, nothing else.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rectrain_api.errors import Fenced, InternalError, RunConflict
from rectrain_api.plan import RunPlan
from rectrain_api.records import (
    LOG_PREFIX,
    AttemptStart,
    Damage,
    Record,
    parse_record,
    record_key,
)
from rectrain_api.run_state import RunState

_RECORD_KEY = re.compile(r"log/(?!0{8})\d{8}\.json")
_LARGEST_HOLE = 1000
"""Missing records in a row; a number farther on is a stray file."""


class LogStore(Protocol):
    """What the log needs of a store, by keys under the run's place."""

    def create(self, key: str, data: bytes) -> bool:
        """Create-only put (`If-None-Match: *`): False when the key is there."""
        ...

    def get(self, key: str) -> bytes | None:
        """The object, or None when it isn't there."""
        ...

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        """Many objects that are there, in order (a long log is read side by side)."""
        ...

    def list_keys(self, prefix: str, after: str = "") -> Sequence[str]:
        """All keys under a prefix, in order; those after `after` if it is given."""
        ...


def read_records(store: "LogStore", after: int = 0) -> list[Record | Damage]:
    """Every record beyond the first `after`, in order, with what is damaged in its place.

    Raises RunConflict when a newer version may have written one.
    """
    listed = store.list_keys(LOG_PREFIX, record_key(after) if after else "")
    there = [key for key in listed if _RECORD_KEY.fullmatch(key)]
    found = dict(zip(there, store.get_all(there), strict=True))
    entries: list[Record | Damage] = []
    number = after
    for key in there:
        last, number = number, int(key[len(LOG_PREFIX) : -len(".json")])
        if number - last > _LARGEST_HOLE:
            raise RunConflict(
                f"{key} in the run's place is far beyond the record before it ({record_key(last)}): move it "
                "away, if somebody put it there."
            )
        for missing in map(record_key, range(last + 1, number)):
            data = store.get(missing)  # a list that lags is no hole
            entries.append(parse_record(data, missing) if data is not None else Damage(missing, "is missing"))
        entries.append(parse_record(found[key], key))
    return entries


def check_ours(state: RunState, place: str) -> None:
    """Refuse a log that nobody can tell the owner of. Raises RunConflict."""
    if state.starts or not state.records:
        return
    why = f" ({state.damaged[0].key} {state.damaged[0].problem})" if state.damaged else ""
    raise RunConflict(
        f"{place} isn't a run of RecTrain: its log holds no attempt-start that can be read{why}: "
        "give this run a checkpoint.uri of its own."
    )


def check_plan(state: RunState, plan: RunPlan, place: str) -> None:
    """Refuse a place that isn't this run's. Raises RunConflict naming the owner or the difference."""
    if not state.starts:
        return
    last = state.starts[-1]
    if last.identity != plan.identity:
        raise RunConflict(
            f"{place} belongs to the run {last.identity}, not to {plan.identity}: "
            "give this run a checkpoint.uri of its own."
        )
    if plan.checkpoint.resume == "Never":
        raise RunConflict(
            f"{place} holds {state.attempt} earlier attempt(s) of this run and checkpoint.resume is Never: "
            "set it to Auto to go on, or choose an empty checkpoint.uri."
        )
    if last.plan_hash != plan.plan_hash():
        raise RunConflict(
            f"{place} holds a run of another plan ({describe_difference(last.plan, plan.hashed_part())}): "
            "put it back, or give this run a checkpoint.uri of its own."
        )
    _refuse_fewer_epochs(state, plan.training.epochs, place)


def _refuse_fewer_epochs(state: RunState, epochs: int, place: str) -> None:
    """An unfinished run can't be taken back to where it was."""
    newest = state.newest_first()
    finished = state.final is not None and state.final.epochs >= epochs
    if newest and newest[0].epoch > epochs and not finished:
        raise RunConflict(
            f"{place} is already at epoch {newest[0].epoch}, and {epochs} are asked for: set training.epochs "
            "to no fewer, or give this run a checkpoint.uri of its own."
        )


def describe_difference(old: Any, new: Any, path: str = "") -> str:
    """The first few fields that differ, such as `training.batchSize: 64 → 32`."""
    return "; ".join(_differences(old, new, path)[:3]) or "its form changed"


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if old == new else [f"{path}: {old} → {new}"]


class RunLog:
    """Reads and appends the log of one run. Not thread-safe: one writer per pod."""

    def __init__(self, store: LogStore, place: str) -> None:
        """`place` is the run's URI, for messages."""
        self._store = store
        self._place = place
        self.state = RunState()
        self.attempt = 0
        self._damaged_at_start = 0

    def read(self) -> RunState:
        """Catch up with the log: read every record after those known. Raises RunConflict."""
        self._catch_up()
        check_ours(self.state, self._place)
        return self.state

    def _catch_up(self) -> set[str]:
        """Nonces of the records that were read."""
        new = read_records(self._store, self.state.records)
        for record in new:
            self.state.apply(record)
        return {record.nonce for record in new if not isinstance(record, Damage)}

    def start(
        self, plan: RunPlan, *, now: str, job_uid: str, pod_uid: str, check: Callable[[RunState], None]
    ) -> int:
        """Take the next attempt number; from then on every older pod is fenced.

        `check` is called with the state just before each try, and may raise to refuse.
        """
        while True:
            self.read()
            check_plan(self.state, plan, self._place)
            check(self.state)
            record = AttemptStart(
                attempt=self.state.next_attempt,
                time=now,
                identity=plan.identity,
                plan_hash=plan.plan_hash(),
                plan=plan.hashed_part(),
                epochs=plan.training.epochs,
                job_uid=job_uid,
                pod_uid=pod_uid,
            )
            if self._try_append(record):
                self.attempt = record.attempt
                self._damaged_at_start = len(self.state.damaged)
                return record.attempt

    def append(self, record: Record) -> None:
        """Append as this attempt. Raises Fenced when a newer attempt has started.

        May be called again with the same record when it is unknown whether it got there.
        """
        while True:
            if record.nonce in self._catch_up():  # first, since the next number may be that of a lost record
                return
            self._refuse_fenced()
            if self._try_append(record):
                return

    def _refuse_fenced(self) -> None:
        """Whatever comes after our start and isn't ours is a newer attempt's, readable or not."""
        stops = f"this pod (attempt {self.attempt}) stops."
        if self.state.attempt > self.attempt:
            raise Fenced(f"attempt {self.state.attempt} has taken over {self._place}: {stops}")
        if len(self.state.damaged) > self._damaged_at_start:
            last = self.state.damaged[-1]
            raise Fenced(
                f"another attempt may have taken over {self._place} ({last.key} {last.problem}): {stops}"
            )

    def _try_append(self, record: Record) -> bool:
        """One create at the next free number; False when another's record was there (now applied)."""
        key = record_key(self.state.records + 1)
        for _ in range(8):
            if self._store.create(key, record.model_dump_json(by_alias=True, exclude_none=True).encode()):
                self.state.apply(record)
                return True
            data = self._store.get(key)
            if data is not None:
                there = parse_record(data, key)
                self.state.apply(there)
                return not isinstance(there, Damage) and there.nonce == record.nonce
        raise InternalError(
            f"{self._place}/{key} is said to exist and can't be read: the store isn't consistent."
        )
