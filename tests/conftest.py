"""The real parts that tests share: one control plane, one S3 store, one process node a session, started when
first asked for. They live and die with pytest's main thread, whatever happens to it.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rectrain_local.assets.bubblewrap import find_bubblewrap
from rectrain_local.assets.cache import Cache, cache_root
from rectrain_local.assets.makers import default_makers
from rectrain_local.assets.resolve import Binaries, resolve_binaries
from rectrain_local.controlplane import ControlPlane
from rectrain_local.environments import ANY_IMAGE, parse_images
from rectrain_local.nodes import NodeSpec, ProcessNode
from rectrain_local.progress import Progress
from rectrain_local.s3 import SeaweedS3

NODE = "node-1"


def pytest_configure() -> None:
    """Ctrl-C is tested also where the caller ignores it, as a shell does for its background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def sigterm_kept() -> Iterator[None]:
    """A trainer's `Interrupt` takes SIGTERM for good: the next test starts without it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def local_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the session's cluster keeps its files."""
    folder = tmp_path_factory.mktemp("local")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cache() -> Cache:
    """The user's own: what `make` built is used again."""
    return Cache(cache_root())


@pytest.fixture(scope="session")
def binaries(cache: Cache) -> Binaries:
    """Programs of the control plane, built if there are none yet."""
    return resolve_binaries(Progress(), cache, default_makers())


@pytest.fixture(scope="session")
def control_plane(local_state: Path, binaries: Binaries) -> Iterator[ControlPlane]:
    """etcd, API server, controller manager, scheduler. `.kubeconfig`, `.kubectl(…)`."""
    plane = ControlPlane(local_state / "control-plane", binaries)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture(scope="session")
def seaweed(local_state: Path, binaries: Binaries) -> Iterator[SeaweedS3]:
    """S3. `.endpoint`, `.access_key`, `.secret_key`, `.env`, `.make_bucket(name)`."""
    store = SeaweedS3(local_state / "s3", binaries.weed)
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="session")
def process_node(local_state: Path, control_plane: ControlPlane, cache: Cache) -> Iterator[ProcessNode]:
    """A node whose images are all the running Python environment, with two GPUs for scheduling."""
    spec = NodeSpec(NODE, {ANY_IMAGE: parse_images([])[ANY_IMAGE]}, gpus=2)
    node = ProcessNode(local_state / "node", spec, control_plane, find_bubblewrap(cache, Progress()))
    node.start()
    yield node
    node.stop()
