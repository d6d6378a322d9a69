"""`decide` over a table of what may be seen of a run."""

from dataclasses import replace
from typing import Any

import pytest

from rectrain_api.plan import RunPlan
from rectrain_api.report import Stage
from rectrain_api.status import Interruption, Metrics, Phase, Progress, RecTrainingJobStatus, Restarts
from rectrain_operator.decide import decide
from rectrain_operator.seen import Refusal, Seen
from rectrain_operator.views import Note
from tests.unit.operator import make
from tests.unit.operator.make import ended, job, pod, report, running, seen, taken, words

INTERRUPTED = make.STARTED.model_copy(
    update={
        "last_interruption": Interruption(
            reason="OutOfMemory", message="Oh.", time=make.JUST_NOW, pod="run-0-z"
        ),
        "restarts": Restarts(oom=1),
        "counted_pods": ["uid-run-0-z"],
    }
)
SUSPEND = make.run(policy={"suspend": True})
WAITING = Note("CreateContainerConfigError", 'secret "keys" not found')
LOST = Note("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")


def phase(of: Phase) -> RecTrainingJobStatus:
    return make.STARTED.model_copy(update={"phase": of})


@pytest.mark.parametrize(
    ("what", "expected", "in_message"),
    [
        pytest.param(
            seen(status=make.STARTED.model_copy(update={"start_time": make.JUST_NOW})),
            Phase.PENDING,
            "Waiting for the Job controller",
            id="job-just-made",
        ),
        pytest.param(seen(), Phase.PENDING, "quota", id="no-pod-for-long"),
        pytest.param(seen(pod()), Phase.PENDING, "Waiting for a node", id="pod-not-scheduled-yet"),
        pytest.param(
            seen(pod(unschedulable=Note("Unschedulable", "0/3 nodes: 3 Insufficient nvidia.com/gpu"))),
            Phase.PENDING,
            "Insufficient nvidia.com/gpu",
            id="no-node-fits",
        ),
        pytest.param(
            seen(running(unheard=make.JUST_NOW)),
            Phase.RUNNING,
            "kubectl delete node node-1",
            id="node-not-heard",
        ),
        pytest.param(
            seen(running(deletion="2026-01-02T12:00:20Z")),
            Phase.PREPARING,
            "The trainer is starting.",
            id="pod-being-deleted-in-time",
        ),
        pytest.param(
            seen(running(deletion="2026-01-02T11:59:30Z")),
            Phase.RESTARTING,
            "node-1 doesn't confirm",
            id="pod-not-gone-in-time",
        ),
        pytest.param(
            seen(pod(node="node-1", waiting=Note("ContainerCreating", ""))),
            Phase.PENDING,
            "node-1 is starting",
            id="container-creating",
        ),
        pytest.param(
            seen(pod(waiting=Note("ErrImagePull", "not found"))),
            Phase.PENDING,
            "replicas.image",
            id="image-unavailable",
        ),
        pytest.param(
            seen(pod(waiting=WAITING)), Phase.PENDING, 'secret "keys" not found', id="secret-missing"
        ),
        pytest.param(
            seen(pod(waiting=replace(WAITING, message="couldn't find key c.yml in ConfigMap team/models"))),
            Phase.PENDING,
            "Create the ConfigMap that model.config names",
            id="config-missing",
        ),
        pytest.param(seen(running()), Phase.PREPARING, "starting", id="running-but-silent"),
        pytest.param(
            seen(running(), report=taken(running(), report(Stage.STAGING))),
            Phase.PREPARING,
            "Fetching",
            id="staging",
        ),
        pytest.param(
            seen(running(), report=taken(running(), report(Stage.STAGING, message="S3 is away"))),
            Phase.PREPARING,
            "S3 is away",
            id="staging-while-s3-is-away",
        ),
        pytest.param(
            seen(running(), report=taken(running(), report(Stage.CHECKING))),
            Phase.PREPARING,
            "Checking",
            id="checking",
        ),
        pytest.param(seen(running(), report=taken(running())), Phase.RUNNING, "Training", id="training"),
        pytest.param(
            seen(running(), report=taken(running(), report(Stage.EXPORTING))),
            Phase.RUNNING,
            "Exporting",
            id="exporting",
        ),
        pytest.param(
            seen(running("run-0-b"), report=taken(running("run-0-a"))),
            Phase.PREPARING,
            "starting",
            id="report-of-an-older-pod",
        ),
        pytest.param(seen(ended(137, reason="OOMKilled")), Phase.RESTARTING, "out of memory", id="oom"),
        pytest.param(
            seen(ended(69, message=words(69, "StoreUnavailable", "S3 stayed away."))),
            Phase.RESTARTING,
            "S3 stayed away.",
            id="s3-stayed-away",
        ),
        pytest.param(
            seen(ended(69, message=words(69, "StoreUnavailable", "S3 stayed away."))),
            Phase.RESTARTING,
            "2026-01-02T12:00:08Z",
            id="back-off-is-shown",
        ),
        pytest.param(
            seen(ended(75, at="2026-01-02T11:58:00Z", disruption=LOST)),
            Phase.RESTARTING,
            "DeletionByTaintManager",
            id="node-drained",
        ),
        pytest.param(
            seen(running(gone=True, deletion=make.JUST_NOW)),
            Phase.RESTARTING,
            "was deleted",
            id="pod-deleted",
        ),
        pytest.param(
            seen(pod("run-0-b"), status=INTERRUPTED), Phase.RESTARTING, "OutOfMemory", id="next-pod"
        ),
        pytest.param(
            seen(running("run-0-b"), status=INTERRUPTED), Phase.PREPARING, "starting", id="next-pod-runs"
        ),
        pytest.param(seen(running(), run=SUSPEND), Phase.SUSPENDING, "last checkpoint", id="suspend-asked"),
        pytest.param(
            seen(running(), batch=job(suspend=True), run=SUSPEND),
            Phase.SUSPENDING,
            "last checkpoint",
            id="suspending",
        ),
        pytest.param(
            seen(batch=job(suspend=True), run=SUSPEND), Phase.SUSPENDED, "set it to false", id="suspended"
        ),
        pytest.param(
            seen(ended(75, deletion=make.JUST_NOW, gone=True), batch=job(suspend=True), run=SUSPEND),
            Phase.SUSPENDED,
            "set it to false",
            id="suspended-after-a-pod",
        ),
        pytest.param(
            seen(ended(0, message=make.result())), Phase.RUNNING, "waiting for the Job", id="pod-done"
        ),
        pytest.param(
            seen(ended(0, message=make.result()), batch=make.complete()),
            Phase.SUCCEEDED,
            "10 epochs (500 steps), accuracy 97.2%",
            id="succeeded",
        ),
        pytest.param(
            seen(batch=make.complete()), Phase.SUCCEEDED, "s3://runs/run/export", id="result-unread"
        ),
        pytest.param(
            seen(ended(0), batch=make.complete()), Phase.SUCCEEDED, "s3://runs/run/export", id="no-last-words"
        ),
        pytest.param(
            seen(
                ended(65, message=words(65, "DatasetInvalid", "Line 7 has no tab.")),
                batch=make.job_failed("PodFailurePolicy"),
            ),
            Phase.FAILED,
            "Line 7 has no tab.",
            id="bad-data",
        ),
        pytest.param(
            seen(ended(66), batch=make.job_failed("PodFailurePolicy")),
            Phase.FAILED,
            "exit code 66",
            id="failed-without-words",
        ),
        pytest.param(
            seen(ended(70, message="Traceback\nboom"), batch=make.job_failed("BackoffLimitExceeded")),
            Phase.FAILED,
            "after 3 restarts",
            id="restarts-exhausted",
        ),
        pytest.param(
            seen(ended(70, message="Traceback\nboom"), batch=make.job_failed("BackoffLimitExceeded")),
            Phase.FAILED,
            "boom",
            id="restarts-exhausted-says-why",
        ),
        pytest.param(
            seen(ended(69), batch=make.job_failed("BackoffLimitExceeded", backoff_limit=0)),
            Phase.FAILED,
            "no restart is allowed",
            id="no-restart-allowed",
        ),
        pytest.param(
            seen(batch=make.job_failed("PodFailurePolicy")),
            Phase.FAILED,
            "s3://runs/run/attempts",
            id="failed-and-pod-gone",
        ),
        pytest.param(
            seen(batch=make.job_failed("DeadlineExceeded")),
            Phase.FAILED,
            "DeadlineExceeded",
            id="failed-by-something-else",
        ),
    ],
)
def test_phase_and_message(what: Seen, expected: Phase, in_message: str) -> None:
    decision = decide(what, make.NOW)
    assert decision.status.phase is expected
    assert in_message in (decision.status.message or "")


@pytest.mark.parametrize(
    ("what", "kind", "status", "reason"),
    [
        pytest.param(seen(running(), report=taken(running())), "Running", "True", "Training", id="running"),
        pytest.param(seen(running()), "Accepted", "True", "Accepted", id="accepted"),
        pytest.param(
            seen(running(), report=taken(running())), "DataReady", "True", "Checked", id="data-ready"
        ),
        pytest.param(
            seen(running(), report=taken(running(), report(Stage.STAGING))),
            "DataReady",
            "False",
            "Staging",
            id="data-not-ready",
        ),
        pytest.param(
            seen(running(), report=taken(running())), "Checkpointed", "False", "NoneYet", id="no-checkpoint"
        ),
        pytest.param(
            seen(running(), report=taken(running(), report(checkpoint=make.checkpoint()))),
            "Checkpointed",
            "True",
            "Committed",
            id="checkpoint",
        ),
        pytest.param(
            seen(batch=job(suspend=True), run=SUSPEND),
            "Suspended",
            "True",
            "SuspendRequested",
            id="suspended",
        ),
        pytest.param(
            seen(ended(0, message=make.result()), batch=make.complete()),
            "Succeeded",
            "True",
            "Completed",
            id="succeeded",
        ),
        pytest.param(
            seen(ended(0, message=words(0, "AlreadyComplete", "Nothing to do.")), batch=make.complete()),
            "Succeeded",
            "True",
            "AlreadyComplete",
            id="already-complete",
        ),
        pytest.param(seen(batch=make.complete()), "Succeeded", "True", "ResultUnread", id="unread"),
        pytest.param(
            seen(
                ended(65, message=words(65, "DatasetInvalid", "No.")),
                batch=make.job_failed("PodFailurePolicy"),
            ),
            "Failed",
            "True",
            "DatasetInvalid",
            id="failed",
        ),
        pytest.param(
            seen(ended(70), batch=make.job_failed("BackoffLimitExceeded")),
            "Failed",
            "True",
            "RestartsExhausted",
            id="exhausted",
        ),
        pytest.param(seen(batch=make.complete()), "Running", "False", "NotRunning", id="not-running"),
    ],
)
def test_conditions(what: Seen, kind: str, status: str, reason: str) -> None:
    found = {c.type: c for c in decide(what, make.NOW).status.conditions}[kind]
    assert (found.status, found.reason) == (status, reason)


def test_a_new_run_gets_its_children_job_last() -> None:
    new = Seen(run=make.run(), status=RecTrainingJobStatus(), settings=make.SETTINGS)
    decision = decide(new, make.NOW)
    made = [(c["kind"], c["metadata"]["name"]) for c in decision.children]
    assert made == [("ConfigMap", "run-run"), ("ConfigMap", "run-ca"), ("Service", "run"), ("Job", "run")]


def test_what_is_there_is_not_made_again() -> None:
    assert decide(seen(running()), make.NOW).children == ()
    without_ca = seen(running(), present=make.PRESENT - {"ConfigMap/run-ca"})
    assert [c["metadata"]["name"] for c in decide(without_ca, make.NOW).children] == ["run-ca"]


def test_an_unknown_preset_fails_before_anything_is_made() -> None:
    new = Seen(run=make.run(preset="nosuch"), status=RecTrainingJobStatus(), settings=make.SETTINGS)
    decision = decide(new, make.NOW)
    assert decision.children == ()
    assert decision.status.phase is Phase.FAILED
    assert '"nosuch"' in (decision.status.message or "")
    assert [e.kind for e in decision.events] == ["Warning"]


def test_a_running_run_does_not_depend_on_a_newer_schema() -> None:
    odd = make.run()
    odd["spec"]["data"] = {"train": "file:///old"}
    assert decide(seen(running(), run=odd, present=frozenset()), make.NOW).status.phase is Phase.PREPARING


def test_a_taken_name_waits_and_says_so_once() -> None:
    refusal = Refusal("NameTaken", "A Job named run is in the way.", final=False)
    new = Seen(run=make.run(), status=RecTrainingJobStatus(), settings=make.SETTINGS, refusal=refusal)
    first = decide(new, make.NOW)
    assert first.status.phase is Phase.PENDING
    assert first.status.message == refusal.message
    assert [e.reason for e in first.events] == ["NameTaken"]
    assert first.requeue_after_s
    again = decide(replace(new, status=first.status), make.NOW)
    assert again.events == ()
    assert again.status == first.status


def starting_from(name: str) -> dict[str, Any]:
    """A run that starts from another's best weights."""
    return make.run(model={"preset": "svtr_nano", "pretrained": {"fromJob": name}})


def plan_in(children: tuple[dict[str, Any], ...]) -> RunPlan:
    """run.json among these children."""
    [text] = [c["data"]["run.json"] for c in children if "run.json" in c.get("data", {})]
    return RunPlan.model_validate_json(text)


def test_a_run_whose_weights_are_missing_waits_and_starts_when_they_are_there() -> None:
    alone = Seen(run=starting_from("older"), status=RecTrainingJobStatus(), settings=make.SETTINGS)
    first = decide(alone, make.NOW)
    assert (first.status.phase, first.children, first.requeue_after_s) == (Phase.PENDING, (), 30.0)
    assert "RecTrainingJob older, which isn't in the namespace team: create it" in first.status.message or ""
    [accepted] = first.status.conditions
    assert (accepted.type, accepted.status, accepted.reason) == ("Accepted", "False", "PretrainedMissing")
    assert [e.reason for e in first.events] == ["PretrainedMissing"]
    again = decide(replace(alone, status=first.status), make.NOW)
    assert (again.status, again.events) == (first.status, ()), "said once"

    there = decide(replace(alone, status=first.status, source="s3://runs/older/"), make.NOW)
    pretrained = plan_in(there.children).model.pretrained
    assert pretrained is not None
    assert (pretrained.uri, pretrained.checkpoint) == ("s3://runs/older", "Best")
    assert there.status.pretrained == "s3://runs/older/"
    started = decide(seen(run=starting_from("older"), status=there.status), make.NOW)
    assert started.status.pretrained == "s3://runs/older/"
    assert next(c for c in started.status.conditions if c.type == "Accepted").status == "True"


def test_weights_are_looked_up_once() -> None:
    """Children that have to be made again are made of what was found first, whatever became of it."""
    status = make.STARTED.model_copy(update={"pretrained": "s3://runs/older"})
    run = starting_from("older")
    gone = seen(running(), run=run, status=status, present=frozenset())
    for what in (gone, replace(gone, source="s3://runs/elsewhere")):
        pretrained = plan_in(decide(what, make.NOW).children).model.pretrained
        assert pretrained is not None
        assert pretrained.uri == "s3://runs/older"


def test_a_run_that_would_start_from_itself_fails() -> None:
    new = Seen(
        run=starting_from("run"),
        status=RecTrainingJobStatus(),
        settings=make.SETTINGS,
        source="s3://runs/run",
    )
    status = decide(new, make.NOW).status
    assert status.phase is Phase.FAILED
    assert "this run's own place" in (status.message or "")


def test_a_final_refusal_fails() -> None:
    refusal = Refusal("InvalidSpec", "The API server refuses it.", final=True)
    new = Seen(run=make.run(), status=RecTrainingJobStatus(), settings=make.SETTINGS, refusal=refusal)
    assert decide(new, make.NOW).status.phase is Phase.FAILED


@pytest.mark.parametrize("end", [Phase.SUCCEEDED, Phase.FAILED])
def test_the_end_is_sticky(end: Phase) -> None:
    over = phase(end)
    for what in (seen(running(), status=over), replace(seen(status=over), batch=None, present=frozenset())):
        decision = decide(what, make.NOW)
        assert decision.status is over
        assert (decision.children, decision.job_patch, decision.events) == ((), None, ())


def test_a_deleted_run_is_left_to_garbage_collection() -> None:
    leaving = make.run()
    leaving["metadata"]["deletionTimestamp"] = make.JUST_NOW
    decision = decide(replace(seen(run=leaving), batch=None), make.NOW)
    assert decision.children == ()


def test_a_job_deleted_by_hand_is_made_again_with_a_warning() -> None:
    decision = decide(replace(seen(), batch=None), make.NOW)
    assert [c["kind"] for c in decision.children] == ["Job"]
    assert [(e.kind, e.reason) for e in decision.events] == [("Warning", "JobDeleted")]


@pytest.mark.parametrize(
    ("batch", "policy", "patch"),
    [
        pytest.param(job(), {"suspend": True}, {"suspend": True}, id="suspend"),
        pytest.param(job(suspend=True), {}, {"suspend": False}, id="resume"),
        pytest.param(job(), {"maxRestarts": 9}, {"backoffLimit": 9}, id="more-restarts"),
        pytest.param(job(), {}, None, id="in-line"),
        pytest.param(make.complete(), {"suspend": True}, None, id="over"),
        pytest.param(job(deleting=True), {"suspend": True}, None, id="being-deleted"),
    ],
)
def test_job_patch(batch: Any, policy: dict[str, Any], patch: dict[str, Any] | None) -> None:
    decision = decide(seen(batch=batch, run=make.run(policy=policy)), make.NOW)
    assert decision.job_patch == (None if patch is None else {"spec": patch})


def test_success_is_all_of_it() -> None:
    status = decide(seen(ended(0, message=make.result()), batch=make.complete()), make.NOW).status
    assert status.progress is not None
    assert (status.progress.percent, status.progress.text, status.progress.eta) == (100, "100%", None)
    assert status.progress.epoch_text == "10/10"
    assert status.metrics is not None
    assert (status.metrics.loss, status.metrics.accuracy_text) == (0.0123, "97.2%")
    assert (status.metrics.character_error_rate, status.metrics.upstream_acc) == (0.3333, 1.0)
    assert status.model is not None
    assert status.completion_time == make.JUST_NOW


def test_an_early_stop_is_still_all_of_it() -> None:
    half = make.STARTED.model_copy(
        update={"progress": Progress(epoch=4, epochs=10, step=200, steps=500, percent=40)}
    )
    status = decide(seen(batch=make.complete(), status=half), make.NOW).status
    assert status.progress is not None
    assert status.progress.text == "100%"


def test_what_a_report_leaves_out_stays() -> None:
    before = make.STARTED.model_copy(
        update={"metrics": Metrics(accuracy=0.5, accuracy_text="50.0%"), "attempt": 1}
    )
    staging = report(Stage.STAGING, attempt=0, sequence=1).model_copy(update={"progress": None})
    status = decide(seen(running(), status=before, report=taken(running(), staging)), make.NOW).status
    assert status.metrics == before.metrics
    assert status.attempt == 1


def test_a_replaced_pod_takes_its_stage_and_eta_along() -> None:
    first = decide(seen(running(), report=taken(running())), make.NOW).status
    assert first.progress is not None
    assert (first.progress.stage, first.progress.eta, first.progress.text) == ("Training", "12m", "42%")
    second = decide(seen(running("run-0-b"), status=first), make.NOW).status
    assert second.progress is not None
    assert (second.progress.stage, second.progress.eta, second.progress.text) == (None, None, "42%")
    assert second.pod == "run-0-b"


def test_a_pod_that_never_ran_is_no_interruption() -> None:
    status = decide(seen(pod(gone=True), batch=job(suspend=True), run=SUSPEND), make.NOW).status
    assert status.last_interruption is None
    assert status.restarts == Restarts()


def test_resuming_is_no_warning() -> None:
    suspended = decide(
        seen(ended(75, deletion=make.JUST_NOW, gone=True), batch=job(suspend=True), run=SUSPEND), make.NOW
    ).status
    resumed = decide(seen(status=suspended), make.NOW)
    assert resumed.status.phase is Phase.RESTARTING
    assert "Resuming" in (resumed.status.message or "")
    assert [(e.kind, e.reason) for e in resumed.events] == [("Normal", "Resumed")]
    assert {c.type: c.status for c in resumed.status.conditions}["Suspended"] == "False"


@pytest.mark.parametrize(
    "what",
    [
        seen(running(), report=taken(running())),
        seen(ended(137, reason="OOMKilled")),
        seen(batch=job(suspend=True), run=SUSPEND),
        seen(ended(65), ended(75, "run-0-b")),
    ],
)
def test_deciding_again_changes_nothing(what: Seen) -> None:
    once = decide(what, make.NOW)
    twice = decide(replace(what, status=once.status), make.NOW)
    assert twice.status == once.status
    assert twice.events == ()


def test_transition_time_moves_with_status_alone() -> None:
    first = decide(seen(running()), make.NOW).status
    later = make.NOW.replace(hour=13)
    second = decide(seen(running(), status=first, report=taken(running())), later).status
    times = {c.type: c.last_transition_time for c in second.conditions}
    assert times["Accepted"] == "2026-01-02T12:00:00Z"
    assert times["Running"] == "2026-01-02T13:00:00Z"


def test_words_that_were_read_outlive_their_pod() -> None:
    done = ended(0, message=make.result())
    before = decide(seen(done), make.NOW).status
    assert before.phase is Phase.RUNNING
    assert {c.type: c.status for c in before.conditions}["Succeeded"] == "False"
    waiting = decide(seen(status=before), make.NOW).status
    assert "waiting for the Job" in (waiting.message or "")
    after = decide(seen(batch=make.complete(), status=waiting), make.NOW).status
    assert after == decide(seen(done, batch=make.complete(), status=before), make.NOW).status
    found = {c.type: c for c in after.conditions}["Succeeded"]
    assert (found.status, found.reason) == ("True", "Completed")
    assert "10 epochs (500 steps), accuracy 97.2%" in (after.message or "")
    assert after.model is not None
