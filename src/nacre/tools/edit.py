"""New sound from latents: resynthesised faster or slower, higher or lower, or interpolated between two recordings.

    resynthesise   wave -> [resampled: pitch] -> latents -> read at another pace -> decoder -> [old formants] -> wave
    between        two waves -> latents each -> read at one common pace -> weighted mean -> decoder -> wave

Latents describe the sound at 50 frames a second, pitch and voice included: read faster, they give faster speech of
the same pitch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nacre.codec.codec import Codec
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.core.units import db_to_gain
from nacre.dsp.gain import active_level_db, gain_for, gain_of
from nacre.dsp.stft import hann_root
from nacre.dsp.wave import as_sound, check_shape
from nacre.io.audio import resampled

SLOWEST, FASTEST = 0.25, 4.0
MOST_SEMITONES = 12.0
MOST_STEPS = 1000
PITCH_STEPS = 1000  # a resampling ratio is so many steps to the whole at least
ENVELOPE_S = 0.002  # what the cepstrum holds below this is the envelope, above it the pitch
MOST_GAIN = 3.0  # nepers, 26 dB: of one bin, when formants are put back


def resynthesise(
    codec: Codec,
    wave: Array,
    rate_hz: int,
    *,
    speed: float = 1.0,
    semitones: float = 0.0,
    formants: bool = True,
    level: int | None = None,
    tick: Callable[[float], None] | None = None,
) -> Array:
    """wave [N] or [C, N] resynthesised, `speed` times as fast and so many semitones higher, at the same rate.

    It has round(N / speed) samples, at least one. Pitch stays where speed changes and the other way round. `formants`
    keeps the resonances of the voice in place when its pitch moves, by their smooth envelope; without it the voice
    sounds smaller or larger. `level` is the quality level of the latents, by default the middle one. Channels are
    worked on one by one. Raises AudioError, UsageError.
    """
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    if not SLOWEST <= speed <= FASTEST:
        raise UsageError(f"speed {speed:g} is out of range; give {SLOWEST:g} to {FASTEST:g}")
    if not abs(semitones) <= MOST_SEMITONES:
        span = f"-{MOST_SEMITONES:g} to +{MOST_SEMITONES:g}"
        raise UsageError(f"a pitch shift of {semitones:g} semitones is out of range; give {span}")
    if sound.shape[1] == 0:
        raise AudioError("the wave is empty; give at least one sample")
    samples, chosen = max(1, round(sound.shape[1] / speed)), _level(codec, level)
    channels = []
    for channel in sound:
        channels.append(_again(codec, channel, rate_hz, speed, semitones, formants, chosen)[:samples])
        if tick:
            tick(len(channels) / len(sound))
    result = np.stack([np.pad(channel, (0, samples - len(channel))) for channel in channels])
    return result[0] if np.ndim(wave) == 1 else result


def _again(
    codec: Codec, wave: Array, rate_hz: int, speed: float, semitones: float, formants: bool, level: int
) -> Array:
    """wave [N] -> about N / speed samples."""
    model_hz, higher = codec.config.rate_hz, 2 ** (semitones / 12)
    before = ready = resampled(wave, rate_hz, model_hz)
    wanted = max(1, round(len(ready) / speed))
    if semitones:
        from_hz = round(PITCH_STEPS * higher)  # played at the old rate, fewer samples sound higher
        higher = from_hz / PITCH_STEPS
        ready = resampled(ready, from_hz, PITCH_STEPS)
    latents, gain = _latents(codec, ready, model_hz, level)
    frames = wanted / codec.config.hop_samples
    pace = len(ready) / wanted  # frames read for each one given
    decoded = codec.from_latents(nearest(latents, np.arange(int(np.ceil(frames))) * pace), level)[:wanted] / gain
    if semitones and formants:
        decoded = _with_formants(decoded, higher, model_hz)
    hop = codec.config.hop_samples
    if speed != 1 or semitones:  # frames that were not made to follow each other cancel in part
        decoded = decoded * np.float32(db_to_gain(active_level_db(before, hop) - active_level_db(decoded, hop)))
    return resampled(decoded, model_hz, rate_hz)


def nearest(latents: Array, places: Array) -> Array:
    """latents [T, D] at places [T'], each the frame that is nearest -> [T', D].

    Part of a latent is phase, which a mean of two frames would cancel: the mean lost 3 dB and blurred the speech.
    """
    return np.asarray(latents[np.clip(np.rint(places).astype(np.int64), 0, len(latents) - 1)])


def straight(values: Array, places: Array) -> Array:
    """values [T, X] at places [T'] between rows, on straight lines from row to row -> [T', X] float32."""
    at = np.clip(places, 0, len(values) - 1)
    first = np.minimum(at.astype(np.int64), max(0, len(values) - 2))
    share = (at - first).astype(np.float32)[:, None]
    after = values[np.minimum(first + 1, len(values) - 1)]
    return np.asarray(values[first] * (1 - share) + after * share, np.float32)


def _with_formants(wave: Array, higher: float, rate_hz: int) -> Array:
    """wave [N], whose spectrum was stretched by the factor `higher`, with its envelope stretched back.

    Envelopes are of the low cepstrum, as in the source-filter pitch change of Roebel and Rodet (2005), unrefined.
    """
    size = 2 ** round(np.log2(0.04 * rate_hz))
    hop, window, keep = size // 4, hann_root(size), max(2, round(ENVELOPE_S * rate_hz))
    padded = np.pad(wave, (size, size + -len(wave) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    spectra = np.fft.rfft(frames)
    cepstra = np.fft.irfft(np.log(np.abs(spectra) + 1e-5))
    cepstra[:, keep:-keep] = 0
    envelope = np.fft.rfft(cepstra).real  # [T, bins], nepers
    bins = envelope.shape[1]
    places = np.arange(bins) * higher
    change = np.where(places < bins - 1, straight(envelope.T, places).T - envelope, 0)  # above it nothing is known
    pieces = np.fft.irfft(spectra * np.exp(np.clip(change, -MOST_GAIN, MOST_GAIN))) * window / 2
    total = np.zeros(len(padded))
    for index, piece in enumerate(pieces):
        total[index * hop : index * hop + size] += piece
    result = total[size : size + len(wave)]
    power, before = float(np.sum(result**2)), float(np.sum(np.square(wave, dtype=np.float64)))
    return np.asarray(result * (np.sqrt(before / power) if power > 0 else 1.0), np.float32)


@dataclass(frozen=True)
class Voice:
    """One recording to set out from: latents [T, D] and its level in dB."""

    latents: Array
    level_db: float


def between(
    codec: Codec, first: tuple[Array, int], second: tuple[Array, int], steps: int = 5, *, level: int | None = None
) -> Iterator[Array]:
    """`steps` waves [N] at the model's rate, from `first` to `second`, each (wave [N] or [C, N], rate in Hz).

    Both are read at an even pace from their starts to their ends, so that they end together; a step's length and
    level, in dB, lie between theirs as its weight does. Channels are averaged. Raises AudioError, UsageError.
    """
    if not (2 <= steps <= MOST_STEPS and steps == int(steps)):
        raise UsageError(f"{steps} steps are not possible; give a whole number from 2 to {MOST_STEPS}")
    chosen = _level(codec, level)
    one, two = _voice(codec, *first, chosen), _voice(codec, *second, chosen)
    return (_mixed(codec, one, two, step / (int(steps) - 1), chosen) for step in range(int(steps)))


def _voice(codec: Codec, wave: Array, rate_hz: int, level: int) -> Voice:
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    if sound.shape[1] == 0:
        raise AudioError("the wave is empty; give at least one sample")
    mono = resampled(sound.mean(0), rate_hz, codec.config.rate_hz)
    latents, _ = _latents(codec, mono, codec.config.rate_hz, level)
    return Voice(latents, active_level_db(mono, codec.config.hop_samples))


def _mixed(codec: Codec, one: Voice, two: Voice, weight: float, level: int) -> Array:
    sizes = len(one.latents), len(two.latents)
    frames = round((1 - weight) * sizes[0] + weight * sizes[1])
    along = np.arange(frames) / max(1, frames - 1)
    parts = [nearest(voice.latents, along * (size - 1)) for voice, size in zip((one, two), sizes, strict=True)]
    wave = codec.from_latents((1 - weight) * parts[0] + weight * parts[1], level)
    wanted_db = (1 - weight) * one.level_db + weight * two.level_db
    found_db = active_level_db(wave, codec.config.hop_samples)
    return np.asarray(wave * db_to_gain(wanted_db - found_db), np.float32)


def joined(waves: list[Array], pause_samples: int) -> Array:
    """waves [N] one after another with silence between them -> [N]."""
    pause = np.zeros(pause_samples, np.float32)
    return np.concatenate([part for wave in waves for part in (pause, wave)][1:])


def _latents(codec: Codec, wave: Array, rate_hz: int, level: int) -> tuple[Array, float]:
    """(latents [T, D], the one gain they were taken at) of wave [N]."""
    code = gain_for(wave, codec.config.hop_samples)
    return codec.latents(wave, rate_hz, level, gain_code=code).sounding, gain_of(code)


def _level(codec: Codec, level: int | None) -> int:
    return codec.config.levels // 2 if level is None else level
