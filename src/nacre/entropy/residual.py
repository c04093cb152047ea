"""Residual layer: what the networks leave of the sound, as coefficients of a lapped transform at the highest levels.

    sound - decoded --> Lapped --> / step --> symbols [S, K] --> x step --> Lapped --> + decoded

S are blocks of K samples, and K coefficients each. A coefficient's step follows the spectrum of the decoded sound,
which both sides have, so that the noise lies under the sound: step = steps[level] * weights[k] * envelope ** exponent.
How likely a symbol is follows from the sizes of symbols in the two blocks before, by integers alone. The transform is
the MDCT (Princen and Bradley, 1986) over one group, without overlap at the group's ends: groups stay independent.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError
from nacre.core.types import Array, Floats, Ints, Shares
from nacre.dsp.blas import one_thread
from nacre.dsp.mdct import Lapped
from nacre.entropy.symbols import ESCAPED, LARGEST, SymbolRequest, answered_requests, request_symbols
from nacre.io.arrays import read_arrays, write_arrays

FLOOR = 3e-5  # envelope of silence, in the sound's own units
ROUNDING = 0.3  # added to a size before it is cut, for a first guess
UNSENT = 0.35  # of a step: noise is no larger where a size of 0 says that little is missing
BIT = 0.15  # what a bit may cost, in squared steps of error
ACROSS = np.array([1, 6, 15, 20, 15, 6, 1], np.float32) / 64  # smooths the power of coefficients over frequency
ALONG = np.array([1, 2, 1], np.float32) / 4  # and over time
TAPS = 15  # coefficients around a coefficient whose sizes are looked at, in each of the two blocks before
LARGEST_SIZE = 15  # sizes count up to here
TOTAL = 1 << 16  # sum of a table
TOGETHER = 8  # blocks that are encoded at once: fewer take longer, more do not fit a processor's memory
EXTREME = 1e6  # no step or weight is larger, or smaller than its inverse
MOST_AT_ONCE = 1 << 15  # shares of a block
EXACT = 1 << 24  # float32 holds every whole number up to here
MOST = (16, 4096, 64, 256, 128)  # levels, coefficients, zones, classes, shares: bounds what a file can make us read
MEMBERS = {
    "steps": ("<f4", 1),  # [L] 0: no residual layer at this level; only the highest have one
    "weights": ("<f4", 1),  # [K]
    "exponent": ("<f4", 1),  # [1]
    "per_frame": ("|u1", 1),  # [1] blocks in a latent frame
    "memory": ("|u1", 1),  # [1] groups after which the networks have forgotten what came before; 0: never
    "kernel": ("<u2", 2),  # [2, TAPS] what sizes of the block before, and of the one before that, add to the activity
    "edges": ("<u4", 1),  # [classes - 1] activities at which a new class begins
    "tables": ("<u2", 3),  # [zones, classes, A] counts, the last that of the escape
}


@dataclass(frozen=True, eq=False)
class ResidualLayer:
    """Steps and integer tables by name, as in MEMBERS. Checked on creation; raises BundleError."""

    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        a = self.arrays
        sizes = (len(a["steps"]), len(a["weights"]), *a["tables"].shape)
        fits = all(1 <= size <= most for size, most in zip(sizes, MOST, strict=True)) and sizes[4] % 2 == 0
        shapes = tuple(a[name].shape for name in ("exponent", "per_frame", "memory", "kernel", "edges"))
        needed = ((1,), (1,), (1,), (2, TAPS), (sizes[3] - 1,))
        if not fits or shapes != needed or self.size % 2:
            limits = f"up to {MOST}, its coefficients even and its shares odd"
            raise BundleError(f"the residual layer needs sizes {limits}, not {sizes} with arrays {shapes}")
        numbers = np.concatenate([a["steps"], a["weights"], a["exponent"]])
        if not np.isfinite(numbers).all() or not 0 <= a["exponent"][0] <= 2:
            raise BundleError("the residual layer needs finite steps and weights, and an exponent of 0 to 2")
        steps, first = a["steps"], self.first_level
        for values in (a["weights"], steps[first:]):
            if ((values < 1 / EXTREME) | (values > EXTREME)).any():
                span = f"{1 / EXTREME:g} to {EXTREME:g}"
                raise BundleError(f"the residual layer's steps and weights must be {span}")
        if first == 0 or steps[:first].any():
            raise BundleError(f"the residual layer's steps must be 0, then above 0, not {steps.tolist()}")
        if self.size * sizes[4] > MOST_AT_ONCE:
            product = f"{self.size} coefficients times {sizes[4]} shares"
            raise BundleError(f"the residual layer has {product} in a block, more than {MOST_AT_ONCE}")
        if int(a["kernel"].sum(dtype=np.int64)) * LARGEST_SIZE >= EXACT:
            raise BundleError(f"the residual layer's kernel must keep activities below {EXACT}")
        if (np.diff(a["edges"].astype(np.int64)) <= 0).any():
            raise BundleError("the residual layer's edges must rise")
        if (a["tables"] == 0).any() or (a["tables"].sum(2, dtype=np.int64) != TOTAL).any():
            raise BundleError(f"the residual layer's tables must be counts above 0, {TOTAL} in all")

    @property
    def size(self) -> int:
        """Samples of a block, and coefficients K."""
        return len(self.arrays["weights"])

    @property
    def per_frame(self) -> int:
        """Blocks in a latent frame."""
        return int(self.arrays["per_frame"][0])

    @property
    def memory(self) -> int:
        """Groups that an encoder must have decoded before one of such a level; 0: all of them."""
        return int(self.arrays["memory"][0])

    @property
    def first_level(self) -> int:
        """The lowest level with a residual layer; the number of levels where none is."""
        layered = np.flatnonzero(self.arrays["steps"] > 0)
        return int(layered[0]) if len(layered) else len(self.arrays["steps"])

    def covers(self, level: int) -> bool:
        """Whether this level has symbols of a residual layer."""
        return bool(self.arrays["steps"][level] > 0)

    @one_thread
    def symbols(self, wave: Floats, predicted: Floats, decoded: Floats, level: int) -> Ints:
        """What is sent for one group of wave [N]: [S, K], S = N / K. The networks gave it back as decoded [N].

        `predicted` [N] is decoded without noise, from which the difference is taken: noise is nearer to nothing.

        Of the nearest size and the one below it, the one whose error and bits weigh less (Sullivan and Wiegand, 1998).
        What bits a size costs is taken from a first guess of the symbols around it. Sizes that stand alone, which would
        be heard as blips, are left out by this.
        """
        values = self._lapped.forward(wave - predicted) / self._steps(decoded, level)
        sizes = np.minimum(np.abs(values), LARGEST)
        rows = self.rows(np.floor(sizes + ROUNDING).astype(np.int32))
        larger = np.maximum(np.rint(sizes), 1).astype(np.int32)
        bits = self._prices[rows, larger] - self._prices[rows, larger - 1]
        chosen = np.where(BIT * bits < 2 * (sizes - larger) + 1, larger, larger - 1)
        symbols: Ints = np.copysign(chosen, values).astype(np.int32)
        return symbols

    @one_thread
    def enhanced(self, symbols: Ints, predicted: Floats, noise: Floats | None, level: int) -> Floats:
        """The sound [N] of symbols [S, K] and of what the networks gave, predicted and noise [N].

        Noise stays where no coefficient was sent, as far as one that is not sent can be large. A group's transform ends
        abruptly, and what it leaves out there would be heard as a tick, so the sound of the networks takes over at both
        ends.
        """
        decoded = predicted if noise is None else predicted + noise
        steps = self._steps(decoded, level)
        coefficients = symbols.astype(np.float32) * steps
        if noise is not None:
            most = np.float32(UNSENT) * steps
            coefficients += np.where(symbols == 0, np.clip(self._lapped.forward(noise), -most, most), 0)
        wave: Floats = decoded + self._fades(len(decoded)) * (predicted + self._lapped.backward(coefficients) - decoded)
        return wave

    def encoding(self, symbols: Ints) -> Iterator[tuple[Ints, Shares]]:
        """What `decoding` requests in one group [S, K], as (answers [n], shares [n, A]) in the same order."""
        rows, reach = self.rows(symbols), -int(self._lowest)
        ends = np.atleast_1d((np.abs(symbols) > reach).any(1))  # escaped symbols follow right behind their block
        ends[TOGETHER - 1 :: TOGETHER] = True
        cuts = np.flatnonzero(ends) + 1
        for part, row in zip(np.split(symbols, cuts), np.split(rows, cuts), strict=True):
            if len(part):
                yield from answered_requests(part.reshape(1, -1), self._lowest, self._shares[row.reshape(1, -1)])[0]

    def rows(self, symbols: Ints) -> NDArray[np.intp]:
        """Which row of the tables, laid end to end, each of a group's symbols [S, K] is coded by: [S, K]."""
        sizes = _sizes(symbols)
        earlier = np.concatenate([np.zeros((2, self.size), np.float32), sizes])
        return self._row(np.concatenate([earlier[1:-1], earlier[:-2]], 1))

    def decoding(self, streams: Sequence[int], blocks: Sequence[int]) -> Generator[SymbolRequest, Ints, list[Ints]]:
        """Requests the symbols of groups side by side, of so many blocks each, and returns them, [S, K] each."""
        turn = sorted(range(len(streams)), key=lambda group: -blocks[group])  # longest first
        coefficients = [np.zeros((count, self.size), np.int32) for count in blocks]
        past = np.zeros((len(turn), 2 * self.size), np.float32)
        for block in range(max(blocks, default=0)):
            live = [group for group in turn if blocks[group] > block]
            past = past[: len(live)]
            symbols = yield from request_symbols(
                [streams[group] for group in live], self._shares[self._row(past)], self._lowest
            )
            for row, group in enumerate(live):
                coefficients[group][block] = symbols[row]
            past = np.concatenate([_sizes(symbols), past[:, : self.size]], 1)
        return coefficients

    def costs(self, symbols: Ints) -> Floats:
        """Ideal bits [S] of each block of symbols [S, K]."""
        bits, rows = np.zeros(len(symbols), np.float32), self.rows(symbols)
        for block in range(len(symbols)):
            for answers, shares in answered_requests(
                symbols[block : block + 1], self._lowest, self._shares[rows[block : block + 1]]
            )[0]:
                bits[block] -= np.log2(shares[np.arange(len(answers)), answers]).sum()
        return bits

    def save(self, path: Path) -> None:
        """Write the arrays, see `io.arrays`."""
        write_arrays(path, {name: self.arrays[name].astype(kind) for name, (kind, _) in MEMBERS.items()})

    @classmethod
    def load(cls, path: Path) -> ResidualLayer:
        """Read what `save` wrote; anything else, hostile sizes included, ends in BundleError."""
        return cls(read_arrays(path, MEMBERS, 2 * MOST[2] * MOST[3] * MOST[4] + 10_000))

    def _fades(self, samples: int) -> Floats:
        """Shares [N] of the residual layer: rising over half a block, less in short groups, and falling at the end."""
        edge = min(self.size // 2, samples // 8)
        rising = np.square(np.sin(np.pi / 2 * (np.arange(edge, dtype=np.float32) + np.float32(0.5)) / max(1, edge)))
        fades: Floats = np.ones(samples, np.float32)
        fades[:edge], fades[samples - edge :] = rising, rising[::-1]
        return fades

    @cached_property
    def _lapped(self) -> Lapped:
        return Lapped(self.size)

    @cached_property
    def _lowest(self) -> Ints:
        return np.array(-((self.arrays["tables"].shape[2] - 1) // 2), np.int32)

    @cached_property
    def _spread(self) -> Floats:
        """Kernels as one matrix [2 * K, K]: sizes of the two blocks before to activities."""
        spread = np.zeros((2, self.size, self.size), np.float32)
        for row, kernel in zip(spread, self.arrays["kernel"], strict=True):
            for tap, value in enumerate(kernel.tolist()):
                np.fill_diagonal(row[max(0, tap - TAPS // 2) :, max(0, TAPS // 2 - tap) :], value)
        return spread.reshape(-1, self.size)

    @cached_property
    def _shares(self) -> Shares:
        """Shares [zones * classes, A]."""
        tables = self.arrays["tables"]
        shares: Shares = tables.reshape(-1, tables.shape[2]) / np.float64(TOTAL)
        return shares

    @cached_property
    def _prices(self) -> Floats:
        """Bits of each size, of either sign, [zones * classes, LARGEST + 1]."""
        reach = -int(self._lowest)
        bits = -np.log2(self._shares[:, reach:]).astype(np.float32)
        escaped = bits[:, -1:] + np.float32(np.log2(ESCAPED))
        return np.concatenate([bits[:, :-1], np.repeat(escaped, LARGEST - reach, 1)], 1)

    @cached_property
    def _zones(self) -> NDArray[np.intp]:
        """The first row of each coefficient's zone [K]."""
        zones, classes, _ = self.arrays["tables"].shape
        rows: NDArray[np.intp] = np.arange(self.size) * zones // self.size * classes
        return rows

    def _row(self, past: Floats) -> NDArray[np.intp]:
        """Sizes of the block before, then of the one before that, [M, 2 * K] -> rows of the tables [M, K]."""
        activity = past @ self._spread  # whole numbers below 2^24, in whatever order they are added up
        rows: NDArray[np.intp] = np.searchsorted(self.arrays["edges"], activity.astype(np.uint32), "right")
        return rows + self._zones

    def _steps(self, decoded: Floats, level: int) -> Floats:
        """Quantiser steps [S, K] that follow the spectrum of the decoded sound [N]."""
        a = self.arrays
        power = _smoothed(_smoothed(np.square(self._lapped.forward(decoded)), ACROSS, 1), ALONG, 0)
        steps: Floats = a["steps"][level] * a["weights"] * np.sqrt(power + np.float32(FLOOR**2)) ** a["exponent"]
        return steps


def _sizes(symbols: Ints) -> Floats:
    return np.minimum(np.abs(symbols), LARGEST_SIZE).astype(np.float32)


def _smoothed(values: Floats, kernel: Array, axis: int) -> Floats:
    """values [S, K] averaged along an axis; its ends go on as they are."""
    reach, count = len(kernel) // 2, values.shape[axis]
    edges = [(reach, reach) if axis == index else (0, 0) for index in range(2)]
    padded = np.moveaxis(np.pad(values, edges, "edge"), axis, 0)
    smoothed = np.zeros_like(padded[:count])
    for at, weight in enumerate(kernel):
        smoothed += weight * padded[at : at + count]
    return np.moveaxis(smoothed, 0, axis)
