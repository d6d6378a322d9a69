"""`rectrain-trainer checkpoints ls|verify|pull` on a run made once, and on damaged copies of it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.records import record_key
from rectrain_data.transfer import sha256_file
from rectrain_local.s3 import SeaweedS3
from tests.integration.trainer_run.conftest import unfinished
from tests.support.trainer import COMMAND, Place


@dataclass
class Command:
    """`rectrain-trainer checkpoints`, with this S3 service in its environment."""

    env: dict[str, str]
    folder: Path

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "checkpoints", *arguments],
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self(*arguments, "--json")
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture(scope="module")
def env(seaweed: SeaweedS3) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")} | seaweed.env


@pytest.fixture
def command(env: dict[str, str], tmp_path: Path) -> Command:
    return Command(env, tmp_path)


def test_ls_tells_the_whole_run(command: Command, finished: Place) -> None:
    document = command.json("ls", finished.uri)
    state = finished.state()
    assert state.best is not None
    assert (document["run"], document["state"], document["epochs"]) == ("default/digits", "Finished", 2)
    assert document["plan"]["model"]["preset"] == "svtr_nano"
    [attempt] = document["attempts"]
    assert (attempt["end"], attempt["reachedTraining"], attempt["lastCheckpoint"]) == ("Completed", True, 6)
    assert attempt["ended"] >= attempt["started"]
    assert [c["step"] for c in document["checkpoints"]] == sorted(c.step for c in state.checkpoints)
    assert [c["step"] for c in document["checkpoints"] if c["best"]] == [state.best.step]
    assert [c["step"] for c in document["checkpoints"] if c["newest"]] == [6]
    assert all(c["bytes"] > 1_000_000 for c in document["checkpoints"])
    assert document["final"]["export"] == f"{finished.uri}/attempts/0001/export"
    assert document["final"]["metrics"]["samples"] == 16
    assert document["planChanges"] == document["damaged"] == []


def test_ls_in_a_pipe_is_plain_and_cuts_nothing(command: Command, finished: Place) -> None:
    done = command("ls", finished.uri, COLUMNS="40", FORCE_COLOR="")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert f"place    {finished.uri}" in [line.rstrip() for line in lines]
    [header] = [line for line in lines if line.startswith("#")]
    assert header.split() == ["#", "started", "(UTC)", "ended", "(UTC)", "end", "trained", "checkpoints"]
    [newest] = [line for line in lines if "newest" in line]
    assert newest.split()[:2] == ["6", "2"]


def test_verify_reads_a_whole_run(command: Command, finished: Place) -> None:
    done = command("verify", finished.uri)
    assert done.returncode == 0, done.stderr
    assert f"files of {finished.uri} are whole" in done.stdout
    document = command.json("verify", finished.uri)
    state = finished.state()
    assert document["whole"] is True
    assert document["files"] == 4 * len(state.checkpoints) + len(state.final.export_files)  # type: ignore[union-attr]
    assert document["resume"] == "The run is finished: nothing is left to train."


def test_verify_names_every_damaged_file(command: Command, copy: Place) -> None:
    newest, older = unfinished(copy).state().newest_first()[:2]
    damaged = {
        f"{newest.prefix}/model.pdparams": "doesn't match its sha256",
        f"{newest.prefix}/state.json": "is missing",
        f"{newest.prefix}/config.yml": "has 3 bytes instead of",
    }
    data = bytearray(copy.store.get_bytes(f"{newest.prefix}/model.pdparams"))
    data[len(data) // 2] ^= 1
    copy.store.put_bytes(f"{newest.prefix}/model.pdparams", bytes(data))
    copy.store.delete([f"{newest.prefix}/state.json"])
    copy.store.put_bytes(f"{newest.prefix}/config.yml", b"a: ")
    done = command("verify", copy.uri)
    assert done.returncode == 65
    for key, problem in damaged.items():
        assert f"step {newest.step}\t{copy.uri}/{key} {problem}" in done.stdout
    assert f"A resumed run goes on from step {older.step} " in done.stdout
    assert f"3 of {4 * len(copy.state().checkpoints)} files of {copy.uri} are damaged" in done.stderr
    document = command.json("verify", copy.uri)
    assert (len(document["problems"]), document["resumesFrom"]) == (3, older.step)


def test_a_damaged_log_is_told(command: Command, copy: Place) -> None:
    copy.store.put_bytes(record_key(2), b"{")
    copy.store.delete([record_key(3)])
    listed = command.json("ls", copy.uri)
    assert [d["record"] for d in listed["damaged"]] == [f"{copy.uri}/{record_key(n)}" for n in (2, 3)]
    assert "is missing" in command("ls", copy.uri).stdout
    done = command("verify", copy.uri)
    assert done.returncode == 65
    assert f"log\t{copy.uri}/{record_key(3)} is missing" in done.stdout
    assert "2 record(s) of the log" in done.stderr


def test_verify_tells_when_nothing_is_whole(command: Command, copy: Place) -> None:
    for record in unfinished(copy).state().checkpoints:
        copy.store.delete([f"{record.prefix}/model.pdopt"])
    done = command("verify", copy.uri)
    assert done.returncode == 65
    assert "A resumed run would refuse to go on: none of its checkpoints is whole." in done.stdout


@pytest.mark.parametrize("which", ["best", "latest", "step"])
def test_pull_fetches_one(command: Command, finished: Place, which: str) -> None:
    state = finished.state()
    assert state.best is not None
    newest = state.newest_first()[0]
    record = state.checkpoint_at(state.best.prefix) if which == "best" else newest
    assert record is not None
    name = str(newest.step) if which == "step" else which
    document = command.json("pull", finished.uri, "here/it", "--checkpoint", name)
    assert (document["step"], document["pretrainedModel"]) == (record.step, "here/it/model")
    for file in record.files:
        assert sha256_file(command.folder / "here/it" / file.name) == file.sha256
    assert [p.name for p in (command.folder / "here").iterdir()] == ["it"]


def test_pull_names_its_folder_and_refuses_one_that_is_taken(command: Command, finished: Place) -> None:
    done = command("pull", finished.uri, "--checkpoint", "latest")
    assert done.returncode == 0, done.stderr
    assert "digits-step-000006 holds step 6 (epoch 2" in done.stdout
    assert "-o Global.pretrained_model=digits-step-000006/model" in done.stdout
    again = command("pull", finished.uri, "--checkpoint", "latest")
    assert again.returncode == 64
    assert "digits-step-000006 exists and isn't an empty folder" in again.stderr


def test_what_pull_says_can_be_pasted_into_a_shell(command: Command, finished: Place) -> None:
    done = command("pull", finished.uri, "my model")
    assert "-o 'Global.pretrained_model=my model/model'" in done.stdout


def test_pull_of_a_damaged_one_leaves_nothing(command: Command, copy: Place) -> None:
    newest = copy.state().newest_first()[0]
    copy.store.put_bytes(f"{newest.prefix}/model.pdopt", b"other")
    done = command("pull", copy.uri, "it", "--checkpoint", "latest")
    assert done.returncode == 65
    assert f"The checkpoint of step 6 is damaged ({copy.uri}/{newest.prefix}/model.pdopt has 5" in done.stderr
    assert list(command.folder.iterdir()) == []


SLOW = """
import sys, time
from rectrain_data.transfer import Store
from rectrain_trainer.checkpoints import verify

def slowed(request):
    def slow(*arguments):
        print("reading", flush=True)
        time.sleep(0.5)
        return request(*arguments)
    return slow

verify.PART_BYTES = 4096  # so that one file takes minutes
Store.request_part, Store.request_whole = slowed(Store.request_part), slowed(Store.request_whole)
sys.argv[1:1] = ["checkpoints"]
from rectrain_trainer.cli import main
main()
"""


@pytest.mark.parametrize("what", ["verify", "pull"])
def test_ctrl_c_ends_in_a_sentence_and_leaves_nothing(command: Command, finished: Place, what: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, what, finished.uri],
        env=command.env,
        cwd=command.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        said = process.stderr.read()
    assert "Interrupted: nothing that looks whole and isn't was left behind." in said
    assert "Traceback" not in said
    assert list(command.folder.iterdir()) == []


@pytest.mark.parametrize("what", ["ls", "verify", "pull"])
def test_what_is_no_run_is_refused(command: Command, finished: Place, what: str) -> None:
    nothing = f"{finished.uri}-nothing"
    for uri, code, said in (
        ("bucket/run", 66, "There is no folder bucket/run: correct the path; a place in S3 is written s3://"),
        ("gs://bucket/run", 78, "'gs://bucket/run' isn't an S3 URI: write it like s3://bucket/folder."),
        (nothing, 66, f"There is nothing at {nothing}: name a run's place, as checkpoint.uri of its"),
        (f"{finished.uri}/attempts", 66, f"{finished.uri}/attempts isn't a run's place (it has 0001/"),
        ("s3://no-such-bucket/run", 66, "The bucket no-such-bucket of s3://no-such-bucket/run"),
    ):
        done = command(what, uri)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_bad_arguments_are_refused(command: Command, finished: Place) -> None:
    for arguments, env, code, said in (
        (["ls", finished.uri], {"AWS_SECRET_ACCESS_KEY": "wrong"}, 77, "check AWS_SECRET_ACCESS_KEY"),
        (["pull", finished.uri, "--checkpoint", "7"], {}, 66, "has no checkpoint of step 7; it has "),
        (["pull", finished.uri, "--checkpoint", "x"], {}, 64, "'x' isn't one: name best, latest or a step"),
        (["ls"], {}, 64, "Missing argument"),
        (["pull", finished.uri, "/dev/null/x"], {}, 66, "/dev/null/x"),
    ):
        done = command(*arguments, **env)  # type: ignore[arg-type]
        assert done.returncode == code, done.stderr
        assert said in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
