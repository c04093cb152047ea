"""Bytes of sound in the files of other codecs, without their containers' paging, tags and tables."""

from __future__ import annotations

from nacre.evaluate.programs import PeerError


def ogg_payload_bytes(data: bytes, header_packets: int = 2) -> int:
    """Bytes of the packets in an Ogg stream, without pages, lacing values and the header packets.

    A lacing value of 255 means that the packet continues in the next value, over page ends too.
    """
    at, packet, total = 0, 0, 0
    while at < len(data):
        if data[at : at + 4] != b"OggS" or at + 27 > len(data):
            raise PeerError(f"the Ogg stream is damaged: it has no page at byte {at}")
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        for size in lacing:
            total += size if packet >= header_packets else 0
            packet += size < 255
        at += 27 + len(lacing) + sum(lacing)
    return total


def mp3_payload_bytes(data: bytes) -> int:
    """Bytes of an MP3 stream without tags and the first frame, which holds no sound but the table of contents."""
    at = 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    at = at if data[:3] == b"ID3" else 0
    end = len(data) - (128 if data[-128:-125] == b"TAG" else 0)
    size = _mp3_frame_bytes(data[at : at + 4])
    frame = data[at : at + size]
    return end - at - (size if b"Xing" in frame or b"Info" in frame else 0)


def _mp3_frame_bytes(head: bytes) -> int:
    """Size of a layer III frame of MPEG 1, 2 or 2.5."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        raise PeerError(f"the MP3 stream is damaged: {head.hex()} does not start a frame")
    version, rate, speed = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    first = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    other = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    if rate in (0, 15) or speed == 3 or version == 1:
        raise PeerError(f"the MP3 stream is damaged: {head.hex()} is no frame header")
    rate_hz = (44_100, 48_000, 32_000)[speed] >> {3: 0, 2: 1, 0: 2}[version]
    kbps = (first if version == 3 else other)[rate]
    return (144_000 if version == 3 else 72_000) * kbps // rate_hz + (head[2] >> 1 & 1)


AMR_WB_MAGIC = b"#!AMR-WB\n"
AMR_WB_FRAME_BYTES = {0: 17, 1: 23, 2: 32, 3: 36, 4: 40, 5: 46, 6: 50, 7: 58, 8: 60, 9: 5, 14: 0, 15: 0}  # by type


def amr_wb_payload_bytes(data: bytes) -> int:
    """Bytes of speech in an AMR-WB file (RFC 4867, section 5), without the magic and the byte that heads each frame."""
    if not data.startswith(AMR_WB_MAGIC):
        raise PeerError(f"the file is not AMR-WB: it starts with {data[:9].hex()}")
    at, total = len(AMR_WB_MAGIC), 0
    while at < len(data):
        size = AMR_WB_FRAME_BYTES.get(data[at] >> 3 & 15)
        if size is None or at + 1 + size > len(data):
            raise PeerError(f"the AMR-WB file is damaged: it has no whole frame at byte {at}")
        at, total = at + 1 + size, total + size
    return total
