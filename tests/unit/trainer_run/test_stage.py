"""What is staged of each kind of set; what an earlier pod left on the disk is used only where its bytes are
known to be the same.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_api.plan import LabelFiles, RunPlan
from rectrain_data import demo
from rectrain_data import transfer as transfers
from rectrain_data.transfer import Download, S3Options, local_uri, sha256_bytes
from rectrain_trainer.board import Board
from rectrain_trainer.stage import Staged, _fetch, _Set, stage
from tests.support.plans import make_plan
from tests.unit.data.test_lmdb_set import write as write_lmdb


class Store:
    """Holds `new` under every key."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    def download_all(self, items: Iterable[Download], *, limit: int, progress: Callable[[int], None]) -> None:
        for item in items:
            item.path.write_bytes(b"new")
            progress(3)
            self.fetched.append(item.key)


@pytest.mark.parametrize(
    ("here", "sha256", "fetched"),
    [
        pytest.param(b"old", None, True, id="a-loose-image-of-equal-size"),
        pytest.param(b"old", sha256_bytes(b"new"), True, id="a-shard-that-differs"),
        pytest.param(b"new", sha256_bytes(b"new"), False, id="a-shard-that-is-whole"),
        pytest.param(b"ne", sha256_bytes(b"new"), True, id="cut-off"),
    ],
)
def test_what_is_fetched_again(tmp_path: Path, here: bytes, sha256: str | None, fetched: bool) -> None:
    file = tmp_path / "1.png"
    file.write_bytes(here)
    store: Any = Store()
    staged = _Set(tmp_path / "labels.txt", False, (), store, [Download("1.png", file, 3, sha256)])
    _fetch([staged], tmp_path, None, Board("s3://b/run"))
    assert store.fetched == (["1.png"] if fetched else [])
    assert file.read_bytes() == b"new"


def plan_of(**data: Any) -> RunPlan:
    plan = make_plan()
    return plan.model_copy(update={"data": plan.data.model_copy(update=data)})


def staged_of(plan: RunPlan, folder: Path, buckets: Path) -> Staged:
    """With the folders in `buckets` for buckets of S3."""

    def open_store(uri: str) -> transfers.Store:
        local = uri.replace("s3:/", local_uri(buckets))
        return transfers.open_store(local, S3Options())

    return stage(plan, open_store, folder, Board("s3://b/run"))


def texts(staged: Staged) -> tuple[list[str], list[str]]:
    train, held_out = staged.train.open(), staged.eval.open()
    return [train.label(i) for i in range(len(train))], [held_out.label(i) for i in range(len(held_out))]


def loose(folder: Path, *numbers: int, name: str = "labels.txt") -> Path:
    """A label file of demo digits, with images in a folder beside it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        text, png = demo.sample(3, number)
        (folder / f"images/{number}.png").write_bytes(png)
        lines.append(f"images/{number}.png\t{text}\n")
    (folder / name).write_text("".join(lines))
    return folder / name


@pytest.mark.parametrize("here", [False, True], ids=["s3", "local"])
def test_lmdbs_are_staged_from_s3_and_used_where_they_lie(tmp_path: Path, here: bool) -> None:
    write_lmdb(tmp_path / "b/train/one", count=3)
    write_lmdb(tmp_path / "b/train/two/deep", count=2)
    write_lmdb(tmp_path / "b/eval", count=2)
    root = local_uri(tmp_path / "b") if here else "s3://b"
    staged = staged_of(plan_of(train=f"{root}/train", eval=f"{root}/eval"), tmp_path / "work", tmp_path)
    of = [demo.sample(3, number)[0] for number in range(1, 4)]
    assert texts(staged) == (of + of[:2], of[:2])
    assert staged.train.open().image_bytes(3) == demo.sample(3, 1)[1]
    copied = sorted(str(p.relative_to(tmp_path / "work")) for p in (tmp_path / "work").rglob("*.mdb"))
    fetched = ["eval/data.mdb", "train/one/data.mdb", "train/two/deep/data.mdb"]
    assert copied == ([] if here else fetched), "of lock.mdb nothing is read"


def test_an_lmdb_that_is_cut_off_is_named_by_its_place(tmp_path: Path) -> None:
    file = write_lmdb(tmp_path / "b/train") / "data.mdb"
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(DatasetInvalid, match=r"b/train/data\.mdb is cut off: it has 20000 bytes"):
        staged_of(plan_of(train="s3://b/train"), tmp_path / "work", tmp_path)
    (tmp_path / "b/other").mkdir()
    with pytest.raises(InputMissing, match=r"neither a packed set .*, nor a label file, nor an LMDB"):
        staged_of(plan_of(train="s3://b/other"), tmp_path / "work", tmp_path)


def test_local_label_files_are_one_set_whose_paths_begin_at_a_folder(tmp_path: Path) -> None:
    first = loose(tmp_path / "data", 1, 2, name="first.txt").rename(tmp_path / "first.txt")
    second = loose(tmp_path / "data", 2, 3, name="second.txt").rename(tmp_path / "second.txt")
    held_out = loose(tmp_path / "eval", 4, 5)
    train = LabelFiles(folder=local_uri(tmp_path / "data"), files=[local_uri(first), local_uri(second)])
    plan = plan_of(train=train.folder, train_files=train, eval=local_uri(held_out))
    staged = staged_of(plan, tmp_path / "work", tmp_path)
    of = {number: demo.sample(3, number)[0] for number in range(1, 6)}
    assert texts(staged) == ([of[1], of[2], of[2], of[3]], [of[4], of[5]])
    assert staged.train.name(3) == f"{second} line 2 (images/3.png)"
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []

    text, png = demo.sample(3, 6)
    (tmp_path / "elsewhere.png").write_bytes(png)
    held_out.write_text(f"{tmp_path}/elsewhere.png\t{text}\n./images/4.png\t{of[4]}\n")
    anywhere = LabelFiles(folder=local_uri(tmp_path / "eval"), files=[local_uri(held_out)])
    staged = staged_of(
        plan_of(train=train.folder, train_files=train, eval="file:///", eval_files=anywhere),
        tmp_path / "work",
        tmp_path,
    )
    assert texts(staged)[1] == [text, of[4]]
    assert staged.eval.open().image_bytes(0) == png

    (tmp_path / "data/images/3.png").unlink()
    with pytest.raises(
        InputMissing, match=r"data/images/3\.png \(.*second\.txt line 2\) isn't there: add it"
    ):
        staged_of(plan, tmp_path / "work", tmp_path)
    second.unlink()
    with pytest.raises(InputMissing, match=r"second\.txt isn't a readable file"):
        staged_of(plan, tmp_path / "work", tmp_path)
