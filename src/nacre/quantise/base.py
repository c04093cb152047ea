"""Latents to integer symbols and back, one class for each kind of latents.

    UniformQuantiser    SCALAR    one step and dead zone a level and dimension
    PosteriorQuantiser  GAUSSIAN  steps from the width of the posterior; unsure latents give way to cheap symbols
    ResidualQuantiser   RVQ       codebooks, each for what the ones before left over
    FiniteQuantiser     FSQ       a few values a dimension inside a bounded range

All turn latents [T, X] of the encoder graph into symbols [T, K] around 0 and those into latents [T, D] for the
decoder graph. With a dead zone z every threshold of the uniform quantiser moves outwards by z steps:

    y / step    -1.5-z     -0.5-z     0     0.5+z      1.5+z
    symbol   -2    |    -1    |       0       |     1    |    2
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import AudioError, BundleError
from nacre.core.types import Floats, Ints

MOST_BYTES = 16 << 20  # of one array in a file


class Quantiser(Protocol):
    """What the codec asks of every kind."""

    @property
    def columns(self) -> int:
        """Symbols a frame, K."""

    @property
    def width_in(self) -> int:
        """Numbers a frame the encoder graph gives, X."""

    @property
    def width_out(self) -> int:
        """Numbers a frame the decoder graph takes, D."""

    @property
    def levels(self) -> int:
        """Quality levels, L."""

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, X] -> symbols [T, K] within +-limits [K]; costs [K, A] are the bits of each symbol."""

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, K] -> latents [T, D] for the decoder graph."""

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """latents [T, X] -> latents [T, D] for the decoder graph if nothing were rounded."""

    def used(self, level: int) -> int:
        """How many of the K columns a level uses; the others are 0."""


def check_finite(latents: Floats) -> None:
    """Raise AudioError, naming the place, unless all latents [T, D] are finite."""
    if not np.isfinite(latents).all():
        frame, dim = np.argwhere(~np.isfinite(latents))[0].tolist()
        raise AudioError(
            f"latent of frame {frame}, dim {dim}",
            found=latents[frame, dim],
            wanted="a finite number",
            next="the samples or the encoder network are damaged",
        )


def check_used(used: NDArray[np.uint8], columns: int) -> None:
    """Raise BundleError unless each of `used` [L] is 1 to `columns`."""
    if not 1 <= len(used) <= 16 or not ((used >= 1) & (used <= columns)).all():
        raise BundleError("columns used at each level", found=used.tolist(), wanted=f"1 to {columns}")
