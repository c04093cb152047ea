"""What all decoders of files share: how much sound there is, blocks of it at any rate, and what was damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import MAX_RATE_HZ, MIN_RATE_HZ, Layout, ceil_div, resampled_count
from nacre.format.file import Contents, Header


@dataclass
class Damage:
    """One lost group: which channel, and its place in seconds."""

    channel: int
    start_s: float
    stop_s: float
    reason: str


class Output(Protocol):
    """Sound in, sound at another rate out."""

    def push(self, wave: Array, /) -> Array:
        """wave [C, N] -> what of it is ready."""

    def flush(self) -> Array:
        """The rest."""


class FileDecoder:
    """Groups of samples, as `waves` of a decoder gives them, to blocks at the file's rate or at `rate_hz`.

    `damage` fills up on the way. Raises UsageError for a rate that cannot be.
    """

    _resampler: Output  # from the layout's rate to `rate_hz`

    def __init__(self, layout: Layout, contents: Contents, rate_hz: int | None = None):
        self.layout, self.contents, self.header = layout, contents, contents.header
        self.rate_hz = contents.header.rate_hz if rate_hz is None else rate_hz
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(f"rate must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, not {rate_hz} Hz")
        self.damage: list[Damage] = []

    def waves(self) -> Iterator[Array]:
        """Groups of samples [C, N] at the layout's rate, lagging by its delay."""
        raise NotImplementedError

    @property
    def frames(self) -> int | None:
        """Frames in all, or None where the file was cut before its end packet."""
        samples = self.contents.samples
        return None if samples is None else self.layout.frames_of(samples, self.header.rate_hz)

    def group_frames(self, group: int) -> int:
        """Frames of this group: full but for the last."""
        size = self.layout.group_frames
        return size if self.frames is None else min(size, self.frames - group * size)

    @property
    def samples(self) -> int:
        """Samples per channel that come out: all that went in, or what the packets of a cut file stand for."""
        layout, header, whole = self.layout, self.header, self.contents.samples
        reached = max(0, self._groups() * layout.group_samples - layout.delay_samples)
        at_file_rate = reached * header.rate_hz // layout.rate_hz
        if whole is not None and (self.contents.missing == 0 or whole < at_file_rate):
            at_file_rate = whole
        return resampled_count(at_file_rate, header.rate_hz, self.rate_hz)

    def blocks(self) -> Iterator[Array]:
        """wave [C, N] float32, about a second each; `samples` in all."""
        left, skip = self.samples, self.layout.delay_samples
        for wave in self.waves():
            ready = self._resampler.push(wave[:, skip:])
            skip = max(0, skip - wave.shape[1])
            if left and ready.shape[1]:
                yield ready[:, :left]
                left -= min(left, ready.shape[1])
        tail = self._resampler.flush()[:, :left]
        yield np.pad(tail, ((0, 0), (0, left - tail.shape[1])))

    def whole(self) -> Array:
        """wave [C, N] of all blocks."""
        return np.concatenate(list(self.blocks()), 1)

    def note_damage(self, channel: int, group: int, reason: str) -> None:
        """Add a lost group to `damage`, with its place in time."""
        layout = self.layout
        start_s = group * layout.group_samples / layout.rate_hz
        stop_s = start_s + self.group_frames(group) * layout.hop_samples / layout.rate_hz
        self.damage.append(Damage(channel, start_s, stop_s, reason))

    def _groups(self) -> int:
        return ceil_div(len(self.contents.packets), self.header.channels)


def packet_count(layout: Layout, header: Header, samples: int) -> int:
    """Packets that `samples` per channel make: groups times channels."""
    return ceil_div(layout.frames_of(samples, header.rate_hz), layout.group_frames) * header.channels
