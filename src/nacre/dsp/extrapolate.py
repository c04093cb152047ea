"""A wave continued past its end by its own last period: the first guess at sound that is lost.

    ...|  period  |  period  |  period  ->  last period again, and again
                  <- match ->             the lag at which the last 20 ms look most like what came before them

After the concealment of ITU-T G.711 Appendix I (1999), with the normalised correlation in place of its search.
"""

from __future__ import annotations

import math

import numpy as np

from nacre.core.types import Array

Spans = list[tuple[int, int]]

MATCH_S = 0.020
SHORTEST_S, LONGEST_S = 0.0025, 0.016  # 400 to 62 Hz


def period_samples(past: Array, rate_hz: int) -> int:
    """The lag at which the end of past [N] repeats itself best, 2.5 to 16 ms; at most N."""
    match, low, high = (round(seconds * rate_hz) for seconds in (MATCH_S, SHORTEST_S, LONGEST_S))
    match, high = min(match, len(past) // 2), min(high, len(past) // 2)
    if high <= low:
        return max(1, len(past))
    known = past[-(match + high) :].astype(np.float64)
    end = known[high:]
    size = 2 ** math.ceil(math.log2(len(known) + match))
    products = np.fft.irfft(np.fft.rfft(known, size) * np.conj(np.fft.rfft(end, size)), size)[high - low :: -1]
    sums = np.concatenate([[0.0], np.cumsum(known**2)])
    energy = (sums[match:] - sums[:-match])[high - low :: -1]
    correlation = products[: high - low + 1] / np.sqrt(energy[: high - low + 1] + 1e-9)
    return low + int(correlation.argmax())


def extrapolated(past: Array, samples: int, rate_hz: int) -> Array:
    """[samples] float32 that follow on past [N]: its last period, repeated. Zeros where there is no past."""
    if not len(past):
        return np.zeros(samples, np.float32)
    return np.resize(past[-period_samples(past, rate_hz) :], samples).astype(np.float32)


def filled(wave: Array, lost: Spans, rate_hz: int) -> Array:
    """wave [N] with the samples of each lost (start, stop), in order and apart, continued from what is before them."""
    result = wave.copy()
    reach = math.ceil((MATCH_S + LONGEST_S) * rate_hz)
    for start, stop in lost:
        result[start:stop] = extrapolated(result[max(0, start - 2 * reach) : start], stop - start, rate_hz)
    return result


def filled_from_both(wave: Array, lost: Spans, rate_hz: int) -> Array:
    """wave [N] with each lost stretch continued from before and, time turned round, from behind; cross-faded.

    The weights keep the power of two sounds that are not alike. At the ends of the wave one side does it alone.
    """
    size = len(wave)
    before = filled(wave, lost, rate_hz)
    behind = filled(wave[::-1], [(size - stop, size - start) for start, stop in reversed(lost)], rate_hz)[::-1]
    for start, stop in lost:
        turn = (np.arange(stop - start, dtype=np.float32) + 0.5) / (stop - start) * np.float32(np.pi / 2)
        if start == 0 or stop == size:
            before[start:stop] = behind[start:stop] if start == 0 else before[start:stop]
            continue
        before[start:stop] = before[start:stop] * np.cos(turn) + behind[start:stop] * np.sin(turn)
    return before
