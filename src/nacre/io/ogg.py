"""Ogg: the pages of one sound among what else a file holds, links of a chain apart, ends mended, holes measured."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from nacre.core.units import MAX_RATE_HZ, MIN_RATE_HZ
from nacre.io.view import Extent, Part, Piece, Plan, find_all, read_at, size_of

HEAD_BYTES = 27
CONTINUED, BEGIN, END = 1, 2, 4  # flags of a page
OPUS_HZ = 48_000
OPUS_SILK, OPUS_HYBRID, OPUS_CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)  # samples a frame
DAMAGED = "damaged"
NO_SERIAL = -1  # of a page that breaks off in its head
STARTS = {b"\x01vorbis": "vorbis", b"OpusHead": "opus", b"\x7fFLAC": "flac"}
HEADERS = {"vorbis": 3, "opus": 2}  # packets before the sound
HEAD_PAGES = 2  # pages that hold them, as nearly all are written
ORDERS = {  # which channel of Vorbis and Opus stands at each place of a WAV
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page as it lies in the file."""

    offset: int
    size: int
    flags: int
    granule: int  # samples up to the end of the last packet that ends here; -1 where none does
    serial: int
    number: int
    laces: bytes  # sizes of its pieces of packets
    good: bool  # whole, and its check value is right

    @property
    def body(self) -> int:
        """Offset of the first piece of a packet."""
        return self.offset + HEAD_BYTES + len(self.laces)


@dataclass
class Link:
    """One sound of a file: its pages in order."""

    codec: str
    pages: list[Page] = field(default_factory=list)
    holes: set[int] = field(default_factory=set)  # pages before which something is missing
    is_cut: bool = False  # inside its last page


def check_value(page: bytes) -> int:
    """CRC-32 of a page as Ogg has it: zlib's, with all bits the other way round."""
    data = page[:22] + bytes(4) + page[26:]
    register = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2)


def plan(file: BinaryIO) -> Plan | None:
    """How the sound of an Ogg file is read; None where there is none that is known."""
    every = _links(file)
    links = [link for link in every if link.codec != DAMAGED and link.pages]  # a file may end in its first page
    if not links:
        return None
    first = links[0]
    plan = Plan(parts=[])
    plan.losses = [f"another recording in {link.codec} behind it" for link in links if link.codec != first.codec]
    if len(links) < len(every):
        plan.losses.append("a recording whose first page is damaged")
    for link in links:
        if link.codec == first.codec == "flac":
            plan.parts.append(Part(_native_flac(file, link), kind="flac"))
            if link.holes:
                plan.losses.append("pages are missing, silent there")
        elif link.codec == first.codec:
            _add(file, link, plan)
    if first.codec != "flac":
        head = read_at(file, first.pages[0].body, 19)
        channels = head[11] if first.codec == "vorbis" else head[9]
        if first.codec == "vorbis" or head[18:19] == b"\1":
            plan.order = ORDERS.get(channels)
    return plan if plan.parts else None


def _links(file: BinaryIO) -> list[Link]:
    """Every sound of a file, one behind another; of several side by side the first."""
    links: list[Link] = []
    serial, end = None, size_of(file)
    for page in _pages(file):
        if page.flags & BEGIN and (not links or len(links[-1].pages) > 1):
            codec = next(
                (name for magic, name in STARTS.items() if read_at(file, page.body, len(magic)) == magic), None
            )
            if codec or not page.good:
                serial = page.serial
                links.append(Link(codec or DAMAGED))
        if links and page.serial in (serial, NO_SERIAL):
            _take(links[-1], page, page.offset + page.size > end)
    return links


def _take(link: Link, page: Page, is_cut: bool) -> None:
    """The next page of a link, or what is missing where it is none."""
    whole = page.good or (len(link.pages) < HEAD_PAGES and not is_cut) or link.codec == "flac"
    if not whole or (link.pages and page.good and page.number != link.pages[-1].number + 1):
        link.holes.add(len(link.pages))
    link.is_cut = is_cut
    if whole:
        link.pages.append(page)


def _pages(file: BinaryIO) -> Iterator[Page]:
    """Pages of any stream, also behind bytes that are none."""
    at, end = 0, size_of(file)
    while at < end:
        head = read_at(file, at, HEAD_BYTES + 255)
        if len(head) < HEAD_BYTES and b"OggS".startswith(head[:4]):
            yield Page(at, HEAD_BYTES, 0, -1, NO_SERIAL, 0, b"", False)
            return
        if head[:4] != b"OggS":
            at = next(find_all(file, b"OggS", at + 1), end)
            continue
        laces = head[HEAD_BYTES : HEAD_BYTES + head[26]]
        size = HEAD_BYTES + head[26] + sum(laces)
        data = read_at(file, at, size)
        good = len(data) == size and check_value(data) == int.from_bytes(data[22:26], "little")
        granule = int.from_bytes(head[6:14], "little", signed=True)
        serial, number = (int.from_bytes(head[start : start + 4], "little") for start in (14, 18))
        yield Page(at, size, head[5], granule, serial, number, laces, good)
        if not good:  # its size may be what is wrong: a page head inside it begins the next page
            size = next(find_all(file, b"OggS", at + 4, min(end, at + size)), at + size) - at
        at += size


def _add(file: BinaryIO, link: Link, plan: Plan) -> None:
    """Parts of a link, one more behind every hole, each with an end of its own."""
    heads = _head_pages(link)
    if not all(page.good for page in link.pages[: 1 if link.codec == "opus" else heads]):
        plan.losses.append("damaged headers, taken as they are")
    edges = [heads, *sorted(hole for hole in link.holes if heads < hole < len(link.pages)), len(link.pages)]
    if starts_late := heads in link.holes:
        plan.losses.append("pages at its beginning are missing")
    for start, stop in pairwise(edges):
        if pages := _closed(link.pages[start:stop]):
            alone = start > heads and len(pages) == 1 and link.codec == "opus"
            final, spare = _with_end(file, pages[-1]), 0
            if alone:
                final, spare = _from_zero(file, pages[-1], link.pages[start - 1].granule)
            first = (_mended(file, page, link.codec, starts_late or start > heads) for page in link.pages[:heads])
            pieces = *first, *(Extent(page.offset, page.size) for page in pages[:-1]), final
            clock_hz = OPUS_HZ if link.codec == "opus" else None
            ends_at, fresh = pages[-1].granule, start == heads
            plan.parts.append(Part(pieces, spare=spare, ends_at=ends_at, clock_hz=clock_hz, fresh=fresh))
    last = link.pages[-1]
    goes_on = last.laces[-1:] == b"\xff" or _closed(link.pages[heads:]) != link.pages[heads:]
    plan.cut |= link.is_cut or goes_on or len(link.pages) in link.holes


def _closed(pages: list[Page]) -> list[Page]:
    """Pages up to the last on which a packet ends."""
    while pages and pages[-1].granule < 0:
        pages = pages[:-1]
    return pages


def _head_pages(link: Link) -> int:
    """Pages that hold the headers, on which no sound begins."""
    packets = 0
    for index, page in enumerate(link.pages):
        packets += sum(lace < 255 for lace in page.laces)
        if packets >= HEADERS[link.codec]:
            return index + 1
    return len(link.pages)


def _with_end(file: BinaryIO, page: Page) -> Piece:
    """A page with the flag of the last one."""
    if page.flags & END:
        return Extent(page.offset, page.size)
    data = bytearray(read_at(file, page.offset, page.size))
    data[5] |= END
    return _sealed(data)


def _from_zero(file: BinaryIO, page: Page, before: int) -> tuple[bytes, int]:
    """A page of Opus alone behind a hole: nothing states where it begins, so it is made to begin at 0.

    With the position `before` the hole; -> also how many samples of its last packet lie behind the end.
    """
    data = bytearray(read_at(file, page.offset, page.size))
    sizes = _opus_packets(page, bytes(data)) or [1]
    data[5] |= END
    data[6:14] = sum(sizes).to_bytes(8, "little")
    return _sealed(data), (before + sum(sizes) - page.granule) % max(1, sizes[0])


def _opus_packets(page: Page, data: bytes) -> list[int]:
    """Samples at 48 kHz of each packet that begins on a page."""
    at, begins, packets = HEAD_BYTES + len(page.laces), not page.flags & CONTINUED, []
    for lace in page.laces:
        if begins and lace:
            config, code = data[at] >> 3, data[at] & 3
            size = OPUS_SILK[config % 4] if config < 12 else OPUS_HYBRID[config % 2]
            size = OPUS_CELT[config % 4] if config > 15 else size
            packets.append(size * (data[at + 1] & 63 if code == 3 and lace > 1 else 1 + (code > 0)))
        at, begins = at + lace, lace < 255
    return packets


def _sealed(data: bytearray) -> bytes:
    data[22:26] = check_value(bytes(data)).to_bytes(4, "little")
    return bytes(data)


def _mended(file: BinaryIO, page: Page, codec: str, late: bool) -> Piece:
    """A page of headers: its check value is made right, and an Opus rate that is none becomes Opus' own.

    `late`: for a stretch behind a hole, where nothing is left out at the start.
    """
    data = bytearray(read_at(file, page.offset, page.size))
    head, changed = page.body - page.offset, not page.good
    if codec == "opus" and data[head : head + 8] == b"OpusHead":
        rate, lead = slice(head + 12, head + 16), slice(head + 10, head + 12)
        known = MIN_RATE_HZ <= int.from_bytes(data[rate], "little") <= MAX_RATE_HZ
        changed |= late or not known
        data[rate] = data[rate] if known else OPUS_HZ.to_bytes(4, "little")
        data[lead] = bytes(2) if late else data[lead]
    return _sealed(data) if changed else Extent(page.offset, page.size)


def _native_flac(file: BinaryIO, link: Link) -> tuple[Piece, ...]:
    """The stream of FLAC that is packed into pages, as it would lie in a file of its own."""
    first = link.pages[0]
    head = read_at(file, first.body, sum(first.laces))
    pieces: list[Piece] = [head[9:13] + b"\x80" + head[14:]]  # STREAMINFO, as the only block of metadata
    skip = int.from_bytes(head[7:9], "big")  # packets of other metadata
    for page in link.pages[1:]:
        at = page.body
        for lace in page.laces:
            if not skip:
                break
            at += lace
            skip -= lace < 255
        pieces.append(Extent(at, page.offset + page.size - at))
    return tuple(pieces)
