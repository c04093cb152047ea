"""Sound sampled from the context prior, from nothing or continuing a prompt: babble in the rhythm of speech.

    prompt --> symbols --+
                         v
    prior's requests --> probabilities --> sampled symbols --> latents --> decoder --> level, limit --> wave

The prior requests frame after frame. The prompt's symbols answer first; what follows is sampled.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.encoder import analysed_groups
from nacre.codec.state import start_encoder
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div, db_to_gain
from nacre.dsp.blas import one_thread
from nacre.dsp.gain import TARGET_DB, active_level_db, gain_for, gain_of, is_silent
from nacre.dsp.wave import as_sound, check_shape, pad
from nacre.entropy.context_prior import ContextPrior
from nacre.io.audio import resampled

TEMPERATURE, TOP_P = 1.0, 0.9  # measured by bench/sample.py, as the level is
LEVEL_SHARE = 8  # the level is this part of the scale above the lowest: higher ones lose the voice
SHORTEST_S, LONGEST_S = 0.02, 600.0
HOTTEST = 5.0
PROMPT_S = 10.0  # of a prompt, its end; the prior remembers less than a second
MOST_BOOST_DB = 6.0  # a sampled pause stays a pause
PEAK = 0.9  # no sample of the output is larger
TICK_REQUESTS = 256


@dataclass(frozen=True)
class Sampled:
    """wave [N] float32, of which the first `prompt_samples` are the prompt, and what made it."""

    wave: Array
    rate_hz: int
    prompt_samples: int
    level: int
    seed: int


def sample(
    codec: Codec,
    seconds: float,
    *,
    prompt: tuple[Array, int] | None = None,
    seed: int | None = None,
    temperature: float = TEMPERATURE,
    top_p: float = TOP_P,
    level: int | None = None,
    tick: Callable[[float], None] | None = None,
) -> Sampled:
    """`seconds` of sound, 0.02 to 600, sampled from the codec's context prior, at the model's rate.

    `prompt`, (wave [N] or [C, N], rate in Hz), is sound to continue. Its last 10 s, channels averaged, in whole frames,
    come first in the result, as decoded; `seconds` of sampled sound follow.
    The result has the prompt's level or, without one, that of speech; peaks are limited.

    `temperature` 0 always takes the likeliest symbol, 1 samples the prior, values up to 5 flatten it. `top_p`
    keeps only the likeliest symbols of that total probability. `level` is the quality level, by default a
    low one. The same seed gives the same sound; without one a new one is chosen, which the result names.
    Raises AudioError, UsageError.
    """
    prior, config = _prior_of(codec), codec.config
    _check(seconds, temperature, top_p, seed)
    chosen = _level_of(codec, level)
    used_seed = secrets.randbits(32) if seed is None else seed
    before, gain = np.zeros((0, codec.model.quantiser.columns), np.int32), 1.0
    if prompt:
        before, gain = _analysed(codec, *prompt, chosen)
    hop = config.hop_samples
    prompt_samples, drawn = len(before) * hop, round(seconds * config.rate_hz)
    frames = len(before) + ceil_div(drawn, hop) + ceil_div(config.delay_samples, hop)
    random = np.random.default_rng(used_seed)
    symbols = draw_symbols(prior, chosen, frames, random, temperature, top_p, before, tick)
    symbols = np.clip(symbols, *codec.model.static_prior.ranges(chosen))  # as the encoder does
    wave = codec.from_latents(codec.model.quantiser.latents(symbols, chosen), chosen)[: prompt_samples + drawn]
    wave = wave / np.float32(gain)
    if not prompt:
        change_db = min(TARGET_DB - active_level_db(wave, hop), MOST_BOOST_DB)
        wave = wave * np.float32(db_to_gain(change_db))
    return Sampled(limited(wave, hop), config.rate_hz, prompt_samples, chosen, used_seed)


def _prior_of(codec: Codec) -> ContextPrior:
    if codec.model.context_prior is None:
        lacks = f"model {codec.bundle.name} has no context prior to sample from"
        raise UsageError(f"{lacks}; add one with `nacre prior`, or use another model")
    return codec.model.context_prior


def _check(seconds: float, temperature: float, top_p: float, seed: int | None) -> None:
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise UsageError(f"{seconds:g} s cannot be sampled; give {SHORTEST_S:g} to {LONGEST_S:g} seconds")
    if not 0 <= temperature <= HOTTEST:
        raise UsageError(f"temperature {temperature:g} is out of range; give 0 to {HOTTEST:g}")
    if not 0 < top_p <= 1:
        raise UsageError(f"top-p {top_p:g} is no share of the probability; give more than 0, at most 1")
    if seed is not None and seed < 0:
        raise UsageError(f"seed {seed} is negative; give 0 or more")


def _level_of(codec: Codec, level: int | None) -> int:
    levels = codec.config.levels
    chosen = levels // LEVEL_SHARE if level is None else level
    if not (0 <= chosen < levels and chosen == int(chosen)):
        raise UsageError(f"level {level} does not exist in model {codec.bundle.name}; give 0 to {levels - 1}")
    return int(chosen)


@one_thread
def draw_symbols(
    prior: ContextPrior,
    level: int,
    frames: int,
    random: np.random.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    before: Array | None = None,
    tick: Callable[[float], None] | None = None,
) -> Array:
    """Symbols [frames, D] int32 sampled from the prior; the first are `before` [T, D], exactly, where given."""
    start = np.zeros((0, prior.sizes.dims), np.int32) if before is None else before[:frames]
    forced, requests = _answers(prior, start, level), prior.decoding([level], [frames])
    answers, answered = None, 0
    while True:
        try:
            request = requests.send(answers)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            (symbols,) = end.value
            break
        known = next(forced, None)
        answers = draw(request.shares, random, temperature, top_p) if known is None else known[None]
        answered += 1
        if tick and answered % TICK_REQUESTS == 0:
            tick(min(1.0, answered / (frames * prior.sizes.blocks)))
    symbols[: len(start)] = start  # dims under the static prior are requested last, and no others depend on them
    return np.asarray(symbols)


def _answers(prior: ContextPrior, symbols: Array, level: int) -> Iterator[Array]:
    """Answers [n] to the requests of `decoding`, for symbols [T, D]; not to the last ones, under the static prior."""
    left, escaped = len(symbols) * prior.sizes.blocks, False
    for answers, shares in prior.encoding(symbols, level):
        if not left and not escaped:
            return
        left -= not escaped
        escaped = not escaped and bool((answers == shares.shape[-1] - 1).any())
        yield answers


def draw(shares: Array, random: np.random.Generator, temperature: float, top_p: float) -> Array:
    """Answers [S, n] int32 to shares [S, n, A]; the last share, the escape, only where the others are 0."""
    known = shares[..., :-1]
    largest = known.max(-1, keepdims=True)
    if temperature == 0:
        answers = known.argmax(-1)
    else:
        weights = (known / np.where(largest > 0, largest, 1)) ** (1 / temperature)
        if top_p < 1:
            order = np.argsort(-weights, axis=-1, kind="stable")
            ranked = np.take_along_axis(weights, order, -1)
            sums = ranked.cumsum(-1)
            np.put_along_axis(weights, order, np.where(sums - ranked < top_p * sums[..., -1:], ranked, 0), -1)
        sums = weights.cumsum(-1)
        answers = (sums > random.random((*shares.shape[:-1], 1)) * sums[..., -1:]).argmax(-1)
    return np.asarray(np.where(largest[..., 0] > 0, answers, shares.shape[-1] - 1), np.int32)


def limited(wave: Array, hop_samples: int) -> Array:
    """wave [N] float32 turned down around peaks above PEAK, on straight lines from hop to hop."""
    frames = pad(np.abs(wave), hop_samples).reshape(-1, hop_samples)
    gains = np.pad(PEAK / np.maximum(frames.max(1), PEAK), 1, mode="edge")
    gains = np.minimum(np.minimum(gains[:-2], gains[2:]), gains[1:-1])  # no higher than any frame beside it allows
    centres = (np.arange(len(gains)) + 0.5) * hop_samples
    return np.asarray(wave * np.interp(np.arange(len(wave)) + 0.5, centres, gains), np.float32)


def _analysed(codec: Codec, wave: Array, rate_hz: int, level: int) -> tuple[Array, float]:
    """(symbols [T, K], the one gain they were taken at) of the end of a prompt, wave [N] or [C, N]."""
    sound, config = as_sound(wave), codec.config
    rate_hz = check_shape(rate_hz, len(sound))
    mono = resampled(sound[:, -round((PROMPT_S + 1) * rate_hz) :].mean(0), rate_hz, config.rate_hz)
    hop = config.hop_samples
    frames = min(len(mono), round(PROMPT_S * config.rate_hz)) // hop
    if not frames:
        least_s = hop / config.rate_hz
        raise AudioError(f"the prompt has only {sound.shape[1]} samples; give at least {least_s:g} s of sound")
    ready = mono[-frames * hop :]  # ends where the sampled sound begins
    if is_silent(ready, hop):
        raise AudioError(f"the last {PROMPT_S:g} s of the prompt are silent; cut the silence off its end")
    code, model = gain_for(ready, hop), codec.model
    groups = analysed_groups(model, start_encoder(model), ready, level, code)
    symbols = [model.symbols(analysed.latents, level) for analysed, _ in groups]
    return np.concatenate(symbols), gain_of(code)
