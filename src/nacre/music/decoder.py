"""The packets of a file of music to samples, group after group; a lost group fades away as noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nacre.codec.packets import LOST
from nacre.codec.stream import Damage
from nacre.core.errors import StreamError, UsageError
from nacre.core.types import Floats
from nacre.core.units import MAX_RATE_HZ, MIN_RATE_HZ, ceil_div, resampled_count
from nacre.dsp.blas import one_thread
from nacre.dsp.blocks import FRAME, HALF, borders, from_frames, turn_border
from nacre.entropy import range_coder
from nacre.format.file import Contents, Coupling, Header, Packet
from nacre.io.audio import Resampler
from nacre.music.encoder import check_of
from nacre.music.groups import rebuilt
from nacre.music.model import GROUP_FRAMES, MusicModel
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


def frames_for(samples: int) -> int:
    """Frames of so many samples at 48 kHz."""
    return ceil_div(samples + HALF, FRAME) if samples else 0


def packet_count(header: Header, samples: int) -> int:
    """Packets that `samples` per channel make."""
    frames = frames_for(resampled_count(samples, header.rate_hz, RATE_HZ))
    return ceil_div(frames, GROUP_FRAMES) * header.channels


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
        return StreamError("packet", found=f"fineness {fineness}, {len(data)} bytes", wanted=f"below {STEPS}")
    try:
        symbols = range_coder.serve([data], model.tables.decoding(frames, channels, fineness))
    except StreamError as error:
        return error
    if (found := check_of(symbols, packet.level, fineness)) != packet.check:
        return StreamError("symbol check failed", found=f"{found:04x}", wanted=f"{packet.check:04x}")
    return MusicGroup(frames, symbols, fineness)


class MusicDecoder:
    """The packets of a file to blocks of samples at its own rate; `damage` fills up on the way."""

    def __init__(self, model: MusicModel, contents: Contents, rate_hz: int | None = None):
        self.model, self.contents, self.header = model, contents, contents.header
        self.rate_hz = contents.header.rate_hz if rate_hz is None else rate_hz
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError("rate", found=f"{rate_hz} Hz", wanted=f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        self.damage: list[Damage] = []
        channels = self.header.channels
        self._pair = self.header.coupling == Coupling.INTENSITY
        self._parts = [_Part(2)] if self._pair else [_Part(1) for _ in range(channels)]
        self._resampler = Resampler(RATE_HZ, self.rate_hz, channels)

    @property
    def frames(self) -> int | None:
        """Frames in all, or None where the file was cut before its end packet."""
        samples = self.contents.samples
        return None if samples is None else frames_for(resampled_count(samples, self.header.rate_hz, RATE_HZ))

    def group_frames(self, group: int) -> int:
        """Frames of this group: full but for the last."""
        return GROUP_FRAMES if self.frames is None else min(GROUP_FRAMES, self.frames - group * GROUP_FRAMES)

    @property
    def samples(self) -> int:
        """Samples per channel that come out: all that went in, or what the packets of a cut file stand for."""
        header, whole = self.header, self.contents.samples
        reached = max(0, self._groups() * GROUP_FRAMES * FRAME - HALF) * header.rate_hz // RATE_HZ
        if whole is not None and (self.contents.missing == 0 or whole < reached):
            reached = whole
        return resampled_count(reached, header.rate_hz, self.rate_hz)

    def blocks(self) -> Iterator[Floats]:
        """wave [C, N] float32, about a second each; `samples` in all."""
        left, skip = self.samples, HALF
        for wave in self.waves():
            ready = self._resampler.push(wave[:, skip:])
            skip = max(0, skip - wave.shape[1])
            if left and ready.shape[1]:
                yield ready[:, :left]
                left -= min(left, ready.shape[1])
        tail = self._resampler.flush()[:, :left]
        yield np.pad(tail, ((0, 0), (0, left - tail.shape[1])))

    def whole(self) -> Floats:
        """wave [C, N] of all blocks."""
        return np.concatenate(list(self.blocks()), 1)

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
            frames, found = self.group_frames(group), []
            for number, (part, each) in enumerate(zip(self._parts, held, strict=True)):
                if isinstance(each, StreamError):
                    self.note_damage(number, group, str(each))
                    found.append(part.lost(frames))
                else:
                    found.append(part.decoded(each))
            yield np.concatenate(found)

    def note_damage(self, channel: int, group: int, reason: str) -> None:
        """Add a lost group to `damage`, of both channels of a pair."""
        start_s = group * GROUP_FRAMES * FRAME / RATE_HZ
        stop_s = start_s + self.group_frames(group) * FRAME / RATE_HZ
        for each in (0, 1) if self._pair else (channel,):
            self.damage.append(Damage(each, start_s, stop_s, reason))

    def _groups(self) -> int:
        return ceil_div(len(self.contents.packets), self.header.channels)


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
