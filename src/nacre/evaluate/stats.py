"""Means over clips with their intervals, differences between systems, and the bits one saves against another.

rows -> points (a system at a rate) -> curve -> BD-rate: the mean horizontal gap between two curves

quality |      a  .----    at each quality that both reach, how many bits a needs for each bit of b,
        |    .-' .-b-      as the mean of the logarithm: -30 % says that a does with 70 bits where b takes 100
        |  .' .-'
        +------------- log kb/s
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.core.units import kbps
from nacre.evaluate.metrics import METRICS
from nacre.evaluate.results import Score

Array = np.ndarray[Any, np.dtype[Any]]

RESAMPLES = 1000
BD_RESAMPLES = 200
NEAR = 1.25  # rates that differ by less than this factor are compared clip by clip


@dataclass(frozen=True)
class Interval:
    """A mean over `count` clips with its 95 % interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Point:
    """One system at one rate. Every metric is over the clips that all systems have it for."""

    system: str
    target_kbps: float
    clips: int  # coded
    failed: int  # not coded
    rate_kbps: float  # payload bits over seconds; nacre: all bits of the file
    file_kbps: float
    metrics: dict[str, Interval]
    encode_x: float  # times real time on one thread
    decode_x: float
    lag_samples: float | None  # median over clips, None where no clip shows one


@dataclass(frozen=True)
class Difference:
    """`system` minus `peer` on the same clips at nearly the same rate."""

    system: str
    target_kbps: float
    rate_kbps: float
    peer: str
    peer_rate_kbps: float
    metric: str
    difference: Interval


@dataclass(frozen=True)
class BdRate:
    """Bits of `system` against `peer` at equal quality; None where the curves share no quality."""

    system: str
    peer: str
    metric: str
    percent: float | None  # -30: `system` needs 30 % fewer bits
    low: float | None  # 95 % interval
    high: float | None
    from_quality: float | None  # the qualities that both curves reach
    to_quality: float | None
    share: float  # of the system's own span of quality


@dataclass(frozen=True)
class Overlap:
    """Mean of log(rate / other rate) over the qualities from `low` to `high`."""

    log_ratio: float
    low: float
    high: float
    share: float


def interval(values: Sequence[float] | Array, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean with its 95 % percentile bootstrap interval; the same values give the same interval."""
    data = np.asarray(values, np.float64)
    assert data.ndim == 1, data.shape
    assert data.size, "no values"
    draws = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    low, high = np.percentile(data[draws].mean(1), [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high), len(data))


def coded(score: Score) -> bool:
    """Whether the codec did its work, whatever the metrics made of it."""
    return score.file_bytes > 0 and not score.failure.startswith("codec")


Key = tuple[str, float]


def by_point(scores: Iterable[Score]) -> dict[Key, list[Score]]:
    """Rows of each system and rate, by clip."""
    groups: dict[Key, list[Score]] = defaultdict(list)
    for score in sorted(scores, key=lambda score: (score.system, score.target_kbps, score.clip)):
        groups[score.system, score.target_kbps].append(score)
    return dict(groups)


def common_clips(groups: dict[Key, list[Score]], metric: str) -> set[str]:
    """Clips that every point has the metric for, so that all means are over the same clips.

    Points with figures for less than half as many clips as the best one are left aside, or one broken codec would
    empty the table.
    """
    measured = [{score.clip for score in rows if metric in score.metrics} for rows in groups.values()]
    most = max(map(len, measured), default=0)
    sets = [clips for clips in measured if 2 * len(clips) >= most]
    return set.intersection(*sets) if sets else set()


def points(scores: Iterable[Score]) -> list[Point]:
    """One point for each system and rate, by system and rate."""
    groups = by_point(scores)
    common = {metric: common_clips(groups, metric) for metric in METRICS}
    return [_point(key, rows, common) for key, rows in groups.items()]


def _point(key: Key, rows: list[Score], common: dict[str, set[str]]) -> Point:
    good = [score for score in rows if coded(score)]
    seconds = math.fsum(score.seconds for score in good)
    metrics = {}
    for metric, clips in common.items():
        values = [score.metrics[metric] for score in good if metric in score.metrics and score.clip in clips]
        if values:
            metrics[metric] = interval(values)
    lags = [score.lag_samples for score in good if score.lag_samples is not None]
    return Point(
        system=key[0],
        target_kbps=key[1],
        clips=len(good),
        failed=len(rows) - len(good),
        rate_kbps=kbps(sum(score.payload_bytes for score in good), seconds),
        file_kbps=kbps(sum(score.file_bytes for score in good), seconds),
        metrics=metrics,
        encode_x=_times(seconds, [score.encode_s for score in good]),
        decode_x=_times(seconds, [score.decode_s for score in good]),
        lag_samples=float(np.median(lags)) if lags else None,
    )


def _times(seconds: float, costs_s: list[float]) -> float:
    """Times real time; 0 where nothing was timed."""
    return seconds / math.fsum(costs_s) if costs_s and math.fsum(costs_s) > 0 else 0.0


def is_nacre(system: str) -> bool:
    """Whether this is one of ours; all others are peers."""
    return system.startswith("nacre")


def differences(scores: Iterable[Score]) -> list[Difference]:
    """nacre minus each peer, clip by clip, where the peer has a rate within a factor of NEAR."""
    groups = by_point(scores)
    rates = {key: _rate_kbps([score for score in rows if coded(score)]) for key, rows in groups.items()}
    differences = []
    for key in (key for key in groups if is_nacre(key[0])):
        for peer in sorted({system for system, _ in groups if not is_nacre(system)}):
            others = [other for other in groups if other[0] == peer and rates[other] > 0]
            if not others or rates[key] == 0:
                continue
            other = min(others, key=lambda other: abs(math.log(rates[other] / rates[key])))
            if abs(math.log(rates[other] / rates[key])) <= math.log(NEAR):
                differences += _differences(key, other, rates, groups)
    return differences


def _differences(key: Key, other: Key, rates: dict[Key, float], groups: dict[Key, list[Score]]) -> list[Difference]:
    theirs = {score.clip: score.metrics for score in groups[other]}
    differences = []
    for metric in METRICS:
        values = [
            score.metrics[metric] - theirs[score.clip][metric]
            for score in groups[key]
            if metric in score.metrics and metric in theirs.get(score.clip, {})
        ]
        if values:
            place = (*key, rates[key], other[0], rates[other], metric)
            differences.append(Difference(*place, interval(values)))
    return differences


def bd_rates(scores: Iterable[Score]) -> list[BdRate]:
    """Each nacre against each peer, by metric, over the clips that both have throughout.

    Not for metrics with an aim: where all are ideal there is no quality to pay bits for.
    """
    groups = by_point(scores)
    systems = sorted({system for system, _ in groups})
    pairs = [(a, b) for a in systems if is_nacre(a) for b in systems if not is_nacre(b)]
    rates = []
    for metric in (name for name in METRICS if METRICS[name].aim is None):
        clips = sorted(common_clips(groups, metric))
        curves = {system: _Curves.of(groups, system, metric, clips) for system in systems}
        for a, b in pairs:
            mine, theirs = curves[a], curves[b]
            if mine is not None and theirs is not None:
                rates.append(_bd_rate(a, b, metric, mine, theirs))
    return rates


@dataclass(frozen=True)
class _Curves:
    """A system's points [P] by clip [C], to be drawn again and again."""

    bits: Array  # [P, C]
    seconds: Array  # [C]
    quality: Array  # [P, C], more is better

    @classmethod
    def of(cls, groups: dict[Key, list[Score]], system: str, metric: str, clips: list[str]) -> _Curves | None:
        rows = [{score.clip: score for score in group} for key, group in groups.items() if key[0] == system]
        rows = [row for row in rows if all(clip in row and metric in row[clip].metrics for clip in clips)]
        if not rows or not clips:
            return None
        bits = [[8 * row[clip].payload_bytes for clip in clips] for row in rows]
        quality = [[METRICS[metric].merit(row[clip].metrics[metric]) for clip in clips] for row in rows]
        seconds = [rows[0][clip].seconds for clip in clips]
        return cls(np.array(bits, np.float64), np.array(seconds), np.array(quality))

    def draw(self, chosen: Array | None = None) -> tuple[Array, Array]:
        """Rates and mean qualities [P] over these clips."""
        pick = slice(None) if chosen is None else chosen
        rates_kbps = self.bits[:, pick].sum(1) / self.seconds[pick].sum() / 1000
        return rates_kbps, self.quality[:, pick].mean(1)


def _bd_rate(system: str, peer: str, metric: str, mine: _Curves, theirs: _Curves) -> BdRate:
    whole = log_ratio(*mine.draw(), *theirs.draw())
    if whole is None:
        return BdRate(system, peer, metric, None, None, None, None, None, 0.0)
    clips, random = len(mine.seconds), np.random.default_rng(0)
    draws = [random.integers(0, clips, clips) for _ in range(BD_RESAMPLES)]
    again = [log_ratio(*mine.draw(chosen), *theirs.draw(chosen)) for chosen in draws]
    ratios = [saving.log_ratio for saving in again if saving is not None]
    low, high = np.percentile(ratios, [2.5, 97.5]) if ratios else (whole.log_ratio, whole.log_ratio)
    ends = sorted(METRICS[metric].better * end for end in (whole.low, whole.high))
    percent, low, high = (100 * math.expm1(value) for value in (whole.log_ratio, low, high))
    return BdRate(system, peer, metric, percent, low, high, ends[0], ends[1], whole.share)


def bd_rate(rates: Array, quality: Array, other_rates: Array, other_quality: Array) -> float | None:
    """Percent of bits that the first curve takes more (or less) than the other; None where no quality is shared."""
    ratio = log_ratio(rates, quality, other_rates, other_quality)
    return None if ratio is None else 100 * math.expm1(ratio.log_ratio)


def log_ratio(rates: Array, quality: Array, other_rates: Array, other_quality: Array) -> Overlap | None:
    """Bjontegaard's mean gap of log-rates over the qualities that both reach, by monotone cubic curves."""
    from scipy.interpolate import PchipInterpolator

    curves = [
        _front(np.asarray(rates), np.asarray(quality)),
        _front(np.asarray(other_rates), np.asarray(other_quality)),
    ]
    if any(len(qualities) < 2 for _, qualities in curves):
        return None
    low, high = max(q[0] for _, q in curves), min(q[-1] for _, q in curves)
    if high - low <= 1e-9:
        return None
    areas = [float(PchipInterpolator(q, np.log(r)).integrate(low, high)) for r, q in curves]
    own = curves[0][1]
    return Overlap(
        (areas[0] - areas[1]) / (high - low), float(low), float(high), float((high - low) / (own[-1] - own[0]))
    )


def _front(rates: Array, quality: Array) -> tuple[Array, Array]:
    """Points by rising rate and quality; those that cost more without sounding better are left out."""
    kept: list[int] = []
    for index in np.lexsort((-quality, rates)):
        if rates[index] > 0 and (not kept or quality[index] > quality[kept[-1]] + 1e-9):
            kept.append(int(index))
    return rates[kept], quality[kept]


def _rate_kbps(rows: list[Score]) -> float:
    return kbps(sum(score.payload_bytes for score in rows), math.fsum(score.seconds for score in rows))


def worst(scores: Iterable[Score], metric: str, count: int = 5) -> list[Score]:
    """nacre's rows that lie furthest below the mean of their system and rate, one for each clip."""
    gaps = []
    for (system, _), rows in by_point(scores).items():
        values = [score.metrics[metric] for score in rows if metric in score.metrics]
        if is_nacre(system) and values:
            merit = METRICS[metric].merit
            middle = merit(math.fsum(values) / len(values))
            gaps += [(merit(score.metrics[metric]) - middle, score) for score in rows if metric in score.metrics]
    first: dict[str, Score] = {}
    for _, score in sorted(gaps, key=lambda gap: (gap[0], gap[1].clip, gap[1].target_kbps)):
        first.setdefault(score.clip, score)
    return list(first.values())[:count]
