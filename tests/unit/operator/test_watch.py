"""List and watch: pages, bookmarks, broken streams, 410 Gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rectrain_operator import watch as watch_module
from rectrain_operator.client import ApiError
from rectrain_operator.watch import Watch


def thing(name: str, version: int) -> dict[str, Any]:
    """An object."""
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    """A watch event."""
    return {"type": kind, "object": thing(name, version)}


GONE = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}


class Script:
    """A client that plays what a test wrote: pages for lists, one list of events (or an error) a stream."""

    def __init__(self, pages: list[dict[str, Any] | ApiError], streams: list[list[Any]]) -> None:
        self.pages, self.streams = pages, streams
        self.asked: list[dict[str, str]] = []
        self.ended = asyncio.Event()

    async def get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        self.asked.append(dict(query))
        page = self.pages.pop(0)
        if isinstance(page, ApiError):
            raise page
        return page

    async def stream(self, path: str, query: dict[str, str], *, silence_s: float) -> AsyncIterator[Any]:
        self.asked.append(dict(query))
        if not self.streams:
            self.ended.set()
            await asyncio.Event().wait()
        for one in self.streams.pop(0):
            if isinstance(one, ApiError):
                raise one
            yield one


class Notes:
    """A sink that writes down."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def listed(self, manifests: list[dict[str, Any]]) -> None:
        self.said.append("listed " + ",".join(m["metadata"]["name"] for m in manifests))

    def changed(self, manifest: dict[str, Any]) -> None:
        self.said.append("changed " + manifest["metadata"]["name"])

    def deleted(self, manifest: dict[str, Any]) -> None:
        self.said.append("deleted " + manifest["metadata"]["name"])


def page(*names: str, version: int = 5, following: str = "") -> dict[str, Any]:
    """One page of a list."""
    return {
        "items": [thing(n, 1) for n in names],
        "metadata": {"resourceVersion": str(version), "continue": following},
    }


async def play(script: Script) -> Notes:
    """Run a watch to the end of the script."""
    notes = Notes()
    watch = Watch(script, kind="Things", path="/things", selector="a=b", sink=notes, clock=lambda: 0.0)  # type: ignore[arg-type]
    task = asyncio.create_task(watch.run())
    await asyncio.wait_for(script.ended.wait(), 10)
    task.cancel()
    assert watch.synced.is_set()
    return notes


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FIRST_PAUSE_S", 0.0)


async def test_pages_are_one_list() -> None:
    script = Script([page("a", "b", following="next"), page("c")], [])
    assert (await play(script)).said == ["listed a,b,c"]
    assert [q.get("continue") for q in script.asked] == [None, "next", None]
    assert all(q["labelSelector"] == "a=b" for q in script.asked)


async def test_events_and_bookmarks() -> None:
    events = [
        event("ADDED", "b", 6),
        event("MODIFIED", "b", 7),
        event("DELETED", "a", 8),
        event("BOOKMARK", "", 9),
    ]
    script = Script([page("a")], [events])
    assert (await play(script)).said == ["listed a", "changed b", "changed b", "deleted a"]
    assert script.asked[-1]["resourceVersion"] == "9", "goes on from the bookmark"


async def test_a_broken_stream_goes_on_where_it_was() -> None:
    script = Script([page("a")], [[event("ADDED", "b", 6), ApiError(0, "cut")], [event("ADDED", "c", 7)]])
    assert (await play(script)).said == ["listed a", "changed b", "changed c"]
    assert [q.get("resourceVersion") for q in script.asked] == [None, "5", "6", "7"]


@pytest.mark.parametrize("gone", [GONE, ApiError(410, "too old")])
async def test_gone_lists_again(gone: Any) -> None:
    script = Script([page("a"), page("a", "b", version=20)], [[gone]])
    assert (await play(script)).said == ["listed a", "listed a,b"]
    assert script.asked[-1]["resourceVersion"] == "20"


async def test_a_server_that_is_away_is_asked_again() -> None:
    script = Script([ApiError(0, "away"), ApiError(503, "starting"), page("a")], [])
    assert (await play(script)).said == ["listed a"]


async def test_a_list_that_grew_too_old_between_pages_begins_anew() -> None:
    script = Script([page("a", following="next"), ApiError(410, "too old"), page("a", "b")], [])
    assert (await play(script)).said == ["listed a,b"]


async def test_an_account_without_rights_is_told_where_they_are(caplog: pytest.LogCaptureFixture) -> None:
    await play(Script([ApiError(403, "things is forbidden"), ApiError(0, "away"), page("a")], []))
    assert [getattr(r, "hint", "") for r in caplog.records] == [watch_module.FORBIDDEN_HINT, ""]
    assert "rectrain-operator manifests" in watch_module.FORBIDDEN_HINT
