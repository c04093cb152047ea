"""How noise-like hissing sounds still are after coding, between 4 and 8 kHz, decoded against original.

Counted are frames of 32 ms in which the original hisses: strong there, and flat. Repeat is the correlation of the
decoded band's wave with itself 20 ms later, one frame of latents: 0 for real hiss, 1 for a wave that repeats. Level is
decoded less original. Flicker is how much a bin changes from frame to frame, as a ratio: below 1 hiss stands still
where in life it would swarm.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nacre.evaluate.measures import RATE_HZ, Array, NothingToMeasure, Sound

WINDOW = 512
BAND = slice(128, 250)  # bins of 4 to 7.8 kHz
FLAT_DB, BELOW_LOUDEST_DB = -4.0, 35.0
LATER = RATE_HZ // 50  # 20 ms
LEAST_FRAMES, LEAST_PAIRS = 5, 3


def repeat(original: Sound, decoded: Sound) -> float:
    """Mean correlation of the decoded band with itself 20 ms later. Raises NothingToMeasure."""
    correlation = again(decoded.wave, _enough(hissing(band_db(original.wave)), LEAST_FRAMES), LATER)
    if not correlation:
        raise NothingToMeasure("no hiss 20 ms before the end")
    return float(np.mean(correlation))


def gain_db(original: Sound, decoded: Sound) -> float:
    """Mean level of hiss, decoded less original, in dB. Raises NothingToMeasure."""
    true = band_db(original.wave)
    hisses = _enough(hissing(true), LEAST_FRAMES)
    return float((level_db(band_db(decoded.wave)) - level_db(true))[hisses].mean())


def flicker(original: Sound, decoded: Sound) -> float:
    """Mean change of a bin from one hissing frame to the next, decoded over original. Raises NothingToMeasure."""
    true = band_db(original.wave)
    hisses = hissing(true)
    both = _enough(hisses[1:] & hisses[:-1], LEAST_PAIRS)
    return float(changes_db(band_db(decoded.wave), both).mean() / changes_db(true, both).mean())


def _enough(frames: Array, least: int) -> Array:
    if np.count_nonzero(frames) < least:
        raise NothingToMeasure(f"only {np.count_nonzero(frames)} frames are hiss; the metric needs {least}")
    return frames


def band_db(wave: Array) -> Array:
    """wave [N] at 16 kHz -> power in dB of the band's bins [T, bins], of windows that do not overlap."""
    frames = wave[: len(wave) // WINDOW * WINDOW].reshape(-1, WINDOW) * np.hanning(WINDOW)
    power: Array = 10 * np.log10(np.abs(np.fft.rfft(frames)[:, BAND]) ** 2 + 1e-12)
    return power


def level_db(band: Array) -> Array:
    """Mean power of a band [T, bins] in dB [T]."""
    level: Array = 10 * np.log10((10 ** (band / 10)).mean(1))
    return level


def hissing(band: Array) -> Array:
    """Which frames of an original's band [T, bins] hiss: strong and flat; bool [T]."""
    level = level_db(band)
    hisses: Array = (band.mean(1) - level > FLAT_DB) & (level > level.max(initial=-np.inf) - BELOW_LOUDEST_DB)
    return hisses


def changes_db(band: Array, both: Array) -> Array:
    """Mean change of the bins of a band [T, bins] to the next frame, where `both` [T - 1] frames hiss."""
    changes: Array = np.abs(np.diff(band, axis=0))[both].mean(1)
    return changes


def again(wave: Array, hisses: Array, later: int) -> list[float]:
    """Correlation of wave [N], the band of it, with itself `later` samples on, of each frame that hisses."""
    from scipy.signal import sosfiltfilt

    high = sosfiltfilt(_high_pass(), wave.astype(np.float64))
    correlations = []
    for start in np.flatnonzero(hisses) * WINDOW:
        here, there = high[start : start + WINDOW], high[start + later : start + later + WINDOW]
        if len(there) == WINDOW:
            correlations.append(float(here @ there / np.sqrt((here @ here) * (there @ there) + 1e-12)))
    return correlations


@functools.cache
def _high_pass() -> Any:
    """Second-order sections of a filter from 4 kHz up."""
    from scipy.signal import butter

    return butter(6, 4000, "high", fs=RATE_HZ, output="sos")
