"""The small parts: status patches, what is kept of objects, stores, tokens, health, logs."""

import base64
import json
import logging
from typing import Any

import pytest

from rectrain_api.status import Phase, Progress, RecTrainingJobStatus
from rectrain_operator import paths
from rectrain_operator.cluster import Cluster, JobSink, PodSink
from rectrain_operator.events import NOTE_BYTES, build_event, reference_of
from rectrain_operator.keys import JobKey
from rectrain_operator.limits import WriteLimits
from rectrain_operator.logs import JsonFormatter
from rectrain_operator.queue import WorkQueue
from rectrain_operator.resync import FeedMonitor
from rectrain_operator.seen import EventNote
from rectrain_operator.status_patch import merge_diff, status_patch
from rectrain_operator.tokens import POD_NAME, POD_UID, REMEMBERED_S, Bearer, Tokens
from rectrain_operator.views import job_view, pod_view
from tests.unit.operator import make
from tests.unit.operator.test_queue import Clock

KEY = JobKey("team", "run")


@pytest.mark.parametrize(
    ("old", "new", "diff"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 2, "b": 3}),
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"c": 1}}, {"a": None, "b": {"d": None}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
    ],
)
def test_merge_diff(old: dict[str, Any], new: dict[str, Any], diff: dict[str, Any]) -> None:
    assert merge_diff(old, new) == diff


def test_a_status_patch_carries_the_version_that_was_seen() -> None:
    run = make.run()
    status = RecTrainingJobStatus(phase=Phase.RUNNING, progress=Progress(eta="1m"))
    patch = status_patch(run, status)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert patch["status"]["phase"] == "Running"
    run["status"] = status.to_dict()
    assert status_patch(run, status) is None
    gone = status.model_copy(update={"progress": None})
    assert status_patch(run, gone) == {
        "metadata": {"resourceVersion": "7"},
        "status": {"progress": None},
    }


def pod_manifest(**status: Any) -> dict[str, Any]:
    """A pod as the API server gives it."""
    return {
        "metadata": {
            "name": "run-0-a",
            "namespace": "team",
            "uid": "pod-uid",
            "resourceVersion": "5",
            "creationTimestamp": make.EARLIER,
            "labels": {"rectrain.dev/job": "run"},
            "ownerReferences": [{"uid": "job-uid", "controller": True}],
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def test_pod_view() -> None:
    ended = {"exitCode": 75, "reason": "Error", "message": "m", "finishedAt": make.JUST_NOW}
    view = pod_view(
        pod_manifest(
            phase="Failed",
            containerStatuses=[
                {"name": "sidecar", "state": {"running": {}}},
                {"name": "trainer", "state": {"terminated": ended}},
            ],
            conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
        )
    )
    assert view.terminated is not None
    assert (view.terminated.exit_code, view.running, view.ended, view.job_uid) == (75, False, True, "job-uid")
    assert view.disruption is not None


def test_job_view() -> None:
    done = {"type": "Complete", "status": "True", "reason": "CompletionsReached", "lastTransitionTime": "t"}
    view = job_view(
        {
            "metadata": {"name": "run", "uid": "u", "resourceVersion": "3", "deletionTimestamp": "t"},
            "spec": {"backoffLimit": 4, "completions": 3},
            "status": {"conditions": [done]},
        }
    )
    assert (view.finished, view.deleting, view.owner_uid, view.backoff_limit) == (True, True, "", 4)
    assert (view.completions, view.decided) == (3, "")


@pytest.mark.parametrize(
    ("kind", "found"), [("SuccessCriteriaMet", "succeeding"), ("FailureTarget", "failing")]
)
def test_a_job_of_which_the_end_is_decided(kind: str, found: str) -> None:
    decided = {"type": kind, "status": "True", "lastTransitionTime": make.JUST_NOW}
    view = job_view(
        {
            "metadata": {"name": "run", "uid": "u", "resourceVersion": "3"},
            "spec": {},
            "status": {"conditions": [decided]},
        }
    )
    assert (view.finished, view.decided, view.completions) == (False, make.JUST_NOW, 1)
    assert getattr(view, found) is not None


def cluster() -> Cluster:
    """An empty one."""
    clock = Clock()
    return Cluster(WorkQueue(clock), clock)


def versioned(manifest: dict[str, Any], version: int) -> dict[str, Any]:
    """The same object at another version."""
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(version)}}


def test_versions_never_go_back() -> None:
    known = cluster()
    known.run_changed(versioned(make.run(), 9))
    known.run_changed(versioned(make.run(), 8))
    found = known.runs.get(KEY)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "9"


def test_all_pods_of_a_run_may_go_at_once() -> None:
    known = cluster()
    for index in range(64):
        known.pods.put(KEY, make.running(f"run-{index}-a", index=index))
        known.pods.mark_gone(KEY, f"uid-run-{index}-a")
    assert len(known.pods.of(KEY)) == 64


def test_a_deleted_run_does_not_take_its_successor_along() -> None:
    known = cluster()
    successor = make.run()
    successor["metadata"]["uid"] = "another"
    known.run_changed(versioned(successor, 9))
    known.run_deleted(make.run())
    assert known.runs.get(KEY) is not None


def test_a_successor_seen_first_inherits_nothing() -> None:
    known = cluster()
    known.run_changed(versioned(make.run(), 7))
    old = make.running()
    known.pods.put(KEY, old)
    known.pods.mark_gone(KEY, old.uid)
    known.reports.put(KEY, make.taken(old, make.report(attempt=5)))
    known.made("run-uid", "CA", make.PRESENT)
    successor = make.run()
    successor["metadata"]["uid"] = "another"
    known.run_changed(versioned(successor, 9))
    assert known.reports.get(KEY) is None
    assert known.pods.of(KEY) == ()
    assert known.present("run-uid", "CA") == frozenset()
    known.reports.put(KEY, make.taken(old))
    known.run_changed(versioned(successor, 10))
    known.run_deleted(make.run())
    assert known.reports.get(KEY) is not None, "its own stay"


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        (paths.run(JobKey("a/b", "../c")), "namespaces/a%2Fb/rectrainingjobs/..%2Fc"),
        (paths.single("Pod", "a?b", "c#d"), "namespaces/a%3Fb/pods/c%23d"),
    ],
)
def test_paths_are_quoted(path: str, quoted: str) -> None:
    assert path.endswith(quoted)


def test_what_vanished_while_nobody_looked_is_gone() -> None:
    told = []
    known = cluster()
    known.pod_gone = lambda pod: told.append(pod.uid)
    pods, jobs = PodSink(known, None), JobSink(known, None)
    pods.changed(pod_manifest(phase="Running"))
    job = {
        "metadata": {**pod_manifest()["metadata"], "name": "run", "uid": "job-uid"},
        "spec": {},
    }
    jobs.changed(job)
    pods.listed([])
    jobs.listed([])
    (pod,) = known.pods.of(KEY)
    assert pod.gone
    assert told == ["pod-uid"]
    assert known.jobs.get(KEY) is None
    known.pods.drop_counted(KEY, ["pod-uid"])
    assert known.pods.of(KEY) == ()


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    known = cluster()
    PodSink(known, "team").changed(pod_manifest(phase="Running"))
    PodSink(known, "other").listed([])
    assert not known.pods.of(KEY)[0].gone


class Reviews:
    """Stands in for the API server's answers to TokenReviews: the one part here that isn't the real thing,
    because only so can the number of questions be seen."""

    def __init__(self) -> None:
        self.asked = 0

    async def post(self, path: str, body: dict[str, Any], *, limits: WriteLimits) -> dict[str, Any]:
        self.asked += 1
        if not body["spec"]["token"].endswith(".good"):
            return {"status": {"authenticated": False}}
        user = {
            "username": "system:serviceaccount:team:default",
            "extra": {POD_NAME: ["run-0-a"], POD_UID: ["pod-uid"]},
        }
        audiences = body["spec"]["audiences"]
        return {"status": {"authenticated": True, "audiences": audiences, "user": user}}


def jwt(audience: Any, *, signature: str = "good") -> str:
    """A token that says it is for this audience."""
    claims = base64.urlsafe_b64encode(json.dumps({"aud": audience}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.{signature}"


async def test_tokens_are_remembered_for_a_minute_or_until_the_pod_goes() -> None:
    clock, reviews = Clock(), Reviews()
    tokens = Tokens(reviews, clock)  # type: ignore[arg-type]
    good = jwt(["a", "b"])
    assert await tokens.bearer(good, "a") == Bearer("team", "run-0-a", "pod-uid")
    await tokens.bearer(good, "a")
    assert reviews.asked == 1
    await tokens.bearer(good, "b")
    assert reviews.asked == 2, "another audience is another question"
    tokens.drop_pod("pod-uid")
    await tokens.bearer(good, "a")
    assert reviews.asked == 3
    clock.now += REMEMBERED_S
    await tokens.bearer(good, "a")
    assert reviews.asked == 4
    assert await tokens.bearer(jwt("a", signature="forged"), "a") is None
    assert reviews.asked == 5


@pytest.mark.parametrize(
    "token",
    ["garbage", "a.b", "a.!.c", jwt("another"), jwt(None), jwt({"a": 1}), "x." + "W10" + ".y", "..", "ü.ü.ü"],
)
async def test_what_cannot_be_a_token_of_this_run_is_refused_unasked(token: str) -> None:
    reviews = Reviews()
    assert await Tokens(reviews, Clock()).bearer(token, "a") is None  # type: ignore[arg-type]
    assert reviews.asked == 0


async def test_questions_about_tokens_have_limits_of_their_own() -> None:
    used = []

    class Noting(Reviews):
        async def post(self, path: str, body: dict[str, Any], *, limits: WriteLimits) -> dict[str, Any]:
            used.append(limits)
            return await super().post(path, body, limits=limits)

    tokens = Tokens(Noting(), Clock())  # type: ignore[arg-type]
    for number in range(3):
        await tokens.bearer(jwt("a", signature=str(number)), "a")
    assert len(used) == 3
    assert len(set(map(id, used))) == 1


def test_a_dead_feed_is_noticed() -> None:
    monitor = FeedMonitor()
    run = versioned(make.run(), 7)
    monitor.brought(run, deleted=False)
    monitor.listed({KEY: 7})
    assert not monitor.waiting
    monitor.listed({KEY: 8})
    assert monitor.waiting
    assert not monitor.dead.is_set(), "kopf gets a while to bring it"
    monitor.listed({KEY: 8})
    assert monitor.dead.is_set()
    monitor.started()
    assert not monitor.dead.is_set()


def test_a_slow_feed_is_no_dead_feed() -> None:
    monitor = FeedMonitor()
    monitor.listed({KEY: 8})
    monitor.brought(versioned(make.run(), 8), deleted=False)
    monitor.listed({KEY: 9})
    assert not monitor.dead.is_set()


def test_an_event_has_one_name_and_a_bounded_note() -> None:
    note = EventNote("Warning", "Failed", "ü" * 2000, "key")
    first, second = (
        build_event(reference_of(make.run()), note, instance="host", now=make.NOW) for _ in range(2)
    )
    assert first == second
    assert len(first["note"].encode()) <= NOTE_BYTES
    other = build_event(
        reference_of(make.run()), EventNote("Warning", "Failed", "m", "other"), instance="h", now=make.NOW
    )
    assert other["metadata"]["name"] != first["metadata"]["name"]


def test_log_lines_are_json_and_name_the_run() -> None:
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "phase changed", "job": "team/run", "thing": object()}
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["job"]) == ("phase changed", "team/run")
    assert "thing" not in line
