"""Samples <-> model frames: level, framing, windowed spectra, overlap-add. All steps carry their state.

    samples   |----320----|----320----|          a latent frame is 20 ms
    spectra      two a frame, window 640, 160 apart; a window ends where its frame's samples end
    output    overlap-add of windows 640 long; it lags the input by `delay_samples`

Spectra are compressed to z = log1p(k |X|) X / |X| and expanded by the inverse, phase kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.config import CodecConfig
from nacre.units import db_to_gain, power_to_db

Array = np.ndarray[Any, np.dtype[Any]]

COMPRESSION = 50.0  # k above: where the scale turns from linear to logarithmic
LARGEST_LOG = 12.0  # compressed magnitudes are cut here, far above any sound, so that exp stays finite
TARGET_DB = -20.0  # active level at which the networks see speech
GAIN_STEP_DB = 3.0
GAIN_CODES = 32  # code 0 is -36 dB, code 31 is +57 dB
GAIN_ZERO = 12
SILENCE_DB = -88.0  # sound below is silence: the dither of 16-bit sound measures -96 to -90 dB
SILENCE_PEAK = 2.0**-12  # eight steps of 16-bit sound; a louder click is kept
RELEASE_DB = 3.0  # the level memory falls by this much a group
HYSTERESIS_DB = 3.0


def hann_root(size: int) -> Array:
    """Square root of the periodic Hann window, [size] float32; used on both sides it overlap-adds to a constant."""
    return np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def gain_of(code: int) -> float:
    """Amplitude factor that a gain code stands for."""
    return db_to_gain((code - GAIN_ZERO) * GAIN_STEP_DB)


def active_level_db(wave: Array, hop_samples: int) -> float:
    """Level of the loudest tenth of the frames (at least one) of wave [N], in dB re full scale."""
    whole = len(wave) // hop_samples * hop_samples
    if whole == 0:
        return power_to_db(float(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else -120.0
    power = np.mean(np.square(wave[:whole].reshape(-1, hop_samples), dtype=np.float64), axis=1)
    loudest = np.sort(power)[-max(1, len(power) // 10) :]
    return power_to_db(float(np.mean(loudest)))


def is_silent(wave: Array, hop_samples: int) -> bool:
    """Whether nothing in wave [N] stands out of the dither of 16-bit sound."""
    return bool(np.abs(wave).max(initial=0) < SILENCE_PEAK) and active_level_db(wave, hop_samples) < SILENCE_DB


@dataclass
class LevelState:
    """Memory of the gain control: level held, code in use."""

    level_db: float = -120.0
    code: int | None = None


def choose_gain(state: LevelState, wave: Array, hop_samples: int) -> int:
    """Gain code for the group wave [N]; rises at once, falls slowly, keeps its value inside a small band."""
    state.level_db = max(active_level_db(wave, hop_samples), state.level_db - RELEASE_DB)
    wanted_db = TARGET_DB - state.level_db
    if state.code is None or abs(wanted_db - (state.code - GAIN_ZERO) * GAIN_STEP_DB) > HYSTERESIS_DB:
        state.code = int(np.clip(round(wanted_db / GAIN_STEP_DB) + GAIN_ZERO, 0, GAIN_CODES - 1))
    return state.code


def gain_curve(before: int | None, code: int, samples: int, ramp_samples: int) -> Array:
    """Factors [samples] float32 of one group: a short ramp from the last group's gain, then constant."""
    curve = np.full(samples, gain_of(code), np.float32)
    if before is not None and before != code:
        ramp = min(ramp_samples, samples)
        steps = np.arange(ramp, dtype=np.float64) / ramp_samples
        curve[:ramp] = gain_of(before) * (gain_of(code) / gain_of(before)) ** steps
    return curve


class Analyser:
    """Samples to compressed spectra. State: the samples that later windows still need."""

    def __init__(self, config: CodecConfig):
        self.config = config
        self._window = hann_root(config.window_samples)
        self._past = np.zeros(config.window_samples - config.step_samples, np.float32)

    def push(self, wave: Array) -> Array:
        """wave [N] float32, N a multiple of the hop -> spectra [T, steps * 2 * bins] float32."""
        c = self.config
        joined = np.concatenate([self._past, wave])
        self._past = joined[len(wave) :]
        frames = np.lib.stride_tricks.sliding_window_view(joined, c.window_samples)[:: c.step_samples]
        spectrum = np.fft.rfft(frames * self._window, norm="ortho")  # [T * steps, bins]
        magnitude = np.abs(spectrum) + np.float32(1e-6)
        spectrum *= np.log1p(np.float32(COMPRESSION) * magnitude) / magnitude
        parts = np.stack([spectrum.real, spectrum.imag], 1)
        return parts.reshape(-1, c.steps_per_frame * 2 * c.bins)


class Synthesiser:
    """Compressed spectra to samples by overlap-add. State: the unfinished tail."""

    def __init__(self, config: CodecConfig):
        self.config = config
        overlap = config.window_samples // config.step_samples
        self._window = hann_root(config.window_samples) * np.float32(2 / overlap)
        self._tail = np.zeros((overlap - 1, config.step_samples), np.float32)

    def push(self, spectra: Array) -> Array:
        """spectra [T * steps, 2 * bins] float32 -> wave [N] float32, N = T * hop."""
        c = self.config
        real, imag = spectra[:, : c.bins], spectra[:, c.bins :]
        magnitude = np.sqrt(real * real + imag * imag) + np.float32(1e-5)
        scale = np.expm1(np.minimum(magnitude, np.float32(LARGEST_LOG))) / (np.float32(COMPRESSION) * magnitude)
        spectrum = np.empty(real.shape, np.complex64)
        spectrum.real, spectrum.imag = real * scale, imag * scale
        frames = np.fft.irfft(spectrum, n=c.window_samples, norm="ortho") * self._window
        steps, overlap = len(frames), c.window_samples // c.step_samples
        pieces = frames.reshape(steps, overlap, c.step_samples)
        total = np.zeros((steps + overlap - 1, c.step_samples), np.float32)
        total[: overlap - 1] = self._tail
        for lag in range(overlap):
            total[lag : lag + steps] += pieces[:, lag]
        self._tail = total[steps:]
        return total[:steps].reshape(-1)
