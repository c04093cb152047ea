"""Latents and tokens as arrays, and sound made of them: what other programs take from a model and give to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nacre.codec.decoder import latents_to_sound
from nacre.codec.encoder import analysed_groups
from nacre.codec.state import start_encoder, start_sound
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.dsp.wave import as_sound, check_shape, pad, pieces_of
from nacre.entropy.static_prior import TOTAL
from nacre.io.audio import resampled
from nacre.model.model import Model


@dataclass(frozen=True)
class TokenFormat:
    """Tokens a second, size of each column's alphabet [K], bits a second of fixed-length codes and of the tables."""

    frame_rate_hz: float
    alphabet: Array
    fixed_bits_per_s: float
    coded_bits_per_s: float


def latents_of(model: Model, wave: Array, rate_hz: float, level: int | None = None, code: int | None = None) -> Array:
    """Latents [T, D] float32 of wave [N] or [C, N] (channels averaged), before rounding; see `Codec.latents`."""
    chosen = model.level(level)
    groups = _analysed(model, wave, rate_hz, chosen, code)
    return np.concatenate([model.quantiser.unrounded(latents, chosen) for latents in groups])


def tokens_of(model: Model, wave: Array, rate_hz: float, level: int | None = None) -> Array:
    """Tokens [T, K] int32 from 0 of wave [N] or [C, N] (channels averaged); see `token_format`."""
    chosen = model.level(level)
    lowest, _ = model.static_prior.ranges(chosen)
    groups = [model.symbols(latents, chosen) for latents in _analysed(model, wave, rate_hz, chosen)]
    return (np.concatenate(groups) - lowest)[:, : model.quantiser.used(chosen)]


def token_format(model: Model, level: int | None = None) -> TokenFormat:
    """What tokens of a quality level look like, by default of the highest that has no refinement."""
    chosen = model.level(level)
    lowest, highest = model.static_prior.ranges(chosen)
    tables = model.static_prior.tables(chosen) / TOTAL  # [K, A]
    entropy_bits = float(-(tables * np.log2(np.where(tables > 0, tables, 1))).sum())
    alphabet = (highest - lowest + 1)[: model.quantiser.used(chosen)]
    rate_hz = float(model.config.frame_rate_hz)
    return TokenFormat(rate_hz, alphabet, rate_hz * float(np.log2(alphabet).sum()), rate_hz * entropy_bits)


def tokens_to_sound(model: Model, tokens: Array, level: int | None = None) -> Array:
    """Sound [N] float32 at the model's rate, N = T * hop, of tokens [T, K]. Raises UsageError."""
    chosen, alphabet = model.level(level), token_format(model, level).alphabet
    given = np.asarray(tokens)
    if given.ndim != 2 or given.shape[1] != len(alphabet) or given.dtype.kind not in "iu" or not len(given):
        wanted = f"integers [T, {len(alphabet)}] at level {chosen}, T above 0"
        raise UsageError("tokens", found=f"{given.dtype} {given.shape}", wanted=wanted)
    if (given < 0).any() or (given >= alphabet).any():
        frame, column = np.argwhere((given < 0) | (given >= alphabet))[0].tolist()
        wanted = f"0 to {alphabet[column] - 1}"
        raise UsageError(f"token of frame {frame}, column {column}", found=given[frame, column], wanted=wanted)
    symbols = np.zeros((len(given), model.quantiser.columns), np.int32)
    symbols[:, : len(alphabet)] = given + model.static_prior.ranges(chosen)[0][: len(alphabet)]
    return sound_of(model, model.quantiser.latents(symbols, chosen), chosen)


def sound_of(model: Model, latents: Array, level: int | None = None) -> Array:
    """Sound [N] float32 at the model's rate, N = T * hop, of latents [T, D]; raises UsageError."""
    c, given = model.config, np.asarray(latents)
    if given.ndim != 2 or given.shape[1] != c.latent_dims or not len(given) or given.dtype.kind not in "fiu":
        wanted = f"numbers [T, {c.latent_dims}], T above 0"
        raise UsageError("latents", found=f"{given.dtype} {given.shape}", wanted=wanted)
    with np.errstate(over="ignore"):
        given = given.astype(np.float32)
    if not np.isfinite(given).all():
        raise UsageError("latents", found="NaN or infinite numbers", wanted="finite numbers")
    chosen, state, waves = model.level(level), start_sound(model), []
    tail = np.zeros((ceil_div(c.delay_samples, c.hop_samples), c.latent_dims), np.float32)
    for group in pieces_of(np.concatenate([given, tail]), c.group_frames):
        made, state = latents_to_sound(model, state, group, chosen)
        waves.append(made.whole)
    return np.concatenate(waves)[c.delay_samples :][: len(given) * c.hop_samples]


def _analysed(model: Model, wave: Array, rate_hz: float, level: int, code: int | None = None) -> Iterator[Array]:
    """Latents [T, X] of group after group, without the frames that flush the delay."""
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    if sound.shape[1] == 0:
        raise AudioError("wave", found="no samples", wanted="at least one")
    ready = pad(resampled(sound.mean(0), rate_hz, model.config.rate_hz), model.config.hop_samples)
    for analysed, _ in analysed_groups(model, start_encoder(model), ready, level, code):
        yield analysed.latents
