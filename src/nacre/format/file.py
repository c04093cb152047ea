"""Packets <-> file: header, packets, end packet, and the way back after damage; see docs/format.md."""

from __future__ import annotations

import enum
import functools
from array import array
from binascii import crc_hqx
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np

from nacre.core.errors import StreamError
from nacre.core.kinds import MAGIC
from nacre.format.tags import unpack_tags

VERSION, BAND_VERSION = 1, 2  # the second of files with a band layer
HEADER_BYTES = 22
HEAD_BYTES, CHECK_BYTES, END_BYTES = 3, 2, 10
MOST_PAYLOAD_BYTES = 0x3FFE
END_LENGTH = 0x3FFF
MOST_KINDS = 15
UNKNOWN_SAMPLES = (1 << 40) - 1  # as written; in Python an unknown count is None
GAP_COST = 3  # packets a chain must bring before bytes are skipped to reach it
MOST_PACKETS = 1 << 21  # of a file: 24 days of one channel
FALSE_HEADS_IN = 48  # bytes of noise there is at most one that looks like a head
END_WORTH = 3  # packets that ending exactly at the end counts for


class Coupling(enum.IntEnum):
    """Whether channels are coded by themselves, as written in the header."""

    SEPARATE = 0
    INTENSITY = 1  # two channels: a group that is alike in both is written once


class Band(enum.IntEnum):
    """How far up a band layer over the core goes, as written in the header."""

    NONE = 0
    TO_12_KHZ = 1
    TO_20_KHZ = 2


_number = functools.partial(int.from_bytes, byteorder="little")


def _check_range(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise StreamError(f"{what} must be {least} to {most}, not {value}")


@dataclass(frozen=True)
class Header:
    """What a file says about itself; `samples` is per channel at `rate_hz`, None where not known."""

    fingerprint: bytes
    rate_hz: int
    channels: int
    samples: int | None
    group_frames: int
    kind: int = 1  # of latents, see nacre.quantise.registry
    coupling: Coupling = Coupling.SEPARATE
    band: Band = Band.NONE

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 4:
            raise StreamError(f"the model fingerprint must have 4 bytes, not {len(self.fingerprint)}")
        _check_range("rate_hz", self.rate_hz, 8_000, 192_000)
        _check_range("channels", self.channels, 1, 8)
        _check_range("samples", self.samples or 0, 0, UNKNOWN_SAMPLES - 1)
        _check_range("the kind of latents", self.kind, 1, MOST_KINDS)
        _check_range("group_frames", self.group_frames, 1, 255)
        if self.coupling == Coupling.INTENSITY and self.channels != 2:
            raise StreamError(f"intensity stereo needs 2 channels, not {self.channels}")


@dataclass(frozen=True, slots=True)
class Packet:
    """One channel of one group. An empty payload carries no check value: it is digital silence or, of the second
    channel in intensity stereo and by its level, a copy of the first."""

    level: int
    payload: bytes
    check: int = 0

    def __post_init__(self) -> None:
        _check_range("the quality level", self.level, 0, 15)
        _check_range("the payload bytes of a packet", len(self.payload), 0, MOST_PAYLOAD_BYTES)
        _check_range("the symbol check", self.check, 0, 0xFFFF if self.payload else 0)


@dataclass(frozen=True)
class Contents:
    """What was read. head_bytes + payload_bytes + skipped_bytes + tag_bytes is the size of the file."""

    header: Header
    samples: int | None  # the header's or the end packet's
    packets: list[Packet | None]  # group by group, channels inside; None where one was lost
    missing: int  # packets that the sample count needs beyond this list
    truncated: bool  # packets are missing at the end, or the end was never written
    head_bytes: int  # header, packet heads, check values, end packet
    payload_bytes: int
    skipped_bytes: int  # damaged, or after the end
    tags: dict[str, str] = field(default_factory=dict)  # title, artist and so on, where the file has a chunk of them
    modified_s: float | None = None  # when the recording was changed last, in seconds since 1970
    tag_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return self.head_bytes + self.payload_bytes + self.skipped_bytes + self.tag_bytes

    @property
    def intensity_groups(self) -> int:
        """Groups that the first channel's packet holds for both."""
        pairs = self.packets[1::2] if self.header.coupling == Coupling.INTENSITY else []
        return sum(packet is not None and not packet.payload and packet.level > 0 for packet in pairs)

    @property
    def lost(self) -> int:
        """Packets that are known to have been written and cannot be read."""
        return self.packets.count(None) + self.missing


def pack_header(header: Header) -> bytes:
    """Header -> 22 bytes."""
    samples = UNKNOWN_SAMPLES if header.samples is None else header.samples
    version = BAND_VERSION if header.band else VERSION
    start = MAGIC + bytes((version, header.kind | header.coupling << 4 | header.band << 6)) + header.fingerprint
    sound = header.rate_hz.to_bytes(3, "little") + bytes((header.channels,)) + samples.to_bytes(5, "little")
    fields = start + sound + bytes((header.group_frames,))
    return fields + crc_hqx(fields, 0).to_bytes(2, "little")


def unpack_header(data: bytes) -> Header:
    """First 22 bytes of a file -> header."""
    if data[:4] != MAGIC:
        begins = f"begins with {repr(data[:4])[1:]}, not {repr(MAGIC)[1:]}" if data else "is empty"
        raise StreamError(f"this is not a nacre file: it {begins}; make one with nacre encode")
    if len(data) < HEADER_BYTES:
        raise StreamError(f"the header is cut short, {len(data)} of {HEADER_BYTES} bytes; get the file again")
    if (version := data[4]) not in (VERSION, BAND_VERSION):
        known = f"this nacre reads {VERSION} and {BAND_VERSION}"
        raise StreamError(f"the file has format version {version}, but {known}; use a newer nacre")
    check, stated = crc_hqx(data[:20], 0), _number(data[20:22])
    if check != stated:
        raise StreamError(f"the header is damaged (check value {check:04x}, not {stated:04x}); get the file again")
    kind, coupling, band = data[5] & 15, data[5] >> 4, 0
    if version == BAND_VERSION:
        coupling, band = coupling & 3, coupling >> 2
    if coupling not in Coupling.__members__.values():
        raise StreamError(f"the channel coupling must be 0 or 1, not {coupling}; use a newer nacre")
    if version == BAND_VERSION and band not in (Band.TO_12_KHZ, Band.TO_20_KHZ):
        raise StreamError(f"the band layer must be 1 or 2, not {band}; use a newer nacre")
    samples = None if _number(data[14:19]) == UNKNOWN_SAMPLES else _number(data[14:19])
    fingerprint, rate_hz, channels = bytes(data[6:10]), _number(data[10:13]), data[13]
    return Header(fingerprint, rate_hz, channels, samples, data[19], kind, Coupling(coupling), Band(band))


@functools.cache
def _head_checks() -> bytes:
    """CRC-6 of every 18-bit head, [2^18] bytes; the bit that doubles the table brings its own remainder."""
    checks, remainder = np.array([0x3F], np.uint8), 0x19
    for _ in range(18):
        checks = np.concatenate((checks, checks ^ np.uint8(remainder)))
        remainder = (remainder << 1) ^ (0x59 if remainder & 0x20 else 0)
    return checks.tobytes()


def _pack_head(length: int, level: int) -> bytes:
    word = length | level << 14
    return (word | _head_checks()[word] << 18).to_bytes(HEAD_BYTES, "little")


def pack_packet(packet: Packet) -> bytes:
    """Packet -> its head, check value and payload; its head alone for silence."""
    head = _pack_head(len(packet.payload), packet.level)
    return head + packet.check.to_bytes(CHECK_BYTES, "little") + packet.payload if packet.payload else head


def unpack_packet(data: bytes) -> Packet:
    """The bytes of exactly one packet -> packet."""
    stop = _packet_stop(data, 0, len(data))
    if stop is None or stop != len(data):
        raise StreamError(f"the head of a packet does not match its {len(data)} bytes; give one whole packet")
    return _packet_at(data, 0, stop)


def pack_end(samples: int) -> bytes:
    """Sample count -> end packet, for a file whose header could not say it."""
    _check_range("samples", samples, 0, UNKNOWN_SAMPLES - 1)
    count = samples.to_bytes(5, "little")
    return _pack_head(END_LENGTH, 0) + count + crc_hqx(count, 0).to_bytes(2, "little")


def unpack(data: bytes, count_packets: Callable[[Header, int], int]) -> Contents:
    """A whole file -> what can be read of it. `count_packets(header, samples)` is the codec's knowledge."""
    header = unpack_header(data)
    tags, modified_s, tag_bytes = unpack_tags(data[HEADER_BYTES:])
    data = data[: len(data) - tag_bytes]
    samples, end, end_bytes = header.samples, len(data), 0
    if samples is None and (at := _find_end(data)) is not None:
        samples, end, end_bytes = _number(data[at + 3 : at + 8]), at, END_BYTES
    expected = None if samples is None else count_packets(header, samples)
    way = _hop(data, end, expected)
    packets = _place(data, _best_way(_all_heads(data, end), end) if way is None else way, end, expected)
    sizes = [len(packet.payload) for packet in packets if packet is not None]
    head_bytes = HEADER_BYTES + end_bytes + sum(HEAD_BYTES + CHECK_BYTES * (size > 0) for size in sizes)
    missing = 0 if expected is None else expected - len(packets)
    truncated = samples is None or missing > 0
    skipped_bytes = len(data) - head_bytes - sum(sizes)
    return Contents(
        header, samples, packets, missing, truncated, head_bytes, sum(sizes), skipped_bytes, tags, modified_s, tag_bytes
    )


def _find_end(data: bytes) -> int | None:
    """Offset of the first valid end packet."""
    head, at = _pack_head(END_LENGTH, 0), HEADER_BYTES - 1
    while (at := data.find(head, at + 1)) >= 0:
        samples = _number(data[at + 3 : at + 8])
        if samples != UNKNOWN_SAMPLES and data[at : at + END_BYTES] == pack_end(samples):
            return at
    return None


def _packet_stop(data: bytes, at: int, end: int) -> int | None:
    """Where the packet at `at` stops; None without a valid head there, or where it would pass `end`."""
    word = _number(data[at : at + HEAD_BYTES])
    length = word & END_LENGTH
    stop = at + HEAD_BYTES + (length + CHECK_BYTES if length else 0)
    valid = length != END_LENGTH and _head_checks()[word & 0x3FFFF] == word >> 18
    return stop if valid and stop <= end else None


def _too_many() -> StreamError:
    return StreamError(f"the file has more than {MOST_PACKETS} packets, which no recording needs; get the file again")


@functools.cache
def _silence(level: int) -> Packet:
    return Packet(level, b"")


def _packet_at(data: bytes, at: int, stop: int) -> Packet:
    level = (data[at + 1] >> 6) | (data[at + 2] & 3) << 2
    if stop == at + HEAD_BYTES:
        return _silence(level)
    check = _number(data[at + 3 : min(at + 5, stop)])
    return Packet(level, bytes(data[at + 5 : stop]), check)


def _hop(data: bytes, end: int, expected: int | None) -> np.ndarray | None:
    """Starts and stops [2, P] of an undamaged file's packets; None where they break off."""
    edges = [HEADER_BYTES]
    while len(edges) - 1 != expected and edges[-1] != end:
        stop = _packet_stop(data, edges[-1], end)
        if stop is None:
            return None
        edges.append(stop)
        if len(edges) > MOST_PACKETS:
            raise _too_many()
    return np.array((edges[:-1], edges[1:])) if expected in (None, len(edges) - 1) else None


def _all_heads(data: bytes, end: int, block_bytes: int = 1 << 20) -> np.ndarray:
    """Starts and stops [2, P] of the file's header and of every valid head whose packet fits."""
    checks = np.frombuffer(_head_checks(), np.uint8)
    pairs, total = [np.array([[0], [HEADER_BYTES]])], 0
    for first in range(HEADER_BYTES, end - HEAD_BYTES + 1, block_bytes):
        octets = np.frombuffer(data[first : min(first + block_bytes + 2, end)], np.uint8).astype(np.uint32)
        words = octets[:-2] | octets[1:-1] << 8 | octets[2:] << 16
        at = np.flatnonzero(checks[words & 0x3FFFF] == words >> 18)
        lengths = (words[at] & END_LENGTH).astype(np.int64)
        stops = first + at + HEAD_BYTES + np.where(lengths > 0, lengths + CHECK_BYTES, 0)
        fits = (lengths != END_LENGTH) & (stops <= end)
        pairs.append(np.stack((first + at[fits], stops[fits])))
        total += len(pairs[-1][0])
        if total > MOST_PACKETS + end // FALSE_HEADS_IN:  # no sound is like that, and all of them would not fit
            raise _too_many()
    return np.concatenate(pairs, axis=1)


def _best_way(heads: np.ndarray, end: int) -> np.ndarray:
    """Starts and stops [2, P] on the way worth most, worked out from the last head back to the file's header.

    A head is worth 1 + the best of: the head where its packet stops | any later head - GAP_COST | the end.
    """
    starts, stops = heads
    none = len(starts)
    after = array("q", np.searchsorted(starts, stops).astype(np.int64).tobytes())  # [P]
    joined = (np.append(starts, -1)[after] == stops).tobytes()
    closing = (stops == end).tobytes()
    worth = array("q", bytes(8 * (none + 1)))  # [P + 1], the last for "no head", as in the next two
    best = array("q", [none]) * (none + 1)  # the head worth most from here on
    onward = array("q", [none]) * (none + 1)  # the head to go to
    for here in range(none - 1, -1, -1):
        follow, jump = after[here], best[after[here]]
        gain, goal = END_WORTH if closing[here] else 0, none
        if worth[jump] - GAP_COST > gain:
            gain, goal = worth[jump] - GAP_COST, jump
        if joined[here] and worth[follow] >= gain:
            gain, goal = worth[follow], follow
        worth[here], onward[here] = 1 + gain, goal
        best[here] = here if worth[here] > worth[best[here + 1]] else best[here + 1]
    way, here = array("q"), onward[0]
    while here != none:
        way.append(here)
        here = onward[here]
    return heads[:, way]


def _place(data: bytes, way: np.ndarray, end: int, expected: int | None) -> list[Packet | None]:
    """Packets in their places, None for each that was lost between two; at most `expected` of them."""
    closed = way[1, -1:].tolist() == [end]
    lost = _lost_before(way[0], way[1], expected - way.shape[1] if closed and expected is not None else None)
    packets: list[Packet | None] = []
    for start, stop, count in zip(*(map(int, row) for row in (*way, lost)), strict=True):
        packets += [None] * count
        packets.append(_packet_at(data, start, stop))
    return packets[:expected]


def _lost_before(starts: np.ndarray, stops: np.ndarray, absent: int | None) -> np.ndarray:
    """Packets lost before each [P]: as many as the skipped bytes suggest, or a share of `absent` if known."""
    gap_bytes, sizes = starts - np.append(HEADER_BYTES, stops[:-1])[: len(starts)], stops - starts
    usual = np.rint(gap_bytes * len(sizes) / max(1, sizes.sum())).astype(np.int64)
    guess: np.ndarray = np.where(gap_bytes > np.max(sizes, initial=0), usual, gap_bytes > 0)
    if absent is None or not 0 <= absent <= np.sum(-(-gap_bytes // HEAD_BYTES)):
        return guess
    return np.diff(absent * np.cumsum(guess) // max(1, guess.sum()), prepend=0)


class Writer:
    """Packets -> binary file, as they come. The file is not closed, and must not be in append mode."""

    def __init__(self, file: BinaryIO, header: Header):
        self._file, self._header = file, replace(header, samples=None)
        self._start = file.tell() if file.seekable() else None
        file.write(pack_header(self._header))

    def add(self, packet: Packet) -> None:
        """Write the next packet: group by group, channels inside."""
        self._file.write(pack_packet(packet))

    def finish(self, samples: int) -> None:
        """Say how many samples there were: in the header where it can be reached, else in an end packet."""
        if self._start is None:
            self._file.write(pack_end(samples))
            return
        stop = self._file.tell()
        self._file.seek(self._start)
        self._file.write(pack_header(replace(self._header, samples=samples)))
        self._file.seek(stop)
