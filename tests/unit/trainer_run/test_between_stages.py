"""Told to stop where the exception may get lost: in a library, and while a line is logged."""

import io
import logging
import sys
from pathlib import Path

import pytest

from rectrain_api.errors import Interrupted
from rectrain_trainer.board import Board
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.console import set_up_logging
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


class Telling(io.StringIO):
    """The signal comes while a line is written."""

    def write(self, text: str) -> int:
        raise Interrupted(text)


def test_told_to_stop_while_a_line_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", Telling())
    set_up_logging(debug=False)
    with pytest.raises(Interrupted, match="Staging"):
        logging.getLogger("rectrain_trainer").info("Staging")
