"""A model that a config of PaddleOCR describes: its plan is deferred, and resolved where the config is."""

from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from rectrain_api.errors import InputMissing, InvalidSpec
from rectrain_api.plan import (
    ConfigText,
    DeferredPlan,
    RunPlan,
    epochs_of,
    parse_plan,
    plan,
    with_epochs,
    write_plan,
)
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import Store
from rectrain_trainer.config import resolve
from rectrain_trainer.manifest import read_manifest
from rectrain_trainer.unresolved import resolved
from tests.support.memory_store import MemoryStore
from tests.support.plans import make_manifest, make_plan

CONFIGS = Path(__file__).parents[2] / "data" / "configs"
NANO = (CONFIGS / "svtr_nano.yml").read_text("utf-8")
IN_MAP = {"configMap": {"name": "models", "key": "nano.yml"}}
IN_S3 = {"uri": "s3://configs/nano.yml"}


def manifest(config: dict[str, Any], training: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    made = make_manifest(model={"preset": None, "config": config, **more})
    made["spec"]["training"] = training or {}
    return made


def job(config: dict[str, Any], **more: Any) -> RecTrainingJob:
    return RecTrainingJob.model_validate(manifest(config, **more))


def deferred(config: dict[str, Any], **more: Any) -> DeferredPlan:
    """As a pod reads it."""
    read = parse_plan(write_plan(job(config, **more)).to_json())
    assert isinstance(read, DeferredPlan)
    return read


def never(_uri: str) -> Store:
    raise AssertionError("no store is needed")


def store_with(**objects: bytes) -> Any:
    store = MemoryStore()
    store.objects = {name.replace("__", "."): data for name, data in objects.items()}
    return lambda _uri: cast("Store", store)


def test_what_the_pods_need_is_known_before_the_config() -> None:
    whole, written = make_plan(), deferred(IN_MAP)
    for field in ("identity", "checkpoint", "s3", "nodes", "gpus", "termination_grace_seconds"):
        assert getattr(written, field) == getattr(whole, field)
    assert parse_plan(whole.to_json()) == whole


def test_the_configs_model_is_resolved_as_the_preset_it_describes() -> None:
    ours = make_plan(training={"epochs": None, "batchSize": None})
    made = resolved(deferred(IN_MAP), never, {"RECTRAIN_MODEL_CONFIG": NANO})
    assert made.model.config == ours.model.config
    assert made.training == ours.training.model_copy(update={"workers": None})
    assert made.data.dictionary == "en_dict"
    assert made.model.origin is not None
    assert made.model.origin.source == "ConfigMap models, key nano.yml"
    # What is trained, and so every loss, follows from the recipe alone.
    theirs = resolve(made.model.model_copy(update={"preset": "svtr_nano"}), made.training, "abc")
    assert theirs == resolve(ours.model, made.training, "abc")


def test_two_spellings_of_one_model_are_one_run() -> None:
    respelt = yaml.safe_dump(yaml.safe_load(NANO) | {"Metric": {"name": "RecMetric"}}).encode()
    from_map = resolved(deferred(IN_MAP), never, {"RECTRAIN_MODEL_CONFIG": NANO})
    from_s3 = resolved(deferred(IN_S3), store_with(nano__yml=respelt))
    assert from_map.model.origin != from_s3.model.origin
    assert from_map.plan_hash() == from_s3.plan_hash()
    other = resolved(deferred(IN_MAP), never, {"RECTRAIN_MODEL_CONFIG": NANO.replace("0.05", "0.06")})
    assert other.plan_hash() != from_map.plan_hash()


def test_what_the_manifest_gives_wins_over_the_config() -> None:
    given = deferred(IN_MAP, training={"epochs": 3, "batchSize": 7}, overrides={"Global.epoch_num": "5"})
    made = resolved(given, never, {"RECTRAIN_MODEL_CONFIG": NANO})
    assert (made.training.epochs, made.training.batch_size, made.training.learning_rate) == (3, 7, 0.003)
    overridden = resolved(
        deferred(IN_MAP, overrides={"Global.epoch_num": "5"}), never, {"RECTRAIN_MODEL_CONFIG": NANO}
    )
    assert overridden.training.epochs == 5


def test_epochs_are_raised_in_a_deferred_plan_too() -> None:
    text = write_plan(job(IN_MAP)).to_json()
    assert epochs_of(text) == 0, "only the config has them"
    raised = with_epochs(text, 9)
    assert epochs_of(raised) == 9
    assert resolved(parse_plan(raised), never, {"RECTRAIN_MODEL_CONFIG": NANO}).training.epochs == 9
    assert epochs_of(write_plan(job(IN_MAP, training={"epochs": 4})).to_json()) == 4


def test_no_variable_of_a_pod_is_kept_in_its_plan() -> None:
    made = manifest(IN_MAP)
    made["spec"]["replicas"] |= {"env": [{"name": "WANDB_API_KEY", "value": "hush"}]}
    assert "hush" not in write_plan(RecTrainingJob.model_validate(made)).to_json()


@pytest.mark.parametrize(
    ("store", "error", "message"),
    [
        (store_with(), InputMissing, "s3://configs/nano.yml isn't there"),
        (store_with(nano__yml=b"\xff\xfe\x00"), InvalidSpec, "isn't UTF-8"),
        (store_with(nano__yml=b" " * (257 << 10)), InvalidSpec, "has 263168 bytes"),
        (store_with(nano__yml=b"a: 1"), InvalidSpec, "^s3://configs/nano.yml: it has no section Global"),
    ],
)
def test_a_config_in_s3_that_cannot_be_read(store: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolved(deferred(IN_S3), store)


def test_a_config_map_is_found_in_the_manifests_own_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    beside = {"kind": "ConfigMap", "metadata": {"name": "models"}, "data": {"nano.yml": NANO}}
    path.write_text(yaml.safe_dump_all([beside, manifest(IN_MAP)]))
    made = read_manifest(path).plan
    assert isinstance(made, RunPlan)
    assert made == plan(job(IN_MAP), config=ConfigText(NANO, "ConfigMap models, key nano.yml"))

    path.write_text(yaml.safe_dump_all([beside | {"data": {"other.yml": NANO}}, manifest(IN_MAP)]))
    with pytest.raises(InvalidSpec, match=r"ConfigMap models has no text under data.nano.yml"):
        read_manifest(path)
    path.write_text(yaml.safe_dump(manifest(IN_MAP)))
    with pytest.raises(InputMissing, match=r"names the ConfigMap models .* put it into the same file"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, "either a preset"),
        ({"preset": "svtr_nano", "config": IN_S3}, "either a preset"),
        ({"config": {}}, "either a configMap"),
        ({"config": IN_S3 | IN_MAP}, "either a configMap"),
    ],
)
def test_exactly_one_model_is_named(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = make_manifest()
    made["spec"]["model"] = model
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(made))
    with pytest.raises(InvalidSpec, match=message):
        read_manifest(path)
