"""A disk that is full when a checkpoint is written: training goes on, and the newest snapshot waits for room.

The folder of snapshots is a small disk of its own, in a mount namespace that the trainer is started in; it is
filled and emptied from outside.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.report_server import ReportServer, make_certificate
from tests.support.trainer import Place, Started, Trainer

Manifest = Callable[..., dict[str, Any]]
EPOCHS, STEPS = 12, 36
MOUNTED = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'


class SmallDisk:
    """A run over it, and a hand on its room."""

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.work = folder / "work"
        self.snapshots = self.work / "snapshots"
        self.snapshots.mkdir(parents=True)
        self.trainer = trainer
        trainer.wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED, str(self.snapshots)]

    def start(self, job: dict[str, Any], **env: str) -> Started:
        file = self.work / "job.yaml"
        file.write_text(yaml.safe_dump(job))
        self.run = self.trainer.start_with(["run", "-f", str(file), "--work-dir", str(self.work)], **env)
        return self.run

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self.run.process.pid}/root{self.snapshots}/filler")

    def fill(self) -> None:
        """Take what room there is; what the trainer frees meanwhile takes another call."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def make_room(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(trainer: Trainer, tmp_path: Path) -> SmallDisk:
    return SmallDisk(trainer, tmp_path)


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[tuple[ReportServer, dict[str, str]]]:
    """An operator, and the environment that leads to it."""
    ca, key = make_certificate(tmp_path / "tls")
    server = ReportServer(ca, key)
    token = tmp_path / "token"
    token.write_text("the-token")
    url = f"https://127.0.0.1:{server.port}"
    yield (
        server,
        {"RECTRAIN_REPORT_URL": url, "RECTRAIN_REPORT_CA": str(ca), "RECTRAIN_TOKEN_FILE": str(token)},
    )
    server.stop()


def stale_reason(server: ReportServer) -> str | None:
    """Of the last report."""
    checkpoint = server.got[-1][2].checkpoint if server.got else None
    return checkpoint.stale.reason if checkpoint and checkpoint.stale else None


def test_training_goes_on_and_commits_once_there_is_room(
    disk: SmallDisk, place: Place, manifest: Manifest, reports: tuple[ReportServer, dict[str, str]]
) -> None:
    server, env = reports
    run = disk.start(manifest(epochs=EPOCHS, interval=2), **env)
    run.until(place.steps, "a checkpoint")

    def complains() -> bool:
        disk.fill()
        return stale_reason(server) == "DiskTooSmall"

    run.until(complains, "a report of the full disk")
    run.until(lambda: f"step {STEPS}/{STEPS}" in run.errors(), "it trains on to its end")
    kept = place.steps()
    assert kept[-1] < STEPS, "the older checkpoints are kept, and there is no newer one"
    assert "Nothing has been committed since" in run.errors()
    disk.make_room()
    ended = run.wait()
    assert ended.code == 0, ended.errors
    assert place.steps()[-1] == STEPS
    assert len(place.state().starts) == 1
    assert stale_reason(server) is None


def test_sigterm_while_the_disk_is_full(disk: SmallDisk, place: Place, manifest: Manifest) -> None:
    """It gives up within the grace period; another attempt, with room, goes on from the older checkpoint."""
    job = manifest(epochs=EPOCHS, interval=2, runPolicy={"terminationGraceSeconds": 10})
    run = disk.start(job)
    run.until(place.steps, "a checkpoint")

    def complains() -> bool:
        disk.fill()
        return "Nothing has been committed since" in run.errors()

    run.until(complains, "it says so")
    kept = place.steps()
    run.process.send_signal(signal.SIGTERM)
    ended = run.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert "couldn't be committed in time" in ended.message
    assert place.steps() == kept
    ended = disk.start(job).wait()
    assert ended.code == 0, ended.errors
    trained = place.trained(2)
    assert trained[0] == kept[-1] + 1
