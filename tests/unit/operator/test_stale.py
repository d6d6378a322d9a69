"""CheckpointStale: set by what the current pod says, kept while nobody speaks, gone with a commit."""

from dataclasses import replace
from typing import Any

import pytest

from rectrain_api.report import ProgressReport, Stage, parse_termination_message
from rectrain_api.status import CheckpointStatus, Condition, Phase, RecTrainingJobStatus, StaleCheckpoint
from rectrain_operator.decide import decide
from rectrain_operator.seen import Seen
from tests.unit.operator import make
from tests.unit.operator.make import ended, gang, job, report, running, seen, taken, words

SINCE = "2026-01-02T11:30:00Z"
NOTHING = f"Nothing has been committed since {SINCE}"
AWAY = "S3 at http://s3:9000 doesn't answer."
SUSPEND = make.run(policy={"suspend": True})


def stale(step: int | None = 100, reason: str = "StoreUnavailable") -> CheckpointStatus:
    """The newest snapshot waits."""
    saved = make.checkpoint(step) if step else CheckpointStatus()
    return saved.model_copy(update={"stale": StaleCheckpoint(since=SINCE, reason=reason)})


def away(step: int | None = 100, *, sequence: int = 5, message: str = AWAY) -> ProgressReport:
    """A report of a trainer that can't commit."""
    return report(sequence=sequence, message=message, checkpoint=stale(step))


def after(what: Seen) -> RecTrainingJobStatus:
    return decide(what, make.NOW).status


def condition(status: RecTrainingJobStatus) -> Condition | None:
    return {c.type: c for c in status.conditions}.get("CheckpointStale")


def told(status: RecTrainingJobStatus) -> tuple[str, str, str] | None:
    found = condition(status)
    return None if found is None else (found.status, found.reason, found.message)


def is_stale(status: RecTrainingJobStatus) -> bool:
    """By the condition and by status.checkpoint, which agree."""
    found = condition(status)
    holds = found is not None and found.status == "True"
    assert holds == bool(status.checkpoint and status.checkpoint.stale)
    return holds


STALE = after(seen(running(), report=taken(running(), away())))
NEVER_COMMITTED = after(seen(running(), report=taken(running(), away(None))))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(report(Stage.STAGING), None, id="nothing-to-commit-yet"),
        pytest.param(report(), None, id="no-checkpoint-yet"),
        pytest.param(
            report(checkpoint=make.checkpoint()),
            ("False", "Committed", "Nothing waits; the newest checkpoint is of step 100."),
            id="committed",
        ),
        pytest.param(away(), ("True", "StoreUnavailable", f"{NOTHING}: {AWAY}"), id="s3-away"),
        pytest.param(
            report(message="Disk full.", checkpoint=stale(reason="DiskTooSmall")),
            ("True", "DiskTooSmall", f"{NOTHING}: Disk full."),
            id="disk-full",
        ),
        pytest.param(away(None), ("True", "StoreUnavailable", f"{NOTHING}: {AWAY}"), id="never-committed"),
        pytest.param(away(message=""), ("True", "StoreUnavailable", f"{NOTHING}."), id="without-a-sentence"),
    ],
)
def test_what_a_report_says(said: ProgressReport, expected: tuple[str, str, str] | None) -> None:
    assert told(after(seen(running(), report=taken(running(), said)))) == expected


@pytest.mark.parametrize(
    ("message", "shown"),
    [(AWAY, f"{NOTHING}: {AWAY}"), ("", f"Training. {NOTHING}.")],
    ids=["in-its-own-words", "without-words"],
)
def test_the_message_of_a_running_run_has_it_once(message: str, shown: str) -> None:
    status = after(seen(running(), report=taken(running(), away(message=message))))
    assert status.phase is Phase.RUNNING
    assert status.message == shown


def test_a_warning_each_time_it_turns() -> None:
    def warnings(status: RecTrainingJobStatus, said: ProgressReport) -> list[tuple[str, str, str]]:
        events = decide(seen(running(), status=status, report=taken(running(), said)), make.NOW).events
        return [(e.kind, e.message, e.key) for e in events if e.reason == "CheckpointStale"]

    training = after(seen(running(), report=taken(running())))
    assert warnings(training, away()) == [("Warning", f"{NOTHING}: {AWAY}", f"stale-{SINCE}")]
    assert warnings(STALE, away(sequence=6, message="Still away.")) == []
    assert warnings(STALE, report(sequence=6, checkpoint=make.checkpoint(120))) == []


def test_a_commit_ends_it() -> None:
    said = report(sequence=6, checkpoint=make.checkpoint(120))
    status = after(seen(running(), status=STALE, report=taken(running(), said)))
    assert told(status) == ("False", "Committed", "Nothing waits; the newest checkpoint is of step 120.")
    assert status.message == "Training."
    assert status.checkpoint == make.checkpoint(120)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(seen(running(), status=STALE), id="operator-restarted"),
        pytest.param(seen(ended(137, reason="OOMKilled"), status=STALE), id="pod-killed"),
        pytest.param(seen(running(gone=True, deletion=make.JUST_NOW), status=STALE), id="pod-gone"),
        pytest.param(seen(running("run-0-b"), status=STALE), id="next-pod-silent"),
        pytest.param(
            seen(running("run-0-b"), status=STALE, report=taken(running(), away(sequence=9))),
            id="an-old-pods-report",
        ),
        pytest.param(seen(running(), run=SUSPEND, status=STALE), id="suspending"),
        pytest.param(seen(running(), batch=gang(), status=STALE), id="a-peer-lost"),
    ],
)
def test_it_holds_while_nobody_says_otherwise(what: Seen) -> None:
    decision = decide(what, make.NOW)
    assert is_stale(decision.status)
    assert told(decision.status) == told(STALE), "in the words of the report"
    assert f"{NOTHING}: {AWAY}" in (decision.status.message or "")
    assert [e for e in decision.events if e.reason == "CheckpointStale"] == []


@pytest.mark.parametrize(
    ("before", "reason"), [(STALE, "Committed"), (NEVER_COMMITTED, "NoneYet")], ids=["committed", "never"]
)
def test_the_next_pods_first_report_ends_it(before: RecTrainingJobStatus, reason: str) -> None:
    """What waited went with the old pod."""
    first = report(Stage.STAGING, attempt=0, sequence=1)
    next_pod = running("run-0-b")
    status = after(seen(next_pod, status=before, report=taken(next_pod, first)))
    assert not is_stale(status)
    assert [c.reason for c in status.conditions if c.type == "CheckpointStale"] == [reason]
    assert NOTHING not in (status.message or "")


@pytest.mark.parametrize(
    ("saved", "expected"),
    [(stale(), True), (make.checkpoint(120), False)],
    ids=["gave-up", "committed-at-the-last-moment"],
)
def test_last_words_say_it_too(saved: CheckpointStatus, expected: bool) -> None:
    said = words(75, "Interrupted", "Told to stop.", attempt=1, checkpoint=saved)
    read = parse_termination_message(said)
    assert read is not None
    assert read.checkpoint == saved
    for before in (make.STARTED, STALE):
        assert is_stale(after(seen(ended(75, message=said), status=before))) is expected


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            seen(
                ended(75, deletion=make.JUST_NOW, message=words(75, "Interrupted", "", checkpoint=stale())),
                batch=job(suspend=True),
                run=SUSPEND,
                status=STALE,
            ),
            id="suspended",
        ),
        pytest.param(seen(batch=make.complete(), status=STALE), id="complete"),
        pytest.param(
            seen(
                ended(69, message=words(69, "StoreUnavailable", AWAY, checkpoint=stale())),
                batch=make.job_failed("BackoffLimitExceeded"),
                status=STALE,
            ),
            id="failed",
        ),
    ],
)
def test_a_run_at_rest_is_not_stale(what: Seen) -> None:
    status = after(what)
    assert status.phase in (Phase.SUSPENDED, Phase.SUCCEEDED, Phase.FAILED)
    assert not is_stale(status)
    assert [c.reason for c in status.conditions if c.type == "CheckpointStale"] == ["Committed"]
    assert NOTHING not in (status.message or "")


@pytest.mark.parametrize(
    "more",
    [
        {"report": taken(running(), away())},
        {"status": STALE},
        {"run": SUSPEND, "batch": job(suspend=True), "status": STALE},
    ],
)
def test_deciding_again_changes_nothing(more: dict[str, Any]) -> None:
    what = seen(*([] if "run" in more else [running()]), **more)
    once = decide(what, make.NOW)
    twice = decide(replace(what, status=once.status), make.NOW)
    assert twice.status == once.status
    assert twice.events == ()
