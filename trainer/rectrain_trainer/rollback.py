"""Back to a checkpoint, and on with a lower learning rate, when the loss isn't a number any more.

Called by the run (`training.onNaN`). A record in the log says so, since the next attempt must train with the
lower rate too. The same batches come again in the same order: they are a function of the position.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rectrain_api.errors import Diverged
from rectrain_api.plan import RunPlan
from rectrain_api.records import RollbackRecord
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import RunState
from rectrain_data.transfer import Store
from rectrain_trainer.place import now
from rectrain_trainer.resume import Found, find_newest

log = logging.getLogger(__name__)

MOST: Final = 3
"""Rollbacks a run, over all its attempts."""
_LOWER: Final = 0.5


@dataclass(frozen=True)
class GoneBack:
    """Where training goes on."""

    found: Found | None
    """None: from the first weights."""
    record: RollbackRecord
    sentence: str

    def row(self) -> dict[str, Any]:
        """For the metrics: what came after `toStep` counts no more."""
        return {
            "kind": "rollback",
            "step": self.record.step,
            "toStep": self.record.to_step,
            "learningRateFactor": self.record.factor,
        }


def go_back(
    run_log: RunLog, store: Store, folder: Path, plan: RunPlan, diverged: Diverged, samples: list[str]
) -> GoneBack:
    """To the newest checkpoint that is committed, and say so in the log, which must be the caller's.

    `samples` are some of the step that went wrong.
    Raises:
        Diverged: training went back often enough.
        RunConflict: no checkpoint is whole.
    """
    state = run_log.read()
    if len(state.rollbacks) >= MOST:
        raise given_up(plan, state, diverged, samples)
    found = find_newest(run_log, store, folder)
    record = RollbackRecord(
        attempt=run_log.attempt,
        time=now(),
        step=diverged.step,
        to_step=found.record.step if found else 0,
        factor=state.learning_rate_factor * _LOWER,
    )
    run_log.append(record)
    where = f"to step {record.to_step}" if found else "to the start"
    sentence = (
        f"{diverged} Gone back {where}, and on over the same batches with half the learning rate, "
        f"{_rate(plan, record.factor)} (rollback {len(state.rollbacks)} of at most {MOST}). Should it come "
        f"again, {_advice(samples)}"
    )
    log.warning("%s", sentence)
    return GoneBack(found, record, sentence)


def given_up(plan: RunPlan, state: RunState | None, diverged: Diverged, samples: list[str]) -> Diverged:
    """The error that ends the attempt. `state` is None where nothing is to be gone back to (onNaN: Fail)."""
    if state is None:
        tried = "Nothing was tried, since training.onNaN is Fail"
    else:
        tried = (
            f"Training went back {len(state.rollbacks)} times, each time with half the learning rate, "
            f"{_rate(plan, state.learning_rate_factor)} at last"
        )
    return Diverged(f"{diverged} {tried}: {_advice(samples)}", diverged.step)


def _advice(samples: list[str]) -> str:
    data = f" (such as {', '.join(samples)})" if samples else ""
    return (
        "start a new run (with another checkpoint.uri) with a lower training.learningRate, or look at the "
        f"labels and images of that step{data}."
    )


def _rate(plan: RunPlan, factor: float) -> str:
    return f"{plan.training.learning_rate * factor:g}"
