"""Starting from weights: another run's, or a bare file; each through the real command."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import CheckpointRecord
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import Download, S3Options, open_store
from rectrain_local.s3 import SeaweedS3
from rectrain_trainer.config import resolve
from rectrain_trainer.model import build_model
from rectrain_trainer.snapshot_files import load_arrays
from tests.integration.trainer_run.test_refusals import refused
from tests.integration.trainer_run.test_run import LONG, tmp_job
from tests.support.plans import make_manifest
from tests.support.trainer import Place, Trainer

Manifest = Callable[..., dict[str, Any]]
DIGITS = "0123456789"
OTHER = "abc9876543210"
"""The digits at other places, and three characters more."""
STILL = {"learningRate": 1e-8}
"""Training that moves no weight by more than this a step: what a run ends with is what it began with."""
MOVED = 1e-6
WEIGHTS = "model.pdparams"


@pytest.fixture(scope="module")
def older(
    bucket: str, packed: str, s3: S3Options, seaweed: SeaweedS3, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """A finished run over the digits."""
    uri = f"{bucket}/older"
    env = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")} | seaweed.env
    trainer = Trainer(tmp_path_factory.mktemp("older"), env | {"OMP_NUM_THREADS": "1"})
    ended = trainer.run(make_manifest(name="older", train=packed, uri=uri, epochs=3))
    assert ended.code == 0, ended.errors
    return Place(uri, open_store(uri, s3))


def best_of(place: Place) -> tuple[CheckpointRecord, float]:
    """The best checkpoint, and its accuracy."""
    state = place.state()
    assert state.best is not None
    found = state.checkpoint_at(state.best.prefix)
    assert found is not None
    return found, state.best.accuracy


def weights_of(place: Place, record: CheckpointRecord, folder: Path) -> dict[str, Any]:
    path = folder / f"{record.step}-{WEIGHTS}"
    place.store.download_file(Download(f"{record.prefix}/{WEIGHTS}", path))
    return load_arrays(path)


def first_weights_of(manifest: dict[str, Any], characters: str) -> dict[str, Any]:
    """What a run of this manifest begins with when nothing is loaded."""
    plan = plan_of(RecTrainingJob.model_validate(manifest))
    recipe = resolve(plan.model, plan.training, characters)
    return {name: np.array(t.numpy()) for name, t in build_model(recipe).state_dict().items()}


def same(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=0, atol=MOVED))


def test_from_another_runs_best_with_another_dictionary(
    trainer: Trainer, place: Place, manifest: Manifest, older: Place, tmp_path: Path
) -> None:
    place.store.put_bytes("dictionary.txt", "".join(f"{c}\n" for c in OTHER).encode())
    job = manifest(
        epochs=1,
        training=STILL,
        model={"pretrained": {"uri": f"{older.uri}/"}},
        data={"dictionary": f"{place.uri}/dictionary.txt"},
    )
    ended = trainer.run(job)
    assert ended.code == 0, ended.errors
    record, accuracy = best_of(older)
    assert (
        f"Starting from {older.uri} (step {record.step}, accuracy {accuracy:.1%}): 60 of 60 tensors loaded; "
        "CTC head: 10 of 13 characters carried over."
    ) in ended.errors
    given = weights_of(older, record, tmp_path)
    mine = weights_of(place, place.state().newest_first()[0], tmp_path)
    fresh = first_weights_of(job, OTHER)
    for name in given.keys() - {"head.fc.weight", "head.fc.bias"}:
        if not name.endswith(("_mean", "_variance")):  # which count what was seen, whatever the rate
            assert same(mine[name], given[name]), name
    for name in ("head.fc.weight", "head.fc.bias"):
        assert same(mine[name][..., 0], given[name][..., 0])
        for row, character in enumerate(OTHER, 1):
            known = character in DIGITS
            source = given[name][..., 1 + DIGITS.index(character)] if known else fresh[name][..., row]
            assert same(mine[name][..., row], source), (name, character)
            assert known != same(mine[name][..., row], fresh[name][..., row])


def test_from_a_file_once_and_never_again(
    trainer: Trainer, place: Place, manifest: Manifest, older: Place
) -> None:
    record, _ = best_of(older)
    data = older.store.get_bytes(f"{record.prefix}/{WEIGHTS}")
    named = {"uri": f"{older.uri}-file/w.pdparams", "sha256": hashlib.sha256(data).hexdigest()}
    beside = open_store(f"{older.uri}-file", S3Options.from_environment(trainer.env))
    beside.put_bytes("w.pdparams", data)

    job = manifest(epochs=LONG, interval=2, model={"pretrained": named})
    run = trainer.start(job)
    run.until(place.steps, "a checkpoint")
    run.kill()
    assert (
        f"Starting from {named['uri']}: 60 of 60 tensors loaded; CTC head: 10 of 10 characters carried over "
        "(taken to be the same, since no dictionary is named)."
    ) in run.errors()
    step = place.state().newest_first()[0].step

    beside.delete(["w.pdparams"])
    ended = trainer.run(manifest(epochs=step // 3 + 2, interval=2, model={"pretrained": named}))
    assert ended.code == 0, ended.errors
    assert "Starting from" not in ended.errors
    assert "model.pretrained isn't read again: the run goes on from its own checkpoints" in ended.errors
    assert place.trained(2)[0] == step + 1


def test_a_check_sees_the_weights_too(
    trainer: Trainer, place: Place, manifest: Manifest, older: Place
) -> None:
    """And that they know none of this run's characters."""
    data = {"dictionary": "th_dict", "validation": "Off"}
    job = manifest(model={"pretrained": {"uri": older.uri, "checkpoint": "Latest"}}, data=data)
    ended = trainer.start_with(["check", "-f", tmp_job(trainer, job)]).wait()
    assert (ended.code, ended.result["reason"]) == (0, "Checked"), ended.errors
    newest = older.state().newest_first()[0]
    assert ended.errors.count(f"Starting from {older.uri} (step {newest.step}, accuracy ") == 1
    assert f"RD026 at {older.uri} (step {newest.step}, accuracy " in ended.errors
    assert place.store.list_keys("") == []


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_weights_that_would_run_something(
    trainer: Trainer, place: Place, manifest: Manifest, bucket: str, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    uri = f"{bucket}/hostile/w.pdparams"
    store = open_store(f"{bucket}/hostile", S3Options.from_environment(trainer.env))
    store.put_bytes("w.pdparams", pickle.dumps({"w": Hostile(marker)}))
    for ended in (
        trainer.run(manifest(model={"pretrained": {"uri": uri}})),
        trainer.start_with(
            ["check", "-f", tmp_job(trainer, manifest(model={"pretrained": {"uri": uri}}))]
        ).wait(),
    ):
        refused(ended, 78, "InvalidSpec", f"{uri} is refused: it would run", "from a place that you trust")
    assert not marker.exists()
    assert place.records() == [], "no attempt is taken"


def test_weights_that_are_not_there_or_are_others(
    trainer: Trainer, place: Place, manifest: Manifest, older: Place, bucket: str
) -> None:
    """Every refusal comes before an attempt, with a sentence that says how to mend it."""
    copy = f"{older.uri}/best/{WEIGHTS}"
    for named, preset, expected in (
        (
            {"uri": f"{bucket}/nowhere/w.pdparams"},
            "svtr_nano",
            (66, "InputMissing", "w.pdparams isn't there"),
        ),
        (
            {"uri": f"{bucket}/nowhere"},
            "svtr_nano",
            (66, "InputMissing", "holds no run", "checkpoint.uri of a run"),
        ),
        ({"uri": copy, "sha256": "0" * 64}, "svtr_nano", (65, "DatasetInvalid", copy, "instead of 0000")),
        ({"uri": older.uri}, "crnn_mv3", (78, "InvalidSpec", "nothing that fits the preset crnn_mv3")),
        (
            {"uri": copy, "dictionary": "en_dict"},
            "svtr_nano",
            (78, "InvalidSpec", "tells 10 characters apart, and the dictionary has"),
        ),
        ({"uri": copy, "dictionary": "klingon"}, "svtr_nano", (66, "InputMissing", "'klingon'", "in all")),
    ):
        job = manifest(model={"preset": preset, "pretrained": named})
        refused(trainer.run(job), *expected)
    assert place.records() == []


def test_another_job_takes_a_cluster(trainer: Trainer, manifest: Manifest) -> None:
    ended = trainer.run(manifest(model={"pretrained": {"fromJob": "older"}}))
    refused(
        ended, 78, "InvalidSpec", "only a cluster knows", "give its checkpoint.uri as model.pretrained.uri"
    )
