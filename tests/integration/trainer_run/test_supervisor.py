"""The supervisor over small children: whatever they do, one result comes out, and nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rectrain_trainer.flight import RUNNING
from tests.support.processes import first_child
from tests.support.waiting import wait_until

DRIVER = """
import sys
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.supervisor import block_signals, supervise
block_signals()
recorder = FlightRecorder.new()
command = [sys.executable, "-c", sys.argv[1], str(recorder.fd)]
result = supervise(command, recorder, grace_s=float(sys.argv[2]), stall_timeout_s=float(sys.argv[3]))
print(result.to_termination_message(), flush=True)
sys.exit(result.exit_code)
"""

CHILD = """
import ctypes, os, signal, subprocess, sys, time
from rectrain_api.report import TerminationResult
from rectrain_trainer.flight import FlightRecorder
def say(code, reason): recorder.write(TerminationResult(exit_code=code, reason=reason, attempt=2))
def ready(): print("ready", os.getpid(), flush=True)
recorder = FlightRecorder(int(sys.argv[1]))
say(255, "Running")
from rectrain_trainer.interrupt import Interrupt
"""


class Driven:
    """A supervisor under way."""

    def __init__(self, child: str, grace_s: float, stall_timeout_s: float) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it goes with the object
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, CHILD + child, str(grace_s), str(stall_timeout_s)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )

    def child_pid(self) -> int:
        """Once the child says that it is ready."""
        assert self.process.stdout is not None
        word, pid = self.process.stdout.readline().split()
        assert word == "ready"
        return int(pid)

    def said(self) -> str:
        """Its stderr so far."""
        self.errors.seek(0)
        return self.errors.read()

    def result(self) -> tuple[int, dict[str, Any]]:
        """Exit code and the last line."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out.splitlines()[-1])


def drive(child: str, grace_s: float = 30, stall_timeout_s: float = 600) -> Driven:
    return Driven(child, grace_s, stall_timeout_s)


@pytest.mark.parametrize(
    ("child", "code", "reason"),
    [
        pytest.param("say(65, 'DatasetInvalid'); os._exit(65)", 65, "DatasetInvalid", id="an-error"),
        pytest.param("say(0, 'Completed'); os._exit(0)", 0, "Completed", id="done"),
        pytest.param("ctypes.string_at(0)", 139, "Crashed", id="segfault"),
        pytest.param("os.abort()", 134, "Crashed", id="abort"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 137, "Crashed", id="killed"),
        pytest.param("raise ValueError", 70, "InternalError", id="python-error"),
    ],
)
def test_every_end_has_a_result(child: str, code: int, reason: str) -> None:
    returned, result = drive(child).result()
    assert (returned, result["exitCode"], result["reason"]) == (code, code, reason)
    assert result["attempt"] == 2


WAITS = """
interrupt = Interrupt(10)
interrupt.install()
try:
    ready()
    time.sleep(60)
except BaseException as e:
    say(75, type(e).__name__)
    os._exit(75)
"""


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_being_told_to_stop_reaches_the_child(signo: signal.Signals) -> None:
    driven = drive(WAITS)
    driven.child_pid()
    driven.process.send_signal(signo)
    assert driven.result() == (
        75,
        {"exitCode": 75, "reason": "Interrupted", "attempt": 2, "message": "", "reachedTraining": False},
    )


def test_twice_is_fine() -> None:
    driven = drive(WAITS)
    driven.child_pid()
    driven.process.send_signal(signal.SIGTERM)
    driven.process.send_signal(signal.SIGTERM)
    assert driven.result()[0] == 75


STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
ready()
while True:
    time.sleep(60)
"""


def test_a_stubborn_child_is_killed_before_the_grace_period_ends() -> None:
    driven = drive(STUBBORN, grace_s=2.5)
    driven.child_pid()
    driven.process.terminate()
    code, result = driven.result()
    assert (code, result["reason"]) == (75, "Interrupted")


def test_ctrl_c_twice_stops_at_once() -> None:
    driven = drive(STUBBORN, grace_s=600)
    driven.child_pid()
    driven.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again stops at once" in driven.said(), 10, "it says nothing")
    driven.process.send_signal(signal.SIGINT)
    assert driven.result()[0] == 75


def test_told_to_stop_before_the_child_is_ready() -> None:
    """Blocked signals wait until the child has its handler: none is lost, and none kills it early."""
    driven = drive("time.sleep(0.5)\n" + WAITS)
    pid = first_child(driven.process.pid)
    os.kill(pid, signal.SIGTERM)
    driven.process.terminate()
    assert driven.result()[0] == 75


def test_the_child_dies_with_a_supervisor_that_is_killed() -> None:
    driven = drive("from rectrain_trainer.die_with import die_with; die_with(os.getppid())\n" + STUBBORN)
    pid = driven.child_pid()
    driven.process.kill()
    driven.process.wait(timeout=10)
    wait_until(lambda: not running(pid), 10, "the child is still there")


HANGS = """
from pathlib import Path
from rectrain_trainer.stacks import offer_stacks
class Chunks:
    def line(self, text): print("told:", text, file=sys.stderr, flush=True)
    def flush(self): os.kill(os.getpid(), signal.SIGKILL)
def hangs_here():
    recorder.beat(1234)
    ready()
    HOW
offer_stacks(Chunks(), Path("stacks"), 0, 1)
hangs_here()
"""


@pytest.mark.parametrize(
    ("how", "dumped", "told"),
    [
        pytest.param("time.sleep(600)", True, True, id="waits"),
        pytest.param("ctypes.PyDLL(None).sleep(600)", True, False, id="holds-the-interpreter"),
        pytest.param("os.kill(os.getpid(), signal.SIGSTOP)", False, False, id="stopped"),
    ],
)
def test_a_child_that_hangs_is_ended_and_its_stacks_are_kept(how: str, dumped: bool, told: bool) -> None:
    driven = drive(HANGS.replace("HOW", how), stall_timeout_s=0.5)
    driven.child_pid()
    code, result = driven.result()
    assert (code, result["reason"], result["attempt"]) == (70, "Stalled", 2)
    assert "for 0s after step 1234: the training process hung" in result["message"]
    assert "runPolicy.stallTimeout" in result["message"]
    said = driven.said()
    assert "after step 1234: the stacks of all threads follow" in said
    assert ("in hangs_here" in said.partition("told:")[0]) is dumped
    assert ("told:   File" in said) is told


@pytest.mark.parametrize("before", ["", "recorder.beat(5); recorder.rest(); "], ids=["not-begun", "rests"])
def test_nobody_waits_for_a_sign_of_life_then(before: str) -> None:
    child = before + "time.sleep(1.5); say(0, 'Completed'); os._exit(0)"
    assert drive(child, stall_timeout_s=0.2).result()[1]["reason"] == "Completed"


def test_told_to_stop_it_is_given_its_grace_though_it_hangs() -> None:
    driven = drive("recorder.beat(5)\n" + STUBBORN, grace_s=4, stall_timeout_s=2)
    driven.child_pid()
    driven.process.terminate()
    code, result = driven.result()
    assert (code, result["reason"]) == (75, "Interrupted")


def running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_running_is_no_result() -> None:
    assert drive("os._exit(0)").result()[1]["reason"] != RUNNING
