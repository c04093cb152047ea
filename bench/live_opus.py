"""Opus with its in-band FEC over the same lines: the packets of a libopus, lost by the same lot."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

import numpy as np

from nacre.line import Line, arrivals

RATE_HZ, FRAME, MOST_BYTES = 16_000, 320, 1275
VOICE = 2048
BITRATE, COMPLEXITY, FEC, LOSS, LOOKAHEAD = 4002, 4010, 4012, 4014, 4027


def library(path: str | None = None) -> ctypes.CDLL:
    """The libopus of this system, or another."""
    opus = ctypes.CDLL(path or find_library("opus"))
    opus.opus_encoder_create.restype = opus.opus_decoder_create.restype = ctypes.c_void_p
    opus.opus_get_version_string.restype = ctypes.c_char_p
    opus.opus_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int32]
    shorts = ctypes.POINTER(ctypes.c_int16)
    opus.opus_decode.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_int32,
        shorts,
        ctypes.c_int,
        ctypes.c_int,
    ]
    opus.opus_encoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return opus


def call(opus: ctypes.CDLL, wave: np.ndarray, kbps: float, line: Line) -> tuple[np.ndarray, float]:
    """wave [N] at 16 kHz -> (what is heard [N], kb/s of the packets). A lost frame comes from the next packet's FEC."""
    failed = ctypes.c_int()
    encoder = opus.opus_encoder_create(RATE_HZ, 1, VOICE, ctypes.byref(failed))
    decoder = opus.opus_decoder_create(RATE_HZ, 1, ctypes.byref(failed))
    settings = {BITRATE: round(1000 * kbps), COMPLEXITY: 10, FEC: int(line.loss > 0), LOSS: round(100 * line.loss)}
    for name, value in settings.items():
        opus.opus_encoder_ctl(encoder, name, ctypes.c_int(value))
    lag = ctypes.c_int32()
    opus.opus_encoder_ctl(encoder, LOOKAHEAD, ctypes.byref(lag))
    samples = np.concatenate([np.clip(wave, -1, 1), np.zeros(lag.value + 2 * FRAME, np.float32)])
    pcm = np.rint(samples * 32767).astype("<i2").tobytes()
    buffer, packets = ctypes.create_string_buffer(MOST_BYTES), []
    for start in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME):
        size = opus.opus_encode(encoder, pcm[start : start + 2 * FRAME], FRAME, buffer, MOST_BYTES)
        packets.append(buffer.raw[:size])
    arrived = [packet if delay is not None else None for packet, delay in zip(packets, arrivals(line), strict=False)]
    out, heard = (ctypes.c_int16 * FRAME)(), []
    for packet, after in zip(arrived, [*arrived[1:], None], strict=True):
        data = packet if packet is not None else after if line.loss else None
        fec = int(packet is None and data is not None)
        opus.opus_decode(decoder, data, len(data) if data else 0, out, FRAME, fec)
        heard.append(np.array(out, np.float32) / 32768)
    opus.opus_encoder_destroy(ctypes.c_void_p(encoder))
    opus.opus_decoder_destroy(ctypes.c_void_p(decoder))
    rate = 8 * sum(map(len, packets)) / (len(wave) / RATE_HZ) / 1000
    return np.concatenate(heard)[lag.value :][: len(wave)], rate
