"""The band above the core, 7.6 to 20 kHz, as powers in time and frequency: taken from sound, and put on noise.

    wave at 48 kHz -> windows of 10 ms, 5 ms apart -> power of each of up to four bands      [steps, B]
    powers -> noise of that power in the same windows -> overlap-add -> wave at 48 kHz

What speech has up there is noise, and the ear follows its level, not its wave (noise substitution: Herre and Schulz,
1998; bandwidth extension from an envelope: Liu et al., 2002). The noise is a fixed cycle that a counter of steps runs
through, as in `nacre.dsp.noise`: the same file gives the same sound, in whatever pieces.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from nacre.core.types import Array, Floats
from nacre.dsp.stft import cycle_spectra, hann_root

RATE_HZ = 48_000
FRAME_SAMPLES, WINDOW, STEP = 960, 480, 240  # a frame is a latent frame of the core, 20 ms
STEPS = FRAME_SAMPLES // STEP
LAG = (WINDOW - STEP) // 2  # a window reaches this far beyond its step on both sides
EDGES = np.array([76, 96, 120, 156, 200])  # of the bands in bins of 100 Hz; the core ends at 7.6 kHz
WIDTHS = np.diff(EDGES)
CYCLE_STEPS = 1600  # until the noise comes again: 8 s
SEED = 48


def frame_powers(wave: Array, edges: Array) -> Floats:
    """wave [..., LAG + T * 960 + LAG] at 48 kHz, the frames from LAG on -> mean squares [..., T, STEPS, B].

    `edges` [B + 1] of the bands are bins of 100 Hz.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW, -1)[..., ::STEP, :]
    spectra = np.fft.rfft(frames * hann_root(WINDOW), norm="ortho")[..., edges[0] : edges[-1]]
    power = np.square(spectra.real) + np.square(spectra.imag)
    sums = np.add.reduceat(power, edges[:-1] - edges[0], -1) / np.float32(WINDOW / 4)  # the window halves power
    return sums.reshape(*sums.shape[:-2], -1, STEPS, len(edges) - 1).astype(np.float32)


@cache
def _noise() -> Array:
    """Spectra [CYCLE_STEPS, bins] complex64 of white noise of unit power, in overlapping windows."""
    wave = np.random.Generator(np.random.Philox(SEED)).standard_normal(CYCLE_STEPS * STEP, np.float32)
    spectra = cycle_spectra(wave, WINDOW, STEP)[:, EDGES[0] : EDGES[-1]]
    return spectra.astype(np.complex64)


def noise_of(powers: Floats, first_step: int, tail: Floats) -> tuple[Floats, Floats]:
    """Mean squares [S, B] of steps from `first_step` on -> (wave [S * STEP] at 48 kHz, tail [STEP]).

    The wave lags by LAG: its first sample is LAG before the first step's.
    """
    steps, bands = powers.shape
    scale = np.sqrt(powers * (WINDOW / 2 / WIDTHS[:bands]).astype(np.float32))
    shaped = _noise()[(first_step + np.arange(steps)) % CYCLE_STEPS, : EDGES[bands] - EDGES[0]]
    spectra = np.zeros((steps, WINDOW // 2 + 1), np.complex64)
    spectra[:, EDGES[0] : EDGES[bands]] = shaped * np.repeat(scale, WIDTHS[:bands], 1)
    frames = np.fft.irfft(spectra, WINDOW, norm="ortho").astype(np.float32) * hann_root(WINDOW)
    wave = frames[:, :STEP].copy()
    wave[0] += tail
    wave[1:] += frames[:-1, STEP:]
    return wave.reshape(-1), frames[-1, STEP:].copy()
