"""The CRD on the real API server, and a client that sees its answers."""

from collections.abc import AsyncIterator, Iterator

import pytest

from rectrain_local.controlplane import ControlPlane
from rectrain_operator.client import KubeClient, load_configuration
from rectrain_operator.limits import WriteLimits
from tests.integration.operator.harness import CRD

NAMESPACE = "api-tests"


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of our own, with the CRD installed."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRD))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRD))
    control_plane.kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    """The administrator's client."""
    client = KubeClient(await load_configuration(control_plane.kubeconfig), WriteLimits(lambda: 0.0))
    yield client
    await client.close()
