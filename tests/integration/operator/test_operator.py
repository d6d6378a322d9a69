"""The operator on the real API server and Job controller; pods' status is written by the tests' hand."""

import json
from typing import Any

import pytest

from rectrain_local.controlplane import ControlPlane
from rectrain_operator import paths
from rectrain_operator.client import ApiError
from rectrain_operator.keys import JobKey
from rectrain_operator.status_patch import status_patch
from tests.integration.operator.conftest import Hand, delete, until, words
from tests.integration.operator.harness import OperatorProcess

REPORT: dict[str, Any] = {
    "attempt": 1,
    "sequence": 1,
    "stage": "Training",
    "progress": {"epoch": 3, "epochs": 10, "step": 210, "steps": 500, "percent": 42, "eta": "12m"},
    "metrics": {"loss": 0.54321, "accuracy": 0.9012},
    "devices": {"kind": "cpu", "count": 1},
}
DONE = words(
    exitCode=0,
    reason="Completed",
    attempt=1,
    progress={"epoch": 10, "epochs": 10, "step": 500, "steps": 500, "percent": 100},
    metrics={"loss": 0.1, "accuracy": 0.97},
    model={"uri": "s3://runs/minimal/export"},
)


async def events_of(hand: Hand) -> list[str]:
    """Reasons of the run's own Events, in the order of their writing."""
    items = (await hand.client.get(paths.events(hand.key.namespace)))["items"]
    own = [e for e in items if e["regarding"].get("uid") == (await hand.run())["metadata"]["uid"]]
    return [e["reason"] for e in sorted(own, key=lambda e: e["eventTime"])]


async def until_events(hand: Hand, *reasons: str) -> None:
    """Events follow the status: wait for them."""

    async def look() -> bool:
        return await events_of(hand) == list(reasons)

    await until(f"events {reasons}", look, lambda: events_of(hand))


async def test_a_run_gets_its_children(hand: Hand) -> None:
    created = await hand.create(maxRestarts=2)
    status = await hand.until_phase("Pending", but=lambda s: "pod" in s)
    assert status["jobName"] == hand.key.name
    name, namespace = hand.key.name, hand.key.namespace
    job = await hand.job()
    children = [
        job,
        await hand.client.get(paths.single("Service", namespace, name)),
        await hand.client.get(paths.single("ConfigMap", namespace, f"{name}-run")),
        await hand.client.get(paths.single("ConfigMap", namespace, f"{name}-ca")),
    ]
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == created["metadata"]["uid"]
        assert owner["controller"]
        assert owner["blockOwnerDeletion"]
    assert job["spec"]["backoffLimit"] == 2
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert children[3]["data"]["ca.crt"] == hand.operator.ca_file.read_text()


async def test_from_report_to_success(hand: Hand, control_plane: ControlPlane) -> None:
    await hand.create()
    pod = await hand.start_pod()
    await hand.until_phase("Preparing")
    assert await hand.report(await hand.token(pod), REPORT) == (204, "")
    status = await hand.until_phase("Running")
    assert status["devices"] == {"kind": "cpu", "count": 1, "name": ""}
    row = control_plane.kubectl("-n", hand.key.namespace, "get", "rtj", hand.key.name, "--no-headers").stdout
    assert row.split()[1:7] == ["Running", "42%", "3/10", "90.1%", "0.5432", "12m"]
    await hand.end_pod(pod, 0, DONE)
    status = await hand.until_phase("Succeeded")
    assert status["progress"]["text"] == "100%"
    assert "eta" not in status["progress"]
    assert status["metrics"]["accuracyText"] == "97.0%"
    assert status["model"]["uri"] == "s3://runs/minimal/export"
    control_plane.kubectl(
        "-n", hand.key.namespace, "wait", "--for=condition=Succeeded", f"rtj/{hand.key.name}", "--timeout=10s"
    )
    await until_events(hand, "Staging", "Training", "Completed")


async def test_a_run_waits_for_the_job_that_it_starts_from(hand: Hand) -> None:
    """And keeps what it found when that job is gone."""
    name, namespace = f"{hand.key.name[:30]}-older", hand.key.namespace
    await hand.create(pretrained={"fromJob": name})
    status = await hand.until_phase("Pending", but=lambda s: name in s.get("message", ""))
    assert "jobName" not in status
    older = Hand(hand.client, hand.operator, JobKey(namespace, name))
    place = (await older.create())["spec"]["checkpoint"]["uri"]
    own = {"spec": {"checkpoint": {"uri": f"{place}-2"}}}  # an edit, so that nobody waits half a minute
    await hand.client.merge_patch(paths.run(hand.key), own)
    status = await hand.until_phase("Pending", but=lambda s: "pod" in s)
    assert status["pretrained"] == place
    plan = paths.single("ConfigMap", namespace, f"{hand.key.name}-run")
    assert json.loads((await hand.client.get(plan))["data"]["run.json"])["model"]["pretrained"] == {
        "uri": place,
        "checkpoint": "Best",
    }
    await older.delete()


async def test_bad_data_fails_at_once_in_the_trainers_words(hand: Hand) -> None:
    await hand.create()
    pod = await hand.start_pod()
    said = "s3://data/digits/label.txt, line 7: no tab between image and text."
    await hand.end_pod(pod, 65, words(exitCode=65, reason="DatasetInvalid", message=said))
    status = await hand.until_phase("Failed")
    assert status["message"] == said
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Failed"] == "DatasetInvalid"
    assert len(await hand.pods()) == 1


async def test_several_pods_of_which_index_0_decides(hand: Hand) -> None:
    await hand.create(nodes=2)
    first = await hand.start_pod()
    await hand.until_phase("Pending", but=lambda s: s["message"].startswith("1 of 2 pods runs; pod 1:"))
    second = await hand.start_pod(1)
    await hand.until_phase("Preparing", but=lambda s: s["pod"] == first["metadata"]["name"])
    assert (await hand.report(await hand.token(second), REPORT))[0] == 403
    assert (await hand.report(await hand.token(first), REPORT))[0] == 204
    await hand.until_phase("Running")
    await hand.end_pod(first, 0, DONE)
    status = await hand.until_phase("Succeeded")
    assert status["metrics"]["accuracyText"] == "97.0%"
    assert set(status["restarts"].values()) == {0}


async def test_one_of_several_pods_fails_the_run(hand: Hand) -> None:
    await hand.create(nodes=2)
    await hand.start_pod()
    second = await hand.start_pod(1)
    await hand.until_phase("Preparing")
    said = "s3://data/digits/label.txt, line 7: no tab between image and text."
    await hand.end_pod(second, 65, words(exitCode=65, reason="DatasetInvalid", message=said))
    status = await hand.until_phase("Failed")
    assert status["message"] == said
    assert set(status["restarts"].values()) == {0}


async def test_a_peer_that_is_lost_is_replaced_alone(hand: Hand) -> None:
    await hand.create(nodes=2)
    first = await hand.start_pod()
    second = await hand.start_pod(1)
    await hand.until_phase("Preparing")
    await hand.end_pod(second, 75, words(exitCode=75, reason="Interrupted", message="Told to stop."))
    status = await hand.until_phase("Restarting")
    assert status["message"].startswith("1 of 2 pods runs; pod 1: Restarting after Interrupted")
    assert status["restarts"]["disruption"] == 1
    await hand.start_pod(1)
    status = await hand.until_phase("Preparing")
    assert status["pod"] == first["metadata"]["name"]
    assert len(await hand.pods()) == 3


async def test_a_failure_that_may_pass_restarts(hand: Hand) -> None:
    await hand.create()
    pod = await hand.start_pod()
    await hand.end_pod(pod, 69, words(exitCode=69, reason="StoreUnavailable", message="S3 stayed away."))
    status = await hand.until_phase("Restarting")
    assert status["restarts"]["failure"] == 1
    assert status["lastInterruption"]["pod"] == pod["metadata"]["name"]
    assert "S3 stayed away." in status["message"]


async def test_no_restart_left(hand: Hand) -> None:
    await hand.create(maxRestarts=0)
    pod = await hand.start_pod()
    await hand.end_pod(pod, 69, words(exitCode=69, reason="StoreUnavailable", message="S3 stayed away."))
    status = await hand.until_phase("Failed")
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Failed"] == "RestartsExhausted"
    assert "S3 stayed away." in status["message"]
    assert status["restarts"]["failure"] == 0


async def test_suspend_and_resume(hand: Hand) -> None:
    await hand.create()
    first = await hand.start_pod()
    await hand.until_phase("Preparing")
    await hand.client.merge_patch(paths.run(hand.key), {"spec": {"runPolicy": {"suspend": True}}})
    status = await hand.until_phase("Suspended", but=lambda s: s["restarts"]["suspend"] == 1)
    assert (await hand.job())["spec"]["suspend"] is True
    assert status["lastInterruption"]["reason"] == "SuspendRequested"
    await hand.client.merge_patch(paths.run(hand.key), {"spec": {"runPolicy": {"suspend": False}}})
    second = await hand.start_pod()
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    status = await hand.until_phase("Preparing")
    assert {c["type"]: c["status"] for c in status["conditions"]}["Suspended"] == "False"


async def run_plan(hand: Hand) -> dict[str, Any]:
    """The ConfigMap that the pods mount."""
    return await hand.client.get(paths.single("ConfigMap", hand.key.namespace, f"{hand.key.name}-run"))


@pytest.mark.parametrize("restarted", [False, True], ids=["up", "operator-restarted"])
async def test_more_epochs_reach_the_plan_and_nothing_else_does(hand: Hand, restarted: bool) -> None:
    hand = Hand(hand.client, hand.operator, JobKey(hand.key.namespace, f"more-{restarted}".lower()))
    await hand.create()
    pod = await hand.start_pod()
    await hand.until_phase("Preparing")
    token = await hand.token(pod)
    assert (await hand.report(token, REPORT))[0] == 204
    await hand.until_phase("Running", but=lambda s: s.get("progress", {}).get("epochs") == 10)
    path = paths.single("ConfigMap", hand.key.namespace, f"{hand.key.name}-run")
    plan = json.loads((await run_plan(hand))["data"]["run.json"])
    plan["training"] |= {"epochs": 10, "seed": 77}  # as an older version might have written it
    plan["another"] = {"versions": "field"}
    older = {"data": {"run.json": json.dumps(plan, sort_keys=True, indent=2)}}
    before = await hand.client.merge_patch(path, older)
    if restarted:
        hand.operator.kill()
        hand.operator.start()
    await hand.client.merge_patch(paths.run(hand.key), {"spec": {"training": {"epochs": 300}}})

    async def raised() -> bool:
        return (await run_plan(hand))["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]

    await until("the plan raised", raised)
    after = await run_plan(hand)
    plan["training"]["epochs"] = 300
    assert after["data"] == {"run.json": json.dumps(plan, sort_keys=True, indent=2)}
    said = "300 epochs instead of 10: takes effect at the end of the running epoch, or at the next attempt."
    status = await hand.until_phase("Running", but=lambda s: said in s["message"])
    assert status["progress"]["epochs"] == 10
    progress = {**REPORT["progress"], "epochs": 300}
    assert (await hand.report(token, {**REPORT, "sequence": 2, "progress": progress}))[0] == 204
    await hand.until_phase("Running", but=lambda s: s["message"] == "Training.")
    await until_events(hand, "Staging", "Training", "EpochsRaised")


async def test_a_stale_checkpoint_is_said_until_one_is_committed(
    hand: Hand, control_plane: ControlPlane
) -> None:
    def waited(state: str) -> None:
        condition = f"--for=condition=CheckpointStale={state}"
        about = f"rtj/{hand.key.name}"
        control_plane.kubectl("-n", hand.key.namespace, "wait", condition, about, "--timeout=30s")

    await hand.create()
    pod = await hand.start_pod()
    await hand.until_phase("Preparing")
    token = await hand.token(pod)
    saved = {"uri": "s3://runs/x/1", "step": 100, "epoch": 1, "time": "2026-01-02T03:04:05Z", "bytes": 9}
    stale = {"since": "2026-01-02T03:04:05Z", "reason": "StoreUnavailable"}
    away = {
        **REPORT,
        "message": "S3 doesn't answer.",
        "checkpoint": {"latest": saved, "stale": stale},
    }
    assert (await hand.report(token, away))[0] == 204
    waited("True")
    said = "Nothing has been committed since 2026-01-02T03:04:05Z: S3 doesn't answer."
    status = await hand.until_phase("Running", but=lambda s: s["message"] == said)
    (condition,) = [c for c in status["conditions"] if c["type"] == "CheckpointStale"]
    assert (condition["reason"], condition["message"]) == ("StoreUnavailable", said)
    back = {**REPORT, "sequence": 2, "checkpoint": {"latest": {**saved, "step": 120}}}
    assert (await hand.report(token, back))[0] == 204
    waited("False")
    status = await hand.until_phase("Running", but=lambda s: s["message"] == "Training.")
    assert "stale" not in status["checkpoint"]
    await until_events(hand, "Staging", "Training", "CheckpointStale")


async def test_a_taken_name_is_said_and_waited_for(hand: Hand) -> None:
    path = paths.collection("Service", hand.key.namespace)
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": hand.key.name}}
    await hand.client.post(path, {**theirs, "spec": {"clusterIP": "None"}})
    await hand.create()
    status = await hand.until_phase("Pending")
    assert "isn't this run's is in the way" in status["message"]
    (accepted,) = [c for c in status["conditions"] if c["type"] == "Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "NameTaken")
    with pytest.raises(ApiError):
        await hand.job()
    await delete(hand.client, f"{path}/{hand.key.name}")
    await hand.client.merge_patch(paths.run(hand.key), {"metadata": {"annotations": {"look": "again"}}})
    await hand.until_phase("Pending", but=lambda s: "jobName" in s)


async def test_an_unknown_preset_fails(hand: Hand) -> None:
    await hand.client.post(paths.runs(hand.key.namespace), _with_preset(hand.key, "nosuch"))
    status = await hand.until_phase("Failed")
    assert "choose one of" in status["message"]


def _with_preset(key: JobKey, preset: str) -> dict[str, Any]:
    return {
        "apiVersion": "rectrain.dev/v1alpha1",
        "kind": "RecTrainingJob",
        "metadata": {"name": key.name},
        "spec": {
            "model": {"preset": preset},
            "data": {"train": "s3://data/x"},
            "checkpoint": {"uri": "s3://runs/x"},
        },
    }


async def test_what_the_job_refuses_is_said(hand: Hand) -> None:
    manifest = _with_preset(hand.key, "svtr_nano")
    manifest["spec"]["replicas"] = {"nodeSelector": {"not a key": "x"}}
    await hand.client.post(paths.runs(hand.key.namespace), manifest)
    status = await hand.until_phase("Failed")
    assert "nodeSelector" in status["message"]


async def test_a_missing_secret_is_said(hand: Hand) -> None:
    await hand.create()
    pod = await hand.live_pod()
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3-keys" not found'}
    await hand.set_pod(pod, "Pending", {"waiting": waiting})
    status = await hand.until_phase("Pending", but=lambda s: "s3-keys" in s["message"])
    assert {c["type"]: c["reason"] for c in status["conditions"]}["Running"] == "ContainerWaiting"


async def test_a_killed_operator_loses_and_doubles_nothing(hand: Hand) -> None:
    await hand.create()
    pod = await hand.start_pod()
    assert (await hand.report(await hand.token(pod), {**REPORT, "attempt": 2, "sequence": 7}))[0] == 204
    await hand.until_phase("Running")
    await hand.end_pod(pod, 69, words(exitCode=69, reason="StoreUnavailable", message="S3 stayed away."))
    before = await hand.until_phase("Restarting")
    job = (await hand.job())["metadata"]["uid"]
    hand.operator.kill()
    hand.operator.start()
    second = await hand.start_pod()  # made by the Job controller after its back-off
    after = await hand.until_phase("Preparing")
    assert after["restarts"] == before["restarts"]
    assert after["startTime"] == before["startTime"]
    assert after["progress"]["text"] == "42%"
    assert (await hand.job())["metadata"]["uid"] == job
    token = await hand.token(second)
    assert (await hand.report(token, {**REPORT, "attempt": 1, "sequence": 1}))[0] == 409
    assert (await hand.report(token, {**REPORT, "attempt": 3, "sequence": 1}))[0] == 204
    await hand.until_phase("Running", but=lambda s: s["attempt"] == 3)


@pytest.mark.parametrize("pod_gone", [False, True], ids=["pod-there", "pod-gone"])
async def test_finished_while_the_operator_was_down(hand: Hand, pod_gone: bool) -> None:
    hand = Hand(hand.client, hand.operator, JobKey(hand.key.namespace, f"down-{pod_gone}".lower()))
    await hand.create()
    pod = await hand.start_pod()
    await hand.until_phase("Preparing")
    hand.operator.kill()
    await hand.end_pod(pod, 0, DONE)

    async def complete() -> bool:
        conditions = (await hand.job())["status"].get("conditions") or []
        return any(c["type"] == "Complete" for c in conditions)

    await until("job complete", complete)
    if pod_gone:
        await delete(hand.client, paths.itself({**pod, "kind": "Pod"}))
    assert (await hand.status())["phase"] == "Preparing"
    hand.operator.start()
    status = await hand.until_phase("Succeeded")
    (condition,) = [c for c in status["conditions"] if c["type"] == "Succeeded"]
    if pod_gone:
        assert condition["reason"] == "ResultUnread"
        assert "s3://runs/minimal/export" in status["message"]
    else:
        assert condition["reason"] == "Completed"
        assert status["metrics"]["accuracyText"] == "97.0%"


async def test_a_job_deleted_by_hand_comes_again(hand: Hand) -> None:
    await hand.create()
    await hand.until_phase("Pending", but=lambda s: "pod" in s)
    first = await hand.job()
    await delete(hand.client, paths.single("Job", *hand.key) + "?propagationPolicy=Background")

    async def again() -> bool:
        try:
            return bool((await hand.job())["metadata"]["uid"] != first["metadata"]["uid"])
        except ApiError:
            return False

    await until("another job", again)
    await until_events(hand, "JobDeleted")


async def test_a_finished_runs_job_is_not_made_again(hand: Hand) -> None:
    await hand.create()
    pod = await hand.start_pod()
    await hand.end_pod(pod, 0, DONE)
    over = await hand.until_phase("Succeeded")
    await delete(hand.client, paths.single("Job", *hand.key) + "?propagationPolicy=Background")
    other = Hand(hand.client, hand.operator, JobKey(hand.key.namespace, "after-the-finished-one"))
    await other.create()
    await other.until_phase("Pending")
    assert await hand.status() == over
    with pytest.raises(ApiError, match="not found"):
        await hand.job()


async def test_a_stale_view_overwrites_nothing(hand: Hand) -> None:
    await hand.create()
    await hand.until_phase("Pending", but=lambda s: "pod" in s)
    run = await hand.run()
    newer = await hand.client.merge_patch(
        paths.run(hand.key), {"metadata": {"annotations": {"newer": "version"}}}
    )
    assert newer["metadata"]["resourceVersion"] != run["metadata"]["resourceVersion"]
    patch = {
        "metadata": {"resourceVersion": run["metadata"]["resourceVersion"]},
        "status": {"message": "stale"},
    }
    with pytest.raises(ApiError) as refused:
        await hand.client.merge_patch(paths.run_status(hand.key), patch)
    assert refused.value.status == 409
    assert status_patch(run, (await _status_model(hand))) is None


async def _status_model(hand: Hand) -> Any:
    from rectrain_api.status import RecTrainingJobStatus

    return RecTrainingJobStatus.model_validate(await hand.status())


async def test_deletion_leaves_nothing(hand: Hand) -> None:
    await hand.create()
    await hand.live_pod()
    await hand.delete()
    selector = {"labelSelector": f"rectrain.dev/job={hand.key.name}"}

    async def nothing() -> bool:
        for kind in ("Job", "Pod", "ConfigMap", "Service"):
            if (await hand.client.get(paths.collection(kind, hand.key.namespace), selector))["items"]:
                return False
        return True

    await until("nothing left", nothing)


def test_its_rights_were_enough_and_it_answers_probes(operator: OperatorProcess) -> None:
    assert operator.get("/healthz") == (200, "ok")
    assert "rectrain_reconciles_total" in operator.get("/metrics")[1]
    log = operator.log.read_text()
    assert "forbidden" not in log.lower()
    assert "Traceback" not in log
    assert '"job": "operator-tests/' in log


async def test_an_api_server_restart_is_survived(hand: Hand, control_plane: ControlPlane) -> None:
    control_plane.stop_component("kube-apiserver", kill=True)
    assert hand.operator.get("/healthz")[0] == 200
    control_plane.start_component("kube-apiserver")
    await hand.create()
    await hand.start_pod()
    await hand.until_phase("Preparing")


def test_sigterm_ends_it_well(operator: OperatorProcess) -> None:
    assert operator.stop() == 0
