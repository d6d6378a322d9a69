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
from rectrain_operator.tokens import Tokens
from rectrain_operator.views import PodView
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
    reconciler = Reconciler(
        api,  # type: ignore[arg-type]
        cluster,
        lambda: make.SETTINGS,
        now=lambda: make.NOW,
        instance="test",
    )
    await reconciler.reconcile(KEY)
    return api.status


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


async def test_a_namesakes_pod_may_not_report() -> None:
    """Its label says whose it is, whatever its owner is."""
    assert not replace(make.running(), run_uid="older").belongs_to("run-uid", "job-uid")
    assert make.running().belongs_to("run-uid", "job-uid")
    assert not make.running().belongs_to("run-uid", None)
