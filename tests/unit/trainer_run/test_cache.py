"""Shards on a shared volume: fetched once, whoever comes; a dead run's lock holds nobody up."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import DiskTooSmall, InvalidSpec, StoreUnavailable
from rectrain_data.transfer import Download, sha256_bytes
from rectrain_trainer import cache as cache_module
from rectrain_trainer.board import Board
from rectrain_trainer.cache import SharedCache
from rectrain_trainer.stage import _fetch_shared, _Set
from tests.support.waiting import wait_until

CONTENT = {f"shard-{n}.tar": f"shard {n}".encode() for n in range(5)}


class Store:
    """Holds CONTENT; may be made to wait, or to break in the middle."""

    uri = "s3://b"

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.breaks_at = ""
        self.gate = threading.Event()
        self.gate.set()

    def uri_of(self, key: str) -> str:
        return f"s3://b/{key}"

    def download_all(self, items: Iterable[Download], *, limit: int, progress: Callable[[int], None]) -> None:
        for item in items:
            assert self.gate.wait(30)
            if item.key == self.breaks_at:
                raise StoreUnavailable("gone")
            item.path.write_bytes(CONTENT[item.key])
            self.fetched.append(item.key)
            progress(item.size or 0)


def downloads(folder: Path) -> list[Download]:
    return [Download(k, folder / k, len(v), sha256_bytes(v)) for k, v in CONTENT.items()]


def fetch(volume: Path, run: Path, store: Any, board: Board | None = None) -> None:
    SharedCache(volume, board or Board("s3://b/run")).fetch(store, downloads(run), lambda _: None)


def whole(run: Path) -> bool:
    return {p.name: p.read_bytes() for p in run.iterdir()} == CONTENT


def test_the_second_run_fetches_nothing(tmp_path: Path) -> None:
    first, second = Store(), Store()
    fetch(tmp_path / "volume", tmp_path / "a", first)
    fetch(tmp_path / "volume", tmp_path / "b", second)
    assert (sorted(first.fetched), second.fetched) == (sorted(CONTENT), [])
    assert whole(tmp_path / "a")
    assert whole(tmp_path / "b")


def test_a_broken_download_is_gone_on_with(tmp_path: Path) -> None:
    store = Store()
    store.breaks_at = "shard-3.tar"
    with pytest.raises(StoreUnavailable):
        fetch(tmp_path / "volume", tmp_path / "a", store)
    store.breaks_at = ""
    fetch(tmp_path / "volume", tmp_path / "a", store)
    assert sorted(store.fetched) == sorted(CONTENT)
    assert whole(tmp_path / "a")


def test_a_file_of_another_size_is_fetched_again(tmp_path: Path) -> None:
    store = Store()
    fetch(tmp_path / "volume", tmp_path / "a", store)
    SharedCache(tmp_path / "volume", Board("s3://b/run")).place(downloads(tmp_path)[2]).write_bytes(b"cut")
    fetch(tmp_path / "volume", tmp_path / "a", store)
    assert store.fetched[5:] == ["shard-2.tar"]
    assert whole(tmp_path / "a")


def _hold(volume: Path, run: Path, entered: Any, go_on: Any) -> None:
    """Another pod, in the middle of its download."""
    store = Store()
    download_all = store.download_all

    def slow(items: Iterable[Download], **how: Any) -> None:
        entered.set()
        go_on.wait(60)
        download_all(items, **how)

    store.download_all = slow  # type: ignore[method-assign]
    fetch(volume, run, store)


@pytest.mark.parametrize("dies", [False, True])
def test_another_run_that_fetches_is_waited_for_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    monkeypatch.setattr(cache_module, "LOOK_AGAIN_S", 0.01)
    context = multiprocessing.get_context("fork")  # POSIX locks hold between processes only
    entered, go_on = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "volume", tmp_path / "a", entered, go_on))
    other.start()
    assert entered.wait(60)
    store, board = Store(), Board("s3://b/run")
    mine = threading.Thread(target=fetch, args=(tmp_path / "volume", tmp_path / "b", store, board))
    mine.start()
    wait_until(lambda: "another run is fetching" in board.message, 30, "it says that it waits")
    if dies:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
    else:
        go_on.set()
    mine.join(60)
    other.join(60)
    assert whole(tmp_path / "b")
    assert sorted(store.fetched) == (sorted(CONTENT) if dies else [])


def test_a_full_volume_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 10, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    store = Store()
    with pytest.raises(DiskTooSmall, match=r"needs 35 bytes .* data\.cache\.claimName has 0 bytes"):
        fetch(tmp_path / "volume", tmp_path / "a", store)
    assert store.fetched == []


def test_a_label_file_is_refused(tmp_path: Path) -> None:
    board = Board("s3://b/run")
    loose: Any = _Set(tmp_path / "labels.txt", False, (), Store(), [])  # type: ignore[arg-type]
    with pytest.raises(InvalidSpec, match=r"s3://b/labels\.txt is a label file: pack it"):
        _fetch_shared([loose], SharedCache(tmp_path / "volume", board), board)
    lmdb: Any = _Set(tmp_path, False, (), Store(), [])  # type: ignore[arg-type]
    with pytest.raises(InvalidSpec, match=r"s3://b is an LMDB: use data\.cache\.size"):
        _fetch_shared([lmdb], SharedCache(tmp_path / "volume", board), board)
