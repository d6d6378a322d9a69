"""The whole path on one machine: real control plane, SeaweedFS, one process node, the operator on the host.

The parts are those of the demo (`examples/demo.py`): what the demo does by hand, the tests do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples import demo
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster(control_plane: Any, seaweed: Any, process_node: Any) -> Iterator[None]:
    """KUBECONFIG and the AWS_* names of the session's cluster, in this process's environment."""
    names = {"KUBECONFIG": str(control_plane.kubeconfig), **seaweed.env}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@dataclass
class Rig:
    """What a test does to runs; every wait has a deadline and says what it waited for."""

    work: Path
    kubeconfig: Path
    digits: str
    """URI of a small packed set of digits."""
    jobs: list[str] = field(default_factory=list)

    def apply(self, name: str, **changes: Any) -> None:
        """Create a run on the small digits, with changes by dotted path (`data.train`=…)."""
        job = yaml.safe_load((ROOT / "examples/digits/rectrainingjob.yaml").read_text())
        job["metadata"]["name"] = name
        settings = {
            "data.train": self.digits,
            "checkpoint.uri": f"s3://{demo.BUCKET}/runs/{name}",
            "checkpoint.interval": 5,
            "training.epochs": 1,
            "training.batchSize": 32,
            "runPolicy.terminationGraceSeconds": 30,
        }
        for path, value in (settings | changes).items():
            *parents, leaf = path.split(".")
            node = job["spec"]
            for key in parents:
                node = node.setdefault(key, {})
            node[leaf] = value
        self.jobs.append(name)
        demo.run("kubectl", "apply", "-f", "-", stdin=json.dumps(job))

    def status(self, name: str) -> dict[str, Any]:
        """Status of a run."""
        return demo.status_of(name)

    def wait_status(self, name: str, what: str, holds: Any, deadline_s: float = 180) -> dict[str, Any]:
        """The first status for which `holds`; fails with the last one."""
        seen: dict[str, Any] = {}

        def check() -> bool:
            seen.clear()
            seen.update(self.status(name))
            if seen.get("phase") == "Failed" and what != "Failed":
                raise AssertionError(f"{name} failed: {seen.get('message')}")
            return bool(holds(seen))

        wait_until(check, deadline_s, lambda: f"{name}: {what}; last status {json.dumps(seen, indent=1)}")
        return seen

    def wait_phase(self, name: str, phase: str, deadline_s: float = 240) -> dict[str, Any]:
        """Wait for a phase."""
        return self.wait_status(name, phase, lambda s: s.get("phase") == phase, deadline_s)

    def wait_committed(self, name: str, step: int = 1) -> dict[str, Any]:
        """Wait until a checkpoint of at least this step is known."""
        return self.wait_status(
            name,
            f"a checkpoint at step {step} or later",
            lambda s: s.get("checkpoint", {}).get("latest", {}).get("step", 0) >= step,
        )

    def records(self, name: str) -> list[dict[str, Any]]:
        """The run's log in S3, in order."""
        s3 = demo.s3_client()
        prefix = f"runs/{name}/log/"
        keys = [o["Key"] for o in s3.list_objects_v2(Bucket=demo.BUCKET, Prefix=prefix).get("Contents", [])]
        return [json.loads(s3.get_object(Bucket=demo.BUCKET, Key=k)["Body"].read()) for k in sorted(keys)]

    def first_step(self, name: str, attempt: int) -> int:
        """The first optimizer step that an attempt did, from its metrics in S3."""
        s3 = demo.s3_client()
        prefix = f"runs/{name}/attempts/{attempt:04d}/metrics/"
        first = s3.list_objects_v2(Bucket=demo.BUCKET, Prefix=prefix)["Contents"][0]["Key"]
        rows = s3.get_object(Bucket=demo.BUCKET, Key=first)["Body"].read().splitlines()
        return int(json.loads(rows[0])["step"])

    def wait_job_complete(self, name: str) -> None:
        """Wait for the batch/v1 Job itself, whoever watches."""
        demo.run("kubectl", "wait", "--for=condition=Complete", f"job/{name}", "--timeout=240s")

    def trainer_pids(self, name: str) -> list[int]:
        """Host PIDs of this run's trainer processes, parents first."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"RECTRAIN_NAME={name}".encode() in environment and b"rectrain-trainer" in command:
                found.append(int(entry.name))
        return sorted(found)


def failed_reason(status: dict[str, Any]) -> str:
    """Reason of the condition Failed."""
    return next(str(c["reason"]) for c in status["conditions"] if c["type"] == "Failed")


@pytest.fixture(scope="session")
def rig_files(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """CRD, rights, bucket and a small data set, once."""
    work = tmp_path_factory.mktemp("rig")
    kubeconfig = demo.install(work)
    subprocess.run([demo.BIN / "rectrain-data", "demo", work / "small", "--count", "600"], check=True)
    demo.ensure_bucket()
    uri = f"s3://{demo.BUCKET}/small"
    subprocess.run([demo.BIN / "rectrain-data", "upload", work / "small" / "packed", uri], check=True)
    return Rig(work=work, kubeconfig=kubeconfig, digits=uri)


@pytest.fixture(scope="module")
def rig(rig_files: Rig) -> Iterator[Rig]:
    """The small data set with an operator running."""
    with demo.operator(rig_files.work, rig_files.kubeconfig):
        yield rig_files
        for name in rig_files.jobs:
            demo.run("kubectl", "delete", "rectrainingjob", name, "--ignore-not-found", "--wait=false")
        rig_files.jobs.clear()


@dataclass(frozen=True)
class DemoRun:
    """What the demo said."""

    exit_code: int
    said: str


@pytest.fixture(scope="session")
def demo_run(cluster: None) -> DemoRun:
    """The demo as `make demo` runs it, on the session's cluster."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--inside"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    return DemoRun(done.returncode, done.stdout + done.stderr)
