"""ConfigMaps and Secrets for a pod, read with the node's rights. Called by `volumes` and `container`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from .api import Api, ApiError, Obj
from .env import Kind, Sources


async def fetch(
    api: Api, namespace: str, wanted: Iterable[tuple[Kind, str]], *, cached: bool = False
) -> Sources:
    """All wanted objects; None for one that doesn't exist.

    A 403 is raised: the authorizer learns only after the binding which objects the node's pods name.
    """
    keys = list(dict.fromkeys(wanted))
    found = await asyncio.gather(*(_one(api, namespace, kind, name, cached) for kind, name in keys))
    return Sources(dict(zip(keys, found, strict=True)))


async def _one(api: Api, namespace: str, kind: Kind, name: str, cached: bool) -> Obj | None:
    try:
        return await api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}", cached=cached)
    except ApiError as refused:
        if refused.code == 404:
            return None
        raise
