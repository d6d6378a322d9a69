"""Kubernetes Events: few, Normal or Warning, each written once. Called by `reconcile` after the status."""

import hashlib
import logging
from datetime import datetime
from typing import Final

from rectrain_api import API_VERSION, GROUP, KIND
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.keys import Manifest
from rectrain_operator.seen import EventNote
from rectrain_operator.settings import NAME

log = logging.getLogger(__name__)

NOTE_BYTES: Final = 1024


def reference_of(run: Manifest) -> Manifest:
    """What an Event of a run regards."""
    metadata = run["metadata"]
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def build_event(regarding: Manifest, note: EventNote, *, instance: str, now: datetime) -> Manifest:
    """The Event object; its name follows from what happened, so writing it again is harmless."""
    about = regarding.get("uid") or f"{regarding['namespace']}/{regarding['name']}"
    digest = hashlib.sha256(f"{about}/{note.key}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{regarding['name']}.{digest}", "namespace": regarding["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/{NAME}",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": note.reason[:128],
        "type": note.kind,
        "note": note.message.encode()[:NOTE_BYTES].decode(errors="ignore"),
        "regarding": regarding,
    }


async def write_event(
    client: KubeClient, regarding: Manifest, note: EventNote, *, instance: str, now: datetime
) -> None:
    """Write one. An Event that can't be written is logged: nobody waits for it."""
    namespace = regarding["namespace"]
    try:
        await client.post(paths.events(namespace), build_event(regarding, note, instance=instance, now=now))
    except ApiError as failed:
        if failed.status != 409:
            about = f"{namespace}/{regarding['name']}"
            log.warning("event not written", extra={"about": about, "error": str(failed)})
