"""The agent's door to the API server: JSON over HTTPS, nothing decided.

Two identities use it: the node's own client certificate, and the reader that lists pods and services.
Every refusal is an `ApiError` with the server's code and sentence; every lost connection is `ApiUnreachable`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from rectrain_local.errors import LocalError

from .config import NodeConfig

Obj = dict[str, Any]

REQUEST_TIMEOUT_S: Final = 30.0
WATCH_S: Final = 300
PAGE: Final = 500
LINE_LIMIT: Final = 8 * 1024 * 1024  # an object of etcd's size limit, with its managedFields, fits
IN_FLIGHT: Final = 32


class ApiError(LocalError):
    """The API server refused a request."""

    def __init__(self, code: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class ApiUnreachable(LocalError):
    """No answer from the API server: it is down, restarting, or the connection broke."""


class Api:
    """One identity's connection. Use as an async context manager."""

    def __init__(self, server: str, tls: ssl.SSLContext, token: str | None = None) -> None:
        self.server = server.rstrip("/")
        self._tls = tls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None
        self._gate = asyncio.Semaphore(IN_FLIGHT)

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, read_bufsize=LINE_LIMIT
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the API client is used outside its context")
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Obj:
        """One request, one decoded answer. Errors: ApiError, ApiUnreachable."""
        data = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        try:
            async with (
                self._gate,
                self._open.request(
                    method, self.server + path, data=data, params=query, headers=headers, timeout=timeout
                ) as answer,
            ):
                text = await answer.text()
                if answer.status >= 400:
                    raise _refusal(answer.status, text)
                return json.loads(text) if text else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as lost:
            raise ApiUnreachable(f"{method} {self.server}{path}: {lost or type(lost).__name__}") from lost

    async def get(self, path: str, *, cached: bool = False) -> Obj:
        """`cached` takes the API server's own copy: cheap, and a moment behind."""
        return await self.request("GET", path, query={"resourceVersion": "0"} if cached else None)

    async def create(self, path: str, body: Obj) -> Obj:
        return await self.request("POST", path, body)

    async def merge(self, path: str, body: Obj) -> Obj:
        """A strategic merge patch: conditions merge by type, other lists are replaced."""
        return await self.request("PATCH", path, body, content_type="application/strategic-merge-patch+json")

    async def delete(self, path: str, *, uid: str, grace_s: int) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_s,
            "preconditions": {"uid": uid},
        }
        await self.request("DELETE", path, body)

    async def list(self, path: str, selector: Mapping[str, str]) -> tuple[list[Obj], str]:
        """All objects of a collection, and the resource version to watch from."""
        items: list[Obj] = []
        query = {**selector, "limit": str(PAGE)}
        while True:
            page = await self.request("GET", path, query=query)
            items.extend(page.get("items") or [])
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = token

    async def watch(
        self, path: str, selector: Mapping[str, str], version: str
    ) -> AsyncIterator[tuple[str, Obj]]:
        """Changes since `version`, until the server ends the watch. ERROR events are raised."""
        query = {
            **selector,
            "watch": "1",
            "allowWatchBookmarks": "1",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        # Bookmarks come about once a minute: a connection silent for longer than the watch lasts is dead.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_S + 30)
        try:
            async with self._open.get(self.server + path, params=query, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.text())
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("message", "watch failed"))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as lost:
            raise ApiUnreachable(f"watch {self.server}{path}: {lost or type(lost).__name__}") from lost


def _refusal(code: int, text: str) -> ApiError:
    try:
        status = json.loads(text)
        return ApiError(code, status.get("message") or text, status.get("reason") or "")
    except (ValueError, AttributeError):
        return ApiError(code, text.strip() or f"HTTP {code}")


def node_api(config: NodeConfig) -> Api:
    """The node's own identity, by client certificate."""
    tls = ssl.create_default_context(cafile=str(config.ca_file))
    tls.load_cert_chain(config.client_cert_file, config.client_key_file)
    return Api(config.server, tls)


def kubeconfig_api(path: Path) -> Api:
    """The identity of a kubeconfig's current context: a token or a client certificate, inline or by file."""
    document = yaml.safe_load(path.read_text())
    current = document["current-context"]
    context = _named(document["contexts"], current)["context"]
    cluster = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    authority = _pem(cluster, "certificate-authority", path)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = _pem(user, "client-certificate", path), _pem(user, "client-key", path)
    if certificate and key:
        # The ssl module reads a chain from files only.
        with tempfile.NamedTemporaryFile() as both:
            both.write(certificate + b"\n" + key)
            both.flush()
            tls.load_cert_chain(both.name)
    token = user.get("token")
    if token is None and "tokenFile" in user:
        token = (path.parent / user["tokenFile"]).read_text().strip()
    return Api(cluster["server"], tls, token)


def _named(entries: list[Obj], name: str) -> Obj:
    return next(entry for entry in entries if entry["name"] == name)


def _pem(entry: Obj, field: str, kubeconfig: Path) -> bytes | None:
    if field + "-data" in entry:
        return base64.b64decode(entry[field + "-data"])
    if field in entry:
        return (kubeconfig.parent / str(entry[field])).read_bytes()
    return None
