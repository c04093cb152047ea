"""Context prior: how likely each symbol of a frame is, judged from the group so far by a small network of integers.

    frames before --> history --> hidden --> hidden --+--> block 0 --> shares --> symbols of block 0
                                                      |                              |
                                                      +--> block 1 <-----------------+ ... block after block

A symbol's distribution mixes two bell curves; the network chooses their places, widths and weight. What falls outside
the block's window goes to one more share, the escape, after which the symbol follows as it is.

Everything is exact. Float32 arrays hold whole numbers: weights are int8, activations within +-127, and every sum stays
below 2^24 in whatever order it is taken (checked when the prior is made), so all processors and libraries give the same
numbers. Shares are float64 multiples of 2^-28. The rest is integer arithmetic; shifts round down.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from nacre.core.errors import BundleError, StreamError
from nacre.core.types import Array, Floats, Ints, Shares
from nacre.entropy.symbols import LARGEST, SymbolRequest, answered_requests, request_symbols
from nacre.io.arrays import Members, read_arrays, write_arrays

Longs = NDArray[np.int64]

TOP = 127  # weights and activations lie within +-TOP
EXACT = 1 << 24  # float32 holds every whole number up to here
CURVE_BITS, WEIGHT_BITS = 20, 8  # of a curve's shares and the mixture's weight; with the coder's 24 below float64's 53
PARTS = 8  # places per symbol at which a curve may stand
SPREAD = 32  # symbols between the two curves, at most
WIDTHS, WEIGHTS = 48, 64  # widths a curve may have, weights the second curve may have
PLANES = 5  # numbers per symbol from the network: place, width, weight, width of the second curve, its distance
FINE = 12  # fractional bits of mult, base and follow
PACES = (1, 2, 4, 1, 2)  # the history's averages move by 2^-pace of the difference: three of sizes, two with signs
HISTORY = 2 + len(PACES)  # numbers per dim that the network sees: two frames and the averages
LOGS, CURVE, CURVE_STEPS = 1 << 12, 1 << 11, 128  # entries of the tables; `curve` goes in steps of 1/128 of a width
TABLE = 1 << 16  # sum of a table of the others
MOST_BYTES = 4 << 20  # of one array in a file
MOST = (16, 1024, 256, 32, 1024, 1024, 4, 33)  # of each of Sizes: bounds what a file can make us read
_PART_BITS = PARTS.bit_length() - 1
_LOW = np.array([-PARTS * LARGEST, 0, 0, 0, -PARTS * SPREAD])[:, None]  # of the planes
_HIGH = np.array([PARTS * LARGEST, WIDTHS - 1, WEIGHTS - 1, WIDTHS - 1, PARTS * SPREAD])[:, None]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a context prior, in the order of its file."""

    levels: int
    dims: int  # latent dims D
    used: int  # dims U that the network codes; the others have a table each
    blocks: int
    hidden: int
    small: int  # hidden numbers of a block
    depth: int  # hidden layers
    others: int  # symbols in a table of the others, odd

    def __post_init__(self) -> None:
        for field, most in zip(fields(self), MOST, strict=True):
            size = getattr(self, field.name)
            if not 1 <= size <= most:
                raise BundleError(f"the context prior's {field.name} must be 1 to {most}, not {size}")
        if not self.blocks <= self.used <= self.dims or self.others % 2 == 0:
            rule = "blocks <= used <= dims and an odd number of others"
            raise BundleError(f"the context prior needs {rule}, not {self}")

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Kind and shape of every array."""
        wide, layers = self.blocks * self.small, (self.depth - 1, self.hidden)
        return {
            "order": ("<u2", (self.used,)),  # the dims that the network codes, in coding order
            "ends": ("<u2", (self.blocks,)),  # where in that order each block ends
            "reach": ("<u2", (self.blocks,)),  # a block's window is centre +- reach
            "ratio": ("<u2", (self.levels, self.used)),  # symbol to 1/256 of a step that all levels share
            "logs": ("|u1", (LOGS,)),  # 1/16 of that step to logarithm
            "w_in": ("|i1", (HISTORY * self.used, self.hidden)),
            "b_in": ("<i4", (self.levels, self.hidden)),
            "s_in": ("|u1", (self.hidden,)),
            "w_mid": ("|i1", (*layers, self.hidden)),
            "b_mid": ("<i4", layers),
            "s_mid": ("|u1", layers),
            "w_block": ("|i1", (self.hidden, wide)),
            "b_block": ("<i4", (self.levels, wide)),
            "s_block": ("|u1", (wide,)),
            "w_frame": ("|i1", (self.used, wide)),  # dims of the same frame to blocks; used where they come earlier
            "w_out": ("|i1", (self.small, PLANES, self.used)),
            "b_out": ("<i4", (PLANES, self.used)),
            "s_out": ("|u1", (PLANES, self.used)),
            "mult": ("<i4", (self.levels, PLANES, self.used)),  # the network's numbers to places, indices
            "base": ("<i4", (self.levels, PLANES, self.used)),
            "follow": ("<i4", (self.levels, self.used)),  # how far a place follows the symbol before
            "start": ("<i2", (self.levels, self.used)),  # the symbol taken to lie before the first
            "curve": ("<i4", (CURVE,)),  # share of a bell curve that lies above; from the middle on
            "narrow": ("<i4", (WIDTHS,)),  # 1 / PARTS of a symbol in 1/256 steps of `curve`
            "weight": ("<u2", (WEIGHTS,)),
            "tables": ("<i4", (self.levels, self.dims - self.used, self.others + 1)),  # of the others, escape last
        }


class _Block(NamedTuple):
    """One block ready for use; n dims."""

    dims: slice  # in coding order
    reach: int
    wide: slice  # its part of w_block's numbers
    scale: Floats  # [small]
    w_frame: Floats  # [dims before, small]
    w_out: Floats  # [small, PLANES * n]
    b_out: Floats
    s_out: Floats
    windows: Shares  # [places, 2 * reach + 2] of the bank
    inside: Shares  # [2 * reach + 2]: 1 but for the escape


class _Level(NamedTuple):
    """What depends on the level, for M sequences, or for one that stands for all."""

    ratio: Ints  # [M, U]
    b_in: Floats  # [M, hidden]
    b_block: Floats  # [M, blocks * small]
    mult: Longs  # [M, PLANES, U]
    base: Longs
    follow: Longs  # [M, U]

    def rows(self, at: slice | NDArray[np.intp]) -> _Level:
        """Some of the sequences."""
        return _Level(*(part[at] for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class History:
    """What the network goes by after some frames of one channel, so that the next packet can go on from them."""

    planes: Floats  # [HISTORY, U]
    averages: Floats  # [len(PACES), U], with 8 more bits
    last: Ints  # [U] symbols of the last frame, in 1/256 of a step that all levels share


class _Past:
    """What the network sees of the frames before: planes [M, HISTORY, U] for M sequences side by side."""

    def __init__(self, sequences: int, used: int, histories: Sequence[History | None] = ()):
        self.planes = np.zeros((sequences, HISTORY, used), np.float32)
        self.averages = np.zeros((sequences, len(PACES), used), np.float32)
        self.now = np.zeros_like(self.averages)
        self._pace = np.array([2.0**-pace for pace in PACES], np.float32)[:, None]
        for row, history in enumerate(histories):
            if history:
                self.planes[row], self.averages[row] = history.planes, history.averages

    def push(self, logs: Floats) -> None:
        """One frame's signed logarithms [M, U], whole numbers within +-TOP."""
        count = len(logs)  # sequences that have ended are last
        planes, averages, now = self.planes[:count], self.averages[:count], self.now[:count]
        planes[:, 1] = planes[:, 0]
        planes[:, 0] = logs
        self.approach(averages, self.aims(logs), now)
        np.multiply(averages, np.float32(1 / 256), out=now)
        np.floor(now, out=planes[:, 2:])

    @staticmethod
    def aims(logs: Floats) -> Floats:
        """What averages move to with logarithms [..., U]: [..., len(PACES), U], with 8 more bits."""
        aims = np.empty((*logs.shape[:-1], len(PACES), logs.shape[-1]), np.float32)
        aims[..., :3, :] = np.abs(logs)[..., None, :]
        aims[..., 3:, :] = logs[..., None, :]
        aims *= 256
        return aims

    def approach(self, averages: Floats, aims: Floats, now: Floats) -> None:
        """Move averages [M, len(PACES), U] towards `aims`, in place; `now` is room for it."""
        np.subtract(aims, averages, out=now)
        now *= self._pace
        averages += np.floor(now, out=now)


@dataclass(frozen=True, eq=False)
class ContextPrior:
    """Integer arrays of a context prior by name, as `Sizes.arrays` lists them. Checked on creation."""

    sizes: Sizes
    arrays: dict[str, Array]

    def __post_init__(self) -> None:
        needed = self.sizes.arrays
        object.__setattr__(self, "arrays", {name: np.ascontiguousarray(self.arrays[name]) for name in self.arrays})
        given = {name: (array.dtype.newbyteorder("<").str, array.shape) for name, array in self.arrays.items()}
        for name in [*needed, *given]:
            if given.get(name) != needed.get(name):
                forms = f"{needed.get(name, 'absent')}, not {given.get(name, 'absent')}"
                raise BundleError(f"the context prior's array {name} must be {forms}")
        self._check_choices()
        self._check_sums()

    def decoding(
        self, levels: Sequence[int], frames: Sequence[int], histories: Sequence[History | None] = ()
    ) -> Generator[SymbolRequest, Ints, list[Ints]]:
        """Requests the symbols of S groups side by side and returns them, [T, D] each.

        `levels` and `frames` are those of each group, `histories` what comes before it, by default nothing. Send the
        answers to a SymbolRequest: [S, n], counted from the first share. A group's shares do not depend on the groups
        beside it.
        """
        turn = sorted(range(len(frames)), key=lambda group: -frames[group])  # longest first
        lengths = [frames[group] for group in turn]
        earlier = [histories[group] for group in turn] if histories else []
        level, before = self._level([levels[group] for group in turn], earlier)
        symbols = np.zeros((len(turn), max(lengths, default=0), self.sizes.dims), np.int32)
        past = _Past(len(turn), self.sizes.used, earlier)
        for frame in range(symbols.shape[1]):
            live = sum(length > frame for length in lengths)
            if live < len(level.ratio):
                level = level.rows(slice(live))
            before, logs = yield from self._frame(level, past.planes[:live], before[:live], turn[:live])
            symbols[:live, frame, self.arrays["order"]] = before
            past.push(logs)
        for row, group in enumerate(turn):
            mine = symbols[row, : lengths[row]]
            shares = self._other_shares(levels[group], len(mine))
            if shares.size:
                answers = yield from request_symbols(
                    [group], shares[None], np.array(-(self.sizes.others // 2), np.int32)
                )
                mine[:, self._others] = answers.reshape(len(mine), -1)
        place = {group: row for row, group in enumerate(turn)}
        return [symbols[place[group], :length] for group, length in enumerate(frames)]

    def encoding(self, symbols: Ints, level: int, history: History | None = None) -> Iterator[tuple[Ints, Shares]]:
        """What `decoding` requests in one group [T, D], as (answers [n], shares [n, A]) in the same order."""
        if symbols.ndim != 2 or symbols.shape[1] != self.sizes.dims or symbols.dtype.kind != "i":
            form = f"integers [T, {self.sizes.dims}]"
            raise StreamError(f"symbols must be {form}, not {symbols.dtype} of shape {symbols.shape}")
        if ((symbols < -LARGEST) | (symbols > LARGEST)).any():
            raise StreamError(f"symbols beyond {LARGEST} have no code")
        fixed, start = self._level([level], [history])
        if not len(symbols):
            return
        mine = symbols[:, self.arrays["order"]].astype(np.int32)
        logs = self._logs(mine, fixed.ratio)
        planes = planes_of(logs[None], [history])[0]
        hidden = self._hidden(planes, fixed)
        base = self._base(fixed, np.concatenate([start, mine[:-1]]))
        answered = [
            answered_requests(mine[:, block.dims], *self._shares(block, hidden, logs, base, fixed))
            for block in self._blocks
        ]
        for frame in zip(*answered, strict=True):
            for block in frame:
                yield from block
        others = self._other_shares(level, len(mine))
        if others.size:
            lowest = np.array(-(self.sizes.others // 2), np.int32)
            yield from answered_requests(symbols[:, self._others].reshape(1, -1), lowest, others[None])[0]

    def after(self, symbols: Ints, level: int, history: History | None) -> History:
        """What comes before the next packet: `history`, then symbols [T, D], T above 0."""
        ratio = self.arrays["ratio"][[level]].astype(np.int32)
        mine = symbols[:, self.arrays["order"]].astype(np.int32)
        past = _Past(1, self.sizes.used, [history])
        for logs in self._logs(mine, ratio):
            past.push(logs[None])
        return History(past.planes[0], past.averages[0], mine[-1] * ratio[0])

    def costs(self, symbols: Ints, level: int) -> Floats:
        """Ideal bits [T, D] of symbols [T, D] as one group; those of an escape go to the symbol that escaped."""
        costs = np.zeros(symbols.shape, np.float32)
        rows, order = np.arange(len(symbols)) * self.sizes.dims, self.arrays["order"].astype(np.intp)
        blocks = [row + order[block.dims] for row in rows for block in self._blocks]
        places = iter([*blocks, np.add.outer(rows, self._others).ravel()])
        escaped = None
        for answers, shares in self.encoding(symbols, level):
            at = next(places) if escaped is None else escaped
            bits = -np.log2(np.maximum(shares[np.arange(len(answers)), answers], 2.0**-24))
            np.add.at(costs.reshape(-1), at, bits.astype(np.float32))
            outside = answers == shares.shape[-1] - 1
            escaped = at[outside] if escaped is None and outside.any() else None
        return costs

    def bits(self, symbols: Ints, level: int) -> float:
        """Ideal bits of symbols [T, D] as one group."""
        return float(self.costs(symbols, level).sum(dtype=np.float64))

    def _frame(
        self, level: _Level, planes: Floats, before: Ints, streams: Sequence[int]
    ) -> Generator[SymbolRequest, Ints, tuple[Ints, Floats]]:
        """One frame of M sequences: its symbols [M, U] and their logarithms."""
        hidden, base = self._hidden(planes, level), self._base(level, before)
        now: Ints = np.empty(before.shape, np.int32)
        logs: Floats = np.empty(before.shape, np.float32)
        for block in self._blocks:
            lowest, shares = self._shares(block, hidden, logs, base, level)
            now[:, block.dims] = answers = yield from request_symbols(streams, shares, lowest)
            logs[:, block.dims] = self._logs(answers, level.ratio[:, block.dims])
        return now, logs

    def _level(self, levels: Sequence[int], histories: Sequence[History | None] = ()) -> tuple[_Level, Ints]:
        """What depends on the level, for each of these, and the symbols [M, U] before the first frame."""
        for level in levels:
            if not 0 <= level < self.sizes.levels:
                raise StreamError(f"the quality level must be 0 to {self.sizes.levels - 1}, not {level}")
        at = np.array(levels, np.intp)
        fixed, start = self._by_level.rows(at), self.arrays["start"][at].astype(np.int32)
        for row, history in enumerate(histories):
            if history:
                one = np.maximum(fixed.ratio[row], 1)
                start[row] = (2 * history.last + one) // (2 * one)
        return fixed, start

    def _logs(self, symbols: Ints, ratio: Ints) -> Floats:
        """Signed logarithms of symbols [M, n] at these ratios, whole numbers within +-TOP."""
        sizes = np.abs(symbols)
        sizes *= ratio
        sizes >>= 4
        np.minimum(sizes, LOGS - 1, out=sizes)
        return np.copysign(self._log_table[sizes], symbols.astype(np.float32))

    def _hidden(self, planes: Floats, level: _Level) -> Floats:
        """Sums [M, blocks * small] that history [M, HISTORY, U] gives to the blocks."""
        hidden = planes.reshape(len(planes), -1)
        for weights, bias, scale in self._layers:
            hidden = hidden @ weights
            hidden += level.b_in if bias is None else bias
            _activate(hidden, scale)
        hidden = hidden @ self._w_block
        hidden += level.b_block
        return hidden

    def _base(self, level: _Level, before: Ints) -> Longs:
        """`base` with the symbols before [M, U] followed, [M, PLANES, U]."""
        base = np.repeat(level.base, len(before), 0) if len(level.base) < len(before) else level.base.copy()
        base[:, 0] += level.follow * before
        return base

    def _shares(self, block: _Block, hidden: Floats, logs: Floats, base: Longs, level: _Level) -> tuple[Ints, Shares]:
        """Symbol of the first share [M, n] int32, and shares [M, n, A] of a block, from what is known before it."""
        small = logs[:, : block.dims.start] @ block.w_frame  # zeros for the first block
        small += hidden[:, block.wide]
        _activate(small, block.scale)
        out = small @ block.w_out
        out += block.b_out
        out *= block.s_out
        chosen = np.floor(out, out=out).astype(np.int64).reshape(len(out), PLANES, -1)
        chosen *= level.mult[:, :, block.dims]
        chosen += base[:, :, block.dims]
        chosen >>= FINE
        np.maximum(chosen, _LOW, out=chosen)
        np.minimum(chosen, _HIGH, out=chosen)
        centre = chosen[:, 0] >> _PART_BITS
        at = np.empty((2, *centre.shape), np.int64)  # where the curves stand, in parts from the centre
        np.bitwise_and(chosen[:, 0], PARTS - 1, out=at[0])
        np.add(at[0], chosen[:, 4], out=at[1])
        index = at & (PARTS - 1)
        for curve, width in enumerate((1, 3)):
            index[curve] += chosen[:, width] << _PART_BITS
        index *= self._bank.shape[1]
        index += self._middle - block.reach
        at >>= _PART_BITS
        index -= at
        one, shares = block.windows[index]  # [2, M, n, A]
        shares -= one
        shares *= self._weights[chosen[:, 2]][..., None]
        shares += one
        np.subtract(1, shares @ block.inside, out=shares[..., -1])
        return (centre - block.reach).astype(np.int32), shares

    def _other_shares(self, level: int, frames: int) -> Shares:
        """Shares [frames * (D - U), A] of the dims that go by tables, frame after frame."""
        return np.tile(self.arrays["tables"][level] / float(TABLE), (frames, 1))

    @cached_property
    def _by_level(self) -> _Level:
        """What depends on the level, for all of them."""
        a = self.arrays
        b_in, b_block = (a[name].astype(np.float32) for name in ("b_in", "b_block"))
        mult, base, follow = (a[name].astype(np.int64) for name in ("mult", "base", "follow"))
        return _Level(a["ratio"].astype(np.int32), b_in, b_block, mult, base, follow)

    @cached_property
    def _others(self) -> Array:
        other = np.ones(self.sizes.dims, bool)
        other[self.arrays["order"]] = False
        return np.flatnonzero(other)

    @cached_property
    def _log_table(self) -> Floats:
        return self.arrays["logs"].astype(np.float32)

    @cached_property
    def _weights(self) -> Shares:
        return self.arrays["weight"] / float(1 << WEIGHT_BITS)

    @cached_property
    def _w_block(self) -> Floats:
        return self.arrays["w_block"].astype(np.float32)

    @cached_property
    def _layers(self) -> list[tuple[Floats, Floats | None, Floats]]:
        """Weights, bias (None: by level) and scale of each hidden layer."""
        a = self.arrays
        rest = zip(a["w_mid"].astype(np.float32), a["b_mid"].astype(np.float32), _scale(a["s_mid"]), strict=True)
        return [(a["w_in"].astype(np.float32), None, _scale(a["s_in"])), *rest]

    @cached_property
    def _blocks(self) -> list[_Block]:
        a, small, start, blocks = self.arrays, self.sizes.small, 0, []
        for index, (end, reach) in enumerate(zip(a["ends"].tolist(), a["reach"].tolist(), strict=True)):
            dims, wide = slice(start, end), slice(index * small, (index + 1) * small)
            out = [np.ascontiguousarray(a[name][..., dims], np.float32) for name in ("w_out", "b_out")]
            blocks.append(
                _Block(
                    dims,
                    reach,
                    wide,
                    _scale(a["s_block"][wide]),
                    np.ascontiguousarray(a["w_frame"][:start, wide], np.float32),
                    out[0].reshape(small, -1),
                    out[1].reshape(-1),
                    _scale(a["s_out"][:, dims]).reshape(-1),
                    _windows(self._bank, 2 * reach + 2),
                    np.append(np.ones(2 * reach + 1), 0.0),
                )
            )
            start = end
        return blocks

    @cached_property
    def _middle(self) -> int:
        """Column of the bank for the symbol at a curve's place."""
        return int(self.arrays["reach"].max()) + SPREAD

    @cached_property
    def _bank(self) -> Shares:
        """Every curve's shares [WIDTHS * PARTS, columns]: symbols around its place."""
        symbols = np.arange(2 * self._middle + 2) - self._middle
        up = PARTS * symbols + PARTS // 2 - np.arange(PARTS)[:, None]  # upper edge of a symbol, [PARTS, columns]
        edges = np.concatenate([up[:, :1] - PARTS, up], 1)
        steps = np.abs(edges) * self.arrays["narrow"].astype(np.int64)[:, None, None]
        at = np.minimum(steps >> 8, CURVE - 2)
        curve = self.arrays["curve"].astype(np.int64)
        above = curve[at] + ((curve[at + 1] - curve[at]) * np.minimum(steps - (at << 8), 256) >> 8)
        above = np.where(edges < 0, (1 << CURVE_BITS) - above, above)  # [WIDTHS, PARTS, columns + 1]
        bank: Shares = -np.diff(above).reshape(WIDTHS * PARTS, -1) / float(1 << CURVE_BITS)
        return bank

    def _check_choices(self) -> None:
        a, sizes = self.arrays, self.sizes
        curve, tables = a["curve"].astype(np.int64), a["tables"].astype(np.int64)
        rules = {
            "order": len(set(a["order"].tolist())) == sizes.used and a["order"].max() < sizes.dims,
            "ends": a["ends"][-1] == sizes.used and (np.diff(a["ends"], prepend=0) > 0).all(),
            "reach": a["reach"].min() >= 1 and a["reach"].max() <= LARGEST,
            "logs": a["logs"].max() <= TOP,
            "curve": curve[0] == 1 << (CURVE_BITS - 1) and curve[-1] == 0 and (np.diff(curve) <= 0).all(),
            "narrow": a["narrow"].min() >= 1 and a["narrow"].max() <= 1 << 20,
            "weight": a["weight"].max() <= 1 << WEIGHT_BITS,
            "tables": (tables >= 0).all() and (tables.sum(-1) == TABLE).all(),
        } | {name: a[name].max(initial=0) <= 24 for name in ("s_in", "s_mid", "s_block", "s_out")}
        for name, holds in rules.items():
            if not holds:
                raise BundleError(f"the context prior's {name} holds values out of range; copy the model again")

    def _check_sums(self) -> None:
        """No sum of a layer may reach EXACT, whatever its inputs."""
        a, small = self.arrays, self.sizes.small
        frame = a["w_frame"].astype(np.int64)
        for index, start in enumerate([0, *a["ends"].tolist()[:-1]]):
            frame[start:, index * small : (index + 1) * small] = 0
        layers = [
            ("w_in", a["w_in"], a["b_in"]),
            *(("w_mid", weights, bias) for weights, bias in zip(a["w_mid"], a["b_mid"], strict=True)),
            ("w_block", np.concatenate([a["w_block"], frame]), a["b_block"]),
            ("w_out", a["w_out"], a["b_out"]),
        ]
        for name, weights, bias in layers:
            sizes = (
                np.abs(np.atleast_2d(bias.astype(np.int64))).max(0)
                if name != "w_out"
                else np.abs(bias.astype(np.int64))
            )
            most = int((TOP * np.abs(weights.astype(np.int64)).sum(0) + sizes).max())
            if most >= EXACT:
                raise BundleError(f"the context prior's {name} makes sums up to {most}, which must stay below {EXACT}")

    def save(self, path: Path) -> None:
        """Write the arrays, see `io.arrays`."""
        write_arrays(path, {"sizes": np.array(astuple(self.sizes), "<i4")} | self.arrays)

    @classmethod
    def load(cls, path: str | Path) -> ContextPrior:
        """Read what `save` wrote; anything else, hostile sizes included, ends in BundleError."""
        one = Sizes(*[1] * len(MOST)).arrays
        members: Members = {"sizes": ("<i4", 1)} | {name: (kind, len(shape)) for name, (kind, shape) in one.items()}
        arrays = read_arrays(path, members, MOST_BYTES)
        sizes = arrays.pop("sizes").tolist()
        if len(sizes) != len(MOST):
            raise BundleError(f"{path} must hold {len(MOST)} sizes, not {len(sizes)}")
        return cls(Sizes(*sizes), arrays)


def planes_of(logs: Floats, histories: Sequence[History | None] = ()) -> Floats:
    """What the network sees at each frame of logarithms [B, T, U]: [B, T, HISTORY, U]."""
    groups, frames, used = logs.shape
    past, seen = _Past(groups, used, histories), np.empty((groups, frames, HISTORY, used), np.float32)
    averages, now, aims = past.averages, past.now, past.aims(logs)
    for frame in range(frames):
        seen[:, frame, 2:] = averages
        past.approach(averages, aims[:, frame], now)
    seen[:, :, 2:] *= np.float32(1 / 256)
    np.floor(seen[:, :, 2:], out=seen[:, :, 2:])
    before = np.concatenate([past.planes[:, 1::-1], logs], 1)  # [B, 2 + T, U]
    seen[:, :, 0], seen[:, :, 1] = before[:, 1:-1], before[:, :-2]
    return seen


def _activate(sums: Floats, scale: Floats) -> None:
    """Shift down and keep within 0..TOP, in place."""
    sums *= scale
    np.floor(sums, out=sums)
    np.maximum(sums, 0, out=sums)
    np.minimum(sums, TOP, out=sums)


def _scale(shifts: Array) -> Floats:
    """2 ** -shifts, exact."""
    return np.ldexp(np.float32(1), -shifts.astype(np.int32)).astype(np.float32)


def _windows(bank: Shares, width: int) -> Shares:
    """All stretches [places, width] of the bank's rows laid end to end, without a copy."""
    flat = np.ascontiguousarray(bank).reshape(-1)
    size = flat.itemsize
    return as_strided(flat, (len(flat) - width + 1, width), (size, size), writeable=False)
