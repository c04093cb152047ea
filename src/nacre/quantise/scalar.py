"""Kind SCALAR: one step and dead zone for each level and dimension.

With a dead zone z every threshold moves outwards by z steps:

    y / step    -1.5-z     -0.5-z     0     0.5+z      1.5+z
    symbol   -2    |    -1    |       0       |     1    |    2
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError, StreamError
from nacre.core.types import Floats, Ints
from nacre.quantise.base import Quantiser, check_finite


@dataclass(frozen=True)
class ScalarQuantiser(Quantiser):
    """steps, dead_zone [L, D] float32; both stand in model.json."""

    steps: Floats
    dead_zone: Floats

    code, name, parts = 1, "scalar", ()

    def __post_init__(self) -> None:
        steps, zones = self.steps, self.dead_zone
        fits = steps.ndim == 2 and steps.shape == zones.shape and np.isfinite(steps).all()
        if not fits or not ((steps > 0) & (zones >= 0) & (zones < 0.5)).all():
            rule = "steps above 0 and dead zones from 0 to below 0.5, both [L, D]"
            raise BundleError(f"a scalar quantiser needs {rule}, not shapes {steps.shape} and {zones.shape}")

    @property
    def columns(self) -> int:
        """K = D."""
        return int(self.steps.shape[1])

    width_in = width_out = columns

    @property
    def levels(self) -> int:
        """L."""
        return len(self.steps)

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, D] -> symbols [T, D]."""
        return quantise(latents, self.steps[level], self.dead_zone[level], limits)

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D]."""
        return dequantise(symbols, self.steps[level])

    @property
    def scales(self) -> Floats:
        """The steps."""
        return self.steps

    def save(self, folder: Path) -> dict[str, Any]:
        """Facts for model.json, steps with six digits; there is no file."""
        return {"steps": six_digits(self.steps), "dead_zone": self.dead_zone[:, 0].tolist()}

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> ScalarQuantiser:
        """From the facts of a model.json, where a level has one dead zone for all dimensions. Raises BundleError."""
        try:
            steps = np.asarray(facts["steps"], np.float32)
            zones = np.asarray(facts["dead_zone"], np.float32)[:, None]
            return cls(steps, np.ascontiguousarray(np.broadcast_to(zones, steps.shape)))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            rule = "a step for each level and dimension and a dead_zone for each level"
            raise BundleError(f"{folder}/model.json must have {rule} ({repr(error)[:80]})") from error

    @classmethod
    def meaning(cls, facts: dict[str, Any]) -> Any:
        """The steps."""
        return facts["steps"]


def six_digits(steps: Floats) -> list[list[float]]:
    """steps [L, D] as a model.json holds them."""
    return [[float(f"{value:.6g}") for value in row] for row in steps.tolist()]


def quantise(latents: Floats, steps: Floats, dead_zone: Floats, limits: Ints) -> Ints:
    """[T, D] float32 to [T, D] int32 within +-limits; steps, dead_zone (0 to below 0.5) and limits are [D].

    >>> one = np.ones(1, np.float32)
    >>> quantise(np.float32([[0.6], [0.9], [-1.8], [9.0]]), one, 0.2 * one, np.int32([3])).ravel().tolist()
    [0, 1, -2, 3]
    """
    _check_steps(latents, steps)
    _check_settings(steps, dead_zone, limits)
    check_finite(latents)
    scaled = latents / steps
    size = np.floor(np.abs(scaled) + (np.float32(0.5) - dead_zone))
    # clipped while still float: a huge value must not wrap around on its way to int32
    symbols: Ints = np.copysign(np.minimum(size, limits.astype(np.float32)), scaled).astype(np.int32)
    return symbols


def dequantise(symbols: Ints, steps: Floats) -> Floats:
    """[T, D] int32 back to [T, D] float32 latents, each within one step of what came in unless it was clipped."""
    _check_steps(symbols, steps)
    return symbols.astype(np.float32) * steps.astype(np.float32)


def _check_steps(values: NDArray[Any], steps: Floats) -> None:
    if values.ndim != 2 or steps.shape != values.shape[1:]:
        raise StreamError(f"values and steps must have shapes [T, D] and [D], not {values.shape} and {steps.shape}")


def _check_settings(steps: Floats, dead_zone: Floats, limits: Ints) -> None:
    if not dead_zone.shape == limits.shape == steps.shape:
        given = f"{dead_zone.shape} and {limits.shape}"
        raise BundleError(f"dead_zone and limits must have the shape of steps, {steps.shape}, not {given}")
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise BundleError(f"quantiser steps must be finite and above 0, not {steps.min(initial=np.inf)}")
    if not ((dead_zone >= 0) & (dead_zone < 0.5)).all():
        raise BundleError(f"dead_zone must be from 0 to below 0.5, not {dead_zone.min()} to {dead_zone.max()}")
    if (limits < 0).any() or (limits > 32767).any():
        raise BundleError(f"symbol limits must be 0 to 32767, not {limits.min()} to {limits.max()}")
