"""Carries out what `decide` wants: creates children once, raises epochs. Called by `reconcile`.

Each child is POSTed; "already exists" under our owner UID is done (a crash, or another look), under another's
it is a refusal that the user reads. The Job comes last: its pod mounts the others.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

from rectrain_api.plan import epochs_of, with_epochs
from rectrain_api.status import Reason
from rectrain_operator import paths
from rectrain_operator.children.names import PLAN_KEY
from rectrain_operator.client import ApiError, KubeClient
from rectrain_operator.decide import child_id
from rectrain_operator.keys import Manifest
from rectrain_operator.seen import Refusal
from rectrain_operator.views import controller_uid

_INVALID: Final = frozenset({400, 422})


@dataclass(frozen=True)
class Applied:
    """What came of it."""

    present: frozenset[str] = field(default=frozenset())
    """Children now known to be ours, as `child_id` names them."""
    job: Manifest | None = None
    plan_epochs: int | None = None
    """Epochs of the run plan, where it was made or read."""
    refusal: Refusal | None = None


async def create_children(client: KubeClient, owner_uid: str, children: tuple[Manifest, ...]) -> Applied:
    """Create what is missing. Raises ApiError when asking again may help."""
    small = [c for c in children if c["kind"] != "Job"]
    made = await asyncio.gather(*(_ensure(client, owner_uid, c) for c in small))
    refusal = next((r for r in made if isinstance(r, Refusal)), None)
    present = frozenset(child_id(c) for c, r in zip(small, made, strict=True) if not isinstance(r, Refusal))
    plans = [epochs_of(r["data"][PLAN_KEY]) for r in made if not isinstance(r, Refusal) and _is_plan(r)]
    applied = Applied(present, plan_epochs=plans[0] if plans else None, refusal=refusal)
    if refusal is not None:
        return applied
    for job in (c for c in children if c["kind"] == "Job"):
        result = await _ensure(client, owner_uid, job)
        if isinstance(result, Refusal):
            return replace(applied, refusal=result)
        return replace(applied, job=result)
    return applied


async def raise_epochs(client: KubeClient, owner_uid: str, plan_path: str, epochs: int) -> int:
    """Give a written run plan more epochs, and change nothing else of it; returns what it has then.

    Raises ApiError; 409 when it isn't this run's plan any more, or changes at the same time.
    """
    there = await client.get(plan_path)
    text = there["data"][PLAN_KEY] if _is_plan(there) else ""
    now = epochs_of(text)
    if now is None or controller_uid(there) != owner_uid:
        raise ApiError(409, f"{plan_path} isn't this run's plan any more")
    if now >= epochs:
        return now
    version = {"resourceVersion": there["metadata"]["resourceVersion"]}
    await client.merge_patch(plan_path, {"metadata": version, "data": {PLAN_KEY: with_epochs(text, epochs)}})
    return epochs


def _is_plan(there: Manifest) -> bool:
    return PLAN_KEY in (there.get("data") or {})


async def _ensure(client: KubeClient, owner_uid: str, child: Manifest) -> Manifest | Refusal:
    try:
        return await client.post(paths.siblings(child), child)
    except ApiError as failed:
        if failed.status in _INVALID:
            return Refusal(Reason.INVALID_SPEC, f"The API server refuses it: {failed}", final=True)
        if failed.status == 403:
            return Refusal(Reason.FORBIDDEN, f"The API server forbids it: {failed}", final=False)
        if failed.status != 409:
            raise
    there = await client.get(paths.itself(child))
    if controller_uid(there) != owner_uid:
        kind, name = child["kind"], child["metadata"]["name"]
        return Refusal(
            Reason.NAME_TAKEN,
            f"A {kind} named {name} that isn't this run's is in the way: delete it, or make the run "
            "under another name.",
            final=False,
        )
    if child["kind"] == "ConfigMap" and _differs_as_ca(child, there):
        return await client.merge_patch(paths.itself(child), {"data": child["data"]})
    return there


def _differs_as_ca(child: Manifest, there: Manifest) -> bool:
    """The CA is kept equal to the current one; a run plan only ever gets more epochs (`raise_epochs`)."""
    return "ca.crt" in child["data"] and there.get("data") != child["data"]
