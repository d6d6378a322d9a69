"""An operator with its own rights on the real control plane, and a hand that plays the kubelet.

The runs here ask for a node that doesn't exist, so that no real node ever takes their pods.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rectrain_api.report import report_audience, report_path
from rectrain_local.controlplane import ControlPlane
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient, load_configuration
from rectrain_operator.keys import JobKey, Manifest
from rectrain_operator.limits import WriteLimits
from rectrain_operator.views import INDEX_LABEL
from tests.integration.operator.harness import OperatorProcess, install, load

DEADLINE_S = 60.0
NAMESPACE = "operator-tests"


@pytest.fixture(scope="module")
def rights(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig with the operator's rights, and no more."""
    return install(control_plane, tmp_path_factory.mktemp("rights"))


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, rights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """A running operator that watches our namespace."""
    control_plane.kubectl("create", "namespace", NAMESPACE, check=False)
    process = OperatorProcess(rights, tmp_path_factory.mktemp("operator"), "--namespace", NAMESPACE)
    yield process.start()
    process.kill()
    control_plane.kubectl("delete", "rtj", "--all", "-n", NAMESPACE, "--wait=false")


@dataclass
class Hand:
    """What a user and a kubelet would do to one run, and what they would see."""

    client: KubeClient
    operator: OperatorProcess
    key: JobKey
    extra: dict[str, Any] = field(default_factory=dict)

    async def create(
        self, *, nodes: int = 1, pretrained: dict[str, Any] | None = None, **policy: Any
    ) -> Manifest:
        """Make the run."""
        manifest = load("minimal.yaml")
        manifest["metadata"]["name"] = self.key.name
        manifest["spec"]["replicas"] = {"nodes": nodes, "nodeSelector": {"rectrain.dev/no": "node"}}
        manifest["spec"]["runPolicy"] = policy
        if pretrained:
            manifest["spec"]["model"]["pretrained"] = pretrained
        return await self.client.post(paths.runs(self.key.namespace), manifest)

    async def run(self) -> Manifest:
        """The run as it is."""
        return await self.client.get(paths.run(self.key))

    async def status(self) -> dict[str, Any]:
        """Its status."""
        found: dict[str, Any] = (await self.run()).get("status") or {}
        return found

    async def until_phase(self, *phases: str, but: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        """Wait for a phase (and something more); returns the status."""

        async def look() -> dict[str, Any] | None:
            status = await self.status()
            return status if status.get("phase") in phases and (but is None or but(status)) else None

        return await until(f"{self.key} {phases}", look, self.status)

    async def pods(self) -> list[Manifest]:
        """Its pods, oldest first."""
        query = {"labelSelector": f"rectrain.dev/job={self.key.name}"}
        items = (await self.client.get(paths.collection("Pod", self.key.namespace), query))["items"]
        return sorted(items, key=lambda p: int(p["metadata"]["resourceVersion"]))

    async def live_pod(self, index: int = 0) -> Manifest:
        """The pod of an index that hasn't ended, once it is there."""

        async def look() -> Manifest | None:
            own = [p for p in await self.pods() if p["metadata"]["labels"].get(INDEX_LABEL) == str(index)]
            alive = [p for p in own if p["status"]["phase"] in ("Pending", "Running")]
            return alive[0] if alive else None

        found: Manifest = await until(f"a pod of {self.key}", look)
        return found

    async def job(self) -> Manifest:
        """Its batch/v1 Job."""
        return await self.client.get(paths.single("Job", *self.key))

    async def set_pod(self, pod: Manifest, phase: str, state: dict[str, Any]) -> None:
        """What the kubelet would write."""
        container = {
            "name": "trainer",
            "image": "x",
            "imageID": "x",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        path = paths.itself({**pod, "kind": "Pod"}) + "/status"
        scheduled = {"type": "PodScheduled", "status": "True"}
        status = {"phase": phase, "containerStatuses": [container], "conditions": [scheduled]}
        await self.client.merge_patch(path, {"status": status})

    async def start_pod(self, index: int = 0) -> Manifest:
        """Wait for the pod of an index, and let its trainer run."""
        pod = await self.live_pod(index)
        await self.set_pod(pod, "Running", {"running": {"startedAt": "2026-01-02T03:04:05Z"}})
        return pod

    async def end_pod(self, pod: Manifest, code: int, message: str = "") -> None:
        """Let its trainer end."""
        ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": message,
            "startedAt": "2026-01-02T03:04:05Z",
            "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        await self.set_pod(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    async def token(self, pod: Manifest, audience: str | None = None) -> str:
        """A token as the kubelet would project it into the pod."""
        uid = (await self.run())["metadata"]["uid"]
        bound = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience or report_audience(uid)], "boundObjectRef": bound},
        }
        namespace = pod["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
        answer = await self.client.post(path, request)
        token: str = answer["status"]["token"]
        return token

    async def report(
        self, token: str, body: dict[str, Any] | bytes, key: JobKey | None = None
    ) -> tuple[int, str]:
        """PUT a report, as the trainer does; returns code and body."""
        context = ssl.create_default_context(cafile=str(self.operator.ca_file))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = self.operator.report_url + report_path(*(key or self.key))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.put(url, data=data, headers=headers, ssl=context) as answer,
        ):
            return answer.status, await answer.text()

    async def delete(self) -> None:
        """Delete the run as a user would."""
        await delete(self.client, paths.run(self.key))


async def delete(client: KubeClient, path: str) -> None:
    """DELETE, which the operator itself never does."""
    configuration = client._configuration
    response = await client._api.call_api("DELETE", configuration.host + path, header_params={})
    if response.status not in (200, 202, 404):
        raise ApiError(response.status, str(await response.read()))
    await response.read()


async def until(
    what: str, look: Callable[[], Awaitable[Any]], shown: Callable[[], Awaitable[Any]] | None = None
) -> Any:
    """Poll until `look` gives something true."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(
                f"{what}: not within {DEADLINE_S} s; now {await shown() if shown else found}"
            )
        await asyncio.sleep(0.05)


def words(**fields: Any) -> str:
    """A termination message."""
    return json.dumps(fields)


@pytest.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """The administrator's client."""
    client = KubeClient(await load_configuration(control_plane.kubeconfig), WriteLimits(lambda: 0.0))
    yield client
    await client.close()


@pytest.fixture
def hand(client: KubeClient, operator: OperatorProcess, request: pytest.FixtureRequest) -> Hand:
    """A hand for a run named after the test."""
    name = request.node.name.removeprefix("test_").split("[")[0].replace("_", "-")[:38].strip("-")
    return Hand(client, operator, JobKey(NAMESPACE, name))
