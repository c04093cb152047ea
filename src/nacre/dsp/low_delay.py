"""Spectra of fine frequencies whose sound comes back soon: long windows to look through, short ones to build with.

    analysis   ____-----~~~~~~~~\\     rises over window - step samples, falls over the last step
    synthesis  .........______/~\\     ends together with it, 2 steps long; the products of both overlap-add to one

What comes out lags what went in by a step. After Mauler and Martin, "A low delay, variable resolution, perfect
reconstruction spectral analysis-synthesis system for speech enhancement" (EUSIPCO 2007).
"""

from __future__ import annotations

import numpy as np

from nacre.core.types import Array


def windows(size: int, step: int) -> tuple[Array, Array]:
    """(analysis [size], synthesis [2 * step]) float32, 2 * step <= size."""
    rise, fall = _half_cosine(size - step), _half_cosine(step)[::-1]
    analysis = np.concatenate([rise, fall])
    synthesis = np.concatenate([fall[::-1] ** 2 / rise[-step:], fall])
    return analysis.astype(np.float32), synthesis.astype(np.float32)


def _half_cosine(size: int) -> Array:
    """A quarter of a sine [size], from 0 to 1: its square and that of its mirror image make up one."""
    slope: Array = np.sin(0.5 * np.pi * (np.arange(size) + 0.5) / size)
    return slope


class LowDelay:
    """Windows of `size` samples, `step` apart. What it remembers is passed in and out."""

    def __init__(self, size: int, step: int):
        self.size, self.step, self.bins = size, step, size // 2 + 1
        self._analysis, self._synthesis = windows(size, step)
        self._scale = np.float32(1 / np.sqrt(np.sum(self._analysis**2)))  # white noise of unit power has bins of one

    def start(self) -> tuple[Array, Array]:
        """(past samples [size - step], unfinished sound [step]) before the first sample."""
        return np.zeros(self.size - self.step, np.float32), np.zeros(self.step, np.float32)

    def analyse(self, wave: Array, past: Array) -> tuple[Array, Array]:
        """wave [T * step] float32 -> (spectra [T, bins] complex64, past)."""
        joined = np.concatenate([past, wave])
        frames = np.lib.stride_tricks.sliding_window_view(joined, self.size)[:: self.step]
        return np.fft.rfft(frames * (self._analysis * self._scale)), joined[len(wave) :].copy()

    def synthesise(self, spectra: Array, tail: Array) -> tuple[Array, Array]:
        """spectra [T, bins] complex64 -> (wave [T * step] float32, a step behind, tail)."""
        frames = np.fft.irfft(spectra, n=self.size)[:, -2 * self.step :] * (self._synthesis / self._scale)
        first, second = frames[:, : self.step], frames[:, self.step :].astype(np.float32)
        wave = first + np.concatenate([tail[None], second[:-1]])
        return wave.astype(np.float32).reshape(-1), second[-1].copy()


def follow_level(levels: Array, before: float, fall: float) -> Array:
    """levels [T] -> the loudest so far [T], as it fades by the factor `fall` a frame; `before` is that of the last."""
    followed = np.empty(len(levels), np.float32)
    for index, level in enumerate(levels):
        followed[index] = before = max(float(level), before * fall)
    return followed
