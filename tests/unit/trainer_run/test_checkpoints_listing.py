"""What `checkpoints` makes of a log: attempts, checkpoints, what verify concludes, what pull chooses."""

from typing import Any

import pytest

from rectrain_api.errors import InputMissing, RectrainError, RunConflict, UsageError
from rectrain_api.records import (
    AttemptEnd,
    BestRecord,
    CheckpointRecord,
    FinalRecord,
    PlanChange,
    RetireRecord,
    RollbackRecord,
    StoredFile,
    checkpoint_prefix,
    record_key,
)
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Corrupt, ObjectInfo, sha256_bytes
from rectrain_trainer.checkpoints import verify
from rectrain_trainer.checkpoints.listing import Listing, listing_of, read_run
from rectrain_trainer.checkpoints.pull import choose
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_plan

PLACE = "s3://memory/run"


class Store(MemoryStore):
    """With what `verify` asks for."""

    uri = PLACE
    changed = False

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), "tag")

    def request_part(self, key: str, start: int, end: int, e_tag: str | None) -> bytes:
        assert e_tag == "tag", "all parts are of one version"
        if self.changed:
            raise Corrupt(f"{key} was changed while it was read: read it again.")
        return self.objects[key][start:end]


class Run:
    """A run being made."""

    def __init__(self) -> None:
        self.store: Any = Store()
        self.log = RunLog(self.store, PLACE)

    def start(self, epochs: int = 2) -> "Run":
        self.log = RunLog(self.store, PLACE)
        number = len(self.log.read().starts) + 1
        self.log.start(
            make_plan(epochs=epochs), now=f"start {number}", job_uid="", pod_uid="", check=lambda _: None
        )
        return self

    def commit(self, *steps: int) -> "Run":
        for step in steps:
            prefix = checkpoint_prefix(self.log.attempt, step)
            files = []
            for name in ("model.pdparams", "state.json"):
                data = f"{name} of {prefix}".encode()
                self.store.objects[f"{prefix}/{name}"] = data
                files.append(StoredFile(name=name, size=len(data), sha256=sha256_bytes(data)))
            self.log.append(
                CheckpointRecord(
                    attempt=self.log.attempt, time="t", prefix=prefix, step=step, epoch=1, files=files
                )
            )
        return self

    def best(self, step: int, accuracy: float) -> "Run":
        prefix = checkpoint_prefix(self.log.attempt, step)
        self.log.append(
            BestRecord(
                attempt=self.log.attempt, time="t", accuracy=accuracy, step=step, epoch=1, prefix=prefix
            )
        )
        return self

    def add(self, record: Any, **fields: Any) -> "Run":
        self.log.append(record(attempt=self.log.attempt, time="t", **fields))
        return self

    def end(self, reason: str) -> "Run":
        return self.add(AttemptEnd, reason=reason, step=1, reached_training=True)

    def final(self, epochs: int = 2) -> "Run":
        return self.add(FinalRecord, epochs=epochs, step=6, export_prefix="e", export_files=[])

    def listing(self, *reached: int) -> Listing:
        return listing_of(PLACE, *read_run(self.store), reached_training=lambda attempt: attempt in reached)


def test_attempts_say_how_they_ended() -> None:
    run = Run().start().commit(2, 4).end("Interrupted").start().start().commit(6)
    rows = [
        (r.attempt, r.started, r.end, r.reached_training, r.first_checkpoint, r.last_checkpoint)
        for r in run.listing(2).attempts
    ]
    assert rows == [
        (1, "start 1", "Interrupted", True, 2, 4),
        (2, "start 2", "Killed", True, None, None),
        (3, "start 3", "RunningOrKilled", True, 6, 6),
    ]
    assert not run.listing().attempts[1].reached_training


def test_an_attempt_whose_start_is_lost_is_listed() -> None:
    run = Run().start().start().commit(2)
    del run.store.objects[record_key(2)]
    assert [(r.attempt, r.started) for r in run.listing().attempts] == [(1, "start 1"), (2, None)]


@pytest.mark.parametrize(
    ("run", "state"),
    [
        (Run().start(), "RunningOrKilled"),
        (Run().start().end("Interrupted"), "Interrupted"),
        (Run().start().end("Diverged"), "Diverged"),
        (Run().start().final(), "Finished"),
        (Run().start().final().end("Completed"), "Finished"),
        (Run().start().final().start(epochs=3), "RunningOrKilled"),
    ],
)
def test_the_state_of_a_run(run: Run, state: str) -> None:
    assert run.listing().state == state


def test_checkpoints_that_are_kept_are_listed_with_their_marks() -> None:
    run = Run().start().commit(2, 4, 6).best(4, 0.5).add(RetireRecord, prefixes=[checkpoint_prefix(1, 2)])
    rows = [(c.step, c.best, c.newest) for c in run.listing().checkpoints]
    assert rows == [(4, True, False), (6, False, True)]
    assert run.listing().checkpoints[0].uri == f"{PLACE}/attempts/0001/step-000004"


def test_changes_of_the_plan_are_listed() -> None:
    document = Run().start().add(PlanChange, was=2, epochs=5, step=3).listing()
    assert [(c.was, c.epochs, c.step) for c in document.plan_changes] == [(2, 5, 3)]
    assert document.epochs == 5


def test_rollbacks_are_listed() -> None:
    run = Run().start().commit(2).add(RollbackRecord, step=4, to_step=2, factor=0.5)
    assert [(r.attempt, r.step, r.to_step, r.factor) for r in run.listing().rollbacks] == [(1, 4, 2, 0.5)]


def test_a_log_of_somebody_else_is_refused() -> None:
    store: Any = Store()
    store.objects["log/00000001.json"] = b"{}"
    with pytest.raises(RunConflict, match="isn't a run of RecTrain"):
        read_run(store)


def verified(run: Run) -> verify.Verification:
    _, state = read_run(run.store)
    return verify.verify(run.store, state, verify.items_of(state), lambda _: None)


class TestVerify:
    def test_whole(self) -> None:
        found = verified(Run().start().commit(2, 4))
        assert (found.whole, found.files, found.resumes_from) == (True, 4, 4)

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (None, "is missing"),
            (b"", "has 0 bytes instead of"),
            (b"state.json of attempts/0001/step-000005", "doesn't match its sha256"),
        ],
    )
    def test_damage(self, data: bytes | None, problem: str) -> None:
        run = Run().start().commit(2, 4)
        key = f"{checkpoint_prefix(1, 4)}/state.json"
        run.store.objects.pop(key)
        if data is not None:
            run.store.objects[key] = data
        found = verified(run)
        [row] = found.problems
        assert (row.checkpoint, row.file) == (4, f"{PLACE}/{key}")
        assert row.problem.startswith(problem)
        assert (found.whole, found.resumes_from) == (False, 2)

    def test_a_file_that_changes_under_the_reader(self) -> None:
        run = Run().start().commit(2)
        run.store.changed = True
        assert {p.problem for p in verified(run).problems} == {"was changed while it was read"}

    def test_large_files_come_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(verify, "PART_BYTES", 7)
        assert verified(Run().start().commit(2)).whole

    def test_what_is_retired_meanwhile_is_not_missed(self) -> None:
        run = Run().start().commit(2, 4)
        _, state = read_run(run.store)
        prefix = checkpoint_prefix(1, 2)
        run.add(RetireRecord, prefixes=[prefix])
        run.store.delete(run.store.list_keys(f"{prefix}/"))
        found = verify.verify(run.store, state, verify.items_of(state), lambda _: None)
        assert (found.whole, found.files) == (True, 2)

    def test_where_a_run_would_go_on(self) -> None:
        empty = Run().start()
        assert verify.resumption(empty.log.read(), set())[0] == 0
        some = empty.commit(2, 4).log.read()
        prefixes = {checkpoint_prefix(1, step) for step in (2, 4)}
        assert verify.resumption(some, prefixes) == (
            None,
            "A resumed run would refuse to go on: none of its checkpoints is whole.",
        )
        assert verify.resumption(empty.final().log.read(), set())[0] is None


@pytest.mark.parametrize(("which", "step"), [(None, 2), ("best", 2), ("latest", 6), ("4", 4), ("000004", 4)])
def test_which_one_is_pulled(which: str | None, step: int) -> None:
    state = Run().start().commit(2, 4, 6).best(2, 0.5).log.state
    assert choose(state, which, PLACE).step == step


def test_without_a_best_the_latest_is_pulled() -> None:
    assert choose(Run().start().commit(2, 4).log.state, None, PLACE).step == 4


@pytest.mark.parametrize(
    ("run", "which", "error", "said"),
    [
        (Run().start(), None, InputMissing, "has no checkpoint yet"),
        (Run().start().commit(2), "best", InputMissing, "no best checkpoint yet: ask for latest"),
        (Run().start().commit(2, 4), "3", InputMissing, "no checkpoint of step 3; it has 2, 4"),
        (Run().start().commit(2), "newest", UsageError, "'newest' isn't one: name best, latest or a step"),
        (Run().start().commit(2), "²", UsageError, "isn't one"),
    ],
)
def test_what_cannot_be_pulled(run: Run, which: str, error: type[RectrainError], said: str) -> None:
    with pytest.raises(error, match=said):
        choose(run.log.state, which, PLACE)
