"""A training state copied out of the device, and its three files.

Called by the train stage (capture at a step boundary: the only stall) and by the checkpoint log, which
saves, uploads and loads the files: model.pdparams and model.pdopt, as upstream names them and as
`paddle.load` reads them, and state.json.

The .pd files are pickles, so they could run code when loaded. They are read by an unpickler that knows
numpy's arrays and Python's containers and refuses everything else. There is no generator state to keep
(see `seeding`).
"""

import dataclasses
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np

from rectrain_api.errors import DiskTooSmall, Diverged, InvalidSpec
from rectrain_trainer.loop import Position, TrainState
from rectrain_trainer.model import build_optimizer, set_params

PARAMS: Final = "model.pdparams"
OPTIMIZER: Final = "model.pdopt"
STATE: Final = "state.json"
FILES: Final = (PARAMS, OPTIMIZER, STATE)
_SCHEDULE: Final = "LR_Scheduler"
_VERSION: Final = 1


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy: later training steps don't change it."""

    params: dict[str, Any]
    """Weights by their name in the model: numpy arrays."""
    optimizer: dict[str, Any]
    """Moments by upstream's names, and the schedule under "LR_Scheduler"."""
    position: Position
    shape: "RunShape"


@dataclass(frozen=True)
class RunShape:
    """What a position means: batches of this size (over all ranks), in this order, over so many epochs."""

    seed: int
    batch_size: int
    steps_per_epoch: int
    epochs: int


def capture(state: TrainState) -> Snapshot:
    """Copy the state out. Raises Diverged rather than keep weights that a NaN has touched."""
    state.look()
    learner = state.learner
    params = {name: np.array(tensor.numpy()) for name, tensor in learner.model.state_dict().items()}
    _refuse_nan(params, state.position.step)  # of another rank's loss, or of a gradient alone
    return Snapshot(
        params=params,
        optimizer={name: _copied(value) for name, value in learner.optimizer.state_dict().items()},
        position=Position(**asdict(state.position)),
        shape=_shape_of(state),
    )


def share_state(state: TrainState, snapshot: Snapshot | None) -> None:
    """Every rank goes on from rank 0's `snapshot`; from rank 0's first weights, when there is none.

    Raises InvalidSpec, PeerLost.
    """
    if not state.ranks.alone:
        snapshot = _received(state.ranks.same(_told(state, snapshot) if state.ranks.first else None))
    if snapshot is None:
        return
    if snapshot.optimizer:
        restore(state, snapshot)
    else:
        _check_shape(state, snapshot.shape)
        set_params(state.learner.model, snapshot.params)


def _told(state: TrainState, snapshot: Snapshot | None) -> dict[str, Any]:
    """What rank 0 sends: a snapshot's parts; its first weights are one without an optimizer's state."""
    snapshot = snapshot or dataclasses.replace(capture(state), optimizer={})
    return {
        "params": snapshot.params,
        "optimizer": snapshot.optimizer,
        "position": asdict(snapshot.position),
        "shape": asdict(snapshot.shape),
    }


def _received(parts: dict[str, Any]) -> Snapshot:
    position, shape = Position(**parts["position"]), RunShape(**parts["shape"])
    return Snapshot(parts["params"], parts["optimizer"], position, shape)


def _refuse_nan(params: dict[str, Any], step: int) -> None:
    for name, array in params.items():
        if not np.isfinite(array).all():
            raise Diverged(
                f"The weights {name} aren't finite after step {step}: lower training.learningRate, or look "
                "at the newest data."
            )


def restore(state: TrainState, snapshot: Snapshot) -> None:
    """Put a snapshot into a state built from the same recipe (more epochs are fine).

    With more epochs the learning rate follows the new, longer schedule from this step on.
    """
    _check_shape(state, snapshot.shape)
    set_params(state.learner.model, snapshot.params)
    state.learner.optimizer.set_state_dict(_as_tensors(snapshot.optimizer))
    state.position = Position(**asdict(snapshot.position))
    if state.recipe.epochs != snapshot.shape.epochs:
        _reschedule(state)


def _check_shape(state: TrainState, have: RunShape) -> None:
    want = _shape_of(state)
    if (want.seed, want.batch_size, want.steps_per_epoch) != (
        have.seed,
        have.batch_size,
        have.steps_per_epoch,
    ):
        raise InvalidSpec(
            f"The checkpoint was made with other data, settings or number of pods ({have}; now {want}): "
            "its place in the epoch would mean other samples. Start a run of its own."
        )


def _reschedule(state: TrainState) -> None:
    """A new schedule over `state.recipe.epochs`, wound on to where training stands."""
    learner = state.learner
    _, rate = build_optimizer(state.recipe, state.steps_per_epoch, learner.model)
    if isinstance(rate, float):
        return
    for _ in range(state.position.step):
        rate.step()
    learner.optimizer.set_lr_scheduler(rate)
    state.learner = dataclasses.replace(learner, rate=rate)


def save_snapshot(folder: Path, snapshot: Snapshot) -> tuple[Path, ...]:
    """Write the three files into `folder`; returns their paths. Needs no paddle: safe in any thread."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((PARAMS, snapshot.params), (OPTIMIZER, snapshot.optimizer)):
        with (folder / name).open("wb") as file:
            pickle.dump(content, file, protocol=4)
    state = {"version": _VERSION, "position": asdict(snapshot.position), "shape": asdict(snapshot.shape)}
    (folder / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    return tuple(folder / name for name in FILES)


def load_snapshot(folder: Path) -> Snapshot:
    """Read what `save_snapshot` wrote.

    Raises:
        InvalidSpec: the files hold anything but a snapshot, or another version wrote them.
        DiskTooSmall: this node's disk can't be read, which says nothing about the checkpoint.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["version"] != _VERSION:
            raise InvalidSpec(
                f"The checkpoint was written by another version of RecTrain ({STATE} is of version "
                f"{state['version']}; this trainer reads {_VERSION}): train on with that version's image, "
                "or give this run a checkpoint.uri of its own."
            )
        position, shape = Position(**state["position"]), RunShape(**state["shape"])
    except OSError as failed:
        raise _unreadable(folder / STATE, failed) from failed
    except (ValueError, KeyError, TypeError) as failed:
        raise InvalidSpec(f"{folder / STATE} is no state of a run: {failed!r}.") from failed
    return Snapshot(load_arrays(folder / PARAMS), load_arrays(folder / OPTIMIZER), position, shape)


def load_arrays(path: Path) -> dict[str, Any]:
    """A .pdparams or .pdopt file as a dict of arrays, without running anything that is in it."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except InvalidSpec as refused:
        raise InvalidSpec(f"{path} {refused}") from None
    except OSError as failed:
        raise _unreadable(path, failed) from failed
    except (EOFError, ValueError, TypeError, AttributeError, KeyError, pickle.UnpicklingError) as failed:
        raise InvalidSpec(f"{path} can't be read as weights: {failed!r}.") from failed
    if not _is_named(content):
        raise InvalidSpec(f"{path} can't be read as weights: it holds a {type(content).__name__}.")
    return content


def _unreadable(path: Path, failed: OSError) -> DiskTooSmall:
    return DiskTooSmall(f"{path} can't be read ({failed.strerror}): check this node's disk.")


def _is_named(content: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and all(isinstance(key, str) for key in content)


class _ArraysOnly(pickle.Unpickler):
    """Finds numpy's array constructors and nothing else."""

    _ALLOWED: Final = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("builtins", "tuple"),  # paddle.save writes a tensor as tuple((name, array))
        ("__builtin__", "tuple"),
        ("_codecs", "encode"),  # bytes in protocol 2
        ("collections", "OrderedDict"),
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._ALLOWED:
            raise InvalidSpec(
                f"is refused: it would run {module}.{name} when loaded. Weights hold arrays only; "
                "take them from a place that you trust."
            )
        found: Callable[..., Any] = super().find_class(module, name)
        return found


def _shape_of(state: TrainState) -> RunShape:
    recipe = state.recipe
    batch_size = recipe.batch_size * state.ranks.share.world
    return RunShape(recipe.seed, batch_size, state.steps_per_epoch, recipe.epochs)


def _copied(value: Any) -> Any:
    """Tensors to arrays of their own; the schedule's numbers as they are."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return np.array(value.numpy()) if hasattr(value, "numpy") else value


def _as_tensors(state: dict[str, Any]) -> dict[str, Any]:
    import paddle

    return {k: v if k == _SCHEDULE else paddle.to_tensor(v) for k, v in state.items()}
