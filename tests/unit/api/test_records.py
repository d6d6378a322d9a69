"""The log of a run: what follows from its records, and who may append to it."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from rectrain_api.errors import Fenced, InternalError, RunConflict
from rectrain_api.plan import RunPlan
from rectrain_api.records import (
    AttemptEnd,
    AttemptStart,
    BestRecord,
    CheckpointRecord,
    Damage,
    FinalRecord,
    RetireRecord,
    StoredFile,
    attempt_prefix,
    checkpoint_prefix,
    parse_record,
    record_key,
)
from rectrain_api.run_log import RunLog, check_plan, describe_difference
from rectrain_api.run_state import RunState
from tests.support.memory_store import MemoryStore, SimulatedCrash
from tests.support.plans import make_plan

PLACE = "s3://bucket/run"
FEWER = r"s3://bucket/run is already at epoch 3, and 2 are asked for: .*training.epochs .*checkpoint.uri"


def start(log: RunLog, plan: RunPlan | None = None, **kwargs: Any) -> int:
    return log.start(plan or make_plan(), now="t", job_uid="", pod_uid="", check=lambda _: None, **kwargs)


def checkpoint(attempt: int, step: int) -> CheckpointRecord:
    prefix = checkpoint_prefix(attempt, step)
    return CheckpointRecord(attempt=attempt, time="t", prefix=prefix, step=step, epoch=1, files=[])


def state_of(*records: Any) -> RunState:
    state = RunState()
    for record in records:
        state.apply(record)
    return state


def started(attempt: int, plan: RunPlan | None = None) -> AttemptStart:
    plan = plan or make_plan()
    return AttemptStart(
        attempt=attempt,
        time="t",
        identity=plan.identity,
        plan_hash=plan.plan_hash(),
        plan=plan.hashed_part(),
        epochs=plan.training.epochs,
    )


def test_attempts_are_numbered_from_one() -> None:
    store = MemoryStore()
    assert [start(RunLog(store, PLACE)) for _ in range(3)] == [1, 2, 3]


def test_an_older_pod_is_fenced_by_a_newer_one() -> None:
    store = MemoryStore()
    old, new = RunLog(store, PLACE), RunLog(store, PLACE)
    start(old)
    start(new)
    with pytest.raises(Fenced, match="attempt 2 has taken over"):
        old.append(checkpoint(1, 5))
    assert old.state.checkpoints == []


def test_a_lost_reply_is_recognised_by_its_nonce() -> None:
    store = MemoryStore()
    log = RunLog(store, PLACE)
    store.fault = "lost"
    assert start(log) == 1
    store.fault = "lost"
    log.append(checkpoint(1, 5))
    assert len(store.list_keys("log/")) == 2
    assert [c.step for c in log.state.checkpoints] == [5]


def test_two_pods_that_start_at_once_get_two_numbers() -> None:
    store = MemoryStore()
    first, second = RunLog(store, PLACE), RunLog(store, PLACE)
    store.before_create = lambda: start(second)
    assert start(first) == 2
    assert second.attempt == 1


def test_a_crash_after_the_put_leaves_a_record_that_counts() -> None:
    store = MemoryStore()
    log = RunLog(store, PLACE)
    start(log)
    store.fault = "after"
    with pytest.raises(SimulatedCrash):
        log.append(checkpoint(1, 5))
    again = RunLog(store, PLACE)
    start(again)
    assert [c.step for c in again.state.checkpoints] == [5]


def test_a_key_that_exists_and_cannot_be_read_is_no_endless_loop() -> None:
    class Inconsistent(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            return False

    with pytest.raises(InternalError, match="isn't consistent"):
        start(RunLog(Inconsistent(), PLACE))


def test_something_else_in_the_log_is_refused() -> None:
    store = MemoryStore()
    store.objects[record_key(1)] = b'{"kind":"from-the-future"}'
    with pytest.raises(RunConflict, match=r"log/00000001.json .* checkpoint\.uri of its own"):
        RunLog(store, PLACE).read()


def put(store: MemoryStore, number: int, record: Any) -> None:
    store.objects[record_key(number)] = record.model_dump_json(by_alias=True, exclude_none=True).encode()


DAMAGES = [
    pytest.param(None, "is missing", id="missing"),
    pytest.param(b"", r"can't be read \(Invalid JSON", id="empty"),
    pytest.param(b'{"kind":"checkpoint","pref', r"can't be read \(Invalid JSON", id="truncated"),
    pytest.param(b"\x00\xff", r"can't be read \(Invalid JSON", id="other-bytes"),
    pytest.param(b"{}", "can't be read", id="no-kind"),
    pytest.param(
        b'{"kind":"checkpoint","attempt":"x","time":"t"}', r"can't be read \(attempt: ", id="edited"
    ),
]


class TestDamage:
    """What a damaged record said is lost, nothing else."""

    def log(self, data: bytes | None) -> MemoryStore:
        """Attempts 1 and 2 with checkpoints; record 3, the checkpoint of step 10, is damaged."""
        store = MemoryStore()
        records = [started(1), checkpoint(1, 5), checkpoint(1, 10), started(2), checkpoint(2, 15)]
        for number, record in enumerate(records, 1):
            put(store, number, record)
        if data is None:
            del store.objects[record_key(3)]
        else:
            store.objects[record_key(3)] = data
        return store

    @pytest.mark.parametrize(("data", "problem"), DAMAGES)
    def test_a_damaged_record_is_named_and_passed_over(self, data: bytes | None, problem: str) -> None:
        store = self.log(data)
        log = RunLog(store, PLACE)
        assert start(log) == 3
        assert [c.step for c in log.state.checkpoints] == [5, 15]
        [damage] = log.state.damaged
        assert damage.key == record_key(3)
        assert re.match(problem, damage.problem)
        assert record_key(6) in store.objects, "the log goes on after the highest number"

    def test_one_that_a_newer_version_may_have_written_is_refused(self) -> None:
        for data in (b'{"kind":"from-the-future"}', b'{"kind":"attempt-end","attempt":1,"x":1}'):
            with pytest.raises(
                RunConflict, match=r"log/00000003.json .*isn't a record of RecTrain that this"
            ):
                RunLog(self.log(data), PLACE).read()

    def test_a_log_without_one_readable_start_is_no_run_of_ours(self) -> None:
        store = MemoryStore()
        put(store, 2, checkpoint(1, 5))
        with pytest.raises(RunConflict, match=r"no attempt-start .*00000001.json is missing.* of its own"):
            RunLog(store, PLACE).read()

    def test_a_record_far_beyond_the_log_is_no_hole(self) -> None:
        store = self.log(b"")
        put(store, 90_000_000, checkpoint(1, 5))
        with pytest.raises(RunConflict, match=r"log/90000000.json .* far beyond .*log/00000005.json"):
            RunLog(store, PLACE).read()

    def test_other_files_beside_the_log_are_nothing(self) -> None:
        store = self.log(b"")
        for key in ("log/00000000.json", "log/00000007.json.bak", "log/notes.txt"):
            store.objects[key] = b"mine"
        assert RunLog(store, PLACE).read().records == 5

    def test_an_attempt_whose_start_is_lost_keeps_its_number(self) -> None:
        store = MemoryStore()
        for number, record in enumerate([started(1), started(2), checkpoint(2, 5)], 1):
            put(store, number, record)
        del store.objects[record_key(2)]
        assert start(RunLog(store, PLACE)) == 3

    def test_a_start_that_may_be_lost_takes_a_number_all_the_same(self) -> None:
        store = MemoryStore()
        for number, record in enumerate([started(1), checkpoint(1, 5), started(2)], 1):
            put(store, number, record)
        store.objects[record_key(3)] = b"{"
        assert start(RunLog(store, PLACE)) == 3
        assert start(RunLog(store, PLACE)) == 4, "one number is skipped, once"

    def test_a_stale_pod_writes_into_no_hole(self) -> None:
        """Else it would never meet the start that fences it."""
        store = MemoryStore()
        old, new = RunLog(store, PLACE), RunLog(store, PLACE)
        start(old)
        start(new)
        new.append(checkpoint(2, 5))
        del store.objects[record_key(2)]
        with pytest.raises(Fenced, match="attempt 2 has taken over"):
            old.append(checkpoint(1, 5))
        assert record_key(2) not in store.objects

    def test_a_record_after_ours_that_cannot_be_read_fences_all_the_same(self) -> None:
        """It may be the start of a newer attempt, which isn't there twice."""
        for raced in (True, False):
            store = MemoryStore()
            log = RunLog(store, PLACE)
            start(log)
            damage = functools.partial(store.objects.__setitem__, record_key(2), b"{")
            if raced:
                store.before_create = damage
            else:
                damage()
            with pytest.raises(Fenced, match=r"another attempt may have .*00000002.json can't be read"):
                log.append(checkpoint(1, 5))
            assert start(RunLog(store, PLACE)) == 3

    def test_a_record_that_a_list_lags_behind_is_no_hole(self) -> None:
        class Lagging(MemoryStore):
            def list_keys(self, prefix: str, after: str = "") -> list[str]:
                return [key for key in super().list_keys(prefix, after) if key != record_key(2)]

        store = Lagging()
        for number, record in enumerate([started(1), checkpoint(1, 5), end(1)], 1):
            put(store, number, record)
        state = RunLog(store, PLACE).read()
        assert ([c.step for c in state.checkpoints], state.damaged) == ([5], [])

    def test_a_best_whose_checkpoint_is_lost_makes_room(self) -> None:
        """A record without weights must keep no later best away."""
        best = BestRecord(attempt=1, time="t", accuracy=0.9, step=5, epoch=1, prefix=checkpoint_prefix(1, 5))
        assert state_of(started(1), Damage(record_key(2), "is missing"), best).best is None


def test_an_append_whose_answer_got_lost_for_good_may_be_made_again() -> None:
    store = MemoryStore()
    log = RunLog(store, PLACE)
    start(log)
    record = checkpoint(1, 5)
    put(store, 2, record)
    log.append(record)
    assert len(store.list_keys("log/")) == 2
    assert [c.step for c in log.state.checkpoints] == [5]


def test_records_read_back_what_they_wrote() -> None:
    file = StoredFile(name="a", size=3, sha256="00")
    record = checkpoint(3, 7).model_copy(update={"files": [file], "accuracy": 0.5})
    data = record.model_dump_json(by_alias=True, exclude_none=True).encode()
    assert parse_record(data, "k") == record
    assert json.loads(data)["kind"] == "checkpoint"


class TestPlan:
    def test_another_run_is_named(self) -> None:
        other = make_plan(name="other")
        with pytest.raises(RunConflict, match="belongs to the run default/other, not to default/digits"):
            check_plan(state_of(started(1, other)), make_plan(), PLACE)

    def test_the_difference_is_named(self) -> None:
        with pytest.raises(RunConflict, match=r"training.batchSize: 16 → 32"):
            check_plan(state_of(started(1)), make_plan(batch_size=32), PLACE)

    @pytest.mark.parametrize("change", [{"epochs": 9}, {"workers": 3}, {"interval": 77}])
    def test_what_may_differ(self, change: dict[str, Any]) -> None:
        check_plan(state_of(started(1)), make_plan(**change), PLACE)

    def test_resume_never_wants_an_empty_place(self) -> None:
        plan = make_plan(resume="Never")
        check_plan(RunState(), plan, PLACE)
        with pytest.raises(RunConflict, match="resume is Never"):
            check_plan(state_of(started(1)), plan, PLACE)

    @pytest.mark.parametrize("resume", ["Auto", "Never"])
    def test_fewer_epochs_than_the_place_has_begun(self, resume: str) -> None:
        at_three = checkpoint(1, 8).model_copy(update={"epoch": 3})
        check_plan(state_of(started(1), at_three), make_plan(epochs=3), PLACE)
        with pytest.raises(RunConflict, match="resume is Never" if resume == "Never" else FEWER):
            check_plan(state_of(started(1), at_three), make_plan(epochs=2, resume=resume), PLACE)

    def test_fewer_epochs_than_a_finished_run_has(self) -> None:
        at_three = checkpoint(1, 8).model_copy(update={"epoch": 3})
        final = FinalRecord(attempt=1, time="t", epochs=3, step=9, export_prefix="e", export_files=[])
        check_plan(state_of(started(1), at_three, final), make_plan(epochs=2), PLACE)

    def test_a_difference_of_form(self) -> None:
        assert describe_difference({"a": 1}, {"a": 1}) == "its form changed"
        assert describe_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b: 1 → 2"


class TestRetention:
    def test_the_last_and_the_best_are_kept(self) -> None:
        best = BestRecord(
            attempt=1, time="t", accuracy=0.9, step=10, epoch=1, prefix=checkpoint_prefix(1, 10)
        )
        state = state_of(*(checkpoint(1, s) for s in (5, 10, 15, 20, 25)), best)
        assert state.to_retire(2) == [checkpoint_prefix(1, 5), checkpoint_prefix(1, 15)]

    def test_at_least_two_are_kept(self) -> None:
        state = state_of(*(checkpoint(1, s) for s in (5, 10, 15)))
        assert state.to_retire(1) == [checkpoint_prefix(1, 5)]

    def test_a_retired_checkpoint_is_no_place_to_resume(self) -> None:
        gone = RetireRecord(attempt=1, time="t", prefixes=[checkpoint_prefix(1, 10)])
        state = state_of(checkpoint(1, 5), checkpoint(1, 10), gone)
        assert [c.step for c in state.newest_first()] == [5]

    def test_a_damaged_best_makes_room_for_a_worse_one(self) -> None:
        def best(accuracy: float, step: int) -> BestRecord:
            return BestRecord(
                attempt=1,
                time="t",
                accuracy=accuracy,
                step=step,
                epoch=1,
                prefix=checkpoint_prefix(1, step),
            )

        gone = RetireRecord(attempt=1, time="t", prefixes=[checkpoint_prefix(1, 10)])
        state = state_of(checkpoint(1, 10), best(0.9, 10), gone)
        assert state.best is None
        state.apply(checkpoint(1, 20))
        state.apply(best(0.5, 20))
        assert state.best is not None
        assert state.best.step == 20

    def test_the_second_best_is_the_best_when_that_is_damaged(self) -> None:
        def best(accuracy: float, step: int) -> BestRecord:
            prefix = checkpoint_prefix(1, step)
            return BestRecord(attempt=1, time="t", accuracy=accuracy, step=step, epoch=1, prefix=prefix)

        gone = RetireRecord(attempt=1, time="t", prefixes=[checkpoint_prefix(1, 10)])
        state = state_of(checkpoint(1, 5), best(0.7, 5), checkpoint(1, 10), best(0.9, 10), gone)
        assert state.best is not None
        assert state.best.step == 5

    def test_a_worse_best_changes_nothing(self) -> None:
        prefixes = checkpoint_prefix(1, 5), checkpoint_prefix(1, 10)
        good = BestRecord(attempt=1, time="t", accuracy=0.9, step=5, epoch=1, prefix=prefixes[0])
        bad = good.model_copy(update={"accuracy": 0.1, "prefix": prefixes[1]})
        assert state_of(checkpoint(1, 5), good, checkpoint(1, 10), bad).best == good


def end(attempt: int, reason: str = "InternalError", *, reached: bool = True) -> AttemptEnd:
    return AttemptEnd(attempt=attempt, time="t", reason=reason, step=0, reached_training=reached)


@pytest.mark.parametrize(
    ("records", "reached", "expected"),
    [
        pytest.param([], {}, 0, id="empty"),
        pytest.param([started(1), end(1), started(2), end(2)], {}, 2, id="two-that-crashed"),
        pytest.param([started(1), started(2)], {1, 2}, 2, id="two-that-were-killed-in-training"),
        pytest.param([started(1), started(2)], {2}, 1, id="one-killed-before-the-first-step"),
        pytest.param([started(1), end(1, reached=False)], {}, 0, id="never-reached-training"),
        pytest.param([started(1), end(1, "Interrupted")], {1}, 0, id="told-to-stop"),
        pytest.param([started(1), end(1, "Fenced")], {1}, 0, id="fenced"),
        pytest.param([started(1), end(1, "PeerLost")], {1}, 0, id="lost-another-pod"),
        pytest.param(
            [started(1), end(1), started(2), checkpoint(2, 5), started(3), end(3)],
            {},
            1,
            id="a-checkpoint-breaks-the-row",
        ),
        pytest.param(
            [
                started(1),
                checkpoint(1, 5),
                RetireRecord(attempt=1, time="t", prefixes=[checkpoint_prefix(1, 5)]),
            ],
            {1},
            0,
            id="a-retired-checkpoint-still-breaks-it",
        ),
    ],
)
def test_unproductive_attempts(records: list[Any], reached: set[int], expected: int) -> None:
    ask: Callable[[int], bool] = lambda attempt: attempt in reached  # noqa: E731
    assert state_of(*records).unproductive_attempts("", ask) == expected


@pytest.mark.parametrize(
    ("uids", "mine", "expected"),
    [
        pytest.param(["a", "a", "a"], "a", 3, id="all-of-this-job"),
        pytest.param(["a", "a", "a"], "b", 0, id="a-new-job-at-the-same-place"),
        pytest.param(["a", "a", "b"], "b", 1, id="and-its-next-pod"),
        pytest.param(["a", "b", "a"], "a", 2, id="another-jobs-pod-between"),
        pytest.param(["a", "a"], "", 0, id="a-laptop-after-a-job"),
        pytest.param(["", "", "a", ""], "", 1, id="a-laptop-counts-its-own-row"),
    ],
)
def test_unproductive_attempts_of_another_job_do_not_count(uids: list[str], mine: str, expected: int) -> None:
    records = [started(n).model_copy(update={"job_uid": uid}) for n, uid in enumerate(uids, 1)]
    assert state_of(*records).unproductive_attempts(mine, lambda _: True) == expected


def test_prefixes_hold_attempt_and_step() -> None:
    assert checkpoint_prefix(2, 375) == "attempts/0002/step-000375"
    assert checkpoint_prefix(2, 375).startswith(attempt_prefix(2))
    assert record_key(1) == "log/00000001.json"
