"""The train stage: drives the loop, and decides at every step boundary what else is due.

Called by the run. The loop (`loop.train`) only trains; evaluation, snapshots, metrics, progress and the
end after SIGTERM happen here, between two steps, where the state is consistent.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rectrain_api.errors import Interrupted
from rectrain_api.plan import CheckpointInterval, EarlyStoppingPlan, EvalInterval
from rectrain_api.report import Stage
from rectrain_api.status import Metrics, Progress
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.copying import Memory
from rectrain_trainer.evaluate import EvalSet, evaluate, share_statistics
from rectrain_trainer.figures import Evaluation
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import Best, Position, Step, StepLoss, TrainState, train
from rectrain_trainer.offers import Offer
from rectrain_trainer.pace import Pace, duration
from rectrain_trainer.snapshot import capture, extend

log = logging.getLogger(__name__)

LAST_COMMIT_S: Final = 600.0
"""How long the end of training waits for a store that is away."""
LOST_COMMIT_S: Final = 20.0
"""How long the last checkpoint is waited for when training breaks off: another pod was lost, say."""
_SHOW_EVERY_S: Final = 1.0
_COMMIT_MARGIN_S: Final = 2.0
"""Of the grace period: for attempt-end, after the last checkpoint."""


def evaluation_due(interval: EvalInterval, position: Position, total: int) -> bool:
    """At every interval, and after the last step. Pure."""
    if not position.step:
        return False
    if position.step >= total:
        return True
    if interval.unit == "steps":
        return position.step % interval.every == 0
    return not position.step_in_epoch and position.epoch % interval.every == 0


def gate_of(position: Position) -> str:
    """Where the other ranks wait until all have evaluated."""
    return f"evaluated-{position.step}"


def stops_early(stopping: EarlyStoppingPlan | None, state: TrainState) -> bool:
    """Whether this is the last step, though not that of the last epoch. Every rank asks, at every evaluation
    but the last: by rank 0's count they all stop at the same step.
    """
    if stopping is None or state.position.step >= state.total_steps:
        return False
    return bool(state.ranks.agreed(int(state.unimproved >= stopping.patience)))


def epochs_begun(position: Position, epochs: int) -> int:
    """The epoch that a position belongs to, from 1: at its end it still does."""
    done = position.epoch if position.step and not position.step_in_epoch else position.epoch + 1
    return min(done, epochs)


def checkpoint_due(interval: CheckpointInterval, step: int, since_s: float) -> bool:
    """Steps are counted over all attempts; seconds since the last snapshot. Pure."""
    return step % interval.every == 0 if interval.unit == "steps" else since_s >= interval.every


@dataclass
class Deps:
    """What the train stage works with, besides the state."""

    board: Board
    chunks: Chunks
    committer: Committer
    interrupt: Interrupt
    held_out: EvalSet
    decoder: Any
    eval_interval: EvalInterval
    checkpoint_interval: CheckpointInterval
    epochs_wanted: Callable[[], int]
    """As the run plan has it by now."""
    early_stopping: EarlyStoppingPlan | None


class Training:
    """One attempt's training, from the state's position to the end."""

    def __init__(
        self,
        state: TrainState,
        deps: Deps,
        rows: list[dict[str, Any]],
        evaluations: dict[int, Evaluation],
        said: str,
    ) -> None:
        """`rows` and `evaluations` are the attempt's, and get more here; `said` is shown until something is
        due: after a rollback, why."""
        self._state = state
        self._deps = deps
        self._said = said
        self._ended = False
        """Early."""
        self._pace = Pace()
        self._memory = Memory()
        self._first = state.position.step + 1
        self._snapshot_step = state.position.step
        self._snapshot_at = time.monotonic()
        self._shown_at = 0.0
        self._loss: float | None = None
        self._step: Step | None = None
        self._gap_told = False
        self._rows, self._evaluations = rows, evaluations

    def run(self, loader: Loader) -> None:
        """Train to the end and commit the last checkpoint.

        Raises:
            Interrupted: told to stop; a last checkpoint was committed if time allowed.
            Fenced, Diverged, StoreUnavailable, PeerLost: as they say.
        """
        interrupt, committer = self._deps.interrupt, self._deps.committer
        self._deps.board.enter(Stage.TRAINING, self._said)
        self._show_position()
        try:
            with interrupt.deferred():
                self._train(loader)
            interrupt.check()  # it may have been noted behind the last step
            self._deps.board.rest()
            left = committer.finish(LAST_COMMIT_S)
        except Interrupted:
            self._stop()
        if left is not None:
            raise type(left)(
                f"The last checkpoint couldn't be committed within {LAST_COMMIT_S:.0f} s after training, so "
                f"another attempt trains on from the last one committed: {left}"
            )

    def _train(self, loader: Loader) -> None:
        """To the end, or to the first step boundary after being told to stop. Raises as `run`."""
        interrupt, committer = self._deps.interrupt, self._deps.committer
        try:
            self._catch_up()
            for step in () if self._ended else train(self._state, loader):
                self._after(step)
                committer.check()
                interrupt.check()
                if self._ended:
                    break
        except Interrupted:
            raise
        except Exception:
            committer.finish(
                min(LOST_COMMIT_S, interrupt.left_s() - _COMMIT_MARGIN_S)
            )  # training is over: what waits here needn't be lost too, nor how it ended
            raise
        finally:
            self._show()

    def _after(self, step: Step) -> None:
        """Everything that is due after one step."""
        self._deps.board.beat(step.step)
        self._measure(step)
        if step.epoch_done:
            self._extend()
        accuracy, best = None, False
        if self._evaluation_due():
            accuracy, best = self._evaluate()
            self._state.ranks.gate(gate_of(self._state.position))
            self._end_early()
        last = self._ended or step.step >= self._state.total_steps
        since = time.monotonic() - self._snapshot_at
        if best or last or checkpoint_due(self._deps.checkpoint_interval, step.step, since):
            self._offer(accuracy, best)

    def _catch_up(self) -> None:
        """An evaluation that an earlier attempt was told to stop in, or killed before it was kept."""
        if not self._evaluation_due():
            return
        if not self._state.evaluated:
            accuracy, best = self._evaluate()
            self._state.ranks.gate(gate_of(self._state.position))
            if self._state.evaluated:
                self._offer(accuracy, best)  # so that it is kept, and its accuracy stands in the log
        self._end_early()
        self._deps.interrupt.check()

    def _end_early(self) -> None:
        if not self._state.evaluated:
            return  # told to stop meanwhile: the others still evaluate, and can't be asked for long
        stopping = self._deps.early_stopping
        self._ended = stops_early(stopping, self._state)
        if stopping is not None and self._ended:
            step, count = self._state.position.step, self._state.unimproved
            log.info("Stopping early at step %d: no better accuracy in %d evaluations.", step, count)

    def _extend(self) -> None:
        """Train for more epochs, if the run plan has more by now."""
        was, wanted = self._state.recipe.epochs, self._deps.epochs_wanted()
        epochs = self._state.ranks.agreed(max(was, wanted))
        if epochs > was:
            extend(self._state, epochs)
            step = self._state.position.step
            self._deps.committer.change(epochs, was, step)
            log.info(
                "%d epochs instead of %d from step %d on: spec.training.epochs was raised.", epochs, was, step
            )

    def _evaluation_due(self) -> bool:
        state = self._state
        return evaluation_due(self._deps.eval_interval, state.position, state.total_steps)

    def _evaluate(self) -> tuple[float | None, bool]:
        """Accuracy, and whether it is the best so far; None if told to stop meanwhile."""
        deps, state = self._deps, self._state
        epoch = epochs_begun(state.position, state.recipe.epochs)
        self._show()
        deps.board.enter(Stage.EVALUATING)
        started = time.monotonic()
        try:
            with state.averaged():
                share_statistics(state.learner.model, state.ranks)
                with deps.interrupt.immediate():
                    found = evaluate(state.learner.model, deps.decoder, deps.held_out, state.ranks)
        except Interrupted:
            return None, False
        state.evaluated = True
        best = state.best is None or found.accuracy > state.best.accuracy
        delta = deps.early_stopping.min_delta if deps.early_stopping else 0.0
        improved = state.best is None or found.accuracy > state.best.accuracy + delta
        state.unimproved = 0 if improved else state.unimproved + 1
        if best:
            state.best = Best(found.accuracy, state.position.step, epoch)
        row = {
            "kind": "eval",
            "step": state.position.step,
            "epoch": epoch,
            **found.figures(),
            "seconds": round(time.monotonic() - started, 3),
        }
        self._rows.append(row)
        deps.chunks.metric(row)
        self._remember(found)
        log.info("Epoch %d: %s%s.", epoch, found.sentence, " (best)" if best else "")
        if not self._gap_told and (gap := found.gap()):
            self._gap_told = True
            log.info("%s", gap)
        deps.board.update(metrics=metrics_of(deps.board.metrics, found.figures()))
        deps.board.enter(Stage.TRAINING)
        self._pace.pause()
        return found.accuracy, best

    def _remember(self, found: Evaluation) -> None:
        """What was found of the best weights, and of these: one of them is published."""
        best, step = self._state.best, self._state.position.step
        for other in [s for s in self._evaluations if best is None or s != best.step]:
            del self._evaluations[other]
        self._evaluations[step] = found

    def _offer(self, accuracy: float | None, best: bool) -> None:
        self._tell(self._state.look())
        epoch = epochs_begun(self._state.position, self._state.recipe.epochs)
        self._deps.committer.offer(Offer(capture(self._state, self._memory), epoch, accuracy, best))
        self._snapshot_step = self._state.position.step
        self._snapshot_at = time.monotonic()

    def _stop(self) -> NoReturn:
        """Told to stop: a last checkpoint, as far as time allows. Always raises."""
        step, total = self._state.position.step, self._state.total_steps
        if step != self._snapshot_step:
            self._offer(None, False)
        left = self._deps.committer.finish(self._deps.interrupt.left_s() - _COMMIT_MARGIN_S)
        kept = "its checkpoint couldn't be committed in time" if left else "its checkpoint is committed"
        raise Interrupted(f"Told to stop at step {step} of {total}; {kept}.")

    def _measure(self, step: Step) -> None:
        """Count the step; tell metrics and board when there is something new."""
        self._step = step
        self._pace.step(step.samples, step.wait_s)
        first = step.step == self._first
        if first:
            self._rows.append({"kind": "train", "step": step.step})
        self._tell(step.losses, at_once=first)
        last = step.step >= self._state.total_steps
        if first or last or time.monotonic() - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = time.monotonic()
            self._show()

    def _tell(self, losses: Sequence[StepLoss], *, at_once: bool = False) -> None:
        """One row a step, the same whether the run was interrupted or not (but for the times)."""
        if not losses:
            return
        self._loss = math.fsum(row.loss for row in losses) / len(losses)
        for row in losses:
            self._deps.chunks.metric(
                {
                    "kind": "train",
                    "step": row.step,
                    "epoch": row.epoch,
                    "loss": row.loss,
                    "learningRate": row.learning_rate,
                    "samplesPerSecond": self._pace.samples_per_second,
                    "dataWaitPercent": self._pace.wait_percent,
                },
                at_once=at_once,
            )

    def _show_position(self) -> None:
        """Where training begins, which may be where it ends."""
        position, recipe = self._state.position, self._state.recipe
        epoch = epochs_begun(position, recipe.epochs)
        progress = progress_of(
            epoch, recipe.epochs, position.step, self._state.total_steps, Stage.TRAINING, None
        )
        self._deps.board.update(progress=progress)

    def _show(self) -> None:
        """The last step on the board."""
        step = self._step
        if step is None:
            return
        board, pace = self._deps.board, self._pace
        metrics = board.metrics or Metrics()
        board.update(
            reached_training=True,
            progress=progress_of(
                step.epoch,
                self._state.recipe.epochs,
                step.step,
                self._state.total_steps,
                board.stage,
                pace,
            ),
            metrics=metrics.model_copy(update={"loss": self._loss, "learning_rate": step.learning_rate}),
        )


def metrics_of(shown: Metrics | None, figures: Mapping[str, Any]) -> Metrics:
    """What status shows, with an evaluation's figures."""
    accuracy = figures.get("accuracy")
    return (shown or Metrics()).model_copy(
        update={
            "accuracy": accuracy,
            "accuracy_text": f"{accuracy:.1%}" if isinstance(accuracy, float) else None,
            "norm_edit_distance": figures.get("normEditDistance"),
            "character_error_rate": figures.get("characterErrorRate"),
            "upstream_acc": figures.get("upstreamAcc"),
        }
    )


def progress_of(epoch: int, epochs: int, step: int, steps: int, stage: Stage, pace: Pace | None) -> Progress:
    """Progress as status shows it."""
    percent = min(100 * step // steps, 100) if steps else 0
    left_s = pace.seconds_for(steps - step) if pace else None
    return Progress(
        epoch=epoch,
        epochs=epochs,
        step=step,
        steps=steps,
        percent=percent,
        samples_per_second=pace.samples_per_second if pace else None,
        data_wait_percent=pace.wait_percent if pace else None,
        eta=duration(left_s) if left_s is not None else None,
        text=f"{percent}%",
        epoch_text=f"{epoch}/{epochs}",
        stage=stage.value,
    )
