"""A loss or a weight that isn't a number: back to a checkpoint, on with half the learning rate, as often as
is sensible; and whatever happens afterwards, the run ends with the same weights.
"""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from rectrain_api.errors import Diverged
from rectrain_api.records import CheckpointRecord, PlanChange, RollbackRecord
from rectrain_trainer import loop, offers
from rectrain_trainer.curves import merge
from rectrain_trainer.loop import TrainState
from rectrain_trainer.rollback import MOST
from rectrain_trainer.segments import Segments
from tests.unit.trainer_learn.test_training import RECIPE, STEPS, Fate, Run, Seen, records, schedule

RATE = RECIPE.optimizer["lr"]["learning_rate"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps go wrong as long as the learning rate is at least this part of the plan's."""
    real = loop.train_step

    def spoil(step: int, *, from_factor: float = 1.0, loss: bool = True) -> None:
        def train_step(state: TrainState, *arguments: Any) -> Any:
            found = real(state, *arguments)
            if state.position.step + 1 != step or state.recipe.rate_factor < from_factor:
                return found
            bias = state.learner.model.head.fc.bias
            bias.set_value(np.full(bias.shape, np.nan, np.float32))
            return paddle.to_tensor(float("nan")) if loss else found

        monkeypatch.setattr(loop, "train_step", train_step)

    return spoil


def rollbacks(run: Run) -> list[tuple[int, int, float]]:
    return [(r.step, r.to_step, r.factor) for r in records(run) if isinstance(r, RollbackRecord)]


def rates(run: Run) -> list[float]:
    return [row["learningRate"] for row in run.curve() if row["kind"] == "train"]


@pytest.mark.parametrize(
    ("wrong", "to_step", "workers"),
    [
        pytest.param({"step": 5}, 3, 0, id="loss"),
        pytest.param({"step": 5}, 3, 2, id="loss-workers"),
        pytest.param({"step": 6, "loss": False}, 3, 0, id="weights-alone"),
        pytest.param({"step": 3 * STEPS, "loss": False}, 18, 0, id="last-step"),
        pytest.param({"step": 2}, 0, 0, id="before-the-first-checkpoint"),
    ],
)
def test_it_goes_back_and_on_with_half_the_rate(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Any,
    wrong: dict[str, Any],
    to_step: int,
    workers: int,
) -> None:
    spoil(**wrong)
    run = Run(digits, tmp_path / "one", workers=workers)
    assert run.attempt(monkeypatch, Fate()) is not None
    assert rollbacks(run) == [(wrong["step"], to_step, 0.5)]
    full = schedule(RECIPE)
    assert rates(run) == full[:to_step] + schedule(replace(RECIPE, rate_factor=0.5))[to_step:]
    steps = [row["step"] for row in run.curve() if row["kind"] == "train"]
    assert steps == list(range(1, 3 * STEPS + 1)), "every step once"
    assert [row["step"] for row in run.curve() if row["kind"] == "eval"] == [7, 14, 21]
    found = records(run)
    at = next(n for n, r in enumerate(found) if isinstance(r, RollbackRecord))
    again = [r.prefix.endswith("-2") for r in found[at:] if isinstance(r, CheckpointRecord)]
    assert again, "nothing was saved"
    assert all(again), "steps that come again have a prefix of their own"


@pytest.mark.parametrize(
    "wrong", [pytest.param({"step": 5}, id="loss"), pytest.param({"step": 6, "loss": False}, id="weights")]
)
def test_the_state_that_went_wrong_is_let_go(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, wrong: dict[str, Any]
) -> None:
    """Before the next one is built: a device may not hold two."""
    spoil(**wrong)
    models: list[Any] = []
    left: list[list[Any]] = []
    real = Segments._resumed

    def resumed(self: Seen, *arguments: Any) -> TrainState:
        self.__dict__.pop("state", None)
        left.append([model() for model in models if model() is not None])
        state = real(self, *arguments)
        models.append(weakref.ref(state.learner.model))
        return state

    monkeypatch.setattr(Segments, "_resumed", resumed)
    assert Run(digits, tmp_path).attempt(monkeypatch, Fate()) is not None
    assert left == [[], []]


@pytest.mark.parametrize(
    ("fate", "first"),
    [
        pytest.param(Fate(kill_at_record=("rollback", 5)), False, id="as-it-is-recorded"),
        pytest.param(Fate(kill_at_record=("rollback", 5), lost=True), False, id="before-it-is-recorded"),
        pytest.param(Fate(steps_left=6), False, id="before-the-next-checkpoint"),
        pytest.param(Fate(kill_at_step=11), False, id="after-the-next-checkpoint"),
        pytest.param(Fate(kill_at_record=("rollback", 2)), True, id="first-weights"),
    ],
)
def test_killed_after_a_rollback_equals_one_that_was_not(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, fate: Fate, first: bool
) -> None:
    wrong, weights = (2 if first else 5), None
    if first:
        model = TrainState.new(replace(RECIPE, seed=99), STEPS).learner.model
        weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    spoil(wrong)
    quiet, killed = (Run(digits, tmp_path / name, first=weights) for name in ("quiet", "killed"))
    assert quiet.attempt(monkeypatch, Fate()) is not None
    assert killed.attempt(monkeypatch, fate) is None, "it wasn't hit"
    assert killed.attempt(monkeypatch, Fate()) is not None
    assert killed.result() == quiet.result()
    assert len(rollbacks(killed)) == 1
    if first:
        seed = Run(digits, tmp_path / "seed")
        assert seed.attempt(monkeypatch, Fate()) is not None
        assert seed.result()["files"] != quiet.result()["files"], "the given weights were forgotten"


def test_often_enough_is_enough(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    """Over all attempts of the run; the last words say what was tried, and what may help."""
    spoil(5, from_factor=0)
    run = Run(digits, tmp_path)
    for _ in range(2):
        with pytest.raises(Diverged) as raised:
            run.attempt(monkeypatch, Fate())
        assert rollbacks(run) == [(5, 3, 0.5), (5, 3, 0.25), (5, 3, 0.125)][:MOST]
    message = str(raised.value)
    assert message.startswith(
        f"The loss became nan at step 5 (epoch 1). Training went back 3 times, each time with half the "
        f"learning rate, {RATE / 8:g} at last: start a new run (with another checkpoint.uri) with a lower "
        "training.learningRate, or look at the labels and images of that step (such as "
    )
    assert "images/000" in message
    assert raised.value.step == 5


def test_fail_goes_nowhere(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    spoil(5)
    run = Run(digits, tmp_path, training={"onNaN": "Fail"})
    with pytest.raises(
        Diverged, match=r"nan at step 5 .*onNaN is Fail: .*learningRate, or look at .*images/"
    ):
        run.attempt(monkeypatch, Fate())
    assert rollbacks(run) == []


def test_epochs_that_were_raised_before_it(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    """They hold from the checkpoint on, as they do for an attempt that begins there."""
    spoil(STEPS + 1)
    run, killed = (Run(digits, tmp_path / name, raised=4) for name in ("quiet", "killed"))
    assert run.attempt(monkeypatch, Fate()) is not None
    assert sum(isinstance(r, PlanChange) for r in records(run)) == 1
    assert killed.attempt(monkeypatch, Fate(kill_at_record=("rollback", STEPS + 1))) is None
    killed.recipe = replace(RECIPE, epochs=4)
    assert killed.attempt(monkeypatch, Fate()) is not None
    assert killed.result() == run.result()
    assert run.log().newest_first()[0].step == 4 * STEPS


def test_fewer_epochs_after_it(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    """An attempt trains as many as it is asked for, whatever an earlier one went back from."""
    spoil(5)
    run = Run(digits, tmp_path)
    assert run.attempt(monkeypatch, Fate(steps_left=8)) is None
    assert len(rollbacks(run)) == 1
    run.recipe = replace(RECIPE, epochs=2)
    assert run.attempt(monkeypatch, Fate()) is not None
    assert run.log().newest_first()[0].step == 2 * STEPS


def test_a_curve_has_nothing_that_was_undone() -> None:
    """Also where the run ended, or was killed, before it came to those steps again."""

    def row(step: int, kind: str = "train", **more: Any) -> dict[str, Any]:
        return {"kind": kind, "step": step, **more}

    first = [row(s) for s in (1, 2, 3, 4, 5)] + [row(5, "eval", accuracy=0.9)]
    back = row(6, "rollback", toStep=3)
    assert merge([[*first, back]]) == first[:3]
    again = [row(4, loss=0.5), row(5, loss=0.4)]
    assert merge([[*first, back, *again]]) == first[:3] + again
    assert merge([[*first, back], again]) == first[:3] + again
    assert merge([first, [row(5), row(6), row(7, "rollback", toStep=2), row(3), row(4)]]) == [
        row(s) for s in (1, 2, 3, 4)
    ]
