"""The Indexed Job of a run, with the retry policy that the exit codes ask for."""

from typing import Any

from rectrain_api.exit_codes import Policy, codes_with
from rectrain_api.plan import PlanFrame
from rectrain_api.spec import RecTrainingJob
from rectrain_operator.children.names import metadata_of
from rectrain_operator.children.pod import pod_template
from rectrain_operator.keys import Manifest
from rectrain_operator.settings import PodSettings
from rectrain_operator.views import TRAINER


def batch_job(job: RecTrainingJob, plan: PlanFrame, settings: PodSettings) -> Manifest:
    """The Job. Retries are the Job controller's, so training restarts while the operator is down."""
    policy = job.spec.run_policy
    # Rank 0 decides: it alone publishes the result. Without this a peer that was lost at the very end would
    # be made again, and wait for pods that don't come any more.
    success = {"successPolicy": {"rules": [{"succeededIndexes": "0"}]}} if plan.nodes > 1 else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata_of(job, job.metadata.name),
        "spec": {
            "completionMode": "Indexed",
            "completions": plan.nodes,
            "parallelism": plan.nodes,
            "suspend": policy.suspend,
            "backoffLimit": policy.max_restarts,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": failure_rules()},
            **success,
            "template": pod_template(job, plan, settings),
        },
    }


def failure_rules() -> list[dict[str, Any]]:
    """What each end of a pod costs. The first match wins, so a disruption is looked for first: an evicted
    pod ends with 143 or 137 too. What matches nothing counts."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _on_exit_codes("FailJob"),
        _on_exit_codes("Ignore"),
    ]


def _on_exit_codes(policy: Policy) -> dict[str, Any]:
    codes = {"containerName": TRAINER, "operator": "In", "values": codes_with(policy)}
    return {"action": policy, "onExitCodes": codes}
