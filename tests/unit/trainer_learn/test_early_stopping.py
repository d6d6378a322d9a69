"""Early stopping: at which evaluation, the same after a kill, and on every rank."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.plan import EarlyStoppingPlan
from rectrain_trainer import offers
from rectrain_trainer import train as train_module
from rectrain_trainer.loop import Position, TrainState
from rectrain_trainer.ranks import Ranks, Share
from rectrain_trainer.snapshot import capture
from rectrain_trainer.snapshot_files import STATE, load_snapshot, save_snapshot
from rectrain_trainer.train import stops_early
from tests.unit.trainer_learn.test_training import RECIPE, STEPS, Fate, Run

ACCURACY = {STEPS * epoch: accuracy for epoch, accuracy in enumerate((0.2, 0.6, 0.5, 0.63, 0.6, 0.6, 0.7), 1)}
WORSE = {STEPS: 0.6, 2 * STEPS: 0.5, 3 * STEPS: 0.4}
"""After the first."""
LONG = replace(RECIPE, epochs=7)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FIRST_WAIT_S", 0.01)


def run_in(
    folder: Path,
    digits: Path,
    patience: int,
    min_delta: float = 0.0,
    accuracy: dict[int, float] = ACCURACY,
) -> Run:
    stopping = {"patience": patience, "minDelta": min_delta}
    return Run(digits, folder, recipe=LONG, accuracy=accuracy, training={"earlyStopping": stopping})


@pytest.mark.parametrize(
    ("patience", "min_delta", "epochs"),
    [
        pytest.param(1, 0.0, 3, id="one-that-is-no-better"),
        pytest.param(2, 0.0, 6, id="a-better-one-begins-anew"),
        pytest.param(2, 0.05, 4, id="a-little-better-is-no-better"),
        pytest.param(3, 0.0, 7, id="never"),
    ],
)
def test_it_stops_when_nothing_gets_better(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patience: int,
    min_delta: float,
    epochs: int,
) -> None:
    run = run_in(tmp_path, digits, patience, min_delta)
    state = run.attempt(monkeypatch, Fate())
    assert state is not None
    assert state.position.step == epochs * STEPS
    newest = run.log().newest_first()[0]
    assert (newest.step, newest.accuracy) == (epochs * STEPS, ACCURACY[epochs * STEPS]), "the last is kept"
    best = run.log().best
    assert best is not None
    assert best.accuracy == max(a for step, a in ACCURACY.items() if step <= newest.step)


@pytest.fixture(scope="module")
def quiet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run that nothing happens to."""
    run = run_in(tmp_path_factory.mktemp("quiet"), digits, 2, accuracy=WORSE)
    with pytest.MonkeyPatch.context() as patch:
        assert run.attempt(patch, Fate()) is not None
    return run.result()


@pytest.mark.parametrize(
    "fate",
    [
        pytest.param(Fate(kill_in_evaluation=2 * STEPS), id="in-an-evaluation"),
        pytest.param(Fate(kill_at_record=("checkpoint", 2 * STEPS + 1)), id="between-evaluations"),
        pytest.param(Fate(stop_in_evaluation=3 * STEPS), id="in-the-last-evaluation"),
        pytest.param(Fate(kill_at_record=("checkpoint", 3 * STEPS)), id="behind-the-last-checkpoint"),
    ],
)
def test_a_run_that_was_killed_stops_at_the_same_evaluation(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: dict[str, Any], fate: Fate
) -> None:
    killed = run_in(tmp_path, digits, 2, accuracy=WORSE)
    assert killed.attempt(monkeypatch, fate) is None, "it wasn't hit"
    state = killed.attempt(monkeypatch, Fate())
    assert state is not None
    assert state.position.step == 3 * STEPS
    assert killed.result() == quiet


def test_no_rank_is_asked_in_an_evaluation_that_was_left(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on with theirs: gloo waits 30 s for them, and then the last checkpoint is never made."""
    asked = []

    def stops(stopping: EarlyStoppingPlan | None, state: TrainState) -> bool:
        asked.append(state.position.step)
        return stops_early(stopping, state)

    monkeypatch.setattr(train_module, "stops_early", stops)
    run = run_in(tmp_path, digits, 2, accuracy=WORSE)
    for fate in (
        Fate(stop_in_evaluation=STEPS),
        Fate(stop_in_evaluation=STEPS),
        Fate(stop_at_step=STEPS + 1),
    ):
        assert asked == []
        assert run.attempt(monkeypatch, fate) is None, "it wasn't hit"
    assert asked == [STEPS]


def test_more_epochs_alone_train_no_further(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They change nothing of what made it stop; a larger patience does."""
    run = run_in(tmp_path, digits, 1, accuracy=WORSE)
    for patience, epochs, ends in ((1, 7, 2), (1, 9, 2), (2, 9, 3)):
        run.training, run.recipe = {"earlyStopping": {"patience": patience}}, replace(LONG, epochs=epochs)
        state = run.attempt(monkeypatch, Fate())
        assert state is not None
        assert state.position.step == ends * STEPS


def test_a_checkpoint_of_before_counts_from_zero(tmp_path: Path) -> None:
    state = TrainState.new(RECIPE, STEPS)
    state.unimproved = 3
    save_snapshot(tmp_path, capture(state))
    assert load_snapshot(tmp_path).unimproved == 3
    content = json.loads((tmp_path / STATE).read_text())
    del content["unimproved"]
    (tmp_path / STATE).write_text(json.dumps(content))
    assert load_snapshot(tmp_path).unimproved == 0


class SaidByRank0(Ranks):
    """Rank 1 of 2, which hears this number."""

    def __init__(self, number: int) -> None:
        super().__init__(Share(1, 2))
        self.number = number
        self.asked = 0

    def agreed(self, number: int) -> int:
        self.asked += 1
        return self.number


@pytest.mark.parametrize("said", [False, True])
def test_every_rank_stops_by_rank_0s_count(said: bool) -> None:
    state = TrainState.new(RECIPE, STEPS)
    ranks = SaidByRank0(int(said))
    state.ranks, state.position = ranks, Position(1, 0, STEPS)
    stopping = EarlyStoppingPlan(patience=1, min_delta=0)
    state.unimproved = int(not said)
    assert stops_early(stopping, state) is said
    assert not stops_early(None, state)
    state.position = Position(3, 0, 3 * STEPS)
    assert not stops_early(stopping, state), "it is at its end"
    assert ranks.asked == 1
