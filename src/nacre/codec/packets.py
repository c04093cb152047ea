"""Symbols of a group <-> a packet, by either prior of a model: static tables, or the context prior.

Behind the symbols of the latents follow those of the refinement, at the levels that have one, and of the band layer,
in files that have one.

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
from nacre.entropy.residual import Refinement
from nacre.entropy.static_prior import StaticPrior
from nacre.entropy.symbols import SymbolRequest
from nacre.format.file import MOST_PAYLOAD_BYTES, Packet
from nacre.model.model import Model

CONTEXT, STATIC = "context", "static"
PRIORS = (CONTEXT, STATIC)
LOST = "packet lost"
SIDE_BY_SIDE = 64  # groups that the context prior decodes at once; bounds the memory
ESCAPED_BYTES = 5  # a symbol costs at most two answers of 24 bits and 9


@dataclass(frozen=True)
class Group:
    """One channel of one group as read: symbols [T, K], None for silence, and the gain code they were coded with.

    `fine` are the symbols of the refinement [S, size], None at levels that have none; `band` those of the band layer
    [T, B + 1], None in files that have none.
    """

    level: int
    frames: int
    symbols: Array | None
    code: int = 0
    fine: Array | None = None
    band: Array | None = None


class Symbols(NamedTuple):
    """Of the latents, of the refinement, of the band layer."""

    latents: Array
    fine: Array | None = None
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
    refinement: Refinement | None = None
    bands: int = 0

    @classmethod
    def of(cls, model: Model, prior: str = CONTEXT, bands: int = 0) -> PacketCoder:
        """By one of PRIORS; a model without a context prior has one way only."""
        return cls(model.static_prior, model.context_prior if prior == CONTEXT else None, model.refinement, bands)

    @one_thread
    def pack(
        self,
        symbols: Array,
        level: int,
        code: int,
        fine: Array | None = None,
        history: History | None = None,
        band: Array | None = None,
    ) -> Packet:
        """symbols [T, K], those of the refinement [S, size] at a level that has one, and of the layer -> packet."""
        assert (fine is not None) == self._refines(level), level
        assert (band is not None) == (self.bands > 0), self.bands
        if fine is None and band is None and self.context is None:
            data = range_coder.encode(symbols, self.static.tables(level))
        else:
            pieces = [self._prior_encoding(symbols, level, history)]
            pieces += [self.refinement.encoding(fine)] if fine is not None and self.refinement else []
            pieces += [band_tables().encoding(band)] if band is not None else []
            data = range_coder.encode_pieces(chain(*pieces))
        if len(data) >= MOST_PAYLOAD_BYTES and fine is not None and fine.any():  # of sound the networks know nothing of
            return self.pack(symbols, level, code, np.trunc(fine / 2).astype(np.int32), history, band)
        return Packet(level, bytes([code]) + data, range_coder.check_value(symbols, level, code, fine, band))

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
        found: list[Group | StreamError] = []
        histories = histories or len(packets) * [None]
        for start in range(0, len(packets), SIDE_BY_SIDE):
            part = slice(start, start + SIDE_BY_SIDE)
            found += self._side_by_side(packets[part], frames[part], histories[part])
        return found

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
        found: Array = costs[np.arange(symbols.shape[1]), symbols + costs.shape[1] // 2]
        return found

    @one_thread
    def fine_costs(self, fine: Array | None, frames: int) -> Array:
        """Ideal bits [T] float32 of each frame of a refinement's symbols [S, size]; 0 where there is none."""
        if fine is None or self.refinement is None:
            return np.zeros(frames, np.float32)
        found: Array = self.refinement.costs(fine).reshape(frames, -1).sum(1)
        return found

    @one_thread
    def band_costs(self, band: Array | None, frames: int) -> Array:
        """Ideal bits [T] float32 of each frame of the band layer's symbols [T, B + 1]; 0 where there are none."""
        return np.zeros(frames, np.float32) if band is None else band_tables().costs(band)

    def _prior_encoding(self, symbols: Array, level: int, history: History | None) -> Iterator[tuple[Array, Shares]]:
        return self.context.encoding(symbols, level, history) if self.context else self.static.encoding(symbols, level)

    def _side_by_side(
        self, packets: Sequence[Packet | None], frames: Sequence[int], histories: Sequence[History | None]
    ) -> list[Group | StreamError]:
        found: list[Group | StreamError] = [StreamError(LOST) for _ in packets]
        whole: list[_Written] = []
        for index, (packet, count) in enumerate(zip(packets, frames, strict=True)):
            if packet is not None and packet.level >= len(self.static.counts):
                wanted = f"below {len(self.static.counts)}"
                found[index] = StreamError("quality level", found=packet.level, wanted=wanted)
            elif packet is not None and not packet.payload:
                found[index] = Group(packet.level, count, None)
            elif packet is not None:
                whole.append(_Written(index, packet, count, histories[index]))
        for written, symbols in zip(whole, self._symbols(whole), strict=True):
            held = symbols if isinstance(symbols, StreamError) else _checked(written.packet, symbols)
            found[written.place] = held
        return found

    def _symbols(self, whole: list[_Written]) -> list[Symbols | StreamError]:
        if len(whole) > 1 and self.context:
            try:
                return list(self._decoded(whole))
            except StreamError:
                pass  # one of them is no code at all: each by itself
        found: list[Symbols | StreamError] = []
        for written in whole:
            try:
                found += self._decoded([written])
            except StreamError as error:
                found.append(error)
        return found

    def _decoded(self, whole: list[_Written]) -> list[Symbols]:
        if not (self.context or self.bands or any(self._refines(written.packet.level) for written in whole)):
            return [Symbols(self._by_tables(written)) for written in whole]
        more = self.refinement.size * self.refinement.per_frame if self.refinement else 0
        more += self.bands + 1 if self.bands else 0
        for written in whole:
            found, longest = len(_data(written.packet)), ESCAPED_BYTES * written.frames * (self.columns + more)
            if found > longest:
                raise StreamError("payload bytes", found=found, wanted=f"at most {longest}")
        return list(range_coder.serve([_data(written.packet) for written in whole], self._asking(whole)))

    def _by_tables(self, written: _Written) -> Array:
        return range_coder.decode(_data(written.packet), written.frames, self.static.tables(written.packet.level))

    def _refines(self, level: int) -> bool:
        return self.refinement is not None and self.refinement.refines(level)

    def _asking(self, whole: list[_Written]) -> Generator[SymbolRequest, Array, list[Symbols]]:
        levels, frames = [written.packet.level for written in whole], [written.frames for written in whole]
        if self.context:
            symbols = yield from self.context.decoding(levels, frames, [written.history for written in whole])
        else:
            symbols = yield from self.static.decoding(levels, frames)
        fine: dict[int, Array] = {}
        if refined := [stream for stream, level in enumerate(levels) if self._refines(level)]:
            assert self.refinement
            blocks = [frames[stream] * self.refinement.per_frame for stream in refined]
            found = yield from self.refinement.decoding(refined, blocks)
            fine = dict(zip(refined, found, strict=True))
        bands: dict[int, Array] = {}
        if self.bands:
            layers = yield from band_tables().decoding(range(len(whole)), frames, self.bands)
            bands = dict(enumerate(layers))
        return [Symbols(found, fine.get(stream), bands.get(stream)) for stream, found in enumerate(symbols)]


def _data(packet: Packet) -> bytes:
    """What the range coder wrote; zeros behind it fill packets of one size and say nothing."""
    return packet.payload[1:].rstrip(b"\0")


def _checked(packet: Packet, symbols: Symbols) -> Group | StreamError:
    code = packet.payload[0]
    found = range_coder.check_value(symbols.latents, packet.level, code, symbols.fine, symbols.band)
    if found == packet.check and code < GAIN_CODES:
        return Group(packet.level, len(symbols.latents), symbols.latents, code, symbols.fine, symbols.band)
    return StreamError(
        "symbol check failed",
        found=f"{found:04x}",
        wanted=f"{packet.check:04x}",
        next="damaged bytes or another model, see `nacre info`",
    )
