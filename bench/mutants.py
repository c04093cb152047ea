"""Bytes that nobody meant to write: damage as disks and lines do it, and lies whose check values are right."""

from __future__ import annotations

import io
import struct
from binascii import crc_hqx

import numpy as np
import soundfile as sf

from nacre.codec.codec import Codec
from nacre.core.errors import NacreError
from nacre.format.file import Packet, pack_header, pack_packet, unpack_header
from nacre.io import ogg

HEADER_BYTES = 22
LIES = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFF,
)
SOUNDS = (  # container and subtype of libsndfile, rate, channels
    ("WAV", "PCM_16", 16_000, 1),
    ("WAV", "PCM_U8", 8_000, 2),
    ("WAV", "FLOAT", 44_100, 1),
    ("WAV", "IMA_ADPCM", 16_000, 1),
    ("WAVEX", "PCM_24", 48_000, 6),
    ("RF64", "PCM_16", 16_000, 1),
    ("W64", "PCM_16", 16_000, 1),
    ("AIFF", "PCM_16", 16_000, 2),
    ("AU", "ULAW", 8_000, 1),
    ("CAF", "PCM_16", 16_000, 1),
    ("FLAC", "PCM_16", 16_000, 1),
    ("FLAC", "PCM_24", 48_000, 2),
    ("OGG", "VORBIS", 16_000, 1),
    ("OGG", "OPUS", 48_000, 2),
    ("MP3", "MPEG_LAYER_III", 16_000, 1),
)


def accident(data: bytes, random: np.random.Generator, safe_bytes: int = HEADER_BYTES) -> bytes:
    """Bytes changed, bits, bursts, zeros, a cut, a stretch lost or twice; the first `safe_bytes` stay."""
    hurt, way = bytearray(data), int(random.integers(6))
    at = int(random.integers(safe_bytes, len(data)))
    if way == 0:
        for place in random.integers(safe_bytes, len(data), int(random.integers(1, 4))):
            hurt[place] ^= int(random.integers(1, 256))
    elif way == 1:
        hurt[at] ^= 1 << int(random.integers(8))
    elif way == 2:
        size = int(random.integers(2, 64))
        hurt[at : at + size] = random.bytes(len(hurt[at : at + size]))
    elif way == 3:
        size = int(random.integers(2, 512))
        hurt[at : at + size] = bytes(len(hurt[at : at + size]))
    elif way == 4:
        del hurt[at:]
    else:
        size = int(random.integers(1, 64))
        hurt[at:at] = hurt[at : at + size] if random.integers(2) else b""
        del hurt[at : at + size]
    return bytes(hurt)


# ---- files of nacre


def hostile(codec: Codec, data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """A `.nacre` file whose check values are right; `other` is one of the same model."""
    way = int(random.integers(6))
    if way == 0:  # a header that lies
        fields = bytearray(data[:20])
        fields[int(random.integers(4, 20))] = int(random.integers(256))
        return bytes(fields) + crc_hqx(bytes(fields), 0).to_bytes(2, "little") + data[HEADER_BYTES:]
    header, packets = unpack_header(data), [packet for packet in codec.parse(data).packets if packet]
    if way == 1:  # heads alone
        count = int(random.integers(1, 1 << int(random.integers(1, 12))))
        heads = [pack_packet(Packet(level, b"")) for level in range(16)]
        return pack_header(header) + b"".join(heads[level] for level in random.integers(16, size=count))
    index = int(random.integers(len(packets)))
    if way == 2:  # a payload of noise, with the symbol check that it gives
        payload = bytes([int(random.integers(32))]) + random.bytes(int(random.integers(1, 900)))
        packets[index] = matching(codec, data, Packet(int(random.integers(16)), payload))
    elif way == 3:  # another level, a payload cut short
        old = packets[index]
        cut = int(random.integers(len(old.payload) + 1))
        packets[index] = Packet(int(random.integers(16)), old.payload[:cut], old.check if cut else 0)
    elif way == 4:  # packets of another file
        packets += [packet for packet in codec.parse(other).packets if packet]
        random.shuffle(packets)  # type: ignore[arg-type]
    else:  # a gain, a level or a symbol that is damaged, with the symbol check that it gives
        old = packets[index]
        if old.payload:
            changed = accident(old.payload, random, 0) or b"\0"
            packets[index] = matching(codec, data, Packet(old.level, changed))
    return pack_header(header) + b"".join(map(pack_packet, packets))


def matching(codec: Codec, data: bytes, packet: Packet) -> Packet:
    """The packet with the symbol check that its symbols have, in a file that begins as `data` does."""
    header = unpack_header(data)
    coder = codec.decoder(codec.parse(pack_header(header) + pack_packet(packet))).coder
    try:
        text = str(coder.unpack([packet], [header.group_frames])[0])
    except NacreError:
        return packet
    if "symbol check" not in text:
        return packet
    return Packet(packet.level, packet.payload, int(text.split("check failed (")[1][:4], 16))


# ---- files of sound


def sounds(wave: np.ndarray) -> list[tuple[str, bytes]]:
    """(suffix, bytes) of a short file of each of SOUNDS from wave [N] float32, tagged where that is possible."""
    found = []
    for container, subtype, rate_hz, channels in SOUNDS:
        file = io.BytesIO()
        with sf.SoundFile(file, "w", rate_hz, channels, subtype, format=container) as sound:
            if container in ("WAV", "FLAC", "OGG", "MP3"):
                sound.title = "Box 7"
            sound.write(np.repeat(wave[:, None], channels, 1))
        suffix = {"OGG": ".opus" if subtype == "OPUS" else ".ogg"}.get(container, f".{container.lower()}")
        found.append((suffix, file.getvalue()))
    return found


def lying(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """A sound file with a number in its heads that lies, parts in another order, or another file behind it."""
    way, hurt = int(random.integers(5)), bytearray(data)
    if way <= 1:
        reach = min(len(data), 128 if way else len(data))
        for _ in range(int(random.integers(1, 4))):
            form = "<>"[int(random.integers(2))] + "HIQ"[int(random.integers(3))]
            size = struct.calcsize(form)
            lie = LIES[int(random.integers(len(LIES)))] & ((1 << 8 * size) - 1)
            struct.pack_into(form, hurt, int(random.integers(max(1, reach - size))), lie)
    elif way == 2:
        hurt = hurt[: int(random.integers(len(hurt) + 1))] + other[int(random.integers(len(other))) :]
    elif way == 3:
        hurt += other
    else:
        first, second = sorted(random.integers(len(data), size=2).tolist())
        hurt = hurt[:first] + hurt[second:] + hurt[first:second]
    return repaired(bytes(hurt))


def repaired(data: bytes) -> bytes:
    """An Ogg file with the check value of every page set right; other files as they are."""
    if data[:4] != b"OggS":
        return data
    starts = [0]
    while (at := data.find(b"OggS", starts[-1] + 4)) > 0:
        starts.append(at)
    pages = []
    for start, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        page = bytearray(data[start:stop])
        if len(page) > 26:
            page[22:26] = bytes(4)
            page[22:26] = ogg.check_value(bytes(page)).to_bytes(4, "little")
        pages.append(bytes(page))
    return b"".join(pages)


# ---- packets of a line


def broken(packet: bytes, random: np.random.Generator) -> bytes:
    """A packet with bits flipped, cut short, lengthened, of noise, or with a head that lies."""
    data, way = bytearray(packet), int(random.integers(8))
    if way == 0:
        return bytes(data[: int(random.integers(len(data)))])
    if way == 1:
        return bytes(data) + random.bytes(int(random.integers(1, 1500)))
    if way == 2:
        return bytes(data[:12]) + random.bytes(int(random.integers(0, 200)))
    first = 0 if way == 3 else 12
    for place in random.integers(8 * first, 8 * len(data), int(random.integers(1, 4))):
        data[place // 8] ^= 1 << (place % 8)
    return bytes(data)
