"""Longer bad luck, for `make chaos`: many kills, S3 dying in mid-run, S3 away with the real deadlines."""

import os
import random
import signal
from typing import Any

import pytest

from tests.support.rig import Rig, failed_reason
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
KILLS = 3


def test_killed_again_and_again(rig: Rig) -> None:
    """SIGKILL after a random step of each attempt; every attempt goes on where the last one was saved."""
    chance = random.Random(20)
    name = "hunted"
    rig.apply(name, **{"training.epochs": 20, "runPolicy.maxRestarts": KILLS + 1})
    saved = [0]
    for attempt in range(1, KILLS + 1):
        rig.wait_committed(name, step=saved[-1] + chance.randint(1, 30))
        os.kill(rig.trainer_pids(name)[0], signal.SIGKILL)
        wait_until(lambda: not rig.trainer_pids(name), 30, "the killed pod to be gone")
        saved.append(max(r["step"] for r in rig.records(name) if r["kind"] == "checkpoint"))
        wanted = attempt + 1
        rig.wait_status(name, f"attempt {wanted}", lambda s, n=wanted: s.get("attempt", 0) >= n, 400)
    status = rig.wait_phase(name, "Succeeded", 900)
    assert status["restarts"]["oom"] == KILLS
    assert [rig.first_step(name, n + 2) for n in range(KILLS)] == [step + 1 for step in saved[1:]]


def test_s3_dies_in_mid_run_and_comes_back(rig: Rig, seaweed: Any) -> None:
    """Training goes on while S3 is away, says since when nothing was committed, and commits afterwards."""
    rig.apply("dry", **{"training.epochs": 20})
    rig.wait_committed("dry")
    seaweed.stop(kill=True)
    try:
        status = rig.wait_status("dry", "CheckpointStale", lambda s: stale(s)["status"] == "True", 120)
        assert stale(status)["reason"] == "StoreUnavailable"
        assert stale(status)["message"] in status["message"]
    finally:
        seaweed.restart()
    status = rig.wait_phase("dry", "Succeeded", 900)
    assert status["attempt"] == 1
    assert sum(status["restarts"].values()) == 0
    assert (stale(status)["status"], stale(status)["reason"]) == ("False", "Committed")


def stale(status: dict[str, Any]) -> dict[str, Any]:
    """Its condition CheckpointStale; an empty one before the first commit."""
    found = (c for c in status.get("conditions", []) if c["type"] == "CheckpointStale")
    return next(found, {"status": "", "reason": "", "message": ""})


def test_s3_away_for_good(rig: Rig) -> None:
    """Real deadlines: at most two minutes in each pod, then exit 69; given up after maxRestarts."""
    rig.apply("away-for-good", **{"s3.endpoint": "http://127.0.0.1:9", "runPolicy.maxRestarts": 1})
    status = rig.wait_phase("away-for-good", "Failed", 400)
    assert failed_reason(status) == "RestartsExhausted"
    assert status["restarts"]["failure"] == 1
    assert "http://127.0.0.1:9" in status["message"]
