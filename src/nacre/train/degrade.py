"""Augmentation: what may happen to speech before a microphone's samples reach the encoder. All seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from nacre.train.checks import above_zero, check, not_negative, rising, share
from nacre.units import db_to_gain

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class DegradeConfig:
    """How often and how strongly an excerpt is changed; every probability in 0..1."""

    speed_probability: float = 0.6
    speed_range: tuple[float, float] = (0.85, 1.18)
    level_spread_db: float = 4.0
    quiet_probability: float = 0.05
    tilt_probability: float = 0.3
    noise_probability: float = 0.12
    noise_snr_db: tuple[float, float] = (5.0, 30.0)

    def __post_init__(self) -> None:
        chances = ("speed_probability", "quiet_probability", "tilt_probability", "noise_probability")
        check(self, "degrade", "0 to 1", share, *chances)
        check(self, "degrade", "0 or more", not_negative, "level_spread_db")
        check(self, "degrade", "a range from low to high", rising, "speed_range", "noise_snr_db")
        check(self, "degrade", "speeds above 0", lambda speeds: above_zero(speeds[0]), "speed_range")


def change_speed(wave: Array, factor: float, samples: int) -> Array:
    """wave [N] played `factor` times as fast, cut to `samples`; pitch and formants move with it."""
    changed: Array = soxr.resample(wave, factor, 1.0, quality="MQ")[:samples]
    return changed


def tilt(wave: Array, amount: float) -> Array:
    """First-order tilt of the spectrum, amount in -0.5..0.5: the colour of microphones and rooms."""
    tilted = wave.copy()
    tilted[1:] += amount * wave[:-1]
    return tilted / np.float32(1 + abs(amount))


def add_noise(wave: Array, noise: Array, snr_db: float) -> Array:
    """wave + noise [N], the noise scaled to this ratio of powers."""
    power, noise_power = float(np.mean(wave**2)), float(np.mean(noise**2))
    if noise_power < 1e-12 or power < 1e-12:
        return wave
    return wave + noise * np.float32(np.sqrt(power / noise_power) * db_to_gain(-snr_db))
