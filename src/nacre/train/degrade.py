"""Augmentation: what may happen to speech before a microphone's samples reach the encoder. All seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from nacre.core.units import db_to_gain
from nacre.train.checks import above_zero, check, not_negative, rising, share

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class DegradeConfig:
    """How often and how strongly an excerpt is changed; every probability in 0..1.

    All of it is there for the decoder to give back: rooms, the narrow band of a telephone, a second talker, noise;
    or tones, as of a telephone's keys, in place of speech.
    """

    speed_probability: float = 0.6
    speed_range: tuple[float, float] = (0.85, 1.18)
    level_spread_db: float = 4.0
    quiet_probability: float = 0.05
    tilt_probability: float = 0.3
    noise_probability: float = 0.12
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    room_probability: float = 0.0
    band_probability: float = 0.0
    talker_probability: float = 0.0
    talker_snr_db: tuple[float, float] = (0.0, 15.0)
    tone_probability: float = 0.0

    def __post_init__(self) -> None:
        chances = ("speed", "quiet", "tilt", "noise", "room", "band", "talker", "tone")
        check(self, "degrade", "0 to 1", share, *(f"{name}_probability" for name in chances))
        check(self, "degrade", "0 or more", not_negative, "level_spread_db")
        ranges = ("speed_range", "noise_snr_db", "talker_snr_db")
        check(self, "degrade", "a range from low to high", rising, *ranges)
        check(self, "degrade", "speeds above 0", lambda speeds: above_zero(speeds[0]), "speed_range")


ROWS_HZ, COLUMNS_HZ = (697, 770, 852, 941), (1209, 1336, 1477, 1633)  # of a telephone's keys
NOTHING = DegradeConfig(0.0, (1.0, 1.0), 0.0, 0.0, 0.0, 0.0)  # recordings as they are


def change_speed(wave: Array, factor: float, samples: int) -> Array:
    """wave [N] played `factor` times as fast, cut to `samples`; pitch and formants move with it."""
    changed: Array = soxr.resample(wave, factor, 1.0, quality="MQ")[:samples]
    return changed


def tilt(wave: Array, amount: float) -> Array:
    """First-order tilt of the spectrum, amount in -0.5..0.5: the colour of microphones and rooms."""
    tilted = wave.copy()
    tilted[1:] += amount * wave[:-1]
    return tilted / np.float32(1 + abs(amount))


def narrow(wave: Array, lowest_hz: float, highest_hz: float, rate_hz: int) -> Array:
    """wave [N] without what lies below or above, as a line or a small microphone leaves it; edges of 200 Hz."""
    hz = np.fft.rfftfreq(len(wave), 1 / rate_hz)
    kept = np.clip((hz - lowest_hz) / 200 + 1, 0, 1) * np.clip((highest_hz - hz) / 200 + 1, 0, 1)
    filtered: Array = np.fft.irfft(np.fft.rfft(wave) * kept, len(wave)).astype(np.float32)
    return filtered


def add_noise(wave: Array, noise: Array, snr_db: float) -> Array:
    """wave + noise [N], the noise scaled to this ratio of powers."""
    power, noise_power = float(np.mean(wave**2)), float(np.mean(noise**2))
    if noise_power < 1e-12 or power < 1e-12:
        return wave
    return wave + noise * np.float32(np.sqrt(power / noise_power) * db_to_gain(-snr_db))


@dataclass(frozen=True)
class NoiseMixConfig:
    """What an excerpt is buried in where the encoder learns to clean; every probability in 0..1.

    Noise is babble of other excerpts, coloured, synthetic (`synthetic_noise.KINDS`), or else recorded; hum, clicks and
    rooms come on top. Noise that is `varied` gets another speed, colour and course, and company. With `clipping` the
    microphone was too loud; in `speechless` excerpts there is noise alone, and nothing shall be left.
    """

    snr_db: tuple[float, float] = (-5.0, 20.0)
    babble_probability: float = 0.25
    coloured_probability: float = 0.25
    synthetic_probability: float = 0.0
    hum_probability: float = 0.1
    clicks_probability: float = 0.1
    room_probability: float = 0.2
    varied_probability: float = 0.0
    clipping_probability: float = 0.0
    speechless_probability: float = 0.0

    def __post_init__(self) -> None:
        chances = ("babble", "coloured", "synthetic", "hum", "clicks", "room", "varied", "clipping", "speechless")
        check(self, "dirt", "0 to 1", share, *(f"{name}_probability" for name in chances))
        check(self, "dirt", "a range from low to high", rising, "snr_db")
        kinds = self.babble_probability + self.coloured_probability + self.synthetic_probability
        fits = "1 or less with coloured_probability and synthetic_probability"
        check(self, "dirt", fits, lambda _: kinds <= 1, "babble_probability")


def recoloured(wave: Array, rng: np.random.Generator) -> Array:
    """wave [N] through a random equaliser of six bands of equal width."""
    size = len(wave) // 2 + 1
    gain_db = np.interp(np.linspace(0, 5, size), np.arange(6), rng.normal(0, 8, 6))
    filtered: Array = np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain_db / 20), len(wave)).astype(np.float32)
    return filtered


def gusts(wave: Array, rng: np.random.Generator) -> Array:
    """wave [N] that swells and falls, as wind and traffic do."""
    count = int(rng.integers(3, 10))
    gain = np.interp(np.linspace(0, count - 1, len(wave)), np.arange(count), 10 ** rng.normal(0, 0.5, count))
    gusty: Array = (wave * gain).astype(np.float32)
    return gusty


def clipped(wave: Array, share: float) -> Array:
    """wave [N] cut off at this share of its peak."""
    peak = np.abs(wave).max() * np.float32(share)
    clipped: Array = np.clip(wave, -peak, peak)
    return clipped


def tones(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """Beeps [N] in faint noise: digits of a telephone's keys (ITU-T Q.23), or single tones of 200 to 3500 Hz."""
    wave = rng.standard_normal(samples) * 10 ** rng.uniform(-5, -3)
    keys, start = rng.random() < 0.6, int(rng.integers(rate_hz // 5))
    while start < samples:
        count = int(rng.uniform(0.06, 0.6) * rate_hz)
        hz = [rng.choice(ROWS_HZ), rng.choice(COLUMNS_HZ)] if keys else [200 * 17.5 ** rng.random()]
        at = np.arange(count)
        ramp = np.minimum(1, np.minimum(at, at[::-1]) * (200 / rate_hz))  # 5 ms
        beep = sum(np.sin(at * (2 * np.pi * tone / rate_hz) + rng.uniform(0, 2 * np.pi)) for tone in hz)
        piece = (ramp * beep * (0.17 / len(hz) ** 0.5))[: samples - start]
        wave[start : start + len(piece)] += piece
        start += count + int(rng.uniform(0.04, 0.3) * rate_hz)
    return wave.astype(np.float32)


def in_room(wave: Array, response: Array, rate_hz: int) -> tuple[Array, Array]:
    """wave [N] in a room, and what a denoiser shall leave of it: direct sound and the first 30 ms of reflections."""
    peak = int(np.abs(response).argmax())
    response = response[peak:] / np.float32(np.abs(response[peak]) + 1e-9)
    size = len(wave) + len(response)
    spectrum = np.fft.rfft(wave, size)
    whole, early = response, response[: rate_hz * 3 // 100]
    reverberant, kept = (np.fft.irfft(spectrum * np.fft.rfft(part, size), size)[: len(wave)] for part in (whole, early))
    return reverberant.astype(np.float32), kept.astype(np.float32)
