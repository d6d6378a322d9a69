"""The training loop: recognition only, interruptible at every step, resumable exactly.

`train` is a generator: the train stage drives it and has control after every step (to snapshot, evaluate,
report or stop), so the loop itself knows no S3, no signals, no clock but one. Upstream's loop
(tools/program.py) evaluates and saves inside, waits for the device at every step to log the loss, and starts
its step count again on resume. A test holds both to equal losses, bit for bit.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rectrain_api.errors import Diverged
from rectrain_trainer import seeding
from rectrain_trainer.config import Recipe
from rectrain_trainer.ema import Ema
from rectrain_trainer.loader import Batch, Loader
from rectrain_trainer.model import Learner, build_learner
from rectrain_trainer.ranks import Ranks

FETCH_EVERY: Final = 10
"""Steps between two looks at the loss: looking makes the host wait for the device."""


@dataclass
class Position:
    """Where training stands. Everything else follows from it, the recipe and the weights."""

    epoch: int = 0
    """Completed epochs."""
    step_in_epoch: int = 0
    """Completed steps of the epoch under way."""
    step: int = 0
    """Completed optimizer steps."""


class StepLoss(NamedTuple):
    """What one step learnt from: a row of the run's curves."""

    epoch: int
    step: int
    learning_rate: float
    loss: float
    """Of this rank's samples."""


class Best(NamedTuple):
    """The best evaluation so far, over all attempts."""

    accuracy: float
    step: int
    epoch: int


class Step(NamedTuple):
    """What `train` yields after each optimizer step."""

    epoch: int
    """The epoch this step belongs to, from 1."""
    step: int
    """Completed optimizer steps."""
    epoch_done: bool
    samples: int
    """Over all ranks."""
    learning_rate: float
    losses: Sequence[StepLoss]
    """Of the steps that nobody had looked at, oldest first; none between looks."""
    wait_s: float
    """Time that this step waited for data."""


@dataclass
class TrainState:
    """One run in memory: what is trained, and how far."""

    recipe: Recipe
    learner: Learner
    steps_per_epoch: int
    position: Position = field(default_factory=Position)
    ranks: Ranks = field(default_factory=Ranks)
    ema: Ema | None = None
    """The average of the weights, where the recipe has one: it is what is evaluated and exported."""
    best: Best | None = None
    evaluated: bool = False
    """Whether the weights of this very position were evaluated."""
    unimproved: int = 0
    """Evaluations in a row that weren't better than the best."""
    _unseen: list[tuple[int, int, float, Any]] = field(default_factory=list)
    """Epoch, step, learning rate, and the loss on the device that nobody has looked at."""

    @classmethod
    def new(cls, recipe: Recipe, steps_per_epoch: int, ranks: Ranks | None = None) -> "TrainState":
        """A fresh run: first weights from the seed, schedule over `recipe.epochs`."""
        learner = build_learner(recipe, steps_per_epoch)
        ema = Ema.new(recipe.ema, learner.model) if recipe.ema else None
        return cls(recipe, learner, steps_per_epoch, ranks=ranks or Ranks(), ema=ema)

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model holds the weights that count: the average, where there is one."""
        with self.ema.applied(self.learner.model) if self.ema and self.ema.step else contextlib.nullcontext():
            yield

    def look(self) -> list[StepLoss]:
        """The losses of the steps since the last look. Waits for the device.

        Raises Diverged if any of them isn't finite; so call it before anything is saved. Rank 0 alone does:
        another rank's NaN is in the average of the gradients, and so in rank 0's next loss or weights.
        """
        rows = [StepLoss(epoch, step, rate, float(loss)) for epoch, step, rate, loss in self._unseen]
        self._unseen.clear()
        for row in rows:
            if self.ranks.first and not math.isfinite(row.loss):
                raise Diverged(
                    f"The loss became {row.loss} at step {row.step} (epoch {row.epoch}).", row.step
                )
        return rows


def train(state: TrainState, loader: Loader, *, fetch_every: int = FETCH_EVERY) -> Iterator[Step]:
    """Train on from `state.position` to the end of `state.recipe.epochs`, yielding after every step.

    The state is consistent at each yield: it may be captured, evaluated, or left for good.
    """
    position, first = state.position, True
    state.learner.model.train()
    while position.epoch < state.recipe.epochs:
        asked = time.perf_counter()
        # Closed at once when training breaks off: what follows in this process may load batches again.
        with contextlib.closing(loader.batches(position.epoch, position.step_in_epoch)) as batches:
            for batch in batches:
                wait_s = time.perf_counter() - asked
                rate = state.learner.optimizer.get_lr()
                samples = loader.samples_of(position.epoch, position.step_in_epoch)
                epoch = position.epoch + 1
                state._unseen.append((epoch, position.step + 1, rate, train_step(state, batch, samples)))
                state.evaluated = False
                epoch_done = _advance(position, state.steps_per_epoch)
                looks = first or epoch_done or position.step % fetch_every == 0
                first = False
                losses = state.look() if looks else ()
                yield Step(epoch, position.step, epoch_done, samples, rate, losses, wait_s)
                asked = time.perf_counter()


def train_step(state: TrainState, batch: Batch, samples: int) -> Any:
    """Forward, backward, update; the loss stays on the device. `samples`: of the step, over all ranks."""
    import paddle

    learner = state.learner
    seeding.seed_step(state.recipe.seed, state.position.step, state.ranks.share.rank)
    tensors = [paddle.to_tensor(part) for part in batch]
    # Heads that guide want the labels; all others ignore them.
    predictions = (
        learner.amp.predict(learner.model, tensors)
        if learner.amp
        else learner.model(tensors[0], data=tensors[1:])
    )
    loss = learner.loss(predictions, tensors)["loss"]
    if learner.amp:
        learner.amp.backward(loss)
    else:
        loss.backward()
    state.ranks.average_gradients(learner.model, samples)
    with paddle.utils.unique_name.guard():  # moments are made, and named, at the first step
        if learner.amp:
            learner.amp.step(learner.optimizer)
        else:
            learner.optimizer.step()
    learner.optimizer.clear_grad()
    if state.ema is not None:
        state.ema.update(learner.model)
    if not isinstance(learner.rate, float):
        learner.rate.step()
    return loss.detach()


def _advance(position: Position, steps_per_epoch: int) -> bool:
    """Count one step; True if it ended its epoch."""
    position.step += 1
    position.step_in_epoch += 1
    if position.step_in_epoch < steps_per_epoch:
        return False
    position.epoch += 1
    position.step_in_epoch = 0
    return True
