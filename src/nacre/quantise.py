"""Latents to integer symbols and back: one uniform step, dead zone and limit per latent dimension.

With z = dead_zone every threshold moves outwards by z steps, so values lean towards 0, where bits are cheap:

    y / step    -1.5-z     -0.5-z     0     0.5+z      1.5+z
    symbol   -2    |    -1    |       0       |     1    |    2
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nacre.errors import AudioError, BundleError, StreamError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def quantise(latents: Floats, steps: Floats, dead_zone: Floats, limits: Ints) -> Ints:
    """[T, D] float32 to [T, D] int32 within +-limits; steps, dead_zone (0 to below 0.5) and limits are [D].

    >>> one = np.ones(1, np.float32)
    >>> quantise(np.float32([[0.6], [0.9], [-1.8], [9.0]]), one, 0.2 * one, np.int32([3])).ravel().tolist()
    [0, 1, -2, 3]
    """
    _check_steps(latents, steps)
    _check_settings(steps, dead_zone, limits)
    if not np.isfinite(latents).all():
        frame, dim = np.argwhere(~np.isfinite(latents))[0].tolist()
        raise AudioError(
            f"latent of frame {frame}, dim {dim}",
            found=latents[frame, dim],
            wanted="a finite number",
            next="the samples or the encoder network are damaged",
        )
    scaled = latents / steps
    size = np.floor(np.abs(scaled) + (np.float32(0.5) - dead_zone))
    # clipped while still float: a huge value must not wrap around on its way to int32
    symbols: Ints = np.copysign(np.minimum(size, limits.astype(np.float32)), scaled).astype(np.int32)
    return symbols


def dequantise(symbols: Ints, steps: Floats) -> Floats:
    """[T, D] int32 back to [T, D] float32 latents, each within one step of what came in unless it was clipped."""
    _check_steps(symbols, steps)
    return symbols.astype(np.float32) * steps.astype(np.float32)


def _check_steps(values: NDArray[np.generic], steps: Floats) -> None:
    if values.ndim != 2 or steps.shape != values.shape[1:]:
        raise StreamError("values, steps", found=(values.shape, steps.shape), wanted="[T, D] and [D]")


def _check_settings(steps: Floats, dead_zone: Floats, limits: Ints) -> None:
    if not dead_zone.shape == limits.shape == steps.shape:
        raise BundleError("dead_zone, limits", found=(dead_zone.shape, limits.shape), wanted=steps.shape)
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise BundleError("quantiser steps", found=steps.min(initial=np.inf), wanted="finite numbers above 0")
    if not ((dead_zone >= 0) & (dead_zone < 0.5)).all():
        raise BundleError("dead_zone", found=dead_zone.max(), wanted="0 to below 0.5")
    if (limits < 0).any() or (limits > 32767).any():
        raise BundleError("symbol limits", found=(limits.min(), limits.max()), wanted="0 to 32767")
