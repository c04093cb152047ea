"""A group of music: coefficients to symbols, and symbols to coefficients.

coefficients [C, T, FRAME] -> turned -> levels -> steps -> values      and back, with noise where a value is 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nacre.core.types import Array, Floats, Ints
from nacre.dsp.blocks import FRAME, SPLITS, uniform
from nacre.music import shape
from nacre.music.shape import BAND_OF, CODED, EDGES, PARTS, SILENT, TOP, WIDTHS
from nacre.music.stereo import angles_of, turned
from nacre.music.symbols import HALVES, LARGEST, GroupSymbols

ROUNDING = 0.4  # added to a size before it is cut: less than half, since a smaller value costs less
PRICES = np.array((1.0, 1.04, 1.06, 1.08))  # of each split: a whole frame unless another one is clearly cheaper
MASKED = 0.1  # of a band's power: what a split is judged by
FILLED = 0.15  # of a step: noise beside values is no larger, since what is missing there is not
NOISE_LENGTH = 1 << 16
SEED = 48
APART = 7919  # where in it the noise of the next frame begins: a prime


@dataclass(frozen=True, eq=False)
class Analysed:
    """A group before it is quantised: coefficients [C, T, FRAME], turned, and all symbols but values."""

    coefficients: Floats
    splits: Ints
    shares: Ints
    angles: Ints
    levels: Ints


def splits_of(wave: Floats) -> Ints:
    """wave [C, T * FRAME] -> how each frame is best split [T]: where its values cost the least bits, about."""
    whole = uniform(wave, 0)
    powers = np.maximum(shape.mean_squares(whole), shape.level_powers(np.array(1)))
    step = np.sqrt(MASKED * powers)[..., BAND_OF]
    costs = []
    for split in range(SPLITS):
        blocks = whole if split == 0 else uniform(wave, split)
        costs.append(np.log2(1 + np.abs(blocks[..., :TOP]) / step).sum((0, 2)))
    splits: Ints = (np.array(costs) * PRICES[:, None]).argmin(0).astype(np.int32)
    return splits


def analyse(coefficients: Floats, splits: Ints) -> Analysed:
    """coefficients [C, T, FRAME] of frames split so."""
    angles = np.zeros((HALVES, shape.BANDS), np.int32)
    if len(coefficients) == 2:
        angles = angles_of(coefficients)
        coefficients = turned(coefficients, angles)
    levels = shape.levels_of(shape.mean_squares(coefficients))
    return Analysed(coefficients, splits, shares_of(coefficients, splits), angles, levels)


def shares_of(coefficients: Floats, splits: Ints) -> Ints:
    """How the power of split frames lies in time, all channels and bands alike [T, PARTS]: 0 is the loudest block."""
    shares = np.zeros((len(splits), PARTS), np.int32)
    for frame in np.flatnonzero(splits):
        blocks = 1 << int(splits[frame])
        power = np.square(coefficients[:, frame, :TOP]).reshape(len(coefficients), -1, blocks).sum((0, 1)) + 1e-12
        below = np.rint(10 * np.log10(power.max() / power) / shape.LEVEL_DB)
        shares[frame] = np.repeat(np.minimum(below, SILENT - 1).astype(np.int32), PARTS // blocks)
    return shares


def quantised(group: Analysed, fineness: int) -> GroupSymbols:
    """All symbols of a group at this fineness, 0 the finest."""
    splits = group.splits.tolist()
    steps, ratios = shape.steps_of(group.levels, group.shares, splits, fineness)
    scaled = group.coefficients[..., :TOP] / shape.step_sizes(steps)[:, BAND_OF]
    coded = shape.spread(ratios, splits) >= CODED
    values = np.where(coded, np.floor(np.abs(scaled) + ROUNDING), 0)
    values = np.copysign(np.minimum(values, LARGEST), scaled).astype(np.int32)
    return GroupSymbols(group.splits, group.shares, group.angles, group.levels, values)


def rebuilt(symbols: GroupSymbols, fineness: int, first_frame: int) -> Floats:
    """Coefficients [C, T, FRAME] of a group whose first frame has this number in its file."""
    splits = symbols.splits.tolist()
    steps, _ = shape.steps_of(symbols.levels, symbols.shares, splits, fineness)
    sizes = shape.step_sizes(steps)[:, BAND_OF]  # [T, TOP]
    coefficients = np.zeros((*symbols.values.shape[:2], FRAME), np.float32)
    coefficients[..., :TOP] = symbols.values * sizes + _noise_fill(symbols, sizes, splits, first_frame)
    return turned(coefficients, symbols.angles, -1) if len(coefficients) == 2 else coefficients


def _noise_fill(symbols: GroupSymbols, sizes: Floats, splits: Sequence[int], first_frame: int) -> Floats:
    """Noise [C, T, TOP] where values are 0: what of a band's power the others leave."""
    values, empty = symbols.values, symbols.values == 0
    sent = np.add.reduceat(np.square(values * sizes), EDGES[:-1], axis=-1)
    free = np.add.reduceat(empty, EDGES[:-1], axis=-1)
    left = np.maximum(shape.level_powers(symbols.levels) * WIDTHS - sent, 0) / np.maximum(free, 1)
    powers = left[..., None] * shape.part_powers(symbols.shares, splits)[:, None]  # [C, T, B, PARTS]
    most = np.where(free < WIDTHS, np.float32(FILLED), np.float32(np.inf))[..., BAND_OF]
    amplitude = np.minimum(np.sqrt(shape.spread(powers, splits)), most * sizes)
    noise: Floats = np.where(empty, amplitude * _noise(values.shape, first_frame), 0).astype(np.float32)
    return noise


def _noise(size: Sequence[int], first_frame: int) -> Floats:
    """Noise [C, T, TOP] of unit power; every frame and channel has its own, in the same way each time."""
    cycle, (channels, frames, _) = _noise_cycle(), size
    number = (first_frame + np.arange(frames)) * channels + np.arange(channels)[:, None]
    start = number * APART % (NOISE_LENGTH - TOP)
    noise: Floats = cycle[start[..., None] + np.arange(TOP)]
    return noise


@lru_cache(maxsize=1)
def _noise_cycle() -> Array:
    return np.random.Generator(np.random.Philox(SEED)).standard_normal(NOISE_LENGTH, np.float32)
