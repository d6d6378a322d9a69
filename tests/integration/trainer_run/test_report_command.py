"""`rectrain-trainer report` over real S3, and VisualDL's log while a run goes on."""

import json
from pathlib import Path

import pytest
from visualdl import LogReader

from rectrain_trainer.reporting.keys import INDEX, VDL
from rectrain_trainer.reporting.live import VdlSync
from rectrain_trainer.reporting.make import make_report
from tests.integration.trainer_run.conftest import unfinished
from tests.support.trainer import Place, Trainer


def test_the_page_is_made_again_from_s3_alone(trainer: Trainer, finished: Place, tmp_path: Path) -> None:
    before = [(o.key, o.size) for o in finished.store.list_objects()]
    made = trainer.command("report", finished.uri, "-o", str(tmp_path / "page.html"))
    assert (made.returncode, made.stdout) == (0, f"{tmp_path / 'page.html'}\n"), made.stderr
    again, stored = (tmp_path / "page.html").read_text(), finished.store.get_bytes(INDEX).decode()
    assert without_times(again) == without_times(stored)
    assert [(o.key, o.size) for o in finished.store.list_objects()] == before


def without_times(page: str) -> list[str]:
    """What stays the same: not when it was made, nor how much lies in S3 by then."""
    return [line for line in page.splitlines() if not any(s in line for s in ("Made on", "Stored"))]


def test_a_run_that_was_killed_and_is_damaged(trainer: Trainer, copy: Place, tmp_path: Path) -> None:
    place = unfinished(copy)
    place.store.put_bytes("log/00000002.json", b"{")
    made = trainer.command("report", place.uri, "-o", str(tmp_path / "page.html"))
    assert made.returncode == 0, made.stderr
    page = (tmp_path / "page.html").read_text()
    assert "No end is on record" in page
    assert "log/00000002.json" in page


@pytest.mark.parametrize(
    ("uri", "code", "said"),
    [
        ("runs/x", 66, "There is no folder runs/x"),
        ("{bucket}/nothing", 66, "There is nothing at"),
        ("{bucket}/packed", 66, "isn't a run's place"),
        ("{run}/nowhere/page.html", 64, "can't be written (No such file or directory)"),
    ],
)
def test_one_clear_sentence(
    trainer: Trainer, finished: Place, bucket: str, tmp_path: Path, uri: str, code: int, said: str
) -> None:
    target = tmp_path / "page.html"
    if uri.startswith("{run}"):
        uri, target = finished.uri, tmp_path / "nowhere" / "page.html"
    ended = trainer.command("report", uri.format(bucket=bucket), "-o", str(target))
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_visualdls_log_follows_the_checkpoints(copy: Place, tmp_path: Path) -> None:
    copy.store.delete([VDL])
    sync = VdlSync(copy.store, 1, every_s=0)
    sync.checkpointed()
    sync.wait(60)
    (tmp_path / "vdlrecords.log").write_bytes(copy.store.get_bytes(VDL))
    reader = LogReader(file_path=str(tmp_path / "vdlrecords.log"))
    losses = reader.get_data("scalar", "TRAIN/loss")
    assert [one.id for one in losses] == [1, 2, 3, 4, 5, 6]
    rows = [row for row in copy.metrics(1) if row["kind"] == "train"]
    assert [one.value for one in losses] == pytest.approx([row["loss"] for row in rows])
    assert {"TRAIN/lr", "EVAL/acc", "EVAL/best_acc"} <= set(reader.get_tags()["scalar"])


def test_a_report_that_cannot_be_made_is_a_line_of_the_log(
    copy: Place, caplog: pytest.LogCaptureFixture
) -> None:
    copy.store.put_bytes("log/00000001.json", json.dumps({"kind": "from-the-future"}).encode())
    assert make_report(copy.store, 1) is None
    assert "The report couldn't be made" in caplog.text
    assert f"rectrain-trainer report {copy.uri} makes it" in caplog.text
