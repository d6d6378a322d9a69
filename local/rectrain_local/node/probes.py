"""Probes and lifecycle hooks. `Threshold` is the pure part; `check` does one look; `watch` is a probe's life.

`container` starts a `watch` for each probe of a running instance and decides what an answer means.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from .api import Obj
from .execute import exec_in

BODY_BYTES: Final = 1024


@dataclass(frozen=True)
class Target:
    """Where a running container can be asked."""

    address: str
    ports: Mapping[str, int]
    pid: int
    work_dir: str


class Threshold:
    """Counts answers in a row; speaks when enough agree and that is news."""

    def __init__(self, success: int, failure: int, initial: bool | None) -> None:
        self._needed = {True: success, False: failure}
        self._last: bool | None = None
        self._row = 0
        self.verdict = initial

    def observe(self, good: bool) -> bool:
        """Whether the verdict has changed."""
        self._row = self._row + 1 if good is self._last else 1
        self._last = good
        if self._row < self._needed[good] or self.verdict is good:
            return False
        self.verdict = good
        return True


def unsupported(container: Obj) -> str | None:
    """The first probe or hook of a kind that this node can't do."""
    lifecycle = container.get("lifecycle") or {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "grpc" in (container.get(name) or {}):
            return f"{name}: a process node has no gRPC probes; use exec, httpGet or tcpSocket"
    for name in ("postStart", "preStop"):
        if "tcpSocket" in (lifecycle.get(name) or {}):
            return f"lifecycle.{name}.tcpSocket is not supported; use exec, httpGet or sleep"
    return None


async def check(handler: Obj, target: Target, timeout_s: float) -> str | None:
    """One look; None is good, else what is wrong."""
    try:
        if "exec" in handler:
            command: Sequence[str] = handler["exec"].get("command") or []
            code, output = await exec_in(target.pid, target.work_dir, list(command), timeout_s)
            return None if code == 0 else f"command exited with {code}: {output.strip()}"
        if "sleep" in handler:
            await asyncio.sleep(handler["sleep"]["seconds"])
            return None
        async with asyncio.timeout(timeout_s):
            if "httpGet" in handler:
                return await _http(handler["httpGet"], target)
            return await _tcp(handler["tcpSocket"], target)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (OSError, aiohttp.ClientError, ValueError) as failed:
        return str(failed) or type(failed).__name__


def _port(value: str | int, target: Target) -> int:
    text = str(value)
    if text.isdigit():
        return int(text)
    if text not in target.ports:
        raise ValueError(f"the container has no port named {text!r}")
    return target.ports[text]


async def _http(action: Obj, target: Target) -> str | None:
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or target.address
    url = f"{scheme}://{host}:{_port(action['port'], target)}/{(action.get('path') or '/').lstrip('/')}"
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # as a kubelet: a probe asks whether, not who
    headers = {"User-Agent": "kube-probe/1.37"}
    headers |= {one["name"]: one["value"] for one in action.get("httpHeaders") or []}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=unverified, allow_redirects=False) as answer,
    ):
        if 200 <= answer.status < 400:
            return None
        body = (await answer.content.read(BODY_BYTES)).decode("utf-8", "replace")
        return f"HTTP probe failed with statuscode {answer.status}: {body}"


async def _tcp(action: Obj, target: Target) -> str | None:
    host = action.get("host") or target.address
    _, writer = await asyncio.open_connection(host, _port(action["port"], target))
    writer.close()
    return None


async def watch(
    probe: Obj,
    target: Target,
    initial: bool | None,
    changed: Callable[[bool, str], Awaitable[None]],
    failed_once: Callable[[str], None],
) -> None:
    """Look again and again; `changed` hears each new verdict. Ends only when cancelled."""
    threshold = Threshold(probe.get("successThreshold") or 1, probe.get("failureThreshold") or 3, initial)
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
    while True:
        wrong = await check(probe, target, float(probe.get("timeoutSeconds") or 1))
        if wrong is not None:
            failed_once(wrong)
        if threshold.observe(wrong is None):
            await changed(wrong is None, wrong or "")
        await asyncio.sleep(probe.get("periodSeconds") or 10)
