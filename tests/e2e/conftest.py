"""The whole path on one machine: control plane, SeaweedFS, a process node, the operator by its chart."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from examples import demo
from rectrain_local.assets.cache import Cache
from rectrain_local.assets.makers import find_helm
from rectrain_local.progress import Progress
from tests.support.rig import ROOT, Rig, small_digits


@pytest.fixture(scope="package")
def cluster(control_plane: Any, seaweed: Any, process_node: Any, cache: Cache) -> Iterator[None]:
    """KUBECONFIG, the AWS_* names and helm, in this process's environment."""
    path = f"{os.environ['PATH']}:{find_helm(cache, Progress()).parent}"
    names = {"KUBECONFIG": str(control_plane.kubeconfig), "PATH": path, **seaweed.env}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="package")
def rig_files(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The operator by its chart, bucket and a small data set, once; the operator goes with the last test."""
    demo.install()
    yield small_digits(tmp_path_factory.mktemp("rig"))
    demo.run("helm", "uninstall", demo.RELEASE, "-n", demo.OPERATOR_NAMESPACE, "--wait")


@pytest.fixture(scope="module")
def rig(rig_files: Rig) -> Iterator[Rig]:
    """The small data set; runs of a module end with it."""
    yield rig_files
    rig_files.end()


@dataclass(frozen=True)
class DemoRun:
    """What the demo said."""

    exit_code: int
    said: str


@pytest.fixture(scope="package")
def demo_run(rig_files: Rig) -> DemoRun:
    """The demo as `make demo` runs it, on the session's cluster."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--inside"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    return DemoRun(done.returncode, done.stdout + done.stderr)
