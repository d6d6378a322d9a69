"""helm, both major versions that we support: those of PATH aren't asked, so that both are always tried."""

import os
import subprocess
from pathlib import Path

import pytest

from rectrain_local.assets.cache import Cache
from rectrain_local.assets.gobuild import GoBuild
from rectrain_local.assets.resolve import resolve_tool
from rectrain_local.progress import Progress

CHART = Path(__file__).resolve().parents[2] / "charts" / "rectrain-operator"


class Helm:
    """Runs one helm; its settings stay in a folder of its own."""

    def __init__(self, program: Path, home: Path) -> None:
        self.program = program
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def tried(self, *argv: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = self._env | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
        return subprocess.run(
            [self.program, *argv], env=env, capture_output=True, text=True, check=False, timeout=180
        )

    def __call__(self, *argv: str, kubeconfig: Path | None = None) -> str:
        done = self.tried(*argv, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session", params=["helm", "helm3"])
def helm(request: pytest.FixtureRequest, cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """helm 4, then helm 3."""
    program = resolve_tool(request.param, cache, [GoBuild()], Progress())
    return Helm(program, tmp_path_factory.mktemp("helm"))
