"""Where a run goes on: only bytes that are gone or differ cost a checkpoint."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rectrain_api.errors import DiskTooSmall, InvalidSpec, RectrainError, RunConflict
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    PlanChange,
    StoredFile,
    checkpoint_prefix,
    parse_record,
)
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Corrupt, sha256_bytes
from rectrain_data.transfer.files import local_error
from rectrain_trainer.loop import Best, Position
from rectrain_trainer.resume import find_newest, mend
from rectrain_trainer.snapshot import RunShape, Snapshot
from rectrain_trainer.snapshot_files import save_snapshot
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_plan


class Bench:
    """A run with checkpoints, begun again."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = MemoryStore(), folder
        self.log = RunLog(self.store, self.store.uri)
        self.start()

    def start(self) -> None:
        self.log.start(make_plan(), now="t", job_uid="", pod_uid="", check=lambda _: None)

    def commit(
        self, step: int, *, version: int | None = None, accuracy: float | None = None
    ) -> CheckpointRecord:
        folder = self.folder / f"made-{step}"
        array = np.full(3, step, dtype=np.float32)
        save_snapshot(
            folder, Snapshot({"w": array}, {"m": array}, {}, Position(0, step, step), RunShape(0, 16, 100, 1))
        )
        (folder / "config.yml").write_text("plan: {}")
        if version is not None:
            state = json.loads((folder / "state.json").read_text()) | {"version": version}
            (folder / "state.json").write_text(json.dumps(state))
        prefix, files = checkpoint_prefix(self.log.attempt, step), []
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            self.store.objects[f"{prefix}/{path.name}"] = data
            files.append(StoredFile(name=path.name, size=len(data), sha256=sha256_bytes(data)))
        record = CheckpointRecord(
            attempt=self.log.attempt,
            time="t",
            prefix=prefix,
            step=step,
            epoch=1,
            files=files,
            accuracy=accuracy,
        )
        self.log.append(record)
        return record

    def damage(self, record: CheckpointRecord) -> None:
        self.store.objects[f"{record.prefix}/model.pdparams"] = b"other bytes"

    def found(self) -> int | None:
        found = find_newest(self.log, self.store, self.folder / "resume")  # type: ignore[arg-type]
        return found.record.step if found else None

    def kept(self) -> list[int]:
        return [c.step for c in RunLog(self.store, self.store.uri).read().checkpoints]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_without_a_checkpoint_starts_at_the_beginning(bench: Bench) -> None:
    assert bench.found() is None


def test_a_damaged_one_is_passed_over_and_retired(bench: Bench) -> None:
    bench.commit(5)
    bench.damage(bench.commit(10))
    assert bench.found() == 5
    assert bench.kept() == [5]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "truncated": lambda data: data[:-1],
    "edited": lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:],
}


@pytest.mark.parametrize("file", ["model.pdparams", "model.pdopt", "state.json", "config.yml"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_every_kind_to_every_file_costs_that_one(bench: Bench, file: str, damage: str) -> None:
    bench.commit(5)
    key = f"{bench.commit(10).prefix}/{file}"
    damaged = DAMAGES[damage](bench.store.objects.pop(key))
    if damaged is not None:
        bench.store.objects[key] = damaged
    assert bench.found() == 5
    assert bench.kept() == [5]


def test_one_whose_whole_prefix_is_gone_is_passed_over(bench: Bench) -> None:
    bench.commit(5)
    bench.store.delete(bench.store.list_keys(f"{bench.commit(10).prefix}/"))
    assert bench.found() == 5


def test_files_that_do_not_belong_to_it_are_nothing(bench: Bench) -> None:
    record = bench.commit(5)
    for name in ("notes.txt", "model.pdparams.bak", "deeper/model.pdparams"):
        bench.store.objects[f"{record.prefix}/{name}"] = b"mine"
    assert bench.found() == 5
    assert bench.kept() == [5]


def test_one_that_did_not_come_whole_is_fetched_again(bench: Bench) -> None:
    bench.commit(5)
    bench.commit(10)
    bench.store.fail_once = Corrupt("it was changed while it was read.")
    assert bench.found() == 10
    assert bench.kept() == [5, 10]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(local_error(OSError(errno.ENOSPC, "No space left on device"), Path("x")), id="disk"),
        pytest.param(InvalidSpec("The S3 service can't do what was asked (HTTP 405)."), id="odd-4xx"),
    ],
)
def test_what_says_nothing_about_the_checkpoint_costs_none(bench: Bench, failure: RectrainError) -> None:
    bench.commit(5)
    bench.commit(10)
    bench.store.fail_once = failure
    with pytest.raises(type(failure)):
        bench.found()
    assert bench.kept() == [5, 10]


def test_a_local_disk_that_cannot_be_read_costs_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.commit(5)

    def broken(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_text", broken)
    with pytest.raises(DiskTooSmall, match=r"state\.json can't be read \(Input/output error\).*disk"):
        bench.found()
    monkeypatch.undo()
    assert bench.kept() == [5]


def test_another_versions_checkpoint_costs_none(bench: Bench) -> None:
    bench.commit(5)
    bench.commit(10, version=9)
    with pytest.raises(InvalidSpec, match=r"written by another version .* 9; .* reads 2.*checkpoint\.uri"):
        bench.found()
    assert bench.kept() == [5, 10]


def test_when_none_is_whole_nothing_is_thrown_away(bench: Bench) -> None:
    for step in (5, 10):
        bench.damage(bench.commit(step))
    bench.start()
    with pytest.raises(
        RunConflict,
        match=r"s3://memory/run .* none of the 2 .*differs\): bring .* checkpoint\.uri of its own",
    ):
        bench.found()
    assert bench.kept() == [5, 10]


class State:
    """What `mend` needs of the training state."""

    def __init__(self, epochs: int = 2, best: Best | None = None) -> None:
        self.recipe, self.position, self.best = SimpleNamespace(epochs=epochs), Position(1, 0, 10), best


def mended(bench: Bench, state: State) -> Best | None:
    bench.start()
    mend(bench.log, state)  # type: ignore[arg-type]
    return state.best


def test_a_best_that_a_kill_left_without_its_record_is_mended(bench: Bench) -> None:
    bench.commit(5, accuracy=0.5)
    bench.log.append(
        BestRecord(attempt=1, time="t", accuracy=0.5, step=5, epoch=1, prefix="attempts/0001/step-000005")
    )
    bench.commit(10, accuracy=0.7)
    bench.commit(15, accuracy=0.7)  # no better
    assert mended(bench, State(best=Best(0.5, 5, 1))) == Best(0.7, 10, 1)
    fresh = RunLog(bench.store, bench.store.uri).read()
    assert fresh.best is not None
    assert (fresh.best.step, fresh.best.attempt) == (10, 2)
    records = fresh.records
    mended(bench, State())
    assert RunLog(bench.store, bench.store.uri).read().records == records + 1  # the attempt-start alone


def test_a_best_whose_weights_are_gone_is_not_the_one_to_beat(bench: Bench) -> None:
    """Else no later one would ever be the best, and the last would be exported."""
    bench.commit(10, accuracy=0.4)
    assert mended(bench, State(best=Best(0.9, 5, 1))) == Best(0.4, 10, 1)


def test_more_epochs_are_recorded_where_they_begin(bench: Bench) -> None:
    mended(bench, State(epochs=5))
    fresh = RunLog(bench.store, bench.store.uri).read()
    assert fresh.epochs == 5
    record = parse_record(bench.store.objects["log/00000003.json"], "")
    assert isinstance(record, PlanChange)
    assert (record.was, record.epochs, record.step) == (2, 5, 10)
    mended(bench, State(epochs=5))
    assert len(bench.store.list_keys("log/")) == 4
