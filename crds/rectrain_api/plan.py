"""The run plan: everything that a pod needs to know, fully resolved. `plan(job)` is pure.

The operator writes it into the ConfigMap that the pod mounts as run.json; `rectrain-trainer run -f
job.yaml` calls the same function on a laptop. It never holds raw user YAML, peers, report address,
paths or keys: those come by environment. A model that a config of PaddleOCR describes is resolved where that
can be read: `write_plan` then leaves a `DeferredPlan`, which the trainer resolves with the config's text.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from rectrain_api.base import ApiModel
from rectrain_api.errors import InvalidSpec
from rectrain_api.presets import Preset, load
from rectrain_api.schema import parse_quantity
from rectrain_api.spec import (
    WEIGHTS_SUFFIX,
    CacheSpec,
    ModelSpec,
    ObjectMeta,
    PretrainedSpec,
    RecTrainingJob,
    TrainingSpec,
)
from rectrain_api.upstream_config import read_config

PLAN_VERSION = 1
FROM_LABELS = "FromLabels"
WORK_RESERVE_BYTES: Final = 2 << 30
"""Room in the pod's work folder beside the staged data: snapshots, resume, best weights, export, logs."""


class Identity(ApiModel):
    """Who owns a run's place in S3: namespace and name, so that a retry is a new object over it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PretrainedPlan(ApiModel):
    """Weights to start from: one file, or a checkpoint of another run."""

    uri: str
    checkpoint: Literal["Best", "Latest"] | None = None
    """Which checkpoint of the run at `uri`; None when `uri` is a file."""
    sha256: str | None = None
    dictionary: str | None = None
    """Of a file: what its head tells apart, as the user named it; None when nobody knows."""


class ConfigText(NamedTuple):
    """A config of PaddleOCR that was read, and how messages name it."""

    text: str
    source: str


class ConfigOrigin(ApiModel):
    """Of which config a model was resolved."""

    source: str
    sha256: str
    """Of its text, before overrides."""
    notes: list[str] = []
    """What of it is replaced, or isn't used: one line each."""


class ModelPlan(ApiModel):
    """The model, resolved: what `rectrain_trainer` builds."""

    preset: str
    """Its name; of a config, the name that it gives its model."""
    origin: ConfigOrigin | None = None
    """None: a preset of ours."""
    image_shape: list[int]
    """Channels, height [px], width [px]."""
    padded: bool
    max_text_length: int
    config: dict[str, Any]
    """A `PresetConfig` in upstream's own words, overrides applied."""
    pretrained: PretrainedPlan | None = None


class LabelFiles(ApiModel):
    """Label files of this machine, whose paths begin at one folder. Of an upstream config alone."""

    folder: str
    files: Annotated[list[str], Field(min_length=1)]
    ratios: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    """The part of each file that an epoch takes, another one every time; None: all of all."""


class DataPlan(ApiModel):
    """The data, as named by the user: in S3, or by file:// where a run needs no S3."""

    train: str
    eval: str | None = None
    train_files: LabelFiles | None = None
    """What `train` stands for, if it isn't one file or folder."""
    eval_files: LabelFiles | None = None
    eval_fraction: float
    dictionary: str
    validation: Literal["Strict", "Warn", "Off"] = "Strict"
    cache_bytes: int | None = None


class EvalInterval(ApiModel):
    """Evaluate every so many of a unit."""

    every: Annotated[int, Field(ge=1)]
    unit: Literal["steps", "epochs"]


class EarlyStoppingPlan(ApiModel):
    """Stop after so many evaluations in a row without a better one."""

    patience: Annotated[int, Field(ge=1)]
    min_delta: Annotated[float, Field(ge=0)]


class TrainingPlan(ApiModel):
    """The training, preset's defaults filled in."""

    epochs: int
    batch_size: int
    learning_rate: float
    eval_interval: EvalInterval
    seed: int
    deterministic: bool
    workers: int | None = None
    early_stopping: EarlyStoppingPlan | None = None
    on_nan: Annotated[Literal["Rollback", "Fail"], Field(alias="onNaN")] = "Rollback"
    smoke_test: bool = False


class CheckpointInterval(ApiModel):
    """Save every so many of a unit."""

    every: Annotated[int, Field(ge=1)]
    unit: Literal["steps", "seconds"]


class CheckpointPlan(ApiModel):
    """Where the run lives, and how often it is saved."""

    uri: str
    interval: CheckpointInterval
    keep_last: int
    resume: Literal["Auto", "Never"]
    fencing: Literal["On", "Off"]


class ExportPlan(ApiModel):
    """What is exported besides the Paddle inference model."""

    onnx: bool = True


class S3Plan(ApiModel):
    """How S3 is reached; what is None comes from the environment."""

    endpoint: str | None = None
    region: str | None = None
    addressing_style: Literal["Path", "Virtual"] | None = None


_NOT_HASHED: Final = {
    "model": ("origin",),
    "data": ("cacheBytes", "validation"),
    "training": ("epochs", "workers", "evalInterval", "earlyStopping", "onNaN", "smokeTest"),
}
"""What may differ between attempts of one run."""


class PlanFrame(ApiModel):
    """What is known of a run before its model is: enough to make its pods, and to find its place."""

    version: int = PLAN_VERSION
    identity: Identity
    checkpoint: CheckpointPlan
    s3: S3Plan
    nodes: int = 1
    """Pods that train together; the default reads a plan that was written without it."""
    gpus: int
    termination_grace_seconds: int
    stall_timeout_seconds: int = 1800

    @property
    def ranks_per_pod(self) -> int:
        """Processes that train in each pod, a device each; a pod on CPUs has one."""
        return max(1, self.gpus)

    @property
    def ranks(self) -> int:
        """All of them: a step trains so many times training.batchSize images."""
        return self.nodes * self.ranks_per_pod

    def to_json(self) -> str:
        """run.json: the same plan gives the same bytes."""
        return _written(self.to_dict())


class RunPlan(PlanFrame):
    """run.json, resolved."""

    model: ModelPlan
    data: DataPlan
    training: TrainingPlan
    export: ExportPlan = ExportPlan()

    def hashed_part(self) -> dict[str, Any]:
        """What makes two runs the same run: model, data and training, but not what may differ between
        attempts (epochs, workers, intervals, size of the cache, what is checked, when it is given up)."""
        whole = self.to_dict()
        parts: dict[str, Any] = {k: dict(whole[k]) for k in ("model", "data", "training")}  # type: ignore[call-overload]
        for section, keys in _NOT_HASHED.items():
            for key in keys:
                parts[section].pop(key, None)
        return parts

    def plan_hash(self) -> str:
        """sha256 (hex) of `hashed_part` as canonical JSON."""
        text = json.dumps(self.hashed_part(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


class RaisedEpochs(ApiModel):
    """Epochs of a deferred plan, where a resolved one has them: raised in the same way."""

    epochs: int | None = None
    """None: as the config has them."""


class DeferredPlan(PlanFrame):
    """run.json of a model whose config only the trainer reads."""

    deferred: RecTrainingJob
    """The manifest, validated, without what only its pods need."""
    source: str | None = None
    """checkpoint.uri of the job that `model.pretrained.fromJob` names."""
    training: RaisedEpochs = RaisedEpochs()

    def resolve(self, config: ConfigText) -> RunPlan:
        """The run plan, with the text of the config that the manifest names. Raises InvalidSpec."""
        made = plan(self.deferred, self.source, config)
        if self.training.epochs is None:
            return made
        raised = made.training.model_copy(update={"epochs": self.training.epochs})
        return made.model_copy(update={"training": raised})


Plan = RunPlan | DeferredPlan
"""Either, as it is written."""


def parse_plan(run_json: bytes | str) -> Plan:
    """A written plan. Raises pydantic's ValidationError."""
    try:
        deferred = "deferred" in json.loads(run_json)
    except (ValueError, TypeError):
        deferred = False
    return (DeferredPlan if deferred else RunPlan).model_validate_json(run_json)


def _written(plan: dict[str, Any]) -> str:
    return json.dumps(plan, sort_keys=True, indent=2, ensure_ascii=False)


def epochs_of(run_json: str) -> int | None:
    """Epochs of a plan as it was written, by whichever version: 0 when only its model's config has them;
    None when it isn't a plan."""
    try:
        written = json.loads(run_json)
        epochs = written["training"].get("epochs", 0 if "deferred" in written else None)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return epochs if isinstance(epochs, int) else None


def with_epochs(run_json: str, epochs: int) -> str:
    """The same written plan with other epochs, and nothing else touched: not what this version would add."""
    plan = json.loads(run_json)
    plan["training"]["epochs"] = epochs
    return _written(plan)


def cache_bytes(cache: CacheSpec | None) -> int | None:
    """Of the pod's own disk; None where nothing bounds it, as on a shared volume."""
    return None if cache is None or cache.size is None else int(parse_quantity(cache.size))


def write_plan(job: RecTrainingJob, source: str | None = None) -> Plan:
    """What run.json holds: the run plan, or a deferred one where a config is to be read. As `plan`."""
    if job.spec.model.config is None:
        return plan(job, source)
    _pretrained(job.spec.model.pretrained, source, job.spec.checkpoint.uri.rstrip("/"))  # refused early
    replicas = job.spec.replicas.model_copy(update={"env": []})
    return DeferredPlan(
        **_frame(job),
        deferred=job.model_copy(
            update={
                "metadata": ObjectMeta(name=job.metadata.name, namespace=job.metadata.namespace),
                "spec": job.spec.model_copy(update={"replicas": replicas}),
                "status": None,
            }
        ),
        source=source,
        training=RaisedEpochs(epochs=job.spec.training.epochs),
    )


def plan(job: RecTrainingJob, source: str | None = None, config: ConfigText | None = None) -> RunPlan:
    """The run plan of a manifest. Pure.

    `source` is the checkpoint.uri of the job that `model.pretrained.fromJob` names, `config` the text of
    what `model.config` names.
    Raises:
        InvalidSpec: the preset, the config, an override or the weights to start from can't work.
    """
    spec = job.spec
    preset, built, origin = _model(spec.model, config)
    return RunPlan(
        **_frame(job),
        model=ModelPlan(
            preset=preset.name,
            origin=origin,
            image_shape=preset.image_shape,
            padded=preset.padded,
            max_text_length=preset.max_text_length,
            config=built,
            pretrained=_pretrained(spec.model.pretrained, source, spec.checkpoint.uri.rstrip("/")),
        ),
        data=DataPlan(
            train=spec.data.train.rstrip("/"),
            eval=spec.data.eval.rstrip("/") if spec.data.eval else None,
            eval_fraction=spec.data.eval_fraction,
            dictionary=spec.data.dictionary or preset.dictionary or FROM_LABELS,
            validation=spec.data.validation,
            cache_bytes=cache_bytes(spec.data.cache),
        ),
        training=_training(
            spec.training, epochs=preset.epochs, batch_size=preset.batch_size, lr=preset.learning_rate
        ),
        export=ExportPlan(onnx=spec.export.onnx),
    )


def _model(spec: ModelSpec, config: ConfigText | None) -> tuple[Preset, dict[str, Any], ConfigOrigin | None]:
    """The preset that is named or that the config describes, its configuration, and where it is from."""
    if spec.preset is not None:
        preset = load(spec.preset)
        return preset, preset.configured(spec.overrides), None
    if config is None:
        raise InvalidSpec("model.config names a config of PaddleOCR, and its text isn't here.")
    read = read_config(config.text, config.source, spec.overrides)
    notes = [str(note) for note in read.notes]
    origin = ConfigOrigin(source=config.source, sha256=read.sha256, notes=notes)
    return read.preset, read.preset.configured({}), origin


def _frame(job: RecTrainingJob) -> dict[str, Any]:
    """The fields of a `PlanFrame`."""
    spec = job.spec
    return {
        "identity": Identity(namespace=job.metadata.namespace, name=job.metadata.name),
        "checkpoint": CheckpointPlan(
            uri=spec.checkpoint.uri.rstrip("/"),
            interval=_checkpoint_interval(spec.checkpoint.interval),
            keep_last=spec.checkpoint.keep_last,
            resume=spec.checkpoint.resume,
            fencing=spec.checkpoint.fencing,
        ),
        "s3": S3Plan(
            endpoint=spec.s3.endpoint, region=spec.s3.region, addressing_style=spec.s3.addressing_style
        ),
        "nodes": spec.replicas.nodes,
        "gpus": spec.replicas.gpus_per_node,
        "termination_grace_seconds": spec.run_policy.termination_grace_seconds,
        "stall_timeout_seconds": _seconds(spec.run_policy.stall_timeout),
    }


def _pretrained(spec: PretrainedSpec | None, source: str | None, own: str) -> PretrainedPlan | None:
    """The weights to start from, with their place resolved. `own` is where this run lives."""
    if spec is None:
        return None
    named = spec.uri or source
    if named is None:
        raise InvalidSpec(
            f"model.pretrained.fromJob names the RecTrainingJob {spec.from_job}, and only a cluster knows "
            "where that run lies: give its checkpoint.uri as model.pretrained.uri instead."
        )
    uri, is_file = named.rstrip("/"), named.endswith(WEIGHTS_SUFFIX) and spec.from_job is None
    if f"{uri}/".startswith(f"{own}/"):
        raise InvalidSpec(
            f"model.pretrained names {uri}, which is this run's own place: to go on from its own checkpoints "
            "a run needs only checkpoint.resume (Auto); to start anew from them, give it another "
            "checkpoint.uri."
        )
    return PretrainedPlan(
        uri=uri,
        checkpoint=None if is_file else spec.checkpoint or "Best",
        sha256=spec.sha256,
        dictionary=spec.dictionary,
    )


def _training(spec: TrainingSpec, *, epochs: int, batch_size: int, lr: float) -> TrainingPlan:
    return TrainingPlan(
        epochs=spec.epochs or epochs,
        batch_size=spec.batch_size or batch_size,
        learning_rate=spec.learning_rate or lr,
        eval_interval=_eval_interval(spec.eval_interval),
        seed=spec.seed,
        deterministic=spec.deterministic,
        workers=spec.workers,
        early_stopping=EarlyStoppingPlan(
            patience=spec.early_stopping.patience, min_delta=spec.early_stopping.min_delta
        )
        if spec.early_stopping
        else None,
        on_nan=spec.on_nan,
        smoke_test=spec.smoke_test,
    )


def _eval_interval(value: int | str) -> EvalInterval:
    if isinstance(value, int):
        return EvalInterval(every=value, unit="steps")
    return EvalInterval(every=int(re.sub(r"\D", "", value)), unit="epochs")


def _checkpoint_interval(value: int | str) -> CheckpointInterval:
    if isinstance(value, int):
        return CheckpointInterval(every=value, unit="steps")
    return CheckpointInterval(every=_seconds(value), unit="seconds")


def _seconds(time: str) -> int:
    return int(time[:-1]) * {"s": 1, "m": 60, "h": 3600}[time[-1]]
