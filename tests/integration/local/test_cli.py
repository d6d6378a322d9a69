"""`rectrain-local` as a user runs it: a cluster comes up once, is found again, never outlives its owner."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import mentioning
from tests.support.waiting import wait_until

START_S = 120.0


@dataclass
class Commands:
    """`rectrain-local` with a state folder of the test's own."""

    base: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.base)}

    @staticmethod
    def argv(*args: str) -> list[str]:
        return [sys.executable, "-m", "rectrain_local", *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*args), env=self.env, capture_output=True, text=True, timeout=START_S, check=False
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(*args),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def alive(self) -> dict[int, str]:
        """Every process that has to do with this state folder."""
        return mentioning(str(self.base))

    def wait_gone(self) -> None:
        wait_until(lambda: not self.alive(), 10, lambda: f"still alive: {self.alive()}")

    def files(self) -> list[str]:
        return sorted(p.name for p in (self.base / "rectrain").glob("*"))


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read output up to the line that holds `text`."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}: {seen}")


@pytest.fixture
def commands(tmp_path: Path, binaries: object) -> Iterator[Commands]:
    """`binaries`: so that no test waits for a build."""
    commands = Commands(tmp_path / "state")
    yield commands
    for process in commands.started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    commands.run("down")
    commands.wait_gone()


def test_a_cluster_from_up_to_down(commands: Commands) -> None:
    up = commands.run("up", "--nodes", "0")
    assert up.returncode == 0, up.stderr
    assert "stand-in" in up.stderr

    status = commands.run("status")
    assert status.returncode == 0
    pids = [int(pid) for pid in re.findall(r"^process .* (\d+)$", status.stdout, re.MULTILINE)]
    assert len(pids) == 6
    assert set(pids) <= set(commands.alive())

    script = f'{commands.run("env").stdout}\nkubectl get --raw /readyz; echo "$AWS_ENDPOINT_URL_S3"'
    shell = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    assert shell.stdout.startswith("okhttp://127.0.0.1:")

    again = commands.run("up", "--nodes", "0", "--gpus", "3")
    assert again.returncode == 0
    assert "already up" in again.stderr
    assert again.stdout == up.stdout
    assert "down` first" in again.stderr

    down = commands.run("down")
    assert down.returncode == 0
    commands.wait_gone()
    assert commands.files() == []
    assert commands.run("down").returncode == 0
    after = commands.run("status")
    assert after.returncode == 69
    assert "rectrain-local up" in after.stderr


def test_a_dead_part_is_explained(commands: Commands) -> None:
    assert commands.run("up", "--nodes", "0").returncode == 0
    etcd = next(pid for pid, command in commands.alive().items() if "/etcd --name" in command)
    os.kill(etcd, signal.SIGKILL)
    wait_until(lambda: commands.run("status").returncode == 69, 30, "the supervisor's notice")
    said = commands.run("status").stderr
    assert "etcd ended with status -9" in said
    assert "etcd.log" in said
    commands.wait_gone()


def test_a_killed_supervisor_takes_its_cluster_along(commands: Commands) -> None:
    assert commands.run("up", "--nodes", "0").returncode == 0
    supervisor = re.search(r"supervisor (\d+)", commands.run("status").stdout)
    assert supervisor
    os.kill(int(supervisor[1]), signal.SIGKILL)
    commands.wait_gone()
    assert "was killed" in commands.run("status").stderr


@pytest.mark.parametrize(
    ("verb", "moment"),
    [
        ("up", "starting etcd"),
        ("up", "starting kube-controller-manager"),
        ("exec", "starting kube-apiserver"),
        ("exec", "starting SeaweedFS"),
    ],
)
def test_killed_while_starting_it_leaves_no_process(commands: Commands, verb: str, moment: str) -> None:
    process = commands.start(*{"up": ["up", "--nodes", "0"], "exec": ["exec", "--nodes", "0", "true"]}[verb])
    read_until(process, moment)
    process.kill()
    process.wait()
    commands.wait_gone()
    assert commands.run("down").returncode == 0
    assert [name for name in commands.files() if not name.startswith(".")] == []


def test_ctrl_c_while_starting_ends_everything(commands: Commands) -> None:
    process = commands.start("up", "--nodes", "0")
    read_until(process, "starting kube-apiserver")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert commands.alive() == {}
    assert commands.files() == []


def test_exec_passes_signals_on_and_ends_what_the_command_started(commands: Commands) -> None:
    script = (
        'trap "exit 2" TERM; setsid sleep 1000 & test -n "$AWS_ACCESS_KEY_ID" && kubectl get --raw /readyz '
        "&& echo running; while true; do sleep 0.1; done"
    )
    process = commands.start("exec", "--nodes", "0", "--", "sh", "-c", script)
    assert "ok" in read_until(process, "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 2, "not taken for a wrong command line of ours"
    assert commands.alive() == {}
    assert commands.files() == []


def test_exec_killed_takes_pods_and_command_along(commands: Commands) -> None:
    pod = f"python -c 'import time; time.sleep(1000) # {commands.base}'"
    script = (
        f'kubectl run sleeper --image=any --restart=Never --command -- sh -c "{pod}" && '
        "kubectl wait --for=condition=Ready pod/sleeper --timeout=60s && "
        "(setsid sleep 1000 & echo running) && exec sleep 1000"
    )
    process = commands.start("exec", "--", "sh", "-c", script)
    read_until(process, "running")
    assert any("time.sleep" in command and "bwrap" in command for command in commands.alive().values())
    process.kill()
    process.wait()
    commands.wait_gone()


def test_a_folder_of_others_is_left_alone(commands: Commands, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    for verb in (["up", "--nodes", "0"], ["down"]):
        done = commands.run(*verb, "--state", str(theirs))
        assert done.returncode == 64
        assert "no cluster made" in done.stderr
    assert (theirs / "thesis.txt").read_text() == "years of work"
