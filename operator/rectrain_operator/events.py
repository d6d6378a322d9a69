"""Kubernetes Events: few, Normal or Warning, each written once. Called by `reconcile` after the status."""

import hashlib
import logging
from datetime import datetime
from typing import Final

from rectrain_api import API_VERSION, GROUP, KIND
from rectrain_operator import paths
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.keys import JobKey, Manifest, key_of
from rectrain_operator.seen import EventNote
from rectrain_operator.settings import NAME

log = logging.getLogger(__name__)

NOTE_BYTES: Final = 1024


def build_event(run: Manifest, note: EventNote, *, instance: str, now: datetime) -> Manifest:
    """The Event object; its name follows from what happened, so writing it again is harmless."""
    metadata = run["metadata"]
    digest = hashlib.sha256(f"{metadata['uid']}/{note.key}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{digest}", "namespace": metadata["namespace"]},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/{NAME}",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": note.reason[:128],
        "type": note.kind,
        "note": note.message.encode()[:NOTE_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": f"{GROUP}/{API_VERSION}",
            "kind": KIND,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }


async def write_event(
    client: KubeClient, run: Manifest, note: EventNote, *, instance: str, now: datetime
) -> None:
    """Write one. An Event that can't be written is logged: no run waits for it."""
    key: JobKey = key_of(run)
    try:
        await client.post(paths.events(key.namespace), build_event(run, note, instance=instance, now=now))
    except ApiError as failed:
        if failed.status != 409:
            log.warning("event not written", extra={"job": str(key), "error": str(failed)})
