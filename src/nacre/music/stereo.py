"""Two channels turned, band by band, so that the first holds as much as it can and the second what is left.

The Karhunen-Loeve transform of a pair is a turn by an angle. A group says one for each band of each of its halves.
"""

from __future__ import annotations

import numpy as np

from nacre.core.types import Array, Floats, Ints
from nacre.music.shape import BAND_OF, BANDS, EDGES, TOP
from nacre.music.symbols import ANGLES, HALVES

MIDDLE = ANGLES // 4  # both channels alike; of bands without sound


def angles_of(coefficients: Floats) -> Ints:
    """coefficients [2, T, FRAME] -> angles [HALVES, BANDS] in steps of a half turn over ANGLES."""
    angles = np.full((HALVES, BANDS), MIDDLE, np.int32)
    for half, part in zip(angles, np.array_split(coefficients[..., :TOP], HALVES, axis=1), strict=True):
        left, right = part.astype(np.float64)
        products = (left * left - right * right, 2 * left * right)
        apart, alike = (np.add.reduceat(product.sum(0), EDGES[:-1]) for product in products)
        angle = np.rint(np.arctan2(alike, apart) / 2 / np.pi * ANGLES).astype(np.int32) % ANGLES
        half[:] = np.where(np.abs(alike) + np.abs(apart) > 0, angle, MIDDLE)
    return angles


def turned(coefficients: Floats, angles: Ints, sign: int = 1) -> Floats:
    """coefficients [2, T, FRAME] turned by angles [HALVES, BANDS]; sign -1 undoes it."""
    cos, sin = _factors(angles, coefficients.shape[1])
    left, right = coefficients[0, :, :TOP], coefficients[1, :, :TOP]
    out = np.zeros_like(coefficients)
    out[0, :, :TOP] = cos * left + sign * sin * right
    out[1, :, :TOP] = cos * right - sign * sin * left
    return out


def _factors(angles: Ints, frames: int) -> tuple[Array, Array]:
    halves = np.array_split(np.arange(frames), HALVES)
    radians = np.concatenate(
        [np.tile(angle[BAND_OF], (len(part), 1)) for angle, part in zip(angles, halves, strict=True)]
    )
    radians = radians * (np.pi / ANGLES)
    return np.cos(radians).astype(np.float32), np.sin(radians).astype(np.float32)
