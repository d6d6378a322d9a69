"""A run's place in S3 as one value, `Run`: all that the report is made of. Called by `make` and the command.

What is missing or damaged at the place is left out and named; only a place without a log is refused.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rectrain_api.records import (
    CheckpointRecord,
    FinalRecord,
    Record,
    RollbackRecord,
    attempt_prefix,
)
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Store
from rectrain_trainer.checkpoints.listing import FINISHED, Listing, listing_of, read_run
from rectrain_trainer.copies import REPORT
from rectrain_trainer.curves import Row, merge, rows_in
from rectrain_trainer.misread import WORST_KEPT
from rectrain_trainer.place import now, reached_training
from rectrain_trainer.reporting.keys import ABOUT, SAMPLES

_LOG_CHUNKS_READ: Final = 2
_MOST: Final = 1e300
"""Beyond it, a number can't be drawn: neither is it finite, nor does a float hold every whole one."""
T = TypeVar("T", bound=BaseModel)
_COMPLETED: Final = "Completed"


class _Part(BaseModel):
    """Of a file of ours at the place: what else is in it is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Finding(_Part):
    """As status has it."""

    code: str
    severity: str
    count: int
    message: str


class Lost(_Part):
    """What upstream's training would do with one set."""

    samples: int
    unreadable: int = 0
    empty: int = 0
    too_long: int = 0
    unknown: int = 0
    shortened: int = 0
    characters: int = 0
    spaced: int = 0
    dropped: int = 0
    swapped: int = 0


class UpstreamLosses(_Part):
    """Of both sets."""

    train: Lost
    eval: Lost
    never_seen_by_ranks: dict[str, int] = {}
    never_seen_in: str = "epoch"


class Checks(_Part):
    """What the checks before training found."""

    train_samples: int = 0
    eval_samples: int = 0
    left_out: int = 0
    findings: list[Finding] = []
    validation: str = ""
    checked: int = 0
    images_decoded: int = 0
    upstream: UpstreamLosses | None = None


class Environment(_Part):
    """Where an attempt ran."""

    lines: list[str] = []
    versions: list[str] = []
    system: str = ""
    node: str = ""
    pod: str = ""


class About(_Part):
    """attempts/NNNN/about.json."""

    plan: dict[str, Any] = {}
    checks: Checks = Checks()
    environment: Environment = Environment()


class Confusion(_Part):
    """What was read for what; "" is nothing."""

    label: str
    read: str
    count: int


class LengthRow(_Part):
    """Labels of a range of lengths."""

    first: int = Field(alias="from")
    last: int = Field(alias="to")
    samples: int
    exact: int
    errors: int


class CharacterRow(_Part):
    """One character of the labels."""

    character: str
    occurrences: int
    right: int


class Quality(_Part):
    """What is read, and what isn't."""

    figures: dict[str, dict[str, Any]] = {}
    gap: str | None = None
    space_only_errors: int = 0
    confusions: list[Confusion] = []
    by_length: list[LengthRow] = []
    by_character: list[CharacterRow] = []


class ReportJson(_Part):
    """report.json, of a run that was published."""

    quality: Quality = Quality()


class Sample(_Part):
    """One that is read badly."""

    name: str
    label: str
    read: str
    confidence: float
    distance: int
    image: str | None = None


class Samples(_Part):
    """attempts/NNNN/samples.json."""

    step: int = 0
    samples: list[Sample] = []


@dataclass(frozen=True)
class Attempt:
    """One pod's try, from its records and its metrics."""

    number: int
    started: str | None
    ended: str | None
    """None: it couldn't say."""
    end: str
    """Its reason; Killed, or RunningOrKilled for the newest."""
    first_step: int | None
    """Trained by it; None where no step is known."""
    last_step: int | None
    seen_until: float | None
    """Time of its last row [s since 1970]."""
    checkpoints: int
    environment: Environment


@dataclass(frozen=True)
class Run:
    """A run, as its place tells it."""

    uri: str
    name: str
    listing: Listing
    attempts: list[Attempt]
    rows: list[Row]
    """Of all attempts, merged: each step once."""
    checkpoints: list[CheckpointRecord]
    """Every one that was committed, deleted ones too."""
    rollbacks: list[RollbackRecord]
    final: FinalRecord | None
    best: tuple[int, float] | None
    """Step and accuracy."""
    about: About
    quality: Quality | None
    samples: Samples | None
    words: str
    """The last error that the newest attempt logged; empty for a run that is finished."""
    stored_bytes: int
    notes: list[str] = field(default_factory=list)
    """What of the place couldn't be read."""
    made: str = ""
    """When this was gathered."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """As resolved; of older attempts only what makes the run the run."""
        return self.about.plan or self.listing.plan

    @property
    def finished(self) -> bool:
        return self.listing.state == FINISHED

    def series(self, kind: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of the rows that have a finite one."""
        return [*_series(self.rows, kind, name)]


def gather(store: Store) -> Run:
    """Read a run's place.

    Raises:
        InputMissing: there is no run.
        RunConflict: the log isn't one that this version reads.
        StoreUnavailable, PermissionRefused: as they say.
    """
    records, state = read_run(store)
    listing = listing_of(store.uri, records, state, partial(reached_training, store))
    rows = {attempt.attempt: rows_in(store, attempt.attempt) for attempt in listing.attempts}
    notes = [f"{row.record} {row.problem}: what it said is lost." for row in listing.damaged]
    reader = _Reader(store, notes)
    abouts = {number: reader.read(f"{attempt_prefix(number)}{ABOUT}", About) for number in rows}
    published = state.final.attempt if state.final else None
    prefix = attempt_prefix(published) if published else ""
    report = reader.read(f"{prefix}{REPORT}", ReportJson) if published else None
    samples = reader.read(f"{prefix}{SAMPLES}", Samples) if published else None
    finished = listing.state == FINISHED
    return Run(
        uri=store.uri,
        name=listing.run,
        listing=listing,
        attempts=[*_attempts(listing, records, rows, abouts, state.final)],
        rows=merge([rows[number] for number in sorted(rows)]),
        checkpoints=[r for r in records if isinstance(r, CheckpointRecord)],
        rollbacks=state.rollbacks,
        final=state.final if finished else None,
        best=_best(state),
        about=next((abouts[n] for n in sorted(abouts, reverse=True) if abouts[n]), None) or About(),
        quality=report.quality if report else None,
        samples=samples.model_copy(update={"samples": samples.samples[:WORST_KEPT]}) if samples else None,
        words="" if finished else _last_error(store, state.attempt).removeprefix(f"{listing.state}: "),
        stored_bytes=sum(item.size for item in store.list_objects()),
        notes=notes,
        made=now(),
    )


class _Reader:
    """Files of ours, each of which may be missing or damaged."""

    def __init__(self, store: Store, notes: list[str]) -> None:
        self._store, self._notes = store, notes

    def read(self, key: str, model: type[T]) -> T | None:
        data = self._store.get(key)
        if data is None:
            return None
        try:
            return model.model_validate_json(data)
        except ValidationError:
            self._notes.append(f"{self._store.uri_of(key)} is damaged, and passed over.")
            return None


def _best(state: RunState) -> tuple[int, float] | None:
    best = state.final.best if state.final and state.final.best else state.best
    return (best.step, best.accuracy) if best else None


def _attempts(
    listing: Listing,
    records: Sequence[Record],
    rows: Mapping[int, Sequence[Row]],
    abouts: Mapping[int, About | None],
    final: FinalRecord | None,
) -> Iterator[Attempt]:
    committed = Counter(r.attempt for r in records if isinstance(r, CheckpointRecord))
    for row in listing.attempts:
        own = rows[row.attempt]
        trained = [r["step"] for r in own if r["kind"] == "train"]
        times = [t for _, t in _series(own, None, "time")]
        done = final is not None and row.attempt == final.attempt
        about = abouts[row.attempt]
        yield Attempt(
            number=row.attempt,
            started=row.started,
            ended=final.time if final and done else row.ended,
            end=_COMPLETED if done else row.end,
            first_step=min(trained, default=None),
            last_step=max(trained, default=None),
            seen_until=max(times, default=None),
            checkpoints=committed[row.attempt],
            environment=about.environment if about else Environment(),
        )


def _series(rows: Sequence[Row], kind: str | None, name: str) -> Iterator[tuple[int, float]]:
    for row in rows:
        value = row.get(name)
        if kind not in (None, row["kind"]) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if -_MOST < value < _MOST:
            yield row["step"], float(value)


def _last_error(store: Store, attempt: int) -> str:
    """The newest attempt's last line of the level ERROR, without time and level."""
    keys = [*store.list_keys(f"{attempt_prefix(attempt)}log/")][-_LOG_CHUNKS_READ:]
    text = b"".join(store.get_all(keys)).decode(errors="replace")
    found = [line.partition(" ERROR ")[2] for line in text.splitlines() if " ERROR " in line]
    return found[-1].strip() if found else ""


def metrics_jsonl(rows: Sequence[Row]) -> bytes:
    """All rows, one JSON object a line; a number that isn't finite is null, so that every reader takes it."""
    return "".join(f"{json.dumps(_plain(row), ensure_ascii=False)}\n" for row in rows).encode(
        errors="replace"
    )


def _plain(row: Row) -> Row:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
