"""AU and CAF of bare samples: where they lie, whatever the sizes in the file say."""

from __future__ import annotations

from typing import BinaryIO

from nacre.io.riff import TAIL_BYTES, is_other
from nacre.io.sniff import HEAD_BYTES
from nacre.io.view import Extent, Part, Plan, read_at, size_of

AU_HEAD_BYTES, AU_UNKNOWN = 24, 0xFFFFFFFF
AU_CODES = (1, 2, 3, 4, 5, 6, 7, 27)  # mu-law, PCM, floats, A-law
CAF_HEAD_BYTES, CAF_CHUNK_BYTES = 8, 12
CAF_FORMATS = (b"lpcm", b"ulaw", b"alaw")
MOST_CHUNKS = 1000


def au(file: BinaryIO) -> Plan | None:
    """How the samples of an AU are reached; None where it is as it should be, or of another kind."""
    head = read_at(file, 0, AU_HEAD_BYTES)
    start, stated, code = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8, 12))
    if len(head) < AU_HEAD_BYTES or start < AU_HEAD_BYTES or code not in AU_CODES:
        return None
    unknown = stated in (0, AU_UNKNOWN)
    size, cut = _size(file, start, stated, unknown)
    if size == stated:
        return None
    head = head[:4] + AU_HEAD_BYTES.to_bytes(4, "big") + min(size, AU_UNKNOWN).to_bytes(4, "big") + head[12:]
    return _plan((head, Extent(start, size)), size, stated, cut)


def caf(file: BinaryIO) -> Plan | None:
    """How the samples of a CAF are reached; None where it is as it should be, or of another kind."""
    at, end, heads = CAF_HEAD_BYTES, size_of(file), b""
    for _ in range(MOST_CHUNKS):
        head = read_at(file, at, CAF_CHUNK_BYTES)
        if len(head) < CAF_CHUNK_BYTES:
            return None
        name, stated, start = head[:4], int.from_bytes(head[4:], "big", signed=True), at + CAF_CHUNK_BYTES
        if name == b"data":
            break
        heads += head + read_at(file, start, stated) if name in (b"desc", b"chan") and 0 < stated < TAIL_BYTES else b""
        at = start + max(0, stated)
    else:
        return None
    size, cut = _size(file, start, stated, stated <= 0)
    if size == stated or heads[CAF_CHUNK_BYTES + 8 : CAF_CHUNK_BYTES + 12] not in CAF_FORMATS or start >= end:
        return None
    head = read_at(file, 0, CAF_HEAD_BYTES) + heads + b"data" + size.to_bytes(8, "big")
    return _plan((head, Extent(start, size)), size, stated, cut)


def _size(file: BinaryIO, start: int, stated: int, unknown: bool) -> tuple[int, bool]:
    """(bytes of samples that are there, whether the file breaks off before the stated end)."""
    there = max(0, size_of(file) - start)
    behind = read_at(file, start + stated, HEAD_BYTES) if not unknown else b""
    early = there - stated > TAIL_BYTES and not behind[:4].isalpha() and not is_other(behind)
    return (there if unknown or early or stated > there else stated), not unknown and stated > there


def _plan(pieces: tuple[bytes, Extent], size: int, stated: int, cut: bool) -> Plan:
    losses = [f"{size} of {stated} bytes of sound"] if cut else []
    return Plan(parts=[Part(pieces)], losses=losses, cut=cut)
