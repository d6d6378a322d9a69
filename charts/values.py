"""The chart's values: name, type, default and meaning of each. `charts/generate.py` writes them out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
OptionalName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
Repository = Annotated[str, Field(pattern=r"^[a-zA-Z0-9]([-a-zA-Z0-9._/:]*[a-zA-Z0-9])?$")]
Tag = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$")]
Quantity = (
    Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?|Ki)?$")] | Annotated[int, Field(ge=0)]
)
Texts = dict[str, str]


class Section(BaseModel):
    """Unknown keys are refused, so that a typo is an error and not a default."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Image(Section):
    repository: Repository = "rectrain-operator"
    tag: Tag = Field("", description="Empty: the chart's appVersion.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class TrainerImage(Section):
    repository: Repository = "rectrain-trainer"
    tag: Tag = Field("", description="Empty: the chart's appVersion.")


class NamedSecret(Section):
    name: Name


class Crds(Section):
    install: bool = Field(
        True, description="Install and upgrade the CRD. `helm uninstall` leaves it, with all runs."
    )


class ServiceAccount(Section):
    create: bool = True
    name: OptionalName = Field("", description="Empty: the release's name.")
    annotations: Texts = {}


class Resources(Section):
    requests: dict[str, Quantity] = {"cpu": "100m", "memory": "192Mi"}
    limits: dict[str, Quantity] = {"memory": "512Mi"}


class Toleration(Section):
    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Affinity(Section):
    node_affinity: dict[str, Any] | None = None
    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


class EnvVar(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str | None = None
    value_from: dict[str, Any] | None = None


class Values(Section):
    """Every value, in the order of values.yaml."""

    image: Image = Field(Image(), description="The operator's image.")
    trainer_image: TrainerImage = Field(TrainerImage(), description="Image of runs that name none.")
    image_pull_secrets: list[NamedSecret] = Field([], description="Of the operator's pod.")
    watch_namespaces: Annotated[list[Namespace], Field(json_schema_extra={"uniqueItems": True})] = Field(
        [],
        description="Namespaces whose RecTrainingJobs are run, with rights in these alone. "
        "None: all of the cluster.",
    )
    crds: Crds = Crds()
    service_account: ServiceAccount = ServiceAccount()
    resources: Resources = Field(Resources(), description="Measured: 130 MiB with 1,000 runs.")
    node_selector: Texts = {}
    tolerations: list[Toleration] = []
    affinity: Affinity = Affinity()
    priority_class_name: OptionalName = ""
    pod_annotations: Texts = {}
    pod_labels: Texts = {}
    extra_env: list[EnvVar] = Field([], description="Such as HTTPS_PROXY and NO_PROXY.")
    debug: bool = Field(False, description="Log more, with tracebacks.")
