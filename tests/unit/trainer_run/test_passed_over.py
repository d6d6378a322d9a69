"""Label files with faults, staged and checked: what each way of validating makes of them."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_api.plan import RunPlan
from rectrain_data.findings import Code
from rectrain_data.transfer import Retries, Store, split_uri
from rectrain_trainer.board import Board
from rectrain_trainer.check import check_data, recipe_for
from rectrain_trainer.config import Recipe
from rectrain_trainer.found import Found
from rectrain_trainer.loader import Loader
from rectrain_trainer.passed_over import read_local
from rectrain_trainer.sources import Whole, open_set
from rectrain_trainer.stage import OpenStore, stage
from tests.support.plans import make_plan
from tests.unit.trainer_learn.digits import make_digits

COUNT = 24
FAULTY: dict[int, bytes] = {2: b"images/00002.png 12", 5: b"images/00005.png\t1\t2", 6: b"images/00006.png\t"}
MISSING = "images/00009.png"
Upload = Callable[..., OpenStore]


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    """24 images and their label file at s3://bkt/set, some lines changed; one image is never there."""

    def make(lines: dict[int, bytes] | None = None, labels: bytes | None = None) -> OpenStore:
        inner: Any = MemoryStore()

        def open_store(uri: str) -> Store:
            bucket, prefix = split_uri(uri)
            return Store(inner, f"s3://{bucket}", prefix, None, Retries(0))

        file = make_digits(tmp_path / "made", COUNT, longest=4)
        written = file.read_bytes().splitlines()
        for i, line in (lines or {}).items():
            written[i] = line
        store = open_store("s3://bkt/set")
        for image in sorted((tmp_path / "made/images").iterdir()):
            store.put_bytes(f"images/{image.name}", image.read_bytes())
        store.delete([MISSING])
        store.put_bytes("labels.txt", b"\n".join(written) + b"\n" if labels is None else labels)
        return open_store

    return make


def plan_of(validation: str, **data: Any) -> RunPlan:
    data = {"train": "s3://bkt/set/labels.txt", "validation": validation} | data
    return make_plan(epochs=3, batch_size=8, data=data)


def looked_at(
    plan: RunPlan, open_store: OpenStore, folder: Path, show: Callable[[Found], None] | None = None
) -> tuple[Recipe, Found]:
    """As a run does it; or as a check does, which shows what it found."""
    board = Board("s3://runs/digits")
    staged = stage(plan, open_store, folder, board, for_check=show is not None)
    recipe = recipe_for(plan, staged, board, show)
    return recipe, check_data(plan, recipe, staged, board, show)


def kept(found: Found) -> list[int]:
    """Lines of the label file that are trained on or evaluated on."""
    parts = [part.open() for part in (found.staged.train, found.staged.eval)]
    return sorted(part.whole.place(i).line or 0 for part in parts for i in part.indices)


GOOD = [i + 1 for i in range(COUNT) if i not in FAULTY and i != 9]


def test_warn_goes_on_with_the_rest(upload: Upload, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe, found = looked_at(plan_of("Warn"), upload(FAULTY), tmp_path / "data")
    assert [(f.code, f.count, str(f.first)) for f in found.findings] == [
        (Code.NO_TAB, 1, "s3://bkt/set/labels.txt line 3"),
        (Code.EXTRA_TAB, 1, "s3://bkt/set/labels.txt line 6 (images/00005.png)"),
        (Code.EMPTY_LABEL, 1, "s3://bkt/set/labels.txt line 7 (images/00006.png)"),
        (Code.IMAGE_MISSING, 1, f"s3://bkt/set/labels.txt line 10 ({MISSING})"),
    ]
    assert all(f"{f}." in caplog.text for f in found.findings)
    assert kept(found) == GOOD
    assert (found.left_out, found.train_samples + found.eval_samples) == (4, 20)
    assert "  (without 3 lines whose faults stand above)" in found.to_text().splitlines()
    assert "1 image unreadable, swapped" in found.to_text()
    with Loader(recipe, found.staged.train) as loader:
        assert sum(len(batch.images) for batch in loader.batches(0)) == found.train_samples


def test_off_leaves_them_out_and_counts_them_in_one_line(
    upload: Upload, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rectrain_trainer.check")
    recipe, found = looked_at(plan_of("Off"), upload(FAULTY), tmp_path / "data")
    assert kept(found) == GOOD
    assert (found.findings, found.left_out) == ([], 4)
    said = [r.getMessage() for r in caplog.records if r.name == "rectrain_trainer.check"]
    assert said == [
        "Neither labels nor images were looked at (data.validation: Off); 4 lines of label files (no sample, "
        "or no image there) left out."
    ]
    assert found.verdict().endswith("but for 4 lines of label files (no sample, or no image there) left out")
    with Loader(recipe, found.staged.eval) as loader:
        assert sum(len(batch.images) for batch in loader.batches(0)) == found.eval_samples


def test_strict_refuses_before_anything_large_is_fetched(upload: Upload, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"RD004 at s3://bkt/set/labels\.txt line 3: .*RD005 .* line 6"):
        looked_at(plan_of("Strict"), upload(FAULTY), tmp_path / "data")
    with pytest.raises(
        InputMissing, match=rf"^The image s3://bkt/set/{MISSING} \(s3://bkt/set/labels\.txt line 10"
    ):
        looked_at(plan_of("Strict"), upload(), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))


def test_a_check_shows_them_beside_all_else(upload: Upload, tmp_path: Path) -> None:
    shown: list[Found] = []
    lines = FAULTY | {12: b"images/00012.png\t" + b"1" * 13}
    with pytest.raises(
        DatasetInvalid, match=r"see the findings \(RD004, RD005, RD006, RD010, RD013, RD014\)\. With"
    ):
        looked_at(plan_of("Strict"), upload(lines), tmp_path / "data", shown.append)
    assert "  error RD004 at s3://bkt/set/labels.txt line 3: there is no tab" in shown[0].to_text()
    assert "RD010" in {f["code"] for f in json.loads(shown[0].to_json())["findings"]}


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Off"])
@pytest.mark.parametrize(
    ("labels", "code"),
    [
        pytest.param(b"images/00001.png\t1\r\nimages/00002.png\t2\r\n", "RD003", id="of-windows"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", "RD001", id="no-text-file"),
        pytest.param(b"", "RD015", id="empty"),
        pytest.param(f"{MISSING}\t1\n".encode(), "RD010", id="no-image-there"),
    ],
)
def test_an_empty_remainder_is_refused(
    labels: bytes, code: str, validation: str, upload: Upload, tmp_path: Path
) -> None:
    """By a run and, once it is shown, by a check."""
    shown: list[Found] = []
    open_store = upload(labels=labels)
    with pytest.raises((DatasetInvalid, InputMissing), match=f"{code}|isn't there"):
        looked_at(plan_of(validation), open_store, tmp_path / "run")
    with pytest.raises(DatasetInvalid, match=code):
        looked_at(plan_of(validation), open_store, tmp_path / "check", shown.append)
    assert (code in shown[0].to_text()) == (validation != "Off")
    assert json.loads(shown[0].to_json())["trainSamples"] == 0 or validation == "Strict"


@pytest.mark.parametrize("part", ["train", "eval"])
def test_a_part_of_which_nothing_is_left_is_refused(part: str, upload: Upload, tmp_path: Path) -> None:
    open_store = upload()
    open_store("s3://bkt/set").put_bytes("none.txt", b"")
    data = {
        "train": "s3://bkt/set/labels.txt",
        "eval": "s3://bkt/set/labels.txt",
        part: "s3://bkt/set/none.txt",
    }
    what = "train" if part == "train" else "evaluate"
    with pytest.raises(
        DatasetInvalid, match=rf"^No sample is left to {what} on\. .*RD015 at s3://bkt/set/none"
    ):
        looked_at(plan_of("Warn", **data), open_store, tmp_path / "data")


@pytest.mark.parametrize("validation", ["Strict", "Warn", "Off"])
def test_a_label_file_that_is_not_there_is_refused(validation: str, upload: Upload, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"s3://bkt/set/nothing\.txt is neither a packed set"):
        looked_at(plan_of(validation, train="s3://bkt/set/nothing.txt"), upload(), tmp_path / "data")


def test_a_dictionary_that_is_not_there_costs_no_download(upload: Upload, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no dictionary 'ppocrv9_th_dict'"):
        looked_at(plan_of("Warn", dictionary="ppocrv9_th_dict"), upload(), tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))


def test_what_an_earlier_pod_left_is_not_there(upload: Upload, tmp_path: Path) -> None:
    open_store = upload()
    left = tmp_path / "data/train" / MISSING
    left.parent.mkdir(parents=True)
    left.write_bytes((tmp_path / "made/images/00001.png").read_bytes())
    _, found = looked_at(plan_of("Warn"), open_store, tmp_path / "data")
    assert [f.code for f in found.findings] == [Code.IMAGE_MISSING]


def test_a_label_file_named_twice_counts_twice(tmp_path: Path) -> None:
    """As upstream's users do to see some samples more often."""
    file = tmp_path / "train.txt"
    file.write_text("a.png\tone\nb.png\t\n")
    others = read_local(tmp_path, [file, file], "Warn")
    assert (len(others.bits), others.count) == (2, 2)
    assert len(open_set(Whole(tmp_path, False, None, (file, file), others.bits))) == 2
