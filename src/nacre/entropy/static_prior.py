"""Static prior: integer count tables per quality level and latent dimension, fitted to symbols seen in training.

A table is one row of the alphabet -M..M (index = symbol + M) that sums to TOTAL. Its support is the run of
counts above 0; it holds symbol 0. What the decoder needs is these integers alone.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError, StreamError
from nacre.core.types import Ints, Shares
from nacre.entropy.symbols import SymbolRequest
from nacre.io.arrays import read_arrays, write_arrays

TOTAL = 1 << 16
PSEUDO_SAMPLES = 32.0  # weight of the Laplace-like shape beside the data; 8 costs more below 1000 samples
MOST = (16, 1024, 4097)  # levels, columns, alphabet a prior may have
MOST_COUNTS = 16 * 1024 * 511  # and all together: bounds what a file can make us read
MEMBERS = {"alphabet": ("<u2", 1), "below": ("|u1 <u2", 2), "above": ("|u1 <u2", 2), "inside": ("<u2", 1)}

Counts = NDArray[np.integer[Any]]


def fit_counts(histogram: NDArray[np.int64]) -> Ints:
    """[A] int64 times each symbol was seen, A odd, to [A] int32 counts that sum to TOTAL.

    The support is +-(largest size seen + 1). A dimension that was 0 in TOTAL samples or more gets symbol 0
    only, and costs no bits.

    >>> fit_counts(np.array([0, 0, 0, 5, 60, 5, 0, 0, 0])).tolist()
    [0, 0, 103, 4555, 56220, 4555, 103, 0, 0]
    """
    if histogram.ndim != 1 or len(histogram) % 2 == 0 or (histogram < 0).any():
        raise BundleError(f"a histogram must be one odd row of counts, none below 0, not shape {histogram.shape}")
    reach = len(histogram) // 2
    sizes = np.abs(np.arange(-reach, reach + 1))  # [A]
    seen, samples = int((sizes * (histogram > 0)).max()), int(histogram.sum())
    top = 0 if seen == 0 and samples >= TOTAL else min(seen + 1, reach)
    inside = slice(reach - top, reach + top + 1)
    mean_size = (float((sizes * histogram).sum()) + 1.0) / (samples + 2.0)
    weights = histogram[inside] + PSEUDO_SAMPLES * _laplace(mean_size, top)
    counts = np.zeros(len(histogram), np.int32)
    counts[inside] = share_out(weights)
    return counts


def fit_indices(histogram: NDArray[np.int64]) -> Ints:
    """[A] int64 times each index of a codebook was seen to [A] int32 counts that sum to TOTAL, none of them 0.

    >>> fit_indices(np.array([30, 0, 10])).tolist()
    [47246, 1525, 16765]
    """
    if histogram.ndim != 1 or not 1 < len(histogram) <= TOTAL // 2 or (histogram < 0).any():
        rule = f"one row of 2 to {TOTAL // 2} counts, none below 0"
        raise BundleError(f"a histogram must be {rule}, not shape {histogram.shape}")
    return share_out(histogram.astype(np.float64) + 1.0)


def _laplace(mean_size: float, top: int) -> NDArray[np.float64]:
    """Two-sided geometric shape over -top..top with about this mean size; summing to 1, [2 * top + 1]."""
    ratio = mean_size / (1.0 + np.sqrt(1.0 + mean_size * mean_size))
    # running products, no pow: only operations that IEEE 754 rounds alike everywhere
    half = np.cumprod([1.0] + top * [ratio])
    both: NDArray[np.float64] = np.concatenate([half[:0:-1], half])
    return both / math.fsum(both)


def share_out(weights: NDArray[np.float64]) -> Ints:
    """TOTAL in proportion to weights, at least 1 each, the odd ones to the largest remainders (ties: first)."""
    exact = weights * ((TOTAL - len(weights)) / math.fsum(weights))
    counts: Ints = np.floor(exact).astype(np.int32) + 1
    counts[np.argsort(-(exact - np.floor(exact)), kind="stable")[: TOTAL - int(counts.sum())]] += 1
    return counts


@dataclass(frozen=True, eq=False)
class StaticPrior:
    """Count tables [L, D, A] int32, A odd: levels, latent dims, alphabet. Checked on creation, then read-only."""

    counts: Ints
    _costs: dict[int, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int32, order="C")
        if counts.ndim != 3 or 0 in counts.shape or counts.shape[2] % 2 == 0:
            raise BundleError(f"prior tables must have shape [L, D, A], A odd, not {counts.shape}")
        if any(size > most for size, most in zip(counts.shape, MOST, strict=True)):
            raise BundleError(f"prior tables must have sizes up to {MOST}, not {counts.shape}")
        if counts.size > MOST_COUNTS:
            raise BundleError(f"prior tables must have at most {MOST_COUNTS} counts, not {counts.size}")
        if (counts < 0).any() or (counts.sum(axis=2, dtype=np.int64) != TOTAL).any():
            raise BundleError(f"prior tables must sum to {TOTAL} each, with no count below 0")
        edges = np.diff(np.pad(counts > 0, ((0, 0), (0, 0), (1, 1))).astype(np.int8), axis=2)
        if (np.count_nonzero(edges, axis=2) != 2).any() or (counts[:, :, counts.shape[2] // 2] == 0).any():
            raise BundleError("prior tables must have one run of counts above 0, with symbol 0 inside")
        counts.setflags(write=False)
        object.__setattr__(self, "counts", counts)

    def tables(self, level: int) -> Ints:
        """[D, A] count tables of one quality level."""
        if not 0 <= level < len(self.counts):
            raise StreamError(f"the quality level must be 0 to {len(self.counts) - 1}, not {level}")
        tables: Ints = self.counts[level]
        return tables

    def limits(self, level: int) -> Ints:
        """[D] int32: the largest size whose symbol has a code with either sign."""
        below, above = _reaches(self.tables(level))
        return np.minimum(below, above)

    def ranges(self, level: int) -> tuple[Ints, Ints]:
        """(lowest, highest) symbol [D] int32 each that has a code."""
        below, above = _reaches(self.tables(level))
        return -below, above

    def costs(self, level: int) -> NDArray[np.float32]:
        """[D, A] float32 bits of every symbol, infinite where there is no code; for choices of the encoder only."""
        if level not in self._costs:
            with np.errstate(divide="ignore"):
                self._costs[level] = -np.log2(self.tables(level) / np.float32(TOTAL))
        return self._costs[level]

    def encoding(self, symbols: Ints, level: int) -> Iterator[tuple[Ints, Shares]]:
        """What `decoding` requests in one group [T, D], as (answers [T], shares [T, A]): what entropy.encode writes."""
        lowest, _ = self.ranges(level)
        for dim, shares in self._shares(level):
            yield (symbols[:, dim] - lowest[dim]).astype(np.int32), np.tile(shares, (len(symbols), 1))

    def decoding(self, levels: Sequence[int], frames: Sequence[int]) -> Generator[SymbolRequest, Ints, list[Ints]]:
        """Requests the symbols of groups, one after the other, and returns them, [T, D] each."""
        decoded = []
        for stream, (level, count) in enumerate(zip(levels, frames, strict=True)):
            lowest, _ = self.ranges(level)
            symbols = np.zeros((count, len(lowest)), np.int32)
            for dim, shares in self._shares(level):
                answers = yield SymbolRequest([stream], np.tile(shares, (1, count, 1)))
                symbols[:, dim] = answers[0] + lowest[dim]
            decoded.append(symbols)
        return decoded

    def _shares(self, level: int) -> Iterator[tuple[int, Shares]]:
        """(dim, shares [A] of the symbols that have a code) of the dims that cost bits."""
        for dim, table in enumerate(self.tables(level)):
            support = table[table > 0]
            if len(support) > 1:
                yield dim, support / np.float64(TOTAL)

    def bits(self, symbols: Ints, level: int) -> float:
        """Ideal bits of symbols [T, D] by these tables; infinite if one has no code."""
        tables = self.tables(level)
        dims, alphabet = tables.shape
        index = symbols.astype(np.int64) + alphabet // 2  # [T, D]
        if symbols.ndim != 2 or symbols.shape[1] != dims:
            raise StreamError(f"symbols must have shape [T, {dims}], not {symbols.shape}")
        if ((index < 0) | (index >= alphabet)).any():
            return float("inf")
        with np.errstate(divide="ignore"):
            return float(-np.log2(tables[np.arange(dims), index] / TOTAL).sum())

    def save(self, path: Path) -> None:
        """Write the alphabet, how far each table reaches, and the counts inside as uint16 (TOTAL as 0)."""
        below, above = _reaches(self.counts)
        inside = (self.counts[self.counts > 0] % TOTAL).astype("<u2")
        alphabet = np.array([self.counts.shape[2]], "<u2")
        width = "u1" if max(below.max(), above.max()) < 256 else "<u2"
        reaches = {"below": below.astype(width), "above": above.astype(width)}
        write_arrays(path, {"alphabet": alphabet, **reaches, "inside": inside})

    @classmethod
    def load(cls, path: str | Path) -> StaticPrior:
        """Read what `save` wrote; anything else, hostile sizes included, ends in BundleError."""
        arrays = read_arrays(path, MEMBERS, 2 * MOST_COUNTS + 10_000)
        if arrays["alphabet"].shape != (1,):
            raise BundleError(f"{path} must hold one alphabet, not {len(arrays['alphabet'])}")
        return cls(_spread(int(arrays["alphabet"][0]), arrays["below"], arrays["above"], arrays["inside"]))


def _reaches(tables: Ints) -> tuple[Ints, Ints]:
    """How far the support of tables [..., A] goes below and above symbol 0, each [...] int32."""
    reach = tables.shape[-1] // 2
    return (
        np.count_nonzero(tables[..., :reach], axis=-1).astype(np.int32),
        np.count_nonzero(tables[..., reach + 1 :], axis=-1).astype(np.int32),
    )


def _spread(alphabet: int, below: Counts, above: Counts, inside: Counts) -> Ints:
    """Counts [L, D, A] from the compact form of `StaticPrior.save`."""
    shape = (*below.shape, alphabet)
    fits = below.shape == above.shape and all(0 < n <= most for n, most in zip(shape, MOST, strict=True))
    reach = alphabet // 2
    if not fits or math.prod(shape) > MOST_COUNTS or max(below.max(), above.max()) > reach:
        raise BundleError(f"prior tables must have shape [L, D, A] up to {MOST}, not {shape} with {above.shape}")
    symbols = np.arange(-reach, alphabet - reach)
    support = (symbols >= -below[..., None].astype(int)) & (symbols <= above[..., None])  # [L, D, A]
    if np.count_nonzero(support) != len(inside):
        raise BundleError(f"prior tables must have {np.count_nonzero(support)} counts, not {len(inside)}")
    counts = np.zeros(shape, np.int32)
    counts[support] = np.where(inside == 0, TOTAL, inside.astype(np.int32))
    return counts
