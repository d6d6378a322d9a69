"""The report's page: one HTML file that holds all it shows and asks nothing of any network. Pure.

Whatever comes from a run (labels, readings, names, plans) is hostile until it is escaped: Jinja does so with
everything, and the page's own policy (CSP) runs no script at all.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Final

import jinja2
import yaml

from rectrain_trainer.figures import MEANING
from rectrain_trainer.reporting.charts import Chart, Mark, Series, chart, smoothed
from rectrain_trainer.reporting.gather import Run
from rectrain_trainer.reporting.headline import facts_of, headline, percent
from rectrain_trainer.reporting.losses import losses
from rectrain_trainer.reporting.reading import characters, heat, misreadings, shown
from rectrain_trainer.reporting.timeline import attempt_row, duration_of, events, said, seconds_of, usage


def page(run: Run) -> str:
    """index.html."""
    facts = facts_of(run)
    attempts = [attempt_row(attempt) for attempt in run.attempts]
    return _template().render(
        run=run,
        head=headline(facts),
        cards=[*_cards(run)],
        charts=[c for c in _charts(run) if c],
        evaluations=_evaluations(run),
        samples=misreadings(run),
        heat=heat(run.quality.confusions) if run.quality else None,
        characters=characters(run),
        attempts=attempts,
        events=events(run),
        data=[*_data(run)],
        losses=[*losses(run)],
        usage=[*usage(run)],
        config=yaml.safe_dump(dict(run.plan), allow_unicode=True, sort_keys=False, width=100),
        environment=next((a.environment for a in reversed(run.attempts) if a.environment.versions), None),
        several_environments=len({tuple(a.environment.lines) for a in run.attempts}) > 1,
        percent=percent,
        shown=shown,
        said=said,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rectrain_trainer.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html")


# -- first figures


def _cards(run: Run) -> Iterator[tuple[str, str, str]]:
    """(what, value, more)"""
    metrics = run.final.metrics if run.final else {}
    evals = run.series("eval", "accuracy")
    accuracy = metrics.get("accuracy", run.best[1] if run.best else None)
    if isinstance(accuracy, float):
        yield "Accuracy", percent(accuracy), f"step {run.best[0]:,}, the best" if run.best else ""
    if evals and run.best and evals[-1][0] != run.best[0]:
        yield "Last accuracy", percent(evals[-1][1]), f"step {evals[-1][0]:,}"
    rate = metrics.get("characterErrorRate") or dict(run.series("eval", "characterErrorRate")).get(
        run.best[0] if run.best else -1
    )
    if isinstance(rate, float):
        yield "Character errors", percent(rate), "of all characters"
    steps = max((row["step"] for row in run.rows), default=0)
    epochs = run.final.stopped_early or run.final.epochs if run.final else None
    of = f"{epochs} epochs" if epochs else f"{run.listing.epochs} epochs wanted"
    yield "Steps", f"{steps:,}", of
    yield (
        "Time at work",
        duration_of(sum(seconds_of(a) for a in run.attempts)),
        _many(run.attempts, "attempt"),
    )
    if run.about.checks.train_samples:
        held_out = f"{run.about.checks.eval_samples:,} held out"
        yield "Images", f"{run.about.checks.train_samples:,}", held_out


def _many(items: Sequence[object], what: str) -> str:
    return f"{len(items):,} {what}{'' if len(items) == 1 else 's'}"


def _data(run: Run) -> Iterator[tuple[str, str]]:
    """Where it lies, as the plan names it."""
    named = run.plan.get("data")
    for key, title in (("train", "Trained on"), ("eval", "Evaluated on"), ("dictionary", "Dictionary")):
        if isinstance(named, dict) and named.get(key):
            yield title, str(named[key])


# -- curves


def _charts(run: Run) -> Iterator[Chart | None]:
    marks = [*_marks(run)]
    last = max([1, *(row["step"] for row in run.rows)])
    draw = functools.partial(chart, last_step=last, marks=marks)
    checkpoints = [c.step for c in run.checkpoints]
    loss = run.series("train", "loss")
    yield draw(
        "Training loss",
        [Series("each step", loss, "faint"), Series("smoothed", smoothed(loss), "main")],
        say=_short,
        may_be_log=True,
        checkpoints=checkpoints,
    )
    yield draw(
        "Accuracy on held-out images",
        [
            Series("accuracy", run.series("eval", "accuracy"), "main", dots=True),
            Series("1 - edit distance", run.series("eval", "normEditDistance"), "second", dots=True),
        ],
        say=lambda value: f"{value:.0%}" if value in (0, 1) else f"{100 * value:.3g}%",
        bounds=(0.0, 1.0),
        checkpoints=checkpoints,
    )
    yield draw(
        "Learning rate", [Series("learning rate", run.series("train", "learningRate"), "main")], say=_short
    )
    yield draw(
        "Throughput (images a second)",
        [Series("images a second", run.series("train", "samplesPerSecond"), "main")],
        say=_short,
    )
    yield draw(
        "Waiting for data (of the time)",
        [Series("waiting", run.series("train", "dataWaitPercent"), "main")],
        say=lambda value: f"{value:.0f}%",
        bounds=(0.0, 100.0),
    )


def _marks(run: Run) -> Iterator[Mark]:
    for attempt in run.attempts[1:]:
        if attempt.first_step is not None:
            yield Mark(attempt.first_step - 1, "attempt", f"attempt {attempt.number} goes on")
    for rollback in run.rollbacks:
        yield Mark(rollback.to_step, "rollback", f"rollback from step {rollback.step:,}")
    if run.best:
        yield Mark(run.best[0], "best", f"best: {percent(run.best[1])}")


def _short(value: float) -> str:
    if 0 < abs(value) < 0.001:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


# -- evaluations


_EVAL_COLUMNS: Final = {
    "accuracy": "Accuracy",
    "characterErrorRate": "Character errors",
    "normEditDistance": "1 - edit distance",
    "graphemeErrorRate": "Grapheme errors",
    "upstreamAcc": "PaddleOCR's acc",
}
_MEANING: Final = MEANING | {
    "graphemeErrorRate": "Character errors, with a letter and its marks as one character.",
}


def _evaluations(run: Run) -> dict[str, Any] | None:
    """The best and the last one, side by side."""
    rows = [row for row in run.rows if row["kind"] == "eval"]
    if not rows:
        return None
    best = next((row for row in rows if run.best and row["step"] == run.best[0]), None)
    if best is rows[-1]:
        chosen = [("Best and last", best)]
    else:
        chosen = [*([("Best", best)] if best else []), ("Last", rows[-1])]
    return {
        "columns": [(name, row.get("step"), row.get("epoch")) for name, row in chosen],
        "rows": [
            (title, _MEANING[key], [_percent(row.get(key)) for _, row in chosen])
            for key, title in _EVAL_COLUMNS.items()
        ],
        "count": len(rows),
    }


def _percent(value: object) -> str:
    return percent(value) if isinstance(value, float) and 0 <= value <= 10 else "—"
