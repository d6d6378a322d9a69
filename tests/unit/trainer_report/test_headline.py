"""What the report says of a run in words, case by case."""

import dataclasses

import pytest

from rectrain_trainer.reporting.gather import LengthRow, gather
from rectrain_trainer.reporting.headline import (
    Facts,
    facts_of,
    headline,
    interval,
    long_is_hard,
    percent,
)
from tests.support.told_run import told_run

FALLING = tuple((step, 10.0 / step) for step in range(1, 101))


def lengths(*rows: tuple[int, int, int]) -> tuple[LengthRow, ...]:
    """(length, samples, read exactly)"""
    return tuple(
        LengthRow.model_validate({"from": n, "to": n, "samples": s, "exact": e, "errors": s - e})
        for n, s, e in rows
    )


GOOD = Facts(
    state="Finished",
    epochs=10,
    step=100,
    accuracy=0.972,
    best_step=90,
    accuracies=((30, 0.9), (60, 0.969), (90, 0.972), (100, 0.971)),
    losses=FALLING,
    error_rate=0.008,
    eval_samples=2000,
    by_length=lengths((2, 50, 49), (5, 50, 48)),
    export="s3://runs/x/export",
)
STOPPED = dataclasses.replace(GOOD, state="Interrupted", export="", error_rate=None, checkpoint_step=80)


def but(**changes: object) -> Facts:
    return dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "tone", "title", "text", "advice"),
    [
        pytest.param(GOOD, "good", "It reads 97.2% of", "0.8% of all characters", [], id="good"),
        pytest.param(GOOD, "good", "It reads", "exported to s3://runs/x/export", [], id="exported"),
        pytest.param(
            but(accuracy=0.8, best_step=100, accuracies=((30, 0.5), (60, 0.7), (100, 0.8))),
            "fair",
            "still getting better when it ended",
            "",
            ["Raise training.epochs (now 10)"],
            id="undertrained",
        ),
        pytest.param(
            but(best_step=60, accuracies=((30, 0.5), (60, 0.972), (80, 0.97), (100, 0.972))),
            "good",
            "It reads 97.2%",
            "",
            [],
            id="on-a-plateau",
        ),
        pytest.param(
            but(accuracy=0.9, best_step=30, accuracies=((30, 0.9), (60, 0.88), (100, 0.84))),
            "fair",
            "got worse when trained beyond step 30",
            "",
            ["by heart: more data"],
            id="overfit",
        ),
        pytest.param(
            but(
                accuracy=0.9,
                best_step=30,
                accuracies=((30, 0.9), (60, 0.88), (100, 0.84)),
                losses=tuple((step, 0.1 * step) for step in range(1, 101)),
            ),
            "good",
            "It reads 90.0%",
            "",
            [],
            id="worse-with-a-rising-loss-isnt-overfit",
        ),
        pytest.param(
            but(rollbacks=2),
            "good",
            "It reads 97.2%",
            "The loss wasn't a number twice; training went back",
            ["Lower training.learningRate"],
            id="rolled-back",
        ),
        pytest.param(
            but(state="Diverged", accuracy=None, accuracies=(), words="The loss of step 7 is nan."),
            "bad",
            "Training broke down: the loss",
            "The loss of step 7 is nan.",
            ["Start a new run (with another checkpoint.uri) with half of this training.learningRate or less"],
            id="diverged",
        ),
        pytest.param(
            but(state="Diverged", accuracy=None, accuracies=(), by_config=True),
            "bad",
            "Training broke down",
            "",
            ["with another Global.save_model_dir) with half of this Optimizer.lr.learning_rate"],
            id="diverged-by-a-config",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, by_config=True),
            "open",
            "Interrupted",
            "",
            ["The same command goes on from step 80"],
            id="interrupted-by-a-config",
        ),
        pytest.param(
            but(stopped_early=6),
            "good",
            "It reads 97.2%",
            "Early stopping ended it in epoch 6 of 10",
            [],
            id="stopped-early",
        ),
        pytest.param(
            but(interruptions=3, repeated_steps=12),
            "good",
            "It reads 97.2%",
            "It was interrupted 3 times; 12 steps had to be trained again.",
            [],
            id="interrupted-thrice",
        ),
        pytest.param(
            but(interruptions=1, failures=1),
            "good",
            "It reads",
            "once and it failed once and was started again; no step had to be trained twice.",
            [],
            id="interrupted-and-failed",
        ),
        pytest.param(
            but(unknown_labels=40, left_out=40),
            "good",
            "It reads",
            "",
            ["40 labels have characters that the dictionary lacks", "40 samples were left out"],
            id="labels-missing-from-the-dictionary",
        ),
        pytest.param(
            but(accuracy=0.6, best_step=90, by_length=lengths((3, 50, 48), (12, 50, 6))),
            "fair",
            "It reads 60.0%",
            "",
            ["Labels of 12 and more characters are read much worse"],
            id="long-labels",
        ),
        pytest.param(
            but(accuracy=0.7, accuracies=((30, 0.7), (60, 0.7), (90, 0.7), (100, 0.69))),
            "fair",
            "It reads 70.0%",
            "",
            ["Look at the worst samples and confusions"],
            id="mediocre",
        ),
        pytest.param(
            but(accuracy=0.0, accuracies=((50, 0.0), (100, 0.0))),
            "bad",
            "It hasn't learnt to read: 0.0%",
            "",
            ["See that images and labels belong together"],
            id="learnt-nothing",
        ),
        pytest.param(
            but(too_long=1), "good", "", "", ["1 label is longer than the model reads"], id="too-long"
        ),
        pytest.param(but(waiting=55.0), "good", "", "", ["waited for data 55% of the time"], id="slow-data"),
        pytest.param(
            but(eval_samples=50),
            "good",
            "",
            "",
            ["The evaluation set has 50 images: the true accuracy may be anything from"],
            id="few-held-out",
        ),
        pytest.param(
            STOPPED,
            "open",
            "Interrupted at step 100, and not finished yet.",
            "Its best evaluation so far reads 97.2%",
            ["The same manifest goes on from step 80"],
            id="interrupted",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, state="RunningOrKilled", accuracy=None, checkpoint_step=None),
            "open",
            "No end is on record",
            "",
            ["The same manifest goes on from the start"],
            id="running-or-killed",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, state="DatasetInvalid", words="RD011 at a line"),
            "bad",
            "It ended at step 100 with DatasetInvalid.",
            "RD011 at a line.",
            ["Mend what is said above"],
            id="failed",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, state="OutOfMemory"),
            "bad",
            "OutOfMemory",
            "",
            ["more memory"],
            id="oom",
        ),
        pytest.param(
            dataclasses.replace(STOPPED, state="Stalled"),
            "bad",
            "Stalled",
            "",
            ["stacks in the log"],
            id="stalled",
        ),
    ],
)
def test_headline(facts: Facts, tone: str, title: str, text: str, advice: list[str]) -> None:
    said = headline(facts)
    assert said.tone == tone
    assert title in said.title
    assert text in said.text
    for wanted, given in zip(advice or ["Nothing stands out"], said.advice, strict=True):
        assert wanted in given


def test_few_long_labels_say_nothing() -> None:
    assert long_is_hard(but(by_length=lengths((3, 96, 90), (12, 4, 0)))) is None
    assert long_is_hard(but(by_length=lengths((3, 50, 1), (12, 50, 0)))) is None, "all are hard"


def test_what_is_not_all_is_never_said_to_be() -> None:
    assert [percent(v) for v in (1.0, 0.9999, 0.972, 0.0)] == ["100%", "99.9%", "97.2%", "0.0%"]
    low, high = interval(0.9, 100)
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)
    assert interval(1.0, 10)[1] == 1.0


def test_facts_of_a_run() -> None:
    facts = facts_of(gather(told_run()))  # type: ignore[arg-type]
    assert (facts.state, facts.interruptions, facts.failures, facts.rollbacks) == ("Finished", 2, 0, 1)
    assert facts.repeated_steps == 10 + 4
    assert (facts.accuracy, facts.best_step, facts.unknown_labels) == (0.8968, 200, 12)
    assert facts.waiting == pytest.approx(4.5)
    open_end = facts_of(gather(told_run(finished=False)))  # type: ignore[arg-type]
    assert (open_end.state, open_end.export) == ("RunningOrKilled", "")


def test_an_attempt_that_finished_with_fewer_epochs_did_not_fail() -> None:
    run = gather(told_run())  # type: ignore[arg-type]
    before, killed, last = run.attempts
    went_on = [before, dataclasses.replace(killed, end="Completed"), last]
    facts = facts_of(dataclasses.replace(run, attempts=went_on))
    assert (facts.interruptions, facts.failures) == (1, 0)
