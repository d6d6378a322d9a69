"""The command line of a sandbox: what a container sees of this machine. Pure, but for one look at the host.

`host_root` looks once which of /bin, /lib… are links and which files of /etc exist. `options` turns a
container into bubblewrap's arguments. They go through `--args`, not the process list: they may hold secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

SHM_BYTES: Final = 64 * 1024 * 1024  # what container runtimes give /dev/shm
TOP_LEVEL: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Nothing here may hold a secret: of /etc/ssl the certificates only, never private keys.
ETC_FILES: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
# Thread pools of numeric libraries size themselves by it.
DEVICE_TOPOLOGY: Final = "/sys/devices/system"


@dataclass(frozen=True)
class HostRoot:
    """What of the host's root every sandbox shows, read-only."""

    links: Mapping[str, str]
    binds: Sequence[str]


@dataclass(frozen=True)
class Mount:
    """A volume at its place: a host path bound there, or (source None) a tmpfs of its own."""

    target: str
    source: Path | None
    read_only: bool = False
    size_bytes: int | None = None


@dataclass(frozen=True)
class SandboxSpec:
    """One container, resolved: nothing is looked up any more."""

    command: Sequence[str]
    env: Mapping[str, str]
    uid: int
    gid: int
    hostname: str
    work_dir: str
    environment_paths: Sequence[str]
    mounts: Sequence[Mount]
    files: Mapping[str, Path]
    """Single files at their places: hosts, passwd…, read-only."""
    tmp: Path | None
    """Host folder shown as /tmp; None leaves /tmp read-only and empty."""
    termination_file: Path
    termination_path: str


def host_root(root: Path = Path("/")) -> HostRoot:
    """Look at the host, once per agent."""

    def real(path: str) -> Path:
        return root / path.lstrip("/")

    links = {path: str(real(path).readlink()) for path in TOP_LEVEL if real(path).is_symlink()}
    folders = [path for path in TOP_LEVEL if path not in links and real(path).is_dir()]
    named = [path for path in (*ETC_FILES, DEVICE_TOPOLOGY) if real(path).exists()]
    return HostRoot(links, ["/usr", *folders, *named])


def options(spec: SandboxSpec, root: HostRoot) -> list[str]:
    """bubblewrap's arguments, without program and command."""
    return [
        *_isolation(spec),
        *_root(spec, root),
        *_volumes(spec),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--chdir", spec.work_dir),
        "--clearenv",
        *(word for name, value in spec.env.items() for word in ("--setenv", name, value)),
    ]


def _isolation(spec: SandboxSpec) -> list[str]:
    return [
        *("--unshare-user", "--unshare-pid", "--unshare-uts", "--unshare-ipc"),
        *("--uid", str(spec.uid), "--gid", str(spec.gid), "--cap-drop", "ALL"),
        *("--hostname", spec.hostname, "--as-pid-1", "--die-with-parent", "--new-session"),
    ]


def _root(spec: SandboxSpec, root: HostRoot) -> list[str]:
    words = ["--tmpfs", "/"]
    for path in root.binds:
        words += ["--ro-bind", path, path]
    for path, target in root.links.items():
        words += ["--symlink", target, path]
    for path in spec.environment_paths:
        words += ["--ro-bind", path, path]
    for path, source in spec.files.items():
        words += ["--ro-bind", str(source), path]
    # /dev first, memory volumes (often /dev/shm) after it.
    words += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    words += ["--dir", "/run", "--dir", "/var/tmp", "--dir", "/tmp"]  # noqa: S108
    if spec.tmp is not None:
        words += ["--bind", str(spec.tmp), "/tmp", "--bind", str(spec.tmp), "/var/tmp"]  # noqa: S108
    return words


def _volumes(spec: SandboxSpec) -> list[str]:
    words: list[str] = []
    # A mount inside another one's folder must come after it.
    for mount in sorted(spec.mounts, key=lambda one: len(PurePosixPath(one.target).parts)):
        if mount.source is not None:
            words += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), mount.target]
            continue
        if mount.size_bytes is not None:
            words += ["--size", str(mount.size_bytes)]
        words += ["--tmpfs", mount.target]
        if mount.read_only:
            words += ["--remount-ro", mount.target]
    for path in _hidden(spec):
        words += ["--ro-bind", path, path]
    words += ["--bind", str(spec.termination_file), spec.termination_path]
    if _is_ours_to_make(spec):
        words += ["--dir", spec.work_dir]
    return words


def _hidden(spec: SandboxSpec) -> list[str]:
    """Parts of the environment below a volume, such as a checkout in /tmp: an image's files win there."""
    over = ["/tmp", *(m.target for m in spec.mounts)]  # noqa: S108
    return [p for p in spec.environment_paths if any(PurePosixPath(p).is_relative_to(o) for o in over)]


def _is_ours_to_make(spec: SandboxSpec) -> bool:
    """Runtimes create a missing working directory; we can, unless a part of the host is in the way."""
    fixed = (
        "/usr",
        *TOP_LEVEL,
        "/proc",
        *spec.environment_paths,
        *spec.files,
        *(m.target for m in spec.mounts),
    )
    work_dir = PurePosixPath(spec.work_dir)
    return spec.work_dir != "/" and not any(work_dir.is_relative_to(path) for path in fixed)
