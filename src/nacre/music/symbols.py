"""The symbols of a group of music, and the integer tables they are written by: `tables.npz` of a model.

splits | shares in time | angles | levels | values --> range coder, in this order

Levels go from far apart to near: the first frame, then frames 8, 4, 2 and 1 apart, each expected half way between those
around it; even bands, then odd ones, which know how far off their neighbours were. Values go frame by frame and channel
by channel in three passes, every fourth one, those half way between, the rest: a value knows the sizes around it in
the frame before, in the other channel, and in its own frame as far as passes have come. All of it is whole numbers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nacre.core.errors import BundleError, StreamError
from nacre.core.types import Array, Floats, Ints, Shares
from nacre.entropy.symbols import SymbolRequest, answered_requests, request_symbols
from nacre.io.arrays import read_arrays
from nacre.music import shape
from nacre.music.shape import BANDS, CODED, LEVELS, PARTS, SILENT, TOP

ANGLES, HALVES = 32, 2  # directions of two channels over half a turn; how often a group says them
REACH = 12  # a level that is farther from what was expected escapes
KINDS, ZONES, SPREADS, SIDES = 5, 4, 5, 6  # of frames, of bands, of how far apart neighbours are, of what they were off
RATIOS, ACTIVITIES, VALUES = 16, 12, 15  # classes; values up to +-VALUES have a code of their own
LARGEST = 255
PASSES = (slice(0, TOP, 4), slice(2, TOP, 4), slice(1, TOP, 2))
FEATURES = 8
TOTAL = 1 << 16
MEMBERS = {
    "splits": ("<u2", 1),  # [SPLITS] counts
    "shares": ("<u2", 2),  # [SILENT + 1, SILENT] by the share before, the last row without
    "angles": ("<u2", 1),  # [ANGLES] of the first half of a group
    "turns": ("<u2", 1),  # [ANGLES] from there to the second
    "levels": ("<u2", 2),  # [2 * KINDS * ZONES * SPREADS * SIDES, 2 * REACH + 2]
    "first": ("|u1", 2),  # [2, BANDS] level expected in the first frame
    "kernel": ("|u1", 2),  # [PASSES, FEATURES] what sizes around a value add to its activity
    "edges": ("<u2", 1),  # [ACTIVITIES - 1]
    "values": ("<u2", 2),  # [PASSES * RATIOS * ACTIVITIES, 2 * VALUES + 2]
}
_SHAPES = (
    (4,), (SILENT + 1, SILENT), (ANGLES,), (ANGLES,), (2 * KINDS * ZONES * SPREADS * SIDES, 2 * REACH + 2),
    (2, BANDS), (len(PASSES), FEATURES), (ACTIVITIES - 1,), (len(PASSES) * RATIOS * ACTIVITIES, 2 * VALUES + 2),
)  # fmt: skip
_COUNTS = ("splits", "shares", "angles", "turns", "levels", "values")
_LEVEL_LOWEST, _VALUE_LOWEST = np.array(-REACH, np.int32), np.array(-VALUES, np.int32)
Piece = tuple[Ints, Shares]


class GroupSymbols(NamedTuple):
    """A group of T frames and C channels; angles [HALVES, BANDS] are of two channels, else all 0."""

    splits: Ints  # [T]
    shares: Ints  # [T, PARTS], 0 where a frame is not split
    angles: Ints
    levels: Ints  # [C, T, BANDS]
    values: Ints  # [C, T, TOP]


class Tier(NamedTuple):
    """Frames whose levels are written at once, and those before and behind that they are expected between."""

    kind: int
    frames: list[int]
    before: list[int]
    after: list[int]


@dataclass(frozen=True, eq=False)
class MusicTables:
    """Arrays by name, as in MEMBERS. Checked on creation; raises BundleError."""

    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        shapes = tuple(self.arrays[name].shape for name in MEMBERS)
        if shapes != _SHAPES:
            raise BundleError(f"music tables must have the shapes {_SHAPES}, not {shapes}")
        for name in _COUNTS:
            counts = self.arrays[name]
            if (counts == 0).any() or (counts.sum(-1, dtype=np.int64) != TOTAL).any():
                raise BundleError(f"the music tables' {name} must be counts above 0, {TOTAL} in all")
        if (np.diff(self.arrays["edges"].astype(np.int64)) <= 0).any() or (self.arrays["first"] >= LEVELS).any():
            raise BundleError(f"the music tables' edges must rise, and their first levels be below {LEVELS}")

    @classmethod
    def load(cls, path: Path) -> MusicTables:
        """Those of a file. Raises BundleError."""
        return cls(read_arrays(path, MEMBERS, 1 << 20))

    def encoding(self, symbols: GroupSymbols, fineness: int) -> Iterator[Piece]:
        """What `decoding` requests, as (answers [n], shares [n, A]) in the same order."""
        yield from self._shape_encoding(symbols)
        rows, values = self._rows_of(symbols, fineness), symbols.values
        for frame in range(values.shape[1]):
            for channel in range(len(values)):
                for number, part in enumerate(PASSES):
                    row = rows[number][channel, frame]
                    if len(kept := row[row >= 0]):
                        chosen = values[channel, frame, part][row >= 0]
                        yield from answered_requests(chosen[None], _VALUE_LOWEST, self._values[kept[None]])[0]

    def decoding(self, frames: int, channels: int, fineness: int) -> Generator[SymbolRequest, Ints, GroupSymbols]:
        """Requests the symbols of a group and returns them. Raises StreamError for levels that cannot be."""
        splits = yield from self._request(np.tile(self._table("splits"), (frames, 1)))
        shares = np.zeros((frames, PARTS), np.int32)
        for part in range(PARTS):
            if len(at := parted(splits, part)):
                given = yield from self._request(self._table("shares")[_before(shares, splits, at, part)])
                for frame, share in zip(at, given, strict=True):
                    step = int(step_of(splits[frame]))
                    shares[frame, part * step : (part + 1) * step] = share
        angles = np.zeros((HALVES, BANDS), np.int32)
        if channels > 1:
            angles[0] = yield from self._request(np.tile(self._table("angles"), (BANDS, 1)))
            angles[1] = yield from self._request(np.tile(self._table("turns"), (BANDS, 1)))
            angles[1] = (angles[0] + angles[1]) % ANGLES
        levels = np.zeros((channels, frames, BANDS), np.int32)
        for channel in range(channels):
            for tier in tiers(frames):
                for odd in (0, 1):
                    expected, rows = self.level_rows(levels, channel, tier, odd)
                    distances = yield from request_symbols([0], self._levels[rows.reshape(1, -1)], _LEVEL_LOWEST)
                    now = expected + distances.reshape(expected.shape)
                    if now.size and not 0 <= now.min() <= now.max() < LEVELS:
                        raise StreamError(f"the level of a band must be 0 to {LEVELS - 1}, not {now.max()}")
                    levels[channel, tier.frames, odd::2] = now
        values = np.zeros((channels, frames, TOP), np.int32)
        found_so_far = GroupSymbols(splits, shares, angles, levels, values)
        for frame, channel, at, rows in self.value_rows(found_so_far, fineness):
            answers = yield from request_symbols([0], self._values[rows[None]], _VALUE_LOWEST)
            values[channel, frame, at] = answers[0]
        return found_so_far

    def level_rows(self, levels: Ints, channel: int, tier: Tier, odd: int) -> tuple[Ints, Ints]:
        """Levels [C, T, B], as far as they are known -> (expected ones, rows) [frames, bands] of even or odd bands."""
        mine, bands = levels[channel], np.arange(odd, BANDS, 2)
        if tier.kind == 0:
            middle = np.tile(self.arrays["first"][channel].astype(np.int32), (len(tier.frames), 1))
            apart = np.zeros_like(middle)
        else:
            before, after = mine[tier.before], mine[tier.after]
            middle, apart = (before + after + 1) >> 1, np.abs(before - after)
        expected, side = middle[:, bands], np.full((len(tier.frames), len(bands)), SIDES - 1, np.int32)
        if odd:
            off = mine[tier.frames] - middle
            near = np.pad(off, ((0, 0), (0, 1)), "edge")
            side = np.clip((near[:, bands - 1] + near[:, bands + 1]) >> 1, -2, 2) + 2
        row = ((channel * KINDS + tier.kind) * ZONES + bands * ZONES // BANDS) * SPREADS
        rows = (row + np.searchsorted((1, 2, 3, 5), apart[:, bands], "right")) * SIDES + side
        return expected, rows.astype(np.int32)

    def value_rows(self, symbols: GroupSymbols, fineness: int) -> Iterator[tuple[int, int, Ints, Ints]]:
        """(frame, channel, places [n], rows [n]) of all values that are coded, pass by pass, in order.

        Rows go by values before them, so that one who fills these in on the way gets the rows of the next.
        """
        classes, values = classes_of(symbols, fineness), symbols.values
        places = np.arange(TOP, dtype=np.int32)
        nothing = np.zeros(TOP + 2 * PAD, np.int32)
        past = [(nothing, nothing) for _ in values]
        for frame in range(values.shape[1]):
            other = nothing
            for channel in range(len(values)):
                for number, part in enumerate(PASSES):
                    wanted = classes[channel, frame, part]
                    if (wanted >= 0).any():
                        own = sizes(values[channel, frame])
                        last, earlier = past[channel]
                        row = self._row(number, wanted, self.features(number, own, last, earlier, other))
                        yield frame, channel, places[part][wanted >= 0], row[wanted >= 0]
                own = sizes(values[channel, frame])
                past[channel], other = (own, past[channel][0]), own

    def _rows_of(self, symbols: GroupSymbols, fineness: int) -> list[Ints]:
        """What `value_rows` finds, of symbols that are all known: [C, T, n] a pass, -1 where nothing is coded."""
        classes, own = classes_of(symbols, fineness), sizes(symbols.values)
        last, earlier = (np.pad(own, ((0, 0), (ago, 0), (0, 0)))[:, : own.shape[1]] for ago in (1, 2))
        other = np.concatenate([np.zeros_like(own[:1]), own[:-1]])
        rows = []
        for number, part in enumerate(PASSES):
            wanted = classes[..., part]
            features = self.features(number, own, last, earlier, other)
            rows.append(np.where(wanted >= 0, self._row(number, wanted, features), -1))
        return rows

    def _row(self, number: int, classes: Ints, features: list[Ints]) -> Ints:
        activity = sum(int(weight) * feature for weight, feature in zip(self._kernel[number], features, strict=True))
        row: Ints = (number * RATIOS + classes) * ACTIVITIES + self._classes[activity]
        return row

    @staticmethod
    def features(number: int, own: Ints, last: Ints, earlier: Ints, other: Ints) -> list[Ints]:
        """What is around the values of a pass, of padded sizes [..., TOP + 2 * PAD]: FEATURES times [..., n]."""
        part = PASSES[number]

        def near(row: Ints, away: int) -> Ints:
            below, above = row[..., PAD - away : PAD - away + TOP], row[..., PAD + away : PAD + away + TOP]
            both: Ints = below[..., part] + above[..., part]
            return both

        last_here, earlier_here, other_here = (row[..., PAD : PAD + TOP][..., part] for row in (last, earlier, other))
        nothing = np.zeros_like(last_here)
        inside = [(nothing, nothing), (near(own, 2), nothing), (near(own, 1), near(own, 3))][number]
        return [last_here, near(last, 1), near(last, 2), earlier_here, *inside, other_here, near(other, 1)]

    def value_bits(self, symbols: GroupSymbols, fineness: int) -> float:
        """Ideal bits of a group's values, about: those that escape count as 12."""
        bits = 0.0
        for rows, part in zip(self._rows_of(symbols, fineness), PASSES, strict=True):
            answers = symbols.values[..., part][rows >= 0] + VALUES
            outside = (answers < 0) | (answers > 2 * VALUES)
            bits += self._prices[rows[rows >= 0], np.where(outside, 2 * VALUES + 1, answers)].sum(dtype=np.float64)
            bits += 9 * np.count_nonzero(outside)
        return bits

    def shape_bits(self, symbols: GroupSymbols) -> float:
        """Ideal bits of all symbols of a group but its values."""
        bits = 0.0
        for answers, shares in self._shape_encoding(symbols):
            bits -= float(np.log2(shares[np.arange(len(answers)), answers]).sum())
        return bits

    def _shape_encoding(self, symbols: GroupSymbols) -> Iterator[Piece]:
        splits, shares, angles, levels, _ = symbols
        yield splits, np.tile(self._table("splits"), (len(splits), 1))
        for part in range(PARTS):
            if len(at := parted(splits, part)):
                yield shares[at, part * step_of(splits[at])], self._table("shares")[_before(shares, splits, at, part)]
        if len(levels) > 1:
            yield angles[0], np.tile(self._table("angles"), (BANDS, 1))
            yield (angles[1] - angles[0]) % ANGLES, np.tile(self._table("turns"), (BANDS, 1))
        for channel in range(len(levels)):
            for tier in tiers(levels.shape[1]):
                for odd in (0, 1):
                    expected, rows = self.level_rows(levels, channel, tier, odd)
                    distances = levels[channel][tier.frames, odd::2] - expected
                    yield from answered_requests(
                        distances.reshape(1, -1), _LEVEL_LOWEST, self._levels[rows.reshape(1, -1)]
                    )[0]

    def _request(self, shares: Shares) -> Generator[SymbolRequest, Ints, Ints]:
        answers = yield SymbolRequest([0], shares[None])
        answer: Ints = answers[0]
        return answer

    def _table(self, name: str) -> Shares:
        shares: Shares = self.arrays[name] / np.float64(TOTAL)
        return shares

    @cached_property
    def _levels(self) -> Shares:
        return self._table("levels")

    @cached_property
    def _values(self) -> Shares:
        return self._table("values")

    @cached_property
    def _prices(self) -> Floats:
        bits: Floats = -np.log2(self._values).astype(np.float32)
        return bits

    @cached_property
    def _kernel(self) -> Ints:
        return self.arrays["kernel"].astype(np.int32)

    @cached_property
    def _classes(self) -> Ints:
        """Class of every activity there can be."""
        most = int(self._kernel.sum(1).max()) * 2 * VALUES
        return np.searchsorted(self.arrays["edges"], np.arange(most + 1), "right").astype(np.int32)


PAD = 4


def sizes(values: Ints) -> Ints:
    """values [..., TOP] -> their sizes, cut at VALUES, with zeros around them."""
    return np.pad(np.minimum(np.abs(values), VALUES), [*[(0, 0)] * (values.ndim - 1), (PAD, PAD)])


def classes_of(symbols: GroupSymbols, fineness: int) -> Ints:
    """Class of the ratio of each coefficient [C, T, TOP]; below 0 where it is not coded."""
    splits = symbols.splits.tolist()
    _, ratios = shape.steps_of(symbols.levels, symbols.shares, splits, fineness)
    classes: Ints = np.minimum((shape.spread(ratios, splits) - CODED) >> 1, RATIOS - 1)
    return classes


def step_of(split: Array) -> Array:
    """How many of the PARTS a block of such a frame stands in."""
    return PARTS >> split


def parted(splits: Ints, part: int) -> Ints:
    """The frames that are split into more blocks than `part`."""
    return np.flatnonzero((splits > 0) & ((1 << splits) > part)).astype(np.int32)


def _before(shares: Ints, splits: Ints, at: Ints, part: int) -> Ints:
    """Rows of the table of shares: the share of the block before, or none."""
    return shares[at, (part - 1) * step_of(splits[at])] if part else np.full(len(at), SILENT, np.int32)


def tiers(frames: int) -> list[Tier]:
    """The order in which the levels of so many frames are written."""
    order = [Tier(0, [0], [0], [0])]
    order += [Tier(1, [at], [at - 8], [at - 8]) for at in range(8, frames, 8)]
    for kind, apart in ((2, 4), (3, 2), (4, 1)):
        inner = range(apart, frames, 2 * apart)
        before = [at - apart for at in inner]
        after = [at + apart if at + apart < frames else at - apart for at in inner]
        order.append(Tier(kind, list(inner), before, after))
    return [tier for tier in order if tier.frames]
