"""Packed sets: what is written reads back the same, and nothing in one can point outside it."""

import json
import os
import pickle
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectrain_api.errors import DatasetInvalid, InputMissing, UsageError
from rectrain_data.dictionary import Dictionary
from rectrain_data.packed import PackedSet, PackedWriter, read_index
from tests.unit.data.test_labels import PATHS, TEXTS

SAMPLE = st.tuples(st.sampled_from(["train", "eval"]), TEXTS, st.binary(max_size=600))


def write(target: Path, count: int = 10, shard_bytes: int = 1 << 20) -> Path:
    with PackedWriter(target, shard_bytes=shard_bytes) as writer:
        for i in range(count):
            split = "eval" if i % 5 == 0 else "train"
            writer.add(split, f"i/{i}.png", b"%d" % i * 50, f"a {i}", width=10 + i, height=32)
        writer.finish()
    return target


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(PATHS, SAMPLE, min_size=1, max_size=12), st.sampled_from([2048, 1 << 20]))
def test_what_is_written_reads_back_the_same(rows: dict[str, Any], shard_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        with PackedWriter(target, shard_bytes=shard_bytes) as writer:
            for name, (split, text, data) in rows.items():
                writer.add(split, name, data, text, width=len(data), height=1)
            writer.finish()
        for split in {row[0] for row in rows.values()}:
            part = PackedSet.open(target, split)
            expected = [(name, text, data) for name, (s, text, data) in rows.items() if s == split]
            read = [(part.sample_id(i), part.label(i), part.image_bytes(i)) for i in range(len(part))]
            assert read == expected
            part.close()
        whole = PackedSet.open(target)
        whole.verify()
        assert len(whole) == len(rows)
        assert set(whole.dictionary().characters) == {c for r in rows.values() for c in r[1]} - {" "}


def test_the_shards_are_ordinary_tars(tmp_path: Path) -> None:
    write(tmp_path / "set")
    out = tmp_path / "out"
    out.mkdir()
    for shard in sorted((tmp_path / "set/shards").iterdir()):
        subprocess.run(["tar", "xf", shard, "-C", out], check=True)
    assert {p.name: p.read_bytes() for p in (out / "i").iterdir()} == {
        f"{i}.png": b"%d" % i * 50 for i in range(10)
    }


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()


def test_shards_end_at_their_size(tmp_path: Path) -> None:
    write(tmp_path / "set", count=60, shard_bytes=10_240)
    sizes = [p.stat().st_size for p in (tmp_path / "set/shards").iterdir()]
    assert len(sizes) > 5
    assert max(sizes) <= 10_240 + 1024
    PackedSet.open(tmp_path / "set").verify()


def _read_all(packed: PackedSet) -> list[bytes]:
    return [packed.image_bytes(i) for i in range(len(packed))]


def _label(packed: PackedSet, index: int) -> str:
    return packed.label(index)


def test_threads_forks_and_spawned_processes_read_one_set(tmp_path: Path) -> None:
    packed = PackedSet.open(write(tmp_path / "set"))
    expected = _read_all(packed)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(_read_all, [packed] * 32))
    child = os.fork()
    if child == 0:
        os._exit(0 if _read_all(packed) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert _read_all(pickle.loads(pickle.dumps(packed))) == expected
    with get_context("spawn").Pool(1) as spawned:
        assert spawned.apply(_label, (packed, 3)) == packed.label(3)


def interrupted(target: Path) -> None:
    with PackedWriter(target) as writer:
        writer.add("train", "a.png", b"x", "x", width=1, height=1)
        raise KeyboardInterrupt


def finished(target: Path, dictionary: Dictionary | None, *labels: str) -> None:
    with PackedWriter(target) as writer:
        for label in labels:
            writer.add("train", "a.png", b"x", label, width=1, height=1)
        writer.finish(dictionary)


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "set")
    with pytest.raises(DatasetInvalid, match="RD015"):
        finished(tmp_path / "set", None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set")
    with pytest.raises(UsageError, match="exists"):
        PackedWriter(tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "label", "code"),
    [
        ("../a.png", "x", "RD008"),
        ("/a.png", "x", "RD008"),
        ("i/0.png", "x", "RD009"),
        ("a.png", "", "RD006"),
        ("a.png", "\ud800", "RD016"),
    ],
)
def test_the_writer_refuses_what_no_set_may_hold(tmp_path: Path, name: str, label: str, code: str) -> None:
    with PackedWriter(tmp_path / "set") as writer:
        writer.add("train", "i/0.png", b"x", "x", width=1, height=1)
        with pytest.raises(DatasetInvalid, match=code):
            writer.add("train", name, b"x", label, width=1, height=1)


def test_a_dictionary_must_cover_the_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r'RD012.*"y"'):
        finished(tmp_path / "set", Dictionary(("x",)), "x y")


def edit_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "parent": lambda i: i["files"].append({"name": "../../etc/passwd", "size": 1, "sha256": "0" * 64}),
    "absolute": lambda i: i["files"].append({"name": "/etc/passwd", "size": 1, "sha256": "0" * 64}),
    "newline": lambda i: i["files"][0].update(name="dictionary.txt\n"),
    "shard elsewhere": lambda i: i["shards"][0].update(name="shards/../x.tar"),
    "unlisted shard": lambda i: i["files"].pop(),
    "twice": lambda i: i["files"].append(i["files"][0]),
    "count": lambda i: i["counts"].update(train=10**6),
    "negative": lambda i: i["files"][0].update(size=-1),
    "text for a number": lambda i: i["files"][0].update(size="1"),
    "version": lambda i: i.update(version=2),
    "other format": lambda i: i.update(format="x"),
    "no shards": lambda i: i.pop("shards"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_index_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = write(tmp_path / "set")
    edit_index(folder, lambda index: change(index) and None)
    with pytest.raises(DatasetInvalid, match=r"index\.json"):
        PackedSet.open(folder)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b'{"format": 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(DatasetInvalid, match=r"s3://b/index\.json"):
        read_index(data, "s3://b/index.json")


LINES: dict[str, dict[str, Any]] = {
    "beyond the shard": {"offset": 10**9},
    "longer than the shard": {"length": 10**9},
    "shard of another split": {"shard": 0},
    "no such shard": {"shard": 99},
    "outside": {"name": "../../x.png"},
    "negative": {"offset": -1},
    "no text": {"label": 5},
}


@pytest.mark.parametrize("change", LINES.values(), ids=LINES)
def test_a_hostile_line_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "set") / "index/train.jsonl"
    lines = path.read_bytes().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    packed = PackedSet.open(tmp_path / "set", "train")
    with pytest.raises(DatasetInvalid, match=r"train\.jsonl line 3"):
        packed.image_bytes(2)
    with pytest.raises(DatasetInvalid, match=r"train\.jsonl line 3"):
        packed.verify_index()
    packed.image_bytes(1)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    shard = folder / "shards/00001.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetInvalid, match=r"00001\.tar.*sha256"):
        PackedSet.open(folder).verify()
    shard.write_bytes(data[:700])
    packed = PackedSet.open(folder, "train")
    with pytest.raises(DatasetInvalid, match=r"00001\.tar.*cut off"):
        packed.image_bytes(len(packed) - 1)
    shard.unlink()
    with pytest.raises(InputMissing, match=r"00001\.tar"):
        PackedSet.open(folder)


def test_a_missing_set_or_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"nothing.*index\.json"):
        PackedSet.open(tmp_path / "nothing")
    with PackedWriter(tmp_path / "set") as writer:
        writer.add("train", "a.png", b"x", "x", width=1, height=1)
        writer.finish()
    with pytest.raises(DatasetInvalid, match="no eval split"):
        PackedSet.open(tmp_path / "set", "eval")


def test_what_a_split_needs_is_listed_with_sizes(tmp_path: Path) -> None:
    index = PackedSet.open(write(tmp_path / "set")).index
    needed = index.files_of(["eval"])
    assert [f.name for f in needed] == ["dictionary.txt", "index/eval.jsonl", "shards/00000.tar"]
    assert sum(f.size for f in PackedSet.files(tmp_path / "set")) == index.total_bytes
