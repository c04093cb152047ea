"""FLAC behind a bad spot: frames that are whole are found by their sync codes and check values, wherever they lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from nacre.io.view import Extent, Part, Plan, find_all, read_at, size_of

MAGIC = b"fLaC"
STREAMINFO_BYTES = 34
HEAD_BYTES = 16  # of a frame, at most
MOST_FRAME_BYTES = 1 << 20
TRIES = 4  # sync codes inside a frame that are none, at most
RATES_HZ = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
BITS = (0, 8, 12, 0, 16, 20, 24, 32)


def _table(bits: int, polynomial: int) -> list[int]:
    values = []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        values.append(value)
    return values


_CRC8 = _table(8, 0x07)
_CRC16 = np.array(_table(16, 0x8005), np.uint16)


@dataclass(frozen=True)
class Frame:
    """What the head of a frame says."""

    offset: int
    start: int  # its first sample
    samples: int
    rate_hz: int  # 0: see STREAMINFO
    channels: int
    bits: int  # 0: see STREAMINFO


def plan(file: BinaryIO) -> Plan | None:
    """Parts of FLAC files joined one behind another; None for a single one."""
    starts = [at for at in find_all(file, MAGIC + b"\0\0\0\x22") if at == 0 or _is_start(file, at)]
    starts += [at for at in find_all(file, MAGIC + b"\x80\0\0\x22") if at == 0 or _is_start(file, at)]
    edges = [*sorted(starts), size_of(file)]
    if len(starts) < 1 or starts == [0]:
        return None
    return Plan(parts=[Part((Extent(at, stop - at),), "flac") for at, stop in pairwise(edges)])


def _is_start(file: BinaryIO, at: int) -> bool:
    """Whether STREAMINFO follows, not the picture of one."""
    info = read_at(file, at + 8, STREAMINFO_BYTES)
    least, most = struct.unpack(">HH", info[:4]) if len(info) == STREAMINFO_BYTES else (0, 0)
    return 16 <= least <= most and _rate_hz(info) > 0


def _rate_hz(info: bytes) -> int:
    return int.from_bytes(info[10:13], "big") >> 4


def counted(file: BinaryIO) -> int:
    """Samples up to the last frame head of those that follow each other from the start on, whatever the file states."""
    info = read_at(file, 8, STREAMINFO_BYTES)
    size, end = int.from_bytes(info[:2], "big"), 0
    for frame in _heads(file, size):
        if frame.start == end and _fits(frame, info, []):
            end += frame.samples
    return end


def salvage(file: BinaryIO, done: int) -> list[Part]:
    """Parts of all whole frames of a FLAC stream that hold samples from `done` on."""
    info = read_at(file, 8, STREAMINFO_BYTES) if read_at(file, 0, 4) == MAGIC else b""
    frames = _good_frames(file, done, info)
    if not frames and info:  # which may be what is damaged
        info = b""
        frames = _good_frames(file, done, info)
    runs: list[list[tuple[Frame, int]]] = []
    for frame, stop in frames:
        last = runs[-1][-1] if runs else None
        if last and last[1] == frame.offset and last[0].start + last[0].samples == frame.start:
            runs[-1].append((frame, stop))
        else:
            runs.append([(frame, stop)])
    return [_part(run, info, done) for run in runs]


def _part(run: list[tuple[Frame, int]], info: bytes, done: int) -> Part:
    """Frames that follow each other as a FLAC file of their own."""
    (first, _), (last, stop) = run[0], run[-1]
    count = last.start + last.samples - first.start
    shape = int.from_bytes(info[10:18], "big") >> 36 if info else _shape(first)
    sizes = [frame.samples for frame, _ in run[:-1]] or [first.samples]
    head = info[:10] if info else struct.pack(">HH", min(sizes), max(sizes)) + bytes(6)
    block = head + (shape << 36 | count).to_bytes(8, "big") + bytes(16)
    head = MAGIC + b"\x80" + STREAMINFO_BYTES.to_bytes(3, "big") + block
    extent = Extent(first.offset, stop - first.offset)
    return Part((head, extent), skip=max(0, done - first.start), ends_at=first.start + count, fresh=False)


def _shape(frame: Frame) -> int:
    """Rate, channels and bits as STREAMINFO has them."""
    return frame.rate_hz << 8 | (frame.channels - 1) << 5 | (frame.bits - 1)


def _good_frames(file: BinaryIO, done: int, info: bytes) -> list[tuple[Frame, int]]:
    """(frame, where it stops) of all frames from `done` on whose check value is right."""
    size = int.from_bytes(info[:2], "big") if info else 0
    heads = [frame for frame in _heads(file, size) if frame.start + frame.samples > done]
    heads = [frame for frame in heads if _fits(frame, info, heads)]
    stops = [*(frame.offset for frame in heads[1:]), size_of(file)]
    frames, at = [], 0
    while at < len(heads):
        stop = _stop(file, heads[at].offset, stops[at : at + TRIES])
        if stop:
            frames.append((heads[at], stop))
        at += max(1, sum(offset < stop for offset in stops[at : at + TRIES]) + 1 if stop else 1)
    return frames


def _fits(frame: Frame, info: bytes, frames: list[Frame]) -> bool:
    if info:
        shape = int.from_bytes(info[10:18], "big") >> 36
        wanted = (shape >> 8, (shape >> 5 & 7) + 1, (shape & 31) + 1)
    else:
        wanted = (frames[0].rate_hz, frames[0].channels, frames[0].bits)
    own = (frame.rate_hz or wanted[0], frame.channels, frame.bits or wanted[2])
    return own == wanted


def _stop(file: BinaryIO, start: int, stops: list[int]) -> int:
    """Where a frame stops that may hold what looks like the head of another, or have a tag behind it; 0 if nowhere."""
    end = size_of(file)
    tries = [*stops, *([end - 128] if end in stops else [])]
    return next((stop for stop in tries if _is_whole(file, start, stop)), 0)


def _is_whole(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether the bytes from `start` to `stop` end in their check value."""
    return 0 < stop - start <= MOST_FRAME_BYTES and _check_value(read_at(file, start, stop - start)) == 0


def _check_value(data: bytes) -> int:
    """CRC-16 over some bytes; 0 where the last two are that of the others.

    Zeros before change nothing, and the check value of two halves is that of the first, moved on by the length of the
    second, plus that of the second. So neighbours are joined, then pairs of them, all at once.
    """
    padded = np.zeros(1 << (len(data) - 1).bit_length(), np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    sums, step = _CRC16[padded], 0
    while len(sums) > 1:
        high, low = _moved_on(step)
        sums = high[sums[::2] >> 8] ^ low[sums[::2] & 0xFF] ^ sums[1::2]
        step += 1
    return int(sums[0])


@cache
def _moved_on(step: int) -> tuple[np.ndarray, np.ndarray]:
    """What 2^step zero bytes make of the upper and of the lower byte of a check value, [256] each."""
    if step == 0:
        return _CRC16, np.arange(256, dtype=np.uint16) << 8
    high, low = _moved_on(step - 1)
    return high[high >> 8] ^ low[high & 0xFF], high[low >> 8] ^ low[low & 0xFF]


def _heads(file: BinaryIO, block_samples: int) -> Iterator[Frame]:
    """Every place that looks like the head of a frame, its own check value right."""
    for place in sorted({*find_all(file, b"\xff\xf8"), *find_all(file, b"\xff\xf9")}):
        frame = _head(read_at(file, place, HEAD_BYTES), place, block_samples)
        if frame:
            block_samples = block_samples or frame.samples
            yield frame


def _head(data: bytes, offset: int, block_samples: int) -> Frame | None:
    """The head of a frame, None where there is none."""
    if len(data) < 6 or data[3] & 1 or data[2] >> 4 == 0 or data[2] & 15 == 15:
        return None
    number, at = _number(data)
    code, rate_code = data[2] >> 4, data[2] & 15
    if code in (6, 7):
        samples, at = int.from_bytes(data[at : at + code - 5], "big") + 1, at + code - 5
    else:
        samples = 192 if code == 1 else 576 << (code - 2) if code < 6 else 256 << (code - 8)
    rate_hz = RATES_HZ[rate_code] if rate_code < 12 else 0
    if rate_code >= 12:
        width = 1 if rate_code == 12 else 2
        rate_hz = int.from_bytes(data[at : at + width], "big") * {12: 1000, 13: 1, 14: 10}[rate_code]
        at += width
    channels, bits = data[3] >> 4, BITS[data[3] >> 1 & 7]
    if number < 0 or at >= len(data) or channels > 10 or _crc8(data[:at]) != data[at]:
        return None
    start = number if data[1] & 1 else number * (block_samples or samples)
    return Frame(offset, start, samples, rate_hz, channels + 1 if channels < 8 else 2, bits)


def _number(data: bytes) -> tuple[int, int]:
    """Number of a frame or of its first sample, coded as letters are in UTF-8, and where it stops; -1 if it is none."""
    first = data[4]
    more = next((bit for bit in range(7) if not first & 0x80 >> bit), 7)
    if more == 0:
        return first, 5
    rest = data[5 : 4 + more]
    if more == 1 or len(rest) < more - 1 or any(byte >> 6 != 2 for byte in rest):
        return -1, 5
    value = first & 0x7F >> more
    for byte in rest:
        value = value << 6 | byte & 63
    return value, 4 + more


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
