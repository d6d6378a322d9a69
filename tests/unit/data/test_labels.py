"""Label files: what is read, what is refused, and that what is written reads back the same."""

import io
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectrain_api.errors import DatasetInvalid, InputMissing
from rectrain_data import labels
from rectrain_data.findings import Code, Report
from rectrain_data.labels import Label, LooseSet, parse_line

SEGMENT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\"), min_size=1
)
PATHS = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join).filter(labels.is_inside)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)


def read(data: bytes) -> tuple[list[Label], Report]:
    report = Report()
    return list(labels.parse(io.BytesIO(data), "f.txt", report)), report


@given(st.dictionaries(PATHS, TEXTS, min_size=1, max_size=20))
def test_what_is_written_reads_back_the_same(rows: dict[str, str]) -> None:
    data = [labels.format_line(path, text, "f.txt") for path, text in rows.items()]
    report = Report()
    read_back = list(labels.parse(data, "f.txt", report))
    assert not report.findings
    assert [(row.path, row.text) for row in read_back] == list(rows.items())
    assert [row.line for row in read_back] == list(range(1, len(rows) + 1))


@given(st.binary(max_size=200))
def test_any_bytes_give_labels_or_findings(data: bytes) -> None:
    rows, report = read(data)
    counted = len(data.split(b"\n")) - data.endswith(b"\n") if data else 0
    assert rows or report.findings
    assert len(rows) <= counted
    for row in rows:
        assert labels.is_inside(row.path)
        assert row.text.strip()


@given(st.text(string.printable + "\u2028é\ufeff\\", max_size=30), st.text(max_size=30))
def test_write_refuses_what_would_read_back_differently(path: str, text: str) -> None:
    try:
        line = labels.format_line(path, text, "f.txt")
    except DatasetInvalid:
        return
    report = Report()
    assert [(r.path, r.text) for r in labels.parse([line], "f.txt", report)] in ([(path, text)], [])
    assert not report.findings or path.startswith("\ufeff")


BAD = {
    "bom": (b"\xef\xbb\xbfa.png\tx\n", Code.BOM, 1),
    "crlf": (b"a.png\tx\r\nb.png\ty\r\n", Code.CRLF, 1),
    "no tab": (b"a.png\tx\nb.png y\n", Code.NO_TAB, 2),
    "second tab": (b"a.png\tx\ty\n", Code.EXTRA_TAB, 1),
    "empty label": (b"a.png\tx\nb.png\t\n", Code.EMPTY_LABEL, 2),
    "label of spaces": (b"a.png\t   \n", Code.EMPTY_LABEL, 1),
    "blank line": (b"a.png\tx\n\nb.png\ty\n", Code.BLANK_LINE, 2),
    "not utf-8": (b"a.png\tx\nb.png\t\xff\n", Code.NOT_UTF8, 2),
    "utf-16": ("a.png\tx".encode("utf-16"), Code.NOT_UTF8, 1),
    "absolute": (b"/etc/passwd\tx\n", Code.PATH_OUTSIDE, 1),
    "parent": (b"../a.png\tx\n", Code.PATH_OUTSIDE, 1),
    "parent inside": (b"a/../../b.png\tx\n", Code.PATH_OUTSIDE, 1),
    "windows": (b"a\\b.png\tx\n", Code.PATH_OUTSIDE, 1),
    "no path": (b"\tx\n", Code.PATH_OUTSIDE, 1),
    "double slash": (b"a//b.png\tx\n", Code.PATH_OUTSIDE, 1),
    "duplicate": (b"a.png\tx\nb.png\ty\na.png\tz\n", Code.DUPLICATE_PATH, 3),
    "control character": (b"a.png\tx\x00\n", Code.CONTROL_CHARACTER, 1),
    "empty file": (b"", Code.NO_SAMPLES, None),
}


@pytest.mark.parametrize(("data", "code", "line"), BAD.values(), ids=BAD)
def test_bad_lines_are_findings(data: bytes, code: Code, line: int | None) -> None:
    _, report = read(data)
    assert [(f.code, f.first.line) for f in report.findings] == [(code, line)]


def test_on_the_users_own_machine_a_path_may_leave_the_folder_but_not_command_a_terminal() -> None:
    assert parse_line(b"/data/a.png\ttext", 1, anywhere=True)[0] is not None
    assert parse_line(b"../a.png\ttext", 1, anywhere=True)[0] is not None
    label, [(code, detail)] = parse_line(b"\x1b[31ma.png\ttext", 1, anywhere=True)
    assert (label, code, detail) == (None, Code.PATH_OUTSIDE, repr("\x1b[31ma.png"))


def test_a_finding_says_what_where_and_how_to_mend() -> None:
    _, report = read(b"a.png\tx\nb.png y\nc.png z\n")
    assert str(report.findings[0]) == (
        "RD004 at f.txt line 2 and 1 more: there is no tab between image path and text; write path, tab, text"
    )
    with pytest.raises(DatasetInvalid, match=r"f\.txt line 2"):
        report.raise_if_any()


def test_many_faults_take_little_room() -> None:
    report = Report()
    assert list(labels.parse((b"x\n" for _ in range(50_000)), "f.txt", report)) == []
    assert report.findings[0].count == 50_000
    assert len(report.findings[0].places) == 5


def test_a_loose_set_gives_access_by_number(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "i/a.png").write_bytes(b"A")
    (tmp_path / "labels.txt").write_bytes("i/a.png\tน้ำ 1\ni/b.png\tb".encode())  # no newline at the end
    samples = LooseSet.open(tmp_path / "labels.txt")
    assert len(samples) == 2
    assert [samples.label(i) for i in range(2)] == ["น้ำ 1", "b"]
    assert samples.image_bytes(0) == b"A"
    assert str(samples.place(1)) == f"{tmp_path}/labels.txt line 2 (i/b.png)"
    with pytest.raises(InputMissing, match=r"b\.png.*line 2"):
        samples.image_bytes(1)


def test_a_loose_set_refuses_bad_lines_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"a.png x\n")
    with pytest.raises(DatasetInvalid, match=r"labels\.txt line 1"):
        LooseSet.open(tmp_path / "labels.txt")
    with pytest.raises(InputMissing, match=r"nothing\.txt"):
        LooseSet.open(tmp_path / "nothing.txt")


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="line 2"):
        labels.write(tmp_path / "labels.txt", [("a.png", "x"), ("../b.png", "y")])
    assert list(tmp_path.iterdir()) == []
