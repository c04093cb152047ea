"""Packets of exactly one size, silence among them: each takes the highest level that fits, then zeros.

Where not even the lowest level fits, its symbols are drawn towards 0 until it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nacre.codec.encoder import encode_frames
from nacre.codec.state import EncoderState, Options
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.format.file import CHECK_BYTES, HEAD_BYTES, Packet
from nacre.model.model import Model

MIN_PACKET_BYTES, MAX_PACKET_BYTES = 64, 8192  # the first holds a second of zeros of any model's, with its head
SHARES = (0.8, 0.6, 0.4, 0.2, 0.0)  # of symbols, tried one after another


def encode_sized(
    model: Model, state: EncoderState, wave: Array, level: int, size_bytes: int, options: Options
) -> tuple[Packet, EncoderState]:
    """wave [N], at most a group -> (packet of this size, state); looks for the level from `level` on.

    Raises UsageError where no packet of that size can hold the group.
    """
    room, options = size_bytes - HEAD_BYTES - CHECK_BYTES, replace(options, code_silence=True)
    top = (model.config.levels if state.residual else model.plain_levels) - 1
    best, after = encode_frames(model, state, wave, level, options)
    while _fits(best, room) and best.level < top:
        more, later = encode_frames(model, state, wave, best.level + 1, options)
        if not _fits(more, room):
            break
        best, after = more, later
    for lower, share in _smaller(best.level):
        if _fits(best, room):
            break
        best, after = encode_frames(model, state, wave, lower, replace(options, share=share))
    if not _fits(best, room):
        given = f"{room} bytes for the payload of a group that needs {len(best.payload)}"
        raise UsageError(f"packet_bytes leaves {given}; choose more")
    return replace(best, payload=best.payload.ljust(room, b"\0")), after


def _smaller(level: int) -> Iterator[tuple[int, float]]:
    """What to try below a level: (level, share of symbols)."""
    yield from ((lower, 1.0) for lower in range(level - 1, -1, -1))
    yield from ((0, share) for share in SHARES)


def _fits(packet: Packet, room: int) -> bool:
    return len(packet.payload) <= room
