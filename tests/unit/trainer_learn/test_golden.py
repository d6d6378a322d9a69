"""Our loop against upstream's: the same weights, seed and batches give the same losses, bit for bit."""

from pathlib import Path

import numpy as np
import paddle
import pytest

from rectrain_api import presets
from rectrain_trainer import seeding
from rectrain_trainer.config import Recipe
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.model import build_learner
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.recipes import loose, make_recipe
from tests.unit.trainer_learn.upstream_loop import train_upstream

SMALL = ("crnn_mv3", "svtr_nano")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of large models."""
    folder = tmp_path_factory.mktemp("few")
    make_digits(folder, 4, seed=3, longest=4)
    return folder


@pytest.fixture(autouse=True)
def unseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream seeds once, not at every step: for this comparison neither do we."""
    monkeypatch.setattr(seeding, "seed_step", lambda *_: None)


@pytest.mark.parametrize("preset", SMALL)
def test_losses_equal_upstreams_bit_for_bit(preset: str, digits: Path, tmp_path: Path) -> None:
    # 2 x 13 steps; geometry, dropout and augmentation as the preset has them
    recipe = make_recipe(preset, epochs=2, batch_size=4)
    losses = compare(recipe, digits, tmp_path)
    assert len(losses) == 26
    if preset == "svtr_nano":  # dropout is on: another seed gives other losses
        with Loader(recipe, loose(digits)) as loader:
            other = TrainState.new(recipe, len(loader))
            paddle.seed(100)
            (first,) = next(iter(train(other, loader, fetch_every=1))).losses
            assert first.loss != losses[0]


@pytest.mark.parametrize("preset", sorted(presets.all_presets().keys() - set(SMALL)))
def test_losses_of_large_models_equal_upstreams_bit_for_bit(preset: str, few: Path, tmp_path: Path) -> None:
    """Two steps at the preset's own geometry, in two sizes where it has several."""
    recipe = make_recipe(preset, epochs=1, batch_size=3)
    assert len(compare(recipe, few, tmp_path)) == 2


def compare(recipe: Recipe, folder: Path, scratch: Path) -> list[float]:
    """The losses, which are all different, and the same in both loops, as the weights are that they leave."""
    with Loader(recipe, loose(folder)) as loader:
        theirs = build_learner(recipe, len(loader))
        paddle.seed(99)
        their_losses: list[float] = []
        train_upstream(recipe, theirs, loader, scratch, lambda loss: their_losses.append(float(loss)))

        state = TrainState.new(recipe, len(loader))
        paddle.seed(99)
        our_losses = [row.loss for step in train(state, loader, fetch_every=1) for row in step.losses]
    assert our_losses == their_losses
    ours = state.learner.model.state_dict()
    for name, tensor in theirs.model.state_dict().items():
        assert np.array_equal(tensor.numpy(), ours[name].numpy()), name
    assert len(set(our_losses)) == len(our_losses)
    assert np.isfinite(our_losses).all()
    return our_losses
