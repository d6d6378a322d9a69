"""The smoke test: digits are learnt by heart, and not at a learning rate that can't work."""

import dataclasses
import logging
from typing import Any

import pytest

from rectrain_api.errors import DatasetInvalid
from rectrain_data import demo
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe
from rectrain_trainer.smoke import EXPECTED_BY, ByHeart, Learnt, judge, smoke_test, steady
from rectrain_trainer.sources import StagedSource
from tests.support.plans import make_plan
from tests.unit.trainer_learn.recipes import RECAUG, loose, make_recipe


@pytest.fixture(scope="module")
def demo_digits(tmp_path_factory: pytest.TempPathFactory) -> StagedSource:
    folder = tmp_path_factory.mktemp("demo")
    lines = []
    for number in range(40):
        text, png = demo.sample(7, number)
        (folder / f"{number}.png").write_bytes(png)
        lines.append(f"{number}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return loose(folder)


def learn(recipe: Recipe, source: StagedSource, steps: int) -> Learnt:
    return Learnt(**ByHeart(recipe, source, None, steps)())


def at(rate: float) -> Recipe:
    recipe = make_recipe(batch_size=32)
    return dataclasses.replace(
        recipe, optimizer=recipe.optimizer | {"lr": recipe.optimizer["lr"] | {"learning_rate": rate}}
    )


def test_digits_are_learnt_by_heart(demo_digits: StagedSource, caplog: pytest.LogCaptureFixture) -> None:
    """In the process of its own, with what a user reads."""
    caplog.set_level(logging.INFO)
    board = Board("s3://runs/x")
    smoke_test(make_plan(), make_recipe(batch_size=32), demo_digits, None, board)
    expected, found = (record.getMessage() for record in caplog.records)
    assert expected == f"Smoke test: learning 32 images by heart, expected by step {EXPECTED_BY}."
    assert found.startswith("Smoke test: 32 images by heart after ")
    assert found.endswith(f"steps (expected by step {EXPECTED_BY}).")
    assert int(found.split()[7]) <= EXPECTED_BY / 2, "what is expected has room to spare"
    assert board.message == ""


def test_a_learning_rate_that_cannot_work_fails(demo_digits: StagedSource) -> None:
    learnt = learn(at(1e-8), demo_digits, 20)
    assert (learnt.step, learnt.enough, learnt.images) == (20, False, 32)
    assert learnt.last_loss > 0.8 * learnt.first_loss


FAILED = Learnt(step=300, share=0.0, images=32, first_loss=2.9, last_loss=3.1)


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Off"])
def test_validation_decides_what_a_failure_means(validation: str, caplog: pytest.LogCaptureFixture) -> None:
    plan = make_plan(data={"validation": validation})
    said = (
        "RD025 at s3://data/digits (0% of 32 images after 300 steps, loss 2.9 to 3.1): the model couldn't "
        "learn a few images by heart; see that images and labels belong together, and try another "
        "training.learningRate."
    )
    if validation == "Strict":
        with pytest.raises(DatasetInvalid) as refused:
            judge(FAILED, plan)
        assert str(refused.value).endswith(said)
    else:
        judge(FAILED, plan)
        assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", said)]


def test_it_learns_without_augmentation_warm_up_schedule_or_other_sizes() -> None:
    overrides: dict[str, Any] = {"sampler.scales": "[[100, 32], [320, 32]]", "Optimizer.lr.warmup_epoch": "5"}
    recipe = steady(make_recipe("crnn_mv3", augment=[RECAUG], overrides=overrides | {"ema.decay": "0.9"}))
    assert (recipe.augment, recipe.ema, recipe.sampler.scales) == ([], None, [(100, 32)])
    assert recipe.optimizer["lr"] == {"name": "Const", "learning_rate": 0.0005, "warmup_epoch": 0}
