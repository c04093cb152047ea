"""Live speech through pipes: 16-bit samples, raw or as a wav that grows, to framed packets and back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.live import LiveSettings
from nacre.codec.live_inbox import LiveStats
from nacre.core.errors import AudioError, StreamError
from nacre.core.types import Array
from nacre.format.live import FramedReader, pack_framed, unpack_rtp

READ_BYTES = 4096
LONGEST_CHUNK = 1 << 20  # of a wav before its samples
CLOCK_BITS = 32


class PcmReader:
    """16-bit little-endian samples of a pipe, raw at `rate_hz` or, where it begins so, as a wav; channels averaged."""

    def __init__(self, file: BinaryIO, rate_hz: int):
        self._file, self.rate_hz, self.channels = file, rate_hz, 1
        self._left = self._take(4)
        if self._left == b"RIFF":
            self._left = b""
            self._read_head()

    def pieces(self) -> Iterator[Array]:
        """wave [N] float32, as soon as there is any. Half a sample at the end is left out."""
        size = 2 * self.channels
        while True:
            data = self._some()
            self._left += data
            whole = len(self._left) // size * size
            if whole:
                samples = np.frombuffer(self._left[:whole], "<i2").reshape(-1, self.channels)
                self._left = self._left[whole:]
                yield (samples.mean(1) / 32768).astype(np.float32)
            if not data:
                return

    def _some(self) -> bytes:
        read = getattr(self._file, "read1", self._file.read)
        data: bytes = read(READ_BYTES)
        return data

    def _take(self, count: int) -> bytes:
        """So many bytes, fewer where the pipe ends."""
        data = b""
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
        return data

    def _read_head(self) -> None:
        """Of a wav, up to its samples. Sizes that say nothing yet, as a growing file has them, are no harm."""
        self._take(8)
        while True:
            head = self._take(8)
            if len(head) < 8:
                raise AudioError("the piped wav ends before its samples; send a wav of 16 bits")
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name == b"data":
                return
            if size > LONGEST_CHUNK:
                raise AudioError(f"the piped wav has {size} bytes of {name!r}, where fmt and data should be")
            body = self._take(size + size % 2)
            if name == b"fmt ":
                self._read_format(body)

    def _read_format(self, body: bytes) -> None:
        if len(body) < 16:
            raise AudioError(f"the piped wav has a format of {len(body)} bytes, but needs 16 or more")
        tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
        if bits != 16 or tag not in (1, 0xFFFE) or not 1 <= channels <= 8:
            form = f"{bits} bits, format {tag} and {channels} channels"
            raise AudioError(f"the piped wav has {form}; send 16-bit samples of 1 to 8 channels")
        self.channels, self.rate_hz = channels, rate_hz


def encode_pipe(codec: Codec, source: BinaryIO, target: BinaryIO, rate_hz: int, settings: LiveSettings) -> float:
    """Samples -> framed packets, each written as soon as it is whole. Returns kb/s. Raises AudioError, UsageError."""
    reader = PcmReader(source, rate_hz)
    encoder = codec.live_encoder_of(reader.rate_hz, settings)
    for wave in reader.pieces():
        for packet in encoder.push(wave):
            target.write(pack_framed(packet))
        target.flush()
    for packet in encoder.flush():
        target.write(pack_framed(packet))
    target.flush()
    return encoder.rate_kbps


def decode_pipe(
    codec: Codec, source: BinaryIO, target: BinaryIO, rate_hz: int, depth_ms: float = 0.0, wav: bool = False
) -> LiveStats:
    """Framed packets -> 16-bit samples, written as soon as they are there; packets that were left out are concealed.

    Time goes by the packets' own clock. The codec's delay at the start is left out. Raises AudioError, StreamError.
    """
    decoder, packets, first = codec.live_decoder(rate_hz, depth_ms=depth_ms), FramedReader(), None
    skip, now_s, clock = round(codec.config.delay_samples * rate_hz / codec.config.rate_hz), 0.0, codec.config.rate_hz
    if wav:
        target.write(_wav_head(rate_hz))
        target.flush()
    read = getattr(source, "read1", source.read)
    while data := read(READ_BYTES):
        for packet in packets.push(data):
            try:
                timestamp = unpack_rtp(packet).timestamp
            except StreamError:
                timestamp = None
            if timestamp is not None:
                first = timestamp if first is None else first
                step_s = ((timestamp - first) % (1 << CLOCK_BITS)) / clock
                now_s = max(now_s, step_s) if step_s < now_s + 60 else now_s
            skip = _put(target, decoder.push(packet, now_s), skip)
        target.flush()
    _put(target, decoder.push(None, now_s + depth_ms / 1000), skip)
    target.flush()
    if packets.left_bytes:
        raise StreamError("the pipe ends inside a packet; send whole packets")
    return decoder.stats


def _put(target: BinaryIO, wave: Array, skip: int) -> int:
    """Write wave [N] without its first `skip` samples; returns how many are still to be skipped."""
    target.write(np.rint(wave[skip:] * 32767).astype("<i2").tobytes())
    return max(0, skip - len(wave))


def _wav_head(rate_hz: int) -> bytes:
    """Of a wav whose length nobody knows yet, one channel of 16 bits."""
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + form + b"data\xff\xff\xff\xff"
