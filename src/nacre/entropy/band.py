"""The band layer's symbols and their integer tables: levels of bands and shapes of frames, from those before them.

A frame of 20 ms is B levels, from 0, which is nothing, in steps of 3 dB to 63, and one shape of SHAPES: how its power
lies in its four quarters. A level is written as its distance from the one expected, by a table that goes by what the
band below did; a shape by one that goes by the shape before it and by whether levels rise. The tables are `band.npz`
beside this file, made by `bench/fit_band.py`. Files of version 2 depend on them, so they never change.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from nacre.core.errors import BundleError
from nacre.core.types import Array, Floats, Ints, Shares
from nacre.entropy.symbols import SymbolRequest, answered_requests, request_symbols
from nacre.io.arrays import read_arrays

BANDS, LEVELS, SHAPES, QUARTERS = 4, 64, 8, 4
REACH = 12  # a distance that is larger escapes
FIRST = 12  # expected of the lowest band in the first frame
CHANGES, HEIGHTS, RISES = 7, 8, 13  # classes: of the change below, of the height over the band below, of all changes
FROM_NOTHING = CHANGES * HEIGHTS
START = FROM_NOTHING + CHANGES  # the class of the first frame
CLASSES = START + 1
TOTAL = 1 << 16  # sum of a table
TABLES = Path(__file__).with_name("band.npz")
MEMBERS = {
    "levels": ("<u2", 3),  # [BANDS, CLASSES, 2 * REACH + 2] counts of distances, the last of the escape
    "shapes": ("<u2", 3),  # [RISES, SHAPES, SHAPES] counts
    "quarters": ("<f4", 2),  # [SHAPES, QUARTERS] power of each quarter over the frame's; for sound only
}
_LOWEST = np.array(-REACH, np.int32)


@dataclass(frozen=True, eq=False)
class BandTables:
    """Arrays by name, as in MEMBERS. Checked on creation; raises BundleError."""

    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        shapes = tuple(self.arrays[name].shape for name in MEMBERS)
        needed = ((BANDS, CLASSES, 2 * REACH + 2), (RISES, SHAPES, SHAPES), (SHAPES, QUARTERS))
        if shapes != needed:
            raise BundleError(f"the band layer's arrays must have the shapes {needed}, not {shapes}")
        for name in ("levels", "shapes"):
            counts = self.arrays[name]
            if (counts == 0).any() or (counts.sum(-1, dtype=np.int64) != TOTAL).any():
                raise BundleError(f"the band layer's {name} must be counts above 0, {TOTAL} in all")

    @property
    def quarters(self) -> Floats:
        """Power of each quarter of a frame over the frame's, by shape, [SHAPES, QUARTERS]."""
        return self.arrays["quarters"]

    def encoding(self, symbols: Ints) -> Iterator[tuple[Ints, Shares]]:
        """What `decoding` requests in one group [T, B + 1], as (answers [n], shares [n, A]) in the same order."""
        distances, rows = level_rows(symbols)
        cuts = np.flatnonzero(np.abs(distances) > REACH) + 1  # what escaped follows right behind
        for part, row in zip(np.split(distances, cuts), np.split(rows, cuts), strict=True):
            if len(part):
                yield from answered_requests(part[None], _LOWEST, self._levels[row][None])[0]
        shapes, rows = shape_rows(symbols)
        if len(shapes):
            yield shapes, self._shapes[rows]

    def decoding(
        self, streams: Sequence[int], frames: Sequence[int], bands: int
    ) -> Generator[SymbolRequest, Ints, list[Ints]]:
        """Requests the symbols of groups side by side, of so many frames each, and returns them, [T, B + 1] each."""
        turn = sorted(range(len(streams)), key=lambda group: -frames[group])  # longest first
        symbols = np.zeros((len(turn), max(frames, default=0), bands + 1), np.int32)
        for frame in range(symbols.shape[1]):
            live = [streams[group] for group in turn if frames[group] > frame]
            before = symbols[: len(live), frame - 1] if frame else None
            now = symbols[: len(live), frame]
            for band in range(bands):
                expected, rows = _expected(before, now, band)
                distances = yield from request_symbols(live, self._levels[rows][:, None], _LOWEST)
                now[:, band] = np.clip(expected + distances[:, 0], 0, LEVELS - 1)
        for frame in range(symbols.shape[1]):
            sounding = np.flatnonzero(symbols[:, frame, :-1].any(1))
            if len(sounding):
                rows = _shape_rows(symbols[sounding, frame - 1] if frame else None, symbols[sounding, frame])
                answers = yield SymbolRequest(
                    [streams[turn[row]] for row in sounding.tolist()], self._shapes[rows][:, None]
                )
                symbols[sounding, frame, -1] = answers[:, 0]
        return [symbols[turn.index(group), : frames[group]] for group in range(len(turn))]

    def costs(self, symbols: Ints) -> Floats:
        """Ideal bits [T] of each frame of symbols [T, B + 1], about: escapes count as 9 bits."""
        distances, rows = level_rows(symbols)
        columns = np.where(np.abs(distances) > REACH, 2 * REACH + 1, distances + REACH)
        bits = -np.log2(self._levels[rows, columns]) + 9 * (columns == 2 * REACH + 1)
        costs: Floats = bits.reshape(len(symbols), -1).sum(1).astype(np.float32)
        shapes, rows = shape_rows(symbols)
        costs[symbols[:, :-1].any(1)] -= np.log2(self._shapes[rows, shapes]).astype(np.float32)
        return costs

    @cached_property
    def _levels(self) -> Shares:
        shares: Shares = self.arrays["levels"].reshape(BANDS * CLASSES, -1) / np.float64(TOTAL)
        return shares

    @cached_property
    def _shapes(self) -> Shares:
        shares: Shares = self.arrays["shapes"].reshape(RISES * SHAPES, -1) / np.float64(TOTAL)
        return shares


@cache
def band_tables() -> BandTables:
    """Those of the package. Raises BundleError."""
    return BandTables(read_arrays(TABLES, MEMBERS, 1 << 20))


def level_rows(symbols: Ints) -> tuple[Ints, Ints]:
    """symbols [T, B + 1] -> (distances [T * B] from the levels expected, rows [T * B] of all tables end to end)."""
    levels = symbols[:, :-1]
    distances, rows = np.empty_like(levels), np.empty_like(levels)
    for band in range(levels.shape[1]):
        for part, before in ((slice(1), None), (slice(1, None), levels[:-1])):
            expected, rows[part, band] = _expected(before, levels[part], band)
            distances[part, band] = levels[part, band] - expected
    return distances.reshape(-1), rows.reshape(-1)


def shape_rows(symbols: Ints) -> tuple[Ints, Ints]:
    """symbols [T, B + 1] -> (shapes [n] of the frames that are not nothing, rows [n] of the tables end to end)."""
    rows = np.concatenate([_shape_rows(None, symbols[:1]), _shape_rows(symbols[:-1], symbols[1:])])
    sounding = symbols[:, :-1].any(1)
    return symbols[sounding, -1], rows[sounding]


def _expected(before: Ints | None, now: Ints, band: int) -> tuple[Ints, Ints]:
    """Levels [M, B] of the frame before, if any, and of this one as far as known -> (expected level, row) [M]."""
    if before is None:
        expected = now[:, band - 1] if band else np.full(len(now), FIRST, np.int32)
        return expected, np.full(len(now), band * CLASSES + START, np.int32)
    last = before[:, band]
    if band == 0:
        return last, last >> 1
    below = before[:, band - 1]
    change = np.clip(now[:, band - 1] - below, -(CHANGES // 2), CHANGES // 2) + CHANGES // 2
    height = np.clip((last - below + 10) >> 1, 0, HEIGHTS - 1)
    return last, band * CLASSES + np.where(last > 0, change * HEIGHTS + height, FROM_NOTHING + change)


def _shape_rows(before: Ints | None, now: Ints) -> Ints:
    """Symbols [M, B + 1] of the frame before, if any, and of this one, whose shape is not looked at -> rows [M]."""
    if before is None:
        return np.full(len(now), RISES // 2 * SHAPES, np.int32)
    rise = np.clip((now[:, :-1] - before[:, :-1]).sum(1), -(RISES // 2), RISES // 2) + RISES // 2
    rows: Ints = (rise * SHAPES + before[:, -1]).astype(np.int32)
    return rows
