"""The payload of a live packet: one range-coded stream of head, coarse copies of earlier frames and the frames
themselves; see docs/live.md.

    mode | frames | level, gain | copies: count, reach, level, gains, symbols | symbols of the frames | residual layer
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from nacre.core.errors import StreamError
from nacre.core.types import Array, Ints, Shares
from nacre.dsp.blas import one_thread
from nacre.dsp.gain import GAIN_CODES
from nacre.entropy import range_coder
from nacre.entropy.context_prior import History
from nacre.entropy.symbols import SymbolRequest
from nacre.model.model import Model

VERSION = 1
MOST_FRAMES = 3  # of a packet
MOST_COPIES = 6
MOST_BYTES = 1200  # of a payload: what fits a datagram everywhere
REACHES = (1, 2, 3, 4, 6, 12, 24, 48)  # frames from the newest copy to the packet's first frame
COPY_LEVELS = 4  # copies are of the lowest levels
LUCK_BITS = 4  # a payload is at most so much shorter than its symbols cost, and at most a byte longer
SPARE_BITS = 1  # for the coder's rounding

MODES = np.array([144, 88, 12, 8, 4]) / 256
FRAMES = np.array([168, 64, 24]) / 256
COPIES = np.array([128, 32, 64, 16, 8, 4, 4]) / 256
GAINS = np.array([240, 12, 4]) / 256
SAME, OTHER, SILENT = range(3)  # a copy's gain


class Mode(enum.IntEnum):
    """What a packet may be read by."""

    CHAIN = 0  # the packet before: its symbols, level and gain
    KEY = 1  # nothing
    CHANGE = 2  # the packet before, but level and gain are new
    ANNOUNCE = 3  # nothing; says which model it is for
    SILENCE = 4  # digital silence: no symbols

    @property
    def alone(self) -> bool:
        """Whether the packet can be read by itself."""
        return self in (Mode.KEY, Mode.ANNOUNCE)


@dataclass(frozen=True, eq=False)
class Context:
    """What the packet before leaves to the next one."""

    history: History | None
    level: int
    code: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: symbols [1, K], None for silence, at a level and gain code; `residual` [S, size] goes on top."""

    level: int
    code: int
    symbols: Array | None
    residual: Array | None = None


@dataclass(frozen=True, eq=False)
class Payload:
    """What one packet says. `symbols` [T, K] are None for silence, and where the packet's context is missing."""

    mode: Mode
    frames: int
    level: int = 0
    code: int = 0
    symbols: Array | None = None
    residual: Array | None = None
    reach: int = 1  # one of REACHES
    copies: tuple[Frame, ...] = ()  # oldest first
    known: bool = True  # False: what it needs of the packet before is missing
    context: Context | None = None  # for the packet behind it


@dataclass(frozen=True, eq=False)
class PayloadCoder:
    """Payloads of one model, both ways."""

    model: Model

    @one_thread
    def pack(self, payload: Payload, context: Context | None) -> tuple[bytes, Context | None]:
        """(bytes, context for the next packet). Without a context the mode must be one that stands alone."""
        assert payload.mode.alone or payload.mode == Mode.SILENCE or context
        data = range_coder.encode_symbols(self._answered(payload, context), LUCK_BITS)
        return data, self._after(payload, context)

    @one_thread
    def unpack(self, data: bytes, context: Context | None) -> Payload:
        """Bytes -> payload, of which only the copies are known where it needs a context that is None.

        Raises StreamError for what no encoder of this model wrote.
        """
        if len(data) > MOST_BYTES:
            raise StreamError(f"a live payload has at most {MOST_BYTES} bytes, not {len(data)}")
        chosen: list[Shares] = []
        payload = range_coder.serve([data], _noted(self._reading(context), chosen))
        if payload.known:
            bits = -float(np.log2(np.maximum(np.concatenate(chosen), 2.0**-24)).sum())
            if not -LUCK_BITS - SPARE_BITS <= 8 * len(data) - bits <= 8 + SPARE_BITS:
                raise StreamError(f"the live payload has {len(data)} bytes, but its symbols cost {bits / 8:.1f}")
        return payload

    def _answered(self, p: Payload, context: Context | None) -> Iterator[tuple[Ints, Shares]]:
        yield _one(p.mode, MODES)
        yield _one(p.frames - 1, FRAMES)
        if p.mode == Mode.ANNOUNCE:
            for octet in bytes([VERSION]) + self.model.bundle.fingerprint:
                yield _one(octet, _even(256))
        if p.mode not in (Mode.CHAIN, Mode.SILENCE):
            yield _one(p.level, _even(16))
            yield _one(p.code, _even(GAIN_CODES))
        yield from self._answered_copies(p)
        if p.symbols is None:
            return
        yield from self._encoding(p.symbols, p.level, None if p.mode.alone or context is None else context.history)
        if p.residual is not None:
            assert self.model.residual
            yield from self.model.residual.encoding(p.residual)

    def _answered_copies(self, p: Payload) -> Iterator[tuple[Ints, Shares]]:
        yield _one(len(p.copies), COPIES)
        if not p.copies:
            return
        level, last = p.copies[0].level, _gain_of_head(p.mode, p.code)
        yield _one(REACHES.index(p.reach), _even(len(REACHES)))
        yield _one(level, _even(COPY_LEVELS))
        for copy in p.copies:
            if copy.symbols is None:
                yield _one(SILENT, GAINS)
                continue
            yield _one(SAME if copy.code == last else OTHER, GAINS)
            if copy.code != last:
                yield _one(copy.code, _even(GAIN_CODES))
            last = copy.code
        if sounding := [copy.symbols for copy in p.copies if copy.symbols is not None]:
            yield from self._encoding(np.concatenate(sounding), level, None)

    def _reading(self, context: Context | None) -> Generator[SymbolRequest, Ints, Payload]:
        mode = Mode((yield from _answer(MODES)))
        frames = 1 + (yield from _answer(FRAMES))
        if mode == Mode.ANNOUNCE:
            yield from self._announced()
        level, code = (context.level, context.code) if context else (0, 0)
        if mode not in (Mode.CHAIN, Mode.SILENCE):
            level = yield from self._level_of(16)
            code = yield from _answer(_even(GAIN_CODES))
        reach, copies = yield from self._copies(mode, code)
        if mode == Mode.SILENCE:
            return Payload(mode, frames, level, code, None, None, reach, copies, True, context)
        if not mode.alone and context is None:
            return Payload(mode, frames, level, code, None, None, reach, copies, known=False)
        history = None if mode.alone or context is None else context.history
        symbols = yield from self._decoding(level, frames, history)
        residual = None
        if self.model.residual and self.model.residual.covers(level):
            blocks = frames * self.model.residual.per_frame
            (residual,) = yield from self.model.residual.decoding([0], [blocks])
        read = Payload(mode, frames, level, code, symbols, residual, reach, copies)
        after = self._after(read, context)
        return Payload(mode, frames, level, code, symbols, residual, reach, copies, True, after)

    def _announced(self) -> Generator[SymbolRequest, Ints, None]:
        octets = []
        for _ in range(1 + len(self.model.bundle.fingerprint)):
            octets.append((yield from _answer(_even(256))))
        if octets[0] != VERSION:
            raise ForeignError(f"the packets have live format {octets[0]}, but this nacre reads {VERSION}; update it")
        named, own = bytes(octets[1:]), self.model.bundle.fingerprint
        if named != own:
            raise ForeignError(f"the packets are of model {named.hex()}, not of {own.hex()}; see nacre models")

    def _level_of(self, size: int) -> Generator[SymbolRequest, Ints, int]:
        level = yield from _answer(_even(size))
        if level >= self.model.config.levels:
            raise StreamError(f"the quality level must be below {self.model.config.levels}, not {level}")
        return level

    def _copies(self, mode: Mode, code: int) -> Generator[SymbolRequest, Ints, tuple[int, tuple[Frame, ...]]]:
        count = yield from _answer(COPIES)
        if not count:
            return 1, ()
        reach = REACHES[(yield from _answer(_even(len(REACHES))))]
        level = yield from self._level_of(COPY_LEVELS)
        last, codes = _gain_of_head(mode, code), []
        for _ in range(count):
            way = yield from _answer(GAINS)
            if way == OTHER:
                last = yield from _answer(_even(GAIN_CODES))
            elif way == SAME and last is None:
                raise StreamError("the first copy of a packet must have a gain of its own")
            codes.append(None if way == SILENT else last)
        sounding = sum(each is not None for each in codes)
        rows = iter((yield from self._decoding(level, sounding, None)) if sounding else ())
        made = [Frame(level, 0, None) if each is None else Frame(level, each, next(rows)[None]) for each in codes]
        return reach, tuple(made)

    def _encoding(self, symbols: Array, level: int, history: History | None) -> Iterator[tuple[Ints, Shares]]:
        prior = self.model.context_prior
        return prior.encoding(symbols, level, history) if prior else self.model.static_prior.encoding(symbols, level)

    def _decoding(self, level: int, frames: int, history: History | None) -> Generator[SymbolRequest, Ints, Array]:
        if self.model.context_prior:
            (symbols,) = yield from self.model.context_prior.decoding([level], [frames], [history])
        else:
            (symbols,) = yield from self.model.static_prior.decoding([level], [frames])
        return symbols

    def _after(self, p: Payload, context: Context | None) -> Context | None:
        """What the packet behind p may be read by."""
        if p.symbols is None:
            return context
        prior = self.model.context_prior
        before = None if p.mode.alone or context is None else context.history
        return Context(prior.after(p.symbols, p.level, before) if prior else None, p.level, p.code)


class ForeignError(StreamError):
    """A packet of another model or version."""


def _gain_of_head(mode: Mode, code: int) -> int | None:
    """The gain that a first copy may be said to share: one that the same packet holds."""
    return None if mode in (Mode.CHAIN, Mode.SILENCE) else code


@cache
def _even(size: int) -> Shares:
    return np.full(size, 1 / size)


def _one(answer: int, shares: Shares) -> tuple[Ints, Shares]:
    return np.array([answer], np.int32), shares[None]


def _answer(shares: Shares) -> Generator[SymbolRequest, Ints, int]:
    answers = yield SymbolRequest([0], shares[None, None])
    return int(answers[0, 0])


def _noted(
    requests: Generator[SymbolRequest, Ints, Payload], chosen: list[Shares]
) -> Generator[SymbolRequest, Ints, Payload]:
    """`requests`, with the shares of its answers, of one stream, added to `chosen`."""
    try:
        request = next(requests)
        while True:
            answers = yield request
            chosen.append(request.shares[0, np.arange(answers.shape[1]), answers[0]])
            request = requests.send(answers)
    except StopIteration as done:
        result: Payload = done.value
        return result
