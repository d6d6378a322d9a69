"""What the log of a run says, folded record by record. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rectrain_api.records import (
    AttemptEnd,
    AttemptStart,
    BestRecord,
    CheckpointRecord,
    Damage,
    FinalRecord,
    PlanChange,
    Record,
    RetireRecord,
    RollbackRecord,
)

ROLLED_BACK = "RolledBack"
"""How an attempt of several pods ends that goes back to a checkpoint: the next one is there at once."""
UNPRODUCTIVE_LIMIT = 5
"""So many attempts in a row that reached the first step and left no newer checkpoint end the run."""


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
    rollbacks: list[RollbackRecord] = field(default_factory=list)
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

    @property
    def learning_rate_factor(self) -> float:
        """Of the plan's learning rate, after so many rollbacks."""
        return self.rollbacks[-1].factor if self.rollbacks else 1.0

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
            case RollbackRecord():
                self.rollbacks.append(record)
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
        breaks the row; one that was told to stop (Interrupted, Fenced), lost another pod (PeerLost) or made
        way for a rollback is no fault of the run.
        """
        count = 0
        for start in reversed(self.starts):
            if start.attempt in self.checkpointed_attempts or (start.job_uid and not job_uid):
                break
            if start.job_uid != job_uid:
                continue
            end = self.ends.get(start.attempt)
            if end is not None and end.reason in ("Interrupted", "Fenced", "PeerLost", ROLLED_BACK):
                continue
            if end.reached_training if end is not None else reached_training(start.attempt):
                count += 1
        return count
