"""The speech alone: by the model's denoiser, which keeps the waveform, or through latents that its encoder cleaned.

denoiser   wave -> spectra x complex masks -> wave
without    wave -> encoder at its levels for cleaning -> latents, not rounded -> decoder -> wave
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.decoder import render
from nacre.codec.denoiser import StreamDenoiser, check_strength
from nacre.codec.encoder import analyse_audible
from nacre.codec.state import start_decoder, start_encoder
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.dsp.wave import as_sound, check_shape, pad, pieces_of
from nacre.io.audio import resampled

Tick = Callable[[float], None]


def denoise(codec: Codec, wave: Array, rate_hz: int, *, strength: float = 1.0, tick: Tick | None = None) -> Array:
    """The speech in wave [N] or [C, N], of the same shape, each channel by itself.

    `strength` 0 to 1 is how much of the noise goes, 1 all of it. Nothing is left above half the model's rate, but for
    what a smaller strength keeps. `tick` is told the share done. Raises AudioError, and UsageError for a strength
    that is none, or where the model was not taught to denoise.
    """
    sound = as_sound(wave)
    rate_hz, strength = check_shape(rate_hz, len(sound)), check_strength(strength)
    if not codec.model.denoises:
        wanted = "a model that was taught to denoise"
        raise UsageError("denoise", found=f"model {codec.bundle.name}", wanted=wanted)
    if codec.model.denoiser is None and strength != 1:
        wanted = "a model with a denoiser, or strength 1"
        raise UsageError(f"strength {strength:g}", found=f"model {codec.bundle.name}", wanted=wanted)
    if sound.shape[1] == 0:
        raise AudioError("wave", found="no samples", wanted="at least one")
    way = _masked if codec.model.denoiser else _cleaned
    result = np.empty_like(sound)
    for index, channel in enumerate(sound):
        result[index] = way(codec, channel, rate_hz, tick and partial(_told, tick, index, len(sound)))
    if strength < 1:
        result = sound + np.float32(strength) * (result - sound)
    shaped: Array = result.reshape(np.shape(wave))
    return shaped


def _told(tick: Tick, channel: int, channels: int, share: float) -> None:
    tick((channel + share) / channels)


def _masked(codec: Codec, wave: Array, rate_hz: int, tick: Tick | None) -> Array:
    """wave [N] through the model's denoiser."""
    config = codec.config
    ready = resampled(wave, rate_hz, config.rate_hz)
    stream = StreamDenoiser(codec.model, 1, block_samples=config.group_samples)
    pieces = []
    for at in range(0, len(ready), config.group_samples):
        pieces.append(stream.push(ready[None, at : at + config.group_samples]))
        if tick:
            tick(min(1.0, (at + config.group_samples) / len(ready)))
    heard = np.concatenate([*pieces, stream.flush()], 1)[0]
    return resampled(heard, config.rate_hz, rate_hz)[: len(wave)]


def _cleaned(codec: Codec, wave: Array, rate_hz: int, tick: Tick | None) -> Array:
    """wave [N] from cleaned latents that nothing has rounded, of the highest level that is not refined."""
    model, config, level = codec.model, codec.config, codec.model.plain_levels - 1
    ready = resampled(wave, rate_hz, config.rate_hz)
    padded = pad(np.concatenate([ready, np.zeros(config.delay_samples, np.float32)]), config.hop_samples)
    encoder, decoder, pieces, done = start_encoder(model, denoise=True), start_decoder(model), [], 0
    for part in pieces_of(padded, config.group_samples):
        analysed, encoder = analyse_audible(model, encoder, part, level)
        latents = model.quantiser.unrounded(analysed.latents, level)
        if analysed.silent:
            latents = np.zeros_like(latents)
        sound, decoder = render(model, decoder, latents, level, None if analysed.silent else encoder.code)
        pieces.append(sound)
        done += len(part)
        if tick:
            tick(done / len(padded))
    heard = np.concatenate(pieces)[config.delay_samples :][: len(ready)]
    return resampled(heard, config.rate_hz, rate_hz)[: len(wave)]
