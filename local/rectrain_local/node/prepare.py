"""From a container of a pod spec to a sandbox that can be started: what can still be refused is here.

Called by `container` before each start. `Refusal` carries the waiting reason a kubelet would show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from .api import ApiError, ApiUnreachable, Obj
from .config import Environment
from .context import PodContext
from .env import ConfigError, expand, needed, resolve
from .environments import choose, unknown_image
from .fetch import fetch
from .probes import unsupported
from .sandbox import SandboxSpec

DEFAULT_ID: Final = 65532
HOME: Final = "/tmp"  # noqa: S108 - private to the container
TERMINATION_PATH: Final = "/dev/termination-log"


class Refusal(Exception):
    """A container can't be started: a reason as a kubelet gives it, and a sentence."""

    def __init__(self, reason: str, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.again = again


async def prepare(context: PodContext, container: Obj, instance: int) -> tuple[SandboxSpec, str]:
    """The sandbox and the environment's pattern (its image id). Raises Refusal."""
    pattern, environment = _environment(context, container)
    if wrong := _unsupported(container):
        raise Refusal("CreateContainerError", wrong)
    command = [*(container.get("command") or []), *(container.get("args") or [])]
    if not container.get("command"):
        raise Refusal(
            "CreateContainerError",
            f'container "{container["name"]}" names no command: an image is an environment of the host here '
            "and has no entrypoint; set command",
        )
    uid, gid = _user(context, container)
    try:
        sources = await fetch(context.node.api, context.namespace, needed(container))
        variables = resolve(container, _base(context, environment), context.facts(), sources)
        mounts = context.volumes.mounts(container, variables)
    except ConfigError as unready:
        raise Refusal("CreateContainerConfigError", str(unready), again=True) from unready
    except (ApiError, ApiUnreachable) as failed:
        raise Refusal("CreateContainerConfigError", str(failed), again=True) from failed
    folder = context.folder / "containers" / container["name"] / str(instance)
    try:
        files, tmp = _etc(context, folder, uid, gid), _tmp(container, folder)
        termination_file = _fresh(folder / "termination-log")
    except OSError as failed:
        why = f"files of the container can't be written: {failed}"
        raise Refusal("CreateContainerError", why, again=True) from failed
    spec = SandboxSpec(
        command=[expand(word, variables) for word in command],
        env=variables,
        uid=uid,
        gid=gid,
        hostname=context.hostname,
        work_dir=container.get("workingDir") or "/",
        environment_paths=environment.read_only_paths,
        mounts=mounts,
        files=files,
        tmp=tmp,
        termination_file=termination_file,
        termination_path=container.get("terminationMessagePath") or TERMINATION_PATH,
    )
    return spec, pattern


def _environment(context: PodContext, container: Obj) -> tuple[str, Environment]:
    known = context.node.config.environments
    chosen = choose(container["image"], known)
    if chosen is None:
        raise Refusal("ErrImagePull", unknown_image(container["image"], known))
    return chosen


def _unsupported(container: Obj) -> str | None:
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        return "privileged containers can't run on a process node"
    if (security.get("capabilities") or {}).get("add"):
        return "a process node gives no capabilities; drop securityContext.capabilities.add"
    if container.get("volumeDevices"):
        return "a process node has no block volumes"
    if container.get("restartPolicyRules"):
        return "restartPolicyRules are not supported by a process node"
    return unsupported(container)


def _user(context: PodContext, container: Obj) -> tuple[int, int]:
    security = (context.pod["spec"].get("securityContext") or {}) | (container.get("securityContext") or {})
    uid = security.get("runAsUser")
    uid = DEFAULT_ID if uid is None else int(uid)
    if security.get("runAsNonRoot") and uid == 0:
        raise Refusal(
            "CreateContainerConfigError",
            f"container's runAsUser breaks non-root policy (pod: \"{context.name}_{context.namespace}"
            f'({context.uid})", container: {container["name"]})',
        )
    gid = security.get("runAsGroup")
    return uid, uid if gid is None else int(gid)


def _base(context: PodContext, environment: Environment) -> dict[str, str]:
    own = {"PATH": environment.path, "HOME": HOME, "HOSTNAME": context.hostname}
    return own | environment.env | context.node.service_variables()


def _etc(context: PodContext, folder: Path, uid: int, gid: int) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    root = "" if uid == 0 else "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    texts = {
        "/etc/passwd": f"{root}user:x:{uid}:{gid}::{HOME}:/bin/sh\n",
        "/etc/group": f"user:x:{gid}:\n",
        "/etc/hostname": context.hostname + "\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "/etc/host.conf": "multi on\n",
        "/etc/resolv.conf": "# There is no DNS on a process node; names are in /etc/hosts.\n",
    }
    files = {}
    for path, text in texts.items():
        files[path] = folder / Path(path).name
        files[path].write_text(text)
    return files | {"/etc/hosts": context.hosts_file}


def _tmp(container: Obj, folder: Path) -> Path | None:
    if (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
        return None
    tmp = folder / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
    return tmp


def _fresh(path: Path) -> Path:
    path.write_bytes(b"")
    path.chmod(0o666)
    return path
