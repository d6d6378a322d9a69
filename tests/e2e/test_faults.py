"""Bad luck: kills, restarts, suspension, deletion. The path goes on from where it was, and leaves nothing."""

import os
import signal
from typing import Any

from examples import demo
from tests.support.rig import Rig, failed_reason
from tests.support.waiting import wait_until

LONG = {"training.epochs": 6, "checkpoint.interval": 5}


def checkpoints(records: list[dict[str, Any]], attempt: int) -> list[int]:
    return [r["step"] for r in records if r["kind"] == "checkpoint" and r["attempt"] == attempt]


def test_a_killed_pod_resumes_from_its_last_checkpoint(rig: Rig) -> None:
    rig.apply("killed", **LONG)
    rig.wait_committed("killed", step=5)
    pids = rig.trainer_pids("killed")
    assert pids, "the trainer's processes can't be seen"
    os.kill(pids[0], signal.SIGKILL)
    # 137 that nobody asked for is taken for want of memory.
    lost = rig.wait_status("killed", "the kill counted", lambda s: s.get("restarts", {}).get("oom") == 1)
    reached = lost["progress"]["step"]
    status = rig.wait_phase("killed", "Succeeded")
    records = rig.records("killed")
    assert [r["attempt"] for r in records if r["kind"] == "attempt-start"] == [1, 2]
    assert status["attempt"] == 2
    assert status["lastInterruption"]["exitCode"] == 137
    last_before = max(checkpoints(records, 1))
    assert reached - last_before <= LONG["checkpoint.interval"], "more steps were lost than the interval"
    assert rig.first_step("killed", 2) == last_before + 1, (
        "the second attempt goes on where the first was saved"
    )
    final = next(r for r in records if r["kind"] == "final")
    assert final["step"] == 6 * 15, "473 training images in batches of 32 are 15 steps an epoch"


def test_suspend_commits_and_resume_goes_on(rig: Rig) -> None:
    rig.apply("paused", **LONG)
    rig.wait_committed("paused")
    patch = '{"spec":{"runPolicy":{"suspend":%s}}}'
    demo.run("kubectl", "patch", "rtj", "paused", "--type=merge", "-p", patch % "true")
    status = rig.wait_phase("paused", "Suspended")
    saved = status["checkpoint"]["latest"]["step"]
    ends = [r for r in rig.records("paused") if r["kind"] == "attempt-end"]
    assert ends[-1]["reason"] == "Interrupted"
    assert ends[-1]["step"] == saved, "the last step before the stop was committed"
    assert rig.trainer_pids("paused") == []
    demo.run("kubectl", "patch", "rtj", "paused", "--type=merge", "-p", patch % "false")
    status = rig.wait_phase("paused", "Succeeded")
    assert status["restarts"]["failure"] == 0
    assert min(checkpoints(rig.records("paused"), 2)) > saved


def test_more_epochs_are_trained_in_the_same_attempt(rig: Rig) -> None:
    rig.apply("longer", **LONG)
    rig.wait_committed("longer", step=5)
    patch = '{"spec":{"training":{"epochs":8}}}'
    demo.run("kubectl", "patch", "rtj", "longer", "--type=merge", "-p", patch)
    rig.wait_status("longer", "8 epochs counted", lambda s: s["progress"]["epochs"] == 8)
    status = rig.wait_phase("longer", "Succeeded")
    assert status["attempt"] == 1
    records = rig.records("longer")
    changes = [(r["was"], r["epochs"]) for r in records if r["kind"] == "plan-change"]
    assert changes == [(6, 8)]
    final = next(r for r in records if r["kind"] == "final")
    assert final["step"] == 8 * 15, "473 training images in batches of 32 are 15 steps an epoch"


def test_deletion_leaves_nothing(rig: Rig) -> None:
    rig.apply("gone", **LONG)
    rig.wait_committed("gone")
    demo.run("kubectl", "delete", "rectrainingjob", "gone", "--wait=true")
    kinds = "jobs,pods,services,configmaps"

    def left() -> str:
        return demo.run("kubectl", "get", kinds, "-l", "rectrain.dev/job=gone", "-o", "name").strip()

    wait_until(lambda: not left(), 90, lambda: f"still there: {left()}")
    wait_until(lambda: not rig.trainer_pids("gone"), 30, lambda: "the trainer's processes to end")


def test_s3_away_at_the_start_is_said_and_given_up(rig: Rig) -> None:
    """The pod retries, says so at once, and the run fails after maxRestarts with the endpoint named."""
    away = "http://127.0.0.1:9"
    rig.apply(
        "away",
        **{
            "s3.endpoint": away,
            "runPolicy.maxRestarts": 0,
            "replicas.env": [{"name": "RECTRAIN_S3_DEADLINE_SECONDS", "value": "12"}],
        },
    )
    rig.wait_status("away", "S3 said to be away", lambda s: away in s.get("message", ""), 60)
    status = rig.wait_phase("away", "Failed")
    assert away in status["message"]
    assert failed_reason(status) == "RestartsExhausted"
