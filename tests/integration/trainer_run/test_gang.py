"""Supervisors of one run's pods over small children: who ends with what, and who stays."""

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rectrain_trainer.gang import FRUITLESS_ROUNDS
from rectrain_trainer.meeting import free_port
from tests.support.waiting import wait_until

DRIVER = """
import logging, os, sys
from rectrain_trainer.supervisor import block_signals
block_signals()  # before any import that starts a thread, as the command does
from rectrain_trainer import gang
from rectrain_trainer.meeting import Seat
logging.basicConfig(level=logging.INFO)
logging.info("the supervisor is ready")
child, rank, address, port, patience, ranks = sys.argv[1:]
gang.BLAME_S, gang.LAST_WORDS_S = 1.5, 5.0
seat = Seat(int(rank), (address, address), "job-1", address, int(port))
def command_for(recorder, until):
    return [sys.executable, "-c", child, str(recorder.fd), until, rank, str(os.getpid())]
result = gang.supervise_pod(
    command_for, seat, ranks=int(ranks), backend="gloo", grace_s=20, stall_timeout_s=1, variables={},
    patience_s=float(patience),
)
print(result.to_termination_message(), flush=True)
sys.exit(result.exit_code)
"""

CHILD = """
import os, signal, sys, time
from rectrain_api.report import TerminationResult
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.die_with import die_with
die_with(int(sys.argv[4]))
recorder = FlightRecorder(int(sys.argv[1]))
until, rank = sys.argv[2], int(sys.argv[3])
def end(code, reason, reached=False):
    recorder.write(TerminationResult(exit_code=code, reason=reason, message=reason, reached_training=reached))
    os._exit(code)
def on_term(do):
    signal.signal(signal.SIGTERM, do)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
if until == "looked":
    LOOKS
print("round", rank, os.environ["PADDLE_TRAINER_ID"], file=sys.stderr, flush=True)
"""
TRAINS = """
on_term(lambda *_: end(75, "Interrupted"))
while True: time.sleep(60)
"""


class Pod:
    """One supervisor under way."""

    def __init__(
        self, child: str, rank: int, place: tuple[str, int], patience_s: float, looks: str, ranks: int
    ) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it goes with the object
        child = CHILD.replace("LOOKS", looks) + child
        arguments = [child, str(rank), place[0], str(place[1]), str(patience_s), str(ranks)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *arguments],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def rounds(self) -> int:
        return self.said().count("\nround ") + self.said().startswith("round ")

    def until_round(self, number: int, *others: "Pod") -> None:
        """Of those whose process came so far as to say so: one that is ended at once says nothing."""
        said = lambda: "\n".join(pod.said() for pod in (self, *others))  # noqa: E731
        wait_until(lambda: self.rounds() >= number, 30, lambda: f"round {number}; they said:\n{said()}")

    def result(self) -> tuple[int, dict[str, Any]]:
        out, _ = self.process.communicate(timeout=60)
        assert out, self.said()
        return self.process.returncode, json.loads(out.splitlines()[-1])


Start = Callable[..., Pod]


@pytest.fixture
def start() -> Iterator[Start]:
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.1"
    place, pods = (address, free_port(address)), []

    def one(
        rank: int,
        child: str = TRAINS,
        patience_s: float = 60,
        looks: str = 'end(0, "Checked")',
        ranks: int = 1,
    ) -> Pod:
        pods.append(Pod(child, rank, place, patience_s, looks, ranks))
        return pods[-1]

    yield one
    for pod in pods:
        pod.process.kill()
        pod.process.communicate()
        pod.errors.close()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_are_not_waited_for_for_ever(start: Start, rank: int) -> None:
    code, said = start(rank, patience_s=1).result()
    assert (code, said["reason"]) == (69, "PeerLost")
    assert "Not all 2 pods of the run came" in said["message"]


@pytest.mark.parametrize("rank", [0, 1])
def test_told_to_stop_while_waiting_it_goes_at_once(start: Start, rank: int) -> None:
    pod = start(rank)
    wait_until(lambda: "the supervisor is ready" in pod.said(), 30, "it runs")
    pod.process.send_signal(signal.SIGTERM)
    code, said = pod.result()
    assert (code, said["reason"]) == (75, "Interrupted")


def test_what_rank_0_finds_before_needs_no_other_pod(start: Start) -> None:
    """A run that is finished, or a place that is another's."""
    for code, reason in ((0, "AlreadyComplete"), (78, "RunConflict")):
        ended, said = start(0, looks=f"end({code}, '{reason}')").result()
        assert (ended, said["reason"]) == (code, reason)


@pytest.mark.parametrize(
    ("child", "code"),
    [
        pytest.param('end(65, "DatasetInvalid")', 65, id="its-own-error"),
        pytest.param("os.kill(os.getpid(), 11)", 139, id="crash"),
        pytest.param("os.kill(os.getpid(), 9)", 137, id="killed-for-memory"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_pod_at_fault_leaves(start: Start, child: str, code: int, rank: int) -> None:
    bad, good = start(rank, child), start(1 - rank)
    assert bad.result()[0] == code
    wait_until(lambda: "Waiting for all pods" in good.said(), 30, good.said)
    assert good.process.poll() is None
    good.until_round(good.rounds() + 1, start(rank))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_crash_of_anothers_loss_is_not_its_own_fault(start: Start, rank: int) -> None:
    """As a library that aborts when its peer goes: the pod stays, and is there for the next round."""
    victim = start(rank, "time.sleep(1)\nos.kill(os.getpid(), signal.SIGABRT)")
    killed = start(1 - rank)
    victim.until_round(1)
    killed.process.kill()
    wait_until(lambda: "Waiting for all pods" in victim.said(), 30, victim.said)
    assert victim.process.poll() is None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_crash_that_the_other_only_notices_is_its_own_fault(start: Start, rank: int) -> None:
    """The other rank's process says at once that it lost its peer: that excuses nobody."""
    bad = start(rank, "time.sleep(0.5)\nos.kill(os.getpid(), signal.SIGSEGV)")
    good = start(1 - rank, 'time.sleep(0.6)\nend(69, "PeerLost", True)')
    assert bad.result()[0] == 139
    wait_until(lambda: "Waiting for all pods" in good.said(), 30, good.said)
    assert good.process.poll() is None


def test_a_fault_of_rank_0_is_counted_once(start: Start) -> None:
    """The other rank's process aborts with it, as NCCL's does: its pod stays."""
    host = start(0, "time.sleep(0.5)\nos.kill(os.getpid(), signal.SIGSEGV)")
    guest = start(1, "time.sleep(0.8)\nos.kill(os.getpid(), signal.SIGABRT)")
    assert host.result()[0] == 139
    wait_until(lambda: "Waiting for all pods" in guest.said(), 30, guest.said)
    assert guest.process.poll() is None


def test_rank_0_has_its_whole_grace_to_save(start: Start) -> None:
    """Longer than the others can wait within a step: their processes give up meanwhile."""
    saves = "def save(*_):\n    time.sleep(8)\n    end(75, 'Interrupted')\non_term(save)\n"
    host = start(0, saves + "while True: time.sleep(60)")
    guest = start(1, 'time.sleep(2)\nend(69, "PeerLost", True)')
    guest.until_round(1)
    host.until_round(1)
    host.process.send_signal(signal.SIGTERM)
    code, said = host.result()
    assert (code, said["reason"], said["message"]) == (75, "Interrupted", "Interrupted")


def test_a_fenced_rank_0_leaves_though_another_pod_asked_it_to_save(start: Start) -> None:
    fenced = "on_term(lambda *_: end(76, 'Fenced'))\nwhile True: time.sleep(60)"
    host, guest = start(0, fenced), start(1)
    guest.until_round(1)
    host.until_round(1)
    guest.process.send_signal(signal.SIGTERM)
    assert host.result()[0] == 76
    assert guest.result()[0] == 75


def test_a_link_that_breaks_again_and_again_is_given_up(start: Start) -> None:
    """Both pods live and hear each other; their ranks don't: a network policy, say."""
    breaks = 'time.sleep(0.1)\nend(69, "PeerLost")'
    host, guest = start(0, breaks), start(1, breaks)
    code, said = host.result()
    assert (code, said["reason"]) == (69, "PeerLost")
    assert f"{FRUITLESS_ROUNDS} times" in said["message"]
    assert guest.process.poll() is None
    assert host.rounds() == FRUITLESS_ROUNDS


@pytest.mark.parametrize(
    ("killed", "code", "begins"),
    [
        pytest.param("1", 137, "Rank 1: The training process", id="beside-rank-0"),
        pytest.param("3", 69, "PeerLost", id="in-the-other-pod"),
    ],
)
def test_one_of_several_that_is_killed_costs_a_round_and_no_pod(
    start: Start, killed: str, code: int, begins: str
) -> None:
    """Two ranks in each of two pods; when it happens again and again, rank 0's pod ends with the reason."""
    child = f"""
if os.environ["PADDLE_TRAINER_ID"] == "{killed}": os.kill(os.getpid(), 9)
time.sleep(0.3)
end(69, "PeerLost", True)
"""
    host, guest = start(0, child, ranks=2), start(1, child, ranks=2)
    ended, said = host.result()
    assert ended == code, host.said()
    assert said["message"].startswith(begins)
    assert f"So it was {FRUITLESS_ROUNDS} times" in said["message"]
    assert guest.process.poll() is None


def test_when_one_rank_is_over_the_others_of_its_pod_are_ended(start: Start) -> None:
    """Whatever they do; an error of its own ends the pod."""
    child = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ["PADDLE_TRAINER_ID"] == "3": end(71, "DeviceUnavailable")
while True: time.sleep(60)
"""
    host, guest = start(0, ranks=2), start(1, child, ranks=2)
    code, said = guest.result()
    assert (code, said["reason"], said["message"]) == (71, "DeviceUnavailable", "Rank 3: DeviceUnavailable")
    assert host.process.poll() is None


def test_a_finished_rank_waits_for_rank_0_and_ends_well_with_it(start: Start) -> None:
    done = 'end(0, "Completed", True)'
    host = start(0, "time.sleep(1.5)\n" + done)
    guest = start(1, done)
    assert host.result()[0] == 0
    code, said = guest.result()
    assert (code, said["reason"]) == (0, "Completed")


def test_rank_0_that_fails_after_training_needs_the_finished_rank_again(start: Start) -> None:
    guest = start(1, 'end(0, "Completed", True)')
    host = start(0, 'time.sleep(1)\nend(70, "InternalError", True)')
    assert host.result()[0] == 70
    guest.until_round(guest.rounds() + 1, start(0))
    assert guest.process.poll() is None


def test_a_deaf_process_is_killed_at_the_deadline(start: Start) -> None:
    """In NCCL a rank hangs for ever when its peer is gone."""
    hangs = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)"
    host, guest = start(0, hangs), start(1)
    guest.until_round(1)
    guest.process.kill()
    wait_until(lambda: "Waiting for all pods" in host.said(), 30, host.said)


def test_rank_0_that_hangs_is_ended_and_the_others_wait_for_its_next_pod(
    start: Start, tmp_path: Path
) -> None:
    """They say where they stand: one of them may be what it waits for."""
    ready = tmp_path / "ready"
    begins = f"while not os.path.exists({str(ready)!r}): time.sleep(0.01)\nrecorder.beat(7)\n"
    offers = f"import faulthandler\nfaulthandler.register(signal.SIGUSR2)\nopen({str(ready)!r}, 'w')\n"
    host = start(0, begins + "while True: time.sleep(60)")
    guest = start(1, offers + TRAINS)
    code, said = host.result()
    assert (code, said["reason"]) == (70, "Stalled")
    assert "after step 7" in said["message"]
    wait_until(lambda: "Waiting for all pods" in guest.said(), 30, guest.said)
    assert "after step 7 on rank 0: the stacks of all threads here follow." in guest.said()
    assert "(most recent call first)" in guest.said()
    assert guest.process.poll() is None


def test_a_rollback_is_a_new_round_that_costs_nothing(start: Start) -> None:
    """The log bounds how often; every pod stays."""
    host = start(0, 'time.sleep(0.1)\nend(0, "RolledBack", True)')
    guest = start(1, 'time.sleep(0.2)\nend(69, "PeerLost", True)')
    host.until_round(FRUITLESS_ROUNDS + 2, guest)
    assert guest.process.poll() is None
    host.process.send_signal(signal.SIGTERM)
    assert host.result()[0] == 75
