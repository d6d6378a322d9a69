"""The one way to the API server: plain JSON in, plain JSON out, over `kubernetes.aio`.

Typed models of the client cost milliseconds an object and know nothing of our kind, so paths and dicts are
used. Everything else in the operator gets a `KubeClient`; only this module and `feed` import kubernetes.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config.config_exception import ConfigException
from yaml import YAMLError

from rectrain_api.errors import InvalidSpec, UsageError
from rectrain_operator.keys import Manifest
from rectrain_operator.limits import WriteLimits
from rectrain_operator.metrics import API_REQUESTS

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
REQUEST_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0


class ApiError(Exception):
    """The API server refused, or couldn't be reached (status 0)."""

    def __init__(self, status: int, message: str, *, reason: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


async def load_configuration(kubeconfig: Path | None) -> Configuration:
    """Where the API server is and who we are. Raises UsageError naming what is missing, InvalidSpec."""
    configuration = Configuration()
    try:
        if kubeconfig is None:
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig), client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as failed:
        where = f"the kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
        raise UsageError(
            f"Can't sign in to Kubernetes with {where}: {failed} "
            "Inside a cluster give the pod a service account; outside use --kubeconfig FILE."
        ) from failed
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError) as failed:
        why = " ".join(str(failed).split())
        raise InvalidSpec(f"{kubeconfig} isn't a kubeconfig: {why or type(failed).__name__}.") from failed
    configuration.retries = None
    configuration.proxy = configuration.proxy or proxy_of(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def proxy_of(server: str) -> str | None:
    """The environment's proxy for this URL.

    Found once: aiohttp looks for it at every request, and then for ~/.netrc on another thread, whose
    password for the server would shut out our token.
    """
    parts = urlsplit(server)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def authorization(configuration: Configuration) -> str | None:
    """The Authorization header; a rotated token file is read again by the hook of the client."""
    setting = (await configuration.auth_settings()).get("BearerToken")
    return setting["value"] if setting else None


class KubeClient:
    """Reads and writes of plain JSON; writes are limited."""

    def __init__(self, configuration: Configuration, limits: WriteLimits) -> None:
        self._configuration = configuration
        self._api = ApiClient(configuration)
        self._limits = limits

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Manifest:
        """GET one object or a list. Raises ApiError."""
        return await self._call("GET", path, query=query)

    async def post(self, path: str, body: Manifest, *, limits: WriteLimits | None = None) -> Manifest:
        """POST: create, within other limits if given. Raises ApiError; 409 when the name is taken."""
        async with (limits or self._limits).write():
            return await self._call("POST", path, body=body)

    async def merge_patch(self, path: str, body: Manifest) -> Manifest:
        """PATCH by JSON merge. Raises ApiError; 409 when a resourceVersion in it isn't the current one."""
        async with self._limits.write():
            return await self._call("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def stream(
        self, path: str, query: Mapping[str, str], *, silence_s: float
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a watch, until the server ends it. Raises ApiError, also after `silence_s`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        try:
            response = await self._send("GET", path, query=query, timeout=timeout)
            try:
                if response.status != 200:
                    raise _error(response.status, await response.read(), response.headers)
                while line := await response.response.content.readline():
                    yield json.loads(line)
            finally:
                response.response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failed:
            raise ApiError(0, f"the watch of {path} broke: {failed or type(failed).__name__}") from failed

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = JSON,
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        started = time.monotonic()
        code = 0
        try:
            response = await self._send(
                method, path, query=query, body=body, content_type=content_type, timeout=timeout
            )
            code = response.status
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as failed:
            raise ApiError(
                0, f"can't reach the API server at {self._configuration.host}: {failed or 'timed out'}"
            ) from failed
        finally:
            API_REQUESTS.labels(method, str(code)).observe(time.monotonic() - started)
        if not 200 <= code < 300:
            raise _error(code, data, response.headers)
        result: Manifest = json.loads(data)
        return result

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, passed through
        body: Manifest | None = None,
        content_type: str = JSON,
    ) -> Any:
        headers = {"Content-Type": content_type, "Accept": JSON, "User-Agent": "rectrain-operator"}
        if token := await authorization(self._configuration):
            headers["Authorization"] = token
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        return await self._api.call_api(
            method, url, header_params=headers, body=body, _request_timeout=timeout
        )


def _error(code: int, data: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error of a Status body, or of whatever a proxy on the way answered."""
    try:
        status = json.loads(data)
        message, reason = str(status["message"]), str(status.get("reason", ""))
    except (ValueError, KeyError, TypeError):
        message, reason = f"HTTP {code}: {data[:200].decode(errors='replace')}", ""
    retry_after = headers.get("Retry-After", "")
    wait_s = float(retry_after) if retry_after.isdecimal() else 0.0
    return ApiError(code, message, reason=reason, retry_after_s=wait_s)
