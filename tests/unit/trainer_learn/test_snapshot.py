"""Checkpoint files: read by Paddle, and harmless to read."""

import contextlib
import json
import os
import pickle
import random
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


class Made:
    """What a pickle makes by calling `function`."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.made = function, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def dtype_of(code: str, flags: int) -> Made:
    """A dtype whose pickle says whether it holds objects."""
    return Made(np.dtype, (code, False, True), (3, "<", None, None, None, -1, -1, flags))


EMPTY = (np.ndarray, (0,), b"b")
NEW_ARRAY, FROM_BUFFER = np.zeros(1).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0]
POINTERS = b"A" * 64
"""Where objects would be looked for, if these bytes were taken for an array of objects."""


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
        pytest.param(
            pickle.dumps({"w": Made(FROM_BUFFER, (POINTERS, dtype_of("O", 0), (8,), "C"))}),
            id="objects-that-say-they-are-none",
        ),
        pytest.param(
            pickle.dumps({"w": Made(NEW_ARRAY, EMPTY, (1, (8,), dtype_of("O", 0), False, POINTERS))}),
            id="objects-in-an-array's-state",
        ),
        pytest.param(pickle.dumps({"w": np.dtype("f4")}), id="a-dtype"),
        pytest.param(pickle.dumps({"w": np.array([{}], dtype=object)}), id="objects"),
        pytest.param(pickle.dumps({"w": np.zeros(2, "f4,i4")}), id="records"),
        pytest.param(b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.", id="an-array-of-any-size"),
    ],
)
def test_anything_but_arrays_is_refused(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "model.pdparams"
    path.write_bytes(payload)
    with pytest.raises(InvalidSpec, match=r"model\.pdparams"):
        load_arrays(path)


@pytest.mark.parametrize("state", [1, 63])
def test_a_dtype_is_what_its_code_says(tmp_path: Path, state: int) -> None:
    """Numbers stay numbers, though their pickle says that they are objects: NumPy would follow them."""
    array = Made(NEW_ARRAY, EMPTY, (1, (8,), dtype_of("f8", state), False, POINTERS))
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps({"w": array}))
    read = load_arrays(path)["w"]
    assert (type(read), read.dtype, read.dtype.hasobject) == (np.ndarray, np.float64, False)
    assert read.tobytes() == POINTERS


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_damaged_bytes_are_refused_or_read_as_numbers(tmp_path: Path, protocol: int) -> None:
    """Whatever is damaged, nothing crashes."""
    chance, path = random.Random(protocol), tmp_path / "model.pdparams"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": ("n", np.zeros(3)), "c": np.float32(1)}
    whole = pickle.dumps(arrays, protocol)
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InvalidSpec):
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
