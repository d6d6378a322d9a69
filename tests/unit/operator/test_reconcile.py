"""One step of one run, without an API server: what belongs to it, and what doesn't."""

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from rectrain_operator.cluster import Cluster
from rectrain_operator.keys import JobKey
from rectrain_operator.queue import WorkQueue
from rectrain_operator.reconcile import Reconciler
from rectrain_operator.report_server import ReportServer
from rectrain_operator.tokens import Bearer, Tokens
from rectrain_operator.views import JobView, PodView
from tests.unit.operator import make
from tests.unit.operator.test_queue import Clock

KEY = JobKey("team", "run")


class Api:
    """Stands in for the API server: takes every write, and keeps the paths of what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status: dict[str, Any] = {}

    async def get(self, path: str, query: Any = None) -> dict[str, Any]:
        self.asked.append(path)
        return {"items": []}

    async def post(self, path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.asked.append(path)
        return body

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.status |= body["status"]
        return {**make.run(), "status": self.status}


def known(*pods: PodView) -> Cluster:
    """A cluster with the run, its Job and these pods."""
    clock = Clock()
    cluster = Cluster(WorkQueue(clock), clock)
    cluster.run_changed(make.run())
    cluster.jobs.put(KEY, make.job())
    cluster.made("run-uid", make.SETTINGS.ca_pem, make.PRESENT)
    for pod in pods:
        cluster.pods.put(KEY, pod)
    return cluster


async def status_after(cluster: Cluster) -> dict[str, Any]:
    """The status that one step writes."""
    api = Api()
    await reconciler(api, cluster).reconcile(KEY)
    return api.status


def reconciler(api: Api, cluster: Cluster) -> Reconciler:
    """One that asks this API server."""
    return Reconciler(
        api,  # type: ignore[arg-type]
        cluster,
        lambda: make.SETTINGS,
        now=lambda: make.NOW,
        instance="test",
    )


LAST_WORDS = make.words(75, "Interrupted", "Oh.", attempt=5, checkpoint=make.checkpoint())


@pytest.mark.parametrize(
    "old",
    [
        pytest.param(
            make.ended(75, message=LAST_WORDS, run_uid="older", job_uid="older-job"), id="by-its-label"
        ),
        pytest.param(make.ended(75, message=LAST_WORDS, job_uid="older-job"), id="without-label"),
    ],
)
async def test_the_end_of_a_deleted_namesake_is_not_counted(old: PodView) -> None:
    status = await status_after(known(old, make.running("run-0-b", run_uid="run-uid")))
    assert set(status) & {"lastInterruption", "attempt", "checkpoint"} == set()
    assert status["countedPods"] == []
    assert status["restarts"]["disruption"] == 0
    assert status["pod"] == "run-0-b"


async def test_a_pod_of_a_job_that_was_made_again_still_counts() -> None:
    old = make.ended(75, message=LAST_WORDS, run_uid="run-uid", job_uid="older-job")
    status = await status_after(known(old))
    assert status["restarts"]["disruption"] == 1
    assert status["attempt"] == 5


PODS_PATH = "/api/v1/namespaces/team/pods"
FAILED = make.job_failed("PodFailurePolicy", version=2, completions=2)
COMPLETE = replace(make.complete(), version=2, completions=2)


@pytest.mark.parametrize(
    ("batch", "pods", "looks"),
    [
        pytest.param(FAILED, [make.ended(65), make.running("run-1-b", index=1)], True, id="a-peer-not-seen"),
        pytest.param(
            FAILED, [make.running(), make.ended(65, "run-1-b", index=1)], True, id="index-0-not-seen"
        ),
        pytest.param(FAILED, [make.ended(75)], True, id="no-pod-of-an-index"),
        pytest.param(FAILED, [make.ended(75), make.ended(65, "run-1-b", index=1)], False, id="all-seen"),
        pytest.param(
            COMPLETE, [make.running(), make.ended(0, "run-1-b", index=1)], True, id="only-a-peers-success"
        ),
        pytest.param(COMPLETE, [make.ended(0)], False, id="the-success-of-index-0"),
    ],
)
async def test_ends_that_were_not_seen_are_looked_for_once(
    batch: JobView, pods: list[PodView], looks: bool
) -> None:
    cluster = known(*pods)
    cluster.jobs.put(KEY, batch)
    api = Api()
    await reconciler(api, cluster).reconcile(KEY)
    assert (PODS_PATH in api.asked) is looks


@pytest.mark.parametrize(
    "path",
    [
        "/v1/namespaces/..%2F..%2Fapi/rectrainingjobs/run/progress",
        "/v1/namespaces/team/rectrainingjobs/..%2F..%2Fsecrets%2Fkey/progress",
        "/v1/namespaces/team/rectrainingjobs/run%3Fwatch/progress",
        "/v1/namespaces/te.am/rectrainingjobs/run/progress",
        "/v1/namespaces/team/rectrainingjobs/" + "a" * 300 + "/progress",
    ],
)
async def test_a_report_for_what_is_no_name_asks_nothing(path: str) -> None:
    api = Api()
    tokens = Tokens(api, Clock())  # type: ignore[arg-type]
    app = ReportServer(api, known(), tokens).application()  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as http:
        answer = await http.put(path, headers={"Authorization": "Bearer x"})
    assert answer.status == 404
    assert api.asked == []


class AnyBearer:
    """Stands in for Tokens: a token is the name of its pod."""

    async def bearer(self, token: str, audience: str) -> Bearer:
        return Bearer("team", token, f"uid-{token}")


@pytest.mark.parametrize(("bearer", "answer"), [("run-0-a", 204), ("run-1-b", 403)])
async def test_of_several_pods_index_0_alone_may_report(bearer: str, answer: int) -> None:
    cluster = known(make.running(), make.running("run-1-b", index=1))
    app = ReportServer(Api(), cluster, AnyBearer()).application()  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as http:
        put = await http.put(
            "/v1/namespaces/team/rectrainingjobs/run/progress",
            headers={"Authorization": f"Bearer {bearer}"},
            data=make.report().model_dump_json(by_alias=True),
        )
    assert put.status == answer


async def test_a_namesakes_pod_may_not_report() -> None:
    """Its label says whose it is, whatever its owner is."""
    assert not replace(make.running(), run_uid="older").belongs_to("run-uid", "job-uid")
    assert make.running().belongs_to("run-uid", "job-uid")
    assert not make.running().belongs_to("run-uid", None)
