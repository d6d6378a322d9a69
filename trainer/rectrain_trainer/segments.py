"""One attempt's training, from rollback to rollback.

Called by the run, once the attempt is taken. Each segment begins as an attempt does, from the log alone (its
newest checkpoint, its rollbacks), so that an attempt that follows trains exactly the same.
"""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rectrain_api.errors import Diverged
from rectrain_api.plan import RunPlan
from rectrain_api.run_log import RunLog
from rectrain_data.transfer import Store
from rectrain_trainer import resume, rollback
from rectrain_trainer.board import Board
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.config import Recipe
from rectrain_trainer.evaluate import EvalSet
from rectrain_trainer.figures import Evaluation
from rectrain_trainer.follow import RESUMED
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loader import Loader
from rectrain_trainer.loop import TrainState
from rectrain_trainer.model import build_decoder, set_params
from rectrain_trainer.ranks import Ranks
from rectrain_trainer.snapshot import share_state
from rectrain_trainer.train import Deps, Training

log = logging.getLogger(__name__)

LEAVE_S: Final = 300.0
"""How long a rollback waits for requests to S3 under way; each gives up by itself within two minutes."""
_SAMPLES_NAMED: Final = 2
"""Of the step whose loss wasn't a number."""


@dataclass
class Segments:
    """What an attempt trains with."""

    plan: RunPlan
    recipe: Recipe
    ranks: Ranks
    run_log: RunLog
    store: Store
    folder: Path
    """For a checkpoint that is fetched."""
    board: Board
    chunks: Chunks
    interrupt: Interrupt
    loader: Loader
    held_out: EvalSet
    first: dict[str, Any] | None
    """Weights to start from where there is no checkpoint; None: those of the seed."""
    new_committer: Callable[[], Committer]
    epochs_wanted: Callable[[], int]
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of this attempt's metrics: its first step, and its evaluations; without what a rollback undid."""
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    """Of this attempt, by step: that of the best weights, and the last."""

    def train(self) -> TrainState | None:
        """The state at the end; None when it was gone back and the other pods have to, too.

        Raises:
            Diverged: the loss isn't a number, and nothing is to be gone back to, or it was often enough.
            Interrupted, Fenced, StoreUnavailable, PeerLost: as they say.
        """
        found, said = resume.find_newest(self.run_log, self.store, self.folder), ""
        self.held_out.on_batch = self.board.beat
        while True:
            state = self._resumed(found)
            found = None  # as large as model and optimizer
            committer = self.new_committer()
            try:
                Training(state, self._deps(committer), self.rows, self.evaluations, said).run(self.loader)
                return state
            except Diverged as e:
                went_wrong = Diverged(str(e), e.step)
                e.__traceback__ = e.__context__ = None  # the committer may keep it, and so all of training
            del state
            gone = self._go_back(went_wrong, committer)
            if not self.ranks.alone:
                self.board.say(gone.sentence)
                return None
            found, said = gone.found, gone.sentence

    def _resumed(self, found: resume.Found | None) -> TrainState:
        """What checkpoint and log say, on every rank."""
        told = self.run_log.state
        recipe = dataclasses.replace(self.recipe, rate_factor=told.learning_rate_factor)
        if any(r.attempt == self.run_log.attempt for r in told.rollbacks):  # they may have been raised before
            epochs = max(recipe.epochs, told.epochs, self.epochs_wanted())
            recipe = dataclasses.replace(recipe, epochs=epochs)
        state = TrainState.new(recipe, len(self.loader), self.ranks, self.loader.samples)
        if found is None and self.first is not None:
            set_params(state.learner.model, self.first)
        self.ranks.gate(RESUMED)
        share_state(state, found.snapshot if found else None)
        if found:
            log.info("Going on from step %d (%s).", found.record.step, found.record.prefix)
        resume.mend(self.run_log, state)
        return state

    def _go_back(self, went_wrong: Diverged, committer: Committer) -> rollback.GoneBack:
        self.interrupt.check()
        self.board.rest()
        epoch, number = divmod(max(went_wrong.step - 1, 0), len(self.loader))
        samples = self.loader.names_of(epoch, number, _SAMPLES_NAMED)
        if self.plan.training.on_nan == "Fail":
            raise rollback.given_up(self.plan, None, went_wrong, samples)
        committer.leave(LEAVE_S)
        gone = rollback.go_back(self.run_log, self.store, self.folder, self.plan, went_wrong, samples)
        self.chunks.metric(gone.row())
        self.rows[:] = [row for row in self.rows if row["step"] <= gone.record.to_step]
        for step in [s for s in self.evaluations if s > gone.record.to_step]:
            del self.evaluations[step]
        return gone

    def _deps(self, committer: Committer) -> Deps:
        return Deps(
            self.board,
            self.chunks,
            committer,
            self.interrupt,
            self.held_out,
            build_decoder(self.recipe.characters, use_space_char=self.recipe.use_space_char),
            self.plan.training.eval_interval,
            self.plan.checkpoint.interval,
            self.epochs_wanted,
            self.plan.training.early_stopping,
        )
