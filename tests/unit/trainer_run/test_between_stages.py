"""Told to stop, and the exception got lost in a library: the next stage doesn't begin."""

from pathlib import Path

import pytest

from rectrain_api.errors import Interrupted
from rectrain_trainer.board import Board
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.environment import PodEnvironment
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.run import Run
from tests.support.plans import make_plan


def test_no_stage_begins_once_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("RECTRAIN_S3_DEADLINE_SECONDS", "0")
    interrupt, board = Interrupt(10), Board("s3://runs/digits")
    with interrupt.deferred():
        interrupt._on_signal(15, None)
    run = Run(make_plan(), PodEnvironment.read({}), board, interrupt, Chunks(), tmp_path)
    with pytest.raises(Interrupted):
        run.execute()
