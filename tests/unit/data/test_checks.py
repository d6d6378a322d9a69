"""The checks before training: each fault has its code, its place and a way out."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from rectrain_data import images
from rectrain_data.checks import Checked, check_set, ctc_fault, is_decoded, steps_needed
from rectrain_data.convert import PackOptions, to_packed
from rectrain_data.dictionary import Dictionary
from rectrain_data.findings import Code, Place
from rectrain_data.labels import LooseSet
from rectrain_data.packed import PackedSet
from tests.unit.data.conftest import png

DIGITS = Dictionary(tuple("0123456789"))
Make = Callable[..., LooseSet]


def check(samples: LooseSet | PackedSet, **options: Any) -> Checked:
    return check_set(samples, DIGITS, **({"max_text_length": 5, "ctc_steps": 8} | options))


def codes(checked: Checked) -> list[Code]:
    return [finding.code for finding in checked.findings]


def test_a_good_set_has_no_findings(loose: Make) -> None:
    checked = check(loose(*((str(i), png(seed=i)) for i in range(200))))
    assert checked == Checked([], samples=200, decoded=200, bad_labels=[], unreadable=[])


FAULTS = {
    "missing image": (
        "7",
        None,
        "RD010 at F line 2 (i/1.png): the image isn't there; add the file, or remove its line",
    ),
    "empty image": (
        "7",
        b"",
        "RD011 at F line 2 (i/1.png, the file is empty): the image can't be decoded; replace it, or remove "
        "the sample",
    ),
    "text instead of an image": (
        "7",
        b"this is no image",
        "RD011 at F line 2 (i/1.png, it isn't an image in a format that OpenCV reads): the image can't be "
        "decoded; replace it, or remove the sample",
    ),
    "cut off": (
        "7",
        png()[:-100],
        "RD011 at F line 2 (i/1.png, the file is cut off): the image can't be decoded; replace it, or remove "
        "the sample",
    ),
    "unknown character": (
        "7x",
        png(),
        'RD012 at F line 2 (i/1.png, "x" U+0078, 1 time): labels have characters that the dictionary lacks; '
        "add them to the dictionary (or set data.dictionary: FromLabels), or correct the labels",
    ),
    "too long": (
        "123456",
        png(),
        "RD013 at F line 2 (i/1.png, 6 characters, and the model reads 5): the label is longer than the "
        "model reads; shorten it, or use a model.preset that reads longer texts",
    ),
    "too narrow": (
        "55555",
        png(),
        "RD014 at F line 2 (i/1.png, needs 9 steps and has 8): the label is too long for the width of the "
        "model's input (CTC needs a step for each character, and one between equal ones); remove the sample, "
        "or use a model.preset with wider input",
    ),
}


@pytest.mark.parametrize(("text", "data", "said"), FAULTS.values(), ids=FAULTS)
def test_each_fault_has_its_code_place_and_words(
    loose: Make, text: str, data: bytes | None, said: str
) -> None:
    samples = loose(("1", png()), (text, data), ("2", png()))
    checked = check(samples)
    assert [str(f).replace(str(samples.file), "F") for f in checked.findings] == [said]
    assert checked.bad_labels + checked.unreadable == [1]


def test_a_label_that_the_dictionary_knows_nothing_of(loose: Make) -> None:
    samples = loose(("1", png()), ("xyx", png()), ("x1", png()))
    checked = check(samples)
    assert [str(f).replace(str(samples.file), "F") for f in checked.findings] == [
        'RD012 at F line 2 (i/1.png, "x" U+0078, 3 times) and 1 more: labels have characters that the '
        "dictionary lacks; add them to the dictionary (or set data.dictionary: FromLabels), or correct the "
        "labels",
        "RD020 at F line 2 (i/1.png, 'xyx'): the dictionary has none of the label's characters; use a "
        "dictionary of this language (or data.dictionary: FromLabels), or correct the labels",
    ]
    assert checked.bad_labels == [1, 2]


def test_an_empty_label_in_a_set_that_others_packed() -> None:
    """Our own readers and writers refuse it before."""
    checked = check(cast(PackedSet, Memory(["1", ""])))
    assert [str(f) for f in checked.findings] == [
        "RD006 at memory line 2: the label is empty; write the text, or remove the line"
    ]
    assert checked.bad_labels == [1]


def test_a_set_without_samples() -> None:
    said = [str(f) for f in check(cast(PackedSet, Memory([]))).findings]
    assert said == ["RD015 at the set: there are no samples; add labelled images"]


class Memory:
    """Samples with one image."""

    def __init__(self, labels: list[str]) -> None:
        self.labels, self.image = labels, png()

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> str:
        return self.labels[index]

    def image_bytes(self, index: int) -> bytes:
        return self.image

    def place(self, index: int) -> Place:
        return Place("memory", index + 1)


def test_findings_name_the_first_places_whatever_the_threads(loose: Make) -> None:
    samples = loose(*(("1", png() if i % 3 else b"broken") for i in range(300)))
    checked = check(samples, threads=8)
    assert [(f.code, f.count) for f in checked.findings] == [(Code.IMAGE_UNREADABLE, 100)]
    assert [p.line for p in checked.findings[0].places] == [1, 4, 7, 10, 13]
    assert checked.unreadable == list(range(0, 300, 3))


def test_of_a_large_set_some_images_are_decoded_and_the_bytes_of_all_looked_at(loose: Make) -> None:
    """Damage in the middle is seen by decoding alone; an end that is missing, always."""
    damaged = png()[:60] + bytes(200) + png()[260:]
    images = {0: damaged, 1: damaged, 2: png()[:-100], 3: b"no image", 5: b"", 7: None}
    samples = loose(*(("1", images.get(i, png())) for i in range(40)))
    checked = check(samples, decode_limit=10)
    assert (checked.samples, checked.decoded) == (40, 10)
    assert checked.unreadable == [0, 2, 3, 5, 7]
    assert check(samples).unreadable == [0, 1, 2, 3, 5, 7]


@pytest.mark.parametrize(("count", "limit"), [(7, 10), (10, 10), (100_000, 10_000), (10_007, 10_000)])
def test_decoded_ones_are_spread_evenly(count: int, limit: int) -> None:
    chosen = [i for i in range(count) if is_decoded(i, count, limit)]
    assert len(chosen) == min(count, limit)
    gaps = [b - a for a, b in pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1


def test_a_packed_set_is_checked_the_same(loose: Make, tmp_path: Path) -> None:
    to_packed(loose(("1", png()), ("2x", png(seed=1))), tmp_path / "set", PackOptions(None))
    assert codes(check(PackedSet.open(tmp_path / "set"))) == [Code.UNKNOWN_CHARACTER]


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
