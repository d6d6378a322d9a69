"""What an earlier pod left on the disk is used only where its bytes are known to be the same."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rectrain_data.transfer import Download, sha256_bytes
from rectrain_trainer.board import Board
from rectrain_trainer.stage import _fetch, _Set


class Store:
    """Holds `new` under every key."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def download_all(self, items: Iterable[Download], *, limit: int, progress: Callable[[int], None]) -> None:
        for item in items:
            item.path.write_bytes(b"new")
            progress(3)
            self.fetched.append(item.key)


@pytest.mark.parametrize(
    ("here", "sha256", "fetched"),
    [
        pytest.param(b"old", None, True, id="a-loose-image-of-equal-size"),
        pytest.param(b"old", sha256_bytes(b"new"), True, id="a-shard-that-differs"),
        pytest.param(b"new", sha256_bytes(b"new"), False, id="a-shard-that-is-whole"),
        pytest.param(b"ne", sha256_bytes(b"new"), True, id="cut-off"),
    ],
)
def test_what_is_fetched_again(tmp_path: Path, here: bytes, sha256: str | None, fetched: bool) -> None:
    file = tmp_path / "1.png"
    file.write_bytes(here)
    store: Any = Store()
    staged = _Set(tmp_path / "labels.txt", False, (), store, [Download("1.png", file, 3, sha256)])
    _fetch([staged], tmp_path, None, Board("s3://b/run"))
    assert store.fetched == (["1.png"] if fetched else [])
    assert file.read_bytes() == b"new"
