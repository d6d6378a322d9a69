"""A run of two ranks: two trainers that believe they are pods, each at a loopback address of its own."""

import json
import pickle
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectrain_api.plan import plan as plan_of
from rectrain_api.records import AttemptEnd, CheckpointRecord, PlanChange
from rectrain_api.spec import RecTrainingJob
from rectrain_data.transfer import Download, S3Options, open_store
from rectrain_trainer.model import build_model
from rectrain_trainer.snapshot_files import load_arrays
from tests.integration.trainer_run.conftest import MUCH
from tests.support.trainer import EVAL_SAMPLES, Place, Started, Trainer
from tests.support.waiting import wait_until
from tests.unit.trainer_learn.recipes import make_recipe

Manifest = Callable[..., dict[str, Any]]
LONG = {"epochs": 12, "interval": 3}
"""48 samples in steps of 2 x 8: 3 steps an epoch, 36 in all."""


@dataclass
class Pods:
    """The pods of one run."""

    trainer: Trainer
    plan: Path
    net: str

    def start(self, rank: int, **env: str) -> Started:
        return self.trainer.start_with(
            ["run", "--plan", str(self.plan)],
            RECTRAIN_PEERS=f"{self.net}.1,{self.net}.2",
            RECTRAIN_RANK=str(rank),
            RECTRAIN_POD_IP=f"{self.net}.{rank + 1}",
            RECTRAIN_JOB_UID="job-1",
            **env,
        )

    def both(self) -> tuple[Started, Started]:
        return self.start(0), self.start(1)


@pytest.fixture
def pods(trainer: Trainer, manifest: Manifest, tmp_path: Path) -> Callable[..., Pods]:
    def make(**changes: Any) -> Pods:
        job = manifest(**({"batch_size": 8, "replicas": {"nodes": 2, "gpusPerNode": 0}} | changes))
        path = tmp_path / "run.json"
        path.write_text(plan_of(RecTrainingJob.model_validate(job)).to_json())
        return Pods(trainer, path, f"127.{random.randint(1, 250)}.{random.randint(1, 250)}")

    return make


def checkpoints(place: Place, attempt: int) -> list[int]:
    return [r.step for r in place.records() if isinstance(r, CheckpointRecord) and r.attempt == attempt]


def committed(place: Place, step: int, attempt: int = 1) -> Callable[[], bool]:
    return lambda: any(s >= step for s in checkpoints(place, attempt))


def test_two_ranks_train_one_model(pods: Callable[..., Pods], place: Place) -> None:
    first, second = pods(epochs=3).both()
    one, other = first.wait(), second.wait()
    assert (one.code, other.code) == (0, 0), one.errors + other.errors
    assert one.result["progress"]["steps"] == 9, "3 epochs of 48 samples in steps of 2 x 8"
    assert "Rank 1 of 2" in other.message
    state = place.state()
    assert state.attempt == 1
    assert state.final is not None
    assert state.final.step == 9
    rows = [row for row in place.metrics(1) if row["kind"] == "eval"]
    assert [row["samples"] for row in rows] == [EVAL_SAMPLES] * 3, "both parts of it"
    assert state.final.metrics["samples"] == EVAL_SAMPLES


def test_rank_0_alone_reads_the_weights_to_start_from(
    pods: Callable[..., Pods], place: Place, bucket: str, s3: S3Options, tmp_path: Path
) -> None:
    given = {name: tensor.numpy() for name, tensor in build_model(make_recipe(seed=99)).state_dict().items()}
    store = open_store(f"{bucket}/ranks", s3)
    store.put_bytes("w.pdparams", pickle.dumps(given))
    model = {"pretrained": {"uri": store.uri_of("w.pdparams")}}
    first, second = pods(epochs=1, model=model, training={"learningRate": 1e-8}).both()
    one, other = first.wait(), second.wait()
    assert (one.code, other.code) == (0, 0), one.errors + other.errors
    assert "60 of 60 tensors loaded" in one.errors
    assert "Starting from" not in other.errors
    path = tmp_path / "w.pdparams"
    place.store.download_file(Download("best/model.pdparams", path))
    trained = load_arrays(path)["head.fc.weight"]
    assert np.allclose(trained, given["head.fc.weight"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_pod_is_waited_for_and_all_go_on_from_the_checkpoint(
    pods: Callable[..., Pods], place: Place, lost: int
) -> None:
    run = pods(**LONG)
    both = run.both()
    both[lost].until(committed(place, 6), "a checkpoint of step 6")
    both[lost].kill()
    stays = both[1 - lost]
    stays.until(lambda: "Waiting for all pods" in stays.errors(), "the other one waits")
    saved = max(checkpoints(place, 1))
    again = run.start(lost)
    ends = [stays.wait(), again.wait()]
    assert [end.code for end in ends] == [0, 0], ends[0].errors + ends[1].errors
    assert place.state().attempt == 2
    assert place.trained(2)[0] == saved + 1
    final = place.state().final
    assert final is not None
    assert final.step == 36


def test_more_epochs_reach_every_rank_of_a_running_run(pods: Callable[..., Pods], place: Place) -> None:
    """Rank 0 reads the run plan again at the end of an epoch, as its ConfigMap changes under it."""
    run = pods(**LONG)
    both = run.both()
    both[0].until(committed(place, 3), "a first checkpoint")
    plan = json.loads(run.plan.read_text())
    plan["training"]["epochs"] = 14
    changed = run.plan.with_suffix(".new")
    changed.write_text(json.dumps(plan))
    changed.replace(run.plan)
    ends = [one.wait() for one in both]
    assert [end.code for end in ends] == [0, 0], ends[0].errors + ends[1].errors
    state = place.state()
    assert (state.attempt, state.epochs) == (1, 14)
    assert state.final is not None
    assert (state.final.epochs, state.final.step) == (14, 42)
    (change,) = (r for r in place.records() if isinstance(r, PlanChange))
    assert (change.was, change.epochs, change.step % 3) == (12, 14, 0)
    assert place.trained(1) == list(range(1, 43))


def test_a_pod_told_to_stop_has_rank_0_save_first(pods: Callable[..., Pods], place: Place) -> None:
    run = pods(epochs=60, interval=1000)
    first, second = run.both()
    first.until(lambda: place.trained(1), "a first step")
    second.process.send_signal(signal.SIGTERM)
    ended = second.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    (end,) = (r for r in place.records() if isinstance(r, AttemptEnd))
    assert end.reason == "Interrupted"
    assert [end.step] == checkpoints(place, 1), "nothing was lost"
    first.until(lambda: "Waiting for all pods" in first.errors(), "rank 0 waits")
    first.process.send_signal(signal.SIGTERM)
    ended = first.wait()
    assert (ended.code, ended.result["reason"]) == (75, "Interrupted"), ended.errors
    assert "waiting for the other pods" in ended.message


def test_rank_0_told_to_stop_saves_while_the_other_takes_part(
    pods: Callable[..., Pods], place: Place
) -> None:
    first, second = pods(epochs=60, interval=1000).both()
    first.until(lambda: place.trained(1), "a first step")
    for one in (second, first):  # as a suspended Job does, to all at once
        one.process.send_signal(signal.SIGTERM)
    ends = [first.wait(), second.wait()]
    assert [end.code for end in ends] == [75, 75], ends[0].errors + ends[1].errors
    (end,) = (r for r in place.records() if isinstance(r, AttemptEnd))
    assert [end.step] == checkpoints(place, 1), "nothing was lost"


def test_rank_0_told_to_stop_in_an_evaluation(
    pods: Callable[..., Pods], place: Place, much_to_evaluate: str
) -> None:
    """It doesn't wait for the other's part; the evaluation is made up for, by both."""
    run = pods(epochs=2, train=much_to_evaluate)
    first, second = run.both()
    first.until(lambda: "INFO Evaluating" in first.errors(), "it evaluates")
    for one in (second, first):
        one.process.send_signal(signal.SIGTERM)
    ends = [first.wait(), second.wait()]
    assert [end.code for end in ends] == [75, 75], ends[0].errors + ends[1].errors
    assert "Traceback" not in ends[0].errors
    ends = [one.wait() for one in run.both()]
    assert [end.code for end in ends] == [0, 0], ends[0].errors + ends[1].errors
    rows = [row for attempt in (1, 2) for row in place.metrics(attempt) if row["kind"] == "eval"]
    assert [(row["epoch"], row["samples"]) for row in rows] == [(1, MUCH), (2, MUCH)]


def test_a_fault_that_is_the_users_ends_the_pod(pods: Callable[..., Pods]) -> None:
    """Rank 1 finds it; its pod says so and leaves, which fails the Job; rank 0 waits to be told."""
    run = pods(data={"train": "s3://no-such-bucket-here/set"})
    first, second = run.both()
    ends = {first.process: first, second.process: second}
    wait_until(lambda: any(p.poll() is not None for p in ends), 120, "one of them ends")
    gone = next(one for process, one in ends.items() if process.poll() is not None).wait()
    assert gone.code == 66, gone.errors
    assert "no-such-bucket-here" in gone.message


def test_a_finished_run_needs_no_other_pod(pods: Callable[..., Pods], place: Place) -> None:
    run = pods(epochs=1)
    ends = [one.wait() for one in run.both()]
    assert [end.code for end in ends] == [0, 0], ends[0].errors + ends[1].errors
    alone = run.start(0).wait()
    assert (alone.code, alone.result["reason"]) == (0, "AlreadyComplete"), alone.errors


def test_other_numbers_of_pods_are_refused(
    pods: Callable[..., Pods], trainer: Trainer, place: Place, manifest: Manifest
) -> None:
    first, second = pods(**LONG).both()
    first.until(committed(place, 3), "a checkpoint")
    first.kill()
    second.kill()
    ended = trainer.run(manifest(batch_size=8, **LONG))
    assert ended.code == 78, ended.errors
    assert "made by 2 ranks, and this run has 1 rank (replicas.nodes x replicas.gpusPerNode)" in ended.message


def test_a_laptop_says_that_it_is_one_machine(trainer: Trainer, manifest: Manifest) -> None:
    ended = trainer.run(manifest(replicas={"nodes": 2, "gpusPerNode": 0}))
    assert (ended.code, ended.result["reason"]) == (64, "Usage")
    assert "replicas.nodes" in ended.message
