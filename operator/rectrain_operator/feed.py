"""kopf watches RecTrainingJobs and feeds the queue; it decides nothing and writes nothing.

Only `on.event` is used: it stores nothing in the objects, adds no finalizer, and costs no request. What kopf
can't do is done elsewhere: Jobs and pods by `watch`, a dead watcher is noticed by `resync`.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import kopf

from rectrain_api import API_VERSION, GROUP, PLURAL
from rectrain_operator.client import authorization, load_configuration
from rectrain_operator.keys import Manifest
from rectrain_operator.settings import Settings

STOP_S: Final = 5.0
IDENTITY: Final[Any] = "rectrain-operator"
"""For kopf's log alone: asked for none, it looks up the user's name, and a container's user has none."""


def build_registry(
    on_event: Callable[[str | None, Manifest], None], kubeconfig: Path | None
) -> kopf.OperatorRegistry:
    """The only handlers: sign in, and pass events on."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def sign_in(**_: Any) -> kopf.ConnectionInfo:
        """Asked again when the API server stops taking the token: files are read anew."""
        configuration = await load_configuration(kubeconfig)
        scheme, _space, token = (await authorization(configuration) or "").partition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme.capitalize() or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    @kopf.on.event(GROUP, API_VERSION, PLURAL, registry=registry)
    async def seen(event: Any, **_: Any) -> None:
        """type None: listed at the start."""
        on_event(event["type"], event["object"])

    return registry


def operator_settings() -> kopf.OperatorSettings:
    """kopf's settings: every wait bounded, nothing posted, no scan of the cluster's kinds."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.process.ultimate_exiting_timeout = None  # else kopf kills the process after its own end
    return settings


async def run_feed(settings: Settings, on_event: Callable[[str | None, Manifest], None]) -> None:
    """Until cancelled; ends by itself only with kopf's error.

    kopf gets a thread and a loop of its own: at its end it cancels every task of its loop, whoever made it,
    and it takes the signals of the main thread.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    stop = threading.Event()

    def tell(call: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # our loop has closed: nobody listens any more
            loop.call_soon_threadsafe(call, *arguments)

    def pass_on(kind: str | None, manifest: Manifest) -> None:
        if not stop.is_set():
            tell(on_event, kind, manifest)

    def work() -> None:
        error: Exception | None = None
        try:
            asyncio.run(_kopf(settings, pass_on, stop))
        except Exception as failed:
            error = failed
        tell(_settle, ended, error)

    thread = threading.Thread(target=work, name="kopf", daemon=True)
    thread.start()
    try:
        await ended
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, STOP_S)


def _settle(ended: "asyncio.Future[None]", error: Exception | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


async def _kopf(
    settings: Settings, on_event: Callable[[str | None, Manifest], None], stop: threading.Event
) -> None:
    scope: dict[str, Any] = (
        {"namespaces": list(settings.namespaces)} if settings.namespaces else {"clusterwide": True}
    )
    await kopf.operator(
        registry=build_registry(on_event, settings.kubeconfig),
        settings=operator_settings(),
        standalone=True,
        identity=IDENTITY,
        stop_flag=stop,
        **scope,
    )
