"""Reports over real HTTPS: what is sent, when, and that nothing that goes wrong there hurts."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rectrain_api.plan import Identity
from rectrain_api.report import Stage
from rectrain_api.status import Progress
from rectrain_trainer import report
from rectrain_trainer.board import Board
from rectrain_trainer.environment import ReportTarget
from rectrain_trainer.report import Reporter
from tests.support.report_server import ReportServer, make_certificate
from tests.support.waiting import wait_until

IDENTITY = Identity(namespace="team", name="digits")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "AT_ONCE_S", 0.01)
    monkeypatch.setattr(report, "EVERY_S", 0.05)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.key = make_certificate(folder / "one")
        self.server = ReportServer(self.ca, self.key)
        self.token = folder / "token"
        self.token.write_text("first\n")
        self.board = Board("s3://bucket/run")
        self.trusted = folder / "trusted.crt"
        self.trusted.write_bytes(self.ca.read_bytes())
        target = ReportTarget(f"https://127.0.0.1:{self.server.port}", self.trusted, self.token)
        self.reporter = Reporter(target, IDENTITY, self.board)

    def close(self) -> None:
        self.reporter.close()
        self.server.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_report_goes_to_its_run_with_its_token(bench: Bench) -> None:
    bench.reporter.start()
    wait_until(lambda: bench.server.got, 10, "no report")
    path, token, sent = bench.server.got[0]
    assert path == "/v1/namespaces/team/rectrainingjobs/digits/progress"
    assert token == "Bearer first"
    assert sent.stage == Stage.STAGING
    bench.token.write_text("second\n")
    bench.board.enter(Stage.TRAINING)
    wait_until(lambda: bench.server.got[-1][1] == "Bearer second", 10, "the token isn't read again")


def test_sequences_grow_and_the_last_state_is_sent(bench: Bench) -> None:
    bench.reporter.start()
    for percent in range(1, 40):
        bench.board.update(progress=Progress(percent=percent))
    bench.board.enter(Stage.FINISHED)
    bench.reporter.close()
    sequences = [sent.sequence for _, _, sent in bench.server.got]
    assert sequences == sorted(set(sequences))
    assert bench.server.got[-1][2].stage == Stage.FINISHED
    assert len(sequences) < 40, "reports are coalesced"


def test_a_new_certificate_is_taken_up(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.reporter.start()
    wait_until(lambda: bench.server.got, 10, "no report")
    bench.server.stop()
    ca, key = make_certificate(tmp_path / "two")
    bench.server = ReportServer(ca, key, bench.server.port)
    bench.board.say("the operator has another certificate now")
    wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text, 10, "no complaint")
    assert not bench.server.got
    bench.trusted.write_bytes(ca.read_bytes())
    wait_until(lambda: bench.server.got, 10, "the CA isn't read again")
    assert bench.server.got[-1][2].message == "the operator has another certificate now"
    assert caplog.text.count("CERTIFICATE_VERIFY_FAILED") == 1, "it complains once"


@pytest.mark.parametrize("status", [401, 403, 409])
def test_a_refusal_is_logged_once(bench: Bench, status: int, caplog: pytest.LogCaptureFixture) -> None:
    bench.server.status = status
    bench.reporter.start()
    for number in range(3):
        bench.board.say(f"message {number}")
        wait_until(lambda: len(bench.server.got) > number, 10, "no report")  # noqa: B023
    assert caplog.text.count(f"HTTP {status}") == 1


def test_no_server_at_all(tmp_path: Path) -> None:
    board = Board("s3://bucket/run")
    reporter = Reporter(ReportTarget("https://127.0.0.1:9", None, tmp_path / "no-token"), IDENTITY, board)
    reporter.start()
    board.enter(Stage.TRAINING)
    reporter.close()
    assert json.loads(board.report().model_dump_json())["stage"] == "Training"
