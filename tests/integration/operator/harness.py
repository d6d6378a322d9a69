"""An operator process with exactly the rights it ships with. Used by tests here and by tests/benchmarks."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml

from rectrain_local.ports import free_ports

ROOT = Path(__file__).parents[3]
CRD = ROOT / "crds" / "rectrainingjobs.yaml"
NAMESPACE = "rectrain-system"
ACCOUNT = "rectrain-operator"
DEADLINE_S = 60.0


class Cluster(Protocol):
    """What we use of a control plane."""

    kubeconfig: Path

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""


T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """Poll until `look` gives something true."""
    until = time.monotonic() + deadline_s
    while True:
        result = look()
        if result:
            return result
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(0.05)


def install(cluster: Cluster, folder: Path) -> Path:
    """Install CRD and rights; returns a kubeconfig with the operator's own token."""
    cluster.kubectl("apply", "--server-side", "-f", str(CRD))
    rights = subprocess.run(
        [sys.executable, "-m", "rectrain_operator", "manifests"],
        capture_output=True,
        text=True,
        check=True,
    )
    cluster.kubectl("apply", "-f", "-", stdin=rights.stdout)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRD))
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT, "--duration=24h").stdout.strip()
    return kubeconfig_with_token(cluster, token, folder / "operator.kubeconfig")


def kubeconfig_with_token(cluster: Cluster, token: str, path: Path) -> Path:
    """A kubeconfig for the same server, signed in by a token."""
    config: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
    name = config["clusters"][0]["name"]
    config["contexts"] = [{"name": name, "context": {"cluster": name, "user": ACCOUNT}}]
    config["current-context"] = name
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


def ca_data(cluster: Cluster) -> bytes:
    """The API server's CA."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    return base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])


class OperatorProcess:
    """Starts, stops and kills one operator; its log is in `folder`."""

    def __init__(self, kubeconfig: Path, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.log = folder / "operator.log"
        self.report_port, self.health_port = free_ports(2)
        self.report_url = f"https://127.0.0.1:{self.report_port}"
        self._kubeconfig = kubeconfig
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ca_file(self) -> Path:
        """The CA of its report server."""
        return self.folder / "state" / "ca.crt"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "OperatorProcess":
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "rectrain_operator", "run", "--report-url", self.report_url]
        command += ["--kubeconfig", str(self._kubeconfig), "--state-dir", str(self.folder / "state")]
        command += ["--health-port", str(self.health_port), "--health-host", "127.0.0.1"]
        command += ["--report-host", "127.0.0.1", "--trainer-image", "trainer:test", *self._arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, "NO_PROXY": "*"}
            )
        wait_for("operator ready", self._ready)
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: no time for anything."""
        self._end(signal.SIGKILL)

    def get(self, path: str) -> tuple[int, str]:
        """GET from its health port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError as failed:
            return 0, str(failed)

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"operator ended with {self._process.returncode}:\n{self.log.read_text()}")
        return self.get("/readyz")[0] == 200

    def _end(self, signum: int) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(signum)
        status = self._process.wait(timeout=30)
        self._process = None
        return status


def load(manifest: str) -> dict[str, Any]:
    """One manifest of tests/data/manifests."""
    result: dict[str, Any] = yaml.safe_load((ROOT / "tests/data/manifests" / manifest).read_text())
    return result


def dumps(manifest: dict[str, Any]) -> str:
    """For `kubectl -f -`."""
    return json.dumps(manifest)
