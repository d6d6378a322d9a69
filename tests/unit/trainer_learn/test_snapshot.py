"""Checkpoint files: read by Paddle, and harmless to read."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from rectrain_api.errors import InvalidSpec
from rectrain_trainer.loop import TrainState
from rectrain_trainer.snapshot import capture
from rectrain_trainer.snapshot_files import load_arrays, load_snapshot, save_snapshot
from tests.unit.trainer_learn.recipes import make_recipe


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps({"w": Hostile(marker)}))
    with pytest.raises(InvalidSpec, match=r"model\.pdparams is refused: it would run .*system"):
        load_arrays(tmp_path / "model.pdparams")
    assert not marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"cbuiltins\neval\n(S'1'\ntR.", id="eval"),
        pytest.param(b"cnumpy\nload\n(S'x'\ntR.", id="another-of-numpys"),
        pytest.param(b"\x80\x04\x8c\x05numpy\x8c\x0fcore.os.system.x\x93.", id="dotted-name"),
        pytest.param(b"", id="empty"),
        pytest.param(b"not a pickle", id="text"),
        pytest.param(pickle.dumps([1, 2]), id="no-dict"),
        pytest.param(pickle.dumps({"w": np.zeros(3)})[:-20], id="cut-off"),
    ],
)
def test_anything_but_arrays_is_refused(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "model.pdparams"
    path.write_bytes(payload)
    with pytest.raises(InvalidSpec, match=r"model\.pdparams"):
        load_arrays(path)


def test_paddle_and_we_read_each_others_files(tmp_path: Path) -> None:
    state = TrainState.new(make_recipe(), 7)
    snapshot = capture(state)
    paths = save_snapshot(tmp_path / "ours", snapshot)
    assert [p.name for p in paths] == ["model.pdparams", "model.pdopt", "state.json"]
    theirs = paddle.load(str(tmp_path / "ours/model.pdparams"))
    assert all(np.array_equal(theirs[name], value) for name, value in snapshot.params.items())

    paddle.save(state.learner.model.state_dict(), str(tmp_path / "theirs.pdparams"))
    ours = load_arrays(tmp_path / "theirs.pdparams")
    assert all(np.array_equal(ours[name], value) for name, value in snapshot.params.items())


@pytest.mark.parametrize("change", [{"version": 9}, {"position": {"epoch": 1}}, {"shape": None}])
def test_a_state_of_another_kind_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_snapshot(tmp_path, capture(TrainState.new(make_recipe(), 7)))
    content = json.loads((tmp_path / "state.json").read_text())
    changed = content | change
    if "position" in change:
        changed["position"] = {"no": "position"}
    (tmp_path / "state.json").write_text(json.dumps(changed))
    with pytest.raises(InvalidSpec, match=r"state\.json"):
        load_snapshot(tmp_path)
