"""Who may report for a run: its current pod, and nobody else."""

import json
from typing import Any

import aiohttp
import pytest

from rectrain_api.report import report_audience
from rectrain_local.controlplane import ControlPlane
from rectrain_operator import paths
from rectrain_operator.keys import JobKey, Manifest
from tests.integration.operator.conftest import Hand, delete, words
from tests.integration.operator.test_operator import REPORT

OTHER = "operator-tests-other"


def bare_pod(name: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod that somebody of the namespace made."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "containers": [{"name": "trainer", "image": "x"}],
            "nodeSelector": {"rectrain.dev/no": "node"},
        },
    }


async def running(hand: Hand) -> Manifest:
    """A run whose pod runs."""
    await hand.create()
    pod = await hand.start_pod()
    await hand.until_phase("Preparing")
    return pod


async def test_tokens_that_are_not_for_this_run(hand: Hand) -> None:
    pod = await running(hand)
    for token in (
        "",
        "garbage",
        await hand.token(pod, "https://kubernetes.default.svc.cluster.local"),
        await hand.token(pod, report_audience("another-run")),
    ):
        status, _ = await hand.report(token, REPORT)
        assert status == 401, token[:20]
    assert "reportSequence" not in await hand.status()


async def test_pods_that_are_not_the_runs_own(hand: Hand, control_plane: ControlPlane) -> None:
    await running(hand)
    uid = (await hand.run())["metadata"]["uid"]
    control_plane.kubectl("create", "namespace", OTHER, check=False)
    for namespace in (hand.key.namespace, OTHER):
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        for _ in range(100):  # a new namespace gets its service account a moment later
            try:
                await hand.client.get(account)
                break
            except Exception as missing:
                last = missing
        else:
            raise last
        labels = {"rectrain.dev/job": hand.key.name, "app.kubernetes.io/managed-by": "rectrain-operator"}
        stranger = await hand.client.post(paths.collection("Pod", namespace), bare_pod("stranger", labels))
        token = await hand.token(stranger, report_audience(uid))
        assert (await hand.report(token, REPORT))[0] == 403
    control_plane.kubectl("delete", "namespace", OTHER, "--wait=false")


async def test_a_run_that_is_not_there(hand: Hand) -> None:
    pod = await running(hand)
    status, _ = await hand.report(await hand.token(pod), REPORT, JobKey(hand.key.namespace, "nosuch"))
    assert status == 403


async def test_an_old_pod(hand: Hand) -> None:
    old = await running(hand)
    token = await hand.token(old)
    assert (await hand.report(token, REPORT))[0] == 204
    await hand.end_pod(old, 69, words(exitCode=69, reason="StoreUnavailable", message="Away."))
    await hand.until_phase("Restarting")
    assert (await hand.report(token, {**REPORT, "sequence": 2}))[0] == 403


async def test_a_deleted_pod_has_no_say(hand: Hand) -> None:
    pod = await running(hand)
    token = await hand.token(pod)
    await delete(hand.client, paths.itself({**pod, "kind": "Pod"}))
    await hand.until_phase("Restarting")
    # 401 once the API server itself has forgotten the token, which it may remember for some seconds
    assert (await hand.report(token, REPORT))[0] in (401, 403)


async def test_order(hand: Hand) -> None:
    pod = await running(hand)
    token = await hand.token(pod)
    staging = {"attempt": 0, "sequence": 1, "stage": "Staging"}
    assert (await hand.report(token, staging))[0] == 204
    assert (await hand.report(token, {**REPORT, "attempt": 3, "sequence": 5}))[0] == 204
    for attempt, sequence in ((3, 5), (3, 4), (2, 9), (0, 9)):
        status, body = await hand.report(token, {**REPORT, "attempt": attempt, "sequence": sequence})
        assert status == 409, body
    status, body = await hand.report(token, {**REPORT, "attempt": 3, "sequence": 6})
    assert status == 204, body
    await hand.until_phase("Running", but=lambda s: s["reportSequence"] == 6 and s["attempt"] == 3)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b"{", 422, "Invalid JSON", id="no-json"),
        pytest.param(json.dumps({**REPORT, "stage": "Sleeping"}).encode(), 422, "stage", id="stage"),
        pytest.param(json.dumps({**REPORT, "sequence": 0}).encode(), 422, "sequence", id="sequence"),
        pytest.param(json.dumps({**REPORT, "extra": 1}).encode(), 422, "extra", id="unknown-field"),
        pytest.param(b'{"metrics": {"loss": NaN}}', 422, "", id="nan"),
        pytest.param(b" " * 65_537, 413, "65536 bytes", id="too-big"),
    ],
)
async def test_bodies(hand: Hand, body: bytes, status: int, message: str) -> None:
    name = "report-bodies"
    hand = Hand(hand.client, hand.operator, JobKey(hand.key.namespace, name))
    known = (await hand.client.get(paths.runs(hand.key.namespace)))["items"]
    if not any(run["metadata"]["name"] == name for run in known):
        await running(hand)
    answer, said = await hand.report(await hand.token(await hand.live_pod()), body)
    assert answer == status
    assert message in said


async def test_a_finished_run_takes_no_report(hand: Hand) -> None:
    pod = await running(hand)
    token = await hand.token(pod)
    await hand.end_pod(pod, 0, words(exitCode=0, reason="Completed"))
    await hand.until_phase("Succeeded")
    assert (await hand.report(token, REPORT))[0] in (403, 409)


async def test_only_https_with_our_ca(hand: Hand) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.put(hand.operator.report_url.replace("https", "http"))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.put(hand.operator.report_url)
