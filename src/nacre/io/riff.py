"""WAV and its kin (RIFF, RIFX, RF64, BW64, Wave64): where the samples lie, whatever the sizes in the file say.

A recorder that dies leaves a size of 0 or a placeholder, a pipe writes the largest number, editors add chunks before
and behind and forget the byte that evens an odd one, two files are joined. The samples are there all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from nacre.io.sniff import HEAD_BYTES, foreign, no_sound
from nacre.io.view import Extent, Part, Piece, Plan, find_all, first_bytes, read_at, size_of

UNKNOWN = 0x7FFFF000  # sizes from here on up to 32 bits' largest are placeholders
LARGEST = 0xFFFFFFFF
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
PLAIN = (1, 3, 6, 7)  # PCM, float, A-law, mu-law: samples of one size, one after another
EXTENSIBLE = 0xFFFE
FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
OTHERS = (b"fLaC", b"OggS", b"FORM", b".snd", b"caff")
KNOWN = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"PEAK", b"fact", b"JUNK", b"junk", b"PAD "}
KNOWN |= {b"FLLR", b"afsp", b"DISP", b"_PMX", b"axml", b"chna", b"levl", b"minf", b"elm1", b"regn", b"umid", b"inst"}
KNOWN |= {b"acid", b"cart", b"plst", b"note", b"labl", b"data", b"fmt ", b"meta", b"ResU", b"bext", b"LGWV", b"MARK"}
LEAST_FORM_BYTES, MOST_FORM_BYTES = 16, 1 << 12
TAIL_BYTES = 1 << 12  # so much behind that is no chunk is sound whose sizes were written too early


@dataclass
class Sound:
    """One WAV inside the file: how its samples are stored, where they lie, and what was wrong."""

    order: str  # of bytes: < or >
    wave64: bool = False
    ends_at: int = 0  # where its head says that it ends
    form: bytes = b""  # the fmt chunk
    fact: bytes = b""
    extents: list[Extent] = field(default_factory=list)
    stated: int | None = 0  # bytes of samples that are promised; None where a size says nothing
    odd: bool = False  # something stands elsewhere than it should
    other: bool = False  # sound in another container behind it

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels, or of one block of a compressed kind; 1 where nothing says so."""
        return max(1, int(struct.unpack_from(self.order + "H", self.form, 12)[0])) if self.form else 1

    @property
    def size(self) -> int:
        """Bytes of samples that are there."""
        return sum(extent.size for extent in self.extents)


@dataclass(frozen=True)
class Chunk:
    """A chunk as found: name, where its content lies, and how large it says it is."""

    name: bytes
    offset: int
    size: int


def is_riff(head: bytes) -> bool:
    """Whether a file that begins so is one of these."""
    return (head[:4] in FILES and head[8:12] == b"WAVE") or head[:16] == W64_RIFF


def plan(file: BinaryIO) -> Plan | None:
    """How the samples of a file are reached; None where it is as it should be, or has none that can be found."""
    sounds = list(_sounds(file))
    first = next((sound for sound in sounds if sound.form and sound.size), None)
    if first is None:
        return None
    plan = Plan(parts=[])
    same = [sound for sound in sounds if sound.form == first.form and sound.size]
    plan.parts = [Part(whole(sound)) for sound in same]
    for sound in sounds:
        if sound.form and sound.form != first.form and sound.size:
            plan.losses.append(f"another recording of {sound.size} bytes behind it, of another kind")
    for sound in same:
        if sound.stated is not None and sound.size < sound.stated:
            plan.cut = True
            plan.losses.append(f"{sound.size} of {sound.stated} bytes of sound")
        if sound.other:
            plan.losses.append("something else behind it, in another container")
    regular = len(sounds) == 1 and not first.odd and len(first.extents) == 1 and first.stated == first.size
    return None if regular and not plan.losses else plan


def _sounds(file: BinaryIO) -> Iterator[Sound]:
    """Every WAV of a file that may hold several, one behind another."""
    end, at = size_of(file), 0
    while at < end:
        head = read_at(file, at, 40)
        if head[:16] == W64_RIFF:
            sound = Sound("<", True, at + int.from_bytes(head[16:24], "little"))
            at = _walk(file, sound, at + 40, end)
        elif is_riff(head):
            order = ">" if head[:4] == b"RIFX" else "<"
            sound = Sound(order, False, at + 8 + struct.unpack(order + "I", head[4:8])[0])
            sound.odd = head[:4] == b"BW64"  # which the library does not know
            at = _walk(file, sound, at + 12, end)
        else:
            return
        yield sound


def _walk(file: BinaryIO, sound: Sound, at: int, end: int) -> int:
    """Fill in what the chunks from `at` on say; -> the start of the next file, or the end."""
    long = -1  # size of samples over 4 GB, in a chunk of its own
    while (chunk := _chunk(file, at, end, sound)) is not None:
        sound.other |= chunk.name in OTHERS
        if chunk.name in FILES or chunk.name == b"riff":
            return at
        size = chunk.size
        if chunk.name == b"ds64" and size >= 16:
            long = int.from_bytes(read_at(file, chunk.offset + 8, 8), "little" if sound.order == "<" else "big")
        elif chunk.name == b"fmt " and not sound.form and size >= LEAST_FORM_BYTES:
            sound.form = read_at(file, chunk.offset, min(size, MOST_FORM_BYTES))
        elif chunk.name == b"fact" and not sound.fact:
            sound.fact = read_at(file, chunk.offset, min(size, MOST_FORM_BYTES))
        elif chunk.name == b"data":
            size = _take(file, sound, chunk, long if size == LARGEST and long > 0 else size, end)
            sound.odd |= long not in (-1, size)
        at = _behind(file, chunk.offset, size, end, sound)
    return end


def _take(file: BinaryIO, sound: Sound, chunk: Chunk, size: int, end: int) -> int:
    """Note the samples of a data chunk; -> their real size."""
    there, real = end - chunk.offset, size
    unsized = (UNKNOWN <= size <= LARGEST and size > there) or size >= 1 << 62
    if size == 0 or (size < there and not unsized):
        unsized = _goes_on(file, chunk.offset, size, end, sound)
    if unsized or size > there:
        real = _next_file(file, chunk.offset, end, sound) - chunk.offset
    if sound.stated is not None:
        sound.stated = None if unsized else sound.stated + size
    sound.odd |= not sound.form or not real
    if real:
        sound.extents.append(Extent(chunk.offset, real))
    return real


def _goes_on(file: BinaryIO, start: int, size: int, end: int, sound: Sound) -> bool:
    """Whether samples, no chunk, follow where samples should end: their size was written too early, or ran over."""
    behind = _behind(file, start, size, end, sound)
    if end - behind <= sound.frame_bytes:
        return False
    chunk = _chunk(file, behind, end, sound)
    if chunk is not None and (chunk.name in KNOWN or chunk.name.upper() in FILES or chunk.offset + chunk.size <= end):
        return False
    tail = read_at(file, behind, TAIL_BYTES)
    long = len(tail) == TAIL_BYTES and any(tail) and not is_other(tail)
    return size == 0 or abs(sound.ends_at - behind) > 8 or long or end - behind > 1 << 31


def is_other(head: bytes) -> bool:
    """Whether what begins so is no bare samples, but a file or tag of another kind."""
    known = head[:4] in OTHERS or head[:3] in (b"ID3", b"TAG")
    return known or bool(foreign(head[:HEAD_BYTES]) or no_sound(head[:HEAD_BYTES]))


def _next_file(file: BinaryIO, start: int, end: int, sound: Sound) -> int:
    """Where samples of unknown size stop: the end, or the head of a file that was joined behind."""
    for at in find_all(file, W64_RIFF if sound.wave64 else b"WAVEfmt ", start, end):
        head = at if sound.wave64 else at - 8
        if head >= start and is_riff(read_at(file, head, 16)):
            return head
    return end


def _chunk(file: BinaryIO, at: int, end: int, sound: Sound) -> Chunk | None:
    """The chunk at an offset, None where there is none."""
    head = read_at(file, at, 24 if sound.wave64 else 8) if at < end else b""
    if not all(32 <= byte < 127 for byte in head[:4]):
        return None
    if sound.wave64 and len(head) == 24:
        size = int.from_bytes(head[16:24], "little")
        return Chunk(head[:4], at + 24, size - 24 if 24 <= size < 1 << 62 else size)
    if sound.wave64 or len(head) < 8:
        return None
    return Chunk(head[:4], at + 8, struct.unpack(sound.order + "I", head[4:])[0])


def _behind(file: BinaryIO, start: int, size: int, end: int, sound: Sound) -> int:
    """Where the chunk after one of this size begins: chunks are even, but not all writers know."""
    step = 8 if sound.wave64 else 2
    even = start + -(-size // step) * step
    if even != start + size and _chunk(file, even, end, sound) is None:
        close = _chunk(file, start + size, end, sound)
        if close is not None and (close.name in KNOWN or close.name in FILES):
            sound.odd = True
            return start + size
    return even


def whole(sound: Sound) -> tuple[Piece, ...]:
    """A WAV as it should have been written, of what was found."""
    order, plain = sound.order, _tag(sound) in PLAIN
    size = sound.size // sound.frame_bytes * sound.frame_bytes if plain else sound.size
    form = b"fmt " + struct.pack(order + "I", len(sound.form)) + sound.form + bytes(len(sound.form) % 2)
    if sound.fact and not plain:
        form += b"fact" + struct.pack(order + "I", len(sound.fact)) + sound.fact + bytes(len(sound.fact) % 2)
    extents = first_bytes(sound.extents, size)
    total = 4 + len(form) + 8 + size
    if total < LARGEST - 64:
        name = b"RIFX" if order == ">" else b"RIFF"
        head = name + struct.pack(order + "I", total) + b"WAVE" + form + b"data" + struct.pack(order + "I", size)
    else:
        sizes = struct.pack("<QQQI", total + 36, size, size // sound.frame_bytes, 0)
        head = (
            b"RF64" + b"\xff" * 4 + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes + form + b"data" + b"\xff" * 4
        )
    return (head, *extents)


def _tag(sound: Sound) -> int:
    tag = int(struct.unpack_from(sound.order + "H", sound.form)[0])
    if tag == EXTENSIBLE and len(sound.form) >= 26:
        tag = int(struct.unpack_from(sound.order + "H", sound.form, 24)[0])
    return tag
