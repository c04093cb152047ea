"""Symbols to bytes and back by a range coder, and the check value of a group. The only file that meets constriction.

Symbols go in dimension by dimension, each with one model from its integer table; a table with a single symbol
is skipped. Counts over a power of two are exact in float64, and so is every step constriction makes of them
with perfect=False: the code depends on the integers alone. For a support of n symbols, of which those before
symbol i hold the share c of the total, symbol i starts at floor(c * (2^24 - n)) + i out of 2^24.
`tests/test_entropy.py` holds the whole decoder in integers.
"""

from __future__ import annotations

import binascii
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import constriction  # type: ignore[import-untyped, unused-ignore]
import numpy as np

from nacre.core.errors import BundleError, NacreError, StreamError
from nacre.core.types import Ints, Shares

Request = tuple[Sequence[int], Shares]
Result = TypeVar("Result")

_ROWS = constriction.stream.model.Categorical(perfect=False)  # a distribution of its own for each symbol

_WORD_BYTES = 4  # constriction's word; its state is two of them
_STATE_BITS = 64


class _Coder(NamedTuple):
    lowest: Ints  # [D] range of symbols that have a code
    highest: Ints
    models: list[tuple[int, Any]]  # (dim, constriction model) of the dims that cost bits


def encode(symbols: Ints, tables: Ints) -> bytes:
    """Symbols [T, D] int32 by count tables [D, A] int32, in as few bytes as the range coder's interval allows."""
    coder = _coder(tables)
    if symbols.ndim != 2 or symbols.shape[1] != len(tables) or symbols.dtype.kind != "i":
        form = f"integers [T, {len(tables)}]"
        raise StreamError(f"symbols must be {form}, not {symbols.dtype} of shape {symbols.shape}")
    if ((symbols < coder.lowest) | (symbols > coder.highest)).any():
        raise StreamError("symbols beyond the prior's tables have no code")
    columns = np.ascontiguousarray((symbols - coder.lowest).T, dtype=np.int32)  # [D, T]
    encoder = constriction.stream.queue.RangeEncoder()
    with _translated():
        if len(symbols):
            for dim, model in coder.models:
                encoder.encode(columns[dim], model)
    return _shortest(encoder)


def decode(data: bytes, frames: int, tables: Ints) -> Ints:
    """The symbols [frames, D] int32 that `encode` was given; other bytes give other symbols in range or StreamError.

    The caller has made sure that `frames` is a sane size for a group.
    """
    coder = _coder(tables)
    longest = 3 * frames * len(coder.models)  # a symbol costs at most 24 bits
    if frames < 0 or len(data) > longest:
        raise StreamError(f"a payload of {frames} frames has at most {longest} bytes, not {len(data)}")
    columns = np.zeros((len(tables), frames), np.int32)  # [D, T]
    padded = data + bytes(2 * _WORD_BYTES + -len(data) % _WORD_BYTES)  # zeros that encode left off
    with _translated():
        decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))
        if frames:
            for dim, model in coder.models:
                columns[dim] = decoder.decode(model, frames)
    return np.ascontiguousarray(columns.T) + coder.lowest


def encode_symbols(answered: Iterable[tuple[Ints, Shares]], luck_bits: int | None = None) -> bytes:
    """Answers [n] by their own shares [n, A], one request after another; see `ContextPrior.encoding`.

    `luck_bits` is how many bits fewer than the answers cost the bytes may have, where they happen to end on zeros; None
    leaves all zeros off. With a limit the length shows what the answers cost.

    Shares are multiples of 2^-28 and sum to 1 in each row, so that all that is said above of counts holds for them.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    with _translated():
        for answers, shares in answered:
            encoder.encode(answers, _ROWS, shares)
    return _shortest(encoder, luck_bits)


def serve(payloads: Sequence[bytes], requests: Generator[Request, Ints, Result]) -> Result:
    """Answer what `requests` want, shares [S, n, A] of streams among the payloads, and return its result.

    Other bytes give other answers, or StreamError. The caller has bounded the lengths of the payloads.
    """
    decoders = []
    for data in payloads:
        padded = data + bytes(2 * _WORD_BYTES + -len(data) % _WORD_BYTES)
        decoders.append(constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32)))
    try:
        streams, shares = next(requests)
        with _translated():
            while True:
                answers = np.empty(shares.shape[:2], np.int32)
                for row, stream in enumerate(streams):
                    answers[row] = decoders[stream].decode(_ROWS, shares[row])
                streams, shares = requests.send(answers)
    except StopIteration as done:
        result: Result = done.value
        return result


def check_value(symbols: Ints, level: int, gain: int, *more: Ints | None) -> int:
    """16-bit CRC over level and gain, one byte each, and symbols [T, D] as little-endian int16, frame by frame.

    `more` symbols, [S, K] of a residual layer and [T, B + 1] of a band layer, follow in the same way.
    """
    if not (0 <= level <= 255 and 0 <= gain <= 255):
        raise StreamError(f"level and gain must be 0 to 255, not {level} and {gain}")
    check = binascii.crc_hqx(bytes([level, gain]) + symbols.astype("<i2").tobytes(), 0xFFFF)
    for layer in more:
        check = check if layer is None else binascii.crc_hqx(layer.astype("<i2").tobytes(), check)
    return check


def _shortest(encoder: Any, luck_bits: int | None = None) -> bytes:
    """The fewest bytes, read as a fraction with zeros after them, that lie in the encoder's final interval.

    constriction ends on a whole word and so spends about two bytes more.
    """
    words, (lower, size) = encoder.pos()
    sealed = encoder.get_compressed().astype(">u4").tobytes()
    bits = 32 * words + _STATE_BITS
    inside = int.from_bytes(sealed, "big") << (bits - 8 * len(sealed))
    low = inside - (inside - lower) % (1 << _STATE_BITS)  # `lower` knows only the last 64 bits
    most = _STATE_BITS if luck_bits is None else min(_STATE_BITS, size.bit_length() - 1 + luck_bits)
    for zeros in range(most // 8 * 8, -1, -8):
        value = -(-low >> zeros) << zeros
        if value < low + size:
            break
    whole = int(value).to_bytes(bits // 8, "big")[: (bits - zeros) // 8]
    return whole.rstrip(b"\0") if luck_bits is None else whole


def _coder(tables: Ints) -> _Coder:
    """Models for tables [D, A], built once for equal tables: group after group comes with the same ones."""
    if tables.ndim != 2 or 0 in tables.shape or tables.dtype != np.int32:
        raise BundleError(f"count tables must be int32 [D, A], not {tables.dtype} of shape {tables.shape}")
    return _build(tables.tobytes(), len(tables))


@lru_cache(maxsize=64)
def _build(raw: bytes, dims: int) -> _Coder:
    tables = np.frombuffer(raw, np.int32).reshape(dims, -1)
    totals = tables.sum(axis=1, dtype=np.int64)
    total = int(totals[0])
    if (tables < 0).any() or (totals != total).any() or not 0 < total <= 1 << 16 or total & (total - 1):
        raise BundleError("count tables must have no count below 0, and sums that are one power of two up to 2^16")
    lowest, highest, models = np.zeros(dims, np.int32), np.zeros(dims, np.int32), []
    for dim, row in enumerate(tables):
        support = np.flatnonzero(row)
        first, last = int(support[0]), int(support[-1])
        if last - first + 1 != len(support):
            raise BundleError(f"the count table of dim {dim} has a gap; its counts above 0 must be one run")
        lowest[dim], highest[dim] = first - len(row) // 2, last - len(row) // 2
        if last > first:
            share = row[first : last + 1] / np.float64(total)  # as float32 it would decode to other symbols
            models.append((dim, constriction.stream.model.Categorical(share, perfect=False)))
    return _Coder(lowest, highest, models)


@contextmanager
def _translated() -> Iterator[None]:
    """constriction's errors as ours. Its panics are no Exception, so they pass `except Exception`."""
    try:
        yield
    except (NacreError, StopIteration):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise StreamError("the payload is damaged, or was coded with other tables") from error
