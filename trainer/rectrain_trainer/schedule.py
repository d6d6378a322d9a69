"""Whether batch, evaluations and learning rate fit the length of the run. Pure.

Called by the check stage. 400 steps with an evaluation every 2,000 are a run without one (PaddleOCR 17785).
"""

from collections.abc import Mapping
from typing import Any, Final

from rectrain_api.plan import RunPlan
from rectrain_data.findings import Code, Finding, Report
from rectrain_trainer.config import Recipe
from rectrain_trainer.sampler import Sampler, batch_sizes
from rectrain_trainer.words import many

FEWEST_EVALUATIONS: Final = 3
_LR: Final = "Optimizer.lr"


def schedule_findings(plan: RunPlan, recipe: Recipe, samples: int, ranks: int) -> list[Finding]:
    """What doesn't fit, for a training set of so many samples."""
    report = Report()
    batch = ranks * batch_sizes(recipe.sampler, recipe.batch_size)[0]
    if batch > samples:
        of_ranks = f" on each of {ranks} devices" if ranks > 1 else ""
        detail = f"{recipe.batch_size}{of_ranks}, and there are {samples} samples to train on"
        report.add(Code.BATCH_EXCEEDS_DATA, "training.batchSize", detail=detail)
    evaluations = count_evaluations(plan, recipe, samples, ranks)
    if evaluations < FEWEST_EVALUATIONS:
        every, unit = plan.training.eval_interval.every, plan.training.eval_interval.unit
        interval = unit.removesuffix("s") if every == 1 else f"{every} {unit}"
        detail = f"every {interval}: {evaluations} in {many(recipe.epochs, 'epoch')}"
        report.add(Code.FEW_EVALUATIONS, "training.evalInterval", detail=detail)
    for key, epoch in _late(recipe.optimizer["lr"], recipe.epochs):
        detail = f"until epoch {epoch:g}, of {recipe.epochs}"
        report.add(Code.WARMUP_TOO_LONG, f"{_LR}.{key}", detail=detail)
    return report.findings


def count_evaluations(plan: RunPlan, recipe: Recipe, samples: int, ranks: int) -> int:
    """Over the whole run: at every interval, and after the last step."""
    interval = plan.training.eval_interval
    steps = len(Sampler(recipe.sampler, samples, batch_size=recipe.batch_size, world=ranks, seed=recipe.seed))
    length = recipe.epochs * steps if interval.unit == "steps" else recipe.epochs
    return -(-length // interval.every)


def _late(lr: Mapping[str, Any], epochs: int) -> list[tuple[str, float]]:
    """Keys of upstream's schedules whose last epoch isn't within the run, and that epoch."""
    ends = {
        "warmup_epoch": lr.get("warmup_epoch", 0),  # of all
        "step_size": lr.get("step_size", 0),  # Step
        "decay_epochs": max(_changes(lr), default=0),  # Piecewise
        "milestones": max(lr.get("milestones", [0])),  # MultiStepDecay
    }
    return [(key, end) for key, end in ends.items() if end >= epochs]


def _changes(lr: Mapping[str, Any]) -> list[float]:
    """Epochs at which another of Piecewise's values follows: upstream's configs name the last epoch too."""
    epochs: list[float] = lr.get("decay_epochs", [])
    return epochs[: len(lr["values"]) - 1] if "values" in lr else epochs
