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
from rectrain_api.presets import Scale
from rectrain_api.report import Stage
from rectrain_data.checks import DECODED, Checked, Seen, check_set
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Finding, Place, codes, sentence
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


Show = Callable[[Found], None]
"""Told what was found, in place of the log, before anything of it is refused."""


def recipe_for(plan: RunPlan, staged: Staged, board: Board, show: Show | None = None) -> Recipe:
    """The recipe for this data.

    Raises:
        InvalidSpec: the configuration can't be trained here.
        DatasetInvalid: the dictionary can't be used; or there is no sample, and so no dictionary to speak of.
    """
    board.enter(Stage.CHECKING)
    dictionary = staged.dictionary
    with staged.uris.translating():
        if not any(len(open_set(whole)) for whole in staged.wholes()):
            _tell(plan.data, _nothing(plan, staged), board, show)
        return resolve(
            plan.model, plan.training, dictionary.characters, use_space_char=dictionary.use_space_char
        )


def check_data(
    plan: RunPlan,
    recipe: Recipe,
    staged: Staged,
    board: Board,
    show: Show | None = None,
    ranks: int | None = None,
) -> Found:
    """What was found: the data without what can't be used. `ranks` is the plan's, unless said.

    Raises:
        InvalidSpec: the schedule doesn't fit the run.
        DatasetInvalid: the first faults, each with its place; or nothing is left to train on.
    """
    with staged.uris.translating():
        found = _look(plan, recipe, staged, board, ranks or plan.ranks)
        _tell(plan.data, found, board, show)
    board.say("")
    return found


def time_steps(recipe: Recipe) -> int:
    """How many characters and blanks the model can put side by side: tried, since upstream doesn't say.

    Of images of the narrowest of the sampler's sizes: each sample comes in every size one day. In training
    mode, since some backbones have another number of steps there than when they read; whether the network
    reads at all is tried too.

    Raises InvalidSpec for a size that the network doesn't take.
    """
    import paddle

    model: Any = build_model(recipe)
    with paddle.no_grad():
        model.train()
        in_training = {scale: _steps_of(model, recipe, scale) for scale in recipe.sampler.scales}
        model.eval()
        _, height, width = recipe.image_shape
        reading = _steps_of(model, recipe, (width, height))
    if (trained := in_training.get((width, height), reading)) != reading:
        log.warning(
            "The network makes %d steps of an image %d pixels wide in training, and %d when it reads: it "
            "learns other widths of letters than it will meet.",
            trained,
            width,
            reading,
        )
    return min(in_training.values())


def _steps_of(model: Any, recipe: Recipe, scale: Scale) -> int:
    """At one size, in the mode that the model is in. Raises InvalidSpec."""
    import paddle

    tensors = [paddle.to_tensor(part) for part in blank_batch(recipe, 2, scale)]
    try:
        found = model(tensors[0], data=tensors[1:])
        steps = int((found["ctc"] if isinstance(found, dict) else found).shape[1])
        if not steps:
            raise ValueError("nothing is left of them")
    except (ValueError, RuntimeError, AssertionError, IndexError) as e:
        said = str(e).strip().partition("\n")[0]
        mode = "be trained on" if model.training else "read"
        raise InvalidSpec(
            f"{recipe.preset} can't {mode} images of {list(scale)} (width, height) with labels of "
            f"{recipe.max_text_length} characters: choose another size or other sampler.scales ({said})."
        ) from e
    return steps


# -- looking


def _look(plan: RunPlan, recipe: Recipe, staged: Staged, board: Board, ranks: int) -> Found:
    """All that is to be found, in the user's words. Refuses nothing."""
    parts = [_Part(s, staged.dictionary, recipe) for s in (staged.train, staged.eval)]
    checks = [] if plan.data.validation == "Off" else _check(plan, recipe, staged, parts, board)
    train, held_out = parts
    findings = [*_of_lines(plan, staged), *(finding for one in checks for finding in one.findings)]
    if train.left:
        drawn = train.source.parts()
        findings += schedule_findings(plan, recipe, drawn.count if drawn else train.left, ranks)
    amp.tell(recipe.amp)
    return Found(
        staged=dataclasses.replace(staged, train=train.source, eval=held_out.source),
        validation=plan.data.validation,
        train_samples=train.left,
        eval_samples=held_out.left,
        left_out=staged.passed_over + train.count + held_out.count - train.left - held_out.left,
        findings=[_translated(finding, staged.uris) for finding in findings],
        samples=sum(one.samples for one in checks),
        decoded=sum(one.decoded for one in checks),
        train_losses=train.counter.losses if checks else None,
        eval_losses=held_out.counter.losses if checks else None,
        multi_scale="sampler" in plan.model.config,
    )


def _nothing(plan: RunPlan, staged: Staged) -> Found:
    """Of label files without a sample."""
    return Found(
        staged=staged,
        validation=plan.data.validation,
        train_samples=0,
        eval_samples=0,
        left_out=staged.passed_over,
        findings=[_translated(finding, staged.uris) for finding in _of_lines(plan, staged)],
        samples=0,
        decoded=0,
        train_losses=None,
        eval_losses=None,
        multi_scale=False,
    )


def _of_lines(plan: RunPlan, staged: Staged) -> list[Finding]:
    """What was found while lines were passed over; with Off they are counted, and no more."""
    return [] if plan.data.validation == "Off" else staged.findings


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
    opened = [(whole, open_set(whole)) for whole in staged.wholes()]
    sets = [(whole, samples) for whole, samples in opened if len(samples)]  # of none, its lines tell why
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


# -- telling, and refusing


def _tell(data: DataPlan, found: Found, board: Board, show: Show | None) -> None:
    """What was found, once: shown, or in the log. Raises what can't be gone on with.

    What isn't refused is shown later, with what else is found before training.
    """
    board.update(data=found.status())
    if show:
        try:
            _refuse(data, found, codes)
        except (DatasetInvalid, InvalidSpec):
            show(found)
            raise
        return
    log.info("%s.", found.sentence())
    for finding in found.findings:
        if not (data.validation == "Strict" and finding.is_error):
            log.warning("%s.", finding)
    _refuse(data, found, sentence)


def _refuse(data: DataPlan, found: Found, told: Callable[..., str]) -> None:
    """Raises what can't be gone on with; `told` says what an error says of findings."""
    errors = [finding for finding in found.findings if finding.is_error]
    of_data = [finding for finding in errors if not finding.is_of_schedule]
    if data.validation == "Strict" and of_data:
        raise DatasetInvalid(
            f"{told(errors)} With data.validation: Warn, such samples are left out of training."
        )
    if data.validation == "Strict" and errors:
        raise InvalidSpec(told(errors, "The run can't be trained as it is planned"))
    if found.train_samples and found.eval_samples:
        return
    if found.left_out or found.staged.findings:
        what = "evaluate" if found.train_samples else "train"
        why = told(of_data) if of_data else sentence(found.staged.findings)
        raise DatasetInvalid(f"No sample is left to {what} on. {why}")
    raise DatasetInvalid(
        f"{data.train} holds too few samples to train on some and evaluate on others: add some, "
        "or name an evaluation set in data.eval."
    )
