"""`rectrain-trainer predict` with a real model: what is read is printed, what can't be is named."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.trainer_learn.digits import draw
from tests.unit.trainer_learn.exports import Done

one_preset = pytest.mark.parametrize("done", ["svtr_nano"], indirect=True)
COMMAND = [sys.executable, "-m", "rectrain_trainer", "predict"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in folders, and one that is none."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "b" / "c").mkdir(parents=True)
    for number, name in enumerate(["z.PNG", "a.jpg", "b/c/1.png", "b/2.webp"]):
        (folder / name).write_bytes(draw("123456"[number:], random.Random(number)))
    (folder / "b" / "bad.png").write_bytes(draw("123", random.Random(9))[:300])  # OpenCV warns of it
    (folder / "b" / "notes.txt").write_text("no image, and not asked for")
    return folder


def predict(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)


@one_preset
def test_folders_are_read_and_a_bad_image_costs_no_other(done: Done, images: Path) -> None:
    ended = predict(done.folder, images, images / "a.jpg", "--json")
    assert ended.returncode == 65, ended.stderr
    rows = json.loads(ended.stdout)
    names = ["a.jpg", "b/2.webp", "b/c/1.png", "z.PNG", "a.jpg"]
    assert [row["image"] for row in rows] == [str(images / name) for name in names]
    assert rows[0]["text"] == rows[-1]["text"] != rows[1]["text"]
    bad, rate, verdict = ended.stderr.splitlines()
    assert bad.endswith(f"ERROR {images}/b/bad.png is no image that can be decoded.")
    assert re.search(r"Read 5 images in \d+\.\d s \(\d+ images/s\)\.$", rate)
    assert verdict.endswith("1 of 6 images couldn't be read: they are named above.")


def test_a_folder_without_images(images: Path, tmp_path: Path) -> None:
    ended = predict(tmp_path / "no model is needed to see it", tmp_path)
    assert (ended.returncode, ended.stdout) == (66, "")
    assert f"The folder {tmp_path} holds no images (.png, .jpg, " in ended.stderr


@one_preset
def test_a_reader_that_has_seen_enough(done: Done, tmp_path: Path) -> None:
    for number in range(130):
        (tmp_path / f"{number:03d}.png").write_bytes(draw(str(number), random.Random(number)))
    process = subprocess.Popen(
        [*COMMAND, done.folder, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(f"{tmp_path}/000.png\t")
    process.stdout.close()
    said = process.stderr.read()
    process.wait(60)
    assert "rror" not in said
    assert "Broken" not in said
    assert "Traceback" not in said


@one_preset
def test_ctrl_c_in_the_middle(done: Done, tmp_path: Path) -> None:
    """It waits for an image that doesn't come."""
    os.mkfifo(tmp_path / "image.png")
    process = subprocess.Popen(
        [*COMMAND, done.folder, tmp_path / "image.png"], stderr=subprocess.PIPE, text=True
    )
    with (tmp_path / "image.png").open("wb"):  # which waits for the reader
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith("ERROR Interrupted.")
    assert "Traceback" not in said
