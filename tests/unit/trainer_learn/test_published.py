"""An export that reads otherwise than the trained model is not published, and loses nothing of the run."""

from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import ExportMismatch
from rectrain_api.exit_codes import outcome_of
from rectrain_api.run_log import RunLog
from rectrain_trainer import export as export_module
from rectrain_trainer.board import Board
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.publish import Publication, publish
from rectrain_trainer.uris import UriMap
from tests.support.plans import make_plan
from tests.unit.trainer_learn.recipes import loose
from tests.unit.trainer_learn.test_training import RECIPE, Fate, Run


def test_it_ends_the_run_and_its_checkpoints_are_kept(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(digits, tmp_path)
    state = run.attempt(monkeypatch, Fate())
    assert state is not None
    before = dict(run.store.objects)
    save, run_log = export_module.save_network, RunLog(run.store, run.store.uri)

    def save_without_a_layer(model: Any, *arguments: Any) -> None:
        weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        model.head.fc.weight.set_value(weights["head.fc.weight"] * 0)
        save(model, *arguments)
        model.set_state_dict(weights)

    monkeypatch.setattr(export_module, "save_network", save_without_a_layer)
    run_log.read()
    work = Publication(
        make_plan(epochs=3),
        RECIPE,
        state,
        EvalSet(RECIPE, loose(digits)),
        run_log,
        run.store,  # type: ignore[arg-type]
        Board(run.store.uri),
        Interrupt(10),
        tmp_path / "out",
        rows=[],
        evaluations={},
        checks={},
        train_samples=50,
        uris=UriMap(),
    )
    with pytest.raises(
        ExportMismatch, match=r"cause: weights that are missing or stale\. The checkpoints"
    ) as e:
        publish(work)
    assert (outcome_of(e.value).exit_code, outcome_of(e.value).policy) == (73, "FailJob")
    assert run.store.objects == before
    assert run.log().final is None
    assert run.log().newest_first()
