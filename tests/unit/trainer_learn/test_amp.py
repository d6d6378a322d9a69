"""Mixed precision on a CPU: ignored, and said so. The scaling of the loss alone, which needs no GPU, is real
here: Paddle's scaler is made to believe in one."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import paddle
import pytest

from rectrain_api.presets import AmpConfig
from rectrain_trainer import amp
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.snapshot import capture, restore
from rectrain_trainer.snapshot_files import load_snapshot, save_snapshot
from tests.unit.trainer_learn.recipes import loose, make_recipe

STATIC = {"amp.scale_loss": "1024", "amp.level": "O1"}
DYNAMIC = {"amp.scale_loss": "1e38", "amp.use_dynamic_loss_scaling": "true"}


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    place = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=bool, is_custom_place=bool)
    scaler: Any = paddle.amp.grad_scaler
    monkeypatch.setattr(scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    monkeypatch.setattr(amp, "on_gpu", lambda: True)


def trained(overrides: dict[str, str], folder: Path, steps: int) -> TrainState:
    recipe = make_recipe(overrides=overrides, batch_size=4)
    with Loader(recipe, loose(folder)) as loader:
        state = TrainState.new(recipe, len(loader))
        for step in train(state, loader, fetch_every=1):
            if step.step == steps:
                break
    return state


def weights(state: TrainState) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in state.learner.model.state_dict().items()}


def learnt(state: TrainState) -> dict[str, bytes]:
    """Without BatchNorm's statistics, which a step that is left out has moved too."""
    tensors = state.learner.model.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items() if not tensor.stop_gradient}


def same(left: TrainState, right: TrainState) -> bool:
    theirs = weights(right)
    return all(np.array_equal(array, theirs[name]) for name, array in weights(left).items())


def test_on_a_cpu_it_is_ignored_and_said_so(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = trained(STATIC, digits, 3)
    assert state.recipe.amp == AmpConfig(level="O1", scale_loss=1024)
    assert state.learner.amp is None
    assert capture(state).scaler is None
    assert same(state, trained({}, digits, 3))
    caplog.set_level(logging.INFO)
    amp.tell(None)
    assert not caplog.records
    amp.tell(state.recipe.amp)
    assert "is ignored: Paddle has it on GPUs alone" in caplog.text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_power_of_two_scales_the_loss_and_changes_nothing(believed: None, digits: Path) -> None:
    scaled = trained(STATIC, digits, 3)
    assert scaled.learner.amp is not None
    assert scaled.learner.amp.state() == {"scale": 1024.0, "incr_count": 0, "decr_count": 0}
    assert same(scaled, trained({}, digits, 3))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_overflow_leaves_the_step_out_and_a_resumed_run_goes_on_with_the_factor(
    believed: None, digits: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(overrides=DYNAMIC, batch_size=4)
    untouched = TrainState.new(recipe, 13)
    first = trained(DYNAMIC, digits, 1)
    assert learnt(first) == learnt(untouched)
    snapshot = capture(first)
    assert snapshot.scaler is not None
    assert snapshot.scaler["scale"] == pytest.approx(5e37)
    save_snapshot(tmp_path, snapshot)
    assert json.loads((tmp_path / "state.json").read_text())["scaler"] == snapshot.scaler

    whole = trained(DYNAMIC, digits, 4)
    with Loader(recipe, loose(digits)) as loader:
        resumed = TrainState.new(recipe, len(loader))
        restore(resumed, load_snapshot(tmp_path))
        for step in train(resumed, loader, fetch_every=1):
            if step.step == 4:
                break
    assert resumed.learner.amp is not None
    assert whole.learner.amp is not None
    assert resumed.learner.amp.state() == whole.learner.amp.state()
    assert same(resumed, whole)
    assert whole.learner.amp.state()["scale"] <= snapshot.scaler["scale"]


def test_predictions_are_whole_numbers_again() -> None:
    half = paddle.ones([2], dtype="float16")
    found = amp._whole({"ctc": half, "more": [half, (half, 3)]})
    assert found["ctc"].dtype == found["more"][0].dtype == found["more"][1][0].dtype == paddle.float32
    assert found["more"][1][1] == 3
