"""Log files: lines, pieces, rotation, and reading them back."""

import asyncio
from pathlib import Path

import pytest

from rectrain_local.node.logfile import PIECE_BYTES, LogFile, older, stamp
from rectrain_local.node.logread import LogQuery, last_lines, read


class Clock:
    def __init__(self) -> None:
        self.now = 10**18

    def __call__(self) -> int:
        self.now += 10**9
        return self.now


async def text(path: Path, live: LogFile | None = None, **query: object) -> bytes:
    return b"".join([block async for block in read(path, LogQuery(**query), live)])  # type: ignore[arg-type]


def written(path: Path, *chunks: bytes, rotate_bytes: int = 10**9) -> LogFile:
    log = LogFile(path, rotate_bytes=rotate_bytes, now_ns=Clock())
    for chunk in chunks:
        log.feed("stdout", chunk)
    return log


async def test_lines_and_pieces_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    long = b"x" * (PIECE_BYTES * 2 + 5)
    log = written(path, b"one\ntw", b"o\n", b"\n", long + b"\nlast")
    log.feed("stderr", b"err\n")
    log.close()
    assert await text(path) == b"one\ntwo\n\n" + long + b"\nerr\nlast"
    assert path.read_bytes().startswith(stamp(10**18 + 10**9).encode() + b" stdout F one\n")


@pytest.mark.parametrize("lines", [0, 1, 3, 5, 99])
@pytest.mark.parametrize("rotate_bytes", [10**9, 150])
async def test_tail(tmp_path: Path, lines: int, rotate_bytes: int) -> None:
    path = tmp_path / "0.log"
    written(path, *(f"{i}\n".encode() for i in range(5)), rotate_bytes=rotate_bytes).close()
    assert older(path).exists() is (rotate_bytes == 150)
    expected = [str(i) for i in range(5)][max(0, 5 - lines) :] if lines else []
    assert (await text(path, tail=lines)).decode().split() == expected
    assert last_lines(path, lines, 4096).decode().split() == expected


async def test_since_limit_and_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    written(path, b"a\n", b"b\n", b"c\n").close()
    assert await text(path, since_ns=10**18 + 2 * 10**9) == b"b\nc\n"
    assert await text(path, limit_bytes=3) == b"a\nb"
    assert await text(path, timestamps=True, tail=1) == stamp(10**18 + 3 * 10**9).encode() + b" c\n"


async def test_a_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = written(path, rotate_bytes=10_000)
    for number in range(2000):
        log.feed("stdout", f"{number}\n".encode())
    log.close()
    assert path.stat().st_size + older(path).stat().st_size <= 20_000
    kept = (await text(path)).decode().split()
    assert kept[-1] == "1999"
    assert kept == [str(i) for i in range(int(kept[0]), 2000)]


async def test_following_across_a_rotation_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    log = written(path, b"0\n", rotate_bytes=200)
    follower = asyncio.create_task(text(path, log, follow=True))
    for number in range(1, 20):
        await asyncio.sleep(0)
        log.feed("stdout", f"{number}\n".encode())
        await asyncio.sleep(0.001)
    log.close()
    assert (await asyncio.wait_for(follower, 5)).decode().split() == [str(i) for i in range(20)]


async def test_a_full_disk_loses_output_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile(Path("/dev/full"))
    log.feed("stdout", b"lost\n")
    assert "output of a container is lost" in caplog.text
    log.close()
