"""How far a run is to go, and its good ends. Given by `run` and `follow`, told by the child."""

from dataclasses import dataclass
from typing import Literal

from rectrain_api.plan import RunPlan
from rectrain_api.records import FinalRecord
from rectrain_api.run_state import RunState

Until = Literal["looked", "checked", "end"]
"""A look at its place in S3; all that comes before the attempt is taken; everything."""


@dataclass(frozen=True)
class Outcome:
    """A good end."""

    reason: str
    message: str


def last_words(plan: RunPlan, final: FinalRecord, state: RunState, model: str) -> str:
    """What came out of a run, and what was done on the way. Pure."""
    accuracy = f"accuracy {final.metrics['accuracy']:.1%}; the model is at {model}."
    words, stopping = (
        f"Trained {final.epochs} epoch{'s' * (final.epochs != 1)} to {accuracy}",
        plan.training.early_stopping,
    )
    if final.stopped_early is not None and stopping is not None:
        words = (
            f"Stopped early in epoch {final.stopped_early} of {final.epochs}, after step {final.step} (no "
            f"better accuracy in {stopping.patience} evaluations): {accuracy} To train on, delete the run "
            "and apply it again with more training.epochs and a larger training.earlyStopping.patience."
        )
    if state.rollbacks:
        rate = plan.training.learning_rate * state.learning_rate_factor
        words += (
            f" Training went back {len(state.rollbacks)} time(s), the last time from step "
            f"{state.rollbacks[-1].step}, since the loss wasn't a number: it ended with a learning rate of "
            f"{rate:g} instead of {plan.training.learning_rate:g}."
        )
    return words
