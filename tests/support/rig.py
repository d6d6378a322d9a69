"""Runs on a cluster, as tests drive them. The parts are the demo's: what it does by hand, the tests do."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from examples import demo
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Rig:
    """What a test does to runs; every wait has a deadline and says what it waited for."""

    work: Path
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
        listed = s3.list_objects_v2(Bucket=demo.BUCKET, Prefix=prefix).get("Contents", [])
        rows: list[dict[str, Any]] = []
        for key in sorted(o["Key"] for o in listed):  # the first may hold an evaluation made up for alone
            content = s3.get_object(Bucket=demo.BUCKET, Key=key)["Body"].read()
            rows += map(json.loads, content.splitlines())
        return next(int(row["step"]) for row in rows if row["kind"] == "train")

    def wait_job_complete(self, name: str) -> None:
        """Wait for the batch/v1 Job itself, whoever watches."""
        demo.run("kubectl", "wait", "--for=condition=Complete", f"job/{name}", "--timeout=240s")

    def end(self) -> None:
        """Delete all runs."""
        for name in self.jobs:
            demo.run("kubectl", "delete", "rectrainingjob", name, "--ignore-not-found", "--wait=false")
        self.jobs.clear()

    def scale_operator(self, replicas: int) -> None:
        """Send the operator away (0) or have it back (1); returns when that is so."""
        run, name = ("kubectl", "-n", demo.OPERATOR_NAMESPACE), f"deployment/{demo.RELEASE}"
        demo.run(*run, "scale", name, f"--replicas={replicas}")
        if replicas:
            demo.run(*run, "rollout", "status", name, "--timeout=120s")
        else:
            selector = "app.kubernetes.io/name=rectrain-operator"
            demo.run(*run, "wait", "--for=delete", "pod", "-l", selector, "--timeout=120s")

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


def small_digits(work: Path) -> Rig:
    """The bucket, and a small data set in it: 600 images, 473 of them for training."""
    subprocess.run([demo.BIN / "rectrain-data", "demo", work / "small", "--count", "600"], check=True)
    demo.ensure_bucket()
    uri = f"s3://{demo.BUCKET}/small"
    subprocess.run([demo.BIN / "rectrain-data", "upload", work / "small" / "packed", uri], check=True)
    return Rig(work=work, digits=uri)
