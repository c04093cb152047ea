"""Two channels that are alike: when to write a group of them once, and at which level it stands for the second.

    left  = downmix                     written as the first channel's packet
    right = downmix * factor            written as an empty packet whose level is the balance

Middle and side would be the usual way, and does not pay here: the networks keep levels, not phases, so what comes back
of the side does not cancel against the middle. Sending the side costs more than it brings unless it is so weak that it
may be left out; then one packet does for both.
"""

from __future__ import annotations

import math

import numpy as np

from nacre.core.types import Array
from nacre.core.units import db_to_gain
from nacre.dsp.blas import one_thread

AUTO, LEFT_RIGHT = "auto", "left-right"
MODES = (AUTO, LEFT_RIGHT)
SEPARATE = 0  # no balance: each channel has its own packet
EVEN, MOST_DB = 8, 7  # balance 1 is -7 dB, 8 both alike, 15 is +7 dB
ALIKE_DB = -30.0  # what the downmix misses, against all of both channels
RELEASE = 0.5  # of the power held in memory, a group: 3 dB, as in the gain control


def factor_of(balance: int) -> float:
    """How much louder the second channel is."""
    return db_to_gain(balance - EVEN)


def factors(before: float, after: float, samples: int, hop_samples: int) -> Array:
    """From one factor to the next over the first hop of a group: [samples] float32."""
    share = np.minimum(1, np.arange(samples, dtype=np.float32) / hop_samples)
    ramp: Array = before + (after - before) * share
    return ramp


def downmix(waves: Array, balance: int) -> Array:
    """waves [2, N] -> the wave [N] from which both come back with the least error."""
    factor = np.float32(factor_of(balance))
    mixed: Array = (waves[0] + factor * waves[1]) / (1 + factor * factor)
    return mixed


class IntensityStereo:
    """Decides group by group; remembers how loud it was, so that the noise of a short pause decides nothing."""

    def __init__(self) -> None:
        self._held, self._last = 0.0, SEPARATE

    @one_thread
    def balance(self, waves: Array) -> int:
        """waves [2, N] of the next group -> the balance at which one wave does for both, or SEPARATE."""
        (left, cross), (_, right) = np.inner(waves.astype(np.float64), waves).tolist()
        self._held = max(left + right, RELEASE * self._held)
        angle = 0.5 * math.atan2(2 * cross, left - right)  # of the line along which left and right lie
        wanted_db = 20 * math.log10(max(math.tan(angle), 1e-3)) if 0 < angle < math.pi / 2 else -math.inf
        best = round(wanted_db) + EVEN if abs(wanted_db) <= MOST_DB + 0.5 else SEPARATE
        self._last = next((choice for choice in (self._last, best) if self._fits(choice, left, cross, right)), SEPARATE)
        return self._last

    def _fits(self, balance: int, left: float, cross: float, right: float) -> bool:
        """Whether what this balance misses is weak enough."""
        if balance == SEPARATE or self._held == 0.0:
            return False
        factor = factor_of(balance)
        missed = (factor**2 * left - 2 * factor * cross + right) / (1 + factor**2)
        return missed <= 10 ** (ALIKE_DB / 10) * self._held
