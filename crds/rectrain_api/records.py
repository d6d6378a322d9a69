"""The log of a run in S3: create-only records, and what follows from them. The core is pure.

A run's place is a numbered log; a checkpoint exists when its record does. Taking an attempt number is
appending an `attempt-start`: an older pod's next append meets it, and that pod is fenced
(docs/explanation/checkpoints.md). The trainer gives `RunLog` a store over S3; tests give it memory.

A record that somebody deleted or damaged is passed over: what it said is lost, nothing else.
"""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from rectrain_api.base import ApiModel
from rectrain_api.errors import Fenced, InternalError, RunConflict
from rectrain_api.plan import Identity, RunPlan

LOG_PREFIX = "log/"
_RECORD_KEY = re.compile(r"log/(?!0{8})\d{8}\.json")
_LARGEST_HOLE = 1000
"""Missing records in a row; a number farther on is a stray file."""
UNPRODUCTIVE_LIMIT = 5
"""So many attempts in a row that reached the first step and left no newer checkpoint end the run."""


class StoredFile(ApiModel):
    """One file of a checkpoint or export, by its name under the prefix."""

    name: str
    size: int
    sha256: str


class _Record(ApiModel):
    nonce: str = Field(default_factory=lambda: secrets.token_hex(16))
    """Tells a retried request of ours from another's record."""
    attempt: int
    time: str


class AttemptStart(_Record):
    """A pod takes the run. Fences every older one."""

    kind: Literal["attempt-start"] = "attempt-start"
    identity: Identity
    plan_hash: str
    plan: dict[str, Any]
    """`RunPlan.hashed_part`, so that a conflict can name the difference."""
    epochs: int
    job_uid: str = ""
    pod_uid: str = ""


class AttemptEnd(_Record):
    """A trainer says how it ended; an attempt without one was killed."""

    kind: Literal["attempt-end"] = "attempt-end"
    reason: str
    step: int
    reached_training: bool = False


class PlanChange(_Record):
    """The run gets more epochs: from this step on its schedule is that of the longer run."""

    kind: Literal["plan-change"] = "plan-change"
    was: int
    """Epochs until now."""
    epochs: int
    step: int
    """Completed optimizer steps when it took effect."""


class CheckpointRecord(_Record):
    """A checkpoint is whole: all its files were uploaded before this."""

    kind: Literal["checkpoint"] = "checkpoint"
    prefix: str
    """Key prefix under the run's place, such as attempts/0002/step-000375."""
    step: int
    epoch: int
    files: list[StoredFile]
    accuracy: float | None = None
    """Measured at this very step; None when none was."""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f.size for f in self.files)


class BestRecord(_Record):
    """The best evaluation so far, and the checkpoint that holds its weights."""

    kind: Literal["best"] = "best"
    accuracy: float
    step: int
    epoch: int
    prefix: str


class RetireRecord(_Record):
    """These checkpoints are about to be deleted: nobody resumes from them."""

    kind: Literal["retire"] = "retire"
    prefixes: list[str]


class FinalRecord(_Record):
    """Training and export are done."""

    kind: Literal["final"] = "final"
    epochs: int
    step: int
    export_prefix: str
    export_files: list[StoredFile]
    best: BestRecord | None = None
    metrics: dict[str, Any] = {}


Record = AttemptStart | AttemptEnd | PlanChange | CheckpointRecord | BestRecord | RetireRecord | FinalRecord
_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


@dataclass(frozen=True)
class Damage:
    """A record that is gone or can't be read."""

    key: str
    problem: str
    """Follows the key in a sentence."""


def parse_record(data: bytes, key: str) -> Record | Damage:
    """A record from its bytes; Damage when they aren't one (truncated, edited).

    Raises RunConflict when a newer version may have written it: its kind, or one of its fields, is unknown.
    """
    try:
        return _RECORD.validate_json(data)
    except ValidationError as e:
        first = e.errors()[0]
        newer = [error for error in e.errors() if error["type"] in ("union_tag_invalid", "extra_forbidden")]
        if not newer:
            where = ".".join(map(str, first["loc"][1:]))
            return Damage(key, f"can't be read ({where + ': ' if where else ''}{first['msg']})")
        raise RunConflict(
            f"{key} in the run's place isn't a record of RecTrain that this version reads "
            f"({newer[0]['msg']}): give the run a checkpoint.uri of its own."
        ) from e


def record_key(number: int) -> str:
    """Key of a record under the run's place; numbers begin at 1."""
    return f"{LOG_PREFIX}{number:08d}.json"


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


def checkpoint_prefix(attempt: int, step: int) -> str:
    """Prefix of a checkpoint's files: never written twice, since it holds the attempt."""
    return f"{attempt_prefix(attempt)}step-{step:06d}"


def attempt_prefix(attempt: int) -> str:
    """Prefix of everything that one attempt writes."""
    return f"attempts/{attempt:04d}/"


@dataclass
class RunState:
    """What a log says, folded in order. `apply` is the only way it changes."""

    records: int = 0
    """Number of the last record, damaged ones counted."""
    attempt: int = 0
    """Number of the newest attempt that any record is of; 0 when there is none."""
    starts: list[AttemptStart] = field(default_factory=list)
    ends: dict[int, AttemptEnd] = field(default_factory=dict)
    checkpoints: list[CheckpointRecord] = field(default_factory=list)
    """Committed and not retired, oldest first."""
    checkpointed_attempts: set[int] = field(default_factory=set)
    bests: list[BestRecord] = field(default_factory=list)
    """Of checkpoints that are kept."""
    final: FinalRecord | None = None
    epochs: int = 0
    damaged: list[Damage] = field(default_factory=list)
    """Records passed over."""
    _damaged_since: int = 0
    """Those after the newest record that can be read."""

    @property
    def next_attempt(self) -> int:
        """A number that no attempt has had: every damaged record may have been an attempt-start."""
        return self.attempt + self._damaged_since + 1

    @property
    def best(self) -> BestRecord | None:
        """The best evaluation whose weights are kept; the newer of two equals."""
        return max(reversed(self.bests), key=lambda b: b.accuracy, default=None)

    def apply(self, record: Record | Damage) -> None:
        """Take the next record into account. Total: an overtaken record changes nothing."""
        self.records += 1
        if isinstance(record, Damage):
            self.damaged.append(record)
            self._damaged_since += 1
            return
        self._damaged_since = 0
        newer, self.attempt = record.attempt > self.attempt, max(record.attempt, self.attempt)
        match record:
            case AttemptStart():
                if newer:
                    self.starts.append(record)
                    self.epochs = self.epochs or record.epochs  # later ones say so by a plan-change
            case AttemptEnd():
                self.ends[record.attempt] = record
            case PlanChange():
                self.epochs = record.epochs
            case CheckpointRecord():
                self.checkpoints.append(record)
                self.checkpointed_attempts.add(record.attempt)
            case BestRecord():
                if self.checkpoint_at(record.prefix) is not None:  # else its record is damaged
                    self.bests.append(record)
            case RetireRecord():
                gone = set(record.prefixes)
                self.checkpoints = [c for c in self.checkpoints if c.prefix not in gone]
                self.bests = [b for b in self.bests if b.prefix not in gone]
            case FinalRecord():
                self.final = record

    def newest_first(self) -> list[CheckpointRecord]:
        """Checkpoints in the order in which resuming tries them: by step, then by attempt."""
        return sorted(self.checkpoints, key=lambda c: (c.step, c.attempt), reverse=True)

    def checkpoint_at(self, prefix: str) -> CheckpointRecord | None:
        """The committed checkpoint at a prefix."""
        return next((c for c in self.checkpoints if c.prefix == prefix), None)

    def to_retire(self, keep_last: int) -> list[str]:
        """Prefixes beyond the newest `keep_last` and the best, oldest first."""
        keep = {c.prefix for c in self.newest_first()[: max(keep_last, 2)]}
        if self.best is not None:
            keep.add(self.best.prefix)
        return [c.prefix for c in self.checkpoints if c.prefix not in keep]

    def unproductive_attempts(self, job_uid: str, reached_training: Callable[[int], bool]) -> int:
        """How many of the newest attempts in a row reached the first step and left no checkpoint.

        Only a Job's own attempts count: a mended new one over the same place starts afresh. Without a Job
        (a laptop; an empty uid) those since the last one of any Job count.
        `reached_training(attempt)` is asked for attempts without an `attempt-end`: they were killed,
        and only what else they wrote can tell. An attempt that never got so far neither counts nor
        breaks the row; one that was told to stop (Interrupted, Fenced) or lost another pod (PeerLost) is no
        fault of the run.
        """
        count = 0
        for start in reversed(self.starts):
            if start.attempt in self.checkpointed_attempts or (start.job_uid and not job_uid):
                break
            if start.job_uid != job_uid:
                continue
            end = self.ends.get(start.attempt)
            if end is not None and end.reason in ("Interrupted", "Fenced", "PeerLost"):
                continue
            if end.reached_training if end is not None else reached_training(start.attempt):
                count += 1
        return count


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
