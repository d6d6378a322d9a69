"""LMDB sets: what is read of good ones, and what is said of others."""

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import demo
from rectrain_data.checks import check_set
from rectrain_data.dictionary import Dictionary
from rectrain_data.lmdb_set import LmdbSet

COUNT = 12


def write(folder: Path, changes: dict[bytes, bytes | None] | None = None, count: int = COUNT) -> Path:
    """Digits as PaddleOCR's tools write them, with changes (None: the key isn't there)."""
    rows: dict[bytes, bytes | None] = {b"num-samples": str(count).encode()}
    for number in range(1, count + 1):
        text, png = demo.sample(3, number)
        rows[b"image-%09d" % number], rows[b"label-%09d" % number] = png, text.encode()
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 40) as env, env.begin(write=True) as transaction:
        for key, value in (rows | (changes or {})).items():
            if value is not None:
                transaction.put(key, value)
    return folder


def test_samples_come_back_in_order_from_folders_in_folders(tmp_path: Path) -> None:
    write(tmp_path / "set/b/deep", count=3)
    write(tmp_path / "set/a")
    (tmp_path / "set/c").mkdir()
    (tmp_path / "set/c/again").symlink_to(tmp_path / "set")
    (tmp_path / "set/c/twice").symlink_to(tmp_path / "set")
    (tmp_path / "set/c/notes.txt").write_text("a leaf folder that is no LMDB")
    found = LmdbSet.open(tmp_path / "set")
    assert len(found) == COUNT + 3
    for index in (0, COUNT - 1, COUNT, COUNT + 2):
        number = index % COUNT + 1
        text, png = demo.sample(3, number)
        assert (found.label(index), found.image_bytes(index)) == (text, png)
    assert len({found.sample_id(i) for i in range(len(found))}) == len(found)
    assert str(found.place(COUNT)) == f"{tmp_path}/set/b/deep/data.mdb (image-000000001)"
    assert LmdbSet(tmp_path / "set").label(0) == found.label(0), "a process may open it again"
    if (child := os.fork()) == 0:
        os._exit(found.label(1) != LmdbSet(tmp_path / "set").label(1))
    assert os.waitpid(child, 0)[1] == 0, "so may one that was forked"


def test_what_is_wrong_with_samples_is_found(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "set",
        {b"image-000000003": b"no image", b"label-000000004": b"", b"label-000000005": b"1x"},
    )
    checked = check_set(LmdbSet.open(folder), Dictionary(tuple("0123456789")), max_text_length=25)
    assert [(f.code, f.count, f.first.detail) for f in checked.findings] == [
        ("RD012", 1, 'image-000000005, "x" U+0078, 1 time'),
        ("RD011", 1, "image-000000003, it isn't an image in a format that OpenCV reads"),
        ("RD006", 1, "image-000000004"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"num-samples": None}, "data.mdb has no num-samples: it isn't in PaddleOCR's layout"),
        ({b"num-samples": b"many"}, "data.mdb has b'many' for num-samples"),
        ({b"num-samples": b"20"}, r"counts 20 samples \(num-samples\) and ends before image-000000013"),
        ({b"image-000000007": None}, "data.mdb has no image-000000007: make it again"),
        ({b"label-000000012": None}, "ends before label-000000012"),
        ({b"label-000000002": None}, "data.mdb has no label-000000002"),
        ({b"label-000000002": b"\xff"}, r"RD001 at .*data.mdb \(label-000000002\)"),
        ({b"label-000000002": b"12\n"}, r"RD016 at .*data.mdb \(label-000000002\)"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[bytes, bytes | None], message: str
) -> None:
    with pytest.raises(DatasetInvalid, match=message):
        LmdbSet.open(write(tmp_path / "set", changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda file: os.truncate(file, file.stat().st_size // 2),
            "is cut off: it has .* bytes, and should have",
        ),
        (lambda file: os.truncate(file, 100), "isn't an LMDB: it doesn't begin as one"),
        (lambda file: file.write_bytes(b"x" * 100_000), "isn't an LMDB: it doesn't begin as one"),
    ],
)
def test_a_damaged_file_is_refused_before_it_is_mapped(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = write(tmp_path / "set")
    damage(folder / "data.mdb")
    with pytest.raises(DatasetInvalid, match=message):
        LmdbSet.open(folder)


def test_a_folder_without_an_lmdb_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=f"{tmp_path} isn't an LMDB: neither it nor a folder in it holds"):
        LmdbSet.open(tmp_path)
