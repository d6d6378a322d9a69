"""The termination message: bounded, cut at a character, and told from a log's end."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rectrain_api.report import (
    TERMINATION_LIMIT_BYTES,
    ProgressReport,
    TerminationResult,
    parse_termination_message,
    report_audience,
    report_path,
)
from rectrain_api.status import CheckpointRef, CheckpointStatus, Metrics, ModelStatus, Progress


def result(message: str) -> TerminationResult:
    """An end with some numbers."""
    return TerminationResult(
        exit_code=70,
        reason="Diverged",
        message=message,
        attempt=2,
        progress=Progress(epoch=1, epochs=2, step=3, steps=4, percent=75),
        metrics=Metrics(loss=0.5),
    )


@pytest.mark.parametrize("message", ["short", "x" * 10_000, "é" * 5_000, "ไ" * 5_000, '"\\\n' * 3_000])
def test_it_fits_and_reads_back(message: str) -> None:
    text = result(message).to_termination_message()
    assert len(text.encode()) <= TERMINATION_LIMIT_BYTES
    read = parse_termination_message(text)
    assert read is not None
    assert (read.exit_code, read.reason, read.attempt) == (70, "Diverged", 2)
    assert message.startswith(read.message.removesuffix("…"))


def test_the_longest_uris_leave_out_the_reports() -> None:
    uri = f"s3://{'b' * 63}/{'k' * 950}"
    ref = CheckpointRef(uri=f"{uri}/step-1", step=1, epoch=1, time="2026-01-02T11:30:00Z", bytes=9)
    more = {"checkpoint": CheckpointStatus(latest=ref, best=ref), "model": ModelStatus(uri=f"{uri}/export")}
    whole = result("m" * 5_000).model_copy(update=more | {"report": f"{uri}/report/index.html"})
    text = whole.to_termination_message()
    assert len(text.encode()) <= TERMINATION_LIMIT_BYTES
    read = parse_termination_message(text)
    assert read is not None
    assert (read.model, read.report) == (whole.model, None)
    short = result("m" * 5_000).model_copy(update={"report": "s3://b/report/index.html"})
    read = parse_termination_message(short.to_termination_message())
    assert read is not None
    assert read.report == short.report


@pytest.mark.parametrize(
    "text", ["", "Killed", "{}", '{"exitCode": "x"}', '{"exitCode": 1}', "Traceback\n  …"]
)
def test_anything_else_is_not_ours(text: str) -> None:
    assert parse_termination_message(text) is None


def test_where_and_for_whom() -> None:
    assert report_path("team", "run") == "/v1/namespaces/team/rectrainingjobs/run/progress"
    assert report_audience("uid") == "rectrain.dev/rectrainingjobs/uid"


@pytest.mark.parametrize(
    "field",
    [
        {"metrics": {"loss": float("nan")}},
        {"metrics": {"learningRate": float("-inf")}},
        {"metrics": {"loss": "NaN"}},
        {"progress": {"step": 2**63}},
        {"attempt": 2**63},
        {"checkpoint": {"latest": {"uri": "u", "step": 1, "epoch": 1, "time": "t", "bytes": -(2**63) - 1}}},
    ],
)
def test_numbers_that_no_status_can_hold_are_refused(field: dict[str, Any]) -> None:
    report = {"attempt": 1, "sequence": 1, "stage": "Training"}
    with pytest.raises(ValidationError):
        ProgressReport.model_validate_json(json.dumps({**report, **field}))
    assert parse_termination_message(json.dumps({"exitCode": 70, "reason": "Diverged", **field})) is None
    assert ProgressReport.model_validate_json(json.dumps({**report, "progress": {"step": 2**63 - 1}}))


def test_a_loss_that_is_no_number_is_left_out_of_the_last_words() -> None:
    metrics = Metrics().model_copy(update={"loss": float("nan")})
    last = result("Oh.").model_copy(update={"metrics": metrics})
    read = parse_termination_message(last.to_termination_message())
    assert read is not None
    assert read.message == "Oh."
    assert read.metrics == Metrics()
