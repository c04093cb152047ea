"""AIFF and AIFF-C: where the samples lie, whatever the sizes in the file say."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from nacre.io.riff import TAIL_BYTES, is_other
from nacre.io.sniff import HEAD_BYTES
from nacre.io.view import Extent, Part, Piece, Plan, find_all, first_bytes, read_at, size_of

UNKNOWN = 0x7FFFF000
COMM_BYTES = range(18, 1 << 12)
PLAIN = (b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
TEXTS = {b"NAME", b"AUTH", b"(c) ", b"ANNO", b"COMT", b"MARK", b"INST", b"MIDI", b"AESD", b"APPL", b"ID3 ", b"FVER"}
TEXTS |= {b"COMM", b"PEAK", b"CHAN", b"basc", b"FLLR", b"SSND"}


@dataclass
class Sound:
    """What was found."""

    kind: bytes  # AIFF or AIFC
    comm: bytes = b""
    extents: list[Extent] = field(default_factory=list)
    stated: int | None = 0
    odd: bool = False

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels; 0 where it is of a compressed kind."""
        channels, _, bits = struct.unpack(">HIH", self.comm[:8])
        plain = self.kind == b"AIFF" or self.comm[18:22] in PLAIN
        return channels * -(-bits // 8) if plain else 0


def is_aiff(head: bytes) -> bool:
    """Whether a file that begins so is one of these."""
    return head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")


def plan(file: BinaryIO) -> Plan | None:
    """How the samples of a file are reached; None where it is as it should be, or has none that can be found."""
    sounds, at, end = [], 0, size_of(file)
    while is_aiff(head := read_at(file, at, 12)):
        sounds.append(Sound(head[8:12]))
        at = _walk(file, sounds[-1], at + 12, end)
    first = next((sound for sound in sounds if sound.comm and sound.frame_bytes and sound.extents), None)
    if first is None:
        return None
    same = [s for s in sounds if s.extents and _form(s) == _form(first)]
    sizes = [sum(extent.size for extent in sound.extents) for sound in same]
    plan = Plan(parts=[Part(_whole(sound)) for sound in same])
    for sound, size in zip(same, sizes, strict=True):
        if sound.stated is not None and size < sound.stated:
            plan.cut = True
            plan.losses.append(f"{size} of {sound.stated} bytes of sound")
    if any(s.extents and _form(s) != _form(first) for s in sounds):
        plan.losses.append("another recording of another kind behind it")
    frames = struct.unpack(">I", first.comm[2:6])[0]
    regular = len(sounds) == 1 and not first.odd and len(first.extents) == 1 and first.stated == sizes[0]
    return None if regular and frames == sizes[0] // first.frame_bytes else plan


def _form(sound: Sound) -> bytes:
    return sound.kind + sound.comm[:2] + sound.comm[6:]


def _walk(file: BinaryIO, sound: Sound, at: int, end: int) -> int:
    """Fill in what the chunks from `at` on say; -> the start of the next file, or the end."""
    while at < end:
        head = read_at(file, at, 8)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]) or head[:4] == b"FORM":
            return at if head[:4] == b"FORM" else end
        name, size, start = head[:4], int.from_bytes(head[4:], "big"), at + 8
        if name == b"COMM" and not sound.comm and size >= COMM_BYTES.start:
            sound.comm = read_at(file, start, min(size, COMM_BYTES.stop))
        elif name == b"SSND":
            size = 8 + _take(file, sound, start + 8, max(0, size - 8), size < 8, end)
        at = start + size + size % 2
        if size % 2 and read_at(file, at, 4) not in TEXTS and read_at(file, at - 1, 4) in TEXTS:
            at, sound.odd = at - 1, True
    return end


def _take(file: BinaryIO, sound: Sound, start: int, size: int, empty: bool, end: int) -> int:
    """Note the samples of a chunk of sound; -> their real size."""
    lead = int.from_bytes(read_at(file, start - 8, 4), "big")
    start, size, there = start + lead, max(0, size - lead), end - start - lead
    named = read_at(file, start + size + size % 2, 4) in (*TEXTS, b"FORM", b"")
    early = not named and there - size > TAIL_BYTES and not is_other(read_at(file, start + size, HEAD_BYTES))
    unsized = empty or early or (size == 0 and not named) or (size >= UNKNOWN and size > there)
    real = _next_file(file, start, end) - start if unsized or size > there else size
    if sound.stated is not None:
        sound.stated = None if unsized else sound.stated + size
    sound.odd |= not sound.comm
    if real > 0:
        sound.extents.append(Extent(start, real))
    return max(0, real) + lead


def _next_file(file: BinaryIO, start: int, end: int) -> int:
    for at in find_all(file, b"FORM", start, end):
        if is_aiff(read_at(file, at, 12)):
            return at
    return end


def _whole(sound: Sound) -> tuple[Piece, ...]:
    """An AIFF as it should have been written, of what was found."""
    size = sum(extent.size for extent in sound.extents) // sound.frame_bytes * sound.frame_bytes
    comm = sound.comm[:2] + struct.pack(">I", size // sound.frame_bytes) + sound.comm[6:]
    chunks = (b"FVER" + struct.pack(">II", 4, 0xA2805140)) if sound.kind == b"AIFC" else b""
    chunks += b"COMM" + struct.pack(">I", len(comm)) + comm + bytes(len(comm) % 2)
    chunks += b"SSND" + struct.pack(">III", min(size + 8, 0xFFFFFFFF), 0, 0)
    head = b"FORM" + struct.pack(">I", min(4 + len(chunks) + size, 0xFFFFFFFF)) + sound.kind + chunks
    return (head, *first_bytes(sound.extents, size))
