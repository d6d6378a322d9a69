"""An S3 service on bad days, between a run and its end: the weights come out as on a good one."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rectrain_api.records import CheckpointRecord
from rectrain_data.transfer import S3Options, open_store
from rectrain_local.s3 import SeaweedS3
from tests.support import faults
from tests.support.fault_proxy import FaultProxy
from tests.support.plans import make_manifest
from tests.support.sessions import Sessions
from tests.support.trainer import Place, Started, Trainer, environment, new_place

Manifest = Callable[..., dict[str, Any]]
EPOCHS, STEPS = 3, 18
CHECKPOINT = "/attempts/[0-9]+/step-"


def recipe(packed: str, place: Place, grace_s: int = 30) -> dict[str, Any]:
    return make_manifest(
        train=packed,
        uri=place.uri,
        epochs=EPOCHS,
        batch_size=8,
        interval=4,
        training={"deterministic": True},
        runPolicy={"terminationGraceSeconds": grace_s},
    )


def weights(place: Place) -> dict[str, str]:
    """sha256 of the last checkpoint's parameters and optimizer state."""
    last = next(r for r in place.records() if isinstance(r, CheckpointRecord) and r.step == STEPS)
    return {f.name: f.sha256 for f in last.files if f.name.startswith("model.")}


@pytest.fixture(scope="module")
def good_day(
    packed: str, bucket: str, s3: S3Options, seaweed: SeaweedS3, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Weights of a run without faults."""
    place = new_place(bucket, s3)
    ended = Trainer(tmp_path_factory.mktemp("good-day"), environment(seaweed.env)).run(recipe(packed, place))
    assert ended.code == 0, ended.errors
    return weights(place)


@pytest.fixture
def job(packed: str, place: Place) -> dict[str, Any]:
    return recipe(packed, place)


def test_a_bad_day(
    trainer: Trainer, proxy: FaultProxy, place: Place, job: dict[str, Any], good_day: dict[str, str]
) -> None:
    """A bit of everything, from the first request to the last: each once for certain, then by chance."""
    troubles: list[tuple[faults.Effect, str, float, str]] = [
        (faults.SLOW_DOWN, "throttled", 0.06, "PUT|GET|HEAD"),
        (faults.SERVER_ERROR, "error", 0.06, "PUT|GET|HEAD"),
        (faults.reset, "reset", 0.06, "PUT|GET|HEAD"),
        (faults.lose_answer, "answer lost", 0.12, "PUT|POST|DELETE"),
        (faults.truncate, "truncated", 0.12, "GET"),
        (faults.slow(1_000_000), "slow", 0.2, "PUT|GET"),
    ]
    for effect, name, _, method in troubles:
        proxy.set(effect, name, method=method, count=1)
    for effect, name, chance, method in troubles:
        proxy.set(effect, name, method=method, chance=chance)
    ended = trainer.run(job, AWS_ENDPOINT_URL_S3=proxy.endpoint)
    assert ended.code == 0, ended.errors
    assert len(place.state().starts) == 1
    assert weights(place) == good_day
    met = proxy.counts.keys() - {"passed"}
    assert met == {"throttled", "error", "reset", "answer lost", "truncated", "slow"}, proxy.counts


def test_away_for_a_while(
    trainer: Trainer, proxy: FaultProxy, place: Place, job: dict[str, Any], good_day: dict[str, str]
) -> None:
    """It trains on to its end, and commits when S3 is back."""
    proxy.set(faults.also(proxy.away), "the first checkpoint", key="/log/", body=b'"checkpoint"', count=1)
    run = trainer.start(job, AWS_ENDPOINT_URL_S3=proxy.endpoint, RECTRAIN_S3_DEADLINE_SECONDS="1")
    run.until(lambda: "Nothing has been committed since" in run.errors(), "it says so")
    run.until(lambda: f"step {STEPS}/{STEPS}" in run.errors(), "it trains on")
    assert place.steps() == [4]
    proxy.back()
    ended = run.wait()
    assert ended.code == 0, ended.errors
    assert len(place.state().starts) == 1
    assert weights(place) == good_day


@pytest.fixture
def sessions(seaweed: SeaweedS3) -> Iterator[Sessions]:
    sessions = Sessions(seaweed.access_key, seaweed.secret_key, life_s=4)
    yield sessions
    sessions.stop()


def test_keys_that_expire(
    trainer: Trainer, proxy: FaultProxy, place: Place, job: dict[str, Any], sessions: Sessions
) -> None:
    """A run that outlives its keys asks for new ones before they are refused."""
    proxy.set(sessions.checked(), "signed in")
    job["spec"]["training"]["epochs"] = 10_000
    run = trainer.start(job, AWS_ENDPOINT_URL_S3=proxy.endpoint, **sessions.env)
    run.until(place.steps, "a first checkpoint")
    over = max(end.timestamp() for end in sessions.ends.values())
    run.until(lambda: time.time() > over, "all keys have expired that it had by then")
    saved = max(place.steps())
    run.until(lambda: max(place.steps()) > saved + 4, "it goes on committing")
    run.process.send_signal(signal.SIGTERM)
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert "its checkpoint is committed" in ended.message
    assert "expired" not in ended.errors


def slow_upload(run: Started, proxy: FaultProxy, rate: float) -> None:
    """From the first step on, checkpoints trickle; returns when one does."""
    fault = proxy.set(faults.slow(rate), "slow", method="PUT", key=CHECKPOINT)
    run.until(lambda: fault.hits, "an upload")


@pytest.mark.parametrize(
    ("rate", "grace_s", "said"),
    [
        pytest.param(400_000, 30, "its checkpoint is committed", id="in-time"),
        pytest.param(10_000, 8, "its checkpoint couldn't be committed in time", id="too-slow"),
    ],
)
def test_sigterm_in_a_slow_upload(
    trainer: Trainer,
    proxy: FaultProxy,
    packed: str,
    place: Place,
    good_day: dict[str, str],
    rate: float,
    grace_s: int,
    said: str,
) -> None:
    """Told twice, it commits within the grace period, or gives up before; then it goes on exactly."""
    job = recipe(packed, place, grace_s)
    run = trainer.start(job, AWS_ENDPOINT_URL_S3=proxy.endpoint)
    slow_upload(run, proxy, rate)
    told = time.monotonic()
    for _ in range(2):
        run.process.send_signal(signal.SIGTERM)
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert time.monotonic() - told < grace_s
    assert said in ended.message
    assert "Traceback" not in ended.errors
    stopped = place.steps()
    assert bool(stopped) == ("couldn't" not in said)
    again = trainer.run(job)
    assert again.code == 0, again.errors
    assert weights(place) == good_day
    assert place.trained(2)[0] == max(stopped, default=0) + 1
    store = open_store(place.uri, S3Options.from_environment(trainer.env))
    torn = {k.rsplit("/", 1)[0] for k in store.list_keys("attempts/") if "/step-" in k}
    assert torn == {c.prefix for c in place.state().checkpoints}, "what wasn't committed is tidied away"
