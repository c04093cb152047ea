"""Noise left out of sound before anything codes it: the model's denoiser gives each bin of each spectrum a mask.

wave -> spectra -> over the loudest level so far -> network -> masks x spectra -> wave, a step later

The mask is complex, so that it turns phases too, after Williamson, Wang and Wang, "Complex ratio masking" (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.dsp.low_delay import follow_level
from nacre.dsp.wave import pad
from nacre.model.model import Denoiser, Model

QUIETEST = 1e-5  # of full scale: fainter sound is taken for this loud


@dataclass(frozen=True, eq=False)
class DenoiserState:
    """One channel's denoiser between two calls: samples, unfinished sound, loudest level, the network's past."""

    samples: Array
    tail: Array
    level: float
    past: Array


def start_denoiser(denoiser: Denoiser) -> DenoiserState:
    """Before the first sample."""
    return DenoiserState(*denoiser.frames.start(), QUIETEST, denoiser.net.start())


def denoise_frames(
    denoiser: Denoiser, state: DenoiserState, wave: Array, rate_hz: int, strength: float = 1.0
) -> tuple[Array, DenoiserState]:
    """wave [N] float32, N a multiple of the step -> (wave [N] a step behind, state).

    `strength` 0 to 1 is how much of the noise goes.
    """
    frames, fall = denoiser.frames, denoiser.config.fall(rate_hz)
    spectra, samples = frames.analyse(wave, state.samples)
    power = np.mean(np.square(spectra.real) + np.square(spectra.imag), 1)
    levels = follow_level(np.sqrt(power), max(state.level, QUIETEST / fall), fall)
    ready = spectra / levels[:, None]
    masks, past = denoiser.net.step(np.concatenate([ready.real, ready.imag], 1), None, state.past)
    mask = masks[:, : frames.bins] + 1j * masks[:, frames.bins :]
    clean, tail = frames.synthesise(spectra * (1 + np.float32(strength) * (mask - 1)), state.tail)
    return clean, DenoiserState(samples, tail, float(levels[-1]), past)


class StreamDenoiser:
    """Sound of several channels at the model's rate in pieces of any size; what comes out does not depend on them.

    It works on `block_samples` at once, by default a step, and gives as many samples as went in, at their places.
    Raises UsageError where the model has no denoiser, or for a strength that is none.
    """

    def __init__(self, model: Model, channels: int, strength: float = 1.0, block_samples: int | None = None):
        if model.denoiser is None:
            raise UsageError(f"model {model.name} has no denoiser; choose one that has")
        self._denoiser, self._strength, self._rate_hz = model.denoiser, check_strength(strength), model.config.rate_hz
        self._step = model.denoiser.config.step_samples
        self._block = self._step * ceil_div(block_samples or self._step, self._step)
        self._states = channels * [start_denoiser(model.denoiser)]
        self._waiting = np.zeros((channels, 0), np.float32)
        self._late = self._step  # samples at the start that nothing went in for

    def push(self, wave: Array) -> Array:
        """wave [C, N] -> wave [C, N'] of what is complete."""
        self._waiting = np.concatenate([self._waiting, wave], 1)
        ready = self._waiting.shape[1] // self._block * self._block
        blocks = [self._denoised(self._waiting[:, at : at + self._block]) for at in range(0, ready, self._block)]
        self._waiting = self._waiting[:, ready:]
        return np.concatenate([self._waiting[:, :0], *blocks], 1)

    def flush(self) -> Array:
        """wave [C, N'] of what is left; the sound is at its end."""
        left = self._waiting.shape[1] + self._step - self._late
        tail = np.concatenate([self._waiting, np.zeros((len(self._waiting), self._step), np.float32)], 1)
        return self._denoised(pad(tail, self._step))[:, :left]

    def _denoised(self, waves: Array) -> Array:
        clean = np.empty_like(waves)
        for index, wave in enumerate(waves):
            clean[index], self._states[index] = denoise_frames(
                self._denoiser, self._states[index], wave, self._rate_hz, self._strength
            )
        late, self._late = self._late, 0
        return clean[:, late:]


def check_strength(strength: float) -> float:
    """A strength in 0..1. Raises UsageError."""
    number = isinstance(strength, int | float) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:
        raise UsageError(f"strength must be 0 to 1, not {strength}")
    return float(strength)
