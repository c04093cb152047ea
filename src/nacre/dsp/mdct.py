"""A lapped transform of the blocks of one group: the MDCT (Princen and Bradley, 1986), without overlap at its ends."""

from __future__ import annotations

import numpy as np

from nacre.core.types import Floats


class Lapped:
    """Orthogonal lapped transform of blocks of `size` samples, the blocks of one group lapping into each other."""

    def __init__(self, size: int):
        half = np.arange(size // 2)
        self.size = size
        self._cos = np.sin(np.pi / 2 * (size / 2 + half + 0.5) / size).astype(np.float32)
        self._sin = np.sin(np.pi / 2 * (size / 2 - half - 0.5) / size).astype(np.float32)
        at = np.arange(size) + 0.5
        self._cosines = (np.cos(np.pi / size * np.outer(at, at)) * np.sqrt(2 / size)).astype(np.float32)  # DCT-IV

    def forward(self, wave: Floats) -> Floats:
        """wave [N], N a multiple of the size -> coefficients [N / size, size]."""
        coefficients: Floats = self._turned(wave.reshape(-1, self.size), 1) @ self._cosines
        return coefficients

    def backward(self, coefficients: Floats) -> Floats:
        """Coefficients [B, size] -> wave [B * size]."""
        return self._turned(coefficients @ self._cosines, -1).reshape(-1)

    def _turned(self, blocks: Floats, sign: int) -> Floats:
        """Pairs of samples at equal distances from the border of two blocks, turned into each other."""
        half, turned = self.size // 2, blocks.astype(np.float32)
        before, after = blocks[:-1, : half - 1 : -1], blocks[1:, :half]  # both outwards from the border
        turned[:-1, : half - 1 : -1] = self._cos * before - sign * self._sin * after
        turned[1:, :half] = self._cos * after + sign * self._sin * before
        return turned
