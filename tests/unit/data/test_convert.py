"""Demo images, conversion and the command line, on the disk alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rectrain_api.errors import DatasetInvalid, InputMissing, UsageError
from rectrain_data import cli, convert, demo, images
from rectrain_data.labels import LooseSet
from rectrain_data.packed import PackedSet
from tests.unit.data.conftest import png

Make = Callable[..., LooseSet]


def test_the_demo_gives_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    one = LooseSet.open(demo.make(tmp_path / "one", count=70, seed=3))
    two = LooseSet.open(demo.make(tmp_path / "two", count=70, seed=3))
    other = LooseSet.open(demo.make(tmp_path / "three", count=70, seed=4))
    rows = [[(s.label(i), s.image_bytes(i)) for i in range(70)] for s in (one, two, other)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
    assert {len(label) for label, _ in rows[0]} == {1, 2, 3, 4, 5}
    assert all(re.fullmatch("[0-9]{1,5}", label) for label, _ in rows[0])
    assert len({images.decode(data).shape[0] for _, data in rows[0]}) > 15


def test_a_packed_set_holds_every_sample_once_at_the_height(tmp_path: Path) -> None:
    samples = LooseSet.open(demo.make(tmp_path / "loose", count=200, seed=0))
    index = convert.to_packed(samples, tmp_path / "packed", convert.PackOptions(32))
    packed = PackedSet.open(tmp_path / "packed")
    packed.verify()
    assert index.height == 32
    assert sum(index.counts.values()) == 200
    assert 20 < index.counts["eval"] < 60
    assert {packed.sample_id(i): packed.label(i) for i in range(200)} == {
        samples.sample_id(i): samples.label(i) for i in range(200)
    }
    assert {images.decode(packed.image_bytes(i)).shape[0] for i in range(200)} == {32}


def test_loose_conversion_keeps_labels_and_order(loose: Make, tmp_path: Path) -> None:
    samples = loose(*((f"ก {i}", png(40 + i, 64, seed=i)) for i in range(100)))
    assert convert.to_loose(samples, tmp_path / "out", 32) == 100
    out = LooseSet.open(tmp_path / "out/labels.txt")
    assert [out.label(i) for i in range(100)] == [samples.label(i) for i in range(100)]
    assert images.decode(out.image_bytes(7)).shape == (32, round(47 / 2), 3)


def test_an_evaluation_set_of_its_own_may_use_the_same_names(loose: Make, tmp_path: Path) -> None:
    train, held_out = loose(("1", png())), loose(("2", png()), ("3", png()), name="eval")
    convert.to_packed(train, tmp_path / "p", convert.PackOptions(32), held_out)
    assert len(PackedSet.open(tmp_path / "p", "train")) == 1
    assert PackedSet.open(tmp_path / "p", "eval").label(1) == "3"


def test_bad_images_are_all_named_and_nothing_is_left(loose: Make, tmp_path: Path) -> None:
    samples = loose(("1", png()), ("2", b"broken"), ("3", None), ("4", png()))
    for write in (
        lambda: convert.to_loose(samples, tmp_path / "out", 32),
        lambda: convert.to_packed(samples, tmp_path / "out", convert.PackOptions(32)),
    ):
        with pytest.raises(DatasetInvalid, match=r"RD011 .*line 2.*RD010 .*line 3"):
            write()
    assert [p.name for p in tmp_path.iterdir()] == ["loose"]


def test_a_source_that_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"labels\.txt"):
        convert.read_source(tmp_path, "paddle")
    with pytest.raises(UsageError, match="paddle"):
        convert.read_source(tmp_path, "nope")


def test_the_command_line_from_demo_to_ls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", str(tmp_path / "d"), "--count", "40"]) == 0
    assert cli.run(["ls", str(tmp_path / "d/packed"), "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert sum(listing["counts"].values()) == 40
    assert (listing["height"], listing["characters"], listing["kind"]) == (32, 10, "packed")
    assert cli.run(["convert", str(tmp_path / "d/loose"), "-o", str(tmp_path / "c"), "--height", "48"]) == 0
    assert cli.run(["pack", str(tmp_path / "c"), "-o", str(tmp_path / "p"), "--eval-fraction", "0"]) == 0
    assert cli.run(["convert", str(tmp_path / "c/labels.txt"), "-o", str(tmp_path / "q"), "--packed"]) == 0
    capsys.readouterr()
    assert cli.run(["ls", str(tmp_path / "p")]) == 0
    assert "40 train, 0 eval" in capsys.readouterr().out
    assert cli.run(["ls", str(tmp_path / "c")]) == 0
    assert "40 all" in capsys.readouterr().out


MISUSED = {
    "no command": (["nothing"], 64),
    "no target": (["pack", "x"], 64),
    "bad number": (["demo", "{tmp}/d", "--count", "many"], 64),
    "shard size": (["pack", "{tmp}", "-o", "{tmp}/o", "--shard-size", "3"], 64),
    "taken": (["convert", "{tmp}/good", "-o", "{tmp}/good"], 64),
    "reader": (["pack", "{tmp}/good", "-o", "{tmp}/o", "--from", "excel"], 64),
    "missing source": (["pack", "{tmp}/none", "-o", "{tmp}/o"], 66),
    "missing dictionary": (["pack", "{tmp}/good", "-o", "{tmp}/o", "--dictionary", "none"], 66),
    "missing set": (["ls", "{tmp}/none"], 66),
    "bad labels": (["pack", "{tmp}/bad.txt", "-o", "{tmp}/o"], 65),
    "dictionary lacks": (["pack", "{tmp}/good", "-o", "{tmp}/o", "--dictionary", "{tmp}/d.txt"], 65),
    "not S3": (["upload", "{tmp}/good", "{tmp}/o"], 78),
    "half a key": (["ls", "s3://bucket/x"], 78),
}


@pytest.mark.parametrize(("arguments", "code"), MISUSED.values(), ids=MISUSED)
def test_mistakes_end_in_a_sentence_and_their_exit_code(
    arguments: list[str],
    code: int,
    loose: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    loose(("12", png()), ("3", png(seed=1)), name="good")
    (tmp_path / "bad.txt").write_text("no tab here\n")
    (tmp_path / "d.txt").write_text("1\n2\n")
    assert cli.run([argument.format(tmp=tmp_path) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "o").exists()


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ls", str(tmp_path / "none"), "--debug"]) == 66
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing_half_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rectrain_data", "demo", str(tmp_path / "d"), "--count", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("d/.loose*/images/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert list((tmp_path / "d").iterdir()) == []
