"""A RecTrainingJob from a YAML file, for a run without a cluster. Called by the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rectrain_api import KIND
from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import ConfigText, Plan, plan, write_plan
from rectrain_api.spec import RecTrainingJob
from rectrain_trainer.unresolved import describe as describe_config

_OURS: Final = frozenset(
    {
        "HOME",
        "RECTRAIN_JOB_UID",
        "RECTRAIN_MODEL_CONFIG",
        "RECTRAIN_NAME",
        "RECTRAIN_NAMESPACE",
        "RECTRAIN_NODE",
        "RECTRAIN_PEERS",
        "RECTRAIN_POD_IP",
        "RECTRAIN_POD_NAME",
        "RECTRAIN_POD_UID",
        "RECTRAIN_RANK",
        "RECTRAIN_REPORT_CA",
        "RECTRAIN_REPORT_URL",
        "RECTRAIN_TOKEN_FILE",
        "RECTRAIN_WORK_DIR",
    }
)
"""What the operator sets in every pod: there, too, replicas.env can't change these."""


@dataclass(frozen=True)
class Manifest:
    """What a run without a cluster takes from a RecTrainingJob."""

    plan: Plan
    """Deferred where the model's config is in S3."""
    environment: dict[str, str]
    """`replicas.env`. Wins over the user's own environment, since in a pod there is nothing else."""


def read_manifest(path: Path) -> Manifest:
    """The RecTrainingJob in a file, with the ConfigMap that its model.config names; other objects in it are
    passed over.

    Raises:
        InputMissing: there is no such file.
        InvalidSpec: it holds no such job, or one that can't work.
    """
    documents = [d for d in _documents(path) if isinstance(d, dict)]
    jobs = [d for d in documents if d.get("kind") == KIND]
    if len(jobs) != 1:
        raise InvalidSpec(f"{path} holds {len(jobs)} objects of kind {KIND}: it must be one.")
    try:
        job = RecTrainingJob.model_validate(jobs[0])
        variables = {e.name: e.value for e in job.spec.replicas.env if e.name not in _OURS}
        return Manifest(_planned(job, documents, path), variables)
    except ValidationError as e:
        raise InvalidSpec(f"{path}: {describe(e)}.") from e


def _planned(job: RecTrainingJob, documents: list[dict[str, Any]], path: Path) -> Plan:
    """The plan; with the text of a ConfigMap that lies in the same file."""
    config = job.spec.model.config
    if config is None or config.config_map is None:
        return write_plan(job)
    name, key = config.config_map.name, config.config_map.key
    for document in documents:
        metadata, data = document.get("metadata"), document.get("data")
        if (
            document.get("kind") == "ConfigMap"
            and isinstance(metadata, dict)
            and metadata.get("name") == name
        ):
            text = data.get(key) if isinstance(data, dict) else None
            if isinstance(text, str):
                return plan(job, config=ConfigText(text, describe_config(config)))
            raise InvalidSpec(f"{path}: the ConfigMap {name} has no text under data.{key}.")
    raise InputMissing(
        f"{path} names the ConfigMap {name} (model.config.configMap), which only a cluster has: put it into "
        "the same file, after a line of three dashes, or use model.config.uri."
    )


def describe(error: ValidationError) -> str:
    """The first few faults of a manifest, each with its field."""
    faults = [f"{'.'.join(str(part) for part in f['loc'])}: {_said(f)}" for f in error.errors()]
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def _said(fault: ErrorDetails) -> str:
    """Pydantic's words for a fault, made plain where a slip of the pen is likely."""
    plain = {
        "extra_forbidden": "there is no such field; correct its name or remove it",
        "missing": "is required",
        "string_type": "must be text; put it in quotes",
    }
    return plain.get(fault["type"], fault["msg"].removeprefix("Value error, "))


def _documents(path: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as e:
        raise InputMissing(f"The manifest {path} can't be read ({e.strerror}).") from e
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise InvalidSpec(f"{path}{where} isn't YAML: {e.problem}.") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InvalidSpec(f"{path} isn't YAML: {' '.join(str(e).split())}.") from e
    except RecursionError as e:
        raise InvalidSpec(f"{path} is nested too deeply.") from e
