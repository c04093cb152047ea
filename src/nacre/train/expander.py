"""A downward expander: a recording's own noise, which nothing that learns from it should learn to keep.

In each bin of the spectrum the quiet frames tell the noise. What lies near them is turned down by up to 30 dB, what
stands out stays as it is, with some frames around it. The quiet frames as an estimate of noise: Martin, "Noise power
spectral density estimation based on optimal smoothing and minimum statistics" (2001).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

WINDOW_S, STEPS = 0.032, 4  # of a frame, and frames that overlap
QUIET, LOUD = 8, 95  # percentiles of a bin's frames
LEAST_DB = 15.0  # from the loud frames of a bin down to anything that counts as noise
LOW_DB, HIGH_DB, DEPTH_DB = 8.0, 14.0, 30.0  # over noise: below all is turned down, above nothing
LIVE = 1e-7  # power of a frame that is no digital silence
FEWEST = 60  # frames that tell noise from speech
FAINT = 1e-12


def expand(wave: Array, rate_hz: int) -> Array:
    """wave [N] float32 -> the same with its own noise turned down, where there is enough sound to tell."""
    size = round(WINDOW_S * rate_hz / STEPS) * STEPS
    window = np.sqrt(np.hanning(size + 1)[:-1]).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, size), size)[:: size // STEPS]
    spectra = np.fft.rfft(frames * window)
    power = _mean(_mean(np.abs(spectra) ** 2, 3, 0), 5, 1) + FAINT
    live = power[power.sum(1) > LIVE]
    if len(live) < FEWEST:
        return wave
    quiet, loud = np.percentile(live, (QUIET, LOUD), axis=0)
    noise = _mean(np.minimum(quiet, loud * 10 ** (-LEAST_DB / 10))[None], 5, 1) + FAINT
    above_db = 10 * np.log10(power / noise)
    gain_db = -DEPTH_DB * (1 - np.clip((above_db - LOW_DB) / (HIGH_DB - LOW_DB), 0, 1))
    nearby = np.lib.stride_tricks.sliding_window_view(np.pad(gain_db, ((2, 2), (0, 0)), "edge"), 5, 0).max(-1)
    return _sound(spectra * 10 ** (_mean(_mean(nearby, 3, 0), 3, 1) / 20), window, len(wave))


def _sound(spectra: Array, window: Array, samples: int) -> Array:
    """Frames put together again: spectra [T, F] -> [N]."""
    size = len(window)
    step = size // STEPS
    frames = (np.fft.irfft(spectra, size) * (window * (2 / STEPS))).reshape(len(spectra), STEPS, step)
    sound = np.zeros((len(spectra) + STEPS - 1, step), np.float32)
    for part in range(STEPS):
        sound[part : part + len(spectra)] += frames[:, part]
    return sound.reshape(-1)[size : size + samples]


def _mean(values: Array, size: int, axis: int) -> Array:
    """Moving mean of an odd size along an axis."""
    width = [(0, 0)] * values.ndim
    width[axis] = (size // 2, size // 2)
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, width, "edge"), size, axis).mean(-1)
