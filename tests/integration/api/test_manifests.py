"""What the real API server says to manifests: defaults for good ones, a sentence for each bad one."""

import copy
from typing import Any

import pytest

from rectrain_api.spec import RecTrainingJob, RecTrainingJobSpec
from rectrain_local.controlplane import ControlPlane
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.keys import JobKey
from tests.integration.operator.harness import ROOT, load

DRY = "?dryRun=All&fieldValidation=Strict"
S3_HINT = "must be an S3 URI such as s3://bucket/folder"

BAD = [
    pytest.param("spec.model", None, "spec.model: Required value", id="no-model"),
    pytest.param("spec.model.preset", None, "either a preset", id="no-preset"),
    pytest.param("spec.model.config", {"uri": "s3://a-b/c.yml"}, "either a preset", id="preset-and-config"),
    pytest.param("spec.model", {"config": {}}, "either a configMap", id="config-of-nothing"),
    pytest.param(
        "spec.model",
        {"config": {"configMap": {"name": "a", "key": "b/c"}}},
        "must be a key of a ConfigMap",
        id="config-key",
    ),
    pytest.param("spec.data", None, "spec.data: Required value", id="no-data"),
    pytest.param("spec.checkpoint.uri", None, "spec.checkpoint.uri: Required value", id="no-place"),
    pytest.param("spec.data.train", "/data/train.txt", S3_HINT, id="a-path"),
    pytest.param("spec.data.eval", "s3://Bucket/x", S3_HINT, id="bad-bucket"),
    pytest.param("spec.checkpoint.uri", "s3://", S3_HINT, id="no-bucket"),
    pytest.param("spec.data.evalFraction", 0.9, "should be less than or equal to 0.5", id="fraction"),
    pytest.param(
        "spec.data.cache",
        {"size": "lots"},
        "a number with an optional unit, such as 500m, 4 or 20Gi",
        id="size",
    ),
    pytest.param("spec.data.cache", {}, "either a size (the pod's own disk) or a claimName", id="no-cache"),
    pytest.param(
        "spec.data.cache", {"size": "1Gi", "claimName": "x"}, "either a size (the pod's own", id="both-caches"
    ),
    pytest.param("spec.training", {"epochs": 0}, "should be greater than or equal to 1", id="epochs"),
    pytest.param("spec.training", {"batchSize": -1}, "should be greater than or equal to 1", id="batch"),
    pytest.param("spec.training", {"learningRate": "high"}, "must be of type number", id="rate"),
    pytest.param("spec.training", {"evalInterval": "often"}, '("1 epoch", "2 epochs")', id="eval-interval"),
    pytest.param("spec.training", {"onNaN": "Retry"}, 'supported values: "Rollback", "Fail"', id="on-nan"),
    pytest.param(
        "spec.training", {"earlyStopping": {"patience": 0}}, "greater than or equal to 1", id="patience"
    ),
    pytest.param("spec.training", {"earlyStopping": {}}, "patience: Required value", id="no-patience"),
    pytest.param("spec.data.validation", "Lax", 'supported values: "Strict", "Warn", "Off"', id="validation"),
    pytest.param("spec.export", {"onnx": "yes"}, "must be of type boolean", id="onnx"),
    pytest.param("spec.runPolicy", {"stallTimeout": "0s"}, "must be a time such as 90s, 30m", id="stall"),
    pytest.param("spec.training", {"epoch": 3}, 'unknown field "spec.training.epoch"', id="typo"),
    pytest.param("spec.checkpoint.interval", "5 minutes", "a time (90s, 5m, 1h)", id="interval"),
    pytest.param("spec.checkpoint.interval", 0, "interval is a number of steps (200)", id="interval-0"),
    pytest.param("spec.checkpoint.keepLast", 1, "should be greater than or equal to 2", id="keep-last"),
    pytest.param("spec.checkpoint.resume", "Maybe", 'supported values: "Auto", "Never"', id="resume"),
    pytest.param("spec.s3", {"endpoint": "minio:9000"}, "such as https://minio.example:9000", id="endpoint"),
    pytest.param("spec.replicas", {"gpusPerNode": 2}, "should be less than or equal to 1", id="gpus"),
    pytest.param("spec.replicas", {"env": [{"name": "1A"}]}, "not begin with a digit", id="env"),
    pytest.param(
        "spec.replicas",
        {"tolerations": [{"operator": "In"}]},
        'supported values: "Exists", "Equal"',
        id="toleration",
    ),
    pytest.param(
        "spec.replicas", {"resources": {"limits": {"memory": "much"}}}, "such as 500m, 4 or 20Gi", id="limit"
    ),
    pytest.param("spec.runPolicy", {"suspend": "yes"}, "must be of type boolean", id="suspend"),
    pytest.param("spec.runPolicy", {"maxRestarts": -1}, "greater than or equal to 0", id="restarts"),
    pytest.param("spec.runPolicy", {"terminationGraceSeconds": 1}, "greater than or equal to 5", id="grace"),
    pytest.param("spec.model.overrides", {"a.b": 1}, "must be of type string", id="override"),
    pytest.param("spec.model.pretrained", {}, "either a uri", id="no-weights"),
    pytest.param(
        "spec.model.pretrained", {"uri": "s3://a-b/c", "fromJob": "x"}, "either a uri", id="two-weights"
    ),
    pytest.param(
        "spec.model.pretrained",
        {"uri": "s3://a-b/c", "sha256": "0" * 64},
        "a run has recorded its own",
        id="hash-of-a-run",
    ),
    pytest.param(
        "spec.model.pretrained",
        {"fromJob": "x", "dictionary": "en_dict"},
        "a run has recorded its own",
        id="dictionary-of-a-run",
    ),
    pytest.param(
        "spec.model.pretrained",
        {"uri": "s3://a-b/c.pdparams", "checkpoint": "Latest"},
        "names one file of weights",
        id="checkpoint-of-a-file",
    ),
    pytest.param("metadata.name", "x" * 41, "at most 40 lower-case letters", id="long-name"),
    pytest.param("metadata.name", "1digits", "begin with a letter", id="name-from-a-digit"),
    pytest.param("metadata.name", "a.b", "at most 40 lower-case letters", id="name-with-a-dot"),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest manifest with one field changed, or (None) left out."""
    manifest = load("minimal.yaml")
    *above, last = path.split(".")
    node = manifest
    for part in above:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return manifest


@pytest.mark.parametrize(("path", "value", "message"), BAD)
async def test_bad_manifests(admin: KubeClient, namespace: str, path: str, value: Any, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        await admin.post(paths.runs(namespace) + DRY, changed(path, value))
    assert message in str(refused.value)
    assert path.rsplit(".", 1)[-1] in str(refused.value)


@pytest.mark.parametrize("name", ["minimal.yaml", "full.yaml"])
async def test_good_manifests_and_both_sides_agree_on_defaults(
    admin: KubeClient, namespace: str, name: str
) -> None:
    stored = await admin.post(paths.runs(namespace) + DRY, load(name))
    ours = RecTrainingJob.model_validate(load(name))
    assert RecTrainingJobSpec.model_validate(stored["spec"]) == ours.spec
    if name == "minimal.yaml":
        assert stored["spec"] == ours.spec.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("examples/*/rectrainingjob.yaml")), ids=lambda f: f.parent.name
)
def test_examples(control_plane: ControlPlane, namespace: str, file: Any) -> None:
    done = control_plane.kubectl(
        "-n", namespace, "apply", "--dry-run=server", "--validate=strict", "-f", str(file)
    )
    assert "(server dry run)" in done.stdout


async def test_what_may_change_when(admin: KubeClient, namespace: str) -> None:
    await admin.post(paths.runs(namespace), load("minimal.yaml"))
    key = JobKey(namespace, "minimal")
    change = {"spec": {"training": {"seed": 1}}}
    await admin.merge_patch(paths.run(key), copy.deepcopy(change))  # not started: all may change
    await admin.merge_patch(paths.run_status(key), {"status": {"startTime": "2026-01-02T03:04:05Z"}})
    for section, value in {
        "model": {"preset": "crnn_mv3"},
        "data": {"evalFraction": 0.3},
        "training": {"seed": 2},
        "checkpoint": {"keepLast": 9},
        "export": {"onnx": False},
        "s3": {"region": "x"},
        "replicas": {"gpusPerNode": 0},
    }.items():
        with pytest.raises(ApiError, match=f"spec.{section} can't change once the run has started"):
            await admin.merge_patch(paths.run(key), {"spec": {section: value}})
    for name, other in {"terminationGraceSeconds": 9, "stallTimeout": "1h"}.items():
        with pytest.raises(ApiError, match=f"{name} can't change"):
            await admin.merge_patch(paths.run(key), {"spec": {"runPolicy": {name: other}}})
    await admin.merge_patch(paths.run(key), {"spec": {"runPolicy": {"suspend": True, "maxRestarts": 9}}})
    await admin.merge_patch(paths.run_status(key), {"status": {"completionTime": "2026-01-02T04:04:05Z"}})
    with pytest.raises(ApiError, match="the run has ended"):
        await admin.merge_patch(paths.run(key), {"spec": {"runPolicy": {"suspend": False}}})


STARTED = {"startTime": "2026-01-02T03:04:05Z"}
SIX = {"epoch": 2, "epochs": 6, "step": 20, "steps": 60, "percent": 33}
RAISE = "epochs can only be raised once the run has started: give a number larger than before"


@pytest.mark.parametrize(
    ("before", "progress", "change", "refused"),
    [
        pytest.param({"epochs": 6}, SIX, {"epochs": 12}, None, id="more"),
        pytest.param({"epochs": 6}, None, {"epochs": 12}, None, id="more-before-the-first-report"),
        pytest.param({"epochs": 6}, SIX, {"epochs": 5}, RAISE, id="fewer"),
        pytest.param({"epochs": 6}, SIX, {"epochs": None}, RAISE, id="removed"),
        pytest.param({}, SIX, {"epochs": 7}, None, id="more-than-the-presets"),
        pytest.param({}, SIX, {"epochs": 6}, RAISE, id="the-presets"),
        pytest.param({}, SIX, {"epochs": 5}, RAISE, id="fewer-than-the-presets"),
        pytest.param({}, None, {"epochs": 7}, RAISE, id="not-known-yet"),
        pytest.param({}, {**SIX, "epochs": 0}, {"epochs": 7}, RAISE, id="not-known-while-staging"),
        *(
            pytest.param({"epochs": 6}, SIX, {"epochs": 12, name: value}, "but for more epochs", id=name)
            for name, value in {
                "batchSize": 8,
                "learningRate": 0.1,
                "evalInterval": 50,
                "seed": 9,
                "deterministic": True,
                "workers": 3,
                "smokeTest": True,
                "onNaN": "Fail",
                "earlyStopping": {"patience": 3},
            }.items()
        ),
        pytest.param({"workers": 3}, SIX, {"workers": None}, "but for more epochs", id="workers-removed"),
        pytest.param({"workers": 3}, SIX, {"workers": 3, "epochs": 7}, None, id="workers-stay"),
    ],
)
async def test_of_training_epochs_alone_may_grow_once_started(
    admin: KubeClient,
    namespace: str,
    request: pytest.FixtureRequest,
    before: dict[str, Any],
    progress: dict[str, Any] | None,
    change: dict[str, Any],
    refused: str | None,
) -> None:
    manifest = changed("spec.training", before)
    manifest["metadata"]["name"] = "grows-" + request.node.callspec.id.lower()
    run = paths.run(JobKey(namespace, manifest["metadata"]["name"]))
    await admin.post(paths.runs(namespace), manifest)
    await admin.merge_patch(f"{run}/status", {"status": {**STARTED, "progress": progress}})
    if refused is None:
        stored = await admin.merge_patch(run, {"spec": {"training": change}})
        assert stored["spec"]["training"]["epochs"] == change["epochs"]
    else:
        with pytest.raises(ApiError, match=refused):
            await admin.merge_patch(run, {"spec": {"training": change}})


async def test_more_epochs_come_too_late_after_the_end(admin: KubeClient, namespace: str) -> None:
    manifest = changed("spec.training", {"epochs": 6})
    manifest["metadata"]["name"] = "over"
    run = paths.run(JobKey(namespace, "over"))
    await admin.post(paths.runs(namespace), manifest)
    ended = {"status": {**STARTED, "completionTime": "2026-01-02T04:04:05Z"}}
    await admin.merge_patch(f"{run}/status", ended)
    with pytest.raises(ApiError, match="the run has ended"):
        await admin.merge_patch(run, {"spec": {"training": {"epochs": 12}}})


def test_kubectl_explains_and_knows_the_short_name(control_plane: ControlPlane, namespace: str) -> None:
    explained = control_plane.kubectl("explain", "rtj.spec.checkpoint.interval").stdout
    assert "between checkpoints" in explained
    listed = control_plane.kubectl("-n", namespace, "get", "rtj", "-o", "wide").stdout
    assert listed.split()[1:9] == ["PHASE", "PROGRESS", "EPOCH", "ACC", "LOSS", "ETA", "CKPT-AGE", "AGE"]
