"""`rectrain-local`: what it says and exits with before any cluster is started."""

import subprocess
import sys
from pathlib import Path

import pytest


def command(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "rectrain_local", *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "args", [["nosuch"], ["up", "--nodes", "-1"], ["up", "--image", "x"], ["exec"], ["status", "--nosuch"]]
)
def test_a_wrong_command_line(args: list[str]) -> None:
    done = command(*args)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr


def test_help_is_no_mistake() -> None:
    assert command("--help").returncode == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    for args in (["status"], ["up", "--nodes", "0"], ["down"]):
        done = command(*args, "--state", str(tmp_path / ("a" * 300)))
        assert done.returncode == 71, done.stderr
        assert "check the path" in done.stderr
        assert "Traceback" not in done.stderr
    done = command("--debug", "status", "--state", str(tmp_path / ("a" * 300)))
    assert (done.returncode, "Traceback" in done.stderr) == (71, True)


def test_no_cluster_is_started_for_a_program_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for program in ("no-such-program", str(tmp_path / "data")):
        done = command("exec", "--", program)
        assert done.returncode == 127
        assert program in done.stderr
        assert "starting" not in done.stderr
