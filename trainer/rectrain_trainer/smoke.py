"""The smoke test (`training.smokeTest`): can this model learn a few training images by heart?

Called by the run before its attempt is taken, in a process of its own (`apart`). A model that can't repeat
what it has just been shown, over and over, won't learn from more: images and labels are mixed up, or the
learning rate can't work. The images come as evaluation sees them, without augmentation, at a learning rate
that stays what the plan says from the first step on.
"""

import copy
import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rectrain_api.errors import DatasetInvalid
from rectrain_api.plan import RunPlan
from rectrain_data.findings import Code, Finding, Place, sentence
from rectrain_trainer import seeding
from rectrain_trainer.apart import Apart
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe
from rectrain_trainer.samples import Source

log = logging.getLogger(__name__)

IMAGES: Final = 32
ENOUGH: Final = 0.9
"""Share of the images that are to be read exactly."""
EXPECTED_BY: Final = 300
"""Steps: several times what the presets took, from random weights, on digits and on rendered words."""
_LOOK_EVERY: Final = 10


@dataclass(frozen=True)
class Learnt:
    """What came of it."""

    step: int
    share: float
    """Of the images, read exactly."""
    images: int
    first_loss: float
    last_loss: float

    @property
    def enough(self) -> bool:
        return self.share >= ENOUGH

    def __str__(self) -> str:
        losses = f"loss {self.first_loss:.3g} to {self.last_loss:.3g}"
        return f"{self.share:.0%} of {self.images} images after {self.step} steps, {losses}"


def smoke_test(
    plan: RunPlan, recipe: Recipe, source: Source, weights: Mapping[str, Any] | None, board: Board
) -> Finding | None:
    """Learn a few images by heart, and say how it went. `weights`: of `model.pretrained`, if there are any.

    Returns the failure. Raises DatasetInvalid for it, if validation is strict.
    """
    log.info("Smoke test: learning %d images by heart, expected by step %d.", IMAGES, EXPECTED_BY)
    board.say("smoke test: learning a few images by heart")
    with Apart(plan.gpus, deterministic=plan.training.deterministic) as apart:
        apart.start()
        apart.ask(ByHeart(recipe, source, weights))
        learnt = Learnt(**apart.answer().result())
    board.say("")
    return judge(learnt, plan)


def judge(learnt: Learnt, plan: RunPlan) -> Finding | None:
    """Say how it went; returns the failure. Raises DatasetInvalid for it, if validation is strict."""
    if learnt.enough:
        log.info(
            "Smoke test: %d images by heart after %d steps (expected by step %d).",
            learnt.images,
            learnt.step,
            EXPECTED_BY,
        )
        return None
    finding = Finding(Code.SMOKE_TEST)
    finding.add(Place(plan.data.train, detail=str(learnt)))
    if plan.data.validation == "Strict":
        raise DatasetInvalid(sentence([finding]))
    log.warning("%s.", finding)
    return finding


@dataclass(frozen=True)
class ByHeart:
    """The learning itself, for the process of its own."""

    recipe: Recipe
    source: Source
    weights: Mapping[str, Any] | None
    steps: int = EXPECTED_BY

    def __call__(self) -> dict[str, Any]:
        """Until enough is read, the loss isn't finite, or the steps are done. The fields of `Learnt`."""
        from rectrain_trainer.evaluate import read
        from rectrain_trainer.loader import Batch, BatchMaker, Task
        from rectrain_trainer.loop import TrainState, train_step
        from rectrain_trainer.model import build_decoder, set_params

        recipe = steady(self.recipe)
        make = BatchMaker(recipe, self.source)
        count = len(make.samples)
        positions = [int(i) for i in seeding.epoch_order(recipe.seed, 0, count)[:IMAGES]]
        whole = make(Task(0, recipe.sampler.scales[0], positions))
        truths = [make.samples.label(i) for i in positions]
        size = min(recipe.batch_size, len(positions))
        batches = [Batch(part[at : at + size] for part in whole) for at in range(0, len(positions), size)]
        decoder = build_decoder(recipe.characters, use_space_char=recipe.use_space_char)
        state = TrainState.new(recipe, len(batches))
        if self.weights is not None:
            set_params(state.learner.model, self.weights)
        state.learner.model.train()
        losses: list[float] = []
        share = 0.0
        while state.position.step < self.steps:
            batch = batches[state.position.step % len(batches)]
            losses.append(float(train_step(state, batch, len(batch.images))))
            state.position.step += 1
            if not math.isfinite(losses[-1]):
                break
            if state.position.step % _LOOK_EVERY == 0:
                readings = read(state.learner.model, decoder, (b.images for b in batches))
                share = sum(t == r for t, (r, _) in zip(truths, readings, strict=True)) / len(truths)
                if share >= ENOUGH:
                    break
        return dataclasses.asdict(Learnt(state.position.step, share, len(positions), losses[0], losses[-1]))


def steady(recipe: Recipe) -> Recipe:
    """The recipe with one image size, without augmentation, and its learning rate from first to last step."""
    optimizer = copy.deepcopy(recipe.optimizer)
    optimizer["lr"] = {"name": "Const", "learning_rate": optimizer["lr"]["learning_rate"], "warmup_epoch": 0}
    _, height, width = recipe.image_shape
    sampler = recipe.sampler.model_copy(update={"scales": [(width, height)]})
    return dataclasses.replace(recipe, optimizer=optimizer, augment=[], sampler=sampler, ema=None)
