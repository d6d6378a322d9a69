"""A run of two ranks in one pod, as on two GPUs: two processes on CPUs under one supervisor."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectrain_api.records import AttemptEnd, CheckpointRecord
from rectrain_data.transfer import Download, S3Options
from rectrain_trainer.environment import RANK
from rectrain_trainer.snapshot_files import load_arrays
from tests.support.processes import listening_addresses, mentioning
from tests.support.trainer import EVAL_SAMPLES, Place, Started, Trainer, new_place
from tests.support.waiting import wait_until

Manifest = Callable[..., dict[str, Any]]


@pytest.fixture
def two(trainer: Trainer) -> Trainer:
    trainer.ranks_per_pod = 2
    return trainer


def processes(started: Started) -> dict[int, int]:
    """PID of each rank's own process, once both are there."""
    found: dict[int, int] = {}

    def look() -> bool:
        for pid, command in mentioning(str(started.termination)).items():
            if " -m rectrain_trainer.child " in command:
                said = re.search(
                    rf"{RANK}=(\d+)", Path(f"/proc/{pid}/environ").read_text().replace("\0", "\n")
                )
                found[int(said.group(1)) if said else -1] = pid
        return found.keys() == {0, 1}

    wait_until(look, 60, lambda: f"two ranks; it said:\n{started.errors()}")
    return found


def weights(place: Place, path: Path) -> dict[str, Any]:
    place.store.download_file(Download("best/model.pdparams", path))
    return load_arrays(path)


def test_a_killed_rank_costs_a_round_and_no_exactness(
    two: Trainer, manifest: Manifest, place: Place, bucket: str, s3: S3Options, tmp_path: Path
) -> None:
    """The run ends as one that nobody disturbed: the same weights, bit for bit."""
    settings: dict[str, Any] = {
        "epochs": 6,
        "batch_size": 8,
        "interval": 3,
        "training": {"deterministic": True},
    }
    quiet = new_place(bucket, s3)
    undisturbed = two.run(manifest(**settings, uri=quiet.uri))
    assert undisturbed.code == 0, undisturbed.errors
    assert undisturbed.result["progress"]["steps"] == 18, "6 epochs of 48 samples in steps of 2 x 8"
    assert undisturbed.errors.count("Staged ") == 1, "once for both"
    assert {row["samples"] for row in quiet.metrics(1) if row["kind"] == "eval"} == {EVAL_SAMPLES}

    started = two.start(manifest(**settings))
    ranks = processes(started)
    assert listening_addresses({started.process.pid, *ranks.values()}) <= {"0100007F"}, "loopback alone"
    started.until(lambda: [s for s in place.steps() if s >= 6], "a checkpoint of step 6")
    os.kill(ranks[1], signal.SIGKILL)
    ended = started.wait()
    assert ended.code == 0, ended.errors
    assert "The round is over (Rank 1: The training process was killed (SIGKILL)" in ended.errors
    assert place.state().attempt == 2
    saved = max(r.step for r in place.records() if isinstance(r, CheckpointRecord) and r.attempt == 1)
    assert place.trained(2)[0] == saved + 1
    one, other = weights(quiet, tmp_path / "one"), weights(place, tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_told_to_stop_it_saves_and_another_number_of_devices_is_refused(
    two: Trainer, manifest: Manifest, place: Place
) -> None:
    settings: dict[str, Any] = {"epochs": 60, "batch_size": 8, "interval": 1000}
    started = two.start(manifest(**settings))
    started.until(lambda: place.trained(1), "a first step")
    started.process.send_signal(signal.SIGTERM)
    ended = started.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    (end,) = (r for r in place.records() if isinstance(r, AttemptEnd))
    assert place.steps() == [end.step], "nothing was lost"
    two.ranks_per_pod = 3
    ended = two.run(manifest(**settings))
    assert (ended.code, ended.result["reason"]) == (78, "InvalidSpec"), ended.errors
    assert "made by 2 ranks, and this run has 3 ranks" in ended.message
    assert "make them 2 again, or give this run a checkpoint.uri of its own" in ended.message


def test_a_stall_shows_where_every_rank_stands(two: Trainer, manifest: Manifest, place: Place) -> None:
    """The one that hangs is rank 1: rank 0, which waits for it, is what the watch sees."""
    job = manifest(epochs=60, batch_size=8, interval=2, runPolicy={"stallTimeout": "5s"})
    started = two.start(job)
    started.until(place.steps, "a first checkpoint")
    os.kill(processes(started)[1], signal.SIGSTOP)
    ended = started.wait()
    assert (ended.code, ended.result["reason"]) == (70, "Stalled"), ended.errors
    log = b"".join(place.store.get_all(place.store.list_keys("attempts/0001/log/"))).decode()
    assert "Thread MainThread, most recent" in log
    assert "Rank 1 doesn't say where it stands: see the pod's own log." in log
