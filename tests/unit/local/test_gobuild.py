"""The build with Go: what it runs, what it shows, and what it leaves when it fails or is interrupted."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rectrain_local.assets import gobuild
from rectrain_local.assets.gobuild import BUILDS, Build, GoBuild, module_root
from rectrain_local.assets.resolve import WayFailed
from rectrain_local.assets.versions import ACTIONLINT, ETCD, HELM, HELM_3, KUBECONFORM, KUBERNETES, S5CMD
from rectrain_local.progress import Progress
from tests.support.processes import mentioning
from tests.support.waiting import wait_until

GO = """#!/bin/sh
case "$1" in
list) echo 'go: downloading a v1' >&2; printf 'one\\ntwo\\nthree\\n';;
build)
  if [ -n "$GO_FAILS" ]; then echo 'undefined: x' >&2; exit 1; fi
  printf 'one\\ntwo\\nthree\\n' >&2
  while [ "$1" != "-o" ]; do shift; done
  echo built > "$2";;
esac
"""


class Counted(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int | None, list[int]]] = []

    @contextmanager
    def work(self, title: str, total: int | None, unit: str) -> Iterator[object]:  # type: ignore[override]
        counts: list[int] = []
        self.seen.append((title, total, counts))
        yield counts.append


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoBuild:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return GoBuild(lambda: tmp_path, [Build(".", (("tool", "example/tool"),), "-s -w")])


def test_packages_are_counted_while_they_are_compiled(go: GoBuild, tmp_path: Path) -> None:
    progress = Counted()
    made = go.make(["tool"], tmp_path, progress)
    assert made["tool"].read_text() == "built\n"
    assert progress.seen == [
        ("getting the source of tool", None, [1]),
        ("compiling tool", 3, [1, 2, 3]),
    ]


def test_a_failure_quotes_the_compiler(go: GoBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(WayFailed, match="status 1: undefined: x"):
        go.make(["tool"], tmp_path, Progress())


def test_without_go_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gobuild, "GO_FOLDERS", "")
    with pytest.raises(WayFailed, match="no `go` command"):
        GoBuild().make(["etcd"], tmp_path, Progress())


def declared_helm(root: Path) -> str:
    return (root / "helm" / "go.mod").read_text()


def test_the_pinned_modules_are_those_of_the_versions() -> None:
    root = module_root()
    assert f"k8s.io/kubernetes {KUBERNETES}" in (root / "go.mod").read_text()
    assert f"go.etcd.io/etcd/server/v3 {ETCD}" in (root / "etcd" / "go.mod").read_text()
    assert all(f"helm.sh/helm/{v.split('.')[0]} {v}" in declared_helm(root) for v in (HELM, HELM_3))
    linters = (root / "linters" / "go.mod").read_text()
    assert f"github.com/rhysd/actionlint {ACTIONLINT} " in linters
    assert f"github.com/yannh/kubeconform {KUBECONFORM} " in linters
    assert f"github.com/peak/s5cmd/v2 {S5CMD} " in (root / "s5cmd" / "go.mod").read_text()
    for build in BUILDS:
        declared = (root / build.folder / "go.mod").read_text()
        assert all(package in declared for _, package in build.packages)


KILLED = """
import sys
from pathlib import Path
from rectrain_local.assets.gobuild import Build, GoBuild
from rectrain_local.progress import Progress
here = Path(sys.argv[1])
GoBuild(lambda: here, [Build(".", (("tool", "example/tool"),), "")]).make(["tool"], here, Progress())
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_compilers_end_with_the_command(go: GoBuild, tmp_path: Path, signum: signal.Signals) -> None:
    compiler = f"setsid sleep 1000 & touch {tmp_path}/compiling; wait"
    script = GO.replace("  printf 'one\\ntwo\\nthree\\n' >&2\n  while", f"  {compiler}\n  while")
    assert compiler in script
    (tmp_path / "tools" / "go").write_text(script)
    command = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stderr=subprocess.DEVNULL,
        env={"PATH": f"{tmp_path}/tools:/usr/bin:/bin"},
    )
    wait_until((tmp_path / "compiling").exists, 20, "the compiler's start")
    command.send_signal(signum)
    command.wait(20)
    wait_until(lambda: not mentioning(str(tmp_path)), 10, lambda: f"alive: {mentioning(str(tmp_path))}")
