"""A run's place, whole and damaged, as what the report is made of; and the files that are made beside it."""

import json
import math
from dataclasses import replace

import pytest

from rectrain_api.errors import InputMissing
from rectrain_trainer.reporting.gather import gather, metrics_jsonl
from rectrain_trainer.reporting.page import page
from rectrain_trainer.reporting.vdl import POINTS, scalars
from tests.support.memory_store import MemoryStore
from tests.support.told_run import HOSTILE, ROLLED_BACK, told_run


def test_a_finished_run() -> None:
    run = gather(told_run())  # type: ignore[arg-type]
    assert run.name == "default/thai-signs"
    assert [(a.number, a.end, a.first_step, a.last_step, a.checkpoints) for a in run.attempts] == [
        (1, "Killed", 1, 70, 3),
        (2, "Interrupted", 61, 124, 3),
        (3, "Completed", 121, 200, 4),
    ]
    assert [a.environment.node for a in run.attempts] == ["node-1", "node-2", "node-3"]
    trained = [row["step"] for row in run.rows if row["kind"] == "train"]
    assert trained == list(range(1, 201)), "each step once, whatever was interrupted or gone back over"
    assert [(r.step, r.to_step) for r in run.rollbacks] == [ROLLED_BACK]
    assert run.best == (200, 0.8968)
    assert run.about.checks.train_samples == 4000
    assert run.quality is not None
    assert run.quality.confusions[0].count == 14
    assert run.samples is not None
    assert not run.notes


def test_metrics_are_one_object_a_line_without_nan() -> None:
    run = gather(told_run())  # type: ignore[arg-type]
    rows = [{"kind": "train", "step": 201, "loss": math.nan}]
    lines = metrics_jsonl([*run.rows, *rows]).decode().splitlines()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} isn't JSON")

    read = [json.loads(line, parse_constant=refuse) for line in lines]
    assert len(read) == len(run.rows) + 1
    assert read[-1]["loss"] is None


@pytest.mark.parametrize(
    ("key", "data", "named"),
    [
        ("attempts/0003/report/report.json", b"{", "attempts/0003/report/report.json is damaged"),
        ("attempts/0003/samples.json", b'{"samples": "no"}', "attempts/0003/samples.json is damaged"),
        ("attempts/0002/about.json", b"\xff\xfe", "attempts/0002/about.json is damaged"),
        ("attempts/0003/about.json", b'{"plan": {"data": [], "nodes": "x"}, "checks": {}}', ""),
        ("log/00000004.json", b"gone", "log/00000004.json"),
        ("attempts/0001/metrics/000001.jsonl", b'{"kind": "train", "step": 3, "loss": "<b>"}\nnonsense', ""),
        ("attempts/0003/report/report.json", None, ""),
        ("attempts/0003/samples.json", None, ""),
        ("attempts/0003/about.json", None, ""),
        ("attempts/0003/metrics/000001.jsonl", None, ""),
    ],
)
def test_what_is_damaged_or_gone_is_named_and_the_rest_is_shown(
    key: str, data: bytes | None, named: str
) -> None:
    store = told_run()
    assert store.objects.pop(key)
    if data is not None:
        store.objects[key] = data
    run = gather(store)  # type: ignore[arg-type]
    assert any(named in note for note in run.notes) if named else not run.notes
    assert "Timeline" in page(run)


def test_a_run_under_way() -> None:
    store = told_run(finished=False)
    line = "2026-11-26 10:00:00,000 ERROR Diverged: the loss of step 9 is nan.\n"
    store.objects["attempts/0003/log/000001.txt"] = line.encode()
    run = gather(store)  # type: ignore[arg-type]
    assert run.listing.state == "RunningOrKilled"
    assert run.words == "Diverged: the loss of step 9 is nan."
    assert run.quality is None
    shown = page(run)
    assert "is known once a run is finished" in shown


def test_a_run_that_has_just_begun() -> None:
    store = told_run(finished=False)
    store.objects = {"log/00000001.json": store.objects["log/00000001.json"]}
    shown = page(gather(store))  # type: ignore[arg-type]
    assert "No step is on record yet." in shown
    assert "No end is on record" in shown


def test_no_run() -> None:
    with pytest.raises(InputMissing, match="There is nothing at s3://memory/run"):
        gather(MemoryStore())  # type: ignore[arg-type]


def test_nothing_from_a_run_becomes_markup() -> None:
    shown = page(gather(told_run()))  # type: ignore[arg-type]
    assert "<script" not in shown.lower()
    assert 'onerror="' not in shown
    assert "javascript:" not in shown, "a picture that is none"
    assert "&lt;/script&gt;" in shown
    assert HOSTILE not in shown
    assert len(shown) < 2 << 20


def test_pictures_are_left_out_before_the_page_gets_large() -> None:
    store = told_run()
    key = "attempts/0003/samples.json"
    content = json.loads(store.objects[key])
    one = content["samples"][0] | {"image": "data:image/jpeg;base64," + "A" * 90_000}
    store.objects[key] = json.dumps(content | {"samples": [one] * 500}).encode()
    shown = page(gather(store))  # type: ignore[arg-type]
    assert len(shown) < 2 << 20
    assert shown.count("confidence 62%") == 40


def test_vdl_has_upstreams_tags_and_few_points() -> None:
    run = gather(told_run())  # type: ignore[arg-type]
    found = list(scalars(run.rows))
    tags = {tag for tag, *_ in found}
    assert {"TRAIN/loss", "TRAIN/lr", "EVAL/acc", "EVAL/best_acc", "EVAL/norm_edit_dis"} <= tags
    assert all(math.isfinite(value) for _, _, value, _ in found)
    odd = [{"kind": "train", "step": n, "loss": x} for n, x in enumerate((math.nan, -math.inf, 10**400, 2))]
    assert replace(run, rows=odd).series("train", "loss") == [(3, 2.0)]
    many = [{"kind": "train", "step": n, "loss": 1.0, "time": n} for n in range(3 * POINTS)]
    assert len(list(scalars(many))) == POINTS
