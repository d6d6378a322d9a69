"""Several ranks in a pod: whose end counts, what each finds in its environment, what they share."""

import threading
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.exit_codes import EX_OK
from rectrain_api.report import TerminationResult
from rectrain_trainer import device
from rectrain_trainer.crew import PEER_LOST, Crew, Member
from rectrain_trainer.environment import IN_POD
from rectrain_trainer.interfaces import interface_of, local_address
from rectrain_trainer.meeting import ONE_POD, Seat, Word, meet
from rectrain_trainer.memory import Room
from rectrain_trainer.placement import NCCL, Placement
from rectrain_trainer.preflight import Way
from rectrain_trainer.ranks import Ranks, Share
from rectrain_trainer.stacks import leave, left_by

FINE = (EX_OK, "Completed")
LOST = (69, PEER_LOST)
KILLED = (137, "Crashed")
BAD = (65, "DatasetInvalid")
TOLD = (75, "Interrupted")
END: Any = "ended by us"


def crew(*ends: Any, first: int = 0) -> Crew:
    members = []
    for rank, end in enumerate(ends, first):
        code, reason = KILLED if end is END else end
        result = TerminationResult(
            exit_code=code, reason=reason, message=f"Said by {rank}.", attempt=rank + 1
        )
        members.append(Member(rank, None, result, ended_by_us=end is END))  # type: ignore[arg-type]
    return Crew(members, of_rank_0=first == 0)


@pytest.mark.parametrize(
    ("ends", "code", "message"),
    [
        pytest.param((FINE, FINE), 0, "Said by 0.", id="fine"),
        pytest.param((FINE, END), 0, "Said by 0.", id="done-before-the-others"),
        pytest.param((LOST, KILLED), 137, "Rank 1: Said by 1.", id="another-was-killed"),
        pytest.param((END, LOST, BAD), 65, "Rank 2: Said by 2.", id="another-failed-and-rank-0-hung"),
        pytest.param((LOST, LOST), 69, "Said by 0.", id="another-pod-was-lost"),
        pytest.param((KILLED, LOST), 137, "Said by 0.", id="rank-0-was-killed"),
        pytest.param((TOLD, LOST), 75, "Said by 0.", id="told-to-stop"),
        pytest.param((BAD, KILLED), 65, "Said by 0.", id="rank-0-has-its-own-reason"),
    ],
)
def test_it_is_rank_0_that_speaks_unless_another_one_failed_it(
    ends: tuple[Any, ...], code: int, message: str
) -> None:
    said = crew(*ends).verdict()
    assert (said.exit_code, said.message) == (code, message)
    assert said.attempt == 1, "what is known of the run is known by rank 0"


@pytest.mark.parametrize(
    ("ends", "code", "message"),
    [
        pytest.param((FINE, FINE), 0, "Said by 4.", id="fine"),
        pytest.param((LOST, KILLED), 137, "Rank 5: Said by 5.", id="one-was-killed"),
        pytest.param((END, BAD), 65, "Rank 5: Said by 5.", id="one-failed"),
    ],
)
def test_another_pod_tells_of_whoever_failed_in_it(ends: tuple[Any, ...], code: int, message: str) -> None:
    said = crew(*ends, first=4).verdict()
    assert (said.exit_code, said.message) == (code, message)


def test_a_pod_stays_for_one_of_several_that_was_killed() -> None:
    assert crew(LOST, KILLED).crashed
    assert crew(KILLED, END).crashed
    assert not crew(KILLED).crashed, "a pod with one device is replaced"
    assert not crew(BAD, END).crashed


def test_each_rank_has_its_device_and_its_place() -> None:
    seat = Seat(1, ("a.x", "b.x"), "job-1", "127.3.2.1")
    placement = Placement(seat, in_pod=4, backend=NCCL, store="10.0.0.1:4000")
    found = [placement.environment(rank, {}) for rank in range(4, 8)]
    assert [one["FLAGS_selected_gpus"] for one in found] == ["0", "1", "2", "3"]
    assert [one["PADDLE_TRAINER_ID"] for one in found] == ["4", "5", "6", "7"]
    assert {one["PADDLE_TRAINERS_NUM"] for one in found} == {"8"}
    assert len({one["PADDLE_CURRENT_ENDPOINT"] for one in found}) == 4
    assert len(set(found[0]["PADDLE_TRAINER_ENDPOINTS"].split(","))) == 8
    assert all(one["PADDLE_CURRENT_ENDPOINT"].startswith("b.x:") for one in found)
    assert all("CUDA_VISIBLE_DEVICES" not in one for one in found)
    assert {one["NCCL_SOCKET_IFNAME"] for one in found} == {"lo"}
    assert "NCCL_SOCKET_IFNAME" not in placement.environment(4, {"NCCL_SOCKET_IFNAME": "eth7"})
    ranks = [Ranks.from_environment(one) for one in found]
    assert [one.share for one in ranks] == [Share(rank, 8) for rank in range(4, 8)]
    assert [one.leads_pod for one in ranks] == [True, False, False, False]
    assert not any(one.first for one in ranks)


def test_one_pod_needs_no_meeting() -> None:
    woken = threading.Event()
    with meet(ONE_POD, woken.set) as meeting:
        for _ in range(2):
            meeting.ready()
            event = meeting.next_event()
            assert event is not None
            assert (event.word, event.store.split(":")[0]) == (Word.GO, "127.0.0.1")
        meeting.tell(Word.DONE)
        assert meeting.next_event() is None
    assert woken.is_set()


def test_interfaces_are_named_by_address() -> None:
    assert interface_of("127.0.0.1") == interface_of("127.9.8.7") == "lo"
    assert interface_of("192.0.2.77") is None
    assert local_address("127.0.0.9") == "127.0.0.1"


def test_a_way_that_does_not_work_is_told_from_a_rank_that_hangs() -> None:
    way = Way(rank=1, in_pod=2, pods=("a.x", "b.x"), interface="eth0", address="10.0.0.1")
    assert way.sentence([0, 3], True, 60.0) == (
        "Before training, an all-reduce got no answer within 60 s: all take part, but the way to rank 0 "
        "(this pod), rank 3 (b.x) doesn't work. Rank 1 uses the interface eth0 (10.0.0.1); see whether the "
        "pods reach each other on all ports (NetworkPolicy, firewall), and whether that interface leads "
        "there (NCCL_SOCKET_IFNAME names another)."
    )
    failed = way.sentence([2], False, 60.0, "connection refused")
    assert failed.startswith(
        "Before training, an all-reduce failed (connection refused): rank 2 (b.x) takes no part."
    )


def test_the_way_is_read_from_the_environment() -> None:
    env = {"RECTRAIN_PEERS": "127.0.0.1,127.0.0.2", "RECTRAIN_POD_IP": "127.0.0.2"}
    assert Way.of(2, 2, env) == Way(2, 2, ("127.0.0.1", "127.0.0.2"), "lo", "127.0.0.2")
    nccl = {"PADDLE_DISTRI_BACKEND": "nccl", "NCCL_SOCKET_IFNAME": "eth7"}
    assert Way.of(2, 2, env | nccl).interface == "eth7"


def test_cores_and_memory_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(device, "_cgroup_limit", lambda: 12.0)
    for ranks, cores in (("1", 12), ("4", 3), ("5", 2), ("16", 1)):
        monkeypatch.setenv(IN_POD, ranks)
        assert device.usable_cores() == cores
    assert Room(1000, 2000, "pod").shared(4) == Room(250, 2000, "pod")


def test_stacks_of_the_other_ranks_are_found(tmp_path: Path) -> None:
    leave(tmp_path / "stacks", 1)
    found = list(left_by(tmp_path / "stacks", [1, 2], wait_s=0))
    assert found[0] == "Rank 1:"
    assert any("test_stacks_of_the_other_ranks_are_found" in line for line in found)
    assert found[-1] == "Rank 2 doesn't say where it stands: see the pod's own log."
    assert not list((tmp_path / "stacks").iterdir()), "not to be taken for those of the next stall"
