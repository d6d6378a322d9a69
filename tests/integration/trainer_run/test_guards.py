"""Training that goes wrong, in the real trainer: it diverges, stops improving, hangs."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import AttemptEnd, RollbackRecord
from rectrain_api.spec import RecTrainingJob
from rectrain_trainer.stacks import DUMP, TELL
from tests.support.processes import first_child
from tests.support.trainer import Place, Started, Trainer

Manifest = Callable[..., dict[str, Any]]


def pods(trainer: Trainer, job: dict[str, Any], plan: Path) -> list[Started]:
    """Two pods of one run."""
    net = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
    job["spec"]["replicas"]["nodes"] = 2
    plan.write_text(plan_of(RecTrainingJob.model_validate(job)).to_json())
    return [
        trainer.start_with(
            ["run", "--plan", str(plan)],
            RECTRAIN_PEERS=f"{net}.1,{net}.2",
            RECTRAIN_RANK=str(rank),
            RECTRAIN_POD_IP=f"{net}.{rank + 1}",
            RECTRAIN_JOB_UID="job-1",
        )
        for rank in (0, 1)
    ]


def log_of(place: Place) -> str:
    keys = place.store.list_keys("attempts/0001/log/")
    return b"".join(place.store.get_all(keys)).decode()


def rollbacks(place: Place) -> list[float]:
    return [r.factor for r in place.records() if isinstance(r, RollbackRecord)]


GROWS: dict[str, Any] = {
    "epochs": 4,
    "model": {"preset": "svtr_nano", "overrides": {"Optimizer.weight_decay": "10000000"}},
    "training": {"learningRate": 1},
}
"""Weights grow a millionfold a step, at an eighth of the rate too."""


def test_settings_that_cannot_work(trainer: Trainer, manifest: Manifest, place: Place) -> None:
    """It goes back as often as it may, over all attempts; the end says what was tried."""
    for _ in range(2):
        ended = trainer.run(manifest(**GROWS))
        assert (ended.code, ended.result["reason"]) == (70, "Diverged"), ended.errors
        assert "at last: start a new run (with another checkpoint.uri) with a lower" in ended.message
        assert rollbacks(place) == [0.5, 0.25, 0.125]
        assert ended.result["report"] == f"{place.uri}/report/index.html"
        shown = place.store.get_bytes("report/index.html").decode()
        assert "the loss wasn&#39;t a number any more" in shown
        assert "at last: start a new run" in shown
        last = place.records()[-1]
        assert isinstance(last, AttemptEnd)
        assert last.reason == "Diverged"


def test_a_smoke_test_that_fails_comes_before_the_attempt(
    trainer: Trainer, manifest: Manifest, place: Place
) -> None:
    ended = trainer.run(manifest(**GROWS | {"training": {"learningRate": 1, "smokeTest": True}}))
    assert (ended.code, ended.result["reason"]) == (65, "DatasetInvalid"), ended.errors
    assert "the model couldn't learn a few images by heart" in ended.message
    assert "Smoke test: learning 32 images by heart, expected by step 300." in ended.errors
    assert place.records() == []


def test_all_ranks_go_back(trainer: Trainer, manifest: Manifest, place: Place, tmp_path: Path) -> None:
    """In a new round each time, and so in an attempt of its own; no pod ends for it."""
    first, second = pods(trainer, manifest(batch_size=8, **GROWS), tmp_path / "run.json")
    ended = first.wait()
    assert (ended.code, ended.result["reason"]) == (70, "Diverged"), ended.errors
    assert rollbacks(place) == [0.5, 0.25, 0.125]
    ends = [r.reason for r in place.records() if isinstance(r, AttemptEnd)]
    assert ends == ["RolledBack"] * 3 + ["Diverged"]
    second.until(lambda: second.errors().count("Waiting for all pods") == 4, "it waits for the next pod")


def test_two_ranks_stop_early_together(
    trainer: Trainer, manifest: Manifest, place: Place, tmp_path: Path
) -> None:
    """An accuracy can't be better by more than 1; the first evaluation always is."""
    training = {"earlyStopping": {"patience": 1, "minDelta": 1}}
    job = manifest(epochs=9, batch_size=8, training=training)
    one, other = (started.wait() for started in pods(trainer, job, tmp_path / "run.json"))
    assert (one.code, other.code) == (0, 0), one.errors + other.errors
    assert one.message.startswith(
        "Stopped early in epoch 2 of 9, after step 6 (no better accuracy in 1 evaluations): accuracy "
    )
    final = place.state().final
    assert final is not None
    assert (final.epochs, final.stopped_early, final.step) == (9, 2, 6)
    progress = one.result["progress"]
    assert (progress["epochText"], progress["percent"], progress["step"]) == ("2/9", 22, 6)
    assert place.report()["stoppedEarly"] == 2
    assert b"| epochs | 2 |" in place.store.get_bytes("export/README.md")

    done = trainer.run(manifest(epochs=9, batch_size=8, training=training))
    assert (done.code, done.result["reason"]) == (0, "AlreadyComplete"), done.errors
    assert (done.result["progress"]["epochText"], done.result["progress"]["percent"]) == ("2/9", 22)


def test_a_process_that_stands_still_is_ended_and_the_run_goes_on(
    trainer: Trainer, manifest: Manifest, place: Place
) -> None:
    job = manifest(epochs=30, interval=2, runPolicy={"stallTimeout": "5s"})
    started = trainer.start(job)
    started.until(place.steps, "a first checkpoint")
    child = first_child(started.process.pid)
    os.kill(child, TELL)
    os.kill(child, DUMP)
    started.until(lambda: "Thread MainThread, most recent" in log_of(place), "the stacks in the run's log")
    assert "(most recent call first)" in started.errors(), "the interpreter's own, on stderr"
    os.kill(child, signal.SIGSTOP)
    ended = started.wait()
    assert (ended.code, ended.result["reason"]) == (70, "Stalled"), ended.errors
    assert "No step, and no batch of an evaluation, for 5s after step" in ended.message
    newest = max(place.steps())
    assert f"/step-{newest:06d}." in ended.message, "the newest checkpoint"
    done = trainer.run(manifest(epochs=30, interval=2))
    assert done.code == 0, done.errors
    assert place.trained(2)[0] == newest + 1
