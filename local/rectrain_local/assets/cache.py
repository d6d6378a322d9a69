"""The folder where programs wait for the next cluster: ~/.cache/rectrain (or XDG_CACHE_HOME).

One command at a time fills it, under a lock that the kernel drops with its holder. What is being made lies in
a staging folder, which only the lock's holder uses and the next one clears, so an interrupted build leaves
nothing that anybody would take for a program.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rectrain_local.assets.versions import (
    ACTIONLINT,
    ETCD,
    HELM,
    HELM_3,
    KUBECONFORM,
    KUBERNETES,
    S5CMD,
    architecture,
)


def cache_root() -> Path:
    """Our part of the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rectrain"


class Cache:
    """Programs by version, under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, program: str) -> Path:
        """Where PROGRAM of the pinned version lies, or would."""
        others = {
            "actionlint": f"actionlint-{ACTIONLINT}",
            "bwrap": "bubblewrap",
            "etcd": f"etcd-{ETCD}",
            "helm": f"helm-{HELM}",
            "helm3": f"helm-{HELM_3}",
            "kubeconform": f"kubeconform-{KUBECONFORM}",
            "s5cmd": f"s5cmd-{S5CMD}",
        }
        version = others.get(program, f"kubernetes-{KUBERNETES}")
        return self.root / f"{version}-linux-{architecture()}" / program

    def find(self, program: str) -> Path | None:
        path = self.place(program)
        return path if os.access(path, os.X_OK) else None

    def install(self, program: str, made: Path) -> Path:
        """Take a finished program over from the staging folder, in one step."""
        path = self.place(program)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.chmod(0o755)
        made.replace(path)
        return path

    @contextmanager
    def filling(self, waiting: Callable[[], None]) -> Iterator[Path]:
        """Hold the lock; yields an empty staging folder. `waiting` is called if another command holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            staging = self.root / "staging"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)
