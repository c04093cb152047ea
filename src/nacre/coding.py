"""Symbols of a group <-> a packet, by either prior of a model: static tables, or the context prior.

Behind the symbols of the latents follow those of the refinement, at the levels that have one.

    symbols, level, gain code --> gain byte + range coder's bytes --> Packet, with a check value over the symbols

The static tables cost more bytes and less time. The context prior is decoded for many groups side by side, which is
what makes it fast; a group's symbols do not depend on the groups beside it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from nacre import entropy
from nacre.analysis import GAIN_CODES
from nacre.asking import Ask
from nacre.blas import one_thread
from nacre.container import MOST_PAYLOAD_BYTES, Packet
from nacre.context import ContextPrior
from nacre.errors import StreamError
from nacre.priors import StaticPrior
from nacre.refine import Refinement

Array = np.ndarray[Any, np.dtype[Any]]

LOST = "packet lost"
SIDE_BY_SIDE = 64  # groups that the context prior decodes at once; bounds the memory
ESCAPED_BYTES = 5  # a symbol costs at most two answers of 24 bits and 9


@dataclass(frozen=True)
class Group:
    """One channel of one group as read: symbols [T, K], None for silence, and the gain code they were coded with.

    `fine` are the symbols of the refinement [S, size], None at levels that have none.
    """

    level: int
    frames: int
    symbols: Array | None
    code: int = 0
    fine: Array | None = None


Symbols = tuple[Array, Array | None]  # of the latents, of the refinement


class Coding:
    """One way of a model to write symbols. `context` None: by the static tables."""

    def __init__(self, static: StaticPrior, context: ContextPrior | None, refinement: Refinement | None = None):
        self.static, self.context, self.refinement = static, context, refinement
        self.levels, self.columns = static.counts.shape[:2]

    @one_thread
    def pack(self, symbols: Array, level: int, code: int, fine: Array | None = None) -> Packet:
        """symbols [T, K], and those of the refinement [S, size] at a level that has one -> packet."""
        prior: ContextPrior | StaticPrior = self.context or self.static
        assert (fine is not None) == self._refines(level), level
        if fine is not None and self.refinement:
            data = entropy.encode_pieces(chain(prior.encoding(symbols, level), self.refinement.encoding(fine)))
            if len(data) >= MOST_PAYLOAD_BYTES and fine.any():  # of sound that the networks give nothing like
                return self.pack(symbols, level, code, np.trunc(fine / 2).astype(np.int32))
        elif self.context:
            data = entropy.encode_pieces(self.context.encoding(symbols, level))
        else:
            data = entropy.encode(symbols, self.static.tables(level))
        return Packet(level, bytes([code]) + data, entropy.check_value(symbols, level, code, fine))

    @one_thread
    def unpack(self, packets: Sequence[Packet | None], frames: Sequence[int]) -> list[Group | StreamError]:
        """Groups of packets, of so many frames each; in place of one that is lost or damaged, what is wrong with it."""
        found: list[Group | StreamError] = []
        for start in range(0, len(packets), SIDE_BY_SIDE):
            part = slice(start, start + SIDE_BY_SIDE)
            found += self._side_by_side(packets[part], frames[part])
        return found

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

    def _side_by_side(self, packets: Sequence[Packet | None], frames: Sequence[int]) -> list[Group | StreamError]:
        found: list[Group | StreamError] = [StreamError(LOST) for _ in packets]
        whole: list[tuple[int, Packet]] = []
        for index, (packet, count) in enumerate(zip(packets, frames, strict=True)):
            if packet is not None and packet.level >= self.levels:
                found[index] = StreamError("quality level", found=packet.level, wanted=f"below {self.levels}")
            elif packet is not None and not packet.payload:
                found[index] = Group(packet.level, count, None)
            elif packet is not None:
                whole.append((index, packet))
        for (index, packet), symbols in zip(whole, self._symbols(whole, frames), strict=True):
            found[index] = symbols if isinstance(symbols, StreamError) else _checked(packet, *symbols)
        return found

    def _symbols(self, whole: list[tuple[int, Packet]], frames: Sequence[int]) -> list[Symbols | StreamError]:
        if len(whole) > 1 and self.context:
            try:
                return list(self._decoded([packet for _, packet in whole], [frames[index] for index, _ in whole]))
            except StreamError:
                pass  # one of them is no code at all: each by itself
        found: list[Symbols | StreamError] = []
        for index, packet in whole:
            try:
                found += self._decoded([packet], [frames[index]])
            except StreamError as error:
                found.append(error)
        return found

    def _decoded(self, packets: list[Packet], frames: list[int]) -> list[Symbols]:
        if not self.context and not any(self._refines(packet.level) for packet in packets):
            pairs = zip(packets, frames, strict=True)
            return [(entropy.decode(_data(p), count, self.static.tables(p.level)), None) for p, count in pairs]
        for packet, count in zip(packets, frames, strict=True):
            fine = self.refinement.size * self.refinement.per_frame if self.refinement else 0
            longest = ESCAPED_BYTES * count * (self.columns + fine)
            if len(_data(packet)) > longest:
                raise StreamError("payload bytes", found=len(_data(packet)), wanted=f"at most {longest}")
        asking = self._asking([packet.level for packet in packets], frames)
        return list(entropy.decode_asked([_data(packet) for packet in packets], asking))

    def _refines(self, level: int) -> bool:
        return self.refinement is not None and self.refinement.refines(level)

    def _asking(self, levels: Sequence[int], frames: Sequence[int]) -> Generator[Ask, Array, list[Symbols]]:
        prior: ContextPrior | StaticPrior = self.context or self.static
        symbols = yield from prior.decoding(levels, frames)
        fine: dict[int, Array] = {}
        if refined := [stream for stream, level in enumerate(levels) if self._refines(level)]:
            assert self.refinement
            blocks = [frames[stream] * self.refinement.per_frame for stream in refined]
            found = yield from self.refinement.decoding(refined, blocks)
            fine = dict(zip(refined, found, strict=True))
        return [(found, fine.get(stream)) for stream, found in enumerate(symbols)]


def _data(packet: Packet) -> bytes:
    """What the range coder wrote; zeros behind it fill packets of one size and say nothing."""
    return packet.payload[1:].rstrip(b"\0")


def _checked(packet: Packet, symbols: Array, fine: Array | None) -> Group | StreamError:
    code = packet.payload[0]
    found = entropy.check_value(symbols, packet.level, code, fine)
    if found == packet.check and code < GAIN_CODES:
        return Group(packet.level, len(symbols), symbols, code, fine)
    return StreamError(
        "symbol check failed",
        found=f"{found:04x}",
        wanted=f"{packet.check:04x}",
        next="damaged bytes or another model, see `nacre info`",
    )
