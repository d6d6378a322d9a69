"""The committer, against a store in memory that goes away, forgets replies and is taken over."""

import errno
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rectrain_api.errors import DiskTooSmall, Diverged, Fenced, StoreUnavailable
from rectrain_api.records import StoredFile, checkpoint_prefix
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Upload
from rectrain_trainer import offers
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.loop import Position
from rectrain_trainer.offers import Offer, Waiting
from rectrain_trainer.snapshot import RunShape, Snapshot
from rectrain_trainer.snapshot_files import load_snapshot, save_snapshot
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_plan
from tests.support.waiting import wait_until


def snapshot(step: int) -> Snapshot:
    weights = {"w": np.full(4, step, dtype=np.float32)}
    return Snapshot(
        weights, {"m": np.zeros(4, dtype=np.float32)}, {}, Position(0, step, step), RunShape(0, 16, 100, 1)
    )


def offer(step: int, accuracy: float | None = None, *, best: bool = False) -> Offer:
    return Offer(snapshot(step), 1, accuracy, best)


class Bench:
    """A committer with everything around it."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.store = MemoryStore()
        self.log = self.new_log()
        self.board = Board("s3://memory/run")
        self.folder = folder
        self.metrics_stored: list[int] = []
        self.committer = Committer(
            self.log,
            self.store,
            self.board,
            self.store_metrics,
            folder=folder,
            config=b"config",
            keep_last=keep_last,
        )

    def store_metrics(self) -> None:
        self.metrics_stored.append(len(self.store.list_keys("log/")))

    def new_log(self) -> RunLog:
        log = RunLog(self.store, "s3://memory/run")
        log.start(make_plan(), now="t", job_uid="", pod_uid="", check=lambda _: None)
        return log

    def kinds(self) -> list[str]:
        return [json.loads(self.store.objects[k])["kind"] for k in self.store.list_keys("log/")]

    def steps(self) -> list[int]:
        """Committed and kept, as a new reader sees it."""
        fresh = RunLog(self.store, "s3://memory/run")
        return [c.step for c in fresh.read().checkpoints]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(offers, "MAX_WAIT_S", 0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "snapshots")
    yield bench
    bench.store.away = False


def test_files_come_first_then_the_record(bench: Bench, tmp_path: Path) -> None:
    bench.committer.start()
    bench.committer.offer(offer(5, 0.5, best=True))
    assert bench.committer.finish(5) is None
    assert bench.kinds() == ["attempt-start", "checkpoint", "best"]
    record = bench.log.state.newest_first()[0]
    assert {f.name for f in record.files} == {"model.pdparams", "model.pdopt", "state.json", "config.yml"}
    for file in record.files:
        key = f"{record.prefix}/{file.name}"
        assert bench.store.sha256(key) == file.sha256
        (tmp_path / file.name).write_bytes(bench.store.objects[key])
    assert load_snapshot(tmp_path).position.step == 5
    assert not any(bench.folder.iterdir())
    assert bench.metrics_stored == [1]  # before the record


def test_status_names_the_newest_and_the_best(bench: Bench) -> None:
    bench.committer.start()
    bench.committer.offer(offer(5, 0.5, best=True))
    wait_until(
        lambda: bench.board.checkpoint and bench.board.checkpoint.best, 5, "no checkpoint on the board"
    )
    bench.committer.offer(offer(10))
    assert bench.committer.finish(5) is None
    assert bench.board.checkpoint is not None
    assert bench.board.checkpoint.latest is not None
    assert bench.board.checkpoint.best is not None
    assert bench.board.checkpoint.latest.uri == "s3://memory/run/attempts/0001/step-000010"
    assert bench.board.checkpoint.best.step == 5
    assert bench.board.metrics is not None
    assert bench.board.metrics.best is not None
    assert bench.board.metrics.best.accuracy == 0.5


def test_while_the_store_is_away_the_newest_and_the_best_wait(bench: Bench) -> None:
    bench.committer.start()
    wait_until(lambda: bench.board.checkpoint is not None, 5, "not started")
    bench.store.away = True
    bench.committer.offer(offer(5, 0.5, best=True))
    wait_until(lambda: "Nothing has been committed since" in bench.board.message, 5, "status says nothing")
    assert bench.board.checkpoint is not None
    assert bench.board.checkpoint.stale is not None
    assert bench.board.checkpoint.stale.reason == "StoreUnavailable"
    for step in (10, 15, 20):
        bench.committer.offer(offer(step))
    bench.store.away = False
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5, 20]
    assert bench.board.message == ""
    assert bench.board.checkpoint.stale is None


def test_what_waits_lies_on_the_disk_and_no_more_than_two(bench: Bench) -> None:
    """Memory doesn't grow while the store is away, nor does the disk."""
    bench.committer.start()
    wait_until(lambda: bench.board.checkpoint is not None, 5, "not started")
    bench.store.away = True
    for one in (offer(5, 0.5, best=True), offer(10), offer(15), offer(20)):
        bench.committer.offer(one)
        wait_until(lambda one=one: one.snapshot is None, 5, f"step {one.step} stays in memory")
    kept = ["step-000005", "step-000020"]
    wait_until(lambda: sorted(p.name for p in bench.folder.iterdir()) == kept, 5, "others are kept")
    bench.store.away = False
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5, 20]
    assert not any(bench.folder.iterdir())


def test_what_a_killed_process_left_on_the_disk_is_removed(bench: Bench) -> None:
    """A pod outlives its process when another pod is lost, and so does a folder that the user named."""
    left = bench.folder / "step-000003" / "model.pdparams"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of before")
    bench.committer.start()
    bench.committer.offer(offer(5))
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5]
    assert not any(bench.folder.iterdir())


def test_what_is_being_uploaded_keeps_its_files(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was taken, and gave way to a newer one, before its saver looked again."""
    saved, given_way, uploading = threading.Event(), threading.Event(), threading.Event()
    tidied = threading.Event()
    save, upload, after = Offer.save, bench.store.upload_all, Waiting._saved

    def slow_save(self: Offer, folder: Path, config: bytes) -> None:
        save(self, folder, config)
        saved.set()
        assert given_way.wait(5)

    def slow_upload(items: Iterable[Upload], *, limit: int = 8) -> int:
        uploading.set()
        assert tidied.wait(5)
        return upload(items, limit=limit)

    def then(self: Waiting, one: Offer) -> None:
        after(self, one)
        tidied.set()

    monkeypatch.setattr(Offer, "save", slow_save)
    monkeypatch.setattr(Waiting, "_saved", then)
    monkeypatch.setattr(bench.store, "upload_all", slow_upload)
    bench.committer.offer(offer(5))
    bench.committer._waiting.start()
    assert saved.wait(5)
    bench.committer._thread.start()
    assert uploading.wait(5)
    bench.committer.offer(offer(10))
    given_way.set()
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5, 10]
    assert not any(bench.folder.iterdir())


def test_a_full_disk_costs_no_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [True]

    def write(folder: Path, content: Snapshot) -> list[StoredFile]:
        files = save_snapshot(folder, content)
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        return files

    monkeypatch.setattr(offers, "save_snapshot", write)
    bench.committer.start()
    bench.committer.offer(offer(5))
    wait_until(lambda: bench.board.checkpoint and bench.board.checkpoint.stale, 5, "status says nothing")
    assert bench.board.checkpoint is not None
    assert bench.board.checkpoint.stale is not None
    assert bench.board.checkpoint.stale.reason == "DiskTooSmall"
    assert "No space left on device" in bench.board.message
    assert not any(bench.folder.iterdir())
    bench.committer.check()
    bench.committer.offer(offer(10))
    full[0] = False
    assert bench.committer.finish(5) is None
    assert bench.steps() == [10]
    assert bench.board.checkpoint.stale is None


def test_a_disk_that_stays_full_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, content: Snapshot) -> list[StoredFile]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(offers, "save_snapshot", write)
    bench.committer.start()
    bench.committer.offer(offer(5))
    assert isinstance(bench.committer.finish(0.5), DiskTooSmall)


def test_weights_that_are_no_numbers_are_never_committed(bench: Bench) -> None:
    bench.committer.start()
    spoilt = offer(5)
    assert spoilt.snapshot is not None
    spoilt.snapshot.params["w"][2] = np.nan
    bench.committer.offer(spoilt)
    with pytest.raises(Diverged, match="w aren't finite after step 5"):
        bench.committer.finish(5)
    assert bench.kinds() == ["attempt-start"]


def test_metrics_that_cannot_be_stored_hold_the_record_back(bench: Bench) -> None:
    """A committed step never lacks its metrics."""
    failures = [StoreUnavailable("away"), StoreUnavailable("away")]

    def store_metrics() -> None:
        if failures:
            assert bench.kinds() == ["attempt-start"]
            raise failures.pop()

    bench.committer._store_metrics = store_metrics
    bench.committer.start()
    bench.committer.offer(offer(5))
    assert bench.committer.finish(5) is None
    assert not failures
    assert bench.kinds() == ["attempt-start", "checkpoint"]
    assert len(bench.store.uploaded) == 4  # its files once


def test_more_epochs_are_recorded_before_the_checkpoint_that_has_them(bench: Bench) -> None:
    bench.committer.start()
    bench.committer.change(4, 2, 5)
    bench.committer.offer(offer(5))
    assert bench.committer.finish(5) is None
    assert bench.kinds() == ["attempt-start", "plan-change", "checkpoint"]
    assert bench.log.state.epochs == 4


def test_a_change_is_recorded_before_the_first_checkpoint_that_has_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before one that was on its way already; and none gets lost, however slow the store is."""
    upload, uploading, changed = bench.store.upload_all, threading.Event(), threading.Event()

    def slow_upload(items: Iterable[Upload], *, limit: int = 8) -> int:
        uploading.set()
        assert changed.wait(5)
        return upload(items, limit=limit)

    monkeypatch.setattr(bench.store, "upload_all", slow_upload)
    bench.committer.start()
    bench.committer.offer(offer(5))
    assert uploading.wait(5)
    bench.committer.change(4, 2, 6)
    bench.committer.change(6, 4, 8)
    bench.committer.offer(offer(9))
    changed.set()
    assert bench.committer.finish(5) is None
    said = [json.loads(bench.store.objects[key]) for key in bench.store.list_keys("log/")[1:]]
    assert [(r["kind"], r["step"], r.get("was"), r.get("epochs")) for r in said] == [
        ("checkpoint", 5, None, None),
        ("plan-change", 6, 2, 4),
        ("plan-change", 8, 4, 6),
        ("checkpoint", 9, None, None),
    ]


def test_when_the_store_stays_away_it_ends_in_time(bench: Bench) -> None:
    bench.committer.start()
    wait_until(lambda: bench.board.checkpoint is not None, 5, "not started")
    bench.store.away = True
    bench.committer.offer(offer(5))
    assert isinstance(bench.committer.finish(0.2), StoreUnavailable)
    assert not bench.committer.has_log


@pytest.mark.parametrize("trouble", ["store", "disk"])
def test_at_the_end_it_is_tried_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """However long the last pause was to be: the grace period may be shorter."""
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 60.0)
    monkeypatch.setattr(offers, "MAX_WAIT_S", 60.0)
    paused = threading.Event()
    pause, save = Waiting.pause, offers.save_snapshot
    full = [trouble == "disk"]

    def write(folder: Path, content: Snapshot) -> list[StoredFile]:
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        return save(folder, content)

    def waits(self: Waiting, wait_s: float) -> None:
        paused.set()
        pause(self, wait_s)

    monkeypatch.setattr(offers, "save_snapshot", write)
    monkeypatch.setattr(Waiting, "pause", waits)
    bench.committer.start()
    wait_until(lambda: bench.board.checkpoint is not None, 5, "not started")
    bench.store.away = trouble == "store"
    bench.committer.offer(offer(5))
    assert paused.wait(5)
    bench.store.away = full[0] = False
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 0.01)
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5]


def test_a_lost_reply_commits_once(bench: Bench) -> None:
    bench.committer.start()
    bench.store.fault = "lost"
    bench.committer.offer(offer(5))
    assert bench.committer.finish(5) is None
    assert bench.kinds() == ["attempt-start", "checkpoint"]


def test_a_fenced_pod_says_so_and_commits_nothing(bench: Bench) -> None:
    bench.committer.start()
    bench.new_log()
    bench.committer.offer(offer(5))
    with pytest.raises(Fenced):
        bench.committer.finish(5)
    with pytest.raises(Fenced):
        bench.committer.check()
    assert bench.kinds() == ["attempt-start", "attempt-start"]


def test_only_the_last_and_the_best_are_kept(bench: Bench) -> None:
    bench.committer.start()
    for step in (5, 10, 15, 20):
        bench.committer.offer(offer(step, step / 100, best=step == 5))
        wait_until(lambda step=step: step in bench.steps(), 5, f"step {step} isn't there")
    assert bench.committer.finish(5) is None
    assert bench.steps() == [5, 15, 20]
    assert not bench.store.list_keys(f"{checkpoint_prefix(1, 10)}/")
    assert bench.kinds().index("retire") > bench.kinds().index("best")


def test_files_that_are_known_are_copied_by_the_server(bench: Bench) -> None:
    bench.committer.start()
    for step in (5, 10):
        bench.committer.offer(offer(step))
        wait_until(lambda step=step: step in bench.steps(), 5, f"step {step} isn't there")
    assert bench.committer.finish(5) is None
    second = checkpoint_prefix(1, 10)
    assert f"{second}/config.yml" in bench.store.copied
    assert f"{second}/model.pdparams" in bench.store.uploaded


def test_a_file_that_somebody_changed_is_not_copied(bench: Bench) -> None:
    bench.committer.start()
    bench.committer.offer(offer(5))
    wait_until(lambda: 5 in bench.steps(), 5, "step 5 isn't there")
    changed = f"{checkpoint_prefix(1, 5)}/config.yml"
    bench.store.objects[changed] = b"CONFIG"
    bench.store.edited.add(changed)
    bench.committer.offer(offer(10))
    assert bench.committer.finish(5) is None
    assert bench.store.objects[f"{checkpoint_prefix(1, 10)}/config.yml"] == b"config"


def test_older_attempts_leftovers_are_deleted(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "snapshots")
    bench.store.put("attempts/0001/step-000099/model.pdparams", b"never committed")
    bench.log = bench.new_log()
    second = Committer(
        bench.log,
        bench.store,
        bench.board,
        bench.store_metrics,
        folder=tmp_path / "second",
        config=b"",
        keep_last=2,
    )
    second.start()
    assert second.finish(5) is None
    assert not bench.store.list_keys("attempts/0001/")
