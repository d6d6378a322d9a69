"""The copies for people: made again where what is there isn't certainly the same."""

from typing import Any

import pytest

from rectrain_api.errors import InputMissing
from rectrain_api.records import (
    BestRecord,
    CheckpointRecord,
    FinalRecord,
    StoredFile,
)
from rectrain_api.run_state import RunState
from rectrain_data.transfer import ObjectInfo
from rectrain_trainer.copies import lost_export, make_copies
from tests.support.memory_store import MemoryStore

PREFIX = "attempts/0001/export"
BEST = BestRecord(attempt=1, time="t", accuracy=0.5, step=5, epoch=1, prefix="attempts/0001/step-000005")
FILES = [StoredFile(name="m", size=3, sha256="same")]


class Store(MemoryStore):
    """Answers `head` with a hash of its own."""

    uploaded_sha256: str | None = "same"

    def head(self, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(key, len(data), None, self.uploaded_sha256)


def finished() -> tuple[Any, RunState, FinalRecord]:
    """Everything is there, and copied."""
    final = FinalRecord(
        attempt=1, time="t", epochs=1, step=1, export_prefix=PREFIX, export_files=FILES, best=BEST
    )
    state = RunState()
    state.apply(CheckpointRecord(attempt=1, time="t", prefix=BEST.prefix, step=5, epoch=1, files=FILES))
    store = Store()
    for key in (f"{PREFIX}/m", "export/m", f"{BEST.prefix}/m", "best/m", "attempts/0001/report/report.json"):
        store.objects[key] = b"abc"
    return store, state, final


@pytest.mark.parametrize(
    ("sha256", "again"),
    [("same", False), ("other", True), pytest.param(None, True, id="unknown-is-not-the-same")],
)
def test_copies_are_made_again_unless_they_are_the_same(sha256: str | None, again: bool) -> None:
    store, state, final = finished()
    store.uploaded_sha256 = sha256
    make_copies(store, state, final)
    assert ("export/m" in store.copied) is again


@pytest.mark.parametrize("copy", ["export/m", "best/m"])
@pytest.mark.parametrize("data", [None, b"", b"ab"], ids=["missing", "empty", "truncated"])
def test_damaged_copies_are_made_again(copy: str, data: bytes | None) -> None:
    store, state, final = finished()
    store.objects.pop(copy) if data is None else store.objects.update({copy: data})
    make_copies(store, state, final)
    assert store.objects[copy] == b"abc"


@pytest.mark.parametrize("gone", [f"{BEST.prefix}/m", "attempts/0001/report/report.json"])
def test_what_can_be_missed_is_missed_with_a_warning(gone: str, caplog: pytest.LogCaptureFixture) -> None:
    store, state, final = finished()
    for key in (gone, "best/m", "export/m"):
        del store.objects[key]
    make_copies(store, state, final)
    assert f"{gone} isn't there" in caplog.text
    assert "export/m" in store.objects


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        pytest.param([], False, id="nothing"),
        pytest.param([f"{PREFIX}/m"], False, id="a-copy-is-left"),
        pytest.param(["export/m"], False, id="the-copy"),
        pytest.param([f"{PREFIX}/m", "export/m"], True, id="both"),
    ],
)
def test_a_model_that_is_gone_is_noticed(gone: list[str], lost: bool) -> None:
    store, _, final = finished()
    for key in gone:
        del store.objects[key]
    assert lost_export(store, final) == (f"s3://memory/run/{PREFIX}/m" if lost else None)


def test_a_model_of_the_wrong_size_is_lost() -> None:
    store, state, final = finished()
    store.objects |= {f"{PREFIX}/m": b"ab", "export/m": b"ab"}
    assert lost_export(store, final) is not None
    store.objects.pop(f"{PREFIX}/m")
    with pytest.raises(InputMissing):
        make_copies(store, state, final)
