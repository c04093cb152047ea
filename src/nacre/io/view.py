"""A file put together from pieces of another, and the plan by which a sound file is read: part after part."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import BinaryIO, NamedTuple

STEP_BYTES = 1 << 20  # searched at once


class Extent(NamedTuple):
    """A stretch of the file that lies below."""

    offset: int
    size: int


Piece = bytes | Extent


class View(io.RawIOBase):
    """Pieces one after another, read as a file: bytes as they are, extents from the file below."""

    def __init__(self, below: BinaryIO, pieces: Sequence[Piece]):
        self._below, self._pieces = below, [piece for piece in pieces if _size(piece)]
        self._starts = list(accumulate((_size(piece) for piece in self._pieces), initial=0))
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset, as any file does."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as the pieces go."""
        target, done = memoryview(buffer).cast("B"), 0
        while done < len(target) and self._at < self._starts[-1]:
            index = bisect_right(self._starts, self._at) - 1
            piece, inside = self._pieces[index], self._at - self._starts[index]
            wanted = min(len(target) - done, _size(piece) - inside)
            if isinstance(piece, Extent):
                self._below.seek(piece.offset + inside)
                block = self._below.read(wanted)
            else:
                block = piece[inside : inside + wanted]
            if not block:  # the file became shorter meanwhile
                break
            target[done : done + len(block)] = block
            done, self._at = done + len(block), self._at + len(block)
        return done


def _size(piece: Piece) -> int:
    return piece.size if isinstance(piece, Extent) else len(piece)


@dataclass(frozen=True)
class Part:
    """One stretch of sound that a library reads as a file of its own.

    Where something is missing between two parts, `ends_at` says how long the silence in its place must be: it counts
    from the part before that is `fresh`, which has one too.
    """

    pieces: tuple[Piece, ...] | None = None  # None: the whole file
    kind: str = ""  # "flac", which can be read on behind a bad spot; "mp3 unsized", whose length would be guessed
    skip: int = 0  # samples at the start that are not wanted
    spare: int = 0  # samples at the end that are not wanted, counted as the file does
    ends_at: int | None = None  # samples up to its end, counted as the file does
    clock_hz: int | None = None  # the rate at which they are counted; None: that of the sound
    fresh: bool = True
    within: tuple[Piece, ...] | None = None  # the extents lie in a file made of these


@dataclass
class Plan:
    """How a sound file is read, and what of it cannot be."""

    parts: list[Part] = field(default_factory=lambda: [Part()])
    losses: list[str] = field(default_factory=list)  # in words
    cut: bool = False  # the end is missing
    order: tuple[int, ...] | None = None  # which channel of the file stands at each place of a WAV


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Up to `size` bytes from an offset."""
    file.seek(offset)
    return file.read(size) or b""


def size_of(file: BinaryIO) -> int:
    """Bytes of a file."""
    return file.seek(0, io.SEEK_END)


def find_all(file: BinaryIO, pattern: bytes, start: int = 0, stop: int | None = None) -> Iterator[int]:
    """Offsets of every `pattern` from `start` on that ends before `stop`."""
    end, at, keep = size_of(file) if stop is None else stop, start, len(pattern) - 1
    while at + len(pattern) <= end:
        block = read_at(file, at, min(STEP_BYTES, end - at))
        place = block.find(pattern)
        while place >= 0:
            yield at + place
            place = block.find(pattern, place + 1)
        if len(block) <= keep:
            return
        at += len(block) - keep


def first_bytes(extents: list[Extent], size: int) -> list[Extent]:
    """The first `size` bytes of extents."""
    blocks = []
    for extent in extents:
        blocks.append(Extent(extent.offset, min(size, extent.size)))
        size -= blocks[-1].size
    return blocks
