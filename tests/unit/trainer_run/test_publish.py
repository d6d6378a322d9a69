"""The copies for people: made again where what is there isn't certainly the same."""

from typing import Any

import pytest

from rectrain_api.records import FinalRecord, RunState, StoredFile
from rectrain_data.transfer import ObjectInfo
from rectrain_trainer.publish import make_copies


class Store:
    """Knows one object at export/m."""

    def __init__(self, sha256: str | None) -> None:
        self.sha256 = sha256
        self.copied: list[str] = []

    def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, 3, None, self.sha256)

    def copy(self, _source: str, target: str) -> None:
        self.copied.append(target)


@pytest.mark.parametrize(
    ("sha256", "again"),
    [("same", False), ("other", True), pytest.param(None, True, id="unknown-is-not-the-same")],
)
def test_copies_are_made_again_unless_they_are_the_same(sha256: str | None, again: bool) -> None:
    store: Any = Store(sha256)
    final = FinalRecord(
        attempt=1,
        time="t",
        epochs=1,
        step=1,
        export_prefix="attempts/0001/export",
        export_files=[StoredFile(name="m", size=3, sha256="same")],
    )
    make_copies(store, RunState(), final)
    assert ("export/m" in store.copied) is again
