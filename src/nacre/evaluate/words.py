"""Figures as words: rounded numbers, table cells, and the sentences that sum a run up, for better or worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacre.evaluate.metrics import METRICS, Metric
from nacre.evaluate.results import Run, Score
from nacre.evaluate.stats import BdRate, Interval, Point, coded, is_nacre
from nacre.evaluate.tables import DIGITS, memory_words

USUAL_DIGITS = 1
MINUS = "\N{MINUS SIGN}"
HEADLINE = ("distillmos", "visqol", "pesq_wb", "estoi")  # what the summary is about, as far as it was measured
JUDGES = (*HEADLINE, "hiss_repeat", "hiss_level_db", "hiss_flicker")  # a release is judged by all of them
SMALL_SHARE = 0.5  # of our curve: a comparison over less is called narrow


@dataclass(frozen=True)
class Cell:
    """Text of a table, and what stands small below it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: `wordy` columns hold text, all others numbers; the first names the row."""

    name: str
    head: list[str]
    rows: list[list[Cell]]
    wordy: tuple[int, ...] = ()


def figure(metric: Metric, value: float, sign: str = "") -> str:
    """A value with the digits that mean something; `sign` "+" shows the sign of a difference."""
    digits = DIGITS.get(metric.name, USUAL_DIGITS)
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", MINUS)  # + 0.0: no minus before a zero


def span(metric: Metric, value: Interval) -> str:
    """The ends of an interval."""
    return f"{figure(metric, value.low)} to {figure(metric, value.high)}"


def percent(value: float) -> str:
    """A change with its sign, a real minus included."""
    return f"{value:+.0f}\N{NO-BREAK SPACE}%".replace("-", MINUS)


def times(value: float) -> str:
    """A speed in times real time."""
    return f"{value:.0f} x" if value else "-"


def better(metric: Metric) -> str:
    """Which way is good."""
    if metric.aim is not None:
        return f"{metric.aim:g} is ideal"
    return "higher is better" if metric.better > 0 else "lower is better"


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["opus", "codec2", "speex"])
    'opus, codec2 and speex'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def scores(score: Score) -> str:
    """All figures of a row."""
    known = [METRICS[name] for name in score.metrics if name in METRICS]
    return ", ".join(f"{metric.title} {figure(metric, score.metrics[metric.name])}" for metric in known)


def summary(run: Run, points: list[Point], payload: list[BdRate], files: list[BdRate]) -> list[str]:
    """Sentences about bits at equal quality, quality, speed and failures; the most important first."""
    ours = dict.fromkeys(point.system for point in points if is_nacre(point.system))
    sentences = [_against(system, metric, points, payload, files) for metric in _headline(points) for system in ours]
    sentences += [_levels(system, points) for system in ours]
    sentences += [_speed(points), memory_words(run) if run.memory else ""]
    return [*filter(None, sentences), _troubles(run)]


def _headline(points: list[Point]) -> list[Metric]:
    measured = [name for name in METRICS if any(name in point.metrics for point in points)]
    return [METRICS[name] for name in measured if name in HEADLINE] or [METRICS[name] for name in measured[:1]]


def _against(system: str, metric: Metric, points: list[Point], payload: list[BdRate], files: list[BdRate]) -> str:
    """How many bits this nacre needs against each peer: those out of reach, the hardest rival in full, the others."""
    mine = [rate for rate in payload if (rate.system, rate.metric) == (system, metric.name)]
    known = sorted((rate for rate in mine if rate.percent is not None), key=_percent_of, reverse=True)
    leads = {rate.peer: _lead(rate, metric, points) for rate in mine if rate.percent is None}
    beyond, below, unclear = ([peer for peer, lead in leads.items() if lead == side] for side in (-1, 1, 0))
    sentences = [_all_better(metric, [peer], [system], points) for peer in beyond]
    if known:
        rival = ", its strongest rival here" if len(mine) > 1 and not beyond else ""
        basis = f"{known[0].peer}{rival} ({_basis(known[0], metric)})"
        sentences += [f"For the same {metric.title}, {system} needs {_more(known[0])} {basis}."]
        sentences += _whole_files(known[0], files)
    if known[1:]:
        others = ", ".join(f"{rate.peer} {percent(_percent_of(rate))} bits" for rate in known[1:])
        sentences += [f"Against the others: {others}."]
    if below:
        sentences += [_all_better(metric, [system], below, points)]
    if unclear:
        sentences += [f"{system} and {listed(unclear)} share no {metric.title} to compare bits at."]
    return " ".join(sentences)


def _all_better(metric: Metric, above: list[str], below: list[str], points: list[Point]) -> str:
    """Two curves that share no quality; their rates, since the better may simply have taken more bits."""
    sentences = [listed([f"{system} ({_rates(system, points)})" for system in systems]) for systems in (above, below)]
    return f"Every mean {metric.title} of {sentences[0]} is better than the best of {sentences[1]}."


def _rates(system: str, points: list[Point]) -> str:
    rates_kbps = [point.rate_kbps for point in points if point.system == system and point.clips]
    return f"{min(rates_kbps):.1f} to {max(rates_kbps):.1f} kb/s"


def _percent_of(rate: BdRate) -> float:
    return rate.percent or 0.0


def _more(rate: BdRate) -> str:
    """'23 % fewer bits than', never more certain than its interval."""
    value = _percent_of(rate)
    if rate.low is not None and rate.high is not None and rate.low <= 0 <= rate.high:
        return f"about as many bits ({percent(value)}) as"
    if value >= 100:
        return f"{1 + value / 100:.1f} times as many bits as"
    return f"{abs(value):.0f} % {'fewer' if value < 0 else 'more'} bits than"


def _basis(rate: BdRate, metric: Metric) -> str:
    ends = f"95 % interval {percent(rate.low or 0)} to {percent(rate.high or 0)}"
    span = f"over scores from {figure(metric, rate.from_quality or 0)} to {figure(metric, rate.to_quality or 0)}"
    narrow = f", only {100 * rate.share:.0f} % of its own range" if rate.share < SMALL_SHARE else ""
    return f"{ends}, {span}{narrow}"


def _whole_files(rate: BdRate, files: list[BdRate]) -> list[str]:
    """The same with the peer's container, which weighs much in short files."""
    same = [one for one in files if (one.system, one.peer, one.metric) == (rate.system, rate.peer, rate.metric)]
    saved = next((one.percent for one in same if one.percent is not None), None)
    if saved is None or round(saved) == round(_percent_of(rate)):
        return []
    return [f"That is without the paging and headers of {rate.peer}'s files; with them it is {percent(saved)}."]


def _lead(rate: BdRate, metric: Metric, points: list[Point]) -> int:
    """1 where all of ours is better than all of the peer's, -1 the other way round, else 0."""
    ours, theirs = (
        [metric.merit(point.metrics[metric.name].mean) for point in points if _has(point, system, metric)]
        for system in (rate.system, rate.peer)
    )
    if not ours or not theirs:
        return 0
    return (min(ours) > max(theirs)) - (max(ours) < min(theirs))


def _has(point: Point, system: str, metric: Metric) -> bool:
    return point.system == system and metric.name in point.metrics


def _levels(system: str, points: list[Point]) -> str:
    mine = [point for point in points if point.system == system and point.clips]
    for metric in _headline(points)[:1]:
        steps = [
            f"{figure(metric, point.metrics[metric.name].mean)} at {point.file_kbps:.1f} kb/s"
            for point in mine
            if metric.name in point.metrics
        ]
        return f"{system} reaches {metric.title} {listed(steps)}." if steps else f"{system} has no scores."
    return ""


def _speed(points: list[Point]) -> str:
    """Slowest rate of each system on one thread."""
    sentences = []
    for system in dict.fromkeys(point.system for point in points):
        timed = [point for point in points if point.system == system and point.encode_x and point.decode_x]
        if timed:
            slowest = min(point.encode_x for point in timed), min(point.decode_x for point in timed)
            sentences.append(f"{system} {slowest[0]:.0f} and {slowest[1]:.0f}")
    return (
        f"Times real time on one thread, encoding and decoding, slowest rate: {'; '.join(sentences)}."
        if sentences
        else ""
    )


def _troubles(run: Run) -> str:
    broken = sum(not coded(score) for score in run.scores)
    partly = sum(bool(score.failure) and coded(score) for score in run.scores)
    sentences = [
        f"codings that failed: {broken} of {len(run.scores)}" if broken else "",
        f"codings without some of the scores: {partly}" if partly else "",
        f"clips left out: {len(run.skipped)}" if run.skipped else "",
    ]
    text = "; ".join(filter(None, sentences))
    return f"{text[0].upper()}{text[1:]}. They are listed below." if text else "Nothing failed, no clip was left out."
