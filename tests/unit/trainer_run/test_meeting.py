"""Supervisors of several pods meet: rounds begin when all are ready, and end for all when one is gone."""

import contextlib
import json
import queue
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from rectrain_trainer import meeting
from rectrain_trainer.meeting import Event, Meeting, Seat, Word, free_port, meet
from tests.support.waiting import wait_until

Sit = Callable[[int], "Sitting"]


class Sitting:
    """One side of a meeting, its events awaited."""

    def __init__(self, seat: Seat) -> None:
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.meeting: Meeting = meet(seat, lambda: self._woken.put(None))
        self.meeting.__enter__()

    def event(self) -> Event:
        while (event := self.meeting.next_event()) is None:
            self._woken.get(timeout=20)
        return event

    def words(self) -> Word:
        return self.event().word

    def leave(self) -> None:
        self.meeting.__exit__()


@pytest.fixture
def seat() -> Callable[[int], Seat]:
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.1"
    port = free_port(address)
    return lambda pod, pods=3: Seat(pod, (address,) * pods, "job-1", address, port)


@pytest.fixture
def sit(seat: Callable[[int], Seat]) -> Iterator[Sit]:
    sitting: list[Sitting] = []

    def one(rank: int) -> Sitting:
        sitting.append(Sitting(seat(rank)))
        return sitting[-1]

    yield one
    for who in sitting:
        who.leave()


def begin(*all_of_them: Sitting) -> list[Event]:
    for one in all_of_them:
        one.meeting.ready()
    return [one.event() for one in all_of_them]


def test_a_round_begins_when_all_are_ready_and_names_one_store(sit: Sit) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    host.meeting.ready()
    first.meeting.ready()
    assert host.meeting.next_event() is None
    second.meeting.ready()
    events = [one.event() for one in (host, first, second)]
    assert {e.word for e in events} == {Word.GO}
    assert len({e.store for e in events}) == 1


@pytest.mark.parametrize("gone", [1, 2])
def test_a_guest_that_leaves_ends_the_round_for_all(sit: Sit, gone: int) -> None:
    everybody = [sit(0), sit(1), sit(2)]
    begin(*everybody)
    everybody[gone].leave()
    assert everybody[0].words() is Word.LOST
    over = everybody[3 - gone].event()
    assert (over.word, over.left) == (Word.OVER, True)
    again = sit(gone)
    assert {e.word for e in begin(everybody[0], everybody[3 - gone], again)} == {Word.GO}


def test_rank_0_that_leaves_is_missed_and_found_again(sit: Sit) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    host.leave()
    assert (first.words(), second.words()) == (Word.LOST, Word.LOST)
    for one in (first, second):
        one.meeting.ready()
    again = sit(0)
    again.meeting.ready()
    assert [one.words() for one in (again, first, second)] == [Word.GO] * 3


def test_a_mute_pod_is_lost(sit: Sit, seat: Callable[[int], Seat], monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without power closes no connection."""
    monkeypatch.setattr(meeting, "SILENCE_S", 3.0)
    monkeypatch.setattr(meeting, "ALIVE_S", 0.1)
    host, first = sit(0), sit(1)
    host.meeting.ready()
    first.meeting.ready()
    with mute(seat(2), [{"say": "hello", "job": "job-1", "pod": 2}, {"say": "ready"}]):
        assert (host.words(), first.words()) == (Word.GO, Word.GO)
        event = host.event()
    assert event.left
    assert (event.word, event.why) == (Word.LOST, "pod 2 went away")
    assert first.words() is Word.OVER


def mute(seat: Seat, lines: list[object]) -> socket.socket:
    """Says these lines to rank 0, and nothing more."""
    came: list[socket.socket] = []

    def comes() -> bool:
        with contextlib.suppress(ConnectionRefusedError):  # nobody listens yet
            came.append(socket.create_connection((seat.address, seat.port), timeout=10))
        return bool(came)

    wait_until(comes, 20, "rank 0 to listen")
    (connection,) = came
    for line in lines:
        connection.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
    return connection


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([{"say": "hello", "job": "another", "pod": 1}], id="another-job"),
        pytest.param([{"say": "hello", "job": "job-1", "pod": 0}], id="pod-0-itself"),
        pytest.param([{"say": "hello", "job": "job-1", "pod": 3}], id="no-such-pod"),
        pytest.param([{"say": "hello", "job": "job-1", "pod": "1"}], id="pod-is-text"),
        pytest.param([{"say": "ready"}], id="no-hello"),
        pytest.param([b"GET / HTTP/1.1\r\n\r\n"], id="http"),
        pytest.param([b"[" * 4000 + b"\n"], id="nested"),
        pytest.param([b"x" * 100_000], id="endless"),
        pytest.param([b"\xff\xfe\n"], id="bytes"),
    ],
)
def test_strangers_are_sent_away_and_harm_nothing(
    sit: Sit, seat: Callable[[int], Seat], lines: list[object]
) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    with mute(seat(1), lines) as stranger:
        stranger.settimeout(20)
        said = b""
        try:
            while more := stranger.recv(4096):
                said += more
        except ConnectionResetError:
            pass
    assert b"refused" in said or not said
    assert host.meeting.next_event() is None
    first.meeting.tell(Word.STOP)
    assert host.words() is Word.STOP


def test_who_has_finished_may_leave(sit: Sit) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    first.meeting.tell(Word.FINISHED)
    first.leave()
    second.meeting.tell(Word.STOP)
    assert host.words() is Word.STOP, "nothing was said of the first"


def test_done_and_over_reach_all(sit: Sit) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    host.meeting.tell(Word.OVER, "rank 0 ended")
    assert (first.event(), second.words()) == (Event(Word.OVER, "rank 0 ended"), Word.OVER)
    begin(host, first, second)
    host.meeting.tell(Word.DONE)
    assert (first.words(), second.words()) == (Word.DONE, Word.DONE)


def test_a_broken_rank_ends_the_round(sit: Sit) -> None:
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    first.meeting.tell(Word.BROKEN)
    assert host.event() == Event(Word.BROKEN, "a process of pod 1 was lost, or lost another one")
    over = second.event()
    assert (over.word, over.left) == (Word.OVER, False)


def test_a_newcomer_in_mid_round_may_go_again(sit: Sit, seat: Callable[[int], Seat]) -> None:
    """A finished rank's pod was replaced while rank 0 exports; the replacement is no part of the round."""
    host, first, second = sit(0), sit(1), sit(2)
    begin(host, first, second)
    first.meeting.tell(Word.FINISHED)
    first.leave()
    with mute(seat(1), [{"say": "hello", "job": "job-1", "pod": 1}]) as newcomer:
        assert newcomer.recv(4096), "it is welcome"
    second.meeting.tell(Word.STOP)
    assert host.words() is Word.STOP, "nothing was said of the newcomer"
