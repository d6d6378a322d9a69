"""Pods that start, commit, retire, crash and linger, in every order that Hypothesis finds.

Whatever happens: one writer, attempt numbers unique and increasing, committed checkpoints whole, and
nothing of a pod in the log after a newer one has started.
"""

import contextlib
import hashlib
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from rectrain_api.errors import Fenced
from rectrain_api.records import (
    LOG_PREFIX,
    AttemptEnd,
    AttemptStart,
    BestRecord,
    CheckpointRecord,
    RetireRecord,
    RunLog,
    RunState,
    StoredFile,
    checkpoint_prefix,
    parse_record,
    record_key,
)
from tests.support.memory_store import MemoryStore, SimulatedCrash
from tests.support.plans import make_plan

PLACE = "s3://bucket/run"
PLAN = make_plan()
FAULTS = st.sampled_from(["", "", "", "lost", "before", "after"])


@dataclass
class Pod:
    """One trainer, as far as the log goes."""

    log: RunLog
    step: int
    committed: list[int] = field(default_factory=list)


class RunMachine(RuleBasedStateMachine):
    """Every pod keeps its own view of the log, and may be arbitrarily stale."""

    pods = Bundle("pods")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.taken: list[int] = []

    def _start(self) -> Pod:
        log = RunLog(self.store, PLACE)
        log.start(PLAN, now="t", job_uid="", pod_uid="", check=lambda _: None)
        self.taken.append(log.attempt)
        newest = log.state.newest_first()
        return Pod(log, newest[0].step if newest else 0)

    @rule(target=pods, fault=FAULTS, beaten=st.booleans())
    def start(self, fault: str, beaten: bool) -> object:
        """A pod takes the run; another one may be quicker between its look and its put."""
        others: list[Pod] = []
        if beaten:
            self.store.before_create = lambda: others.append(self._start())
        self.store.fault = "" if beaten else fault
        try:
            mine = [self._start()]
        except SimulatedCrash:
            mine = []
        self.store.fault = ""
        return multiple(*others, *mine)

    @rule(pod=pods, steps=st.integers(1, 3), fault=FAULTS, uploads=st.none() | st.integers(0, 1))
    def commit(self, pod: Pod, steps: int, fault: str, uploads: int | None) -> None:
        """Train on, upload two files, append the record; crash anywhere. A pod that crashed is gone, but
        its bundle entry may act once more: that is a pod that only seemed to be."""
        step = pod.step + steps
        prefix = checkpoint_prefix(pod.log.attempt, step)
        content = {name: f"{name} {pod.log.attempt} {step}".encode() for name in ("params", "state")}
        files = [
            StoredFile(name=n, size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in content.items()
        ]
        record = CheckpointRecord(
            attempt=pod.log.attempt, time="t", prefix=prefix, step=step, epoch=1, files=files
        )
        self.store.crash_after_uploads = uploads
        try:
            for name, data in content.items():
                self.store.put(f"{prefix}/{name}", data)
            self.store.fault = fault
            pod.log.append(record)
            pod.step = step
            pod.committed.append(step)
        except (SimulatedCrash, Fenced):
            pod.step = step  # never the same prefix again
        finally:
            self.store.fault, self.store.crash_after_uploads = "", None

    @rule(pod=pods, accuracy=st.floats(0, 1))
    def name_best(self, pod: Pod, accuracy: float) -> None:
        newest = pod.log.state.newest_first()
        if not newest:
            return
        record = BestRecord(
            attempt=pod.log.attempt,
            time="t",
            accuracy=accuracy,
            step=newest[0].step,
            epoch=1,
            prefix=newest[0].prefix,
        )
        with contextlib.suppress(Fenced):
            pod.log.append(record)

    @rule(pod=pods, keep=st.integers(2, 3), delete=st.booleans())
    def retire(self, pod: Pod, keep: int, delete: bool) -> None:
        """Record, then delete; it may crash between the two."""
        prefixes = pod.log.state.to_retire(keep)
        if not prefixes:
            return
        try:
            pod.log.append(RetireRecord(attempt=pod.log.attempt, time="t", prefixes=prefixes))
        except Fenced:
            return
        if delete:
            for prefix in prefixes:
                self.store.delete(self.store.list_keys(f"{prefix}/"))

    @rule(pod=consumes(pods), told=st.booleans())
    def leave(self, pod: Pod, told: bool) -> None:
        """Ended in good order, or killed."""
        if not told:
            return
        with contextlib.suppress(Fenced):
            pod.log.append(AttemptEnd(attempt=pod.log.attempt, time="t", reason="Interrupted", step=pod.step))

    def _fold(self) -> RunState:
        state = RunState()
        count = len(self.store.list_keys(LOG_PREFIX))
        for number in range(1, count + 1):
            key = record_key(number)
            state.apply(parse_record(self.store.objects[key], key))
        return state

    @invariant()
    def log_has_no_holes_and_one_writer(self) -> None:
        writer = 0
        for number in range(1, len(self.store.list_keys(LOG_PREFIX)) + 1):
            record = parse_record(self.store.objects[record_key(number)], record_key(number))
            if isinstance(record, AttemptStart):
                assert record.attempt == writer + 1
                writer = record.attempt
            else:
                assert record.attempt == writer, "a fenced pod has written"

    @invariant()
    def attempts_are_unique(self) -> None:
        assert len(set(self.taken)) == len(self.taken)

    @invariant()
    def committed_checkpoints_are_whole(self) -> None:
        for record in self._fold().checkpoints:
            for file in record.files:
                assert self.store.sha256(f"{record.prefix}/{file.name}") == file.sha256

    @invariant()
    def best_is_never_retired(self) -> None:
        state = self._fold()
        if state.best is not None:
            assert state.checkpoint_at(state.best.prefix) is not None


RunMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRunMachine = RunMachine.TestCase
