"""Which model suits a recording: one of speech, or the one of music."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from nacre.core.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from nacre.core.types import Array

AUTO = "auto"
LISTENED_S = 20.0  # of the beginning
SPEECH_ONLY = ("denoise", "packet_bytes")


def listened(blocks: Iterator[Array], rate_hz: int) -> tuple[bool, Iterator[Array]]:
    """(whether the beginning of blocks [C, N] is music, the same blocks again)."""
    from nacre.dsp.steadiness import MUSIC, RATE_HZ, mixed, steadiness
    from nacre.io.audio import resampled

    first, samples = [], 0
    for block in blocks:
        first.append(block)
        samples += block.shape[1]
        if samples >= LISTENED_S * rate_hz:
            break
    if not first:
        return False, blocks
    return steadiness(resampled(mixed(first), rate_hz, RATE_HZ)) >= MUSIC, chain(first, blocks)


def suiting(music: bool, settings: dict[str, Any], channels: int) -> str:
    """The name of the model for sound that is music or not, under these settings."""
    if not music:
        return DEFAULT_MODEL
    from nacre.music.model import NAME
    from nacre.music.rate import LEAST_KBPS

    kbps = settings.get("bitrate_kbps")
    sparse = kbps is not None and kbps < LEAST_KBPS * channels
    bound = sparse or settings.get("prior") == "static" or any(settings.get(name) for name in SPEECH_ONLY)
    return DEFAULT_MODEL if bound else NAME
