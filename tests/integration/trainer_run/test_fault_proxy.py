"""The fault proxy itself: what passes is as it was, and each fault looks to a client as it should."""

import socket
import time
from collections.abc import Callable

import pytest

from rectrain_api.errors import PermissionRefused, StoreUnavailable
from rectrain_data.transfer import Retries, S3Options, Store, open_store
from rectrain_local.s3 import SeaweedS3
from tests.support import faults
from tests.support.fault_proxy import FaultProxy
from tests.support.faults import Effect

Opened = Callable[..., Store]
DATA = bytes(range(256)) * 400


@pytest.fixture
def opened(proxy: FaultProxy, seaweed: SeaweedS3, bucket: str) -> Opened:
    """A store through the proxy, or the same one directly."""

    def make(deadline_s: float = 20.0, *, direct: bool = False) -> Store:
        endpoint = seaweed.endpoint if direct else proxy.endpoint
        options = S3Options.from_environment(seaweed.env, endpoint=endpoint)
        return open_store(f"{bucket}/proxy", options, Retries(deadline_s))

    return make


def test_what_passes_is_unchanged(opened: Opened, proxy: FaultProxy) -> None:
    store, key = opened(), "a b/ü+%25&c=d.bin"
    store.put_bytes(key, DATA)
    assert store.get_bytes(key) == opened(direct=True).get_bytes(key) == DATA
    found = store.head(key)
    assert found is not None
    assert found.size == len(DATA)
    assert key in store.list_keys("")
    assert store.create("once", b"1")
    assert not store.create("once", b"2")
    assert set(proxy.counts) == {"passed"}


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(faults.SLOW_DOWN, id="throttled"),
        pytest.param(faults.SERVER_ERROR, id="error"),
        pytest.param(faults.reset, id="reset"),
        pytest.param(faults.truncate, id="truncated"),
    ],
)
def test_a_fault_that_passes(opened: Opened, proxy: FaultProxy, effect: Effect) -> None:
    store = opened()
    store.put_bytes("passing", DATA)
    fault = proxy.set(effect, "fault", method="GET", key="/passing$", count=1)
    assert store.get_bytes("passing") == DATA
    assert fault.hits == proxy.counts["fault"] == 1


def test_an_answer_is_lost_after_the_write(opened: Opened, proxy: FaultProxy) -> None:
    proxy.set(faults.lose_answer, "lost", method="PUT", count=1)
    assert not opened().create("landed", b"mine"), "the second try finds the first one's"
    assert opened(direct=True).get_bytes("landed") == b"mine"


def test_slow_bodies(opened: Opened, proxy: FaultProxy) -> None:
    store = opened()
    proxy.set(faults.slow(len(DATA) / 0.5), "slow", key="/slow$")
    started = time.monotonic()
    store.put_bytes("slow", DATA)
    sent = time.monotonic()
    assert store.get_bytes("slow") == DATA
    assert sent - started > 0.4
    assert time.monotonic() - sent > 0.4


def test_away_and_back(opened: Opened, proxy: FaultProxy) -> None:
    opened().put_bytes("stays", b"1")
    proxy.away()
    with pytest.raises(StoreUnavailable, match="refuses connections"):
        opened(0.0).get_bytes("stays")
    proxy.back()
    assert opened(0.0).get_bytes("stays") == b"1"


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        pytest.param(faults.EXPIRED, "session token has expired", id="expired"),
        pytest.param(faults.SKEWED, "clock is off", id="skewed"),
    ],
)
def test_refusals(opened: Opened, proxy: FaultProxy, effect: Effect, said: str) -> None:
    proxy.set(effect, "refused", body=b"needle")
    opened().put_bytes("other", b"hay")
    with pytest.raises(PermissionRefused, match=said):
        opened().put_bytes("refused", b"hay needle hay")


def test_something_done_between_write_and_answer(opened: Opened, proxy: FaultProxy) -> None:
    direct, seen = opened(direct=True), []
    proxy.set(faults.strike(lambda: seen.append(direct.get("struck")), landed=False), "x", count=1)
    proxy.set(faults.strike(lambda: seen.append(direct.get("struck")), landed=True), "y", count=1)
    opened().put_bytes("struck", b"1")
    assert seen == [None, b"1"]


def test_a_hanging_request_ends_with_its_client(opened: Opened, proxy: FaultProxy) -> None:
    proxy.set(faults.hang, "hung")
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.settimeout(0.5)
        client.sendall(b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
    proxy.clear()
    assert opened().get("nothing") is None
