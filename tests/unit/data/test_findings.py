"""Every code that a label file or a dictionary can earn: the input that does, and what is said of it.

Those of images and labels against a dictionary are in test_checks, those of the run's settings in
trainer_learn/test_check.
"""

from pathlib import Path

import pytest

from rectrain_data import dictionary, labels
from rectrain_data.findings import Code, Report, sentence

LABEL_FILES = {
    Code.NOT_UTF8: (
        b"a.png\t\xff",
        "RD001 at F line 1 (byte 7 of the line): the text isn't UTF-8; save the file as UTF-8",
    ),
    Code.BOM: (
        b"\xef\xbb\xbfa.png\t1",
        "RD002 at F line 1: the file begins with a byte order mark; save the file as UTF-8 without BOM",
    ),
    Code.CRLF: (
        b"a.png\t1\r",
        "RD003 at F line 1: the line ends with a carriage return; convert the file to Unix line ends "
        "(dos2unix)",
    ),
    Code.NO_TAB: (
        b"a.png 1",
        "RD004 at F line 1: there is no tab between image path and text; write path, tab, text",
    ),
    Code.EXTRA_TAB: (
        b"a.png\t1\t2",
        "RD005 at F line 1 (a.png): the text holds a second tab, and PaddleOCR drops what is behind it; "
        "replace tabs in the text by spaces",
    ),
    Code.EMPTY_LABEL: (
        b"a.png\t",
        "RD006 at F line 1 (a.png): the label is empty; write the text, or remove the line",
    ),
    Code.BLANK_LINE: (b"", "RD007 at F line 1: the line is blank; remove it"),
    Code.PATH_OUTSIDE: (
        b"../a.png\t1",
        "RD008 at F line 1 ('../a.png'): the image path leaves the folder of the label file; write a path "
        "relative to that folder, with '/' and without '..'",
    ),
    Code.DUPLICATE_PATH: (
        b"a.png\t1\na.png\t2",
        "RD009 at F line 2 (a.png, first at line 1): the image is listed twice; keep one of the lines",
    ),
    Code.CONTROL_CHARACTER: (
        b"a.png\t1\x07",
        "RD016 at F line 1 (a.png): the label holds a control character; remove it",
    ),
}
DICTIONARIES = {
    Code.DICTIONARY_LINE: (
        b"1\nab\n",
        "RD017 at F line 2 ('ab'): the line isn't exactly one character, so it could never match; write one "
        "character a line, as UTF-8",
    ),
    Code.DICTIONARY_DUPLICATE: (
        b"1\n2\n1\n",
        'RD018 at F line 3 ("1" U+0031): the character is listed twice; keep one of the lines',
    ),
    Code.DICTIONARY_EMPTY: (b"", "RD019 at F: there are no characters; write one character a line"),
}


@pytest.mark.parametrize(("code", "data", "said"), [(c, *row) for c, row in LABEL_FILES.items()])
def test_a_label_file(code: Code, data: bytes, said: str) -> None:
    report = Report()
    list(labels.parse([line + b"\n" for line in data.split(b"\n")], "F", report))
    assert [(f.code, str(f)) for f in report.findings] == [(code, said)]


@pytest.mark.parametrize(("code", "data", "said"), [(c, *row) for c, row in DICTIONARIES.items()])
def test_a_dictionary(code: Code, data: bytes, said: str) -> None:
    report = Report()
    dictionary.parse(data, "F", report)
    assert [(f.code, str(f)) for f in report.findings] == [(code, said)]


def test_every_code_has_a_test_with_its_message() -> None:
    here = Path(__file__).resolve()
    tests = [*here.parent.glob("test_*.py"), *here.parents[1].glob("trainer_*/test_*.py")]
    said = "".join(file.read_text() for file in tests)
    assert [code for code in Code if f"{code} at " not in said] == []


def test_a_sentence_names_the_first_three_kinds_and_how_many_more() -> None:
    report = Report()
    for code in (Code.BOM, Code.CRLF, Code.CRLF, Code.BLANK_LINE, Code.NO_TAB):
        report.add(code, "F", 1)
    assert sentence(report.findings) == (
        "The data can't be trained on: RD002 at F line 1: the file begins with a byte order mark; save the "
        "file as UTF-8 without BOM. RD003 at F line 1 and 1 more: the line ends with a carriage return; "
        "convert the file to Unix line ends (dos2unix). RD007 at F line 1: the line is blank; remove it (1 "
        "more kind of fault)."
    )
