"""The small children: headless Service, ConfigMaps of run plan and CA; and all of them in order."""

from rectrain_api.plan import PlanFrame
from rectrain_api.spec import RecTrainingJob
from rectrain_operator.children.job import batch_job
from rectrain_operator.children.names import CA_KEY, PLAN_KEY, ca_name, metadata_of, plan_name
from rectrain_operator.keys import Manifest
from rectrain_operator.settings import PodSettings
from rectrain_operator.views import JOB_LABEL


def children_of(job: RecTrainingJob, plan: PlanFrame, settings: PodSettings) -> tuple[Manifest, ...]:
    """Everything that a run needs, the Job last: its pods mount the others."""
    return (
        plan_config_map(job, plan),
        ca_config_map(job, settings.ca_pem),
        service(job),
        batch_job(job, plan, settings),
    )


def plan_config_map(job: RecTrainingJob, plan: PlanFrame) -> Manifest:
    """run.json. Created once; of a started run only `training.epochs` ever grows."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata_of(job, plan_name(job.metadata.name)),
        "data": {PLAN_KEY: plan.to_json()},
    }


def ca_config_map(job: RecTrainingJob, ca_pem: str) -> Manifest:
    """The CA by which the trainer knows the report server. Kept equal to the current one."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata_of(job, ca_name(job.metadata.name)),
        "data": {CA_KEY: ca_pem},
    }


def service(job: RecTrainingJob) -> Manifest:
    """Gives the pods names before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata_of(job, job.metadata.name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: job.metadata.name},
        },
    }
