"""Samples of music to packets: a pair of channels in one packet a group, other channels each in its own."""

from __future__ import annotations

import numpy as np

from nacre.codec.packets import CONTEXT
from nacre.codec.settings import Settings
from nacre.core.errors import AudioError, UsageError
from nacre.core.kinds import MUSIC
from nacre.core.types import Array, Floats, Ints
from nacre.core.units import ceil_div
from nacre.dsp.blas import one_thread
from nacre.dsp.blocks import FRAME, HALF, borders, to_frames, turn_border
from nacre.dsp.stereo import AUTO, MODES
from nacre.dsp.wave import as_sound, check_shape
from nacre.entropy import range_coder
from nacre.format import file as container
from nacre.format.file import MOST_PAYLOAD_BYTES, Coupling, Header, Packet
from nacre.io.audio import Resampler
from nacre.music.groups import Analysed, analyse, quantised, splits_of
from nacre.music.model import GROUP_FRAMES, MusicModel
from nacre.music.rate import plan_music
from nacre.music.shape import RATE_HZ, STEPS
from nacre.music.symbols import GroupSymbols

GROUP = GROUP_FRAMES * FRAME
AHEAD = 2 * FRAME  # samples behind a group that its last border, and the split of the next frame, depend on
BESIDE_BYTES = 9  # heads, check and fineness of a packet, and what the range coder rounds up
WITH_FIRST = 1  # level of the second packet of a pair: its channel is in the first


class MusicEncoder:
    """Samples in, packets out, in pieces of any size; the packets do not depend on the pieces.

    Raises AudioError, UsageError.
    """

    def __init__(self, model: MusicModel, rate_hz: float, channels: int, settings: Settings):
        rate_hz = check_shape(rate_hz, channels)
        _check(settings)
        pair = channels == 2 and settings.stereo == AUTO
        self.model, self.plan = model, plan_music(channels, settings.bitrate_kbps, settings.quality)
        coupling = Coupling.INTENSITY if pair else Coupling.SEPARATE
        self.header = Header(model.fingerprint, rate_hz, channels, None, GROUP_FRAMES, MUSIC, coupling)
        self.samples = 0
        self._resampler = Resampler(rate_hz, RATE_HZ, channels)
        self._parts = [_Part(2)] if pair else [_Part(1) for _ in range(channels)]

    def push(self, wave: Array) -> list[Packet]:
        """wave [C, N] (or [N]) float32 at the stream's rate -> packets of the groups it completes."""
        wave = as_sound(wave)
        if len(wave) != self.header.channels:
            raise AudioError(f"wave has {len(wave)} channels, but the stream has {self.header.channels}")
        packets = []
        for at in range(0, wave.shape[1], GROUP):
            piece = wave[:, at : at + GROUP]
            self.samples += piece.shape[1]
            self._add(self._resampler.push(piece))
            packets += self._groups()
        return packets

    def flush(self) -> list[Packet]:
        """The packets of what is left; the stream is at its end."""
        self._add(self._resampler.flush())
        if not self.samples:
            return []
        packets = self._groups()
        left = self._parts[0].samples
        frames = ceil_div(left + HALF, FRAME)
        self._add(np.zeros((self.header.channels, frames * FRAME + AHEAD - left), np.float32))
        packets += self._groups()
        if rest := (self._parts[0].samples - AHEAD) // FRAME:
            packets += self._code(rest, last=True)
        return packets

    def _add(self, wave: Floats) -> None:
        for part, rows in zip(self._parts, np.split(wave, len(self._parts)), strict=True):
            part.add(rows)

    def _groups(self) -> list[Packet]:
        packets = []
        while self._parts[0].samples >= GROUP + AHEAD:
            packets += self._code(GROUP_FRAMES, last=False)
        return packets

    @one_thread
    def _code(self, frames: int, last: bool) -> list[Packet]:
        duration_s = frames * FRAME / RATE_HZ
        groups = [part.analysed(frames, last) for part in self._parts]
        loudest = max(int(group.levels.max()) for group in groups)
        tables, coded = self.model.tables, [quantised(group, STEPS - 1) for group in groups]
        spent = sum(tables.shape_bits(symbols) / 8 + BESIDE_BYTES for symbols in coded)

        def size_of(fineness: int) -> float:
            values = sum(tables.value_bits(quantised(group, fineness), fineness) for group in groups)
            return spent + values / 8

        fineness = self.plan.choose(loudest, duration_s, size_of)
        packets = [self._packet(group, fineness) for group in groups]
        if self.header.coupling == Coupling.INTENSITY:
            packets.append(Packet(WITH_FIRST if packets[0].payload else 0, b""))
        self.plan.record(sum(len(container.pack_packet(packet)) for packet in packets), duration_s)
        return packets

    def _packet(self, group: Analysed, fineness: int) -> Packet:
        if not group.levels.any():
            return Packet(0, b"")
        while True:
            symbols = quantised(group, fineness)
            data = range_coder.encode_symbols(self.model.tables.encoding(symbols, fineness))
            if len(data) < MOST_PAYLOAD_BYTES or fineness == STEPS - 1:
                break
            fineness += 1
        level = level_of(fineness)
        return Packet(level, bytes([fineness]) + data, check_of(symbols, level, fineness))


def level_of(fineness: int) -> int:
    """The quality level that the head of a packet states: 15 is the finest."""
    return 15 - fineness * 16 // STEPS


def check_of(symbols: GroupSymbols, level: int, fineness: int) -> int:
    """Check value over everything that a packet holds."""
    return range_coder.check_value(symbols.values, level, fineness, *symbols[:-1])


def _check(settings: Settings) -> None:
    """Raise UsageError for settings that a model of music lacks."""
    if settings.stereo not in MODES:
        raise UsageError(f"stereo must be {' or '.join(MODES)}, not {settings.stereo}")
    given = {name: getattr(settings, name) for name in ("denoise", "packet_bytes", "level", "band_khz")}
    given["prior"] = settings.prior != CONTEXT
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} is for speech, not for music; leave it out, or use --model speech-16k")


class _Part:
    """One channel or a pair on the way to groups: samples as they came, and turned at their borders."""

    def __init__(self, channels: int):
        self._wave = self._turned = np.zeros((channels, 0), np.float32)
        self._before: int | None = None
        self._split = 0  # of the next frame

    @property
    def samples(self) -> int:
        """That wait."""
        return self._wave.shape[1]

    def add(self, wave: Floats) -> None:
        """wave [C, N] at 48 kHz."""
        self._wave = np.concatenate([self._wave, wave], 1)
        self._turned = np.concatenate([self._turned, wave], 1)

    def analysed(self, frames: int, last: bool) -> Analysed:
        """The next group, of so many frames."""
        every = splits_of(self._wave[:, : frames * FRAME + AHEAD])
        splits: Ints = every[:frames]
        if self._before is not None:
            splits[0] = self._split
        after = int(every[frames])
        for place, lap in borders(splits.tolist(), self._before, None if last else after):
            if place:  # the border in front was turned with the group before
                turn_border(self._turned, place, lap, 1)
        size = frames * FRAME
        coefficients = to_frames(self._turned[:, :size], splits.tolist())
        self._wave, self._turned = self._wave[:, size:], self._turned[:, size:]
        self._before, self._split = int(splits[-1]), after
        return analyse(coefficients, splits)
