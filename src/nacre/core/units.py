"""Limits of sound, and the only conversions between samples, frames, seconds, bits, kb/s and decibels."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 8


def ceil_div(count: int, size: int) -> int:
    """How many pieces of `size` cover `count`."""
    return -(-count // size)


def resampled_count(samples: int, from_hz: int, to_hz: int) -> int:
    """Samples after a rate change, rounded up; encoder and decoder must agree on it to the sample."""
    return ceil_div(samples * to_hz, from_hz)


def kbps(size_bytes: float, duration_s: float) -> float:
    """Rate in kb/s (1 kb = 1000 bits) of `size_bytes` that stand for `duration_s` of sound; 0 for no sound."""
    return 8 * size_bytes / duration_s / 1000 if duration_s > 0 else 0.0


def db_to_gain(level_db: float) -> float:
    """Amplitude factor of a level in dB."""
    return float(10.0 ** (level_db / 20.0))


def power_to_db(power: float, floor_db: float = -120.0) -> float:
    """Level in dB of a mean square, full scale sine = -3 dB, never below `floor_db`."""
    return max(floor_db, 10.0 * math.log10(power)) if power > 0 else floor_db


def clock(seconds: float) -> str:
    """Seconds as m:ss.s, the way damage and progress name a time.

    >>> clock(75.25)
    '1:15.2'
    """
    tenths = int(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


@dataclass(frozen=True)
class Layout:
    """How samples lie in frames and groups: rate, samples of a frame, how late sound comes out, frames of a group."""

    rate_hz: int
    hop_samples: int
    delay_samples: int
    group_frames: int

    @property
    def group_samples(self) -> int:
        """Samples of a full group."""
        return self.group_frames * self.hop_samples

    def frames_for(self, samples: int) -> int:
        """Frames that cover `samples` at this rate, the output's lag included; 0 for no samples."""
        return ceil_div(samples + self.delay_samples, self.hop_samples) if samples else 0

    def frames_of(self, samples: int, rate_hz: int) -> int:
        """Frames of so many samples at another rate."""
        return self.frames_for(resampled_count(samples, rate_hz, self.rate_hz))
