"""The real command against a real S3 service: tiny sets of digits, and a hand on each run."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rectrain_data import demo
from rectrain_data.transfer import S3Options, open_store
from rectrain_local.s3 import SeaweedS3
from tests.support.fault_proxy import FaultProxy
from tests.support.plans import make_manifest
from tests.support.trainer import (
    TRAIN_SAMPLES,
    Place,
    Trainer,
    digits,
    environment,
    new_place,
    upload_packed,
)

MUCH = 400
"""Samples whose evaluation takes a second."""


@pytest.fixture(scope="session")
def s3(seaweed: SeaweedS3) -> S3Options:
    return S3Options.from_environment(seaweed.env)


@pytest.fixture(scope="session")
def bucket(seaweed: SeaweedS3) -> str:
    """URI of a bucket of our own."""
    return seaweed.make_bucket(f"trainer-{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="session")
def samples() -> list[tuple[str, bytes]]:
    """(text, PNG)"""
    return digits()


@pytest.fixture(scope="session")
def packed(
    bucket: str, s3: S3Options, samples: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """URI of a packed set with both splits."""
    folder = tmp_path_factory.mktemp("packed") / "set"
    return upload_packed(samples, folder, open_store(f"{bucket}/packed", s3))


@pytest.fixture(scope="session")
def much_to_evaluate(bucket: str, s3: S3Options, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a packed set with a large eval split."""
    samples = [demo.sample(7, number) for number in range(TRAIN_SAMPLES + MUCH)]
    folder = tmp_path_factory.mktemp("much") / "set"
    return upload_packed(samples, folder, open_store(f"{bucket}/much-to-evaluate", s3))


@pytest.fixture(scope="session")
def loose(bucket: str, s3: S3Options, samples: list[tuple[str, bytes]]) -> Callable[..., str]:
    """Uploads a label file with images, with the faults that a test wants; returns its URI."""

    def upload(
        count: int = 12, *, labels: dict[int, str] | None = None, data: dict[int, bytes | None] | None = None
    ) -> str:
        store = open_store(f"{bucket}/loose-{uuid.uuid4().hex[:8]}", s3)
        lines = []
        for number, (text, png) in enumerate(samples[:count]):
            content = (data or {}).get(number, png)
            if content is not None:
                store.put_bytes(f"images/{number}.png", content)
            lines.append(f"images/{number}.png\t{(labels or {}).get(number, text)}\n")
        store.put_bytes("labels.txt", "".join(lines).encode())
        return store.uri_of("labels.txt")

    return upload


@pytest.fixture
def trainer(seaweed: SeaweedS3, tmp_path: Path) -> Iterator[Trainer]:
    trainer = Trainer(tmp_path, environment(seaweed.env))
    yield trainer
    trainer.close()


@pytest.fixture
def place(bucket: str, s3: S3Options) -> Place:
    """An empty one."""
    return new_place(bucket, s3)


@pytest.fixture
def manifest(packed: str, place: Place) -> Callable[..., dict[str, Any]]:
    """A job over the packed set at the place, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        return make_manifest(**({"train": packed, "uri": place.uri, "batch_size": 16} | changes))

    return make


@pytest.fixture
def proxy(seaweed: SeaweedS3) -> Iterator[FaultProxy]:
    """Before the S3 service, without faults."""
    proxy = FaultProxy(seaweed.endpoint)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def finished(
    seaweed: SeaweedS3, bucket: str, s3: S3Options, packed: str, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """A run of two epochs of three steps, a checkpoint every two. Only looked at."""
    uri = f"{bucket}/runs/{uuid.uuid4().hex[:8]}"
    trainer = Trainer(tmp_path_factory.mktemp("made"), environment(seaweed.env))
    ended = trainer.run(make_manifest(train=packed, uri=uri, batch_size=16, interval=2))
    assert ended.code == 0, ended.errors
    return Place(uri, open_store(uri, s3))


@pytest.fixture
def copy(finished: Place, bucket: str, s3: S3Options) -> Place:
    """The same, to be damaged."""
    uri = f"{bucket}/runs/{uuid.uuid4().hex[:8]}"
    store = open_store(uri, s3)
    for key in finished.store.list_keys(""):
        store.put_bytes(key, finished.store.get_bytes(key))
    return Place(uri, store)


def unfinished(place: Place) -> Place:
    """As if its pod had been killed before `final`."""
    keys = place.store.list_keys("log/")
    place.store.delete([k for k, r in zip(keys, place.records(), strict=True) if r.kind == "final"])
    place.store.delete(keys[-1:])
    return place
