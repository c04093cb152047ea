"""Denoising by the model's denoiser, which keeps the waveform, or through latents that its encoder denoised.

denoiser   wave -> spectra x complex masks -> wave
without    wave -> encoder at its denoising levels -> latents, not rounded -> decoder -> wave

What the file has above the model's band passes, as loud as denoising leaves the upper half of that band.
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
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.dsp.wave import as_sound, check_shape, pad, pieces_of
from nacre.io.audio import resampled

Tick = Callable[[float], None]

FAINT = 1e-10  # power of full scale that counts as none


def denoise(codec: Codec, wave: Array, rate_hz: int, *, strength: float = 1.0, tick: Tick | None = None) -> Array:
    """The speech in wave [N] or [C, N], of the same shape, each channel by itself.

    `strength` 0 to 1 is the share of the noise to remove. The band above half the model's rate gets the gain of the
    octave below it, every 10 ms. `tick` gets the share done. Raises AudioError, and UsageError for a strength out of
    range or a model that cannot denoise.
    """
    sound = as_sound(wave)
    rate_hz, strength = check_shape(rate_hz, len(sound)), check_strength(strength)
    if not codec.model.denoises:
        raise UsageError(f"model {codec.bundle.name} cannot denoise; use one that can, such as {DEFAULT_MODEL}")
    if codec.model.denoiser is None and strength != 1:
        lacks = f"model {codec.bundle.name} has no denoiser of its own, so strength {strength:g} is not possible"
        raise UsageError(f"{lacks}; use strength 1, or another model")
    if sound.shape[1] == 0:
        raise AudioError("the wave is empty; give at least one sample")
    way, model_hz = (_masked if codec.model.denoiser else _through_latents), codec.config.rate_hz
    result = np.empty_like(sound)
    for index, channel in enumerate(sound):
        noisy = resampled(channel, rate_hz, model_hz)
        clean = way(codec, noisy, tick and partial(_tick_part, tick, index, len(sound)))
        result[index] = resampled(clean, model_hz, rate_hz)[: len(channel)]
        if rate_hz > model_hz:
            result[index] += high_band(channel, rate_hz, noisy, clean, model_hz)
    if strength < 1:
        result = sound + np.float32(strength) * (result - sound)
    shaped: Array = result.reshape(np.shape(wave))
    return shaped


def _tick_part(tick: Tick, channel: int, channels: int, share: float) -> None:
    tick((channel + share) / channels)


def high_band(wave: Array, rate_hz: int, noisy: Array, clean: Array, model_hz: int) -> Array:
    """What wave [N] has above half of model_hz, as much quieter as `clean` [M] is than `noisy` in the octave below.

    Both are at model_hz. Where noise stands alone, little is left there, and the band above goes as well.
    """
    hop = model_hz // 100
    before, after = (_smooth_power(_above(part, model_hz, model_hz // 2), hop) for part in (noisy, clean))
    gains = np.sqrt(np.minimum(1, (after + FAINT) / (before + FAINT)))
    seconds = (np.arange(len(gains)) + 0.5) * hop / model_hz
    envelope = np.interp(np.arange(len(wave)) / rate_hz, seconds, gains).astype(np.float32)
    return _above(wave, rate_hz, model_hz) * envelope


def _above(wave: Array, rate_hz: int, lower_hz: int) -> Array:
    """wave [N] without what a sound at lower_hz can hold."""
    below: Array = resampled(resampled(wave, rate_hz, lower_hz), lower_hz, rate_hz)[: len(wave)]
    return wave - below


def _smooth_power(wave: Array, hop: int) -> Array:
    """Mean power of wave [N] every hop, over about three of them; [ceil(N / hop)]."""
    power = np.square(pad(wave, hop).reshape(-1, hop)).mean(1)
    smooth: Array = np.convolve(np.pad(power, 1, "edge"), (0.25, 0.5, 0.25), "valid")
    return smooth


def _masked(codec: Codec, ready: Array, tick: Tick | None) -> Array:
    """ready [N] at the model's rate through its denoiser."""
    config = codec.config
    stream = StreamDenoiser(codec.model, 1, block_samples=config.group_samples)
    pieces = []
    for at in range(0, len(ready), config.group_samples):
        pieces.append(stream.push(ready[None, at : at + config.group_samples]))
        if tick:
            tick(min(1.0, (at + config.group_samples) / len(ready)))
    decoded: Array = np.concatenate([*pieces, stream.flush()], 1)[0]
    return decoded


def _through_latents(codec: Codec, ready: Array, tick: Tick | None) -> Array:
    """ready [N] from denoised latents that nothing has rounded, of the highest level without residual layer."""
    model, config, level = codec.model, codec.config, codec.model.plain_levels - 1
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
    decoded: Array = np.concatenate(pieces)[config.delay_samples :][: len(ready)]
    return decoded
