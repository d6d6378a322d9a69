"""Whose token is it: TokenReview with an audience, remembered for a minute. Called by `report_server`."""

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rectrain_operator import paths
from rectrain_operator.client import KubeClient
from rectrain_operator.limits import WriteLimits

log = logging.getLogger(__name__)

REMEMBERED_S: Final = 60.0
REMEMBERED: Final = 10_000
REVIEWS_AT_ONCE: Final = 16
REVIEWS_PER_SECOND: Final = 100.0
REVIEWS_BURST: Final = 200
"""A bound of their own: whoever sends tokens must not use up the writes of the reconciler."""
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
SERVICE_ACCOUNT: Final = "system:serviceaccount:"


@dataclass(frozen=True)
class Bearer:
    """The pod that a token is bound to."""

    namespace: str
    pod_name: str
    pod_uid: str


class Tokens:
    """Answers of the API server about tokens. `clock` gives seconds that never go back."""

    def __init__(self, client: KubeClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._limits = WriteLimits(
            clock, at_once=REVIEWS_AT_ONCE, per_second=REVIEWS_PER_SECOND, burst=REVIEWS_BURST
        )
        self._known: dict[str, tuple[float, Bearer | None]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def bearer(self, token: str, audience: str) -> Bearer | None:
        """The pod of a token that is valid for this audience, else None. Raises ApiError."""
        if audience not in claimed_audiences(token):
            return None
        key = hashlib.sha256(f"{audience}\n{token}".encode()).hexdigest()
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                known = self._known.get(key)
                if known is not None and self._clock() - known[0] < REMEMBERED_S:
                    return known[1]
                bearer = await self._review(token, audience)
                self._tidy()
                self._known[key] = (self._clock(), bearer)
                return bearer
        finally:
            if not lock.locked():
                self._asking.pop(key, None)

    def drop_pod(self, pod_uid: str) -> None:
        """The pod is gone: its tokens are asked for anew."""
        for key in [k for k, (_, b) in self._known.items() if b is not None and b.pod_uid == pod_uid]:
            del self._known[key]

    async def _review(self, token: str, audience: str) -> Bearer | None:
        review = await self._client.post(
            paths.TOKEN_REVIEWS,
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            },
            limits=self._limits,
        )
        status = review.get("status") or {}
        if not status.get("authenticated") or audience not in (status.get("audiences") or []):
            return None
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        name, uid = (extra.get(POD_NAME) or [""])[0], (extra.get(POD_UID) or [""])[0]
        account = str(user.get("username", ""))
        if not name or not uid or not account.startswith(SERVICE_ACCOUNT):
            return None
        return Bearer(account.removeprefix(SERVICE_ACCOUNT).split(":")[0], name, uid)

    def _tidy(self) -> None:
        """Bound what is remembered: first what is old, then all."""
        if len(self._known) < REMEMBERED:
            return
        now = self._clock()
        self._known = {k: v for k, v in self._known.items() if now - v[0] < REMEMBERED_S}
        if len(self._known) >= REMEMBERED:
            self._known.clear()


def claimed_audiences(token: str) -> tuple[str, ...]:
    """Audiences that a JWT says it is for, its signature unchecked; none when it is no JWT.

    Enough to refuse junk without asking the API server, and never enough to believe a token.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return ()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return ()
    claimed = claims.get("aud") if isinstance(claims, dict) else None
    listed = claimed if isinstance(claimed, list) else [claimed]
    return tuple(one for one in listed if isinstance(one, str))
