"""What goes wrong around the command line: full disks, taken places, odd files, impatient users."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rectrain_api.errors import UsageError
from rectrain_data import cli
from rectrain_data.labels import LooseSet
from rectrain_data.packed import PackedWriter
from rectrain_data.wholeness import whole_folder
from tests.support.waiting import wait_until
from tests.unit.data.conftest import png

Make = Callable[..., LooseSet]
FILE_LIMIT_BYTES = 20_000


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rectrain_data", *arguments]


def _no_large_files() -> None:
    """As a full disk: what was buffered can't be written, neither now nor on closing."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, FILE_LIMIT_BYTES))


@pytest.mark.parametrize("action", ["pack", "convert"])
def test_a_full_disk_leaves_nothing_behind(action: str, loose: Make, tmp_path: Path) -> None:
    source = loose(*((str(i), png(200, 32, seed=i)) for i in range(3)), name="good").file.parent
    done = subprocess.run(
        command(action, str(source), "-o", str(tmp_path / "out/set"), "--height", "64"),
        preexec_fn=_no_large_files,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "check the disk" in done.stderr) == (71, True), done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_output_that_cannot_be_written(loose: Make, tmp_path: Path) -> None:
    packed = tmp_path / "set"
    assert cli.run(["pack", str(loose(("1", png()), ("2", png())).file), "-o", str(packed)]) == 0
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("ls", str(packed)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 71
    assert "No space left on device" in done.stderr
    assert "fault of ours" not in done.stderr


def test_a_name_that_no_disk_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ls", str(tmp_path / ("a" * 300))]) == 66
    assert "correct the path" in capsys.readouterr().err


def _folder_overtaken(target: Path) -> None:
    with whole_folder(target) as mine:
        (mine / "a").touch()
        (target / "b").mkdir(parents=True)


def _set_overtaken(target: Path) -> None:
    with PackedWriter(target) as writer:
        writer.add("train", "a.png", png(), "a", width=40, height=20)
        (target / "b").mkdir(parents=True)
        writer.finish()


@pytest.mark.parametrize("write", [_folder_overtaken, _set_overtaken])
def test_whoever_comes_second_is_told_so(write: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists and isn't an empty folder"):
        write(tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_no_free_place(there: bool, loose: Make, tmp_path: Path) -> None:
    """It can't be replaced by a folder, as is found out after all the work else."""
    if there:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert cli.run(["pack", str(loose(("1", png())).file), "-o", str(tmp_path / "link")]) == 64


@pytest.mark.timeout(20)
def test_a_pipe_is_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("a.png\ta\n")
    assert cli.run(["pack", str(tmp_path), "-o", str(tmp_path / "out")]) == 65
    assert "RD010" in capsys.readouterr().err


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ls", "\x1b[31mred\x9b2J\x07"]) == 66
    err = capsys.readouterr().err
    assert "red" in err
    assert not {"\x1b", "\x9b", "\x07"} & set(err)


def test_from_labels_is_a_dictionary(loose: Make, tmp_path: Path) -> None:
    """The message for an unknown name offers it."""
    source = str(loose(("1", png()), ("2", png(seed=1))).file)
    assert cli.run(["pack", source, "-o", str(tmp_path / "out"), "--dictionary", "FromLabels"]) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_end_twice_it_still_cleans_up(signum: int, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("demo", str(tmp_path / "d"), "--count", "100000"), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(list(tmp_path.glob("d/.loose*/images/*.png"))) > 100, 60, "no images")
    for _ in range(20):
        process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert list((tmp_path / "d").iterdir()) == []


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A service that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in kept:
            connection.close()


def _env(port: int) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    return {**os.environ, **keys, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}


def test_ls_says_that_it_waits_for_the_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    process = subprocess.Popen(
        command("ls", "s3://bucket/set"), env=_env(port), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    process.kill()
    process.communicate()
    assert f"http://127.0.0.1:{port}" in said
    assert "Trying again" in said


def test_a_store_that_never_answers_can_be_left(silent_port: int, loose: Make, tmp_path: Path) -> None:
    source = str(loose(("1", png())).file)
    process = subprocess.Popen(
        command("upload", source, "s3://bucket/set"), env=_env(silent_port), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("Uploading" in line for line in process.stderr)

    def pressed() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    wait_until(pressed, 20, "it still waits for the store")
    # The interpreter gives SIGINT its own meaning back when it ends; a shell says 130 for both.
    assert process.returncode in (130, -signal.SIGINT)
    process.stderr.close()
