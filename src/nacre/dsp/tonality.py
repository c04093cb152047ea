"""Whether sound is made of a few steady tones, such as beeps and the keys of a telephone."""

from __future__ import annotations

import numpy as np

from nacre.core.types import Array

WINDOW_S = 0.04
PEAKS, REACH_BINS = 2, 2  # tones at once, and bins on either side that a window spreads them over
LOWEST_HZ = 350.0  # tones below are no different from voices
PURE = 0.97  # share of a window's power in its tones from which on it counts as tonal
MOST = 0.5  # share of the loud windows that make sound tonal
BELOW_LOUDEST_DB = 10.0  # windows below do not count


def is_tonal(wave: Array, rate_hz: int) -> bool:
    """Whether most of wave [N] that is loud consists of one or two tones at a time."""
    size = int(WINDOW_S * rate_hz)
    if len(wave) < size:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 2] * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(windows)) ** 2  # [T, bins]
    total = power.sum(1)
    loud = total > total.max() * 10 ** (-BELOW_LOUDEST_DB / 10)
    if not total.max() > 0:
        return False
    rest = power[loud]
    rest[:, : int(LOWEST_HZ * WINDOW_S)] = 0
    rows, taken = np.arange(len(rest)), np.zeros(len(rest))
    for _ in range(PEAKS):
        peak = rest.argmax(1)
        for offset in range(-REACH_BINS, REACH_BINS + 1):
            at = np.clip(peak + offset, 0, rest.shape[1] - 1)
            taken += rest[rows, at]
            rest[rows, at] = 0
    return bool((taken > PURE * total[loud]).mean() > MOST)
