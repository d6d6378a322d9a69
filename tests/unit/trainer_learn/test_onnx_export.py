"""The conversion to ONNX touches nothing but its file, and a failure of it is a sentence."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rectrain_api.errors import ExportMismatch
from rectrain_local.assets.bubblewrap import find_bubblewrap
from rectrain_local.assets.cache import Cache
from rectrain_local.progress import Progress
from rectrain_trainer import onnx_export
from rectrain_trainer.export import FILES
from rectrain_trainer.onnx_export import convert, load_onnx
from tests.unit.trainer_learn.exports import Done

pytestmark = pytest.mark.parametrize("done", ["svtr_nano"], indirect=True)
LOCKED_UP = """
import socket, sys
from pathlib import Path
folder, port = Path(sys.argv[1]), int(sys.argv[2])
try:
    socket.create_connection(("127.0.0.1", port), 5)
    sys.exit("the network is there")
except OSError:
    pass
try:
    (folder.parent / "outside").write_text("")
    sys.exit("files outside can be written")
except OSError:
    pass
from rectrain_trainer.onnx_export import convert
convert(folder)
"""


@pytest.fixture
def folder(done: Done, tmp_path: Path) -> Path:
    """What the conversion finds."""
    folder = tmp_path / "export"
    folder.mkdir()
    for name in FILES:
        shutil.copy(done.folder / name, folder)
    return folder


def test_without_network_and_writing_nothing_else(folder: Path, cache: Cache) -> None:
    bwrap = find_bubblewrap(cache, Progress())
    sandbox = [bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-net"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = subprocess.run(
            [*sandbox, "--bind", folder, folder, sys.executable, "-c", LOCKED_UP, folder, port],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {p.name for p in folder.iterdir()} == {*FILES, "inference.onnx"}
    assert load_onnx(folder)


def test_what_paddle2onnx_says_is_told(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "inference.json").write_text("{}")
    with pytest.raises(ExportMismatch, match=r"^The ONNX model couldn't be made: paddle2onnx .+\. The ") as e:
        convert(folder)
    assert str(e.value).endswith("apply the run again with export.onnx: false to leave it out.")
    assert "\n" not in str(e.value)
    assert {p.name for p in folder.iterdir()} == set(FILES)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "was ended by signal 11"),
        ("print('no'); exit(3)", "said: no"),
        ("pass", "left no file"),
        ("import time; time.sleep(60)", "took longer than 1 s"),
    ],
)
def test_a_converter_that_breaks(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    """A stand-in for Python that runs this instead of our module."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(onnx_export.sys, "executable", str(python))
    monkeypatch.setattr(onnx_export, "LIMIT_S", 1.0 if "sleep" in program else 60.0)
    with pytest.raises(ExportMismatch, match=f"paddle2onnx {said}"):
        convert(tmp_path)
