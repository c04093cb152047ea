"""How finely a group of music is coded, so that a file meets its rate or keeps its quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nacre.core.errors import UsageError
from nacre.format.file import HEADER_BYTES
from nacre.music.shape import STEPS

DEFAULT_KBPS = {1: 20.0, 2: 32.0}  # of one channel, of a pair
LEAST_KBPS, MOST_KBPS = 6.0, 64.0  # a channel
HORIZON_S = 3.0  # rate control aims to be back on target after this long
COARSEST, FINEST = 40, 4  # fineness of quality 0 and 100, at a loudest level of NOMINAL
NOMINAL = 26
FORGET = 0.25  # levels a group, of the loudest of late
SLOPE = 0.12  # of the logarithm of the rate with each step of fineness, about
TRIES = 5
SWING = 2.0  # a group takes at most so many times its share of the rate, and at least its inverse


@dataclass
class MusicPlan:
    """Chooses the fineness of each group, 0 the finest; `target_kbps` is of all channels, None keeps the quality."""

    target_kbps: float | None
    quality: float
    fineness: int
    spent_bytes: int = HEADER_BYTES
    duration_s: float = 0.0
    loudest: float = 0.0

    def choose(self, loudest: int, duration_s: float, size_of: Callable[[int], float]) -> int:
        """Fineness of the next group, whose loudest level this is; `size_of` says how many bytes one would take."""
        self.loudest = max(loudest, self.loudest - FORGET)
        if self.target_kbps is None:
            share = self.quality / 100
            self.fineness = _within(COARSEST + (FINEST - COARSEST) * share + self.loudest - NOMINAL)
            return self.fineness
        share = self.target_kbps * 125 * duration_s
        owed = self.target_kbps * 125 * (self.duration_s + HORIZON_S) - self.spent_bytes
        wanted = min(max(owed * duration_s / HORIZON_S, share / SWING), share * SWING)
        self.fineness = _nearest(self.fineness, wanted, size_of)
        return self.fineness

    def record(self, size_bytes: int, duration_s: float) -> None:
        """Take note of what a group cost."""
        self.spent_bytes += size_bytes
        self.duration_s += duration_s


def plan_music(channels: int, bitrate_kbps: float | None, quality: float | None) -> MusicPlan:
    """The plan that the options request. Raises UsageError."""
    if bitrate_kbps is not None and quality is not None:
        raise UsageError("bitrate and quality exclude each other; give one of them")
    if quality is not None:
        if not 0 <= quality <= 100:
            raise UsageError(f"quality must be 0 to 100, not {quality:g}")
        return MusicPlan(None, quality, COARSEST)
    target = DEFAULT_KBPS.get(channels, DEFAULT_KBPS[1] * channels) if bitrate_kbps is None else bitrate_kbps
    least, most = LEAST_KBPS * channels, MOST_KBPS * channels
    if not least <= target <= most:
        span = f"{least:g} to {most:g} kb/s for {channels} channel{'s' * (channels > 1)}"
        raise UsageError(f"bitrate {target:g} kb/s is outside what music takes, {span}")
    first = _within(NOMINAL - 6 - (math.log(target / channels / 16)) / SLOPE)
    return MusicPlan(target, 0.0, first)


def _nearest(first: int, wanted: float, size_of: Callable[[int], float]) -> int:
    """The fineness whose size is nearest to the one that is wanted, by a search that begins at `first`."""
    off: dict[int, float] = {}  # how far off, as a logarithm: falls as fineness rises
    at = first
    for _ in range(TRIES):
        off[at] = math.log(max(1.0, size_of(at)) / wanted)
        larger = [each for each, excess in off.items() if excess > 0]
        smaller = [each for each, excess in off.items() if excess <= 0]
        if larger and smaller:
            low, high = max(larger), min(smaller)
            at = round(low + (high - low) * off[low] / (off[low] - off[high]))
            at = min(max(at, low + 1), high - 1)
            if high - low <= 1:
                break
        else:
            at = _within(at + off[at] / SLOPE)
        if at in off:
            break
    return min(off, key=lambda each: abs(off[each]))


def _within(fineness: float) -> int:
    return min(max(round(fineness), 0), STEPS - 1)
