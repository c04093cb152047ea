"""Excerpts of recordings for training, drawn by seed: with noise, in rooms, at other speeds, as a recipe wants them.

An excerpt may cross from one recording into the next, as speech on a line does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.core.units import db_to_gain
from nacre.dsp.gain import gain_for, gain_of
from nacre.train.degrade import (
    DegradeConfig,
    NoiseMixConfig,
    add_noise,
    change_speed,
    clipped,
    gusts,
    in_room,
    narrow,
    recoloured,
    tilt,
    tones,
)
from nacre.train.recordings import FAINT, Corpus
from nacre.train.synthetic_noise import clicks, coloured, hum, synthetic

Array = np.ndarray[Any, np.dtype[Any]]

ROOMS = "rir"  # the source of noise that holds responses of rooms
BAND_TOP_HZ = (3400.0, 7000.0)  # where a narrow band ends


@dataclass(frozen=True)
class Excerpts:
    """`waves` [B, N] float32 for the encoder, zeros at the end where a recording is shorter; `targets` [B, N] for the
    decoder, the same but where noise is to be left out, the `denoised` [B] bool; `lengths` [B] samples of each."""

    waves: Array
    targets: Array
    lengths: Array
    denoised: Array


class Sampler:
    """Draws training excerpts. The same (seed, step, item) always gives the same samples."""

    def __init__(
        self,
        corpus: Corpus,
        codec: CodecConfig,
        degrade: DegradeConfig,
        noise: Corpus | None,
        balance: float,
        whole: bool = False,
        noise_mix: NoiseMixConfig | None = None,
    ):
        self.codec, self.degrade, self.whole, self.noise_mix = codec, degrade, whole, noise_mix or NoiseMixConfig()
        long = [s for s in corpus.sources if len(s.samples) > codec.hop_samples]
        self.sources, self.stops = [s.samples for s in long], [s.stops for s in long]
        if not self.sources:
            raise TrainError(f"{corpus.seconds:.3f} s of recordings are too few; give more with --data")
        self.noises = [s.samples for s in noise.sources if s.name != ROOMS] if noise else []
        rooms = [s for s in noise.sources if s.name == ROOMS] if noise else []
        self.rooms = [response for s in rooms for response in np.split(s.samples, s.stops[:-1])]
        sizes = np.array([len(s) for s in self.sources], np.float64) ** balance
        self.share = sizes / sizes.sum()

    def batch(self, items: int, samples: int, seed: tuple[int, ...]) -> Array:
        """Excerpts [B, N] float32, level-normalised as the encoder does it."""
        return self.draw(items, samples, seed).waves

    def draw(self, items: int, samples: int, seed: tuple[int, ...], cleaning: float = 0.0, first: int = 0) -> Excerpts:
        """Excerpts, level-normalised as the encoder does it; a share of `cleaning` has noise to leave out.

        They are those of the seed from number `first` on.
        """
        waves, targets = np.zeros((2, items, samples), np.float32)
        lengths, denoised = np.zeros(items, np.int64), np.zeros(items, bool)
        for item in range(items):
            rng = np.random.default_rng([*seed, first + item])
            denoised[item] = cleaning > 0 and rng.random() < cleaning
            wave, target = self.item(samples, rng, bool(denoised[item]))
            lengths[item] = len(wave)
            waves[item, : len(wave)], targets[item, : len(wave)] = wave, target
        return Excerpts(waves, targets, lengths, denoised)

    def item(self, samples: int, rng: np.random.Generator, denoised: bool = False) -> tuple[Array, Array]:
        """One excerpt and its target [N] float32; shorter, by whole frames, where recordings are kept `whole`."""
        d = self.degrade
        factor = rng.uniform(*d.speed_range) if rng.random() < d.speed_probability else 1.0
        chosen = rng.choice(len(self.sources), p=self.share)
        source = self._recording(chosen, rng) if self.whole else self.sources[chosen]
        if d.tone_probability and rng.random() < d.tone_probability:
            wave = tones(samples, self.codec.rate_hz, rng)
            return wave, wave
        if self.whole:
            hop = self.codec.hop_samples
            samples = min(samples, max(hop, (int(len(source) / factor) - 64) // hop * hop))
        wave = excerpt(source, int(samples * factor) + 64 if factor != 1.0 else samples, rng)
        if factor != 1.0:
            wave = change_speed(wave, factor, samples)
        if rng.random() < d.tilt_probability:
            wave = tilt(wave, rng.uniform(-0.5, 0.5))
        if rng.random() < d.talker_probability:
            wave = add_noise(wave, self._other(samples, rng), rng.uniform(*d.talker_snr_db))
        if self.rooms and rng.random() < d.room_probability:
            wave, _ = in_room(wave, self._room(rng), self.codec.rate_hz)
        if rng.random() < d.band_probability:
            wave = narrow(wave, rng.uniform(0, 300), rng.uniform(*BAND_TOP_HZ), self.codec.rate_hz)
        target = wave
        if denoised:
            wave, target = self._noisy(wave, rng)
        elif self.noises and rng.random() < d.noise_probability:
            wave = target = add_noise(wave, self._noise(samples, rng), rng.uniform(*d.noise_snr_db))
        gain = gain_of(gain_for(wave, self.codec.hop_samples))
        change_db = rng.normal(0, d.level_spread_db) - (20 if rng.random() < d.quiet_probability else 0)
        sign = 1 if rng.random() < 0.5 else -1
        scale = np.float32(sign * gain * db_to_gain(change_db))
        return wave * scale, target * scale

    def _noisy(self, wave: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """wave [N] in noise and perhaps in a room, and what shall be left of it."""
        d, samples, rate_hz, target = self.noise_mix, len(wave), self.codec.rate_hz, wave
        if self.rooms and rng.random() < d.room_probability:
            wave, target = in_room(wave, self._room(rng), rate_hz)
        noise = self._background(samples, rng)
        noise /= np.float32(max(FAINT, noise.std()))
        if rng.random() < d.hum_probability:
            noise += np.float32(rng.uniform(0.3, 2)) * hum(samples, rate_hz, rng)
        if rng.random() < d.clicks_probability:
            noise += np.float32(rng.uniform(0.3, 2)) * clicks(samples, rate_hz, rng)
        if d.speechless_probability and rng.random() < d.speechless_probability:
            return noise * np.float32(0.05), np.zeros_like(wave)
        wave = add_noise(wave, noise, rng.uniform(*d.snr_db))
        if d.clipping_probability and rng.random() < d.clipping_probability:
            wave = clipped(wave, rng.uniform(0.2, 0.8))
        return wave, target

    def _background(self, samples: int, rng: np.random.Generator) -> Array:
        """What goes on behind speech [N]."""
        d, kind = self.noise_mix, rng.random() - self.noise_mix.babble_probability
        if kind < 0:
            return self._babble(samples, rng)
        varied = bool(d.varied_probability) and rng.random() < d.varied_probability
        made = d.coloured_probability + d.synthetic_probability
        if kind >= made and self.noises:
            return self._varied(samples, rng) if varied else self._noise(samples, rng)
        lively = d.coloured_probability <= kind < made
        noise = synthetic(samples, self.codec.rate_hz, rng) if lively else coloured(samples, rng)
        return _reshaped(noise, rng) if varied else noise

    def _babble(self, samples: int, rng: np.random.Generator) -> Array:
        """Three to six others who speak [N], as loud as each other."""
        others = (self._other(samples, rng) for _ in range(rng.integers(3, 7)))
        babble: Array = np.sum([other / np.float32(other.std() + 1e-4) for other in others], 0)
        return babble

    def _varied(self, samples: int, rng: np.random.Generator) -> Array:
        """Recorded noise [N] unlike the recording: few recordings must stand for all noise there is."""
        noise = np.zeros(samples, np.float32)
        for strength in (1.0, rng.uniform(0.3, 1.0))[: 2 if rng.random() < 0.25 else 1]:
            factor = rng.uniform(0.7, 1.4) if rng.random() < 0.6 else 1.0
            one = self._noise(int(samples * factor) + 64, rng)
            one = change_speed(one, factor, samples) if factor != 1.0 else one[:samples]
            noise[: len(one)] += one * np.float32(strength / (one.std() + 1e-4))
        return _reshaped(noise, rng)

    def _other(self, samples: int, rng: np.random.Generator) -> Array:
        return excerpt(self.sources[rng.choice(len(self.sources), p=self.share)], samples, rng)

    def _room(self, rng: np.random.Generator) -> Array:
        return self.rooms[rng.integers(len(self.rooms))] * np.float32(1 / 32767)

    def _noise(self, samples: int, rng: np.random.Generator) -> Array:
        """Recorded noise [N] without its offset, which would be all of a constant stretch."""
        noise = excerpt(self.noises[rng.integers(len(self.noises))], samples, rng)
        return noise - noise.mean()

    def _recording(self, chosen: int, rng: np.random.Generator) -> Array:
        """One recording of a source, the longer the likelier."""
        stops = self.stops[chosen]
        index = int(np.searchsorted(stops, rng.integers(stops[-1]), side="right"))
        return self.sources[chosen][stops[index - 1] if index else 0 : stops[index]]


def excerpt(samples: Array, count: int, rng: np.random.Generator) -> Array:
    """A random stretch [count] float32 of int16 samples; padded with zeros where there is less."""
    start = int(rng.integers(max(1, len(samples) - count)))
    wave = np.zeros(count, np.float32)
    piece = samples[start : start + count]
    wave[: len(piece)] = piece * np.float32(1 / 32767)
    return wave


def _reshaped(noise: Array, rng: np.random.Generator) -> Array:
    """noise [N], perhaps of another colour, perhaps in gusts."""
    if rng.random() < 0.5:
        noise = recoloured(noise, rng)
    return gusts(noise, rng) if rng.random() < 0.2 else noise
