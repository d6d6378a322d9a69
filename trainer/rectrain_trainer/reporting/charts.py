"""Curves as small SVG, drawn from rows. Pure; `page` puts them into the report.

The SVG holds lines alone and is stretched to its place; all text is HTML beside it, at positions in per cent:
so a curve is as wide as the screen, and its words are never too small to read.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Curve = Sequence[tuple[int, float]]

WIDTH: Final = 1000
HEIGHT: Final = 1000
POINTS: Final = 300
"""A line has at most so many: more can't be seen."""
TABLE_ROWS: Final = 40
_LOG_FROM: Final = 50.0
"""Ratio of largest and smallest value from which a scale that may be logarithmic is."""
_TICKS: Final = 4


@dataclass(frozen=True)
class Series:
    """One curve and how it looks."""

    name: str
    values: Curve
    role: Literal["main", "second", "faint"]
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step."""

    step: int
    kind: Literal["attempt", "rollback", "best"]
    text: str


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in per cent from left or bottom."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A drawn curve."""

    name: str
    role: str
    path: str
    dots: str = ""
    """Path of its points; empty for a line of many."""


@dataclass(frozen=True)
class Chart:
    """What the template needs."""

    title: str
    description: str
    """What a reader who doesn't see it is told."""
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[tuple[float, Mark]]
    checkpoints: list[float]
    """Per cent from the left."""
    logarithmic: bool
    columns: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def chart(
    title: str,
    series: Sequence[Series],
    last_step: int,
    *,
    say: Callable[[float], str],
    marks: Sequence[Mark] = (),
    checkpoints: Sequence[int] = (),
    bounds: tuple[float, float] | None = None,
    may_be_log: bool = False,
) -> Chart | None:
    """None where no series has a point. `say` writes a value; `bounds` are of a scale that is fixed."""
    drawn = [one for one in series if one.values]
    if not drawn:
        return None
    values = [v for one in drawn for _, v in one.values]
    low, high = min(values), max(values)
    logarithmic = may_be_log and low > 0 and high / low >= _LOG_FROM
    scale = _log_scale(low, high) if logarithmic else _scale(*(bounds or (min(0.0, low), high)))
    span = max(last_step, 1)
    return Chart(
        title=title,
        description=describe(title, drawn, say),
        lines=[_line(one, span, scale) for one in drawn],
        x_ticks=[Tick(100 * v / span, f"{v:,.0f}") for v in nice(0, span) if v <= span and v == int(v)],
        y_ticks=[Tick(100 * scale.at(v), say(v)) for v in scale.ticks],
        marks=[(100 * mark.step / span, mark) for mark in marks if 0 <= mark.step <= span],
        checkpoints=sorted({round(100 * step / span, 1) for step in checkpoints if 0 <= step <= span}),
        logarithmic=logarithmic,
        columns=["step", *(one.name for one in drawn)],
        table=_table(drawn, say),
    )


def describe(title: str, series: Sequence[Series], say: Callable[[float], str]) -> str:
    """In words: where each curve begins, ends, and is lowest and highest."""
    parts = []
    for one in series:
        if one.role == "faint":
            continue
        values = [v for _, v in one.values]
        parts.append(
            f"{one.name}: from {say(values[0])} at step {one.values[0][0]:,} to {say(values[-1])} at step "
            f"{one.values[-1][0]:,}, lowest {say(min(values))}, highest {say(max(values))}"
        )
    return f"{title}. {'; '.join(parts)}."


# -- scales


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    ticks: list[float]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """0 at the bottom, 1 on top."""
        if self.logarithmic:
            value = math.log10(value) if value > 0 else self.low
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def _scale(low: float, high: float) -> _Scale:
    if high <= low:
        high = low + (abs(low) or 1.0)
    ticks = nice(low, high)
    return _Scale(min(low, ticks[0]), max(high, ticks[-1]), ticks)


def _log_scale(low: float, high: float) -> _Scale:
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = math.ceil((top - bottom) / 5)
    powers = [10.0**exponent for exponent in range(bottom, top + 1, every)]
    return _Scale(bottom, top, powers, logarithmic=True)


def nice(low: float, high: float) -> list[float]:
    """A few round values that span both."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


# -- lines


def thinned(values: Curve, points: int = POINTS) -> list[tuple[int, float]]:
    """At most about so many points, with the lowest and highest of each stretch: no spike is lost."""
    if len(values) <= points:
        return list(values)
    size = math.ceil(2 * len(values) / points)
    kept: list[tuple[int, float]] = []
    for start in range(0, len(values), size):
        part = values[start : start + size]
        lowest, highest = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({lowest, highest})
    return kept


def smoothed(values: Curve) -> list[tuple[int, float]]:
    """The mean of what is around each point: a fiftieth of the curve."""
    half = max(1, len(values) // 100)
    sums = [0.0]
    for _, value in values:
        sums.append(sums[-1] + value)
    result = []
    for i, (step, _) in enumerate(values):
        reach = min(half, i, len(values) - 1 - i)
        first, last = i - reach, i + reach + 1
        result.append((step, (sums[last] - sums[first]) / (last - first)))
    return result


def _line(one: Series, span: int, scale: _Scale) -> Line:
    points = [(WIDTH * s / span, HEIGHT * (1 - scale.at(v))) for s, v in thinned(one.values)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points) if one.dots or len(points) == 1 else ""
    return Line(one.name, one.role, path, dots)


def _table(series: Sequence[Series], say: Callable[[float], str]) -> list[list[str]]:
    """Some rows of them, evenly spread, the last included."""
    steps = sorted({step for one in series for step, _ in one.values})
    if len(steps) > TABLE_ROWS:
        steps = sorted({steps[round(i * (len(steps) - 1) / (TABLE_ROWS - 1))] for i in range(TABLE_ROWS)})
    known = [dict(one.values) for one in series]
    return [[f"{step:,}", *(say(of[step]) if step in of else "" for of in known)] for step in steps]
