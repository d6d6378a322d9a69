"""Every figure on a table made by hand, and what merging tallies must not change."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rectrain_trainer.scores import (
    CHARACTERS_KEPT,
    CONFUSIONS_KEPT,
    LENGTH_ROWS,
    Tally,
    by_character,
    by_length,
    clusters_of,
    confusions,
    tally_of,
)

TABLE = [
    # label, reading, (length, errors) in code points, in clusters, the longer length of each
    ("12", "12", (2, 0), (2, 0), (2, 2)),
    ("1 2", "12", (3, 1), (3, 1), (3, 3)),  # a space counts
    ("123", "", (3, 3), (3, 3), (3, 3)),  # nothing read
    ("", "7", (0, 1), (0, 1), (1, 1)),  # nothing there
    ("", "", (0, 0), (0, 0), (0, 0)),
    ("x1", "1", (2, 1), (2, 1), (2, 2)),  # x isn't in the dictionary: an error like any other
    ("38", "83", (2, 2), (2, 2), (2, 2)),
    ("น้ำ", "นำ", (3, 1), (1, 1), (3, 1)),  # one cluster of three code points; the tone is lost
    ("กิน ข้าว", "กินข้าว", (8, 1), (6, 1), (8, 6)),
    ("ป่า", "ปาก", (3, 2), (2, 2), (3, 3)),
]
PAIRS = [(truth, reading) for truth, reading, *_ in TABLE]


@pytest.mark.parametrize(("truth", "reading", "points", "clusters", "longer"), TABLE)
def test_each_pair(
    truth: str, reading: str, points: tuple[int, int], clusters: tuple[int, int], longer: tuple[int, int]
) -> None:
    tally = tally_of([(truth, reading)])
    assert tally.accuracy == float(truth == reading)
    for edits, (length, errors), longest in (
        (tally.points, points, longer[0]),
        (tally.clusters, clusters, longer[1]),
    ):
        assert (edits.units, edits.errors) == (length, errors)
        assert edits.error_rate == (errors / length if length else float(errors > 0))
        assert edits.normalised == pytest.approx(1 - (errors / longest if longest else 0))


def test_the_whole_table() -> None:
    tally = tally_of(PAIRS)
    assert (tally.samples, tally.exact, tally.space_only) == (10, 2, 2)
    assert tally.accuracy == 0.2
    assert (tally.points.errors, tally.points.units) == (12, 26)
    assert (tally.clusters.errors, tally.clusters.units) == (12, 21)
    assert tally.points.error_rate == pytest.approx(12 / 26)
    assert tally.clusters.error_rate == pytest.approx(12 / 21)
    mean = (0 + 1 / 3 + 1 + 1 + 0 + 1 / 2 + 1 + 1 / 3 + 1 / 8 + 2 / 3) / 10
    assert tally.points.normalised == pytest.approx(1 - mean)
    mean = (0 + 1 / 3 + 1 + 1 + 0 + 1 / 2 + 1 + 1 + 1 / 6 + 2 / 3) / 10
    assert tally.clusters.normalised == pytest.approx(1 - mean)


def test_confusions_are_what_was_read_for_what() -> None:
    rows = confusions(tally_of([("381", "881"), ("33", "38"), ("12", "1"), ("1", "17"), ("น้ำ", "นำ")]))
    assert rows == [
        {"label": "3", "read": "8", "count": 2},
        {"label": "", "read": "7", "count": 1},
        {"label": "2", "read": "", "count": 1},
        {"label": "้", "read": "", "count": 1},
    ]
    many = tally_of((chr(0x4E00 + i), "a") for i in range(CONFUSIONS_KEPT + 10))
    assert len(confusions(many)) == CONFUSIONS_KEPT


def test_lengths_of_labels() -> None:
    tally = tally_of([("12", "12"), ("34", "3"), ("", "9"), ("น้ำ", "น้ำ")])
    assert by_length(tally) == [
        {"from": 0, "to": 0, "samples": 1, "exact": 0, "errors": 1},
        {"from": 2, "to": 2, "samples": 2, "exact": 1, "errors": 1},
        {"from": 3, "to": 3, "samples": 1, "exact": 1, "errors": 0},
    ]
    long = tally_of(("a" * length, "a") for length in range(1, 101))
    rows = by_length(long)
    assert len(rows) <= LENGTH_ROWS
    assert rows[0] == {"from": 0, "to": 3, "samples": 3, "exact": 1, "errors": 3}
    assert sum(row["samples"] for row in rows) == 100


def test_characters_those_that_cost_most_first() -> None:
    rows = by_character(tally_of([("112", "182"), ("1x", "1"), ("2", "2"), ("x", "7")]))
    assert rows == [
        {"character": "x", "occurrences": 2, "right": 0},
        {"character": "1", "occurrences": 3, "right": 2},
        {"character": "2", "occurrences": 2, "right": 2},
    ]
    many = tally_of((chr(0x4E00 + i), "") for i in range(CHARACTERS_KEPT + 10))
    assert len(by_character(many)) == CHARACTERS_KEPT


def test_nothing_at_all_is_nothing() -> None:
    tally = tally_of([])
    assert (tally.samples, tally.accuracy, tally.points.error_rate) == (0, 0.0, 0.0)
    assert (confusions(tally), by_length(tally), by_character(tally)) == ([], [], [])


def test_clusters_are_what_a_reader_counts() -> None:
    assert clusters_of("น้ำ") == ["น้ำ"]
    assert clusters_of("กิน 1e\u0301") == ["กิ", "น", " ", "1", "e\u0301"]


TEXTS = st.text(alphabet="01 xนำ้", max_size=6)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=12), st.integers(1, 4))
def test_shares_merged_are_the_whole_to_the_last_bit(pairs: list[tuple[str, str]], world: int) -> None:
    whole = tally_of(pairs)
    shares = [tally_of(pairs[rank::world]) for rank in range(world)]
    random.Random(len(pairs)).shuffle(shares)
    merged = Tally()
    for share in shares:
        merged.merge(Tally.of(json.loads(json.dumps(share.to_json()))))
    assert merged == whole
    assert merged.points.normalised == whole.points.normalised
    assert confusions(merged) == confusions(whole)
