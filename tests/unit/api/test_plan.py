"""`plan()`: the same on a laptop and in the operator; what makes two runs the same run."""

from typing import Any

import pytest
from pydantic import ValidationError

from rectrain_api.errors import InvalidSpec
from rectrain_api.plan import RunPlan, epochs_of, plan, with_epochs
from rectrain_api.presets import load
from rectrain_api.spec import RecTrainingJob


def job(**spec: Any) -> RecTrainingJob:
    """A small manifest with some sections replaced."""
    return RecTrainingJob.model_validate(
        {
            "apiVersion": "rectrain.dev/v1alpha1",
            "kind": "RecTrainingJob",
            "metadata": {"name": "run", "namespace": "team", "labels": {"any": "label"}},
            "spec": {
                "model": {"preset": "svtr_nano"},
                "data": {"train": "s3://data/set/"},
                "checkpoint": {"uri": "s3://runs/run/"},
                **spec,
            },
        }
    )


def from_uri(uri: str | None = None, **more: str) -> dict[str, Any]:
    """A model section that starts from somewhere."""
    named = {"uri": uri} if uri else {}
    return {"preset": "svtr_nano", "pretrained": named | more}


def test_the_preset_fills_what_is_left_out() -> None:
    preset, made = load("svtr_nano"), plan(job())
    assert made.training.epochs == preset.epochs
    assert made.training.batch_size == preset.batch_size
    assert made.training.learning_rate == preset.learning_rate
    assert made.model.image_shape == preset.image_shape
    assert str(made.identity) == "team/run"


def test_what_is_given_wins() -> None:
    made = plan(job(training={"epochs": 7, "batchSize": 9, "learningRate": 0.5, "seed": 3}))
    assert (made.training.epochs, made.training.batch_size, made.training.learning_rate) == (7, 9, 0.5)


def test_slashes_at_the_end_go() -> None:
    made = plan(job())
    assert (made.data.train, made.checkpoint.uri) == ("s3://data/set", "s3://runs/run")


@pytest.mark.parametrize(
    ("interval", "every", "unit"),
    [(200, 200, "steps"), ("90s", 90, "seconds"), ("5m", 300, "seconds"), ("2h", 7200, "seconds")],
)
def test_checkpoint_interval(interval: int | str, every: int, unit: str) -> None:
    made = plan(job(checkpoint={"uri": "s3://runs/run", "interval": interval})).checkpoint.interval
    assert (made.every, made.unit) == (every, unit)


@pytest.mark.parametrize(
    ("interval", "every", "unit"),
    [(500, 500, "steps"), ("1 epoch", 1, "epochs"), ("3 epochs", 3, "epochs"), ("2epochs", 2, "epochs")],
)
def test_eval_interval(interval: int | str, every: int, unit: str) -> None:
    made = plan(job(training={"evalInterval": interval})).training.eval_interval
    assert (made.every, made.unit) == (every, unit)


def test_nodes() -> None:
    assert plan(job()).nodes == 1
    assert plan(job(replicas={"nodes": 4})).nodes == 4


@pytest.mark.parametrize(("nodes", "gpus", "ranks"), [(1, 0, 1), (1, 1, 1), (3, 0, 3), (1, 4, 4), (2, 8, 16)])
def test_a_rank_is_a_device_and_a_pod_on_cpus_is_one(nodes: int, gpus: int, ranks: int) -> None:
    made = plan(job(replicas={"nodes": nodes, "gpusPerNode": gpus}))
    assert (made.ranks, made.ranks_per_pod) == (ranks, ranks // nodes)


@pytest.mark.parametrize("nodes", [0, 65])
def test_nodes_are_bounded(nodes: int) -> None:
    with pytest.raises(ValidationError, match="nodes"):
        job(replicas={"nodes": nodes})


def test_a_plan_that_was_written_without_nodes_is_of_one_pod() -> None:
    written = plan(job()).to_dict()
    del written["nodes"]
    assert RunPlan.model_validate(written).nodes == 1


def test_cache_size_in_bytes() -> None:
    assert plan(job(data={"train": "s3://data/x", "cache": {"size": "2Gi"}})).data.cache_bytes == 2 * 2**30


def test_a_shared_volume_bounds_nothing() -> None:
    data = {"train": "s3://data/x", "cache": {"claimName": "sets"}}
    assert plan(job(data=data)).data.cache_bytes is None


@pytest.mark.parametrize("cache", [{}, {"size": "1Gi", "claimName": "sets"}])
def test_a_cache_is_one_of_two(cache: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"either a size .* or a claimName"):
        job(data={"train": "s3://data/x", "cache": cache})


def test_run_json_round_trips_byte_for_byte() -> None:
    text = plan(job()).to_json()
    assert RunPlan.model_validate_json(text).to_json() == text


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({"training": {"epochs": 99}}, True, id="epochs-may-differ"),
        pytest.param({"training": {"workers": 3}}, True, id="workers-may-differ"),
        pytest.param({"training": {"evalInterval": 7}}, True, id="intervals-may-differ"),
        pytest.param({"checkpoint": {"uri": "s3://other/place"}}, True, id="place-may-differ"),
        pytest.param({"s3": {"endpoint": "https://elsewhere"}}, True, id="endpoint-may-differ"),
        pytest.param({"replicas": {"gpusPerNode": 0}}, True, id="devices-may-differ"),
        pytest.param({"replicas": {"nodes": 4}}, True, id="nodes-may-differ"),
        pytest.param({"data": {"train": "s3://data/set", "cache": {"size": "1Gi"}}}, True, id="cache"),
        pytest.param({"training": {"seed": 1}}, False, id="seed"),
        pytest.param({"training": {"batchSize": 1}}, False, id="batch"),
        pytest.param({"data": {"train": "s3://data/another"}}, False, id="data"),
        pytest.param({"model": {"preset": "crnn_mv3"}}, False, id="model"),
        pytest.param({"model": from_uri("s3://runs/older")}, False, id="pretrained"),
    ],
)
def test_plan_hash(changes: dict[str, Any], same: bool) -> None:
    assert (plan(job(**changes)).plan_hash() == plan(job()).plan_hash()) is same


def test_a_plan_of_before_optional_sections_keeps_its_hash() -> None:
    """Runs of earlier versions go on: it was computed before those fields existed."""
    written = "d94177320fcd6ce89316685f3c94042912f3edb35e50fe66d790b2dd9776b9c8"
    assert plan(job()).plan_hash() == written
    assert plan(job(model={"preset": "svtr_nano", "overrides": {"ema.gamma": "2000"}})).plan_hash() != written


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(InvalidSpec, match=r'"nosuch" is unknown: choose one of .*svtr_nano'):
        plan(job(model={"preset": "nosuch"}))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"data": {"train": "/data"}}, "must be an S3 URI such as s3://bucket/folder"),
        ({"checkpoint": {"uri": "s3://runs/x", "interval": "soon"}}, "a time \\(90s, 5m, 1h\\)"),
        ({"s3": {"endpoint": "minio:9000"}}, "such as https://minio.example:9000"),
        ({"replicas": {"env": [{"name": "1A"}]}}, "not begin with a digit"),
    ],
)
def test_a_laptop_says_what_the_cluster_would_say(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        job(**spec)


def test_a_written_plan_gets_other_epochs_and_keeps_every_other_byte() -> None:
    made = plan(job(training={"epochs": 6, "learningRate": 0.0001}, data={"train": "s3://data/é"}))
    longer = plan(job(training={"epochs": 12, "learningRate": 0.0001}, data={"train": "s3://data/é"}))
    assert epochs_of(made.to_json()) == 6
    assert with_epochs(made.to_json(), 12) == longer.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"training": {}}', '{"training": {"epochs": "6"}}'])
def test_what_is_no_plan_has_no_epochs(text: str) -> None:
    assert epochs_of(text) is None


@pytest.mark.parametrize(
    ("model", "source", "expected"),
    [
        pytest.param(
            from_uri("s3://runs/older/"), None, {"uri": "s3://runs/older", "checkpoint": "Best"}, id="a-run"
        ),
        pytest.param(
            from_uri("s3://runs/older", checkpoint="Latest"),
            None,
            {"uri": "s3://runs/older", "checkpoint": "Latest"},
            id="its-latest",
        ),
        pytest.param(
            from_uri("s3://weights/a.pdparams", sha256="0" * 64, dictionary="en_dict"),
            None,
            {"uri": "s3://weights/a.pdparams", "sha256": "0" * 64, "dictionary": "en_dict"},
            id="a-file",
        ),
        pytest.param(
            from_uri(fromJob="older"),
            "s3://runs/older/",
            {"uri": "s3://runs/older", "checkpoint": "Best"},
            id="a-job",
        ),
        pytest.param(
            from_uri("s3://runs/run-2"),
            None,
            {"uri": "s3://runs/run-2", "checkpoint": "Best"},
            id="neighbour",
        ),
    ],
)
def test_weights_to_start_from(model: dict[str, Any], source: str | None, expected: dict[str, str]) -> None:
    found = plan(job(model=model), source).model.pretrained
    assert found is not None
    assert found.to_dict() == expected


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        pytest.param({}, "either a uri .* or a fromJob", id="nothing"),
        pytest.param({"uri": "s3://runs/a", "fromJob": "a"}, "either a uri .* or a fromJob", id="both"),
        pytest.param(
            {"uri": "s3://runs/a", "sha256": "0" * 64}, "a run has recorded its own", id="hash-of-a-run"
        ),
        pytest.param(
            {"fromJob": "a", "dictionary": "en_dict"}, "a run has recorded its own", id="dictionary"
        ),
        pytest.param(
            {"uri": "s3://weights/b.pdparams", "checkpoint": "Best"}, "one file of weights", id="which"
        ),
        pytest.param(
            {"uri": "s3://weights/b.pdparams", "sha256": "0" * 63 + "A"}, "in lower case", id="hash"
        ),
        pytest.param({"uri": "/tmp/b.pdparams"}, "must be an S3 URI", id="a-path"),
    ],
)
def test_what_would_be_ignored_is_refused(pretrained: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        job(model={"preset": "svtr_nano", "pretrained": pretrained})


@pytest.mark.parametrize("uri", ["s3://runs/run", "s3://runs/run/best/model.pdparams"])
def test_a_run_does_not_start_from_itself(uri: str) -> None:
    with pytest.raises(InvalidSpec, match=r"own place: .* needs only checkpoint\.resume"):
        plan(job(model=from_uri(uri)))


def test_another_job_takes_a_cluster() -> None:
    with pytest.raises(InvalidSpec, match=r"RecTrainingJob older, .* give its checkpoint\.uri as .*\.uri"):
        plan(job(model=from_uri(fromJob="older")))
