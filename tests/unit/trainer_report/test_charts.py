"""Curves as drawn: what is on them, and what is never lost by drawing less."""

import math

import pytest

from rectrain_trainer.reporting.charts import Mark, Series, chart, nice, smoothed, thinned
from rectrain_trainer.reporting.diff import pieces
from rectrain_trainer.reporting.gather import Confusion
from rectrain_trainer.reporting.reading import heat, shown


def test_a_spike_survives_thinning() -> None:
    values = [(step, 1.0) for step in range(100_000)]
    values[77_777] = (77_777, 50.0)
    drawn = thinned(values)
    assert (77_777, 50.0) in drawn
    assert len(drawn) <= 302
    assert drawn == sorted(drawn)


def test_smoothing_keeps_ends_and_mean() -> None:
    values = [(step, float(step % 2)) for step in range(1000)]
    smooth = smoothed(values)
    assert [s for s, _ in smooth] == list(range(1000))
    assert all(abs(v - 0.5) < 0.1 for _, v in smooth[20:-20])
    assert smooth[0][1] == values[0][1]
    assert smoothed([(3, 2.0)]) == [(3, 2.0)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 200, [0, 50, 100, 150, 200]),
        (0, 0.00093, [0, 0.00025, 0.0005, 0.00075, 0.001]),
        (-3, 7, [-5, -2.5, 0, 2.5, 5, 7.5]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice(low, high) == pytest.approx(ticks)


def test_points_lie_where_they_belong() -> None:
    drawn = chart(
        "Loss",
        [Series("loss", [(0, 0.0), (50, 10.0), (100, 5.0)], "main", dots=True)],
        100,
        say=str,
        marks=[Mark(25, "best", "best"), Mark(500, "attempt", "beyond")],
        checkpoints=[10, 20, 300],
    )
    assert drawn is not None
    assert drawn.lines[0].path == "M0.0 1000.0L500.0 0.0L1000.0 500.0"
    assert drawn.lines[0].dots.count("h0") == 3
    assert [at for at, _ in drawn.marks] == [25]
    assert drawn.checkpoints == [10, 20]
    assert "from 0.0 at step 0 to 5.0 at step 100, lowest 0.0, highest 10.0" in drawn.description
    assert drawn.table == [["0", "0.0"], ["50", "10.0"], ["100", "5.0"]]


def test_a_wide_range_is_logarithmic_and_odd_values_do_not_break_it() -> None:
    wide = [(step, 100 * math.exp(-step / 10)) for step in range(100)]
    drawn = chart("Loss", [Series("loss", wide, "main")], 100, say=str, may_be_log=True)
    assert drawn is not None
    assert drawn.logarithmic
    for values in ([(1, 0.0)], [(1, -5.0), (2, -5.0)], [(1, 1e308), (2, 0.0)], [(0, 1e-300)]):
        assert chart("x", [Series("x", values, "main")], 1, say=str, may_be_log=True) is not None
    assert chart("x", [Series("x", [], "main")], 1, say=str) is None


@pytest.mark.parametrize(
    ("label", "read", "marked"),
    [
        ("น้ำตก", "นำตก", (["น้ำ"], ["นำ"])),
        ("abc", "abc", ([], [])),
        ("abc", "abxc", ([], ["x"])),
        ("abc", "", (["abc"], [])),
        ("", "x", ([], ["x"])),
        ("مرحبا", "مرحبة", (["\u0627"], ["ة"])),
    ],
)
def test_differences_are_whole_graphemes(label: str, read: str, marked: tuple[list[str], list[str]]) -> None:
    of_label, of_read = pieces(label, read)
    assert "".join(p.text for p in of_label) == label
    assert "".join(p.text for p in of_read) == read
    assert tuple([p.text for p in side if p.kind != "same"] for side in (of_label, of_read)) == marked


def test_the_heat_map_has_what_is_confused_most() -> None:
    rows = [Confusion(label=a, read=b, count=n) for a, b, n in (("0", "O", 8), ("l", "1", 4), ("", "x", 1))]
    found = heat(rows)
    assert found is not None
    assert found.columns == ["1", "O", "x"]
    assert found.rows[1] == ("0", [(0, 0.0), (8, 1.0), (0, 0.0)])
    assert heat([]) is None
    many = [Confusion(label=chr(200 + n), read=chr(400 + n), count=n + 1) for n in range(50)]
    bounded = heat(many)
    assert bounded is not None
    assert len(bounded.columns) == len(bounded.rows) == 14
    assert [shown(c) for c in ("", " ", "\u0e49", "a")] == ["nothing", "space", "\u25cc\u0e49", "a"]
    assert [shown(c) for c in ("\u202e", "\u3000")] == ["right-to-left override", "ideographic space"]
