"""The band layer of a file: what is above the core, as symbols in its packets, and back as noise over the core.

wave -- Resampler, 48 kHz --> powers [T, 4, B] -- levels against the packet's gain --> symbols [T, B + 1]
symbols --> powers --> noise at 48 kHz --+
core -- Resampler, 48 kHz ---------------+-- Resampler --> wave at the requested rate
"""

from __future__ import annotations

import numpy as np

from nacre.codec.packets import Group
from nacre.core.types import Array, Floats, Ints
from nacre.core.units import ceil_div
from nacre.dsp import band as air
from nacre.dsp.gain import GAIN_STEP_DB, GAIN_ZERO
from nacre.entropy.band import LEVELS, band_tables
from nacre.format.file import Band
from nacre.io.audio import Resampler
from nacre.model.model import Model

CORE_HZ, CORE_HOP = 16_000, 320
LEAST_RATE_HZ = 24_000  # of sound that has a band layer by default
LEAST_KBPS = 3.0  # a channel: below, the core needs all
KBPS = {Band.NONE: 0.0, Band.TO_12_KHZ: 0.25, Band.TO_20_KHZ: 0.45}  # of a channel of speech, about
BANDS = {Band.NONE: 0, Band.TO_12_KHZ: 2, Band.TO_20_KHZ: 4}
NARROW = 8  # kHz: the core alone
KHZ = {NARROW: Band.NONE, 12: Band.TO_12_KHZ, 20: Band.TO_20_KHZ}
STEP_DB, BASE_DB = 3.0, -84.0  # level n is BASE_DB + n * STEP_DB after the gain; 0 is nothing
AUDIBLE_DB = -72.0  # as the peak of silence in the core
HOLD = 1.0  # steps by which a level must have changed to be sent
SHAPE_COST = 2.0  # squared dB that another shape than the even one must gain
SHAPE_DB = (-20.0, 8.0)
LOUDEST = 10 ** (-1.2)  # mean square of all bands, -12 dB: noise in place of a loud tone must not clip
OWN_NOISE = 101  # steps of the cycle from the noise of one channel to that of the next
FADE_DB = -1.74  # a frame of a lost packet: as the core fades


def fits_core(model: Model) -> bool:
    """Whether a band layer fits a model."""
    return model.config.rate_hz == CORE_HZ and model.config.hop_samples == CORE_HOP


def widest(rate_hz: int) -> Band:
    """The band layer that sound of a rate has room for."""
    if rate_hz > LEAST_RATE_HZ:
        return Band.TO_20_KHZ
    return Band.TO_12_KHZ if rate_hz > CORE_HZ else Band.NONE


class BandEncoder:
    """Samples of a stream in, powers of its frames out, in pieces of any size; bands lie between `edges` [B + 1]."""

    def __init__(self, rate_hz: int, channels: int, edges: Array):
        self._edges, self._ended = edges, False
        self._resampler = Resampler(rate_hz, air.RATE_HZ, channels)
        self._waiting = np.zeros((channels, air.LAG), np.float32)
        self._powers = np.zeros((channels, 0, air.STEPS, len(edges) - 1), np.float32)

    @property
    def frames(self) -> int:
        """How many there are."""
        return self._powers.shape[1]

    def ready(self, frames: int) -> bool:
        """Whether so many can be taken, as they will be: at the end of a stream they always can."""
        return self._ended or self.frames >= frames

    def push(self, wave: Array) -> None:
        """wave [C, N] at the stream's rate."""
        self._add(self._resampler.push(wave))

    def flush(self) -> None:
        """The stream is at its end."""
        self._ended = True
        self._add(self._resampler.flush())
        frames = ceil_div(self._waiting.shape[1] - air.LAG, air.FRAME_SAMPLES)
        missing = frames * air.FRAME_SAMPLES + 2 * air.LAG - self._waiting.shape[1]
        self._add(np.zeros((len(self._waiting), missing), np.float32))

    def take(self, frames: int) -> Floats:
        """Mean squares [C, T, STEPS, B] of the next frames; nothing behind the end."""
        powers = self._powers[:, :frames]
        self._powers = self._powers[:, frames:]
        return np.pad(powers, ((0, 0), (0, frames - powers.shape[1]), (0, 0), (0, 0)))

    def _add(self, wave: Array) -> None:
        self._waiting = np.concatenate([self._waiting, wave], 1)
        samples = (self._waiting.shape[1] - 2 * air.LAG) // air.FRAME_SAMPLES * air.FRAME_SAMPLES
        if samples > 0:
            powers = air.frame_powers(self._waiting[:, : samples + 2 * air.LAG], self._edges)
            self._powers = np.concatenate([self._powers, powers], 1)
            self._waiting = self._waiting[:, samples:]


def is_audible(powers: Floats) -> bool:
    """Whether anything in powers [T, STEPS, B] is to be kept where the core is silent; shaped dither is not."""
    frames = np.sort(powers.sum(-1).mean(-1))
    loudest = frames[-max(1, len(frames) // 10) :]
    return bool(loudest.mean() > 10 ** (AUDIBLE_DB / 10))


def gain_db(code: int) -> float:
    """Gain of a packet's code."""
    return (code - GAIN_ZERO) * GAIN_STEP_DB


def band_symbols(powers: Floats, code: int, quarters: Floats) -> Ints:
    """powers [T, STEPS, B] of a group with this gain code -> symbols [T, B + 1]: levels, and which of the `quarters`.

    A level that has changed by less than HOLD stays: hiss does not flicker, and costs less.
    """
    exact = (10 * np.log10(powers.mean(1) + 1e-20) + gain_db(code) - BASE_DB) / STEP_DB  # [T, B]
    levels = np.clip(np.rint(exact), 0, LEVELS - 1).astype(np.int32)
    for before, now, wanted in zip(levels, levels[1:], exact[1:], strict=False):
        now[:] = np.where(np.abs(wanted - before) < HOLD, before, now)
    error = np.square(shapes_db(powers)[:, None] - 10 * np.log10(quarters)).mean(2)  # [T, SHAPES]
    error[:, 1:] += SHAPE_COST
    shapes = np.where(levels.any(1), error.argmin(1), 0).astype(np.int32)
    return np.concatenate([levels, shapes[:, None]], 1)


def shapes_db(powers: Floats) -> Floats:
    """powers [T, STEPS, B] -> how those of a frame lie in time, all bands alike, in dB over its mean [T, STEPS]."""
    even = powers / (powers.mean(1, keepdims=True) + 1e-20)
    shapes: Floats = np.clip(10 * np.log10(even.mean(2) + 1e-3), *SHAPE_DB)
    return shapes


def band_powers(symbols: Ints, code: int) -> Floats:
    """What `band_symbols` were of: [T, STEPS, B]."""
    levels, quarters = symbols[:, None, :-1], band_tables().quarters[symbols[:, -1]]  # [T, 1, B], [T, STEPS]
    level_db = BASE_DB + levels * STEP_DB - gain_db(code)
    power = np.where(levels > 0, 10 ** (level_db / 10), 0) * quarters[..., None]
    power *= LOUDEST / np.maximum(power.sum(-1, keepdims=True), LOUDEST)
    powers: Floats = power.astype(np.float32)
    return powers


class Overlay:
    """Sound in, noise of the powers that were added over it out, at another rate, in pieces of any size."""

    def __init__(self, from_hz: int, to_hz: int, channels: int):
        self._up = Resampler(from_hz, air.RATE_HZ, channels)
        self._out = Resampler(air.RATE_HZ, to_hz, channels)
        self._steps, self._skip = channels * [0], channels * [air.LAG]
        self._tails = channels * [np.zeros(air.STEP, np.float32)]
        self._noise = channels * [np.zeros(0, np.float32)]
        self._sound = np.zeros((channels, 0), np.float32)

    def put(self, channel: int, powers: Floats, own_noise: bool = False) -> None:
        """Mean squares [T, STEPS, B] of the next frames of a channel, one or more, with noise of its own or as others.

        Noise that all channels share is heard in the middle.
        """
        steps = powers.reshape(-1, powers.shape[-1]).astype(np.float32)  # [S, B]
        first = self._steps[channel] + OWN_NOISE * channel * own_noise
        wave, self._tails[channel] = air.noise_of(steps, first, self._tails[channel])
        self._noise[channel] = np.concatenate([self._noise[channel], wave[self._skip[channel] :]])
        self._steps[channel] += len(steps)
        self._skip[channel] = 0

    def push(self, sound: Array) -> Array:
        """sound [C, N] -> wave [C, M] of what has its noise."""
        self._sound = np.concatenate([self._sound, self._up.push(sound)], 1)
        return self._out.push(self._mixed(min(self._sound.shape[1], *map(len, self._noise))))

    def flush(self) -> Array:
        """The rest."""
        self._sound = np.concatenate([self._sound, self._up.flush()], 1)
        last = self._out.push(self._mixed(self._sound.shape[1]))
        return np.concatenate([last, self._out.flush()], 1)

    def _mixed(self, samples: int) -> Array:
        block, self._sound = self._sound[:, :samples].copy(), self._sound[:, samples:]
        for channel, noise in enumerate(self._noise):
            part = noise[:samples]
            block[channel, : len(part)] += part
            self._noise[channel] = noise[samples:]
        return block


class BandDecoder(Overlay):
    """Core in, core and what is above it out; first `add` each channel's group."""

    def __init__(self, rate_hz: int, channels: int, band: Band):
        super().__init__(CORE_HZ, rate_hz, channels)
        self._last = channels * [np.zeros(BANDS[band], np.float32)]  # powers of the last frame

    def add(self, channel: int, group: Group | None, frames: int, factor: float = 1.0, own_noise: bool = False) -> None:
        """A group of a channel, times `factor`; None is one that was lost: what was last goes on and fades."""
        last = self._last[channel]
        if group is None:
            fall = 10 ** (np.arange(1, frames + 1) * FADE_DB / 10)
            powers: Array = np.repeat((fall[:, None] * last)[:, None], air.STEPS, 1)
        elif group.band is None:
            powers = np.zeros((frames, air.STEPS, len(last)))
        else:
            powers = band_powers(group.band, group.code) * factor**2
        self._last[channel] = powers[-1].mean(0)
        self.put(channel, powers, own_noise)
