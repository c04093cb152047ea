"""Kind GAUSSIAN: steps, and the width of the posterior; unsure latents give way to cheap symbols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from nacre.core.errors import BundleError
from nacre.core.types import Floats, Ints
from nacre.io.arrays import Members, read_arrays
from nacre.quantise.base import MOST_BYTES
from nacre.quantise.scalar import dequantise, quantise


@dataclass(frozen=True)
class PosteriorQuantiser:
    """steps [L, D], rate_weight [L] float32; the encoder graph gives means and log standard deviations, X = 2 D.

    A symbol k is chosen by the least (k step - mean)^2 / (2 sd^2) + rate_weight ln 2 bits(k): where the posterior
    is narrow the mean decides, where it is wide the bits do (after Yang, Bamler and Mandt, 2020).
    """

    steps: Floats
    rate_weight: Floats

    MEMBERS: ClassVar[Members] = {"steps": ("<f4", 2), "rate_weight": ("<f4", 1)}

    def __post_init__(self) -> None:
        fits = np.isfinite(self.steps).all() and (self.steps > 0).all() and np.isfinite(self.rate_weight).all()
        if not fits or self.rate_weight.shape != self.steps.shape[:1] or (self.rate_weight < 0).any():
            raise BundleError("quantiser", found=self.steps.shape, wanted="steps above 0, rate weights of 0 or more")

    @property
    def columns(self) -> int:
        """K = D."""
        return int(self.steps.shape[1])

    width_out = columns

    @property
    def width_in(self) -> int:
        """Means and log standard deviations."""
        return 2 * self.columns

    @property
    def levels(self) -> int:
        """L."""
        return len(self.steps)

    def used(self, level: int) -> int:
        """All of them."""
        return self.columns

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, 2 D] -> symbols [T, D]; the nearest ones where `costs` are not known yet."""
        mean, log_sd = latents[:, : self.columns], latents[:, self.columns :]
        steps, weight = self.steps[level], self.rate_weight[level] * np.float32(np.log(2))
        nearest = quantise(mean, steps, np.zeros_like(steps), limits)
        if costs is None or weight == 0:
            return nearest
        choices = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])  # [3, T, D]
        bits = costs[np.arange(self.columns), choices + costs.shape[1] // 2]
        away = (choices * steps - mean) * np.exp(-np.clip(log_sd, -20, 20))
        best = (away * away / 2 + weight * bits).argmin(0)
        found: Ints = np.take_along_axis(choices, best[None], 0)[0]
        return found

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """The means."""
        return latents[:, : self.columns]

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D]."""
        return dequantise(symbols, self.steps[level])

    def save(self, path: Path) -> None:
        """Write an npz."""
        np.savez_compressed(path, steps=self.steps.astype("<f4"), rate_weight=self.rate_weight.astype("<f4"))

    @classmethod
    def load(cls, path: Path) -> PosteriorQuantiser:
        """Read what `save` wrote. Raises BundleError."""
        return cls(**read_arrays(path, cls.MEMBERS, MOST_BYTES))
