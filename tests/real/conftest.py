"""A cluster with kubelets. `tests/real/run` brings it up and names it in RECTRAIN_REAL_KUBECONFIG.

SeaweedFS is a Deployment, the operator is installed by helm, runs live in a namespace that enforces the
restricted Pod Security Standard.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from examples import demo
from rectrain_api import VERSION
from rectrain_local.assets.cache import Cache
from rectrain_local.assets.makers import find_helm
from rectrain_local.progress import Progress
from tests.support.rig import Rig, small_digits
from tests.support.waiting import wait_until

HERE = Path(__file__).parent
NAMESPACE = "training"
INSIDE = "http://seaweedfs.storage.svc:8333"
STAYS = "rectrain-test/stays=yes"
WORKERS = "!node-role.kubernetes.io/control-plane"
NAMES = "jsonpath={.items[*].metadata.name}"
NEXT = f"{VERSION}-next"
"""Tag of another operator image, to upgrade to."""
RESTART = """
pid=$(cat "$1/run/apiserver.pid")
mapfile -d "" -t command < "/proc/$pid/cmdline"
kill "$pid"
while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
setsid "${command[@]}" >> "$1/log/apiserver.log" 2>&1 < /dev/null &
echo $! > "$1/run/apiserver.pid"
"""
INSTALLED = (
    "--set", f"image.tag={VERSION}",
    "--set", f"trainerImage.tag={VERSION}",
    "--set-string", f"nodeSelector.{STAYS}",
)  # fmt: skip
"""What helm is told: the images of this version, and the operator on the node that stays."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


@dataclass(frozen=True)
class Nodes:
    """The nodes by name. The first one holds S3 and the operator; the others may be harmed."""

    names: tuple[str, ...]
    script: str | None

    def machine(self, *argv: str) -> str:
        """What only the machine under a node can do: `node-stop 2`, `enter node2 …`. Skips without one."""
        if self.script is None:
            pytest.skip("needs the machine under the nodes: real-cluster.sh, by RECTRAIN_REAL_SCRIPT")
        done = subprocess.run([self.script, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def restart_api_server(self) -> None:
        """End it and start it again as it was; returns when it answers."""
        folder = Path(os.environ["RECTRAIN_REAL_KUBECONFIG"]).parent / "ns" / "cp"
        self.machine("enter", "cp", "bash", "-c", RESTART, "restart", str(folder))

        def ready() -> bool:
            with contextlib.suppress(demo.DemoFailed):
                return demo.run("kubectl", "get", "--raw", "/readyz").strip() == "ok"
            return False

        wait_until(ready, 60, "the API server to answer")


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory, cache: Cache) -> Iterator[Nodes]:
    """The cluster, with S3; KUBECONFIG (namespace `training`) and AWS_* point this process at both."""
    kubeconfig = tmp_path_factory.mktemp("cluster") / "kubeconfig"
    kubeconfig.write_text(Path(os.environ["RECTRAIN_REAL_KUBECONFIG"]).read_text())
    script = os.environ.get("RECTRAIN_REAL_SCRIPT")
    keys = {
        "AWS_ACCESS_KEY_ID": f"REAL{secrets.token_hex(8)}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KUBECONFIG", str(kubeconfig))
        environment.setenv("PATH", f"{os.environ['PATH']}:{find_helm(cache, Progress()).parent}")
        environment.setenv("AWS_REGION", "us-east-1")
        for name, value in keys.items():
            environment.setenv(name, value)
        names = tuple(demo.run("kubectl", "get", "nodes", "-l", WORKERS, "-o", NAMES).split())
        demo.run("kubectl", "label", "node", names[0], STAYS, "--overwrite")
        store(keys)
        demo.run("kubectl", "config", "set-context", "--current", f"--namespace={NAMESPACE}")
        with s3_from_here(direct=script is not None) as endpoint:
            environment.setenv("AWS_ENDPOINT_URL_S3", endpoint)
            yield Nodes(names, script)
        shutil.rmtree(f"/var/tmp/rectrain-test-{keys['AWS_ACCESS_KEY_ID']}", ignore_errors=True)


def store(keys: dict[str, str]) -> None:
    """SeaweedFS, answering, in a folder of its own: it keeps the keys that it was first started with."""
    folder = f"rectrain-test-{keys['AWS_ACCESS_KEY_ID']}"
    text = (HERE / "storage.yaml").read_text().replace("FOLDER", folder)
    demo.run("kubectl", "apply", "-f", "-", stdin=text)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": "storage"},
        "stringData": keys,
    }
    demo.run("kubectl", "apply", "-f", "-", stdin=json.dumps(secret))
    demo.run("kubectl", "-n", "storage", "rollout", "status", "deployment/seaweedfs", "--timeout=120s")


@contextlib.contextmanager
def s3_from_here(*, direct: bool) -> Iterator[str]:
    """S3's endpoint for this process: the Service's own address, or a forwarded port."""
    if direct:
        address = demo.run(
            "kubectl", "-n", "storage", "get", "svc/seaweedfs", "-o", "jsonpath={.spec.clusterIP}"
        )
        wait_until(s3_answers(f"http://{address}:8333"), 60, "S3 to answer")
        yield f"http://{address}:8333"
        return
    command = ["kubectl", "-n", "storage", "port-forward", "svc/seaweedfs", "18333:8333"]
    forward = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(s3_answers("http://127.0.0.1:18333"), 60, "S3 to answer")
        yield "http://127.0.0.1:18333"
    finally:
        forward.terminate()
        forward.wait()


def s3_answers(endpoint: str) -> Callable[[], bool]:
    """Whether an object can be put there: buckets can be made sooner."""

    def answers() -> bool:
        client = boto3.client("s3", endpoint_url=endpoint)
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"")
        except (BotoCoreError, ClientError):
            return False
        return True

    return answers


@pytest.fixture(scope="session")
def rig_files(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The operator by its chart, bucket and a small data set."""
    demo.install(*INSTALLED, namespace=NAMESPACE, endpoint=INSIDE)
    yield small_digits(tmp_path_factory.mktemp("rig"))
    demo.run("helm", "uninstall", demo.RELEASE, "-n", demo.OPERATOR_NAMESPACE)


@pytest.fixture
def rig(rig_files: Rig) -> Iterator[Rig]:
    """The small data set; a test's runs end with it."""
    yield rig_files
    rig_files.end()


@pytest.fixture
def spare(nodes: Nodes) -> Iterator[str]:
    """A node that may be harmed, the only one that takes pods just now; `kubectl uncordon` opens the rest."""
    if len(nodes.names) < 2:
        pytest.skip("needs two nodes")
    for name in nodes.names:
        demo.run("kubectl", "cordon" if name != nodes.names[1] else "uncordon", name)
    yield nodes.names[1]
    for name in nodes.names:
        demo.run("kubectl", "uncordon", name)
