"""Kind RVQ: codebooks, each for what the ones before left over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError
from nacre.core.types import Floats, Ints
from nacre.dsp.blas import one_thread
from nacre.io.arrays import Members, read_arrays, write_arrays
from nacre.quantise.base import FILE, MOST_BYTES, Quantiser, check_finite, check_used

MOST_CODES = (64, 4096, 64)  # codebooks, entries, dims of a code
MOST_NUMBERS = 1 << 26  # of all codes as they are added to the latents


@dataclass(frozen=True)
class ResidualVQ(Quantiser):
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

    code, name, ordered = 3, "rvq", False
    MEMBERS: ClassVar[Members] = {
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
            given = ", ".join(map(str, (self.codes.shape, *shapes)))
            raise BundleError(f"codebooks must have the shapes [K, A, d], [K, D, d], [K, d, D], A above 1, not {given}")
        if any(size > most for size, most in zip(self.codes.shape, MOST_CODES, strict=True)):
            raise BundleError(f"codebooks must have sizes up to {MOST_CODES}, not {self.codes.shape}")
        if count * entries * self.width_in > MOST_NUMBERS:
            given = f"{self.codes.shape} for {self.width_in} dims"
            raise BundleError(f"codebooks {given} are too large, with more than {MOST_NUMBERS} numbers")
        if not all(np.isfinite(array).all() for array in (self.codes, self.inward, self.outward)):
            raise BundleError("codebooks hold NaN or infinite codes; copy the model again")
        if self.rate_weight.shape != (1,) or not 0 <= self.rate_weight[0] < np.inf:
            raise BundleError(f"the codebooks' rate_weight must be one number of 0 or more, not {self.rate_weight}")
        check_used(self.books, count)

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
        check_finite(latents)
        symbols = np.zeros((len(latents), self.columns), np.int32)
        left, weight = latents, self.rate_weight[0]
        for book in range(self.used(level)):
            codes = self.codes[book]
            against = 0.5 * np.square(codes).sum(1)  # [A]
            if costs is not None and weight:
                against = against + 0.5 * weight * costs[book, : len(codes)]
            near = (left @ self.inward[book]) @ codes.T - against  # [T, A]
            index = near.argmax(1)
            left = left - self._vectors[book, index]
            symbols[:, book] = index - len(codes) // 2
        return symbols

    def latents(self, symbols: Ints, level: int) -> Floats:
        """symbols [T, K] -> latents [T, D]: the sum of the codes."""
        total = np.zeros((len(symbols), self.width_out), np.float32)
        for book in range(self.used(level)):
            total += self._vectors[book, symbols[:, book] + self.codes.shape[1] // 2]
        return total

    @property
    def entries(self) -> int:
        """Codes of a book, A."""
        return int(self.codes.shape[1])

    @property
    def counts_bits(self) -> bool:
        """Whether a bit has a weight."""
        return bool(self.rate_weight.any())

    def use(self, tokens: Ints) -> dict[str, Any]:
        """The share of each codebook's entries that are seen, and perplexities [K]."""
        shares = [np.bincount(column, minlength=self.entries) / len(tokens) for column in tokens.T]
        perplexity = [float(2 ** -(share[share > 0] * np.log2(share[share > 0])).sum()) for share in shares]
        used = [round(float((share > 0).mean()), 4) for share in shares]
        perplexity = [round(value, 1) for value in perplexity]
        return {"codebooks": {"entries": self.entries, "used": used, "perplexity": perplexity}}

    def check_tables(self, counts: Ints) -> None:
        """Every code of every book that a level uses has a count, and nothing else has one."""
        entries = self.entries
        used = [counts[level, : self.used(level), :entries] for level in range(self.levels)]
        outside = counts.shape[2] != 2 * (entries // 2) + 1 or counts[..., entries:].any()
        if outside or not all((table > 0).all() for table in used):
            raise BundleError(f"prior tables must have a code for each of {entries} entries, and for no other")

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays, see `io.arrays`."""
        write_arrays(
            folder / FILE, {name: getattr(self, name).astype(form) for name, (form, _) in self.MEMBERS.items()}
        )
        return {}

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> ResidualVQ:
        """Read what `save` wrote. Raises BundleError."""
        return cls(**read_arrays(folder / FILE, cls.MEMBERS, MOST_BYTES))
