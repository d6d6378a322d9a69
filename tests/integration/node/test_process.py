"""A sandbox by itself, without a control plane: its start, its end, and a command inside it."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rectrain_local.assets.bubblewrap import find_bubblewrap
from rectrain_local.assets.cache import Cache
from rectrain_local.node.execute import exec_in
from rectrain_local.node.logfile import LogFile
from rectrain_local.node.process import Exit, Sandbox, start
from rectrain_local.node.sandbox import SandboxSpec, host_root, options
from rectrain_local.progress import Progress

Start = Callable[[str], Sandbox]


@pytest.fixture
def begin(tmp_path: Path, cache: Cache) -> Start:
    bwrap = str(find_bubblewrap(cache, Progress()))
    for name in ("tmp", "termination"):
        (tmp_path / name).mkdir() if name == "tmp" else (tmp_path / name).touch()

    def run(script: str) -> Sandbox:
        spec = SandboxSpec(
            command=["sh", "-c", script],
            env={"PATH": "/usr/bin:/bin", "WORD": "said"},
            uid=1234,
            gid=1234,
            hostname="inside",
            work_dir="/",
            environment_paths=[],
            mounts=[],
            files={},
            tmp=tmp_path / "tmp",
            termination_file=tmp_path / "termination",
            termination_path="/dev/termination-log",
        )
        return start(bwrap, options(spec, host_root()), spec.command, LogFile(tmp_path / "0.log"))

    return run


async def test_sigterm_at_once_reaches_the_program_and_not_bubblewrap(begin: Start) -> None:
    for _ in range(5):
        sandbox = begin("trap 'exit 75' TERM; while :; do sleep 0.02; done")
        await sandbox.started()
        ending = asyncio.create_task(sandbox.wait())
        while not ending.done():  # the shell sets its trap a moment after its start
            sandbox.signal(signal.SIGTERM)
            await asyncio.sleep(0.02)
        assert await ending == Exit(75)


async def test_a_sandbox_stopped_before_it_began_ends(begin: Start) -> None:
    sandbox = begin("sleep 60")
    sandbox.kill()
    assert (await asyncio.wait_for(sandbox.wait(), 10)).code == 137


async def test_a_command_inside_sees_what_the_container_sees(begin: Start) -> None:
    sandbox = begin("echo mine > /tmp/file; sleep 60")
    pid = await sandbox.started()
    script = (
        "until cat /tmp/file; do sleep 0.02; done; id -u; hostname; echo $WORD; grep CapBnd /proc/self/status"
    )
    code, said = await exec_in(pid, "/tmp", ["sh", "-c", f"{script}; exit 4"], 10)
    assert (code, said.split()[-6:]) == (4, ["mine", "1234", "inside", "said", "CapBnd:", "0" * 16])
    assert (await exec_in(pid, "/", ["no-such-program"], 10))[0] == 126
    with pytest.raises(TimeoutError):
        await exec_in(pid, "/", ["sleep", "60"], 0.3)
    sandbox.kill()
    await sandbox.wait()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left(begin: Start) -> None:
    before = descriptors()
    for _ in range(3):
        await begin("echo x; echo y >&2").wait()
    assert descriptors() == before


async def test_only_the_main_thread_may_start(begin: Start) -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(begin, "true")
