"""Lost samples that fit those on both sides best: all of them are predicted from samples before them with least error.

    ...kept|  lost  |kept...      x[n] = a1 x[n-1] + ... + aK x[n-K] + e[n]
            least sum of e^2      a from a first guess, then once more from what came out

After Janssen, Veldhuis and Vries, "Adaptive interpolation of discrete-time signals that can be modeled as
autoregressive processes" (1986). K is longer than a voice's period, so that one model has its resonances and its pitch.
"""

from __future__ import annotations

import numpy as np

from nacre.core.types import Array
from nacre.dsp.extrapolate import Spans

ORDER_S, MOST_ORDER = 0.025, 1200
AROUND_S = 0.05  # kept sound that the model is made of, on each side
ROUNDS = 2  # more of them lose again
AHEAD_ORDER_S, PAST_S = 0.016, 0.04  # of a prediction from before alone
MOST_AHEAD_ORDER = 768
NOISE = 1e-5  # white noise that the model takes to lie under the sound, of its power


def interpolated(wave: Array, lost: Spans, rate_hz: int) -> Array:
    """wave [N], which holds a guess at each lost (start, stop), with a better one in the same places."""
    result, around = wave.copy(), round(AROUND_S * rate_hz)
    for start, stop in lost:
        low = max(0, start - around)
        near = wave[low : stop + around].astype(np.float64)
        result[start:stop] = _interpolated(near, start - low, stop - low, round(ORDER_S * rate_hz))
    return result


def extended(past: Array, samples: int, rate_hz: int) -> Array:
    """[samples] float32 that the end of past [N] foretells; zeros where there is too little of it.

    The filter is Burg's ("Maximum entropy spectral analysis", 1975), whose prediction never grows.
    """
    known = past[-round(PAST_S * rate_hz) :].astype(np.float64)
    order = min(round(AHEAD_ORDER_S * rate_hz), MOST_AHEAD_ORDER, len(known) // 2)
    extended = np.concatenate([known, np.zeros(samples)])
    weights = -_foretelling(known, order)[:0:-1]
    for at in range(len(known), len(extended)):
        extended[at] = weights @ extended[at - order : at]
    return extended[len(known) :].astype(np.float32)


def _foretelling(wave: Array, order: int) -> Array:
    """Filter [order + 1] that leaves of wave [N] least, run in both directions."""
    ahead, behind, errors = wave[1:].copy(), wave[:-1].copy(), np.zeros(order + 1)
    errors[0] = 1
    for at in range(1, order + 1):
        turn = -2 * (ahead @ behind) / (ahead @ ahead + behind @ behind + 1e-9)
        errors[: at + 1] += turn * errors[at::-1]
        ahead, behind = (ahead + turn * behind)[1:], (behind + turn * ahead)[:-1]
    return errors


def _interpolated(near: Array, start: int, stop: int, order: int) -> Array:
    """The samples start to stop of near [N]."""
    order, window = min(order, MOST_ORDER, len(near) - 1), np.hanning(len(near) + 2)[1:-1]
    kept, filled = near.copy(), near.copy()
    kept[start:stop] = 0
    for _ in range(ROUNDS):
        errors = _prediction(filled * window, order)
        weights = np.correlate(np.convolve(kept, errors), errors, "valid")[start:stop]
        correlation = np.zeros(stop - start)
        correlation[: order + 1] = _autocorrelation(errors, order)[: stop - start]
        filled[start:stop] = -_solved(correlation, weights)
    return filled[start:stop]


def _prediction(wave: Array, order: int) -> Array:
    """Filter [order + 1] that leaves of wave [N] what its past does not predict."""
    correlation = _autocorrelation(wave, order)
    correlation[0] += NOISE * correlation[0] + 1e-9
    return np.concatenate([[1.0], -_solved(correlation[:-1], correlation[1:])])


def _autocorrelation(wave: Array, lags: int) -> Array:
    """[lags + 1] sums of products of wave [N] with itself, later."""
    size = 1 << (len(wave) + lags).bit_length()
    sums: Array = np.fft.irfft(np.square(np.abs(np.fft.rfft(wave, size))), size)[: lags + 1]
    return sums


def _solved(column: Array, right: Array) -> Array:
    """x [N] where T x = right [N]; T is symmetric, the same along diagonals, with this first column (Levinson 1946)."""
    behind, solution = np.zeros(len(right)), np.zeros(len(right))
    behind[0], solution[0], left = 1.0, right[0] / column[0], column[0]
    for at in range(1, len(right)):
        past = column[at:0:-1]
        turn = -(past @ behind[:at]) / left
        behind[: at + 1] += turn * behind[at::-1]
        left *= 1 - turn * turn
        solution[: at + 1] += (right[at] - past @ solution[:at]) / left * behind[at::-1]
    return solution
