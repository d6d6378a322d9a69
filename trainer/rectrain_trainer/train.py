"""The train stage: drives the loop, and decides at every step boundary what else is due.

Called by the run. The loop (`loop.train`) only trains; evaluation, snapshots, metrics, progress and the
end after SIGTERM happen here, between two steps, where the state is consistent.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rectrain_api.errors import Interrupted, PeerLost, StoreUnavailable
from rectrain_api.plan import CheckpointInterval, EvalInterval
from rectrain_api.report import Stage
from rectrain_api.status import Metrics, Progress
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer, Offer
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.evaluate import EvalSet, evaluate
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import Step, TrainState, train
from rectrain_trainer.pace import Pace, duration
from rectrain_trainer.snapshot import capture

log = logging.getLogger(__name__)

LAST_COMMIT_S: Final = 600.0
"""How long the end of training waits for a store that is away."""
LOST_COMMIT_S: Final = 20.0
"""How long the last checkpoint is waited for when another pod was lost."""
_SHOW_EVERY_S: Final = 1.0
_COMMIT_MARGIN_S: Final = 2.0
"""Of the grace period: for attempt-end, after the last checkpoint."""


def evaluation_due(interval: EvalInterval, step: Step, total: int) -> bool:
    """At every interval, and after the last step. Pure."""
    if step.step >= total:
        return True
    if interval.unit == "steps":
        return step.step % interval.every == 0
    return step.epoch_done and step.epoch % interval.every == 0


def gate_of(step: Step) -> str:
    """Where the other ranks wait until rank 0 has evaluated."""
    return f"evaluated-{step.step}"


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


class Training:
    """One attempt's training, from the state's position to the end."""

    def __init__(self, state: TrainState, deps: Deps, best: float | None) -> None:
        """`best` is the accuracy to beat, over all attempts."""
        self._state = state
        self._deps = deps
        self._best = best
        self._pace = Pace()
        self._first = state.position.step + 1
        self._snapshot_step = state.position.step
        self._snapshot_at = time.monotonic()
        self._evaluated_step = -1
        self._shown_at = 0.0
        self._loss: float | None = None
        self._step: Step | None = None
        self.evaluations: list[dict[str, Any]] = []
        """Of this attempt, as in its metrics."""

    def run(self, loader: Loader) -> None:
        """Train to the end and commit the last checkpoint.

        Raises:
            Interrupted: told to stop; a last checkpoint was committed if time allowed.
            Fenced, Diverged, StoreUnavailable, PeerLost: as they say.
        """
        interrupt, committer = self._deps.interrupt, self._deps.committer
        self._deps.board.enter(Stage.TRAINING)
        self._show_position()
        with interrupt.deferred():
            try:
                for step in train(self._state, loader):
                    self._after(step)
                    committer.check()
                    if interrupt.requested:
                        self._stop()
                self._catch_up()
                if interrupt.requested:
                    self._stop()
            except PeerLost:
                committer.finish(
                    min(LOST_COMMIT_S, interrupt.left_s() - _COMMIT_MARGIN_S)
                )  # another pod is gone: what waits here needn't be lost too
                raise
            finally:
                self._show()
        try:
            done = committer.finish(LAST_COMMIT_S)
        except Interrupted:
            self._stop()
        if not done:
            raise StoreUnavailable(
                f"The last checkpoint couldn't be committed within {LAST_COMMIT_S:.0f} s after training: "
                "another attempt trains on from the last one committed."
            )

    def _after(self, step: Step) -> None:
        """Everything that is due after one step."""
        self._measure(step)
        accuracy, best = None, False
        if evaluation_due(self._deps.eval_interval, step, self._state.total_steps):
            accuracy, best = self._evaluate(step.epoch)
            self._state.ranks.gate(gate_of(step))
        last = step.step >= self._state.total_steps
        since = time.monotonic() - self._snapshot_at
        if best or last or checkpoint_due(self._deps.checkpoint_interval, step.step, since):
            self._offer(step.epoch, accuracy, best)

    def _catch_up(self) -> None:
        """A run that was stopped after its last step, before that was evaluated."""
        if self._evaluated_step != self._state.position.step:
            epoch = self._state.recipe.epochs
            accuracy, best = self._evaluate(epoch)
            if best:
                self._offer(epoch, accuracy, best)

    def _evaluate(self, epoch: int) -> tuple[float | None, bool]:
        """Accuracy, and whether it is the best so far; None if told to stop meanwhile."""
        deps = self._deps
        self._show()
        deps.board.enter(Stage.EVALUATING)
        started = time.monotonic()
        try:
            with deps.interrupt.immediate():
                found = evaluate(self._state.learner.model, deps.decoder, deps.held_out)
        except Interrupted:
            return None, False
        self._evaluated_step = self._state.position.step
        best = self._best is None or found.accuracy > self._best
        self._best = found.accuracy if best else self._best
        row = {
            "kind": "eval",
            "step": self._state.position.step,
            "epoch": epoch,
            "accuracy": found.accuracy,
            "normEditDistance": found.norm_edit_distance,
            "samples": found.samples,
            "seconds": round(time.monotonic() - started, 3),
        }
        self.evaluations.append(row)
        deps.chunks.metric(row)
        log.info("Epoch %d: accuracy %.1f%%%s.", epoch, found.accuracy * 100, " (best)" if best else "")
        deps.board.update(
            metrics=(deps.board.metrics or Metrics()).model_copy(
                update={
                    "accuracy": found.accuracy,
                    "accuracy_text": f"{found.accuracy:.1%}",
                    "norm_edit_distance": found.norm_edit_distance,
                }
            )
        )
        deps.board.enter(Stage.TRAINING)
        self._pace.pause()
        return found.accuracy, best

    def _offer(self, epoch: int, accuracy: float | None, best: bool) -> None:
        snapshot = capture(self._state)
        self._deps.committer.offer(Offer(snapshot, epoch, accuracy, best))
        self._snapshot_step = snapshot.position.step
        self._snapshot_at = time.monotonic()

    def _stop(self) -> NoReturn:
        """Told to stop: a last checkpoint, as far as time allows. Always raises."""
        step, total = self._state.position.step, self._state.total_steps
        if step != self._snapshot_step:
            self._offer(min(self._state.position.epoch + 1, self._state.recipe.epochs), None, False)
        done = self._deps.committer.finish(self._deps.interrupt.left_s() - _COMMIT_MARGIN_S)
        kept = "its checkpoint is committed" if done else "its checkpoint couldn't be committed in time"
        raise Interrupted(f"Told to stop at step {step} of {total}; {kept}.")

    def _measure(self, step: Step) -> None:
        """Count the step; tell metrics and board when there is something new."""
        self._step = step
        self._pace.step(step.samples, step.wait_s)
        first = step.step == self._first
        self._loss = self._loss if step.loss is None else step.loss
        if step.loss is not None or first:
            self._deps.chunks.metric(
                {
                    "kind": "train",
                    "step": step.step,
                    "epoch": step.epoch,
                    "loss": step.loss,
                    "learningRate": step.learning_rate,
                    "samplesPerSecond": self._pace.samples_per_second,
                },
                at_once=first,
            )
        last = step.step >= self._state.total_steps
        if first or last or time.monotonic() - self._shown_at >= _SHOW_EVERY_S:
            self._shown_at = time.monotonic()
            self._show()

    def _show_position(self) -> None:
        """Where training begins, which may be where it ends."""
        position, recipe = self._state.position, self._state.recipe
        epoch = min(position.epoch + 1, recipe.epochs)
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
