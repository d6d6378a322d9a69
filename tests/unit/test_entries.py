"""The four commands, told to stop while they are still being imported."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import importlib.abc, os, sys
package, signum = sys.argv.pop(1), int(sys.argv.pop(1))

class Signal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == f"{package}.cli":
            os.kill(os.getpid(), signum)

sys.meta_path.insert(0, Signal())
importlib.import_module(f"{package}.__main__").main()
"""


def told(package: str, signum: signal.Signals, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, package, str(int(signum)), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("package", ["rectrain_data", "rectrain_local", "rectrain_operator"])
def test_ctrl_c_ends_the_command_without_a_traceback(package: str) -> None:
    ended = told(package, signal.SIGINT, "--help")
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_trainer_keeps_it_for_its_supervisor(signum: signal.Signals) -> None:
    ended = told("rectrain_trainer", signum, "run", "-f", "no-such-job.yaml")
    assert ended.returncode == 66, ended.stderr
    assert "no-such-job.yaml" in ended.stderr


def test_ctrl_c_ends_predict() -> None:
    ended = told("rectrain_trainer", signal.SIGINT, "predict", "no-such-model", "no-such-image.png")
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
