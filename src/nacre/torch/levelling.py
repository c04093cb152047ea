"""Gains of a recording as the codec chooses and undoes them, as factors on its samples: numpy, no gradients needed.

wave -- minus offset, times curve --> networks --> times undone --> wave
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.codec.frames import SILENT
from nacre.codec.settings import Settings
from nacre.codec.stream import StreamEncoder
from nacre.core.config import CodecConfig
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.dsp.gain import LevelState, choose_gain, gain_curve, is_silent
from nacre.dsp.stereo import LEFT_RIGHT
from nacre.format.file import Packet
from nacre.model.model import Model


@dataclass(frozen=True)
class Levelled:
    """Of one recording: what is taken off its samples [T * hop], what they are multiplied by, gain codes [G]."""

    offset: Array
    curve: Array
    gains: Array


class _Leveller(StreamEncoder):
    """The encoder's way up to the networks, for one channel at the model's rate."""

    def __init__(self, model: Model):
        super().__init__(model, model.config.rate_hz, 1, Settings(stereo=LEFT_RIGHT, level=0))
        self.waves: list[Array] = []
        self.curves: list[Array] = []
        self.gains: list[int] = []
        self._loudness = LevelState()
        self._before: int | None = None

    def channel_packet(self, channel: int, wave: Array, level: int) -> Packet:
        """Keep a group's samples [N], its curve and its gain; the packet says nothing."""
        hop = self.model.config.hop_samples
        code, self._loudness = choose_gain(self._loudness, wave, hop)
        self.waves.append(wave)
        self.curves.append(gain_curve(self._before, code, len(wave), hop))
        silent = is_silent(wave, hop)
        self.gains.append(SILENT if silent else code)
        self._before = self._before if silent else code
        return Packet(level, b"")


def levelled(model: Model, wave: Array) -> Levelled:
    """Of wave [N] float32 at the model's rate, N above 0, as the codec's encoder does it."""
    stream = _Leveller(model)
    stream.push(wave)
    stream.flush()
    ready = np.concatenate(stream.waves)
    offset = np.pad(wave, (0, len(ready) - len(wave))) - ready
    return Levelled(offset, np.concatenate(stream.curves), np.array(stream.gains, np.int8))


def undone(config: CodecConfig, gains: Array, frames: int) -> Array:
    """Factors [frames * hop] on what the decoder network gives for groups of these gain codes [G]; 0 for silence."""
    before: int | None = None
    parts: list[Array] = [np.zeros(config.delay_samples, np.float32)]
    for at, code in zip(range(0, frames, config.group_frames), gains.tolist(), strict=True):
        samples = min(config.group_frames, frames - at) * config.hop_samples
        if code == SILENT:
            parts.append(np.zeros(samples, np.float32))
        else:
            parts.append(1 / gain_curve(before, code, samples, config.hop_samples))
            before = code
    return np.concatenate(parts)[: frames * config.hop_samples]


def sources(config: CodecConfig, gains: Array, frames: int) -> Array:
    """Which frame's latents each of so many frames is decoded from, [frames]; -1: from zeros.

    Sound comes out late, so that its end is made of frames of silence too: there it goes on as it was.
    """
    sources, last = np.arange(frames), -1
    for at, code in zip(range(0, frames, config.group_frames), gains.tolist(), strict=True):
        stop = min(at + config.group_frames, frames)
        if code == SILENT:
            sources[at:stop] = -1
            sources[at : min(stop, at + ceil_div(config.delay_samples, config.hop_samples))] = last
        last = int(sources[stop - 1])
    return sources
