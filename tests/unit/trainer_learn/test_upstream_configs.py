"""Configs of PaddleOCR, built by its own code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rectrain_api.errors import InvalidSpec
from rectrain_api.plan import ConfigText, plan
from rectrain_api.spec import RecTrainingJob
from rectrain_local.assets.cache import Cache
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.model import build_model, build_optimizer
from tests.support.paddleocr37 import paddleocr_37
from tests.support.plans import make_manifest

CONFIGS = Path(__file__).parents[2] / "data" / "configs"


def recipe(name: str, **training: object) -> Recipe:
    made = make_manifest(model={"preset": None, "config": {"uri": f"s3://configs/{name}"}})
    made["spec"]["training"] = training
    text = ConfigText((CONFIGS / name).read_text("utf-8"), name)
    resolved = plan(RecTrainingJob.model_validate(made), config=text)
    return resolve(resolved.model, resolved.training, "0123456789")


def test_a_part_that_this_paddleocr_lacks_is_named() -> None:
    with pytest.raises(
        InvalidSpec, match=r"^Architecture: Backbone PPLCNetV4 isn't in the PaddleOCR that .*HOME"
    ):
        build_model(recipe("ppocrv6_medium.yml"))


def test_a_neck_that_this_paddleocr_lacks_is_named() -> None:
    broken = recipe("svtr_nano.yml")
    broken.architecture["Neck"]["encoder_type"] = "lightsvtr"
    with pytest.raises(InvalidSpec, match=r"^Architecture: Neck lightsvtr isn't in the PaddleOCR"):
        build_model(broken)


def test_a_schedule_of_values_is_scaled_as_a_whole() -> None:
    """Upstream's PP-OCRv3 has one: 5e-4 until its decay epoch, 5e-5 from there."""
    as_written = recipe("svtr_nano.yml")
    rates = recipe("ppocrv3.yml", epochs=4).optimizer["lr"]
    assert (rates["values"], rates["learning_rate"]) == ([5e-4, 5e-5], 5e-4)
    as_written.optimizer["lr"] = rates | {"decay_epochs": [2], "warmup_epoch": 0}
    model = build_model(as_written)
    seen = []
    for peak in (5e-4, 1e-3):
        as_written.optimizer["lr"]["learning_rate"] = peak
        _, rate = build_optimizer(as_written, 1, model)
        values = []
        for _ in range(4):
            values.append(float(rate.get_lr()))
            rate.step()
        seen.append(values)
    assert seen == [[5e-4, 5e-4, 5e-5, 5e-5], [1e-3, 1e-3, 1e-4, 1e-4]]


def test_37s_code_base_trains_the_same_model_to_the_same_losses(tmp_path: Path, cache: Cache) -> None:
    """A config of 3.x, guided by NRTR, with joined samples and several sizes."""
    homes = {"PADDLEOCR_HOME": str(paddleocr_37(cache.root))}
    runs = []
    for number, env in enumerate(({}, homes)):
        command = [sys.executable, "-m", "tests.unit.trainer_learn.two_steps"]
        command += [str(CONFIGS / "ppocrv5_th.yaml"), str(tmp_path / str(number))]
        done = subprocess.run(
            command, env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    assert runs[1]["home"] == homes["PADDLEOCR_HOME"] != runs[0]["home"]
    assert len(runs[0]["losses"]) >= 2
    assert runs[1]["losses"] == runs[0]["losses"]
