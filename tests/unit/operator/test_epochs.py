"""More epochs of a started run: when the run plan is raised, what is said, and what a step writes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rectrain_api.plan import plan
from rectrain_api.report import Stage
from rectrain_api.spec import RecTrainingJob
from rectrain_api.status import Phase
from rectrain_operator.client import ApiError
from rectrain_operator.cluster import Cluster
from rectrain_operator.decide import decide
from rectrain_operator.seen import Seen
from rectrain_operator.views import Note
from tests.unit.operator import make
from tests.unit.operator.make import ended, job, pod, report, running, seen, taken
from tests.unit.operator.test_reconcile import KEY, Api, known, reconciler

TWELVE = make.run(training={"epochs": 12})
SENTENCE = "12 epochs instead of {}: takes effect at the end of the running epoch, or at the next attempt."
SUSPENDED = make.run(training={"epochs": 12}, policy={"suspend": True})


def wants_twelve(*pods: Any, has: int | None = 6, **more: Any) -> Seen:
    return seen(*pods, **{"run": TWELVE, "plan_epochs": has, **more})


@pytest.mark.parametrize(
    ("what", "raised"),
    [
        pytest.param(wants_twelve(running()), 12, id="running"),
        pytest.param(wants_twelve(pod()), 12, id="pending"),
        pytest.param(wants_twelve(ended(137)), 12, id="between-pods"),
        pytest.param(wants_twelve(batch=job(suspend=True), run=SUSPENDED), 12, id="suspended"),
        pytest.param(wants_twelve(running(), has=12), None, id="in-line"),
        pytest.param(wants_twelve(running(), has=20), None, id="never-fewer"),
        pytest.param(wants_twelve(running(), has=None), None, id="plan-not-read"),
        pytest.param(wants_twelve(running(), run=make.run()), None, id="the-presets-are-not-wanted"),
        pytest.param(wants_twelve(ended(0), batch=make.complete()), None, id="complete"),
        pytest.param(wants_twelve(batch=make.job_failed("PodFailurePolicy")), None, id="failed"),
        pytest.param(
            wants_twelve(running(), batch=job(succeeding=Note("", "", make.JUST_NOW))), None, id="succeeding"
        ),
        pytest.param(
            wants_twelve(status=make.STARTED.model_copy(update={"phase": Phase.FAILED})), None, id="over"
        ),
        pytest.param(replace(wants_twelve(), batch=None), None, id="no-job-yet"),
    ],
)
def test_when_the_plan_is_raised(what: Seen, raised: int | None) -> None:
    decision = decide(what, make.NOW)
    assert decision.plan_epochs == raised
    said = [(e.kind, e.message) for e in decision.events if e.reason == "EpochsRaised"]
    assert said == ([("Normal", SENTENCE.format(6))] if raised else [])


def test_epochs_that_only_the_models_config_has_are_raised_from_what_the_trainer_said() -> None:
    status = make.STARTED.model_copy(update={"progress": report().progress})
    decision = decide(wants_twelve(running(), has=0, status=status), make.NOW)
    assert decision.plan_epochs == 12
    assert SENTENCE.format(10) in [e.message for e in decision.events]
    assert decide(wants_twelve(running(), has=0, run=make.run()), make.NOW).plan_epochs is None


def test_status_says_so_until_the_trainer_counts_by_them() -> None:
    of_ten = taken(running(), report())
    message = decide(wants_twelve(running(), has=12, report=of_ten), make.NOW).status.message
    assert message == "Training. " + SENTENCE.format(10)
    counted = report().model_copy(update={"progress": report().progress.model_copy(update={"epochs": 12})})  # type: ignore[union-attr]
    after = decide(wants_twelve(running(), has=12, report=taken(running(), counted)), make.NOW).status
    assert after.message == "Training."
    assert after.progress is not None
    assert after.progress.epoch_text == "3/12"


def test_a_trainer_that_has_not_said_its_epochs_is_not_spoken_for() -> None:
    staging = report(Stage.STAGING).model_copy(update={"progress": None})
    status = decide(wants_twelve(running(), has=12, report=taken(running(), staging)), make.NOW).status
    assert status.message == "Fetching the data from S3."


def test_epochs_that_came_too_late_are_said_at_the_end() -> None:
    done = ended(0, message=make.result())
    status = decide(wants_twelve(done, batch=make.complete(), has=10), make.NOW).status
    assert "accuracy 97.2%" in (status.message or "")
    assert "The 12 epochs came too late: to train on from its checkpoints, delete this run" in (
        status.message or ""
    )
    waiting = decide(wants_twelve(done, has=12), make.NOW).status
    assert waiting.message == "Finished; waiting for the Job to close.", "nothing takes effect any more"
    in_time = decide(
        seen(done, batch=make.complete(), run=make.run(training={"epochs": 10})), make.NOW
    ).status
    assert "too late" not in (in_time.message or "")


class PlanApi(Api):
    """An API server with the run's ConfigMap, or without it."""

    def __init__(self, text: str | None, owner: str = "run-uid") -> None:
        super().__init__()
        self.text, self.owner = text, owner
        self.patches: list[dict[str, Any]] = []

    async def get(self, path: str, query: Any = None) -> dict[str, Any]:
        if not path.endswith("/configmaps/run-run"):
            return await super().get(path, query)
        if self.text is None:
            raise ApiError(404, "not found")
        metadata = {"resourceVersion": "41", "ownerReferences": [{"uid": self.owner, "controller": True}]}
        return {"kind": "ConfigMap", "metadata": metadata, "data": {"run.json": self.text}}

    async def merge_patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if "status" in body:
            return await super().merge_patch(path, body)
        self.patches.append(body)
        return body


def written(epochs: int) -> str:
    """A run plan as another version wrote it."""
    made = plan(RecTrainingJob.model_validate(make.run(training={"epochs": epochs}))).to_dict()
    return json.dumps({**made, "another": "version's"}, sort_keys=True, indent=2)


def with_plan(epochs: int) -> Cluster:
    """A running run that wants twelve, and whose plan was last seen with these."""
    cluster = known(running())
    newer = make.run(training={"epochs": 12})
    newer["metadata"]["resourceVersion"] = "8"
    cluster.run_changed(newer)
    cluster.planned("run-uid", epochs)
    return cluster


async def test_a_step_raises_the_epochs_and_nothing_else() -> None:
    cluster, api = with_plan(6), PlanApi(written(6))
    await reconciler(api, cluster).reconcile(KEY)
    (patch,) = api.patches
    assert patch["metadata"] == {"resourceVersion": "41"}
    assert patch["data"] == {"run.json": written(12)}
    assert cluster.plan_epochs("run-uid") == 12
    assert [p for p in api.asked if "events" in p], "it is said"
    await reconciler(api, cluster).reconcile(KEY)
    assert len(api.patches) == 1, "once"


async def test_a_plan_that_has_them_already_is_left_alone() -> None:
    """Another step has raised it, and died before it could say so."""
    cluster, api = with_plan(6), PlanApi(written(12))
    await reconciler(api, cluster).reconcile(KEY)
    assert api.patches == []
    assert cluster.plan_epochs("run-uid") == 12


@pytest.mark.parametrize(
    ("api", "code"),
    [
        pytest.param(PlanApi(None), 404, id="deleted"),
        pytest.param(PlanApi(written(6), owner="another"), 409, id="of-another"),
        pytest.param(PlanApi("not a plan"), 409, id="no-plan"),
    ],
)
async def test_a_plan_that_is_not_ours_any_more_is_looked_for_again(api: PlanApi, code: int) -> None:
    cluster = with_plan(6)
    with pytest.raises(ApiError) as refused:
        await reconciler(api, cluster).reconcile(KEY)
    assert refused.value.status == code
    assert api.patches == []
    assert cluster.present("run-uid", make.SETTINGS.ca_pem) == frozenset()
    assert cluster.plan_epochs("run-uid") is None
