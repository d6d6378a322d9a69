"""The check stage: before any step, whether this model can be trained on this data at all.

Called by the run, after staging and before an attempt is taken. `data.validation` decides what becomes of a
bad sample: Strict refuses it by its place in S3, Warn leaves it out and says so, Off doesn't look. Upstream
would silently train on another one instead; how often is counted (`upstream_losses`).
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rectrain_api.errors import DatasetInvalid, InvalidSpec
from rectrain_api.plan import DataPlan, RunPlan
from rectrain_api.report import Stage
from rectrain_data.checks import DECODED, Checked, Seen, check_set
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Finding, Place, sentence
from rectrain_data.upstream_losses import LossCounter
from rectrain_trainer import amp
from rectrain_trainer.board import Board
from rectrain_trainer.config import GUIDE_ENDS, Recipe, resolve
from rectrain_trainer.found import Found
from rectrain_trainer.loader import blank_batch
from rectrain_trainer.model import build_model
from rectrain_trainer.schedule import schedule_findings
from rectrain_trainer.sources import StagedSource, open_set
from rectrain_trainer.stage import Staged
from rectrain_trainer.uris import UriMap

log = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 1.0


def check_data(
    plan: RunPlan, staged: Staged, board: Board, show: Callable[[Found], None] | None = None
) -> Found:
    """What was found: the recipe, and the data without what can't be used.

    `show` is told before anything is refused.

    Raises:
        InvalidSpec: the configuration can't be trained here.
        DatasetInvalid: the first faults, each with its place; or nothing is left to train on.
    """
    board.enter(Stage.CHECKING)
    dictionary = staged.dictionary
    with staged.uris.translating():
        recipe = resolve(
            plan.model, plan.training, dictionary.characters, use_space_char=dictionary.use_space_char
        )
        found = _look(plan, recipe, staged, board)
        if show:
            show(found)
        strict = plan.data.validation == "Strict"
        for finding in found.findings:
            if not (strict and finding.is_error):
                log.warning("%s.", finding)
        _refuse(plan.data, found)
    board.say("")
    return found


def time_steps(recipe: Recipe) -> int:
    """How many characters and blanks the model can put side by side: tried, since upstream doesn't say.

    Of images of the narrowest of the sampler's sizes: each sample comes in every size one day. In training
    mode, since some backbones have another number of steps there than when they read.

    Raises InvalidSpec for a size that the network doesn't take.
    """
    import paddle

    model: Any = build_model(recipe)
    model.train()
    fewest = []
    with paddle.no_grad():
        for scale in recipe.sampler.scales:
            tensors = [paddle.to_tensor(part) for part in blank_batch(recipe, 2, scale)]
            try:
                found = model(tensors[0], data=tensors[1:])
            except (ValueError, RuntimeError, AssertionError, IndexError) as e:
                said = str(e).strip().partition("\n")[0]
                raise InvalidSpec(
                    f"sampler.scales: {recipe.preset} can't take images of {list(scale)} (width, height), or "
                    f"labels of {recipe.max_text_length} characters ({said})."
                ) from e
            fewest.append(int((found["ctc"] if isinstance(found, dict) else found).shape[1]))
    return min(fewest)


# -- looking


def _look(plan: RunPlan, recipe: Recipe, staged: Staged, board: Board) -> Found:
    """All that is to be found, in the user's words. Refuses nothing."""
    parts = [_Part(s, staged.dictionary, recipe) for s in (staged.train, staged.eval)]
    checks = [] if plan.data.validation == "Off" else _check(plan, recipe, staged, parts, board)
    train, held_out = parts
    findings = [finding for one in checks for finding in one.findings]
    if train.left:
        drawn = train.source.parts()
        findings += schedule_findings(plan, recipe, drawn.count if drawn else train.left)
    amp.tell(recipe.amp)
    found = Found(
        recipe=recipe,
        staged=dataclasses.replace(staged, train=train.source, eval=held_out.source),
        validation=plan.data.validation,
        train_samples=train.left,
        eval_samples=held_out.left,
        left_out=train.count + held_out.count - train.left - held_out.left,
        findings=[_translated(finding, staged.uris) for finding in findings],
        samples=sum(one.samples for one in checks),
        decoded=sum(one.decoded for one in checks),
        train_losses=train.counter.losses if checks else None,
        eval_losses=held_out.counter.losses if checks else None,
        multi_scale="sampler" in plan.model.config,
    )
    board.update(data=found.status())
    log.info("%s.", found.sentence())
    return found


class _Part:
    """The training or the evaluation samples, as the check goes through them."""

    def __init__(self, source: StagedSource, dictionary: Dictionary, recipe: Recipe) -> None:
        self.source = source
        self.indices = np.array(source.open().indices, dtype=np.int64)
        self.count = self.left = len(self.indices)
        ends = GUIDE_ENDS * recipe.guided
        self.counter = LossCounter(dictionary, recipe.max_text_length, ends=ends)

    def members(self, count: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Which samples of the whole set are in this part."""
        inside = np.zeros(count, dtype=np.bool_)
        inside[self.indices] = True
        return inside

    def leave_out(self, bad: list[int]) -> None:
        """Go on without these samples of the whole set."""
        self.source = self.source.without(bad)
        self.left -= int(np.isin(self.indices, np.array(bad, dtype=np.int64)).sum())


def _check(plan: RunPlan, recipe: Recipe, staged: Staged, parts: list[_Part], board: Board) -> list[Checked]:
    """Look at every set once. With Warn, what is bad is left out of the parts: of the evaluation samples only
    what has no image, since a label that the model can't write is an error of the model.
    """
    sets = [(whole, open_set(*whole)) for whole in staged.wholes()]
    total = sum(len(samples) for _, samples in sets)
    counter, steps = _Counter(total, board), time_steps(recipe)
    checks = []
    for whole, samples in sets:
        here = [(part, part.members(len(samples))) for part in parts if part.source.whole == whole]

        def see(seen: Seen, here: list[tuple[_Part, Any]] = here) -> None:
            for part, members in here:
                if members[seen.position]:
                    part.counter.add(seen.text, opens=seen.opens)

        checked = check_set(
            samples,
            staged.dictionary,
            max_text_length=recipe.max_text_length,
            ctc_steps=steps,
            decode_limit=max(1, DECODED * len(samples) // max(total, DECODED)),
            see=see,
            progress=counter.add,
        )
        if plan.data.validation == "Warn":
            for part, _ in here:
                is_train = part is parts[0]
                part.leave_out(checked.unreadable + (checked.bad_labels if is_train else []))
        checks.append(checked)
    return checks


def _translated(finding: Finding, uris: UriMap) -> Finding:
    places = [Place(uris.translate(p.file), p.line, p.detail) for p in finding.places]
    return Finding(finding.code, finding.count, places)


class _Counter:
    """Tells the board how far the check is."""

    def __init__(self, total: int, board: Board) -> None:
        self._total, self._board = total, board
        self._done = 0
        self._told = time.monotonic()

    def add(self, samples: int) -> None:
        """So many more were looked at."""
        self._done += samples
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._told = time.monotonic()
            self._board.say(f"checking data: {self._done} of {self._total} samples", at_once=False)


# -- refusing


def _refuse(data: DataPlan, found: Found) -> None:
    """Raises what can't be gone on with."""
    errors = [finding for finding in found.findings if finding.is_error]
    of_data = [finding for finding in errors if not finding.is_of_schedule]
    if data.validation == "Strict" and of_data:
        raise DatasetInvalid(
            f"{sentence(errors)} With data.validation: Warn, such samples are left out of training."
        )
    if data.validation == "Strict" and errors:
        raise InvalidSpec(sentence(errors, "The run can't be trained as it is planned"))
    if found.train_samples and found.eval_samples:
        return
    if found.left_out:
        what = "evaluate" if found.train_samples else "train"
        raise DatasetInvalid(f"No sample is left to {what} on. {sentence(of_data)}")
    raise DatasetInvalid(
        f"{data.train} holds too few samples to train on some and evaluate on others: add some, "
        "or name an evaluation set in data.eval."
    )
