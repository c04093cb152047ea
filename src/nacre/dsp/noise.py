"""Noise substitution: above the low band a decoder gives the level of noise, not a wave, for each bin and step.

    spectrum = predicted * faded out to the top  +  level * faded in from the low band * noise(step)

Regression averages what it cannot predict: hiss and breath become a wave that comes again with every frame. So, as in
perceptual noise substitution (Herre and Schulz, 1998), noise of the right envelope takes their place. It is a fixed
cycle that a counter of steps runs through: the same file gives the same sound, in whatever pieces it is decoded.

Levels already rise and fall with the recording's, so the noise itself is even: as loud in every few bins of every step,
as far as windows that overlap allow, with phases alone left to chance. Plain noise would put its own ups and downs on
top. Such a wave is found as in Griffin and Lim (1984), by setting sizes and going back to samples in turn.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nacre.core.config import CodecConfig
from nacre.core.types import Array, State
from nacre.dsp.stft import Synthesiser, cycle_spectra, expanded, hann_root

CYCLE_STEPS = 800  # steps until the noise comes again: 8 s at 10 ms
SEED = 20
EVEN_BINS, EVEN_ROUNDS = 16, 3  # bins that are as loud as any others; how often that is set
NOISE_HZ = (1250.0, 2500.0)  # below the first there is no noise, from the second on as much as the decoder says
PREDICTED_HZ = (3000.0, 4500.0)  # up to the first the predicted spectrum counts, from the second on noise alone


@lru_cache(maxsize=4)
def fades(config: CodecConfig) -> tuple[Array, Array]:
    """Factors [bins] float32 on the predicted spectrum and on the noise."""
    hz = np.arange(config.bins) * (config.rate_hz / config.window_samples)
    rising = [np.clip((hz - low) / (high - low), 0, 1).astype(np.float32) for low, high in (PREDICTED_HZ, NOISE_HZ)]
    return 1 - rising[0], rising[1]


@lru_cache(maxsize=4)
def noise_cycle(config: CodecConfig) -> Array:
    """Spectra [CYCLE_STEPS, bins] complex64 of even white noise, of unit power in each bin, in overlapping windows."""
    size, step = config.window_samples, config.step_samples
    wave = np.random.Generator(np.random.Philox(SEED)).standard_normal(CYCLE_STEPS * step, np.float32)
    cycle = cycle_spectra(wave, size, step)
    edges = np.arange(0, config.bins, EVEN_BINS)
    counts = np.diff(edges, append=config.bins)
    for _ in range(EVEN_ROUNDS):
        power = np.add.reduceat(np.square(np.abs(cycle)), edges, axis=1) / counts
        wave = _wave(config, cycle / np.repeat(np.sqrt(power), counts, axis=1))
        cycle = cycle_spectra(wave, size, step)
    power = np.square(np.abs(cycle)).mean()
    whole: Array = (cycle / np.sqrt(power)).astype(np.complex64)
    return whole


def _wave(config: CodecConfig, spectra: Array) -> Array:
    """The cycle of samples [N] float32 whose spectra come nearest."""
    size, step = config.window_samples, config.step_samples
    frames = np.fft.irfft(spectra, n=size, norm="ortho") * hann_root(size) * np.float32(2 * step / size)
    pieces = frames.reshape(len(spectra), size // step, step)
    wave = np.zeros((len(spectra), step), np.float32)
    for lag in range(size // step):
        wave += np.roll(pieces[:, lag], lag, axis=0)
    return wave.reshape(-1)


def noise(config: CodecConfig, first_step: int, steps: int) -> Array:
    """Spectra [S, bins] complex64 of the cycle from step `first_step` on."""
    spectra: Array = noise_cycle(config)[(first_step + np.arange(steps)) % CYCLE_STEPS]
    return spectra


class NoiseSynthesiser(Synthesiser):
    """Compressed spectra and noise levels to samples. State: the unfinished tails of both, and steps that are done."""

    def start(self, first_step: int = 0) -> State:
        """State before the first spectrum; noise begins at this step of its cycle."""
        return (*super().start(), *super().start(), np.array([first_step]))

    def restart(self, state: State, skipped_steps: int) -> State:
        """The state that has forgotten all but where noise stands after so many more steps."""
        return self.start(int(state[2][0]) + skipped_steps)

    def parts(self, spectra: Array, state: State) -> tuple[Array, Array | None, State]:
        """spectra [T * steps, 3 * bins] float32 -> predicted wave [N], noise [N], state."""
        c, tail, noise_tail, (at,) = self.config, *state
        fade_out, fade_in = fades(c)
        wave, tail = self.overlapped(self.spectrum(spectra) * fade_out, tail)
        level = expanded(spectra[:, c.step_width :]) * fade_in
        added, noise_tail = self.overlapped(level * noise(c, int(at), len(spectra)), noise_tail)
        return wave, added, (tail, noise_tail, np.array([at + len(spectra)]))
