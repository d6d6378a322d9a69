"""How a run went, in words, and what to try next. Pure.

`facts_of` takes from a run what is judged; `headline` judges. Each advice is a function of its own that
speaks or keeps still, so that a test can name each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rectrain_data.findings import Code
from rectrain_data.transfer import is_local
from rectrain_trainer.checkpoints.listing import FINISHED, KILLED, RUNNING_OR_KILLED
from rectrain_trainer.reporting.gather import LengthRow, Run
from rectrain_trainer.upstream_words import in_upstream_words

Tone = Literal["good", "fair", "bad", "open"]
Curve = Sequence[tuple[int, float]]

GOOD: Final = 0.9
"""Accuracy from which a run is said to have gone well."""
POOR: Final = 0.5
DEAD: Final = 0.05
"""Below it hardly anything is read."""
RISING: Final = 0.01
"""Of accuracy, gained over the last third: training wasn't over."""
OVERFIT: Final = 0.02
"""Of accuracy, lost since the best evaluation, while the loss fell."""
WAITING: Final = 30.0
"""Per cent of the time that the device waited for data."""
FEW: Final = 200
"""Images: fewer say little of an accuracy."""
NOTHING: Final = "Nothing stands out: the worst samples below are what is left to learn."
_SHORT: Final = {"Interrupted", "PeerLost", "Fenced"}
_NO_FAILURES: Final = {"RolledBack", "Completed"}
"""A run may go on after it was finished: with more epochs."""


@dataclass(frozen=True)
class Headline:
    """The report's first lines."""

    tone: Tone
    title: str
    text: str
    advice: list[str]


@dataclass(frozen=True)
class Facts:
    """What is judged."""

    state: str
    """Finished, RunningOrKilled, or why the last attempt ended."""
    epochs: int = 0
    stopped_early: int | None = None
    step: int = 0
    """The last one that was trained."""
    accuracy: float | None = None
    """Of the exported weights; while there are none, of the best."""
    best_step: int | None = None
    accuracies: Curve = ()
    losses: Curve = ()
    error_rate: float | None = None
    upstream_gap: str = ""
    space_only: int = 0
    eval_samples: int = 0
    by_length: Sequence[LengthRow] = ()
    unknown_labels: int = 0
    """Labels with characters that the dictionary lacks (RD012, RD020)."""
    too_long: int = 0
    """Labels that the model can't read whole (RD013, RD014)."""
    left_out: int = 0
    rollbacks: int = 0
    interruptions: int = 0
    """Attempts before the last that were told to stop, or killed."""
    failures: int = 0
    """Attempts before the last that failed."""
    repeated_steps: int = 0
    """Trained more than once, since an attempt ended between two checkpoints."""
    waiting: float | None = None
    """Mean time that the device waited for data [%]."""
    checkpoint_step: int | None = None
    """Where a resumed run goes on."""
    words: str = ""
    export: str = ""
    by_config: bool = False
    """A run on a laptop, by a config of PaddleOCR: it has no manifest."""


def facts_of(run: Run) -> Facts:
    """What of a run is judged."""
    counts = {finding.code: finding.count for finding in run.about.checks.findings}
    earlier = [attempt.end for attempt in run.attempts[:-1]]
    stopped = sum(end in _SHORT or end == KILLED for end in earlier)
    figures = run.final.metrics if run.final else {}
    waits = run.series("train", "dataWaitPercent")
    quality = run.quality if run.finished else None
    known = run.best[1] if run.best else None
    accuracy, error_rate = figures.get("accuracy", known), figures.get("characterErrorRate")
    return Facts(
        state=run.listing.state,
        epochs=run.final.epochs if run.final else run.listing.epochs,
        stopped_early=run.final.stopped_early if run.final else None,
        step=max((row["step"] for row in run.rows), default=0),
        accuracy=accuracy if isinstance(accuracy, float) else None,
        best_step=run.best[0] if run.best else None,
        accuracies=run.series("eval", "accuracy"),
        losses=run.series("train", "loss"),
        error_rate=error_rate if isinstance(error_rate, float) else None,
        upstream_gap=(quality.gap or "") if quality else "",
        space_only=quality.space_only_errors if quality else 0,
        eval_samples=run.about.checks.eval_samples,
        by_length=quality.by_length if quality else (),
        unknown_labels=counts.get(Code.UNKNOWN_CHARACTER, 0) + counts.get(Code.UNKNOWN_LABEL, 0),
        too_long=counts.get(Code.LABEL_TOO_LONG, 0) + counts.get(Code.CTC_INFEASIBLE, 0),
        left_out=run.about.checks.left_out,
        rollbacks=len(run.rollbacks),
        interruptions=stopped,
        failures=sum(end not in _NO_FAILURES for end in earlier) - stopped,
        repeated_steps=repeated_steps(run),
        waiting=sum(w for _, w in waits) / len(waits) if waits else None,
        checkpoint_step=run.listing.checkpoints[0].step if run.listing.checkpoints else None,
        words=run.words,
        export=f"{run.uri}/export" if run.finished else "",
        by_config=is_local(run.uri),
    )


def repeated_steps(run: Run) -> int:
    """Steps that an attempt trained again, since those of the one before weren't in a checkpoint yet."""
    reached, again = 0, 0
    for attempt in run.attempts:
        if attempt.first_step is not None and attempt.last_step is not None:
            again += max(0, reached - attempt.first_step + 1)
            reached = attempt.last_step
    return again


def headline(facts: Facts) -> Headline:
    """How it went, and what to try next, most useful first."""
    tone, title = _verdict(facts)
    advice = [in_upstream_words(one) if facts.by_config else one for one in _advice(facts)]
    return Headline(tone, title, " ".join(_story(facts)), advice or [NOTHING])


# -- how it went


def _verdict(facts: Facts) -> tuple[Tone, str]:
    if facts.state == FINISHED:
        return _finished(facts)
    if facts.state == RUNNING_OR_KILLED:
        return "open", f"No end is on record: it is still training, or was killed after step {facts.step:,}."
    if facts.state in _SHORT or facts.state == "RolledBack":
        return "open", f"Interrupted at step {facts.step:,}, and not finished yet."
    if facts.state == "Diverged":
        return "bad", "Training broke down: the loss wasn't a number any more."
    return "bad", f"It ended at step {facts.step:,} with {facts.state}."


def _finished(facts: Facts) -> tuple[Tone, str]:
    if facts.accuracy is None:
        return "fair", "Finished, with no accuracy on record."
    of = f"{percent(facts.accuracy)} of the held-out images exactly"
    if facts.accuracy < DEAD:
        return "bad", f"It hasn't learnt to read: {of}."
    tone: Tone = "good" if facts.accuracy >= GOOD else "fair" if facts.accuracy >= POOR else "bad"
    if overfits(facts):
        return "fair", f"It reads {of}, and got worse when trained beyond step {facts.best_step or 0:,}."
    if undertrained(facts):
        return "fair", f"It reads {of}, and was still getting better when it ended."
    return tone, f"It reads {of}."


def _story(facts: Facts) -> Iterator[str]:
    if facts.state == FINISHED and facts.error_rate is not None:
        yield f"{percent(facts.error_rate)} of all characters are wrong, missing or too many."
    if facts.stopped_early is not None:
        yield (
            f"Early stopping ended it in epoch {facts.stopped_early} of {facts.epochs}, since the accuracy "
            "didn't improve any more."
        )
    if facts.state != FINISHED and facts.words:
        yield facts.words if facts.words.endswith((".", "!", "?", "…")) else f"{facts.words}."
    if facts.state != FINISHED and facts.accuracy is not None:
        yield f"Its best evaluation so far reads {percent(facts.accuracy)} of the images exactly."
    if facts.interruptions or facts.failures:
        yield _interruptions(facts)
    if facts.rollbacks and facts.state != "Diverged":
        yield (
            f"The loss wasn't a number {times(facts.rollbacks)}; training went back to a checkpoint and on "
            "with a lower learning rate."
        )
    if facts.state == FINISHED and facts.export:
        yield f"The model is exported to {facts.export}."


def _interruptions(facts: Facts) -> str:
    parts = [
        f"it was interrupted {times(facts.interruptions)}" if facts.interruptions else "",
        f"it failed {times(facts.failures)} and was started again" if facts.failures else "",
    ]
    lost = (
        f"{count(facts.repeated_steps, 'step')} had to be trained again"
        if facts.repeated_steps
        else "no step had to be trained twice"
    )
    said = f"{' and '.join(part for part in parts if part)}; {lost}."
    return said[0].upper() + said[1:]


# -- what to try next


def _advice(facts: Facts) -> Iterator[str]:
    finished = facts.state == FINISHED
    rules = (_of_end, _of_labels, _of_learning, _of_lengths) if finished else (_of_end, _of_labels)
    for rule in (*rules, _of_speed):
        yield from rule(facts)
    if finished:
        yield from _of_measuring(facts)


def _order(facts: Facts) -> str:
    return "command" if facts.by_config else "manifest"


def _of_end(facts: Facts) -> Iterator[str]:
    if facts.state == "Diverged":
        yield (
            "Start a new run (with another checkpoint.uri) with half of this training.learningRate or less, "
            "and look at the labels and images that are named above."
        )
    elif facts.state in _SHORT | {RUNNING_OR_KILLED, "RolledBack"}:
        where = f"step {facts.checkpoint_step:,}" if facts.checkpoint_step else "the start"
        yield f"The same {_order(facts)} goes on from {where}: nothing else is to be done."
    elif facts.state == "OutOfMemory":
        yield "Give it more memory, or lower training.batchSize or training.workers."
    elif facts.state == "Stalled":
        yield "Look at the stacks in the log of the last attempt: they say what each thread waited for."
    elif facts.state != FINISHED:
        yield (f"Mend what is said above; the same {_order(facts)} then goes on from the last checkpoint.")
    if facts.rollbacks and facts.state == FINISHED:
        yield "Lower training.learningRate for the next run: this one only ended well with a lower one."


def _of_labels(facts: Facts) -> Iterator[str]:
    if facts.unknown_labels:
        labels = count(facts.unknown_labels, "label", "has", "have")
        labels_own = "leave data.dictionary out" if facts.by_config else "use data.dictionary: FromLabels"
        yield (
            f"{labels} characters that the dictionary lacks, so that the model can never write them: add "
            f"them to the dictionary, or {labels_own}."
        )
    if facts.too_long:
        yield (
            f"{count(facts.too_long, 'label', 'is', 'are')} longer than the model reads: choose a "
            "model that reads longer texts or has a wider input, or cut these lines."
        )
    if facts.left_out:
        left_out = count(facts.left_out, "sample", "was", "were")
        yield f"{left_out} left out of training: the findings below say where."


def _of_learning(facts: Facts) -> Iterator[str]:
    if facts.accuracy is not None and facts.accuracy < DEAD:
        tried = " (training.smokeTest: true has 32 of them learnt by heart first)"
        yield (
            f"See that images and labels belong together{'' if facts.by_config else tried}, then try more "
            "epochs and another training.learningRate."
        )
    elif overfits(facts):
        yield (
            "It began to learn its training data by heart: more data, augmentation (model.overrides.augment) "
            "or fewer epochs help most. The exported weights are those of the best evaluation."
        )
    elif undertrained(facts):
        yield f"Raise training.epochs (now {facts.epochs}): the accuracy still rose in the last third."
    elif facts.accuracy is not None and facts.accuracy < GOOD and not long_is_hard(facts):
        yield "Look at the worst samples and confusions below: they say which images to add to training."


def _of_lengths(facts: Facts) -> Iterator[str]:
    if length := long_is_hard(facts):
        yield (
            f"Labels of {length} and more characters are read much worse than shorter ones: add long ones to "
            "the training set, or choose a model with a wider input."
        )


def _of_speed(facts: Facts) -> Iterator[str]:
    if facts.waiting is not None and facts.waiting >= WAITING:
        yield (
            f"The device waited for data {facts.waiting:.0f}% of the time: give it more CPU cores (and "
            "training.workers), or pack the data with images at the height of training."
        )


def _of_measuring(facts: Facts) -> Iterator[str]:
    if 0 < facts.eval_samples < FEW and facts.accuracy is not None:
        low, high = interval(facts.accuracy, facts.eval_samples)
        yield (
            f"The evaluation set has {count(facts.eval_samples, 'image')}: the true accuracy may be anything "
            f"from {percent(low)} to {percent(high)}. A larger one says more."
        )
    if facts.space_only:
        yield (
            f"{count(facts.space_only, 'reading', 'differs', 'differ')} from the label in spaces alone: see "
            "that labels have spaces where the images do."
        )
    if facts.upstream_gap:
        yield facts.upstream_gap


# -- signs


def undertrained(facts: Facts) -> bool:
    """Whether the last evaluation is the best, and much better than those before the last third."""
    values = [value for _, value in facts.accuracies]
    if facts.stopped_early is not None or len(values) < 3 or values[-1] > 1 - RISING:
        return False
    before = max(values[: -max(1, len(values) // 3)])
    return facts.best_step == facts.accuracies[-1][0] and values[-1] - before > RISING


def overfits(facts: Facts) -> bool:
    """Whether the accuracy fell after its best while the training loss went on falling."""
    if len(facts.accuracies) < 3 or facts.best_step is None:
        return False
    best = max(value for _, value in facts.accuracies)
    last = facts.accuracies[-1][1]
    then = [loss for step, loss in facts.losses if step <= facts.best_step][-20:]
    later = [loss for step, loss in facts.losses if step > facts.best_step][-20:]
    falls = bool(then and later) and sum(later) / len(later) < sum(then) / len(then)
    return best - last > OVERFIT and falls


def long_is_hard(facts: Facts) -> int | None:
    """From which length on labels are read at most half as often as shorter ones; None when they aren't."""
    rows = [row for row in facts.by_length if row.samples]
    total = sum(row.samples for row in rows)
    for at in range(1, len(rows)):
        short, long = rows[:at], rows[at:]
        enough = min(sum(r.samples for r in short), sum(r.samples for r in long)) >= max(5, total / 10)
        if enough and 2 * _exact(long) <= _exact(short) and _exact(short) >= DEAD:
            return long[0].first
    return None


def _exact(rows: Sequence[LengthRow]) -> float:
    return sum(row.exact for row in rows) / sum(row.samples for row in rows)


def interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's, of 95%."""
    z = 1.96
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    spread = (
        z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    )
    return max(0.0, middle - spread), min(1.0, middle + spread)


# -- words


def percent(share: float) -> str:
    """Such as 97.2%; what isn't all is never said to be."""
    text = f"{share:.1%}"
    return "99.9%" if text == "100.0%" and share < 1 else text.replace("100.0%", "100%")


def count(number: int, what: str, one: str = "", several: str = "") -> str:
    """Such as 1 label or 1,200 labels; with a verb that goes with it."""
    said = f"{number:,} {what}{'' if number == 1 else 's'}"
    verb = one if number == 1 else several
    return f"{said} {verb}" if verb else said


def times(number: int) -> str:
    """Such as once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
