"""Broken and unusual sound files, made by hand from whole ones, for the tests of what is read of them."""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile as sf

from nacre.io import flac, ogg

RATE = 16_000


def voice(seconds: float, channels: int = 1, rate_hz: int = RATE, seed: int = 0) -> np.ndarray:
    """Tones under noise that never repeat, [N] or [N, C] float32."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = [0.3 * np.sin(2 * np.pi * (200 * (c + 1) + 20 * time_s) * time_s) for c in range(channels)]
    wave = np.stack(tones, 1) + 0.02 * rng.standard_normal((len(time_s), channels))
    return np.squeeze(wave.astype(np.float32))


def encoded(wave: np.ndarray, container: str, subtype: str | None = None, rate_hz: int = RATE) -> bytes:
    """A whole file by libsndfile."""
    file = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with sf.SoundFile(file, "w", rate_hz, channels, subtype, format=container) as sound:
        for at in range(0, len(wave), 4000):
            sound.write(wave[at : at + 4000])
    return file.getvalue()


def pcm(wave: np.ndarray, order: str = "<") -> bytes:
    """16-bit samples."""
    return np.rint(wave * 32767).astype(f"{order}i2").tobytes()


def chunk(name: bytes, data: bytes, size: int | None = None, order: str = "<", even: bool = True) -> bytes:
    """A chunk of RIFF or, with order ">", of AIFF; `size` is what it claims."""
    padding = bytes(len(data) % 2) if even else b""
    return name + struct.pack(f"{order}I", len(data) if size is None else size) + data + padding


def form(channels: int = 1, rate_hz: int = RATE, order: str = "<", bits: int = 16, tag: int = 1) -> bytes:
    """The fmt chunk of a WAV."""
    width = channels * bits // 8
    return chunk(
        b"fmt ", struct.pack(f"{order}HHIIHH", tag, channels, rate_hz, rate_hz * width, width, bits), None, order
    )


def riff(*chunks: bytes, name: bytes = b"RIFF", size: int | None = None) -> bytes:
    """A WAV of these chunks."""
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack(">I" if name == b"RIFX" else "<I", len(body) if size is None else size) + body


def rf64(data: bytes, stated: int, name: bytes = b"RF64", data_size: int = 0xFFFFFFFF) -> bytes:
    """An RF64 or BW64 whose own chunk of sizes says `stated`."""
    sizes = chunk(b"ds64", struct.pack("<QQQI", 72 + stated & (1 << 64) - 1, stated, stated // 2, 0))
    return riff(sizes, form(), chunk(b"data", data, data_size), name=name, size=0xFFFFFFFF)


def wave64(data: bytes, stated: int, *before: tuple[bytes, bytes]) -> bytes:
    """A Wave64 whose data chunk says `stated` bytes."""
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    body = b""
    for name, content in (*before, (b"fmt ", form()[8:])):
        body += name + tail + struct.pack("<Q", len(content) + 24) + content + bytes(-len(content) % 8)
    body += b"data" + tail + struct.pack("<Q", stated) + data
    head = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    return head + struct.pack("<Q", 40 + len(body)) + b"wave" + tail + body


def aiff(data: bytes, frames: int, stated: int | None = None, kind: bytes = b"AIFF", *before: bytes) -> bytes:
    """A 16-bit AIFF that says it has so many frames and `stated` bytes in its chunk of sound."""
    rate = struct.pack(">HQ", 16383 + 13, RATE << (63 - 13))
    comm = struct.pack(">HIH", 1, frames, 16) + rate + (b"NONE\x0enot compressed\0" if kind == b"AIFC" else b"")
    sound = chunk(b"SSND", bytes(8) + data, stated, ">")
    body = kind + b"".join(before) + chunk(b"COMM", comm, None, ">") + sound
    return b"FORM" + struct.pack(">I", len(body)) + body


def pages(data: bytes) -> list[bytearray]:
    """The pages of an Ogg file."""
    found, at = [], 0
    while at < len(data):
        count = data[at + 26]
        size = 27 + count + sum(data[at + 27 : at + 27 + count])
        found.append(bytearray(data[at : at + size]))
        at += size
    return found


def sealed(page: bytearray) -> bytearray:
    """The page with the check value that its bytes have."""
    page[22:26] = ogg.check_value(bytes(page)).to_bytes(4, "little")
    return page


def granule(page: bytearray) -> int:
    """Samples up to the end of a page."""
    return int.from_bytes(page[6:14], "little", signed=True)


def page_of(packets: list[bytes], number: int, position: int, flags: int = 0, serial: int = 7) -> bytes:
    """A page that holds whole packets."""
    laces = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    head = b"OggS\0" + bytes([flags]) + struct.pack("<qII", position, serial, number) + bytes(4) + bytes([len(laces)])
    return bytes(sealed(bytearray(head + laces + b"".join(packets))))


def flac_frames(data: bytes) -> list[int]:
    """Offsets of the frames of a FLAC file of one block size, and its end."""
    return [frame.offset for frame in flac._heads(io.BytesIO(data), 0)] + [len(data)]


def ogg_flac(data: bytes) -> bytes:
    """A native FLAC file in Ogg."""
    edges, size = flac_frames(data), int.from_bytes(data[8:10], "big")
    first = b"\x7fFLAC\x01\x00\x00\x01fLaC" + b"\0" + data[5:42]
    comment = b"\x84\0\0\x08" + struct.pack("<II", 0, 0)
    frames = [data[start:stop] for start, stop in pairwise(edges)]
    total = int.from_bytes(data[21:26], "big") & (1 << 36) - 1
    out = page_of([first], 0, 0, ogg.BEGIN) + page_of([comment], 1, 0)
    for index, frame in enumerate(frames):
        last = index == len(frames) - 1
        out += page_of([frame], index + 2, min(total, (index + 1) * size), ogg.END if last else 0)
    return out


def save(folder: Path, name: str, data: bytes) -> Path:
    """A file of these bytes."""
    path = folder / name
    path.write_bytes(data)
    return path
