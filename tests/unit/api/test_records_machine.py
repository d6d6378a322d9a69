"""Pods that start, commit, retire, crash and linger while hands damage log and files, in every order that
Hypothesis finds. I1 to I10 are the invariants that docs/explanation/checkpoints.md states.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from rectrain_api.errors import Diverged, Fenced, RunConflict, StoreUnavailable
from rectrain_api.records import (
    LOG_PREFIX,
    AttemptEnd,
    AttemptStart,
    BestRecord,
    CheckpointRecord,
    Damage,
    PlanChange,
    Record,
    RetireRecord,
    RollbackRecord,
    StoredFile,
    checkpoint_prefix,
    parse_record,
    record_key,
)
from rectrain_api.run_log import RunLog, read_records
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Corrupt
from rectrain_trainer import resume
from rectrain_trainer.place import leftovers
from rectrain_trainer.rollback import MOST, go_back
from tests.support.memory_store import MemoryStore, SimulatedCrash
from tests.support.plans import make_plan

PLACE = "s3://bucket/run"
STEPS_PER_EPOCH = 4
plan_of = functools.cache(lambda epochs: make_plan(epochs=epochs))
FAULTS = st.sampled_from(["", "", "", "lost", "unanswered", "before", "after"])
EDITS = st.sampled_from([b"", b"{", b"\xff", b'{"kind":"checkpoint"}', b"null"])


class Store(MemoryStore):
    """Remembers every record that was ever written, whatever becomes of it."""

    uri = PLACE

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, Record]] = []

    def create(self, key: str, data: bytes) -> bool:
        new = key not in self.objects
        try:
            return super().create(key, data)
        finally:
            if new and self.objects.get(key) == data:
                record = parse_record(data, key)
                assert not isinstance(record, Damage)
                self.written.append((key, record))


@dataclass
class Pod:
    """One trainer, as far as the log goes."""

    log: RunLog
    step: int
    crashed: bool = False


class RunMachine(RuleBasedStateMachine):
    """Every pod keeps its own view of the log, and may be arbitrarily stale."""

    pods = Bundle("pods")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.taken: list[int] = []
        self.spoiled: set[str] = set()
        """Prefixes of checkpoints whose files a hand damaged."""
        self.damaged: set[str] = set()
        """Keys of records that a hand damaged."""

    # -- what pods do

    def _start(self, epochs: int) -> Iterator[Pod]:
        """A pod takes the run, tidies up and goes on from the newest whole checkpoint, if it may."""
        log = RunLog(self.store, PLACE)
        try:
            log.start(plan_of(epochs), now="t", job_uid="", pod_uid="", check=lambda _: None)
        except RunConflict:  # fewer epochs than the run has begun
            return
        self.taken.append(log.attempt)
        self.store.delete(leftovers(self.store.list_keys("attempts/"), log.state, log.attempt))
        whole = [c.step for c in log.state.checkpoints if c.prefix not in self.spoiled]
        had = bool(log.state.checkpointed_attempts)
        with mock.patch.object(resume, "fetch", self._fetch):
            try:
                found = resume.find_newest(log, self.store, Path())  # type: ignore[arg-type]
            except RunConflict:
                assert had
                assert not whole, "I6: one is whole, and it isn't found"
                return
            except Fenced:
                return
        step = found.record.step if found else 0
        assert step == max(whole, default=0), "I6: it goes on behind the newest whole checkpoint"
        state: Any = SimpleNamespace(
            best=None, recipe=SimpleNamespace(epochs=epochs), position=SimpleNamespace(step=step)
        )
        try:
            resume.mend(log, state)
        except Fenced:
            return
        measured = [c.accuracy for c in log.state.checkpoints if c.accuracy is not None]
        best = log.state.best.accuracy if log.state.best else None
        assert best == max(measured, default=None), "I5: the best is lost"
        assert log.state.epochs == epochs
        yield Pod(log, step)

    def _fetch(self, record: CheckpointRecord, *_: object) -> str:
        for file in record.files:
            if self.store.sha256(f"{record.prefix}/{file.name}") != file.sha256:
                raise Corrupt(f"{file.name} differs.")
        return "a snapshot"

    @rule(target=pods, fault=FAULTS, beaten=st.booleans(), epochs=st.integers(1, 4))
    def start(self, fault: str, beaten: bool, epochs: int) -> object:
        """Another pod may be quicker between its look and its put."""
        others: list[Pod] = []
        if beaten:
            self.store.before_create = lambda: others.extend(self._start(epochs))
        self.store.fault = "" if beaten else fault
        mine: list[Pod] = []
        with contextlib.suppress(SimulatedCrash, StoreUnavailable):
            mine.extend(self._start(epochs))
        self.store.fault, self.store.before_create = "", None
        return multiple(*others, *mine)

    def _append(self, pod: Pod, record: Record, fault: str = "", raced: bool = False) -> bool:
        """Whether it got there. What was left unanswered is tried again, as the committer does."""
        if raced:
            self.store.before_create = lambda: list(self._start(4)).clear()
        self.store.fault = "" if raced else fault
        try:
            try:
                pod.log.append(record)
            except StoreUnavailable:
                pod.log.append(record)
        except (SimulatedCrash, Fenced) as e:
            pod.crashed = pod.crashed or isinstance(e, SimulatedCrash)
            return False
        finally:
            self.store.fault, self.store.before_create = "", None
        return True

    @rule(
        pod=pods,
        steps=st.integers(1, 3),
        accuracy=st.none() | st.floats(0, 1),
        fault=FAULTS,
        raced=st.booleans(),
        uploads=st.none() | st.integers(0, 1),
    )
    def commit(
        self, pod: Pod, steps: int, accuracy: float | None, fault: str, raced: bool, uploads: int | None
    ) -> None:
        """Train on, upload two files, append the record; crash anywhere. A pod that crashed is gone, but
        its bundle entry may act once more: that is a pod that only seemed to be."""
        pod.step += steps
        back = sum(r.attempt == pod.log.attempt for r in pod.log.state.rollbacks)
        prefix = checkpoint_prefix(pod.log.attempt, pod.step, back)
        content = {n: f"{n} {pod.log.attempt} {pod.step}".encode() for n in ("params", "state")}
        files = [
            StoredFile(name=n, size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in content.items()
        ]
        record = CheckpointRecord(
            attempt=pod.log.attempt,
            time="t",
            prefix=prefix,
            step=pod.step,
            epoch=min(pod.step // STEPS_PER_EPOCH + 1, pod.log.state.epochs),
            files=files,
            accuracy=accuracy,
        )
        self.store.crash_after_uploads = uploads
        try:
            for name, data in content.items():
                self.store.put(f"{prefix}/{name}", data)  # I4: it refuses to write twice
        except SimulatedCrash:
            return
        finally:
            self.store.crash_after_uploads = None
        self._append(pod, record, fault, raced)

    @rule(pod=pods, fault=FAULTS)
    def name_best(self, pod: Pod, fault: str) -> None:
        """If the newest checkpoint is the best one."""
        newest, best = pod.log.state.newest_first(), pod.log.state.best
        accuracy = newest[0].accuracy if newest else None
        if accuracy is None or (best and best.accuracy >= accuracy):
            return
        record = BestRecord(
            attempt=pod.log.attempt,
            time="t",
            accuracy=accuracy,
            step=newest[0].step,
            epoch=newest[0].epoch,
            prefix=newest[0].prefix,
        )
        self._append(pod, record, fault)

    @rule(pod=pods, keep=st.integers(1, 3), fault=FAULTS, delete=st.booleans())
    def retire(self, pod: Pod, keep: int, fault: str, delete: bool) -> None:
        """Record, then delete; it may crash between the two."""
        state = pod.log.state
        prefixes = state.to_retire(keep)
        if not prefixes:
            return
        assert not {c.prefix for c in state.newest_first()[:2]} & set(prefixes), "I7: two are kept"
        assert state.best is None or state.best.prefix not in prefixes, "I5: and the best"
        record = RetireRecord(attempt=pod.log.attempt, time="t", prefixes=prefixes)
        if self._append(pod, record, fault) and delete:
            for prefix in prefixes:
                self.store.delete(self.store.list_keys(f"{prefix}/"))

    @rule(pod=pods, more=st.integers(1, 2), fault=FAULTS)
    def change_plan(self, pod: Pod, more: int, fault: str) -> None:
        if pod.crashed:  # it may have had an answer that this view knows nothing of
            return
        was = pod.log.state.epochs
        record = PlanChange(attempt=pod.log.attempt, time="t", was=was, epochs=was + more, step=pod.step)
        self._append(pod, record, fault)

    @rule(pod=pods, fault=FAULTS)
    def roll_back(self, pod: Pod, fault: str) -> None:
        """It comes to the same steps again: I4 must hold for them, too."""
        self.store.fault = fault
        try:
            with mock.patch.object(resume, "fetch", self._fetch):
                wrong = Diverged("NaN.", pod.step)
                gone = go_back(pod.log, cast(Any, self.store), Path(), plan_of(4), wrong, [])
        except (SimulatedCrash, StoreUnavailable, Fenced, Diverged, RunConflict) as e:
            pod.crashed = pod.crashed or isinstance(e, SimulatedCrash | StoreUnavailable)
            return
        finally:
            self.store.fault = ""
        whole = [c.step for c in pod.log.state.checkpoints if c.prefix not in self.spoiled]
        pod.step = gone.record.to_step
        assert pod.step == max(whole, default=0), "I6: to the newest that is whole"

    @rule(pod=consumes(pods), told=st.booleans())
    def leave(self, pod: Pod, told: bool) -> None:
        """Ended in good order, or killed."""
        if told:
            record = AttemptEnd(
                attempt=pod.log.attempt, time="t", reason="Interrupted", step=pod.step, reached_training=True
            )
            self._append(pod, record)

    # -- what hands do

    @precondition(lambda self: len(self._keys()) > 1)
    @rule(data=st.data(), edit=st.none() | EDITS)
    def damage_a_record(self, data: st.DataObject, edit: bytes | None) -> None:
        """Delete one that isn't the last (that can't be seen), or put other bytes in its place; one
        attempt-start stays readable (else it is nobody's place)."""
        keys = self._keys()
        key = data.draw(st.sampled_from(keys[:-1] if edit is None else keys))
        starts = [k for k, r in self._records() if isinstance(r, AttemptStart) and k != key]
        if not starts:
            return
        self.damaged.add(key)
        if edit is None:
            del self.store.objects[key]
        else:
            self.store.objects[key] = edit

    @precondition(lambda self: self._fold().checkpoints)
    @rule(data=st.data(), name=st.sampled_from(["params", "state"]), edit=st.none() | st.just(b"other"))
    def damage_a_file(self, data: st.DataObject, name: str, edit: bytes | None) -> None:
        prefix = data.draw(st.sampled_from(self._fold().checkpoints)).prefix
        self.spoiled.add(prefix)
        self.store.delete([f"{prefix}/{name}"])
        if edit is not None:
            self.store.objects[f"{prefix}/{name}"] = edit

    # -- what stays true

    def _keys(self) -> list[str]:
        return list(self.store.list_keys(LOG_PREFIX))

    def _records(self) -> list[tuple[str, Record]]:
        """Those that can be read, as a new reader sees them."""
        entries = ((record_key(n), e) for n, e in enumerate(read_records(self.store), 1))
        return [(key, entry) for key, entry in entries if not isinstance(entry, Damage)]

    def _fold(self) -> RunState:
        state = RunState()
        for entry in read_records(self.store):
            state.apply(entry)
        return state

    @invariant()
    def i1_one_writer(self) -> None:
        newest = 0
        for _, record in self._records():
            assert record.attempt >= newest, "a fenced pod has written"
            newest = record.attempt

    @invariant()
    def i2_attempts_are_unique_and_increase(self) -> None:
        started = [r.attempt for _, r in self.store.written if isinstance(r, AttemptStart)]
        assert started == sorted(set(started))
        assert len(set(self.taken)) == len(self.taken)
        if not self.damaged:
            assert started == list(range(1, len(started) + 1))

    @invariant()
    def i3_what_is_recorded_is_whole(self) -> None:
        for record in self._fold().checkpoints:
            if record.prefix in self.spoiled or self._retired(record.prefix):
                continue
            for file in record.files:
                assert self.store.sha256(f"{record.prefix}/{file.name}") == file.sha256

    @invariant()
    def i4_a_checkpoint_is_committed_once(self) -> None:
        prefixes = [r.prefix for _, r in self.store.written if isinstance(r, CheckpointRecord)]
        assert len(set(prefixes)) == len(prefixes)

    @invariant()
    def i5_the_best_is_kept(self) -> None:
        state = self._fold()
        kept = {c.prefix for c in state.checkpoints}
        named = [r for _, r in self._records() if isinstance(r, BestRecord) and r.prefix in kept]
        if state.best is None:
            # A best whose checkpoint's record is lost names nothing.
            assert not named
        else:
            assert state.best.prefix in kept
            assert state.best.accuracy == max(r.accuracy for r in named)

    @invariant()
    def i8_epochs_never_fall_behind(self) -> None:
        """I8; a change says what held before, unless the record that said so is lost."""
        state = RunState()
        for entry in read_records(self.store):
            newest = state.newest_first()
            if isinstance(entry, AttemptStart | PlanChange):
                assert not newest or entry.epochs >= newest[0].epoch
            if isinstance(entry, PlanChange):
                assert state.damaged or entry.was == state.epochs
            state.apply(entry)

    @invariant()
    def i10_rollbacks_are_bounded(self) -> None:
        """I10; a record that is lost isn't counted."""
        state = RunState()
        for entry in read_records(self.store):
            if isinstance(entry, RollbackRecord):
                assert len(state.rollbacks) < MOST
                assert state.damaged or entry.factor == state.learning_rate_factor / 2
            state.apply(entry)

    @invariant()
    def i9_damage_loses_what_the_record_said(self) -> None:
        readable = self._records()
        assert readable == [(k, r) for k, r in self.store.written if k not in self.damaged]
        assert {d.key for d in self._fold().damaged} == self.damaged
        for key, record in self.store.written:
            lost = key in self.damaged and isinstance(record, CheckpointRecord)
            if lost and record.prefix not in self.spoiled and not self._retired(record.prefix):
                assert self.store.list_keys(f"{record.prefix}/"), "files of a lost record were tidied away"

    def _retired(self, prefix: str) -> bool:
        """In any record that was ever written."""
        return any(isinstance(r, RetireRecord) and prefix in r.prefixes for _, r in self.store.written)


RunMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestRunMachine = RunMachine.TestCase
