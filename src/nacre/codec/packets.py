"""Symbols of a group <-> a packet, by either prior of a model: static tables, or the context prior.

Behind the symbols of the latents follow those of the residual layer, at levels that have one, and of the band layer, in
files that have one.

    symbols, level, gain code --> gain byte + range coder's bytes --> Packet, with a check value over the symbols

The static tables cost more bytes and less time. The context prior is decoded for many groups side by side, which is
what makes it fast; a group's symbols do not depend on the groups beside it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from nacre.core.errors import StreamError
from nacre.core.types import Array, Shares
from nacre.dsp.blas import one_thread
from nacre.dsp.gain import GAIN_CODES
from nacre.entropy import range_coder
from nacre.entropy.band import band_tables
from nacre.entropy.context_prior import ContextPrior, History
from nacre.entropy.residual import ResidualLayer
from nacre.entropy.static_prior import StaticPrior
from nacre.entropy.symbols import SymbolRequest
from nacre.format.file import MOST_PAYLOAD_BYTES, Packet
from nacre.model.model import Model

CONTEXT, STATIC = "context", "static"
PRIORS = (CONTEXT, STATIC)
LOST = "the packet is lost"
SIDE_BY_SIDE = 64  # groups that the context prior decodes at once; bounds the memory
ESCAPED_BYTES = 5  # a symbol costs at most two answers of 24 bits and 9


@dataclass(frozen=True)
class Group:
    """One channel of one group as read: symbols [T, K], None for silence, and the gain code they were coded with.

    `residual` are symbols of the residual layer [S, size], None at levels without; `band` those of the band layer
    [T, B + 1], None in files without.
    """

    level: int
    frames: int
    symbols: Array | None
    code: int = 0
    residual: Array | None = None
    band: Array | None = None


class Symbols(NamedTuple):
    """Of the latents, of the residual layer, of the band layer."""

    latents: Array
    residual: Array | None = None
    band: Array | None = None


class _Written(NamedTuple):
    """A packet that holds symbols, its place among the others, and what is known before it is read."""

    place: int
    packet: Packet
    frames: int
    history: History | None


@dataclass(frozen=True, eq=False)
class PacketCoder:
    """One way of a model to write symbols. `context` None: by the static tables. `bands` of a band layer, or 0."""

    static: StaticPrior
    context: ContextPrior | None
    residual: ResidualLayer | None = None
    bands: int = 0

    @classmethod
    def of(cls, model: Model, prior: str = CONTEXT, bands: int = 0) -> PacketCoder:
        """By one of PRIORS; a model without a context prior has one way only."""
        return cls(model.static_prior, model.context_prior if prior == CONTEXT else None, model.residual, bands)

    @one_thread
    def pack(
        self,
        symbols: Array,
        level: int,
        code: int,
        residual: Array | None = None,
        history: History | None = None,
        band: Array | None = None,
    ) -> Packet:
        """symbols [T, K], of the residual layer [S, size] at a level that has one, and of the band layer -> packet."""
        assert (residual is not None) == self._has_residual(level), level
        assert (band is not None) == (self.bands > 0), self.bands
        if residual is None and band is None and self.context is None:
            data = range_coder.encode(symbols, self.static.tables(level))
        else:
            answered = [self._prior_encoding(symbols, level, history)]
            answered += [self.residual.encoding(residual)] if residual is not None and self.residual else []
            answered += [band_tables().encoding(band)] if band is not None else []
            data = range_coder.encode_symbols(chain(*answered))
        if (
            len(data) >= MOST_PAYLOAD_BYTES and residual is not None and residual.any()
        ):  # networks that know no such sound
            return self.pack(symbols, level, code, np.trunc(residual / 2).astype(np.int32), history, band)
        return Packet(level, bytes([code]) + data, range_coder.check_value(symbols, level, code, residual, band))

    @one_thread
    def unpack(
        self,
        packets: Sequence[Packet | None],
        frames: Sequence[int],
        histories: Sequence[History | None] | None = None,
    ) -> list[Group | StreamError]:
        """Groups of packets, of so many frames each; in place of one that is lost or damaged, what is wrong with it.

        `histories` are what the context prior goes by before each, by default nothing.
        """
        groups: list[Group | StreamError] = []
        histories = histories or len(packets) * [None]
        for start in range(0, len(packets), SIDE_BY_SIDE):
            part = slice(start, start + SIDE_BY_SIDE)
            groups += self._side_by_side(packets[part], frames[part], histories[part])
        return groups

    def after(self, symbols: Array | None, level: int, history: History | None) -> History | None:
        """What the context prior goes by in the packet behind symbols [T, K]; silence changes nothing."""
        if self.context is None or symbols is None:
            return history
        return self.context.after(symbols, level, history)

    @property
    def columns(self) -> int:
        """Symbols a frame, K."""
        return int(self.static.counts.shape[1])

    @one_thread
    def costs(self, symbols: Array, level: int) -> Array:
        """Ideal bits [T, K] float32 of each of symbols [T, K]."""
        if self.context:
            return self.context.costs(symbols, level)
        costs = self.static.costs(level)  # [K, A]
        bits: Array = costs[np.arange(symbols.shape[1]), symbols + costs.shape[1] // 2]
        return bits

    @one_thread
    def residual_costs(self, residual: Array | None, frames: int) -> Array:
        """Ideal bits [T] float32 of each frame of the symbols of a residual layer [S, size]; 0 where there is none."""
        if residual is None or self.residual is None:
            return np.zeros(frames, np.float32)
        bits: Array = self.residual.costs(residual).reshape(frames, -1).sum(1)
        return bits

    @one_thread
    def band_costs(self, band: Array | None, frames: int) -> Array:
        """Ideal bits [T] float32 of each frame of the band layer's symbols [T, B + 1]; 0 where there are none."""
        return np.zeros(frames, np.float32) if band is None else band_tables().costs(band)

    def _prior_encoding(self, symbols: Array, level: int, history: History | None) -> Iterator[tuple[Array, Shares]]:
        return self.context.encoding(symbols, level, history) if self.context else self.static.encoding(symbols, level)

    def _side_by_side(
        self, packets: Sequence[Packet | None], frames: Sequence[int], histories: Sequence[History | None]
    ) -> list[Group | StreamError]:
        groups: list[Group | StreamError] = [StreamError(LOST) for _ in packets]
        complete: list[_Written] = []
        for index, (packet, count) in enumerate(zip(packets, frames, strict=True)):
            if packet is not None and packet.level >= len(self.static.counts):
                limit = f"below {len(self.static.counts)}"
                groups[index] = StreamError(f"the quality level must be {limit}, not {packet.level}")
            elif packet is not None and not packet.payload:
                groups[index] = Group(packet.level, count, None)
            elif packet is not None:
                complete.append(_Written(index, packet, count, histories[index]))
        for written, symbols in zip(complete, self._symbols(complete), strict=True):
            held = symbols if isinstance(symbols, StreamError) else _checked(written.packet, symbols)
            groups[written.place] = held
        return groups

    def _symbols(self, complete: list[_Written]) -> list[Symbols | StreamError]:
        if len(complete) > 1 and self.context:
            try:
                return list(self._decoded(complete))
            except StreamError:
                pass  # one of them is no code at all: each by itself
        symbols: list[Symbols | StreamError] = []
        for written in complete:
            try:
                symbols += self._decoded([written])
            except StreamError as error:
                symbols.append(error)
        return symbols

    def _decoded(self, complete: list[_Written]) -> list[Symbols]:
        if not (self.context or self.bands or any(self._has_residual(written.packet.level) for written in complete)):
            return [Symbols(self._by_tables(written)) for written in complete]
        more = self.residual.size * self.residual.per_frame if self.residual else 0
        more += self.bands + 1 if self.bands else 0
        for written in complete:
            size, longest = len(_data(written.packet)), ESCAPED_BYTES * written.frames * (self.columns + more)
            if size > longest:
                raise StreamError(f"a payload of {written.frames} frames has at most {longest} bytes, not {size}")
        return list(range_coder.serve([_data(written.packet) for written in complete], self._requests(complete)))

    def _by_tables(self, written: _Written) -> Array:
        return range_coder.decode(_data(written.packet), written.frames, self.static.tables(written.packet.level))

    def _has_residual(self, level: int) -> bool:
        return self.residual is not None and self.residual.covers(level)

    def _requests(self, complete: list[_Written]) -> Generator[SymbolRequest, Array, list[Symbols]]:
        levels, frames = [written.packet.level for written in complete], [written.frames for written in complete]
        if self.context:
            symbols = yield from self.context.decoding(levels, frames, [written.history for written in complete])
        else:
            symbols = yield from self.static.decoding(levels, frames)
        residual: dict[int, Array] = {}
        if layered := [stream for stream, level in enumerate(levels) if self._has_residual(level)]:
            assert self.residual
            blocks = [frames[stream] * self.residual.per_frame for stream in layered]
            coefficients = yield from self.residual.decoding(layered, blocks)
            residual = dict(zip(layered, coefficients, strict=True))
        bands: dict[int, Array] = {}
        if self.bands:
            layers = yield from band_tables().decoding(range(len(complete)), frames, self.bands)
            bands = dict(enumerate(layers))
        return [Symbols(latents, residual.get(at), bands.get(at)) for at, latents in enumerate(symbols)]


def _data(packet: Packet) -> bytes:
    """What the range coder wrote; zeros behind it fill packets of one size and say nothing."""
    return packet.payload[1:].rstrip(b"\0")


def _checked(packet: Packet, symbols: Symbols) -> Group | StreamError:
    code = packet.payload[0]
    check = range_coder.check_value(symbols.latents, packet.level, code, symbols.residual, symbols.band)
    if check == packet.check and code < GAIN_CODES:
        return Group(packet.level, len(symbols.latents), symbols.latents, code, symbols.residual, symbols.band)
    checks = f"{check:04x}, not {packet.check:04x}"
    return StreamError(f"the symbol check failed ({checks}): damaged bytes, or another model; see nacre info")
