"""The check stage: before any step, whether this model can be trained on this data at all.

Called by the run, after staging and before an attempt is taken. Strict: a single bad sample is refused, by
its place in S3, since upstream would silently train on another one instead.
"""

import time
from typing import Any, Final

from rectrain_api.errors import DatasetInvalid
from rectrain_api.plan import RunPlan
from rectrain_api.report import Stage
from rectrain_data.checks import check_set
from rectrain_data.findings import sentence
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.model import build_model
from rectrain_trainer.sources import open_set
from rectrain_trainer.stage import Staged

_TELL_EVERY_S: Final = 1.0


def check_data(plan: RunPlan, staged: Staged, board: Board) -> Recipe:
    """The recipe of the run, once nothing is wrong with it or with the data.

    Raises:
        InvalidSpec: the configuration can't be trained here.
        DatasetInvalid: the first faults, each with its place.
    """
    board.enter(Stage.CHECKING)
    dictionary = staged.dictionary
    with staged.uris.translating():
        recipe = resolve(
            plan.model, plan.training, dictionary.characters, use_space_char=dictionary.use_space_char
        )
        steps = time_steps(recipe)
        findings = []
        for whole in staged.wholes():
            samples = open_set(*whole)
            findings += check_set(
                samples,
                dictionary,
                max_text_length=recipe.max_text_length,
                ctc_steps=lambda _width, _height: steps,
                progress=_Counter(len(samples), board).add,
            )
        if findings:
            raise DatasetInvalid(sentence(findings))
        if not len(staged.train.open()) or not len(staged.eval.open()):
            raise DatasetInvalid(
                f"{plan.data.train} holds too few samples to train on some and evaluate on others: add some, "
                "or name an evaluation set in data.eval."
            )
    board.say("")
    return recipe


def time_steps(recipe: Recipe) -> int:
    """How many characters and blanks the model can put side by side: tried, since upstream doesn't say.

    Of images of the narrowest of the sampler's sizes: each sample comes in every size one day.
    """
    import paddle

    model: Any = build_model(recipe)
    channels = recipe.image_shape[0]
    model.eval()
    with paddle.no_grad():
        return min(
            int(model(paddle.zeros([1, channels, height, width])).shape[1])
            for width, height in recipe.sampler.scales
        )


class _Counter:
    """Tells the board how far the check is."""

    def __init__(self, total: int, board: Board) -> None:
        self._total, self._board = total, board
        self._done = 0
        self._told = time.monotonic()

    def add(self, samples: int) -> None:
        """So many more are good."""
        self._done += samples
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            self._board.say(f"checking data: {self._done} of {self._total} samples", at_once=False)
