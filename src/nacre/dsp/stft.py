"""Samples <-> model frames: framing, windowed spectra, overlap-add. All steps carry their state.

    samples   |----320----|----320----|          a latent frame is 20 ms
    spectra      two a frame, window 640, 160 apart; a window ends where its frame's samples end
    output    overlap-add of windows 640 long; it lags the input by `delay_samples`

Spectra are compressed to z = log1p(k |X|) X / |X| and expanded by the inverse, phase kept.
"""

from __future__ import annotations

import numpy as np

from nacre.core.config import CodecConfig
from nacre.core.types import Array, State

COMPRESSION = 50.0  # k above: where the scale turns from linear to logarithmic
LARGEST_LOG = 12.0  # compressed magnitudes are cut here, far above any sound, so that exp stays finite


def hann_root(size: int) -> Array:
    """Square root of the periodic Hann window, [size] float32; used on both sides it overlap-adds to a constant."""
    return np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def cycle_spectra(wave: Array, size: int, step: int) -> Array:
    """wave [S * step] float32 that begins again at its end -> spectra [S, size / 2 + 1] under `hann_root`."""
    joined = np.concatenate([wave, wave[: size - step]])
    frames = np.lib.stride_tricks.sliding_window_view(joined, size)[::step]
    spectra: Array = np.fft.rfft(frames * hann_root(size), norm="ortho")
    return spectra


class Analyser:
    """Samples to compressed spectra. State: the samples that later windows still need."""

    def __init__(self, config: CodecConfig):
        self.config = config
        self._window = hann_root(config.window_samples)

    def start(self) -> State:
        """State before the first sample."""
        return (np.zeros(self.config.window_samples - self.config.step_samples, np.float32),)

    def step(self, wave: Array, state: State) -> tuple[Array, State]:
        """wave [N] float32, N a multiple of the hop -> (spectra [T, steps * 2 * bins] float32, state)."""
        c = self.config
        joined = np.concatenate([state[0], wave])
        frames = np.lib.stride_tricks.sliding_window_view(joined, c.window_samples)[:: c.step_samples]
        spectrum = np.fft.rfft(frames * self._window, norm="ortho")  # [T * steps, bins]
        magnitude = np.abs(spectrum) + np.float32(1e-6)
        spectrum *= np.log1p(np.float32(COMPRESSION) * magnitude) / magnitude
        parts = np.stack([spectrum.real, spectrum.imag], 1)
        return parts.reshape(-1, c.steps_per_frame * 2 * c.bins), (joined[len(wave) :].copy(),)


def expanded(magnitude: Array) -> Array:
    """Compressed magnitudes as they are."""
    linear: Array = np.expm1(np.minimum(magnitude, np.float32(LARGEST_LOG))) / np.float32(COMPRESSION)
    return linear


class Synthesiser:
    """Compressed spectra to samples by overlap-add. State: the unfinished tail."""

    def __init__(self, config: CodecConfig):
        self.config = config
        self._overlap = config.window_samples // config.step_samples
        self._window = hann_root(config.window_samples) * np.float32(2 / self._overlap)

    def start(self) -> State:
        """State before the first spectrum."""
        return (np.zeros((self._overlap - 1, self.config.step_samples), np.float32),)

    def restart(self, state: State, skipped_steps: int) -> State:
        """A state that has forgotten what came before; so many more steps are left out."""
        return self.start()

    def step(self, spectra: Array, state: State) -> tuple[Array, State]:
        """spectra [T * steps, X] float32, as the decoder gives them -> (wave [N] float32, N = T * hop, state)."""
        wave, added, state = self.parts(spectra, state)
        return wave if added is None else wave + added, state

    def parts(self, spectra: Array, state: State) -> tuple[Array, Array | None, State]:
        """As `step`, in two waves [N] that make up the whole: what was predicted, and the noise beside it, if any."""
        wave, tail = self.overlapped(self.spectrum(spectra), state[0])
        return wave, None, (tail,)

    def spectrum(self, spectra: Array) -> Array:
        """[S, X] -> predicted spectra [S, bins] complex64, no longer compressed."""
        c = self.config
        real, imag = spectra[:, : c.bins], spectra[:, c.bins : c.step_width]
        magnitude = np.sqrt(real * real + imag * imag) + np.float32(1e-5)
        scale = expanded(magnitude) / magnitude
        spectrum = np.empty(real.shape, np.complex64)
        spectrum.real, spectrum.imag = real * scale, imag * scale
        return spectrum

    def overlapped(self, spectrum: Array, tail: Array) -> tuple[Array, Array]:
        """spectrum [S, bins] complex64, tail [overlap - 1, step] -> (wave [S * step] float32, tail)."""
        c, steps, overlap = self.config, len(spectrum), self._overlap
        frames = np.fft.irfft(spectrum, n=c.window_samples, norm="ortho") * self._window
        pieces = frames.reshape(steps, overlap, c.step_samples)
        total = np.zeros((steps + overlap - 1, c.step_samples), np.float32)
        total[: overlap - 1] = tail
        for lag in range(overlap):
            total[lag : lag + steps] += pieces[:, lag]
        return total[:steps].reshape(-1), total[steps:].copy()
