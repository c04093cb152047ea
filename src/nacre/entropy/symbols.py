"""What a prior requests of the range coder: shares of the next symbols, in exchange for the symbols.

A share is a whole number over 2^28 and a row of them sums to 1, so that the coder is exact. Symbols outside a row's
window go to its last share, the escape, and follow as one of ESCAPED, all equally likely.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np

from nacre.core.types import Ints, Shares

ESCAPED = 1 << 9  # an escaped symbol is one of so many, from -ESCAPED / 2
LARGEST = ESCAPED // 2 - 1  # size of a symbol that has a code
_ESCAPES = np.full(ESCAPED, 1 / ESCAPED)


class SymbolRequest(NamedTuple):
    """Shares [S, n, A] of the next n symbols of each of these streams."""

    streams: Sequence[int]
    shares: Shares


def request_symbols(streams: Sequence[int], shares: Shares, lowest: Ints) -> Generator[SymbolRequest, Ints, Ints]:
    """Symbols [S, n] for shares [S, n, A] whose first stands for `lowest`; requests again where one escapes."""
    answers = yield SymbolRequest(streams, shares)
    escape, symbols = shares.shape[-1] - 1, answers + lowest
    if answers.max(initial=0) == escape:
        for row in np.flatnonzero((answers == escape).any(-1)).tolist():
            places = np.flatnonzero(answers[row] == escape)
            more = yield SymbolRequest([streams[row]], np.tile(_ESCAPES, (1, len(places), 1)))
            symbols[row, places] = more[0] - ESCAPED // 2
    return symbols


def answered_requests(symbols: Ints, lowest: Ints, shares: Shares) -> list[list[tuple[Ints, Shares]]]:
    """For each row the answers [n] and shares [n, A] of what `request_symbols` requests, given its symbols [T, n]."""
    escape, answers = shares.shape[-1] - 1, (symbols - lowest).astype(np.int32)
    outside = (answers < 0) | (answers >= escape)
    answers[outside] = escape
    requests = [[pair] for pair in zip(answers, shares, strict=True)]
    if not outside.any():
        return requests
    for row in np.flatnonzero(outside.any(1)).tolist():
        escaped = symbols[row, outside[row]].astype(np.int32) + ESCAPED // 2
        requests[row].append((escaped, np.tile(_ESCAPES, (len(escaped), 1))))
    return requests
