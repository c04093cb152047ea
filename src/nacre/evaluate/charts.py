"""Rate-distortion curves as geometry: what the page's SVG needs, in its own coordinates. The template draws it.

y |        /~~~~  band: interval of the mean        marks, dashes and colours differ by system, so that
  |   .---o~~~~   line and marks: mean over clips    curves stay apart in grey and for any eye
  +-----------------> kb/s, logarithmic
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 540, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 520, 18, 292  # of the plot area
COLOURS = 6  # classes c0, c1... in the style sheet
MARKS = (  # paths about (0, 0)
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6l5.6,9.8h-11.2z",
    "M0,-6.4l5.6,6.4l-5.6,6.4l-5.6,-6.4z",
    "M0,6l5.6,-9.8h-11.2z",
    "M-1.8,-5.4h3.6v3.6h3.6v3.6h-3.6v3.6h-3.6v-3.6h-3.6v-3.6h3.6z",
    "M-6,-4.5h12v9h-12z",
)
DASHES = ("", "8 4", "2 3", "10 3 2 3", "14 4")
RATE_TICKS_KBPS = (0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
SPARE = 1.15  # room left and right of the outermost marks
TICKS_Y = 6  # about as many as fit


@dataclass(frozen=True)
class Look:
    """How one system is drawn; no two of the first 35 look alike in grey."""

    colour: int
    mark: str
    dash: str


@dataclass(frozen=True)
class Point:
    """A system at one rate: the mean of a metric and its interval, and the words for it."""

    rate_kbps: float
    mean: float
    low: float
    high: float
    words: str


@dataclass(frozen=True)
class Curve:
    """A system's points in order of rate."""

    system: str
    look: Look
    points: list[Point]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A curve in the panel's coordinates: paths for SVG, and (x, y, words) for each mark."""

    system: str
    look: Look
    line: str
    band: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Panel:
    """One metric over the rate."""

    title: str
    better: str  # "higher is better"
    spoken: str
    ticks_x: list[Tick]
    ticks_y: list[Tick]
    curves: list[Drawn]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def look(number: int) -> Look:
    """The look of the system of this number."""
    return Look(number % COLOURS, MARKS[number % len(MARKS)], DASHES[number % len(DASHES)])


def panel(title: str, better: str, curves: Sequence[Curve]) -> Panel | None:
    """Draw the curves of a metric; None where there is no point with a rate and a finite mean."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return None
    rates = [point.rate_kbps for point in points]
    low, high = min(rates) / SPARE, max(rates) * SPARE
    ticks_y = value_ticks(min(point.low for point in points), max(point.high for point in points))
    x_of = _Axis(math.log(low), math.log(high), LEFT, RIGHT)
    y_of = _Axis(ticks_y[0], ticks_y[-1], BOTTOM, TOP)
    drawn = [_draw(curve, x_of, y_of) for curve in curves if curve.points]
    spoken = "; ".join(f"{curve.system}: " + ", ".join(p.words for p in curve.points) for curve in curves)
    return Panel(
        title,
        better,
        f"{title} over rate. {spoken}",
        _labelled_x(_rate_ticks(low, high), x_of),
        [Tick(y_of.place(value), f"{value:.6g}") for value in ticks_y],
        drawn,
    )


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def _draw(curve: Curve, x_of: _Axis, y_of: _Axis) -> Drawn:
    points = sorted(curve.points, key=lambda point: point.rate_kbps)
    xs = [x_of.place(math.log(point.rate_kbps)) for point in points]
    means = [(x, y_of.place(point.mean)) for x, point in zip(xs, points, strict=True)]
    highs = [(x, y_of.place(point.high)) for x, point in zip(xs, points, strict=True)]
    lows = [(x, y_of.place(point.low)) for x, point in zip(xs, points, strict=True)]
    if len(points) == 1:  # a bar in place of a band
        band = _path(
            [(xs[0] - 2, highs[0][1]), (xs[0] + 2, highs[0][1]), (xs[0] + 2, lows[0][1]), (xs[0] - 2, lows[0][1])]
        )
    else:
        band = _path(highs + lows[::-1])
    marks = [(x, y, f"{curve.system}: {point.words}") for (x, y), point in zip(means, points, strict=True)]
    return Drawn(curve.system, curve.look, _path(means), band + "z", marks)


def _path(places: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in places)


def _rate_ticks(low_kbps: float, high_kbps: float) -> list[float]:
    """Round rates from low to high; the two themselves where there are none between."""
    inside = [tick for tick in RATE_TICKS_KBPS if low_kbps <= tick <= high_kbps]
    return inside or [low_kbps, high_kbps]


def _labelled_x(ticks: list[float], x_of: _Axis) -> list[Tick]:
    """All ticks, labels only where they do not touch the one before."""
    placed = [(x_of.place(math.log(tick)), f"{tick:.3g}") for tick in ticks]
    shown: list[Tick] = []
    last = -math.inf
    for at, label in placed:
        fits = at - last >= 12 + 7 * len(label)
        shown.append(Tick(at, label if fits else ""))
        last = at if fits else last
    return shown


def value_ticks(low: float, high: float) -> list[float]:
    """About TICKS_Y round values that enclose low and high.

    >>> value_ticks(1.2, 3.9)
    [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    """
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS_Y))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if span / (size * power) <= TICKS_Y)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]
