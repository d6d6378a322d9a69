"""A run that was interrupted in mid-epoch goes on exactly as if it hadn't been."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
import pytest

from rectrain_api.errors import Diverged, InvalidSpec
from rectrain_trainer.config import Recipe
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import Position, TrainState, train
from rectrain_trainer.model import build_learner
from rectrain_trainer.ranks import Ranks, Share
from rectrain_trainer.snapshot import capture, refuse_nan, restore, share_state
from rectrain_trainer.snapshot_files import load_snapshot, save_snapshot
from tests.unit.trainer_learn.recipes import RECAUG, loose, make_recipe

RECIPE = make_recipe(epochs=2, augment=[RECAUG])
STEPS = 7
"""Steps an epoch: 50 images in batches of 8."""


def weights(state: TrainState) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in state.learner.model.state_dict().items()}


def run(state: TrainState, loader: Loader, steps: int | None = None) -> list[float]:
    losses: list[float] = []
    for step in train(state, loader, fetch_every=1):
        losses += [row.loss for row in step.losses]
        if len(losses) == steps:
            break
    return losses


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert np.array_equal(value, right[name]), name


@pytest.mark.parametrize("at", [3, STEPS, STEPS + 2])
def test_resumed_equals_uninterrupted_bit_for_bit(digits: Path, tmp_path: Path, at: int) -> None:
    with Loader(RECIPE, loose(digits)) as loader:
        whole = TrainState.new(RECIPE, len(loader))
        expected = run(whole, loader)

        first = TrainState.new(RECIPE, len(loader))
        begun = run(first, loader, at)
        save_snapshot(tmp_path, capture(first))
        paddle.seed(1234)  # another process draws otherwise, and evaluates in between
        second = TrainState.new(RECIPE, len(loader))
        restore(second, load_snapshot(tmp_path))
        assert second.position == first.position
        assert begun + run(second, loader) == expected
    assert_equal(weights(second), weights(whole))
    assert second.position == Position(epoch=2, step_in_epoch=0, step=2 * STEPS)


DROPOUT = make_recipe(epochs=2, overrides={"Optimizer.lr.warmup_epoch": "1", "augment": "RecAug"})
SIZES = make_recipe(
    "crnn_mv3",
    epochs=2,
    overrides={
        "Optimizer.lr.warmup_epoch": "1",
        "augment": "RecAug",
        "sampler.scales": "[[64,32],[100,32],[160,32]]",
    },
)


AVERAGE = make_recipe(epochs=2, overrides={"ema.decay": "0.9"})


@pytest.mark.parametrize(
    ("recipe", "workers"),
    [
        pytest.param(DROPOUT, 0, id="dropout"),
        pytest.param(DROPOUT, 2, id="dropout-workers"),
        pytest.param(SIZES, 0, id="sizes"),
        pytest.param(SIZES, 2, id="sizes-workers"),
    ],
)
def test_stopped_after_every_step_equals_uninterrupted(
    digits: Path, tmp_path: Path, recipe: Recipe, workers: int
) -> None:
    with Loader(recipe, loose(digits)) as loader:
        whole = TrainState.new(recipe, len(loader))
        steps = list(train(whole, loader, fetch_every=1))
        taken = [len(batch.images) for epoch in (0, 1) for batch in loader.batches(epoch)]
    assert [step.samples for step in steps] == taken
    rates = [step.learning_rate for step in steps]
    assert rates[0] == 0 < rates[1] < rates[2], "warm-up is on"

    with Loader(recipe, loose(digits), workers=workers) as loader:
        for number, step in enumerate(steps):
            state = TrainState.new(recipe, len(loader))
            if number:
                restore(state, load_snapshot(tmp_path))
            again = next(train(state, loader, fetch_every=1))
            assert again._replace(wait_s=0) == step._replace(wait_s=0)
            save_snapshot(tmp_path, capture(state))
    assert_equal(weights(state), weights(whole))
    assert state.position == Position(epoch=2, step_in_epoch=0, step=2 * len(loader))


def test_the_average_goes_on_too_and_is_what_counts(digits: Path, tmp_path: Path) -> None:
    with Loader(AVERAGE, loose(digits)) as loader:
        whole = TrainState.new(AVERAGE, len(loader))
        expected = run(whole, loader)
        first = TrainState.new(AVERAGE, len(loader))
        begun = run(first, loader, 5)
        paths = save_snapshot(tmp_path, capture(first))
        assert "model.pdema" in {path.name for path in paths}
        second = TrainState.new(AVERAGE, len(loader))
        restore(second, load_snapshot(tmp_path))
        assert begun + run(second, loader) == expected
    one, other = capture(whole), capture(second)
    assert one.ema is not None
    assert other.ema is not None
    assert one.ema["step"] == other.ema["step"] == 2 * STEPS
    assert_equal(one.ema["ema_state"], other.ema["ema_state"])
    assert_equal(one.ema["train_state"], weights(second))
    assert_equal(one.params, other.params)
    with second.averaged():
        assert_equal(weights(second), other.params)
    assert_equal(weights(second), one.ema["train_state"])
    assert not np.array_equal(one.params["head.fc.weight"], one.ema["train_state"]["head.fc.weight"])


def test_a_snapshot_is_a_copy(digits: Path) -> None:
    with Loader(RECIPE, loose(digits)) as loader:
        state = TrainState.new(RECIPE, len(loader))
        run(state, loader, 1)
        snapshot = capture(state)
        before = {name: value.copy() for name, value in snapshot.params.items()}
        run(state, loader, 2)
    assert_equal(snapshot.params, before)
    assert snapshot.position.step == 1


def test_the_loop_goes_on_in_the_same_process_after_a_stop(digits: Path) -> None:
    with Loader(RECIPE, loose(digits)) as loader:
        whole = TrainState.new(RECIPE, len(loader))
        expected = run(whole, loader)
        halting = TrainState.new(RECIPE, len(loader))
        assert run(halting, loader, 5) + run(halting, loader) == expected


def test_more_epochs_follow_the_longer_schedule(digits: Path) -> None:
    longer, peak = replace(RECIPE, epochs=4), RECIPE.optimizer["lr"]["learning_rate"]
    with Loader(RECIPE, loose(digits)) as loader:
        state = TrainState.new(RECIPE, len(loader))
        run(state, loader)
        assert state.learner.optimizer.get_lr() == pytest.approx(0.0, abs=1e-9)
        resumed = TrainState.new(longer, len(loader))
        restore(resumed, capture(state))
        assert resumed.learner.optimizer.get_lr() == pytest.approx(peak / 2)  # half way down
        run(resumed, loader)
    assert resumed.learner.optimizer.get_lr() == pytest.approx(0.0, abs=1e-9)
    assert resumed.position.epoch == 4


def test_more_epochs_after_a_warm_up_follow_the_longer_schedule(digits: Path) -> None:
    recipe = make_recipe(epochs=2, overrides={"Optimizer.lr.warmup_epoch": "1"})
    with Loader(recipe, loose(digits)) as loader:
        state = TrainState.new(recipe, len(loader))
        run(state, loader)
        resumed = TrainState.new(replace(recipe, epochs=4), len(loader))
        restore(resumed, capture(state))
        after = [step.learning_rate for step in train(resumed, loader)]
        fresh = TrainState.new(replace(recipe, epochs=4), len(loader))
        expected = [step.learning_rate for step in train(fresh, loader)]
    assert after == expected[2 * STEPS :]


def step(rate: Any) -> None:
    if not isinstance(rate, float):
        rate.step()


class Told(Ranks):
    """One of two ranks in this process: rank 0 says what the other hears."""

    said: ClassVar[dict[str, Any]] = {}

    def same(self, content: dict[str, Any] | None) -> dict[str, Any]:
        if content is not None:
            Told.said.clear()
            Told.said.update(content)
        return dict(Told.said)


@pytest.mark.parametrize(
    ("theirs", "factor", "preset"),
    [(2, 1.0, DROPOUT), (4, 1.0, DROPOUT), (3, 0.5, DROPOUT), (3, 0.5, make_recipe("crnn_mv3"))],
    ids=["fewer-epochs", "more-epochs", "rolled-back", "rolled-back-constant-rate"],
)
@pytest.mark.parametrize("at", [0, 3])
def test_every_rank_goes_by_rank_0s_epochs_and_rate(
    at: int, theirs: int, factor: float, preset: Recipe
) -> None:
    """A run plan that changes reaches one pod sooner than another, and rank 0 alone knows of rollbacks: rates
    would differ, and so the weights.
    """
    recipe = replace(preset, epochs=3)
    states = [
        TrainState.new(replace(recipe, epochs=epochs, rate_factor=own), STEPS, Told(Share(rank, 2)))
        for rank, epochs, own in ((0, 3, factor), (1, theirs, 1.0))
    ]
    snapshot = None
    if at:
        before = TrainState.new(recipe, STEPS, Told(Share(0, 2)))
        for _ in range(at):
            step(before.learner.rate)
        before.position = Position(0, at, at)
        snapshot = capture(before)
    rates = []
    for state, given in zip(states, (snapshot, None), strict=True):
        share_state(state, given)
        rates.append([])
        for _ in range(at, 3 * STEPS):
            rates[-1].append(state.learner.optimizer.get_lr())
            step(state.learner.rate)
    assert rates[1] == rates[0]
    assert max(rates[0]) <= recipe.optimizer["lr"]["learning_rate"] * factor
    assert states[1].total_steps == 3 * STEPS


def test_ranks_that_would_train_something_else_are_refused() -> None:
    """A config that was changed between two pods' starts: their gradients would be averaged all the same."""
    other = replace(RECIPE, augment=[{"RecAug": {}}], epochs=RECIPE.epochs + 1)
    share_state(TrainState.new(RECIPE, STEPS, Told(Share(0, 2))), None)
    with pytest.raises(InvalidSpec, match=r"differs from rank 0: augment\): the model's config"):
        share_state(TrainState.new(other, STEPS, Told(Share(1, 2))), None)


def test_a_checkpoint_of_other_batches_is_refused(digits: Path) -> None:
    snapshot = capture(TrainState.new(RECIPE, STEPS))
    other = TrainState.new(replace(RECIPE, batch_size=16), 4)
    changed = rf"number of ranks \(images a step: {RECIPE.batch_size} → 16; steps an epoch: {STEPS} → 4\)"
    with pytest.raises(InvalidSpec, match=changed):
        restore(other, snapshot)


@pytest.mark.parametrize("inside", [0, 1])
def test_other_samples_are_refused_in_mid_epoch(inside: int) -> None:
    """As many steps, and yet another order: data.validation was changed, say."""
    before = TrainState.new(RECIPE, STEPS, samples=48)
    before.position = Position(1, inside, STEPS + inside)
    snapshot = capture(before)
    resumed = TrainState.new(RECIPE, STEPS, samples=47)
    if not inside:
        restore(resumed, snapshot)
        return
    with pytest.raises(InvalidSpec, match=r"\(samples to train on: 48 → 47\).* and data\.validation"):
        restore(resumed, snapshot)
    restore(TrainState.new(RECIPE, STEPS, samples=48), snapshot)
    older = replace(snapshot, shape=replace(snapshot.shape, samples=None))
    restore(resumed, older)


def test_another_number_of_ranks_is_refused_by_name() -> None:
    """Though two ranks with half the batch have steps as large: dropout and batch norm are a rank's own."""
    one = TrainState.new(RECIPE, STEPS)
    snapshot = capture(
        TrainState.new(replace(RECIPE, batch_size=RECIPE.batch_size // 2), STEPS, Told(Share(0, 2)))
    )
    with pytest.raises(InvalidSpec) as refused:
        restore(one, snapshot)
    assert str(refused.value) == (
        "The checkpoint was made by 2 ranks, and this run has 1 rank (replicas.nodes x "
        "replicas.gpusPerNode), whose steps would train something else: make them 2 again, or give this "
        "run a checkpoint.uri of its own, and this one's weights as model.pretrained if it is to go "
        "on from them."
    )
    older = replace(snapshot, shape=replace(snapshot.shape, ranks=None))
    restore(one, older)


def test_weights_of_another_dictionary_are_refused(digits: Path) -> None:
    snapshot = capture(TrainState.new(RECIPE, STEPS))
    other = TrainState.new(make_recipe(characters=list("abc")), STEPS)
    with pytest.raises(InvalidSpec, match=r"head\.fc\.bias"):
        restore(other, snapshot)


def test_nan_stops_training_and_is_never_saved(digits: Path) -> None:
    with Loader(RECIPE, loose(digits)) as loader:
        state = TrainState.new(RECIPE, len(loader))
        steps = train(state, loader, fetch_every=5)
        next(steps)
        bias = state.learner.model.head.fc.bias
        bias.set_value(np.full(bias.shape, np.nan, np.float32))
        assert not next(steps).losses  # nobody looks at this step
        with pytest.raises(Diverged, match=r"nan.*step 2"):
            state.look()
        with pytest.raises(Diverged):
            run(state, loader)


def test_weights_that_another_ranks_loss_has_spoilt_are_never_saved(digits: Path) -> None:
    """This rank's own loss was finite."""
    with Loader(RECIPE, loose(digits)) as loader:
        state = TrainState.new(RECIPE, len(loader))
        next(train(state, loader))
        bias = state.learner.model.head.fc.bias
        bias.set_value(np.full(bias.shape, np.inf, np.float32))
        with pytest.raises(Diverged, match=r"head\.fc\.bias.*step 1"):
            refuse_nan(capture(state))


def test_first_weights_depend_on_the_seed_alone(digits: Path) -> None:
    paddle.seed(5)
    first = build_learner(RECIPE, STEPS).model.state_dict()
    second = build_learner(RECIPE, STEPS).model.state_dict()
    third = build_learner(replace(RECIPE, seed=8), STEPS).model.state_dict()
    assert all(np.array_equal(first[k].numpy(), second[k].numpy()) for k in first)
    assert not all(np.array_equal(first[k].numpy(), third[k].numpy()) for k in first)
