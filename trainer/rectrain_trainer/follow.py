"""A rank beside rank 0: trains along, step by step, and keeps nothing.

Called by the run in every process but that of rank 0. It holds no state of its own: weights, optimizer and
position come from rank 0 at the start of each round, gradients are averaged at every step.
"""

import time
from typing import TYPE_CHECKING, Any, Final

from rectrain_api.plan import RunPlan
from rectrain_api.report import Stage
from rectrain_api.status import Reason
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe
from rectrain_trainer.outcome import Outcome
from rectrain_trainer.ranks import Ranks
from rectrain_trainer.stage import Staged

if TYPE_CHECKING:
    from rectrain_trainer.evaluate import EvalSet
    from rectrain_trainer.loop import TrainState

RESUMED: Final = "resumed"
"""The gate behind which rank 0 shares the state that all go on from."""
_SHOW_EVERY_S: Final = 1.0


def follow(
    plan: RunPlan, staged: Staged, recipe: Recipe, ranks: Ranks, board: Board, workers: int
) -> Outcome:
    """Train to the last step, with `ranks` open. Raises PeerLost, and what training raises."""
    from rectrain_trainer.evaluate import EvalSet
    from rectrain_trainer.loader import Loader
    from rectrain_trainer.loop import TrainState, train
    from rectrain_trainer.model import build_decoder
    from rectrain_trainer.snapshot import extend, share_state
    from rectrain_trainer.train import evaluation_due, progress_of, stops_early

    with Loader(recipe, staged.train, workers=workers, share=ranks.share) as loader:
        held_out = EvalSet(recipe, staged.eval)
        held_out.on_batch = ranks.sign
        decoder = build_decoder(recipe.characters, use_space_char=recipe.use_space_char)
        interval = plan.training.eval_interval
        state = TrainState.new(recipe, len(loader), ranks, loader.samples)
        ranks.gate(RESUMED)
        share_state(state, None)
        board.enter(Stage.TRAINING)
        shown_at = 0.0
        stopping = plan.training.early_stopping
        ended = False
        if evaluation_due(interval, state.position, state.total_steps):
            if not state.evaluated:
                _evaluate(state, decoder, held_out)
            ended = stops_early(stopping, state)
        for step in () if ended else train(state, loader):
            if time.monotonic() - shown_at >= _SHOW_EVERY_S:
                shown_at = time.monotonic()
                shown = progress_of(
                    step.epoch, state.recipe.epochs, step.step, state.total_steps, board.stage, None
                )
                board.update(reached_training=True, progress=shown)
            if step.epoch_done and (epochs := ranks.agreed(0)) > state.recipe.epochs:
                extend(state, epochs)
            if evaluation_due(interval, state.position, state.total_steps):
                _evaluate(state, decoder, held_out)
                if stops_early(stopping, state):
                    break
    rank, world = ranks.share.rank, ranks.share.world
    return Outcome(Reason.COMPLETED, f"Rank {rank} of {world} has trained its part.")


def _evaluate(state: "TrainState", decoder: Any, held_out: "EvalSet") -> None:
    """This rank's share; then wait for the others, if training goes on."""
    from rectrain_trainer.evaluate import share_statistics, take_part
    from rectrain_trainer.train import gate_of

    with state.averaged():
        share_statistics(state.learner.model, state.ranks)
        take_part(state.learner.model, decoder, held_out, state.ranks)
    if state.position.step < state.total_steps:
        state.ranks.gate(gate_of(state.position))
