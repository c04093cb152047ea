"""A constant offset is no sound, but the networks would spend bits on it and gains would follow it: it is taken out.

The offset is the running mean over the first second and follows slowly from then on, so that streams need no look
ahead. Within a hop it moves in a straight line. A hop of silence holds nothing else, so it shows the offset at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.core.types import Array
from nacre.dsp.gain import SILENCE_PEAK

SPAN_HOPS = 50  # hops that the mean goes over: at 20 ms a second, far below any voice


@dataclass(frozen=True)
class OffsetState:
    """The offset so far, and how many hops it is the mean of, at most SPAN_HOPS."""

    offset: float = 0.0
    hops: int = 0


def without_offset(state: OffsetState, wave: Array, hop_samples: int) -> tuple[Array, OffsetState]:
    """wave [N] float32, N a multiple of the hop -> the same without its offset, and the state behind it.

    >>> silence, _ = without_offset(OffsetState(), np.full(640, 0.1, np.float32), 320)
    >>> float(np.abs(silence).max())
    0.0
    """
    hops = wave.reshape(-1, hop_samples)
    offset, count, starts, ends = state.offset, state.hops, [], []
    for mean, still in zip(hops.mean(1, dtype=np.float64).tolist(), np.ptp(hops, 1) < SILENCE_PEAK, strict=True):
        count = min(count + 1, SPAN_HOPS)
        starts.append(mean if still or count == 1 else offset)
        offset = mean if still else offset + (mean - offset) / count
        ends.append(offset)
    share = np.arange(hop_samples) / hop_samples
    line = np.array(starts)[:, None] + np.subtract(ends, starts)[:, None] * share
    level: Array = (hops - line).astype(np.float32).reshape(-1)
    return level, OffsetState(offset, count)
