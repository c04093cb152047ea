"""The shape of a group: how loud each band of each frame is, and from it, by integers alone, how finely it is coded.

levels [C, T, B] in 3 dB, splits [T], shares in time [T, 8] --> steps [T, B] in 1.5 dB, ratios [C, T, B, 8]

A step follows half the band's level, of both channels together, so that noise lies under the sound and loud bands take
more bits; louder neighbours cover a band. The ratio of a band's level to its step says which coefficients are worth
coding, and is what their probabilities go by. Where it is too low, or a symbol is 0, noise of the band's level remains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nacre.core.types import Array, Floats, Ints
from nacre.dsp.blocks import FRAME

RATE_HZ = 48_000
EDGES = np.array(
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)
    + (320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1704)
)  # of bands, in coefficients of a whole frame; 20 kHz is the end
WIDTHS = np.diff(EDGES)
BANDS, TOP = len(WIDTHS), int(EDGES[-1])
BAND_OF = np.repeat(np.arange(BANDS), WIDTHS)  # [TOP]
LEVELS, BASE_DB, LEVEL_DB = 40, -102.0, 3.0  # level n is a mean square of BASE_DB + n * LEVEL_DB; 0 is nothing
STEPS, STEP_DB = 64, 1.5  # step n is a square of BASE_DB + n * STEP_DB
BELOW, ABOVE = 5, 8  # levels by which a band covers the next one up, and the next one down
CODED = -8  # ratio, in 1.5 dB, from which a band is coded at all
LARGEST_RATIO = 31  # a symbol stays below 256: 48 dB, less what a level is rounded by
PARTS = 8  # of a split frame, in time
SILENT = 12  # shares in time are 0 to 11, in 3 dB below the loudest
_TILT_DB = np.log2((EDGES[:-1] + EDGES[1:]) / 4 * RATE_HZ / FRAME / 1000 + 0.3)  # a dB an octave
TILT = np.rint(_TILT_DB / STEP_DB).astype(np.int32)  # [B] steps grow a little with frequency
_NARROW = np.rint(10 * np.log10(WIDTHS) / STEP_DB).astype(np.int32)


def steps_of(levels: Ints, shares: Ints, splits: Sequence[int], fineness: int) -> tuple[Ints, Ints]:
    """levels [C, T, B], shares [T, PARTS] -> (steps [T, B], ratios [C, T, B, PARTS], part by part).

    `fineness` 0 is the finest. Blocks of a frame that is split into fewer than PARTS stand in several of them.
    """
    joint = levels.max(0)
    if len(levels) > 1:
        joint = joint + (levels[0] == levels[1]) * (joint > 0)
    covered = joint.copy()
    covered[:, 1:] = np.maximum(covered[:, 1:], joint[:, :-1] - BELOW)
    covered[:, :-1] = np.maximum(covered[:, :-1], joint[:, 1:] - ABOVE)
    rise = _parts(shares, splits)
    loudest = 2 * (levels.max(0) + rise.max(1)[:, None])
    steps = np.maximum(covered + TILT + fineness, loudest + _NARROW - LARGEST_RATIO).astype(np.int32)
    parts = 2 * (levels[..., None] + rise[:, None])  # [C, T, B, PARTS]
    ratios = np.where(levels[..., None] > 0, parts - steps[..., None], CODED - 1).astype(np.int32)
    return steps, ratios


def _parts(shares: Ints, splits: Sequence[int]) -> Ints:
    """Levels [T, PARTS] of each part over the frame's mean, rounded: their powers have a mean of 1."""
    power = 2.0 ** -shares.astype(np.float64)  # exact, and so are sums and quotients of them up to the rounding below
    mean = power.sum(1, keepdims=True) / PARTS
    _, whole = np.frexp(mean)  # mean in [2 ** (whole - 1), 2 ** whole)
    levels: Ints = np.where(np.array(splits)[:, None] > 0, -shares - whole + 1, 0).astype(np.int32)
    return levels


def part_powers(shares: Ints, splits: Sequence[int]) -> Floats:
    """Powers [T, PARTS] of the parts of each frame over its mean."""
    power: Array = 10 ** (-LEVEL_DB / 10 * shares)
    even = power / power.mean(1, keepdims=True)
    powers: Floats = np.where(np.array(splits)[:, None] > 0, even, 1.0).astype(np.float32)
    return powers


def spread(parts: Array, splits: Sequence[int]) -> Array:
    """Values of bands and parts [..., T, B, PARTS] for each coefficient [..., T, TOP]."""
    return np.stack([parts[..., t, :, :][..., BAND_OF, places(split)] for t, split in enumerate(splits)], -2)


def places(split: int) -> Array:
    """Which part [TOP] a coefficient of a frame with this split lies in: the first of those its block stands in."""
    blocks = 1 << split
    parts: Array = np.arange(TOP) % blocks * (PARTS // blocks)
    return parts


def mean_squares(coefficients: Floats) -> Floats:
    """coefficients [C, T, FRAME] -> mean square of each band [C, T, B]."""
    squares: Floats = np.add.reduceat(np.square(coefficients[..., :TOP]), EDGES[:-1], axis=-1)
    squares /= WIDTHS.astype(np.float32)
    return squares


def levels_of(powers: Floats) -> Ints:
    """Mean squares as levels."""
    steps = np.rint((10 * np.log10(powers + 1e-20) - BASE_DB) / LEVEL_DB)
    levels: Ints = np.clip(steps, 0, LEVELS - 1).astype(np.int32)
    return levels


def level_powers(levels: Ints) -> Floats:
    """The mean squares that levels stand for; 0 for level 0."""
    powers: Floats = np.where(levels > 0, 10 ** ((BASE_DB + LEVEL_DB * levels) / 10), 0).astype(np.float32)
    return powers


def step_sizes(steps: Ints) -> Floats:
    """Steps as amplitudes."""
    sizes: Floats = (10 ** ((BASE_DB + STEP_DB * steps) / 20)).astype(np.float32)
    return sizes
