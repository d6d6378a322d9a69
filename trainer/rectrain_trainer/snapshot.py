"""A training state copied out of the device, and put back.

Called by the train stage (capture at a step boundary: the only stall) and by the run (restore, and sharing
among ranks). Its files are in `snapshot_files`. There is no generator state to keep (see `seeding`).
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from rectrain_api.errors import Diverged, InvalidSpec
from rectrain_trainer.config import Recipe
from rectrain_trainer.copying import Memory
from rectrain_trainer.ema import EmaState
from rectrain_trainer.loop import Best, Position, TrainState
from rectrain_trainer.model import build_optimizer, set_params
from rectrain_trainer.words import many

_SCHEDULE: Final = "LR_Scheduler"
"""What Paddle files the schedule under, beside the moments."""


@dataclass(frozen=True)
class Snapshot:
    """A consistent copy: later training steps don't change it."""

    params: dict[str, Any]
    """Weights by their name in the model: numpy arrays. The average, where the recipe has one."""
    optimizer: dict[str, Any]
    """Moments by Paddle's names: numpy arrays."""
    schedule: dict[str, Any]
    """The learning rate schedule's own numbers; none for a constant rate."""
    position: Position
    shape: "RunShape"
    best: Best | None = None
    evaluated: bool = False
    """Whether these weights were evaluated; if that is due and wasn't done, whoever resumes does it."""
    unimproved: int = 0
    """Evaluations in a row that weren't better than the best: early stopping goes on counting."""
    ema: EmaState | None = None
    """With an average: its sums, and the weights that training goes on from."""
    scaler: dict[str, Any] | None = None
    """With mixed precision: the factor of the loss, and its steps in a row."""

    def plain(self) -> dict[str, Any]:
        """All but the arrays, as JSON."""
        return {
            "position": asdict(self.position),
            "shape": asdict(self.shape),
            "schedule": self.schedule,
            "best": self.best._asdict() if self.best else None,
            "evaluated": self.evaluated,
            "unimproved": self.unimproved,
            **({"scaler": self.scaler} if self.scaler else {}),
        }

    @classmethod
    def of(
        cls,
        plain: dict[str, Any],
        params: dict[str, Any],
        optimizer: dict[str, Any],
        ema: EmaState | None = None,
    ) -> "Snapshot":
        """From `plain()` and the arrays. Raises KeyError, TypeError for what isn't that."""
        return cls(
            params=params,
            optimizer=optimizer,
            schedule=dict(plain["schedule"]),
            position=Position(**plain["position"]),
            shape=RunShape(**plain["shape"]),
            best=Best(**plain["best"]) if plain["best"] else None,
            evaluated=bool(plain["evaluated"]),
            unimproved=int(plain.get("unimproved", 0)),  # older ones didn't count
            ema=ema,
            scaler=plain.get("scaler"),
        )


@dataclass(frozen=True)
class RunShape:
    """What a position means: batches of this size (over all ranks), in this order, over so many epochs."""

    seed: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    samples: int | None = None
    """To train on: as many steps may be of others. None in older checkpoints."""
    ranks: int | None = None
    """None: an older checkpoint, which doesn't say."""


def capture(state: TrainState, memory: Memory | None = None) -> Snapshot:
    """Copy the state out: all that training waits for. `TrainState.look` comes first.

    `memory` serves one snapshot after the other, each as long as it is held.
    """
    memory, learner = memory or Memory(), state.learner
    moments = learner.optimizer.state_dict()
    schedule = moments.pop(_SCHEDULE, {})
    average = state.ema if state.ema and state.ema.step else None
    weights = average.weights() if average else learner.model.state_dict()
    return Snapshot(
        params=memory.copy(weights),
        optimizer=memory.copy(moments),
        schedule=_numbers(schedule),
        position=Position(**asdict(state.position)),
        shape=_shape_of(state),
        best=state.best,
        evaluated=state.evaluated,
        unimproved=state.unimproved,
        ema=average.capture(learner.model, memory) if average else None,
        scaler=learner.amp.state() if learner.amp else None,
    )


def share_state(state: TrainState, snapshot: Snapshot | None) -> None:
    """Every rank goes on from rank 0's `snapshot`; from rank 0's first weights, when there is none.

    And by rank 0's epochs and factor of the learning rate: a run plan that changes isn't changed in all pods
    at once, and only rank 0 knows of rollbacks. Raises InvalidSpec, PeerLost.
    """
    if not state.ranks.alone:
        told = _told(state, snapshot or capture(state)) if state.ranks.first else None
        heard = state.ranks.same(told)
        _check_recipe(state.recipe, heard.pop("recipe"))
        recipe = dataclasses.replace(
            state.recipe, epochs=heard.pop("epochs"), rate_factor=heard.pop("rateFactor")
        )
        if recipe != state.recipe:
            state.recipe = recipe
            _reschedule(state)
        snapshot = Snapshot.of(**heard)
    if snapshot is None:
        return
    if snapshot.position.step:
        restore(state, snapshot)
    else:
        _check_shape(state, snapshot)
        set_params(state.learner.model, snapshot.params)


def _told(state: TrainState, snapshot: Snapshot) -> dict[str, Any]:
    arrays = {"params": snapshot.params, "optimizer": snapshot.optimizer, "ema": snapshot.ema}
    recipe = state.recipe
    return {
        **arrays,
        "plain": snapshot.plain(),
        "epochs": recipe.epochs,
        "rateFactor": recipe.rate_factor,
        "recipe": _digests(recipe),
    }


def _digests(recipe: Recipe) -> dict[str, str]:
    """Of all that must be the same on every rank, and isn't told."""
    return {
        field.name: hashlib.sha256(repr(getattr(recipe, field.name)).encode()).hexdigest()
        for field in dataclasses.fields(recipe)
        if field.name not in ("epochs", "rate_factor")
    }


def _check_recipe(recipe: Recipe, told: Mapping[str, str]) -> None:
    """A config or data may have been changed while pods started. Raises InvalidSpec."""
    other = [name for name, digest in _digests(recipe).items() if told.get(name) != digest]
    if other:
        raise InvalidSpec(
            f"The ranks of this run don't train the same (here differs from rank 0: {', '.join(other)}): the "
            "model's config or the data was changed while pods started. Start the run again, and leave both "
            "as they are while it trains."
        )


def refuse_nan(snapshot: Snapshot) -> None:
    """Raise Diverged for weights that a NaN has touched: of another rank's loss, or of a gradient alone."""
    own = snapshot.ema["train_state"] if snapshot.ema else {}
    for name, array in itertools.chain(snapshot.params.items(), own.items()):
        if not np.isfinite(array).all():
            step = snapshot.position.step
            raise Diverged(f"The weights {name} aren't finite after step {step}.", step)


def restore(state: TrainState, snapshot: Snapshot) -> None:
    """Put a snapshot into a state built from the same recipe (more epochs are fine).

    With more epochs the learning rate follows the new, longer schedule from this step on. After a rollback
    it follows the lower one: the snapshot may be from before.
    """
    _check_shape(state, snapshot)
    if state.ema is not None and snapshot.ema is not None:
        state.ema.restore(snapshot.ema, state.learner.model)
    else:
        set_params(state.learner.model, snapshot.params)
    state.learner.optimizer.set_state_dict(_as_paddle_wants(snapshot))
    if state.learner.amp is not None and snapshot.scaler is not None:
        state.learner.amp.restore(snapshot.scaler)
    state.position = Position(**asdict(snapshot.position))
    state.best, state.evaluated = snapshot.best, snapshot.evaluated
    state.unimproved = snapshot.unimproved
    if state.recipe.epochs != snapshot.shape.epochs or state.recipe.rate_factor != 1:
        _reschedule(state)


def extend(state: TrainState, epochs: int) -> None:
    """Train for so many epochs: the learning rate follows their schedule from this step on."""
    state.recipe = dataclasses.replace(state.recipe, epochs=epochs)
    _reschedule(state)


def _check_shape(state: TrainState, snapshot: Snapshot) -> None:
    have, want = snapshot.shape, _shape_of(state)
    if have.ranks is not None and have.ranks != want.ranks:
        made, here = many(have.ranks, "rank"), many(want.ranks or 1, "rank")
        raise InvalidSpec(
            f"The checkpoint was made by {made}, and this run has {here} (replicas.nodes x "
            "replicas.gpusPerNode), whose steps would train something else: make them "
            f"{have.ranks} again, or give this run a checkpoint.uri of its own, and this one's weights as "
            "model.pretrained if it is to go on from them."
        )
    counts = [
        ("seed", have.seed, want.seed),
        ("images a step", have.batch_size, want.batch_size),
        ("steps an epoch", have.steps_per_epoch, want.steps_per_epoch),
    ]
    if snapshot.position.step_in_epoch and have.samples and want.samples:
        counts.append(("samples to train on", have.samples, want.samples))
    changed = [f"{name}: {old} → {new}" for name, old, new in counts if old != new]
    if changed:
        raise InvalidSpec(
            f"The checkpoint was made with other data, settings or number of ranks ({'; '.join(changed)}), "
            "so its place in the epoch would mean other samples: put that back (the data, and "
            "data.validation, which decides what of it is left out), or give this run a checkpoint.uri of "
            "its own."
        )


def _reschedule(state: TrainState) -> None:
    """The schedule of `state.recipe`, wound on to where training stands."""
    learner = state.learner
    _, rate = build_optimizer(state.recipe, state.steps_per_epoch, learner.model)
    if isinstance(rate, float):
        learner.optimizer.set_lr(rate)
    else:
        for _ in range(state.position.step):
            rate.step()
        learner.optimizer.set_lr_scheduler(rate)
    state.learner = dataclasses.replace(learner, rate=rate)


def _shape_of(state: TrainState) -> RunShape:
    recipe = state.recipe
    world, steps = state.ranks.share.world, state.steps_per_epoch
    return RunShape(recipe.seed, recipe.batch_size * world, steps, recipe.epochs, state.samples, world)


def _numbers(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The same as JSON has it: a schedule may hold another one, and numbers of NumPy's."""
    return {
        key: _numbers(value)
        if isinstance(value, Mapping)
        else value.item()
        if hasattr(value, "item")
        else value
        for key, value in schedule.items()
    }


def _as_paddle_wants(snapshot: Snapshot) -> dict[str, Any]:
    import paddle

    moments = {name: paddle.to_tensor(array) for name, array in snapshot.optimizer.items()}
    return moments | ({_SCHEDULE: snapshot.schedule} if snapshot.schedule else {})
