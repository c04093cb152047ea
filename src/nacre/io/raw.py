"""Samples without a header, as programs hand them on through pipes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from nacre.core.errors import UsageError
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from nacre.io import riff
from nacre.io.view import Extent, Part, Plan, size_of

FORMATS = {  # name as ffmpeg and sox have it: order of bytes, tag of a WAV, bits
    "u8": ("<", 1, 8),
    "s16le": ("<", 1, 16),
    "s16be": (">", 1, 16),
    "s24le": ("<", 1, 24),
    "s24be": (">", 1, 24),
    "s32le": ("<", 1, 32),
    "s32be": (">", 1, 32),
    "f32le": ("<", 3, 32),
    "f32be": (">", 3, 32),
    "alaw": ("<", 6, 8),
    "mulaw": ("<", 7, 8),
}


@dataclass(frozen=True)
class Raw:
    """How samples without a header are stored."""

    rate_hz: int
    channels: int = 1
    format: str = "s16le"

    def __post_init__(self) -> None:
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"raw samples must have a rate of {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, not {self.rate_hz}")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UsageError(f"raw samples must have 1 to {MAX_CHANNELS} channels, not {self.channels}")
        if self.format not in FORMATS:
            raise UsageError(f"raw samples cannot have the format {self.format}; choose one of {', '.join(FORMATS)}")

    @classmethod
    def parse(cls, text: str) -> Raw:
        """RATE[,CHANNELS[,FORMAT]].

        >>> Raw.parse("16000,2,s24le")
        Raw(rate_hz=16000, channels=2, format='s24le')
        """
        try:
            rate, channels, name = (*text.split(","), *("", "1", "s16le")[text.count(",") + 1 :])
            return cls(int(rate), int(channels), name.strip())
        except ValueError as error:
            raise UsageError(f"--raw takes RATE,CHANNELS,FORMAT, such as 16000,1,s16le, not {text!r}") from error


def raw_plan(file: BinaryIO, raw: Raw) -> Plan:
    """A file of samples alone, read as the WAV that it would be."""
    order, tag, bits = FORMATS[raw.format]
    width = raw.channels * bits // 8
    form = struct.pack(f"{order}HHIIHH", tag, raw.channels, raw.rate_hz, raw.rate_hz * width, width, bits)
    sound = riff.Sound(order, form=form, extents=[Extent(0, size_of(file))])
    return Plan(parts=[Part(riff.whole(sound))])
