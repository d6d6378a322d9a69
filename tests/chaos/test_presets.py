"""Every model with every dictionary that upstream has for it: trains a few steps, is evaluated, exported, and
read alike by all engines. In `make test` each model is with one dictionary."""

from pathlib import Path

import pytest

from rectrain_api import presets
from rectrain_trainer.consumer import VARIABLE
from rectrain_trainer.evaluate import EvalSet, evaluate
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState, train
from rectrain_trainer.model import build_decoder
from tests.unit.trainer_learn.digits import make_digits
from tests.unit.trainer_learn.exports import CONSUMER, exported
from tests.unit.trainer_learn.recipes import loose

pytestmark = pytest.mark.chaos

NAMES = sorted(
    {
        (preset.name, alias.dictionary): alias.name
        for preset in presets.all_presets().values()
        for alias in preset.aliases
        if alias.dictionary
    }.values()
)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_upstreams_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(CONSUMER))
    make_digits(tmp_path, 6, seed=3, longest=4)
    done = exported(name, tmp_path, tmp_path / "export")
    assert done.exported.parity.images == done.exported.parity.with_text == 6
    assert len(done.exported.parity.engines) == 3

    recipe = done.recipe
    with Loader(recipe, loose(tmp_path)) as loader:
        state = TrainState.new(recipe, len(loader))
        losses = [row.loss for step in train(state, loader, fetch_every=1) for row in step.losses]
    assert len(losses) == recipe.epochs * len(loader)
    decoder = build_decoder(recipe.characters, use_space_char=True)
    assert evaluate(state.learner.model, decoder, EvalSet(recipe, loose(tmp_path))).samples == 6
