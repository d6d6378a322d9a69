"""Metrics and log chunks: written early and late, bounded, and never in the way."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from rectrain_api.errors import StoreUnavailable
from rectrain_trainer import chunks as module
from rectrain_trainer.chunks import ChunkHandler, Chunks
from tests.support.waiting import wait_until


class Bucket:
    """What chunks need of a store."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.prefix = ""

    def at(self, prefix: str) -> "Bucket":
        self.prefix = prefix
        return self

    def put_bytes(self, key: str, data: bytes) -> None:
        if self.away:
            raise StoreUnavailable("away")
        assert self.prefix + key not in self.objects
        self.objects[self.prefix + key] = data

    def lines(self, kind: str) -> Sequence[str]:
        keys = sorted(k for k in self.objects if f"/{kind}/" in k)
        return b"".join(self.objects[k] for k in keys).decode().splitlines()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def started(bucket: Any) -> Chunks:
    chunks = Chunks()
    chunks.start(bucket, 3)
    return chunks


def test_the_first_metrics_are_written_at_once(bucket: Bucket) -> None:
    chunks = started(bucket)
    chunks.metric({"step": 1}, at_once=True)
    wait_until(lambda: "attempts/0003/metrics/000001.jsonl" in bucket.objects, 5, "nothing was written")
    chunks.close()


def test_the_rest_is_written_at_the_end(bucket: Bucket) -> None:
    chunks = started(bucket)
    chunks.metric({"step": 1})
    handler = ChunkHandler(chunks)
    handler.emit(logging.LogRecord("n", logging.INFO, "p", 1, "trained %d", (5,), None))
    chunks.close()
    assert '"step":1' in bucket.lines("metrics")[0]
    assert bucket.lines("log") == ["trained 5"]


def test_lines_from_before_the_attempt_are_kept(bucket: Bucket) -> None:
    chunks = Chunks()
    chunks.line("staging")
    chunks.start(bucket, 3)  # type: ignore[arg-type]
    chunks.close()
    assert bucket.lines("log") == ["staging"]


def test_what_cannot_be_written_waits_in_order(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    bucket.away = True
    chunks = started(bucket)
    for number in range(5):
        chunks.line(f"line {number}")
    bucket.away = False
    wait_until(lambda: len(bucket.lines("log")) == 5, 5, "it isn't tried again")
    chunks.close()
    assert bucket.lines("log") == [f"line {n}" for n in range(5)]


def test_memory_is_bounded_and_the_newest_survive(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 1000)
    monkeypatch.setattr(module, "CHUNK_BYTES", 300)
    chunks = Chunks()
    for number in range(1000):
        chunks.line(f"line {number:04d}")
    chunks.start(bucket, 3)  # type: ignore[arg-type]
    chunks.close()
    lines = bucket.lines("log")
    assert lines == [f"line {n:04d}" for n in range(900, 1000)]
    assert len(bucket.objects) == 4


def test_without_an_attempt_nothing_is_written() -> None:
    chunks = Chunks()
    chunks.line("lost")
    chunks.close()
