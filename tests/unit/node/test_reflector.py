"""List and watch against an API server that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from rectrain_local.node.api import Api, ApiError, ApiUnreachable
from rectrain_local.node.reflector import Reflector

Obj = dict[str, Any]


def obj(uid: str, version: int) -> Obj:
    return {"metadata": {"uid": uid, "resourceVersion": str(version)}}


class ScriptedApi(Api):
    """Plays lists and watches from a script; an exception in a watch's script is raised."""

    def __init__(self, lists: list[list[Obj]], watches: list[list[Any]]) -> None:
        self.lists, self.watches = lists, watches
        self.versions: list[str] = []
        self.finished = asyncio.Event()

    async def list(self, path: str, selector: Mapping[str, str]) -> tuple[list[Obj], str]:
        return self.lists.pop(0), "100"

    async def watch(
        self, path: str, selector: Mapping[str, str], version: str
    ) -> AsyncIterator[tuple[str, Obj]]:
        self.versions.append(version)
        if not self.watches:
            self.finished.set()
            await asyncio.sleep(3600)
        for step in self.watches.pop(0):
            if isinstance(step, Exception):
                raise step
            yield step


async def play(api: ScriptedApi) -> tuple[list[str], Reflector]:
    seen: list[str] = []

    def changed(old: Obj | None, new: Obj | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        seen.append(f"{'+' if old is None else '-' if new is None else '~'}{uid}")

    reflector = Reflector(api, "/x", changed)
    task = asyncio.create_task(reflector.run())
    await asyncio.wait_for(api.finished.wait(), 5)
    task.cancel()
    return seen, reflector


async def test_a_broken_watch_goes_on_where_it_ended() -> None:
    watch = [
        ("ADDED", obj("b", 101)),
        ("BOOKMARK", {"metadata": {"resourceVersion": "150"}}),
        ApiUnreachable("x"),
    ]
    api = ScriptedApi([[obj("a", 1)]], [watch, [("MODIFIED", obj("a", 160)), ("DELETED", obj("b", 161))]])
    seen, reflector = await play(api)
    assert seen == ["+a", "+b", "~a", "-b"]
    assert api.versions == ["100", "150", "161"]
    assert set(reflector.objects) == {"a"}


async def test_an_expired_version_leads_to_a_new_list_and_only_differences_are_told() -> None:
    lists = [[obj("a", 1), obj("b", 2), obj("c", 3)], [obj("a", 1), obj("b", 9), obj("d", 4)]]
    seen, reflector = await play(ScriptedApi(lists, [[ApiError(410, "too old")]]))
    assert seen == ["+a", "+b", "+c", "-c", "~b", "+d"]
    assert reflector.synced.is_set()
