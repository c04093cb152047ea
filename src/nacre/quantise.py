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

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from nacre import npz
from nacre.blas import one_thread
from nacre.errors import AudioError, BundleError, StreamError

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MOST_BYTES = 16 << 20  # of one array in a file
MOST_CODES = (64, 4096, 64)  # codebooks, entries, dims of a code
MOST_NUMBERS = 1 << 26  # of all codes as they are added to the latents


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


@dataclass(frozen=True)
class UniformQuantiser:
    """steps, dead_zone [L, D] float32."""

    steps: Floats
    dead_zone: Floats

    @property
    def columns(self) -> int:
        """K = D."""
        return int(self.steps.shape[1])

    width_in = width_out = columns

    @property
    def levels(self) -> int:
        """L."""
        return len(self.steps)

    def used(self, level: int) -> int:
        """All of them."""
        return self.columns

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, D] -> symbols [T, D]."""
        return quantise(latents, self.steps[level], self.dead_zone[level], limits)

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """As they are."""
        return latents

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D]."""
        return dequantise(symbols, self.steps[level])


@dataclass(frozen=True)
class PosteriorQuantiser:
    """steps [L, D], rate_weight [L] float32; the encoder graph gives means and log standard deviations, X = 2 D.

    A symbol k is chosen by the least (k step - mean)^2 / (2 sd^2) + rate_weight ln 2 bits(k): where the posterior
    is narrow the mean decides, where it is wide the bits do (after Yang, Bamler and Mandt, 2020).
    """

    steps: Floats
    rate_weight: Floats

    MEMBERS: ClassVar[npz.Members] = {"steps": ("<f4", 2), "rate_weight": ("<f4", 1)}

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
        return cls(**npz.read(path, cls.MEMBERS, MOST_BYTES))


@dataclass(frozen=True)
class ResidualQuantiser:
    """codes [K, A, d] float32 in a space that inward [K, D, d] leads to and outward [K, d, D] leads back from.

    A level uses the first `books` [L] of the K codebooks. Symbol = index - A // 2 (Zeghidour et al., 2021; codes of
    few dimensions: Yu et al., 2022). A bit counts as `rate_weight` [1] of squared distance where a code is chosen, so
    that quiet frames, for which common codes do, cost less than busy ones (Chou, Lookabaugh and Gray, 1989).
    """

    codes: Floats
    inward: Floats
    outward: Floats
    books: NDArray[np.uint8]
    rate_weight: Floats

    MEMBERS: ClassVar[npz.Members] = {
        "codes": ("<f4", 3),
        "inward": ("<f4", 3),
        "outward": ("<f4", 3),
        "books": ("|u1", 1),
        "rate_weight": ("<f4", 1),
    }

    def __post_init__(self) -> None:
        count, entries, dims = self.codes.shape
        shapes = (self.inward.shape, self.outward.shape)
        if shapes != ((count, self.width_in, dims), (count, dims, self.width_in)) or entries < 2:
            raise BundleError("codebooks", found=(self.codes.shape, *shapes), wanted="[K, A, d], [K, D, d], [K, d, D]")
        if any(size > most for size, most in zip(self.codes.shape, MOST_CODES, strict=True)):
            raise BundleError("codebooks", found=self.codes.shape, wanted=f"at most {MOST_CODES}")
        if count * entries * self.width_in > MOST_NUMBERS:
            found = f"{self.codes.shape} for {self.width_in} dims"
            raise BundleError("codebooks", found=found, wanted=f"at most {MOST_NUMBERS} numbers")
        if not all(np.isfinite(array).all() for array in (self.codes, self.inward, self.outward)):
            raise BundleError("codebooks", found="NaN or infinite codes", wanted="finite numbers")
        if self.rate_weight.shape != (1,) or not 0 <= self.rate_weight[0] < np.inf:
            raise BundleError("codebooks: rate_weight", found=self.rate_weight, wanted="a number, 0 or more")
        _check_used(self.books, count)

    @property
    def columns(self) -> int:
        """Codebooks."""
        return len(self.codes)

    @property
    def width_in(self) -> int:
        """D."""
        return int(self.inward.shape[1])

    width_out = width_in

    @property
    def levels(self) -> int:
        """L."""
        return len(self.books)

    @cached_property
    def _vectors(self) -> Floats:
        """[K, A, D]: every code as it is added to the latents."""
        return self.codes @ self.outward

    def used(self, level: int) -> int:
        """Codebooks of a level."""
        return int(self.books[level])

    @one_thread
    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, D] -> symbols [T, K], in every codebook the code nearest to what is left, for its bits."""
        _check_finite(latents)
        found = np.zeros((len(latents), self.columns), np.int32)
        left, weight = latents, self.rate_weight[0]
        for book in range(self.used(level)):
            codes = self.codes[book]
            against = 0.5 * np.square(codes).sum(1)  # [A]
            if costs is not None and weight:
                against = against + 0.5 * weight * costs[book, : len(codes)]
            near = (left @ self.inward[book]) @ codes.T - against  # [T, A]
            index = near.argmax(1)
            left = left - self._vectors[book, index]
            found[:, book] = index - len(codes) // 2
        return found

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """As they are."""
        return latents

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, K] -> latents [T, D]: the sum of the codes."""
        total = np.zeros((len(symbols), self.width_out), np.float32)
        for book in range(self.used(level)):
            total += self._vectors[book, symbols[:, book] + self.codes.shape[1] // 2]
        return total

    def save(self, path: Path) -> None:
        """Write an npz."""
        arrays = {name: getattr(self, name).astype(form) for name, (form, _) in self.MEMBERS.items()}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> ResidualQuantiser:
        """Read what `save` wrote. Raises BundleError."""
        return cls(**npz.read(path, cls.MEMBERS, MOST_BYTES))


@dataclass(frozen=True)
class FiniteQuantiser:
    """Symbols -n..n in each of D dimensions, of latents squashed into that range; no codebook to learn.

    A level uses the first `dims` [L] dimensions (finite scalar quantisation: Mentzer et al., 2023).
    """

    reach: int
    width_in: int
    dims: NDArray[np.uint8]

    MEMBERS: ClassVar[npz.Members] = {"sizes": ("<u2", 1), "dims": ("|u1", 1)}

    def __post_init__(self) -> None:
        if not 1 <= self.reach <= 127 or not 1 <= self.width_in <= 255:
            raise BundleError("quantiser", found=(self.reach, self.width_in), wanted="reach 1 to 127, 1 to 255 dims")
        _check_used(self.dims, self.width_in)

    @property
    def columns(self) -> int:
        """K = D."""
        return self.width_in

    width_out = columns

    @property
    def levels(self) -> int:
        """L."""
        return len(self.dims)

    def used(self, level: int) -> int:
        """Dimensions of a level."""
        return int(self.dims[level])

    def symbols(self, latents: Floats, level: int, limits: Ints, costs: Floats | None = None) -> Ints:
        """latents [T, D] -> symbols [T, D]."""
        _check_finite(latents)
        scaled = np.round(self.reach * self.unrounded(latents, level))
        symbols: Ints = np.clip(scaled, -limits, limits).astype(np.int32)
        return symbols

    def unrounded(self, latents: Floats, level: int) -> Floats:
        """Squashed into -1..1, 0 in the dimensions that the level does not use."""
        squashed: Floats = np.tanh(latents)
        squashed[:, self.used(level) :] = 0
        return squashed

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, D] -> latents [T, D] within -1..1."""
        return symbols.astype(np.float32) / np.float32(self.reach)

    def save(self, path: Path) -> None:
        """Write an npz."""
        np.savez_compressed(path, sizes=np.array([self.reach, self.width_in], "<u2"), dims=self.dims.astype("u1"))

    @classmethod
    def load(cls, path: Path) -> FiniteQuantiser:
        """Read what `save` wrote. Raises BundleError."""
        found = npz.read(path, cls.MEMBERS, MOST_BYTES)
        if found["sizes"].shape != (2,):
            raise BundleError(f"{path}: sizes", found=found["sizes"].shape, wanted="two numbers")
        return cls(int(found["sizes"][0]), int(found["sizes"][1]), found["dims"])


def quantise(latents: Floats, steps: Floats, dead_zone: Floats, limits: Ints) -> Ints:
    """[T, D] float32 to [T, D] int32 within +-limits; steps, dead_zone (0 to below 0.5) and limits are [D].

    >>> one = np.ones(1, np.float32)
    >>> quantise(np.float32([[0.6], [0.9], [-1.8], [9.0]]), one, 0.2 * one, np.int32([3])).ravel().tolist()
    [0, 1, -2, 3]
    """
    _check_steps(latents, steps)
    _check_settings(steps, dead_zone, limits)
    _check_finite(latents)
    scaled = latents / steps
    size = np.floor(np.abs(scaled) + (np.float32(0.5) - dead_zone))
    # clipped while still float: a huge value must not wrap around on its way to int32
    symbols: Ints = np.copysign(np.minimum(size, limits.astype(np.float32)), scaled).astype(np.int32)
    return symbols


def dequantise(symbols: Ints, steps: Floats) -> Floats:
    """[T, D] int32 back to [T, D] float32 latents, each within one step of what came in unless it was clipped."""
    _check_steps(symbols, steps)
    return symbols.astype(np.float32) * steps.astype(np.float32)


def _check_finite(latents: Floats) -> None:
    if not np.isfinite(latents).all():
        frame, dim = np.argwhere(~np.isfinite(latents))[0].tolist()
        raise AudioError(
            f"latent of frame {frame}, dim {dim}",
            found=latents[frame, dim],
            wanted="a finite number",
            next="the samples or the encoder network are damaged",
        )


def _check_steps(values: NDArray[Any], steps: Floats) -> None:
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


def _check_used(used: NDArray[np.uint8], columns: int) -> None:
    if not 1 <= len(used) <= 16 or not ((used >= 1) & (used <= columns)).all():
        raise BundleError("columns used at each level", found=used.tolist(), wanted=f"1 to {columns}")
