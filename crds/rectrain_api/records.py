"""The records of a run's log in S3: what they say, where they lie, and how they are read. Pure.

A run's place is a numbered log of create-only records; a checkpoint exists when its record does
(docs/explanation/checkpoints.md). `run_state` folds them, `run_log` reads and appends them.
"""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from rectrain_api.base import ApiModel
from rectrain_api.errors import RunConflict
from rectrain_api.plan import Identity

LOG_PREFIX = "log/"


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


class RollbackRecord(_Record):
    """The loss wasn't a number any more: training went back, and on with a lower learning rate."""

    kind: Literal["rollback"] = "rollback"
    step: int
    """Where it was noticed."""
    to_step: int
    """The checkpoint gone back to; 0 is the start."""
    factor: float
    """Of the learning rate from now on, against that of the plan."""


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

    @classmethod
    def of(cls, checkpoint: CheckpointRecord, accuracy: float, *, attempt: int, time: str) -> "BestRecord":
        """That this checkpoint is the best by now."""
        return cls(
            attempt=attempt,
            time=time,
            accuracy=accuracy,
            step=checkpoint.step,
            epoch=checkpoint.epoch,
            prefix=checkpoint.prefix,
        )


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
    stopped_early: int | None = None
    """Epochs that were trained when early stopping ended it; `epochs` are those that were asked for."""


Record = (
    AttemptStart
    | AttemptEnd
    | PlanChange
    | RollbackRecord
    | CheckpointRecord
    | BestRecord
    | RetireRecord
    | FinalRecord
)
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


def checkpoint_prefix(attempt: int, step: int, rollbacks: int = 0) -> str:
    """Prefix of a checkpoint's files: never written twice, since it holds the attempt.

    An attempt that went back comes to a step again: `rollbacks` says how often it has.
    """
    again = f"-{rollbacks + 1}" if rollbacks else ""
    return f"{attempt_prefix(attempt)}step-{step:06d}{again}"


def attempt_prefix(attempt: int) -> str:
    """Prefix of everything that one attempt writes."""
    return f"attempts/{attempt:04d}/"
