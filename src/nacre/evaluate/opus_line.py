"""Opus with its in-band FEC over simulated lines: packets of a libopus, which lose the same frames as ours."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library

import numpy as np

from nacre.core.errors import NacreError
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.link.line import Line, lost

RATE_HZ, FRAME, MOST_BYTES = 16_000, 320, 1275
VOICE = 2048  # OPUS_APPLICATION_VOIP; the numbers below are from opus_defines.h too
BITRATE, COMPLEXITY, FEC, LOSS, LOOKAHEAD = 4002, 4010, 4012, 4014, 4027


def library(path: str | None = None) -> ctypes.CDLL:
    """The libopus of this system, or another. Raises NacreError where there is none."""
    library = path or find_library("opus")
    if library is None:
        raise NacreError("libopus, which codes the calls by Opus, is not installed; install the package libopus0")
    opus = ctypes.CDLL(library)
    opus.opus_encoder_create.restype = opus.opus_decoder_create.restype = ctypes.c_void_p
    opus.opus_get_version_string.restype = ctypes.c_char_p
    opus.opus_encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int32]
    number, shorts = ctypes.c_int, ctypes.POINTER(ctypes.c_int16)
    opus.opus_decode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, shorts, number, number]
    opus.opus_encoder_ctl.argtypes = [ctypes.c_void_p, number]
    return opus


def call(opus: ctypes.CDLL, wave: Array, bitrate_kbps: float, line: Line) -> tuple[Array, float]:
    """wave [N] float32 at 16 kHz -> (decoded [N], kb/s of the packets).

    A lost frame comes from the FEC of the packet behind it, where that arrived and holds any, else from Opus'
    concealment. The encoder is given the loss.
    """
    packets, lag = encoded(opus, wave, bitrate_kbps, line.loss)
    arrived = [None if missing else packet for packet, missing in zip(packets, lost(line, len(packets)), strict=True)]
    return decoded(opus, arrived)[lag:][: len(wave)], kbps(sum(map(len, packets)), len(wave) / RATE_HZ)


def decoded(opus: ctypes.CDLL, arrived: list[bytes | None]) -> Array:
    """wave [N] of packets of 20 ms, None where one was lost; it lags as the encoder does."""
    decoder = opus.opus_decoder_create(RATE_HZ, 1, ctypes.byref(ctypes.c_int()))
    out, blocks = (ctypes.c_int16 * FRAME)(), []
    for packet, after in zip(arrived, [*arrived[1:], None], strict=True):
        data = after if packet is None else packet
        opus.opus_decode(decoder, data, len(data) if data else 0, out, FRAME, int(packet is None and data is not None))
        blocks.append(np.array(out, np.float32) / 32768)
    opus.opus_decoder_destroy(ctypes.c_void_p(decoder))
    return np.concatenate(blocks)


def encoded(opus: ctypes.CDLL, wave: Array, bitrate_kbps: float, loss: float) -> tuple[list[bytes], int]:
    """Packets of 20 ms, with FEC where any loss is given, and the samples by which the decoder lags."""
    encoder = opus.opus_encoder_create(RATE_HZ, 1, VOICE, ctypes.byref(ctypes.c_int()))
    settings = {BITRATE: round(1000 * bitrate_kbps), COMPLEXITY: 10, FEC: int(loss > 0), LOSS: round(100 * loss)}
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
    opus.opus_encoder_destroy(ctypes.c_void_p(encoder))
    return packets, lag.value
