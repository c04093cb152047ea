"""Kind GAUSSIAN: steps, and the width of the posterior; unsure latents give way to cheap symbols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nacre.core.errors import BundleError
from nacre.core.types import Floats, Ints
from nacre.io.arrays import Members, read_arrays, write_arrays
from nacre.quantise.base import FILE, MOST_BYTES, Quantiser
from nacre.quantise.scalar import dequantise, quantise


@dataclass(frozen=True)
class GaussianQuantiser(Quantiser):
    """steps [L, D], rate_weight [L] float32; the encoder graph gives means and log standard deviations, X = 2 D.

    A symbol k is chosen by the least (k step - mean)^2 / (2 sd^2) + rate_weight ln 2 bits(k): where the posterior
    is narrow the mean decides, where it is wide the bits do (after Yang, Bamler and Mandt, 2020).
    """

    steps: Floats
    rate_weight: Floats

    code, name = 2, "gaussian"
    MEMBERS: ClassVar[Members] = {"steps": ("<f4", 2), "rate_weight": ("<f4", 1)}

    def __post_init__(self) -> None:
        fits = np.isfinite(self.steps).all() and (self.steps > 0).all() and np.isfinite(self.rate_weight).all()
        if not fits or self.rate_weight.shape != self.steps.shape[:1] or (self.rate_weight < 0).any():
            raise BundleError("a Gaussian quantiser needs steps above 0, and for each level a rate weight of 0 or more")

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
        symbols: Ints = np.take_along_axis(choices, best[None], 0)[0]
        return symbols

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """The means."""
        return latents[:, : self.columns]

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D]."""
        return dequantise(symbols, self.steps[level])

    @property
    def counts_bits(self) -> bool:
        """Whether a bit has a weight at any level."""
        return bool(self.rate_weight.any())

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays, see `io.arrays`."""
        write_arrays(
            folder / FILE, {name: getattr(self, name).astype(form) for name, (form, _) in self.MEMBERS.items()}
        )
        return {}

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> GaussianQuantiser:
        """Read what `save` wrote. Raises BundleError."""
        return cls(**read_arrays(folder / FILE, cls.MEMBERS, MOST_BYTES))
