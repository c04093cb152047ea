"""A 16-bit WAV at 16 kHz to Opus packets in wide band, by the libopus of a given file. Runs alone, without nacre.

    python opus_encode.py IN.wav OUT KBPS LIBOPUS

OUT is 4 bytes of sample count, then each packet of 20 ms behind its length in 2 bytes, little endian. Wide band is
set explicitly: by default libopus narrows the band below 9 kb/s, and its enhancers work in wide band only.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import wave
from collections.abc import Iterable, Iterator

RATE_HZ, FRAME_SAMPLES, MOST_BYTES = 16_000, 320, 1275
VOICE = 2048  # OPUS_APPLICATION_VOIP
SETTINGS = {  # by number, from opus_defines.h
    4006: 1,  # variable rate
    4020: 0,  # not held to a constant one
    4010: 10,  # complexity
    4008: 1103,  # wide band
    4024: 3001,  # voice
}
BITRATE, LOSS = 4002, 4014


def version(library: str) -> str:
    """What the library calls itself, such as 'libopus 1.6.1'. Raises OSError."""
    opus = ctypes.CDLL(library)
    opus.opus_get_version_string.restype = ctypes.c_char_p
    return str(opus.opus_get_version_string().decode())


def encode(samples: bytes, kbps: float, library: str, lost_percent: int = 0) -> Iterator[bytes]:
    """16-bit samples at 16 kHz, the last frame filled up with zeros, as packets of 20 ms for a line with that loss.

    Raises OSError where the library cannot be loaded, ValueError where it refuses.
    """
    opus = ctypes.CDLL(library)
    opus.opus_encoder_create.restype = ctypes.c_void_p
    opus.opus_encoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]
    opus.opus_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int32]
    failed = ctypes.c_int()
    encoder = opus.opus_encoder_create(RATE_HZ, 1, VOICE, ctypes.byref(failed))
    if failed.value:
        raise ValueError(f"libopus gives no encoder, error {failed.value}")
    for name, value in {**SETTINGS, BITRATE: round(1000 * kbps), LOSS: lost_percent}.items():
        if refused := opus.opus_encoder_ctl(encoder, name, ctypes.c_int(value)):
            raise ValueError(f"libopus refuses setting {name} to {value}, error {refused}")
    step, packet = 2 * FRAME_SAMPLES, ctypes.create_string_buffer(MOST_BYTES)
    for start in range(0, len(samples), step):
        frame = samples[start : start + step].ljust(step, b"\0")
        size = opus.opus_encode(encoder, frame, FRAME_SAMPLES, packet, MOST_BYTES)
        if size < 0:
            raise ValueError(f"libopus cannot encode, error {size}")
        yield packet.raw[:size]


def framed(samples: int, packets: Iterable[bytes]) -> bytes:
    """A file of packets as it is described above."""
    return struct.pack("<I", samples) + b"".join(struct.pack("<H", len(packet)) + packet for packet in packets)


def main(source: str, target: str, kbps: str, library: str) -> None:
    """The whole of one file."""
    with wave.open(source, "rb") as sound:
        form = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
        if form != (RATE_HZ, 1, 2):
            raise ValueError(f"{source} has (rate, channels, bytes) {form}; give 16 kHz, one channel, 2 bytes")
        samples = sound.readframes(sound.getnframes())
    data = framed(len(samples) // 2, encode(samples, float(kbps), library))
    with open(target, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(str(error))
