"""Keeps the certificate good while the operator runs, and says when it is kept nowhere. Run by `app`."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from rectrain_api.status import Reason
from rectrain_operator.cert_store import FolderStore, SecretStore
from rectrain_operator.certs import Certificates
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.events import write_event
from rectrain_operator.seen import EventNote
from rectrain_operator.settings import Settings
from rectrain_operator.times import to_text

log = logging.getLogger(__name__)

CHECK_S: Final = 30.0
"""A Secret that `helm upgrade` has brought back is filled within this time."""
PAUSE_S: Final = 1.0


class CertificateKeeper:
    """See the module."""

    def __init__(
        self, settings: Settings, client: KubeClient, *, instance: str, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._instance = instance
        self._now = now
        self._secret = (
            SecretStore(client, *settings.certificate_secret) if settings.certificate_secret else None
        )
        store = self._secret or FolderStore(settings.state_dir)
        self.certificates = Certificates(store, urlsplit(settings.report_url).hostname or "")
        self._told = ""

    async def first(self) -> None:
        """A certificate to serve with, however long the API server takes. Raises UsageError."""
        said = False
        while True:
            try:
                await self.certificates.refresh(self._now())
                break
            except ApiError as away:
                if not said:
                    log.warning("waiting", extra={"why": str(away)})
                said = True
            await asyncio.sleep(PAUSE_S)
        await self._tell()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                if await self.certificates.refresh(self._now()):
                    log.info("certificate renewed")
            except ApiError as away:
                log.warning("certificate not looked at", extra={"error": str(away)})
                continue
            await self._tell()

    async def _tell(self) -> None:
        """Once each time that it begins, or ends."""
        why = self.certificates.unkept
        if why == self._told:
            return
        self._told = why
        if not why:
            log.info("the certificate is kept again")
            return
        log.warning("certificate kept in memory alone", extra={"why": why})
        assert self._secret is not None  # a folder that can't be used ends the operator
        now = self._now()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "namespace": self._secret.namespace,
            "name": self._secret.name,
        }
        note = EventNote("Warning", Reason.CERTIFICATE_UNKEPT, why, f"unkept-{to_text(now)}")
        await write_event(self._client, secret, note, instance=self._instance, now=now)
