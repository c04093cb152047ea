"""Concealment of lost stretches: each is extrapolated from both sides and, if longer, passed through the codec.

    wave, lost -> continued from before and behind -+-> short gaps: what fits the sound on both sides best
                                                    +-> longer: [encoder -> latents -> decoder] -> faded in

The extrapolation is periodic where speech was, which alone would buzz. The longer a gap, the less its sides say about
it: the latents of a middle quality level keep what the model takes for speech.
Only lost samples are written; all others stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from nacre.codec.codec import Codec
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.dsp.autoregression import extended, interpolated
from nacre.dsp.extrapolate import Spans, filled_from_both
from nacre.dsp.gain import gain_for, gain_of
from nacre.dsp.wave import as_sound, check_shape
from nacre.io.audio import resampled

Stretches = list[tuple[float, float]]

FITTED_S = 0.08  # gaps up to here are fitted to both sides
UNHEARD_S = 0.03  # gaps up to here do without the latents, which lose more than they add
EDGE_S = 0.003  # the latents' sound comes in and goes out over this much
HOLD_S, FADE_S = 0.1, 0.1  # further than the first from any sound that was kept, the guess fades
PREDICTED_S = HOLD_S + 10 * FADE_S  # later samples are inaudible
CONTEXT_S = 0.5  # sound around the gaps that the networks are given
SECTION_S = 20.0  # gaps worked on together, at most; bounds the memory


def stretches(text: str) -> Stretches:
    """'1.20-1.28,3.4-3.5' -> [(1.2, 1.28), (3.4, 3.5)], seconds. Raises UsageError."""
    stretches = []
    for part in text.split(","):
        start, _, stop = part.strip().partition("-")
        try:
            stretches.append((float(start), float(stop)))
        except ValueError as error:
            wrong = f"'{part.strip()}' is no stretch of time"
            raise UsageError(f"{wrong}; write --lost as START-STOP in seconds, as in 1.20-1.28,3.4-3.5") from error
    return stretches


def spans(lost: Iterable[tuple[float, float]], samples: int, rate_hz: int) -> Spans:
    """Stretches in seconds as samples, in order; those that overlap or touch become one. Raises UsageError.

    A stretch may run over the end of the sound, where it is cut, but must begin in it. None is shorter than a sample.
    """
    duration_s, spans = samples / rate_hz, []
    for start_s, stop_s in lost:
        name = f"lost stretch {start_s:g}-{stop_s:g}"
        if not 0 <= start_s < stop_s < math.inf:
            raise UsageError(f"{name} has no length; give START-STOP in seconds, with 0 <= START < STOP")
        start = round(start_s * rate_hz)
        if start >= samples:
            raise UsageError(f"{name} begins after the end of the sound, at {duration_s:.3f} s; give an earlier one")
        spans.append((start, min(samples, max(start + 1, round(min(stop_s, duration_s) * rate_hz)))))
    merged: Spans = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], stop)
        else:
            merged.append((start, stop))
    if merged and merged[0] == (0, samples):
        raise UsageError("the lost stretches cover the whole sound; leave some of it to conceal them from")
    return merged


def conceal(
    codec: Codec,
    wave: Array,
    rate_hz: int,
    lost: Iterable[tuple[float, float]],
    *,
    level: int | None = None,
    causal: bool = False,
    tick: Callable[[float], None] | None = None,
) -> Array:
    """wave [N] or [C, N] with each lost (start, stop), in seconds, replaced; every other sample is as it was.

    What stood in a lost stretch is not looked at. `level` is the quality level of the latents, by default the middle
    one. `causal` foretells each stretch from what comes before it, without the latents. What is more than 0.1 s from
    kept sound fades, by 87 dB a second. What is put into gaps above 30 ms has no band above half the model's rate but
    at its edges; causal gaps keep theirs. `tick` gets the share done. Raises AudioError, UsageError.
    """
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    gaps = spans(lost, sound.shape[1], rate_hz)
    result = np.array(sound)
    for start, stop in gaps:
        result[:, start:stop] = 0
    chosen = codec.config.levels // 2 if level is None else level
    work = [(section, channel) for section in _sections(gaps, rate_hz) for channel in result]
    for done, (section, channel) in enumerate(work, 1):
        _conceal(codec, channel, rate_hz, section, gaps, chosen, causal)
        if tick:
            tick(done / len(work))
    shaped: Array = result.reshape(np.shape(wave))
    return shaped


def _sections(gaps: Spans, rate_hz: int) -> Iterator[Spans]:
    """Gaps that are worked on together: near each other, and not too many."""
    section: Spans = []
    for gap in gaps:
        apart = section and gap[0] - section[-1][1] > 2 * CONTEXT_S * rate_hz
        if section and (apart or gap[1] - section[0][0] > SECTION_S * rate_hz):
            yield section
            section = []
        section.append(gap)
    if section:
        yield section


def _conceal(codec: Codec, wave: Array, rate_hz: int, section: Spans, gaps: Spans, level: int, causal: bool) -> None:
    """Fill the gaps of a section in wave [N]; gaps behind it are silent still, and only guessed at."""
    around = round(CONTEXT_S * rate_hz)
    low, high = max(0, section[0][0] - around), min(len(wave), section[-1][1] + around)
    here = [(start - low, min(stop, high) - low) for start, stop in gaps if section[0][0] <= start < high]
    guess = (_foreseen if causal else _guessed)(wave[low:high], here, rate_hz)
    longest_s = max(stop - start for start, stop in section) / rate_hz
    filled = guess if causal or longest_s <= UNHEARD_S else _through_latents(codec, guess, rate_hz, level)
    for start, stop in here[: len(section)]:
        part, samples = slice(start, stop), stop - start
        if samples <= UNHEARD_S * rate_hz:
            wave[low + start : low + stop] = guess[part]
            continue
        at = np.arange(samples)
        inside = np.minimum(at + 1, samples - at) / (EDGE_S * rate_hz)
        share = np.minimum(1, inside).astype(np.float32)
        mixed = guess[part] + share * (filled[part] - guess[part])
        wave[low + start : low + stop] = mixed * _fade(start > 0, stop < high - low and not causal, samples, rate_hz)


def _foreseen(wave: Array, lost: Spans, rate_hz: int) -> Array:
    """wave [N] with each gap foretold from before alone, as far as anything is left of that after it has faded."""
    result, most = wave.copy(), round(PREDICTED_S * rate_hz)
    for start, stop in lost:
        stop = min(stop, start + most)
        result[start:stop] = extended(result[:start], stop - start, rate_hz)
    return result


def _guessed(wave: Array, lost: Spans, rate_hz: int) -> Array:
    """wave [N] with each gap filled from both sides."""
    short = [(start, stop) for start, stop in lost if start and stop - start <= FITTED_S * rate_hz and stop < len(wave)]
    return interpolated(filled_from_both(wave, lost, rate_hz), short, rate_hz)


def _fade(before: bool, behind: bool, samples: int, rate_hz: int) -> Array:
    """Factors [samples] by the distance to kept sound, which is before a gap, behind it, or both."""
    at = np.arange(samples)
    away = np.minimum(at if before else samples, samples - at if behind else samples) / rate_hz
    return np.exp(-np.maximum(0, away - HOLD_S) / FADE_S).astype(np.float32)


def _through_latents(codec: Codec, wave: Array, rate_hz: int, level: int) -> Array:
    """wave [N] as the decoder gives it back from latents that nothing has rounded, with one gain for all of it."""
    model_hz = codec.config.rate_hz
    code = gain_for(wave, round(codec.config.hop_samples * rate_hz / model_hz))
    latents = codec.latents(wave, rate_hz, level, gain_code=code).sounding
    decoded = codec.from_latents(latents, level) / np.float32(gain_of(code))
    return resampled(decoded, model_hz, rate_hz)[: len(wave)]
