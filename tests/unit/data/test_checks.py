"""The checks before training: each fault has its code, its place and a way out."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rectrain_data import images
from rectrain_data.checks import check_set, ctc_fault, steps_needed
from rectrain_data.convert import PackOptions, to_packed
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Code, sentence
from rectrain_data.labels import LooseSet
from rectrain_data.packed import PackedSet
from tests.unit.data.conftest import png

DIGITS = Dictionary(tuple("0123456789"))
Make = Callable[..., LooseSet]


def check(samples: LooseSet | PackedSet) -> list[Code]:
    found = check_set(
        samples, DIGITS, max_text_length=5, ctc_steps=lambda width, height: width * 32 // height // 4
    )
    return [finding.code for finding in found]


def test_a_good_set_has_no_findings(loose: Make) -> None:
    assert check(loose(*((str(i), png(seed=i)) for i in range(200)))) == []


FAULTS = {
    "missing image": ("7", None, Code.IMAGE_MISSING),
    "empty image": ("7", b"", Code.IMAGE_UNREADABLE),
    "text instead of an image": ("7", b"this is no image", Code.IMAGE_UNREADABLE),
    "cut off": ("7", png()[:-100], Code.IMAGE_UNREADABLE),
    "unknown character": ("7x", png(), Code.UNKNOWN_CHARACTER),
    "too long": ("123456", png(200), Code.LABEL_TOO_LONG),
    "too narrow": ("12345", png(8), Code.CTC_INFEASIBLE),
}


@pytest.mark.parametrize(("text", "data", "code"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_code_and_place(loose: Make, text: str, data: bytes | None, code: Code) -> None:
    samples = loose(("1", png()), (text, data), ("2", png()))
    found = check_set(
        samples, DIGITS, max_text_length=5, ctc_steps=lambda width, height: width * 32 // height // 4
    )
    assert [(f.code, f.count, f.first.line) for f in found] == [(code, 1, 2)]
    assert str(samples.file) in sentence(found)


def test_findings_name_the_first_places_whatever_the_threads(loose: Make) -> None:
    samples = loose(*(("1", png() if i % 3 else b"broken") for i in range(300)))
    found = check_set(samples, DIGITS, max_text_length=5, threads=8)
    assert [(f.code, f.count) for f in found] == [(Code.IMAGE_UNREADABLE, 100)]
    assert [p.line for p in found[0].places] == [1, 4, 7, 10, 13]


def test_a_packed_set_is_checked_the_same(loose: Make, tmp_path: Path) -> None:
    to_packed(loose(("1", png()), ("2x", png(seed=1))), tmp_path / "set", PackOptions(None))
    assert check(PackedSet.open(tmp_path / "set")) == [Code.UNKNOWN_CHARACTER]


def test_ctc_needs_a_step_a_character_and_one_between_equals() -> None:
    assert [steps_needed(t) for t in ("", "1", "12", "11", "1122", "111")] == [0, 1, 2, 3, 6, 5]
    assert ctc_fault("11", 3) is None
    assert ctc_fault("11", 2) == (Code.CTC_INFEASIBLE, "needs 3 steps and has 2")


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_a_jpeg_that_is_cut_off_is_unreadable() -> None:
    whole = jpeg(300, 200)
    assert images.decode(whole).shape == (200, 300, 3)
    with pytest.raises(images.Unreadable, match="cut off"):
        images.decode(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (png(40, 20), "a.png", ("a.png", 64, 32)),
        (png(400, 64), "a.png", ("a.png", 200, 32)),
        (png(1, 300), "a.png", ("a.png", 1, 32)),
        (jpeg(40, 20), "a.JPG", ("a.JPG", 64, 32)),
        (jpeg(20, 40, orientation=6), "a.jpg", ("a.jpg", 64, 32)),
        (png(40, 20), "a.bmp", ("a.bmp.png", 64, 32)),
    ],
)
def test_images_come_to_the_height_with_their_aspect(
    data: bytes, name: str, expected: tuple[str, int, int]
) -> None:
    found, encoded, width, height = images.at_height(data, name, 32)
    assert (found, width, height) == expected
    assert images.decode(encoded).shape == (height, width, 3)


def test_images_that_need_no_change_keep_their_bytes() -> None:
    for data in (png(40, 32), jpeg(40, 32)):
        assert images.at_height(data, "a", 32)[:2] == ("a", data)
    turned = jpeg(32, 40, orientation=6)
    _, once, width, height = images.at_height(turned, "a.jpg", 32)
    assert (width, height) == (40, 32)
    assert images.at_height(once, "a.jpg", 32)[1] == once
