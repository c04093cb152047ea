"""The packets of a file of music to samples, group after group; a lost group fades away as noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nacre.codec.file_decoder import FileDecoder
from nacre.codec.packets import LOST
from nacre.core.errors import StreamError
from nacre.core.types import Floats
from nacre.dsp.blas import one_thread
from nacre.dsp.blocks import FRAME, HALF, borders, from_frames, turn_border
from nacre.entropy import range_coder
from nacre.format.file import Contents, Coupling, Packet
from nacre.io.audio import Resampler
from nacre.music.encoder import check_of
from nacre.music.groups import rebuilt
from nacre.music.model import LAYOUT, MusicModel
from nacre.music.shape import BANDS, PARTS, RATE_HZ, STEPS, TOP
from nacre.music.symbols import HALVES, GroupSymbols

FADE = 2  # levels that a lost group falls by with each frame
ESCAPED_BITS = 33  # a symbol costs at most this


@dataclass(frozen=True, eq=False)
class MusicGroup:
    """A packet as read; `symbols` None is silence."""

    frames: int
    symbols: GroupSymbols | None
    fineness: int = 0


@one_thread
def read_packet(model: MusicModel, packet: Packet | None, frames: int, channels: int) -> MusicGroup | StreamError:
    """A packet of so many frames and channels as read, or what is wrong with it."""
    if packet is None:
        return StreamError(LOST)
    if not packet.payload:
        return MusicGroup(frames, None)
    fineness, data = packet.payload[0], packet.payload[1:].rstrip(b"\0")
    longest = ESCAPED_BITS * frames * channels * (TOP + BANDS + PARTS) // 8
    if fineness >= STEPS or len(data) > longest:
        limits = f"more than {STEPS - 1} and {longest}"
        return StreamError(f"the packet has a fineness of {fineness} and {len(data)} bytes, {limits}")
    try:
        symbols = range_coder.serve([data], model.tables.decoding(frames, channels, fineness))
    except StreamError as error:
        return error
    if (check := check_of(symbols, packet.level, fineness)) != packet.check:
        return StreamError(f"the symbol check failed ({check:04x}, not {packet.check:04x}): damaged bytes")
    return MusicGroup(frames, symbols, fineness)


class MusicDecoder(FileDecoder):
    """The packets of a file to blocks of samples at its own rate; `damage` fills up on the way."""

    def __init__(self, model: MusicModel, contents: Contents, rate_hz: int | None = None):
        super().__init__(LAYOUT, contents, rate_hz)
        self.model = model
        channels = self.header.channels
        self._pair = self.header.coupling == Coupling.INTENSITY
        self._parts = [_Part(2)] if self._pair else [_Part(1) for _ in range(channels)]
        self._resampler = Resampler(RATE_HZ, self.rate_hz, channels)

    def groups(self) -> Iterator[tuple[int, list[MusicGroup | StreamError]]]:
        """(group, what each of its parts holds): a pair is one part, else every channel is."""
        channels = self.header.channels
        for group in range(self._groups()):
            packets: Sequence[Packet | None] = self.contents.packets[group * channels : (group + 1) * channels]
            packets = [*packets, *[None] * (channels - len(packets))]
            frames = self.group_frames(group)
            parts = packets[:1] if self._pair else packets
            yield group, [read_packet(self.model, packet, frames, 2 if self._pair else 1) for packet in parts]

    def waves(self) -> Iterator[Floats]:
        """Groups of samples [C, N] at 48 kHz, half a frame late."""
        for group, held in self.groups():
            frames, sounds = self.group_frames(group), []
            for number, (part, each) in enumerate(zip(self._parts, held, strict=True)):
                if isinstance(each, StreamError):
                    self.note_damage(number, group, str(each))
                    sounds.append(part.lost(frames))
                else:
                    sounds.append(part.decoded(each))
            yield np.concatenate(sounds)

    def note_damage(self, channel: int, group: int, reason: str) -> None:
        """Add a lost group to `damage`, of both channels of a pair."""
        for each in (0, 1) if self._pair else (channel,):
            super().note_damage(each, group, reason)


class _Part:
    """One channel or a pair: what its last frame still lends to the next one, and where its noise stands."""

    def __init__(self, channels: int):
        self._tail = np.zeros((channels, 0), np.float32)  # the second half of the last frame, not yet turned back
        self._split: int | None = None
        self._frame = 0
        self._levels = np.zeros((channels, BANDS), np.int32)

    @one_thread
    def decoded(self, group: MusicGroup) -> Floats:
        """Samples [C, frames * FRAME], half a frame late."""
        frames, symbols = group.frames, group.symbols
        if symbols is None:
            self._levels = np.zeros_like(self._levels)
            return self._overlapped(np.zeros((len(self._levels), frames, FRAME), np.float32), [0] * frames)
        self._levels = symbols.levels[:, -1]
        return self._overlapped(rebuilt(symbols, group.fineness, self._frame), symbols.splits.tolist())

    def lost(self, frames: int) -> Floats:
        """Noise as loud as the last frame, falling."""
        channels = len(self._levels)
        fading = np.maximum(self._levels[:, None] - FADE * np.arange(1, frames + 1)[None, :, None], 0).astype(np.int32)
        splits, empty = np.zeros(frames, np.int32), np.zeros((frames, PARTS), np.int32)
        values = np.zeros((channels, frames, TOP), np.int32)
        symbols = GroupSymbols(splits, empty, np.zeros((HALVES, BANDS), np.int32), fading, values)
        return self.decoded(MusicGroup(frames, symbols, STEPS - 1))

    def _overlapped(self, coefficients: Floats, splits: list[int]) -> Floats:
        """Coefficients [C, T, FRAME] -> samples [C, T * FRAME]; half a frame is kept until the next group."""
        wave = from_frames(coefficients, splits)
        held = self._tail.shape[1]
        joined = np.concatenate([self._tail, wave], 1)
        for place, lap in borders(splits, self._split, None):
            turn_border(joined, held + place, lap, -1)
        self._frame += len(splits)
        self._split = splits[-1]
        self._tail = joined[:, -HALF:]
        if not held:
            joined = np.pad(joined, ((0, 0), (HALF, 0)))
        return joined[:, :-HALF]
