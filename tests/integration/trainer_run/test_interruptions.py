"""Told to stop, or left by S3, at the less usual moments."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import AttemptEnd, CheckpointRecord
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import UNPRODUCTIVE_LIMIT
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import S3Options, open_store
from rectrain_local.assets.resolve import Binaries
from rectrain_local.s3 import SeaweedS3
from tests.support.plans import make_manifest
from tests.support.processes import first_child
from tests.support.trainer import Place, Trainer

Manifest = Callable[..., dict[str, Any]]


AS_PID_1 = ["unshare", "--map-root-user", "--fork", "--pid", "--mount-proc", "--kill-child"]


@pytest.mark.parametrize(
    ("stage", "wrapper", "times"),
    [
        pytest.param("Staging", AS_PID_1, 2, id="staging-pid-1-twice"),
        pytest.param("Checking", [], 1, id="checking"),
        pytest.param("Training, epoch", AS_PID_1, 1, id="training-pid-1"),
        pytest.param("Evaluating", [], 2, id="evaluating-twice"),
        pytest.param("Exporting", AS_PID_1, 2, id="exporting-pid-1-twice"),
    ],
)
def test_sigterm_in_any_stage(
    trainer: Trainer,
    place: Place,
    manifest: Manifest,
    much_to_evaluate: str,
    stage: str,
    wrapper: list[str],
    times: int,
) -> None:
    """Nothing is torn, and the next attempt goes on to the same end: no epoch is left unevaluated."""
    job = manifest(train=much_to_evaluate, epochs=2)
    trainer.wrapper = wrapper
    run = trainer.start(job)
    run.until(lambda: f"INFO {stage}" in run.errors(), stage)
    pid = first_child(run.process.pid) if wrapper else run.process.pid
    for _ in range(times):
        os.kill(pid, signal.SIGTERM)
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert "Traceback" not in ended.errors
    state = place.state()
    assert state.final is None
    assert [end.reason for end in state.ends.values()] == ["Interrupted"] * len(state.starts)
    if stage in ("Staging", "Checking"):
        return
    assert state.attempt == 1
    trainer.wrapper = []
    ended = trainer.run(job)
    assert ended.code == 0, ended.errors
    assert place.state().final is not None
    rows = [*place.metrics(1), *place.metrics(2)]
    assert sorted({r["epoch"] for r in rows if r["kind"] == "eval"}) == [1, 2]
    trained = place.trained(2)
    assert trained[:1] in ([], [state.newest_first()[0].step + 1])


def test_sigterm_while_s3_is_waited_for(trainer: Trainer, manifest: Manifest) -> None:
    run = trainer.start(manifest(), AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    run.until(lambda: "Waiting for S3" in run.errors(), "it waits")
    started = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    ended = run.wait()
    assert ended.code == 75
    assert time.monotonic() - started < 15


def start_another(place: Place, manifest: dict[str, Any]) -> RunLog:
    """Take the next attempt, as a pod would."""
    log = RunLog(place.store, place.uri)
    plan = plan_of(RecTrainingJob.model_validate(manifest))
    log.start(plan, now="t", job_uid="", pod_uid="", check=lambda _: None)
    return log


def test_attempts_that_lead_nowhere_end_the_run(trainer: Trainer, place: Place, manifest: Manifest) -> None:
    """Some said how they ended, some were killed in training: their metrics tell."""
    job = manifest()
    for number in range(1, UNPRODUCTIVE_LIMIT + 1):
        log = start_another(place, job)
        if number % 2:
            log.append(
                AttemptEnd(
                    attempt=log.attempt, time="t", reason="InternalError", step=3, reached_training=True
                )
            )
        else:
            place.store.put_bytes(f"attempts/{number:04d}/metrics/000001.jsonl", b"{}\n")
    ended = trainer.run(job)
    assert (ended.code, ended.result["reason"]) == (74, "NoProgress"), ended.errors
    assert "5 attempts in a row" in ended.message
    assert "or choose another checkpoint.uri" in ended.message
    assert len(place.state().starts) == UNPRODUCTIVE_LIMIT, "the sixth takes no number"


@pytest.fixture
def own_s3(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service that this test may stop."""
    service = SeaweedS3(tmp_path_factory.mktemp("own-s3"), binaries.weed)
    service.start()
    yield service
    service.stop(kill=True)


def test_s3_that_goes_away_in_mid_run(
    trainer: Trainer, own_s3: SeaweedS3, samples: list[tuple[str, bytes]]
) -> None:
    """Training goes on, the newest snapshot waits, status says since when; then it is committed."""
    bucket = own_s3.make_bucket("away")
    store = open_store(f"{bucket}/data", S3Options.from_environment(own_s3.env))
    for number, (_, png) in enumerate(samples):
        store.put_bytes(f"images/{number}.png", png)
    lines = "".join(f"images/{n}.png\t{text}\n" for n, (text, _) in enumerate(samples))
    store.put_bytes("labels.txt", lines.encode())
    place = Place(f"{bucket}/run", open_store(f"{bucket}/run", S3Options.from_environment(own_s3.env)))
    job = make_manifest(train=f"{bucket}/data/labels.txt", uri=place.uri, epochs=500, interval=2)
    run = trainer.start(job, **own_s3.env, RECTRAIN_S3_DEADLINE_SECONDS="5")
    run.until(place.steps, "a checkpoint")
    own_s3.stop(kill=True)
    run.until(lambda: "Nothing has been committed since" in run.errors(), "it says so")
    assert run.process.poll() is None
    own_s3.restart()
    before = place.steps()[-1]
    run.until(lambda: place.steps()[-1] > before, "it commits again")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait().code == 75
    committed = [r.step for r in place.records() if isinstance(r, CheckpointRecord)]
    assert committed == sorted(set(committed))
