"""`rectrain-trainer` as a process over a real S3 service, its run's place read from outside, and a tiny set
of digits to train on. Shared by the tests of runs and by the chaos ones.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rectrain_api.records import Record, parse_record
from rectrain_api.run_log import RunLog
from rectrain_api.run_state import RunState
from rectrain_data import demo, images
from rectrain_data.packed import PackedWriter
from rectrain_data.split import EVAL, TRAIN
from rectrain_data.transfer import S3Options, Store, Upload, open_store
from tests.support.waiting import wait_until

COMMAND = [sys.executable, "-m", "rectrain_trainer"]
TRAIN_SAMPLES, EVAL_SAMPLES = 48, 16
RUN_DEADLINE_S = 240.0


@dataclass
class Ended:
    """What is left of a run."""

    code: int
    result: dict[str, Any]
    errors: str

    @property
    def message(self) -> str:
        return str(self.result.get("message", ""))


@dataclass
class Started:
    """A run under way."""

    process: subprocess.Popen[bytes]
    log: Path
    termination: Path

    def errors(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> Ended:
        try:
            code = self.process.wait(RUN_DEADLINE_S)
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"still running after {RUN_DEADLINE_S:.0f} s:\n{self.errors()}") from e
        text = self.termination.read_text() if self.termination.exists() else "{}"
        return Ended(code, json.loads(text), self.errors())

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition of a run that must not end before."""
        wait_until(
            lambda: condition() or self.process.poll() is not None,
            120,
            lambda: f"{what}; it said:\n{self.errors()}",
        )
        assert condition(), f"it ended ({self.process.returncode}) before {what}:\n{self.errors()}"

    def kill(self) -> None:
        """As a node that loses power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@dataclass
class Trainer:
    """`rectrain-trainer` with this S3 service in its environment."""

    folder: Path
    env: dict[str, str]
    started: list[Started] = field(default_factory=list)
    wrapper: list[str] = field(default_factory=list)
    """A command that starts ours, such as `unshare`."""
    ranks_per_pod: int = 1
    """On CPUs, as it would be on so many GPUs."""

    @property
    def our_command(self) -> list[str]:
        if self.ranks_per_pod == 1:
            return COMMAND
        return [sys.executable, "-m", "tests.support.ranks_in_a_pod", str(self.ranks_per_pod)]

    def start(self, manifest: dict[str, Any], *arguments: str, **env: str) -> Started:
        job = self.folder / f"{uuid.uuid4().hex[:8]}.yaml"
        job.write_text(yaml.safe_dump(manifest))
        return self.start_with(["run", "-f", str(job), *arguments], **env)

    def start_with(self, arguments: list[str], **env: str) -> Started:
        name = uuid.uuid4().hex[:8]
        log, termination = self.folder / f"{name}.log", self.folder / f"{name}.end"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*self.wrapper, *self.our_command, *arguments],
                env=self.env | {"RECTRAIN_TERMINATION_LOG": str(termination)} | env,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        self.started.append(Started(process, log, termination))
        return self.started[-1]

    def run(self, manifest: dict[str, Any], *arguments: str, **env: str) -> Ended:
        return self.start(manifest, *arguments, **env).wait()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def close(self) -> None:
        for one in self.started:
            one.kill()


@dataclass
class Place:
    """A run's place in S3, read from outside."""

    uri: str
    store: Store

    def state(self) -> RunState:
        return RunLog(self.store, self.uri).read()

    def records(self) -> list[Record]:
        return [parse_record(self.store.get_bytes(k), k) for k in self.store.list_keys("log/")]

    def steps(self) -> list[int]:
        return [c.step for c in self.state().checkpoints]

    def metrics(self, attempt: int) -> list[dict[str, Any]]:
        keys = self.store.list_keys(f"attempts/{attempt:04d}/metrics/")
        lines = b"".join(self.store.get_all(keys)).splitlines()
        return [json.loads(line) for line in lines]

    def trained(self, attempt: int) -> list[int]:
        """The steps that an attempt trained: not the evaluations, which it may make up for."""
        return [row["step"] for row in self.metrics(attempt) if row["kind"] == "train"]

    def report(self) -> dict[str, Any]:
        """report.json of a run that is complete."""
        found: dict[str, Any] = json.loads(self.store.get_bytes("report/report.json"))
        return found


def environment(s3: Mapping[str, str]) -> dict[str, str]:
    """What a trainer finds: little of ours, this S3 service, and one thread."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR")
    return {k: v for k, v in os.environ.items() if k in keep} | dict(s3) | {"OMP_NUM_THREADS": "1"}


def new_place(bucket: str, s3: S3Options) -> Place:
    """An empty one."""
    uri = f"{bucket}/runs/{uuid.uuid4().hex[:8]}"
    return Place(uri, open_store(uri, s3))


def digits() -> list[tuple[str, bytes]]:
    """Samples for both splits: text and PNG."""
    return [demo.sample(7, number) for number in range(TRAIN_SAMPLES + EVAL_SAMPLES)]


def upload_packed(samples: Sequence[tuple[str, bytes]], folder: Path, store: Store) -> str:
    """Pack the samples in a new folder, training split first; returns the set's URI."""
    with PackedWriter(folder) as writer:
        for number, (text, data) in enumerate(samples):
            height, width = images.decode(data).shape[:2]
            split = TRAIN if number < TRAIN_SAMPLES else EVAL
            writer.add(split, f"images/{number:05d}.png", data, text, width=width, height=height)
        writer.finish()
    files = [p for p in folder.rglob("*") if p.is_file()]
    store.upload_all([Upload(p, str(p.relative_to(folder))) for p in files])
    return store.uri
