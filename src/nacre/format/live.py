"""Live packets <-> bytes: RTP heads (RFC 3550), frames for pipes (RFC 4571), reports; see docs/live.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nacre.core.errors import StreamError

PAYLOAD_TYPE = 96  # the first dynamic one; SDP may name another
HEAD_BYTES = 12
LONGEST_BYTES = 0xFFFF
REPORT_BYTES = 16
REPORT_MAGIC = b"NR01"


@dataclass(frozen=True)
class RtpPacket:
    """One packet on the line. `timestamp` counts samples of the model's rate, `marker` starts sound after a pause."""

    sequence: int  # 16 bits, wraps
    timestamp: int  # 32 bits, wraps
    source: int  # SSRC, 32 bits: another one is another sender
    payload: bytes
    marker: bool = False
    payload_type: int = PAYLOAD_TYPE


@dataclass(frozen=True)
class Report:
    """What a receiver reports to the sender once a second."""

    source: int
    lost_share: float  # 0 to 1, of the packets of the last seconds
    burst: int  # the longest run of lost packets, 1 to 255
    highest_sequence: int


def pack_rtp(packet: RtpPacket) -> bytes:
    """RtpPacket -> 12 bytes and the payload."""
    second = packet.payload_type & 0x7F | packet.marker << 7
    fields = (0x80, second, packet.sequence & 0xFFFF, packet.timestamp & 0xFFFFFFFF, packet.source & 0xFFFFFFFF)
    return struct.pack(">BBHII", *fields) + packet.payload


def unpack_rtp(data: bytes) -> RtpPacket:
    """Bytes of one datagram -> RtpPacket; list of sources, extension and padding are skipped. Raises StreamError."""
    if len(data) < HEAD_BYTES or data[0] >> 6 != 2:
        raise StreamError(f"the packet has no RTP head of version 2, but begins with {data[:2].hex() or 'no bytes'}")
    first, second, sequence, timestamp, source = struct.unpack_from(">BBHII", data)
    start, stop = HEAD_BYTES + 4 * (first & 15), len(data)
    if first & 0x10:
        if stop < start + 4:
            raise StreamError(f"the RTP packet ends after {stop} bytes, inside its head's extension")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        stop -= data[-1]
    if stop < start:
        raise StreamError(f"the RTP packet of {len(data)} bytes is too short for a head of {start} and its padding")
    return RtpPacket(sequence, timestamp, source, bytes(data[start:stop]), bool(second >> 7), second & 0x7F)


def pack_report(report: Report) -> bytes:
    """Report -> 16 bytes."""
    share = min(255, max(0, round(report.lost_share * 256)))
    fields = (share, min(255, max(0, report.burst)), report.highest_sequence & 0xFFFF, 0)
    return REPORT_MAGIC + struct.pack(">IBBHI", report.source & 0xFFFFFFFF, *fields)


def unpack_report(data: bytes) -> Report:
    """16 bytes -> Report; raises StreamError."""
    if len(data) != REPORT_BYTES or data[:4] != REPORT_MAGIC:
        begins = data[:4].hex() or "nothing"
        raise StreamError(f"a receiver's report has {REPORT_BYTES} bytes, not {len(data)} that begin with {begins}")
    source, share, burst, highest, _ = struct.unpack(">IBBHI", data[4:])
    return Report(source, share / 256, burst, highest)


def pack_framed(packet: bytes) -> bytes:
    """A packet for a pipe: its length, two bytes, and itself. Raises StreamError."""
    if len(packet) > LONGEST_BYTES:
        raise StreamError(f"a packet in a pipe has at most {LONGEST_BYTES} bytes, not {len(packet)}")
    return len(packet).to_bytes(2, "big") + packet


class FramedReader:
    """Bytes of a pipe, in pieces of any size, to packets."""

    def __init__(self) -> None:
        self._waiting = b""

    def push(self, data: bytes) -> Iterator[bytes]:
        """The packets that these bytes complete."""
        self._waiting += data
        while len(self._waiting) >= 2:
            stop = 2 + int.from_bytes(self._waiting[:2], "big")
            if len(self._waiting) < stop:
                return
            packet, self._waiting = self._waiting[2:stop], self._waiting[stop:]
            yield packet

    @property
    def left_bytes(self) -> int:
        """Bytes of a packet that has not come to its end."""
        return len(self._waiting)
