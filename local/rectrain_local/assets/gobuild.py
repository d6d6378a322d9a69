"""Builds the control plane, helm, linters and s5cmd with a Go toolchain, from the modules that
`local/**/go.mod` pins.

Called by `resolve` as the last way, since the control plane takes some nine minutes on two cores, once. `go`
starts many compilers, so it runs under the guard of `launch.py`: a killed command leaves none of them behind.
What it has compiled stays in Go's own build cache, so an interrupted build goes on where it was.
"""

from __future__ import annotations

import collections
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rectrain_local.assets.resolve import WayFailed
from rectrain_local.assets.versions import ACTIONLINT, HELM, HELM_3, KUBECONFORM, KUBERNETES, S5CMD, minor
from rectrain_local.processes import launcher_argv
from rectrain_local.progress import Progress

_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_MAJOR, _MINOR = minor(KUBERNETES).removeprefix("v").split(".")
_VERSION_FLAGS: Final = (
    f"-X {_VERSION_PACKAGE}.gitVersion={KUBERNETES} -X {_VERSION_PACKAGE}.gitMajor={_MAJOR} "
    f"-X {_VERSION_PACKAGE}.gitMinor={_MINOR} -X {_VERSION_PACKAGE}.gitTreeState=clean"
)
_DOWNLOADING: Final = "go: downloading "
_KEPT_LINES: Final = 12
GO_FOLDERS: Final = "/usr/local/go/bin:/usr/lib/go/bin"


@dataclass(frozen=True)
class Build:
    """One `go build`: programs of one module, told their version by the linker."""

    folder: str
    packages: tuple[tuple[str, str], ...]
    """(program, its package)"""
    link: str


BUILDS: Final = (
    Build("etcd", (("etcd", "go.etcd.io/etcd/server/v3"),), "-s -w"),
    Build(
        ".",
        tuple(
            (program, f"k8s.io/kubernetes/cmd/{program}")
            for program in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        ),
        f"-s -w {_VERSION_FLAGS}",
    ),
    Build(
        "helm",
        (("helm", "helm.sh/helm/v4/cmd/helm"), ("helm3", "helm.sh/helm/v3/cmd/helm")),
        f"-s -w -X helm.sh/helm/v4/internal/version.version={HELM} "
        f"-X helm.sh/helm/v3/internal/version.version={HELM_3} "
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={_MAJOR} "
        f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={_MINOR}",
    ),
    Build(
        "linters",
        (("actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),),
        f"-s -w -X github.com/rhysd/actionlint.version={ACTIONLINT}",
    ),
    Build(
        "linters",
        (("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),),
        f"-s -w -X main.version={KUBECONFORM}",
    ),
    Build(
        "s5cmd",
        (("s5cmd", "github.com/peak/s5cmd/v2"),),
        f"-s -w -X github.com/peak/s5cmd/v2/version.Version={S5CMD}",
    ),
)


def module_root() -> Path:
    """The folder of go.mod, beside the package; wheels don't carry it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "go.mod").is_file():
        raise WayFailed(
            f"{root / 'go.mod'} is missing: only an installation from a checkout (pip install -e) has it"
        )
    return root


def find_go() -> Path:
    """The `go` command, also where its installer puts it without touching PATH."""
    found = shutil.which("go") or shutil.which("go", path=GO_FOLDERS)
    if found is None:
        raise WayFailed("no `go` command on PATH or in /usr/local/go/bin")
    return Path(found)


class GoBuild:
    """Compiles programs from pinned source."""

    title = "build with Go"

    def __init__(self, root: Callable[[], Path] = module_root, builds: Sequence[Build] = BUILDS) -> None:
        self._root = root
        self._builds = builds

    def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
        go, root = find_go(), self._root()
        made: dict[str, Path] = {}
        for build in self._builds:
            wanted = [(program, package) for program, package in build.packages if program in programs]
            if wanted:
                made |= _build(go, root / build.folder, build.link, wanted, staging, progress)
        missing = [program for program in programs if program not in made]
        if missing:
            raise WayFailed(f"no source is pinned for {', '.join(missing)}")
        return made


def _build(
    go: Path, folder: Path, link: str, wanted: list[tuple[str, str]], staging: Path, progress: Progress
) -> dict[str, Path]:
    flags = ["-mod=readonly", "-trimpath", f"-ldflags={link}"]
    names = ", ".join(program for program, _ in wanted)
    packages = [package for _, package in wanted]
    stale: list[str] = []
    # Also downloads the modules, which is the part that needs the network.
    with progress.work(f"getting the source of {names}", None, "modules") as advance:
        listing = [str(go), "list", *flags, "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *packages]
        _run(listing, folder, advance, counts=lambda line: line.startswith(_DOWNLOADING), out=stale)
    made: dict[str, Path] = {}
    with progress.work(f"compiling {names}", len(stale), "packages") as advance:
        before = 0
        for program, package in wanted:
            made[program] = staging / program
            argv = [str(go), "build", "-v", *flags, "-o", str(made[program]), package]
            before += _run(argv, folder, lambda done, base=before: advance(base + done))  # type: ignore[misc]
    return made


def _environment() -> dict[str, str]:
    """The user's own (proxies, GOPROXY), without cgo and without a workspace above us."""
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def _counts_package(line: str) -> bool:
    return not line.startswith("go: ")


def _run(
    argv: list[str],
    folder: Path,
    advance: Callable[[int], None],
    counts: Callable[[str], bool] = _counts_package,
    out: list[str] | None = None,
) -> int:
    """Run `go`, counting lines of its stderr; returns the count. `out` takes the lines of its stdout."""
    with tempfile.TemporaryFile("w+") as output:  # a pipe would have to be read at the same time as stderr
        process = subprocess.Popen(
            launcher_argv("guard", argv),
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            done, last = _count(process.stderr or (), advance, counts)
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGALRM)  # the guard's word for: kill all and leave
            process.wait()
            raise
        if out is not None:
            output.seek(0)
            out.extend(output.read().split())
    if code != 0:
        raise WayFailed(f"`{' '.join(argv[:2])}` in {folder} ended with status {code}: {' | '.join(last)}")
    return done


def _count(
    lines: Iterable[str], advance: Callable[[int], None], counts: Callable[[str], bool]
) -> tuple[int, list[str]]:
    done = 0
    last: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
    for line in lines:
        last.append(line.strip())
        if counts(line):
            done += 1
            advance(done)
    return done, list(last)
