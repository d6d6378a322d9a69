"""`spec` of a RecTrainingJob: what a user writes.

The only source of the CRD's schema (`rectrain_api.crd`), of its defaults and its messages; read by
`plan()` on a laptop and by the operator's child builders. A field is here when it works.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from rectrain_api.base import ApiModel
from rectrain_api.schema import Cel, IntOrString, Matches, Quantity

S3_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$"
S3Uri = Annotated[
    str,
    StringConstraints(max_length=1024),
    Matches(
        S3_PATTERN,
        "must be an S3 URI such as s3://bucket/folder (bucket: 3 to 63 lower-case letters, digits, dots, "
        "dashes)",
    ),
]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=253)]
LabelText = Annotated[str, StringConstraints(max_length=253)]

_INTERVAL = IntOrString(
    pattern=r"^[1-9][0-9]{0,8}(s|m|h)$",
    message="interval is a number of steps (200) or a time (90s, 5m, 1h)",
)
_EVAL_INTERVAL = IntOrString(
    pattern=r"^[1-9][0-9]{0,5} ?epochs?$",
    message='evalInterval is a number of steps (500) or of epochs ("1 epoch", "2 epochs")',
)


_ONE_CACHE = Cel(
    rule="has(self.size) != has(self.claimName)",
    message="data.cache has either a size (the pod's own disk) or a claimName (a volume that runs share)",
)


WEIGHTS_SUFFIX = ".pdparams"
"""A URI that ends so is one file of weights; every other is a run's place."""
_ONE_SOURCE = Cel(
    rule="has(self.uri) != has(self.fromJob)",
    message="model.pretrained has either a uri (a .pdparams file, or the checkpoint.uri of a run) or a "
    "fromJob (the name of a RecTrainingJob)",
)
_OF_A_FILE = Cel(
    rule="!(has(self.sha256) || has(self.dictionary)) || "
    f"(has(self.uri) && self.uri.endsWith('{WEIGHTS_SUFFIX}'))",
    message="model.pretrained.sha256 and dictionary belong to a uri that ends in .pdparams: a run has "
    "recorded its own",
)
_OF_A_RUN = Cel(
    rule=f"!has(self.checkpoint) || !has(self.uri) || !self.uri.endsWith('{WEIGHTS_SUFFIX}')",
    message="model.pretrained.checkpoint chooses among the checkpoints of a run, and uri names one file of "
    "weights: leave it out, or name the run's checkpoint.uri",
)


class PretrainedSpec(ApiModel):
    """Weights to start from. Only weights: step, schedule and best accuracy start anew."""

    model_config = {
        **ApiModel.model_config,
        "json_schema_extra": {
            "x-kubernetes-validations": [{**r.as_json()} for r in (_ONE_SOURCE, _OF_A_FILE, _OF_A_RUN)]
        },
    }

    uri: Annotated[
        S3Uri | None,
        Field(
            description="A file of weights (it ends in .pdparams), or the checkpoint.uri of another run "
            "(the folder that holds log/)."
        ),
    ] = None
    from_job: Annotated[
        ShortText | None,
        Field(
            description="Another RecTrainingJob of this namespace: its checkpoint.uri is looked up once, "
            "before this run starts."
        ),
    ] = None
    checkpoint: Annotated[
        Literal["Best", "Latest"] | None,
        Field(description="Which checkpoint of a run. Left out: Best, the one with the best accuracy."),
    ] = None
    sha256: Annotated[
        str | None,
        StringConstraints(max_length=64),
        Matches(r"^[0-9a-f]{64}$", "must be 64 hexadecimal digits in lower case, as sha256sum prints them"),
        Field(description="sha256 of the .pdparams file. Left out: not checked."),
    ] = None
    dictionary: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=1024),
        Field(
            description="The characters that the .pdparams file was trained on: an s3:// URI of a text file "
            "with one character a line, or the name of one of PaddleOCR's own. What the head has learnt of "
            "characters that both know is then carried over. Left out: a head of this run's size is taken to "
            "be of its characters, and one of another size starts afresh."
        ),
    ] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        is_file = self.uri is not None and self.uri.endswith(WEIGHTS_SUFFIX)
        if (self.uri is None) == (self.from_job is None):
            raise ValueError(_ONE_SOURCE.message)
        if (self.sha256 or self.dictionary) and not is_file:
            raise ValueError(_OF_A_FILE.message)
        if self.checkpoint and is_file:
            raise ValueError(_OF_A_RUN.message)
        return self


_ONE_PLACE = Cel(
    rule="has(self.configMap) != has(self.uri)",
    message="model.config has either a configMap (name and key) or a uri (s3://…/config.yml)",
)
_ONE_MODEL = Cel(
    rule="has(self.preset) != has(self.config)",
    message="model has either a preset (a ready-made model, such as svtr_nano) or a config (PaddleOCR's own)",
)


class ConfigMapKey(ApiModel):
    """One key of a ConfigMap of the job's own namespace."""

    name: Annotated[ShortText, Field(description="Name of the ConfigMap.")]
    key: Annotated[
        ShortText,
        Matches(r"^[-._a-zA-Z0-9]+$", "must be a key of a ConfigMap, such as config.yml"),
        Field(description="The key that holds the config, such as config.yml."),
    ]


class ConfigSpec(ApiModel):
    """Where a config of PaddleOCR is."""

    model_config = {
        **ApiModel.model_config,
        "json_schema_extra": {"x-kubernetes-validations": [{**_ONE_PLACE.as_json()}]},
    }

    config_map: Annotated[
        ConfigMapKey | None,
        Field(description="A ConfigMap of this namespace; the pod waits until it is there."),
    ] = None
    uri: Annotated[
        S3Uri | None, Field(description="A file in S3, such as s3://bucket/th_PP-OCRv5_mobile_rec.yaml.")
    ] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.config_map is None) == (self.uri is None):
            raise ValueError(_ONE_PLACE.message)
        return self


class ModelSpec(ApiModel):
    """Which model is trained: a preset's, or that of a config of PaddleOCR."""

    model_config = {
        **ApiModel.model_config,
        "json_schema_extra": {"x-kubernetes-validations": [{**_ONE_MODEL.as_json()}]},
    }

    preset: Annotated[
        ShortText | None,
        Field(
            description="A ready-made model, such as svtr_nano (small, quick on a CPU) or pp_ocrv5_mobile; "
            "or PaddleOCR's name of one, such as th_PP-OCRv5_mobile_rec."
        ),
    ] = None
    config: Annotated[
        ConfigSpec | None,
        Field(
            description="A recognition config of PaddleOCR (configs/rec/**, .yml), instead of a preset. Its "
            "places of data and outputs aren't used: data and checkpoint name them. The log says what of it "
            "is replaced or isn't used."
        ),
    ] = None
    overrides: Annotated[
        dict[ShortText, Annotated[str, StringConstraints(max_length=1024)]],
        Field(
            max_length=64,
            description="Changes to the preset's configuration, by dotted key, such as "
            '"Optimizer.regularizer.factor": "0.01", or to a config in its own keys, such as '
            '"Global.epoch_num": "20". Values are parsed against the type of the key. '
            "Of a preset: "
            '"augment" takes names, such as "RecAug"; "sampler.scales" the sizes of batches, width and '
            'height in pixels, such as "[[64,32],[100,32],[160,32]]" (batchSize is that of the first); '
            '"ema.decay", such as "0.999", turns on an average of the weights.',
        ),
    ] = {}
    pretrained: Annotated[
        PretrainedSpec | None,
        Field(
            description="Weights to start from, instead of random ones. A run that has a checkpoint of its "
            "own goes on from that."
        ),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.preset is None) == (self.config is None):
            raise ValueError(_ONE_MODEL.message)
        return self


class CacheSpec(ApiModel):
    """Where staged data lies while the pod runs: on the pod's own disk, or on a volume that runs share."""

    model_config = {
        **ApiModel.model_config,
        "json_schema_extra": {"x-kubernetes-validations": [{**_ONE_CACHE.as_json()}]},
    }

    size: Annotated[
        Quantity | None,
        Field(
            description="Bound of the staged data on the pod's own disk, such as 20Gi; the emptyDir gets "
            "2Gi more, for checkpoints."
        ),
    ] = None
    claim_name: Annotated[
        ShortText | None,
        Field(
            description="A PersistentVolumeClaim that keeps packed sets by their content, shared by runs: "
            "what one has staged, the next finds there. Nothing is ever deleted from it."
        ),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.size is None) == (self.claim_name is None):
            raise ValueError(_ONE_CACHE.message)
        return self


class DataSpec(ApiModel):
    """What is trained on. Data is staged from S3 to the node's disk before training."""

    train: Annotated[
        S3Uri,
        Field(
            description="A packed set (the folder of its index.json, made by rectrain-data pack), a "
            "PaddleOCR label file (lines of image path, tab, text; images beside it), or a folder of "
            "PaddleOCR's LMDBs (data.mdb, there or in folders below)."
        ),
    ]
    eval: Annotated[
        S3Uri | None,
        Field(
            description="The set to evaluate on. Left out: the packed set's own eval split, or a part of "
            "train (evalFraction)."
        ),
    ] = None
    eval_fraction: Annotated[
        float,
        Field(
            ge=0.01,
            le=0.5,
            description="The part of train held out for evaluation when neither eval nor an eval split is "
            "there. Chosen by hash, so that it stays the same when data is added.",
        ),
    ] = 0.2
    dictionary: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=1024),
        Field(
            description="The characters to tell apart: an s3:// URI of a text file with one character a "
            "line, the name of one of PaddleOCR's own (en_dict, th_dict, ppocrv5_th_dict), or FromLabels: "
            "every character of the training labels. Left out: the one that belongs to model.preset, as "
            "ppocrv5_th_dict does to th_PP-OCRv5_mobile_rec, or that model.config names, else FromLabels."
        ),
    ] = None
    validation: Annotated[
        Literal["Strict", "Warn", "Off"],
        Field(
            description="What becomes of samples that can't be trained on as they are (a line of the label "
            "file that isn't in PaddleOCR's format, an empty label, one that is too long or has characters "
            "that the dictionary lacks; an image that isn't there or can't be decoded). Strict refuses the "
            "data, naming them; Warn leaves them out of training, and says how many; Off looks at lines and "
            "names alone: it leaves out what is no sample or has no image, and the run fails when it meets "
            "another. Data of which nothing is left is always refused.",
        ),
    ] = "Strict"
    cache: Annotated[
        CacheSpec | None,
        Field(description="Where staged data lies. Left out: on the node's disk, as much as it has."),
    ] = None


class EarlyStoppingSpec(ApiModel):
    """When to stop before the last epoch: the best weights are exported as ever."""

    patience: Annotated[
        int, Field(ge=1, le=10_000, description="Evaluations in a row that don't improve on the best one.")
    ]
    min_delta: Annotated[
        float, Field(ge=0, le=1, description="An accuracy improves if it is better by more than this.")
    ] = 0.0


class TrainingSpec(ApiModel):
    """How it is trained. What is left out comes from the preset, or the config."""

    epochs: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000,
            description="Passes over the data. May be raised until the run has ended: it takes effect at the "
            "end of the running epoch, or at the next attempt.",
        ),
    ] = None
    batch_size: Annotated[int | None, Field(ge=1, le=8192, description="Images a step and device.")] = None
    learning_rate: Annotated[
        float | None, Field(ge=1e-8, le=10, description="Peak learning rate of the schedule.")
    ] = None
    eval_interval: Annotated[
        int | str,
        _EVAL_INTERVAL,
        Field(description='Evaluate every so many steps (500) or epochs ("1 epoch").'),
    ] = "1 epoch"
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed of weights, order and augmentation.")
    ] = 0
    deterministic: Annotated[
        bool,
        Field(
            description="The same run twice gives the same weights, bit for bit (on a CPU). Slower on a GPU."
        ),
    ] = False
    workers: Annotated[
        int | None,
        Field(
            ge=0,
            le=256,
            description="Processes that load images, of each pod. Left out: chosen from the CPU limit.",
        ),
    ] = None
    early_stopping: Annotated[
        EarlyStoppingSpec | None,
        Field(description="Stop when the accuracy doesn't improve any more. Left out: train all epochs."),
    ] = None
    on_nan: Annotated[
        Literal["Rollback", "Fail"],
        Field(
            alias="onNaN",
            description="When the loss isn't a number any more: Rollback goes back to the last checkpoint "
            "and on with half the learning rate, at most 3 times a run; Fail ends the attempt.",
        ),
    ] = "Rollback"
    smoke_test: Annotated[
        bool,
        Field(
            description="Before the run, see whether the model can learn 32 of its images by heart: finds "
            "labels that belong to other images, and learning rates that can't work, within a minute or two."
        ),
    ] = False


class CheckpointSpec(ApiModel):
    """Where the run lives in S3, and how often it is saved there."""

    uri: Annotated[
        S3Uri,
        Field(description="The run's own place: log, checkpoints, metrics, export. Not shared by two runs."),
    ]
    interval: Annotated[
        int | str,
        _INTERVAL,
        Field(
            description="Steps (200) or time (5m) between checkpoints. It bounds what an interruption loses."
        ),
    ] = "5m"
    keep_last: Annotated[
        int, Field(ge=2, le=1000, description="Newest checkpoints kept; the best one is kept besides.")
    ] = 3
    resume: Annotated[
        Literal["Auto", "Never"],
        Field(
            description="Auto goes on from the newest whole checkpoint; Never refuses a place that isn't "
            "empty."
        ),
    ] = "Auto"
    fencing: Annotated[
        Literal["On", "Off"],
        Field(
            description="On: a store without working conditional writes is refused, so that a stale pod can "
            "never overwrite a newer one. Off is for stores that lack them."
        ),
    ] = "On"


class ExportSpec(ApiModel):
    """What is left when training is done; a Paddle inference model always is."""

    onnx: Annotated[bool, Field(description="Export an ONNX model too (inference.onnx).")] = True


class SecretReference(ApiModel):
    """A Secret of the job's own namespace."""

    name: Annotated[ShortText, Field(description="Name of the Secret.")]


class S3Spec(ApiModel):
    """How S3 is reached. Keys never stand in the job itself."""

    endpoint: Annotated[
        str | None,
        StringConstraints(max_length=1024),
        Matches(r"^https?://[^\s/]+/?$", "must be a URL such as https://minio.example:9000, without a path"),
        Field(
            description="URL of the S3 service, such as https://minio.example:9000. Left out: "
            "AWS_ENDPOINT_URL_S3 of the credentials Secret, else AWS itself."
        ),
    ] = None
    region: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=64),
        Field(description="Region. Left out: AWS_REGION of the credentials Secret, else us-east-1."),
    ] = None
    addressing_style: Annotated[
        Literal["Path", "Virtual"] | None,
        Field(
            description="Bucket in the path or in the host name. Left out: Path when an endpoint is set, "
            "else Virtual."
        ),
    ] = None
    credentials_secret: Annotated[
        SecretReference | None,
        Field(
            description="Secret whose AWS_* keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
            "AWS_ENDPOINT_URL_S3, …) become the pod's environment. Left out: the service "
            "account's own way (IRSA, pod identity)."
        ),
    ] = None


class ResourcesSpec(ApiModel):
    """Requests and limits of the trainer container; GPUs come from gpusPerNode."""

    requests: Annotated[
        dict[ShortText, Quantity], Field(max_length=16, description="Guaranteed amounts.")
    ] = {}
    limits: Annotated[dict[ShortText, Quantity], Field(max_length=16, description="Upper bounds.")] = {}


class Toleration(ApiModel):
    """Lets the pod onto nodes with a taint, such as spot nodes."""

    key: Annotated[
        LabelText | None, Field(description="Taint key; left out with operator Exists: every taint.")
    ] = None
    operator: Annotated[Literal["Exists", "Equal"], Field(description="How value is compared.")] = "Equal"
    value: Annotated[LabelText | None, Field(description="Taint value.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Field(description="Taint effect; left out: all."),
    ] = None
    toleration_seconds: Annotated[
        int | None, Field(ge=0, le=86_400, description="How long a NoExecute taint is borne [s].")
    ] = None


class EnvVar(ApiModel):
    """One environment variable of the trainer."""

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=253),
        Matches(
            r"^[A-Za-z_][A-Za-z0-9_]*$",
            "must be letters, digits and underscores, and not begin with a digit",
        ),
        Field(description="Name."),
    ]
    value: Annotated[str, StringConstraints(max_length=4096), Field(description="Value.")] = ""


class ReplicasSpec(ApiModel):
    """The pods that train."""

    nodes: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Pods that train together; every step trains batchSize images on each of their "
            "devices.",
        ),
    ] = 1
    gpus_per_node: Annotated[
        int, Field(ge=0, le=16, description="GPUs of a pod, all of which train; 0 trains on the CPU.")
    ] = 1
    gpu_resource: Annotated[ShortText, Field(description="Resource name of a GPU on the nodes.")] = (
        "nvidia.com/gpu"
    )
    image: Annotated[
        str | None,
        StringConstraints(min_length=1, max_length=512),
        Field(description="Trainer image. Left out: the operator's default for this version."),
    ] = None
    image_pull_secrets: Annotated[
        list[SecretReference], Field(max_length=8, description="Secrets for a private registry.")
    ] = []
    resources: Annotated[ResourcesSpec, Field(description="CPU, memory and others.")] = ResourcesSpec()
    node_selector: Annotated[
        dict[ShortText, LabelText], Field(max_length=32, description="Labels that a pod's node must have.")
    ] = {}
    tolerations: Annotated[
        list[Toleration], Field(max_length=32, description="Taints that the pods bear.")
    ] = []
    service_account_name: Annotated[
        ShortText | None, Field(description="Service account of the pods, for IRSA or pod identity.")
    ] = None
    priority_class_name: Annotated[ShortText | None, Field(description="Priority class of the pods.")] = None
    env: Annotated[list[EnvVar], Field(max_length=64, description="More environment variables.")] = []
    labels: Annotated[
        dict[ShortText, LabelText], Field(max_length=32, description="More labels on the pods.")
    ] = {}
    annotations: Annotated[
        dict[ShortText, Annotated[str, StringConstraints(max_length=4096)]],
        Field(max_length=32, description="More annotations on the pods."),
    ] = {}


class RunPolicy(ApiModel):
    """How the run is kept going."""

    suspend: Annotated[
        bool, Field(description="true stops the pods after a last checkpoint; false goes on from there.")
    ] = False
    max_restarts: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Failures (crash, out of memory, S3 away) after which the run is given up. "
            "Interruptions such as spot reclaims don't count.",
        ),
    ] = 3
    termination_grace_seconds: Annotated[
        int,
        Field(
            ge=5,
            le=600,
            description="Time for the last checkpoint when the pod is told to stop [s]. Spot gives 120.",
        ),
    ] = 100
    stall_timeout: Annotated[
        str,
        StringConstraints(max_length=10),
        Matches(r"^[1-9][0-9]{0,4}(s|m|h)$", "must be a time such as 90s, 30m or 2h"),
        Field(
            description="Time without a training step, or a batch of an evaluation, after which the process "
            "is taken for stuck: its stacks are logged, and it is started again (this counts in maxRestarts)."
        ),
    ] = "30m"


class RecTrainingJobSpec(ApiModel):
    """One training run of a text-recognition model."""

    model: Annotated[ModelSpec, Field(description="Which model is trained.")]
    data: Annotated[DataSpec, Field(description="What it is trained on.")]
    training: Annotated[TrainingSpec, Field(description="How it is trained.")] = TrainingSpec()
    checkpoint: Annotated[CheckpointSpec, Field(description="Where the run is kept in S3.")]
    export: Annotated[ExportSpec, Field(description="What is left when training is done.")] = ExportSpec()
    s3: Annotated[S3Spec, Field(description="How S3 is reached.")] = S3Spec()
    replicas: Annotated[ReplicasSpec, Field(description="The pods that train.")] = ReplicasSpec()
    run_policy: Annotated[RunPolicy, Field(description="How the run is kept going.")] = RunPolicy()


_STARTED = "!has(oldSelf.status) || !has(oldSelf.status.startTime)"
_ENDED = "has(oldSelf.status) && has(oldSelf.status.completionTime)"


def _unchanged_once_started(section: str) -> Cel:
    return Cel(
        rule="!has(oldSelf.status) || !has(oldSelf.status.startTime) || "
        f"self.spec.{section} == oldSelf.spec.{section}",
        message=f"spec.{section} can't change once the run has started: delete it and apply it "
        "again (it goes on from its checkpoints), or make a new one with a checkpoint.uri of its own",
    )


def _same(field: str) -> str:
    """Optionals would say it shorter, but the API server takes their comparison for boundless."""
    new, old = f"self.{field}", f"oldSelf.{field}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def _only_more_epochs() -> list[Cel]:
    """Of `training` all else stays; the preset's epochs, left out of spec, are read from status."""
    fields = TrainingSpec.model_fields.items()
    others = [field.alias or to_camel(name) for name, field in fields if name != "epochs"]
    same = " && ".join(_same(f"spec.training.{name}") for name in others)
    now, before = "self.spec.training.?epochs", "oldSelf.spec.training.?epochs"
    running = "oldSelf.status.?progress.?epochs.orValue(0)"
    return [
        Cel(
            rule=f"{_STARTED} || ({same})",
            message="spec.training can't change once the run has started, but for more epochs: make a new "
            "RecTrainingJob (with a checkpoint.uri of its own)",
        ),
        Cel(
            rule=f"{_STARTED} || {now} == {before} || ({now}.hasValue() && ({before}.hasValue() ? "
            f"{now}.value() > {before}.value() : {running} > 0 && {now}.value() > {running}))",
            message="spec.training.epochs can only be raised once the run has started: give a number larger "
            "than before, or, where it was left out, than status.progress.epochs once that is there",
        ),
    ]


ROOT_RULES: list[Cel] = [
    Cel(
        rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        message="metadata.name must be at most 40 lower-case letters, digits and dashes, begin with a "
        "letter and not end with a dash (it becomes the name of a Job, a Service and pods)",
    ),
    *(_unchanged_once_started(s) for s in ("model", "data", "checkpoint", "export", "s3", "replicas")),
    *_only_more_epochs(),
    *(
        Cel(
            rule=f"{_STARTED} || self.spec.runPolicy.{name} == oldSelf.spec.runPolicy.{name}",
            message=f"spec.runPolicy.{name} can't change once the run has started",
        )
        for name in ("terminationGraceSeconds", "stallTimeout")
    ),
    Cel(
        rule=f"!({_ENDED}) || self.spec == oldSelf.spec",
        message="the run has ended: nothing in spec can change; delete it and apply it again to train on "
        "from its checkpoints, or make a new one with a checkpoint.uri of its own",
    ),
]


class ObjectMeta(ApiModel):
    """What we read of Kubernetes' metadata; the rest is passed by."""

    model_config = {**ApiModel.model_config, "extra": "ignore"}

    name: ShortText
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None


class RecTrainingJob(ApiModel):
    """A whole manifest, as applied or as read from a file."""

    api_version: Literal["rectrain.dev/v1alpha1"]
    kind: Literal["RecTrainingJob"]
    metadata: ObjectMeta
    spec: RecTrainingJobSpec
    status: dict[str, Any] | None = None
