"""Dictionaries: from labels, from files, built in, and what labels lack of them."""

from pathlib import Path

import pytest

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import dictionary
from rectrain_data.dictionary import CharacterCounts, Dictionary
from rectrain_data.findings import Place


def counts_of(*texts: str) -> CharacterCounts:
    counts = CharacterCounts()
    for line, text in enumerate(texts, start=1):
        counts.add(text, Place("f.txt", line))
    return counts


def test_from_labels_is_sorted_and_keeps_the_space_apart() -> None:
    found = dictionary.from_counts(counts_of("b a", "ก"))
    assert found.characters == ("a", "b", "ก")
    assert found.use_space_char
    assert len(found) == 4
    assert " " in found


def test_a_dictionary_reads_back_the_same(tmp_path: Path) -> None:
    characters = ("a", "\u3000", "\u2028", "é", "😀", "\\")
    Dictionary(characters).write(tmp_path / "d.txt")
    assert dictionary.read(tmp_path / "d.txt").characters == characters


def test_a_space_line_switches_the_space_on(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_bytes(b"a\nb\n \n")
    found = dictionary.read(tmp_path / "d.txt")
    assert (found.characters, found.use_space_char) == (("a", "b"), True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nbc\n", "RD017 at .*line 2"),
        (b"a\n\nb\n", "RD017 at .*line 2"),
        (b"a\nb\na\n", "RD018 at .*line 3"),
        (b"", "RD019"),
        (b"\xff\n", "RD001"),
    ],
)
def test_bad_dictionaries_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "d.txt").write_bytes(data)
    with pytest.raises(DatasetInvalid, match=message):
        dictionary.read(tmp_path / "d.txt")


def test_missing_characters_have_counts_and_first_places() -> None:
    finding = dictionary.missing(Dictionary(("1", "2")), counts_of("12", "1ฃ", "ฃ7ฃ"))
    assert finding is not None
    assert finding.count == 2
    assert str(finding.first) == 'f.txt line 2 ("ฃ" U+0E03, 3 times)'
    assert str(finding.places[1]) == 'f.txt line 3 ("7" U+0037, 1 time)'


def test_the_space_is_derived_from_the_labels() -> None:
    counts = counts_of("1 2")
    plain = Dictionary(("1", "2"))
    assert dictionary.missing(plain, counts) is not None
    assert dictionary.missing(plain.with_space_of(counts), counts) is None


def test_built_in_dictionaries_are_found_by_name() -> None:
    english = dictionary.builtin("en_dict")
    assert (len(english.characters), english.use_space_char) == (94, True)
    assert "ฃ" in dictionary.builtin("th_dict") or "ก" in dictionary.builtin("th_dict")
    for name in dictionary.builtin_names():
        found = dictionary.builtin(name)
        assert len(set(found.characters)) == len(found.characters) > 0
        assert all(len(c) == 1 and c != " " for c in found.characters)


@pytest.mark.parametrize(
    ("name", "lines", "characters"),
    [("ppocrv5_dict", 18383, 18373), ("ppocrv5_latin_dict", 836, 772), ("ppocrv5_arabic_dict", 747, 716)],
)
def test_what_no_label_can_match_is_left_out_of_3xs_and_keeps_its_line(
    name: str, lines: int, characters: int
) -> None:
    """The lines are classes of published heads, so the file is upstream's; what is trained is less."""
    raw = dictionary.builtin_names()[name].read_bytes().decode().removesuffix("\n").split("\n")
    found = dictionary.builtin(name)
    assert (len(raw), len(found.characters)) == (lines, characters)
    assert list(found.characters) == [c for c in dict.fromkeys(raw) if len(c) == 1]


def test_a_checkout_of_paddleocr_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ppocr/utils/dict").mkdir(parents=True)
    (tmp_path / "ppocr/utils/dict/new_dict.txt").write_text("x\n")
    monkeypatch.setenv("PADDLEOCR_HOME", str(tmp_path))
    (tmp_path / "ppocr/utils/dict/ppocrv5_th_dict.txt").write_text("y\n")
    assert dictionary.builtin("new_dict").characters == ("x",)
    assert dictionary.builtin("ppocrv5_th_dict").characters == ("y",)
    assert "en_dict" not in dictionary.builtin_names()
    assert "ppocrv5_en_dict" in dictionary.builtin_names()


def test_an_unknown_name_lists_the_ways_out() -> None:
    with pytest.raises(InputMissing, match=r"nope.*FromLabels.*en_dict"):
        dictionary.builtin("nope")


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(InputMissing, match=r"one of .*\bth_dict\b.* \(or another of the \d+\)\.$"):
        dictionary.builtin("thai_dict")
