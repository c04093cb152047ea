"""What recordings lack above 8 kHz, guessed from what they have below: blind bandwidth extension.

    wave -> powers below 7.6 kHz, 20 ms frames -> linear map -> powers from 7.6 to 20 kHz -> noise over the wave

The map is linear in the shape of the spectrum in a frame and its neighbours, relative to its level from 4.8 to 7.2 kHz,
so that loudness does not matter; it was fitted to speech by `bench/fit_extend.py`. In time the noise follows the band
just below it. It is a guess: the band below 8 kHz does not tell how bright a voice and its microphone were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from nacre.codec.band import BandEncoder, Overlay
from nacre.core.errors import AudioError
from nacre.core.types import Array, Floats
from nacre.core.units import resampled_count
from nacre.dsp import band as air
from nacre.dsp.wave import as_sound, check_shape
from nacre.io.arrays import read_arrays

LOW_EDGES = np.array([0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 76])  # bins of 100 Hz
EDGES = np.concatenate([LOW_EDGES, air.EDGES[1:]])
LOW, BANDS = len(LOW_EDGES) - 1, len(air.EDGES) - 1
REFERENCE = slice(6, 9)  # 4.8 to 7.2 kHz, to whose mean level all is relative
SHAPE_DB, CHANGE_DB = (-30.0, 50.0), 30.0
TERMS = 4 * LOW + 3
FLOOR_DB = -80.0  # frames softer than this stay as they are
ROOM_DB = 15.0  # so far below the guess a band counts as empty
LEAST_RATE_HZ = 32_000  # of what comes out
MAP = Path(__file__).with_name("extend.npz")


def extend(wave: Array, rate_hz: int) -> tuple[Array, int]:
    """wave [N] or [C, N] -> (the same up to 20 kHz, its rate): that of the wave, or 48 kHz where it has no room.

    Bands that have sound of their own keep it. Raises AudioError.
    """
    sound = as_sound(wave)
    rate_hz = check_shape(rate_hz, len(sound))
    if sound.shape[1] == 0:
        raise AudioError("the wave is empty; give at least one sample")
    made = np.concatenate(list(extended([sound], rate_hz, len(sound))), 1)
    return made if np.ndim(wave) == 2 else made[0], rate_out(rate_hz)


def rate_out(rate_hz: int) -> int:
    """The rate of what comes out."""
    return rate_hz if rate_hz >= LEAST_RATE_HZ else air.RATE_HZ


def extended(blocks: Iterable[Array], rate_hz: int, channels: int) -> Iterator[Array]:
    """Blocks [C, N] -> blocks [C, M] at `rate_out`, as they are ready."""
    to_hz = rate_out(rate_hz)
    analyser, overlay = BandEncoder(rate_hz, channels, EDGES), Overlay(rate_hz, to_hz, channels)
    known = np.zeros((channels, 0, air.STEPS, len(EDGES) - 1), np.float32)
    first, taken, given = True, 0, 0
    for block in blocks:
        for at in range(0, block.shape[1], rate_hz):
            part = block[:, at : at + rate_hz]
            analyser.push(part)
            known = np.concatenate([known, analyser.take(analyser.frames)], 1)
            if known.shape[1] > 2:
                known, first = _put(overlay, known, first, last=False), False
            ready = overlay.push(part)
            taken, given = taken + part.shape[1], given + ready.shape[1]
            yield ready
    analyser.flush()
    if taken:
        _put(overlay, np.concatenate([known, analyser.take(analyser.frames)], 1), first, last=True)
    yield overlay.flush()[:, : resampled_count(taken, rate_hz, to_hz) - given]


def _put(overlay: Overlay, known: Floats, first: bool, last: bool) -> Floats:
    """Noise for the frames of known [C, T, STEPS, ...] whose neighbours are there; gives what later ones need."""
    around = np.pad(known, ((0, 0), (int(first), int(last)), (0, 0), (0, 0)), "edge")
    for channel, powers in enumerate(around):
        overlay.put(channel, guessed(powers))
    return known[:, -2:]


def guessed(powers: Floats) -> Floats:
    """powers [T + 2, STEPS, LOW + BANDS] of frames and their neighbours -> powers to add [T, STEPS, BANDS]."""
    level_db, terms = terms_of(powers)
    wanted = 10 ** ((terms @ weights() + level_db[:, None]) / 10) * (level_db > FLOOR_DB)[:, None]  # [T, BANDS]
    inner = powers[1:-1]
    wanted = np.minimum(wanted, inner[..., :LOW].mean(1).sum(-1, keepdims=True))  # the map knows speech, not tones
    there = inner[..., LOW:].mean(1)
    wanted = np.where(there < wanted * 10 ** (-ROOM_DB / 10), wanted, 0)
    below = inner[..., REFERENCE].sum(-1)
    quarters = below / (below.mean(1, keepdims=True) + 1e-20)  # [T, STEPS]
    spectra: Floats = (quarters[..., None] * wanted[:, None]).astype(np.float32)
    return spectra


def terms_of(powers: Floats) -> tuple[Floats, Floats]:
    """powers [T + 2, STEPS, ...] -> (level [T] from 4.8 to 7.2 kHz in dB, terms [T, TERMS] of the map)."""
    low_db = 10 * np.log10(powers[..., :LOW].mean(1) + 1e-10)  # [T + 2, LOW]
    level_db = low_db[:, REFERENCE].mean(1)
    shape = np.clip(low_db - level_db[:, None], *SHAPE_DB) / 10
    change = np.clip(np.diff(level_db), -CHANGE_DB, CHANGE_DB) / 10  # [T + 1]
    inner = shape[1:-1]
    ones = np.ones((len(inner), 1))
    parts = [shape[:-2], inner, shape[2:], np.square(inner), change[:-1, None], change[1:, None], ones]
    return level_db[1:-1], np.concatenate(parts, 1)


@cache
def weights() -> Floats:
    """Of the terms, [TERMS, BANDS]. Raises BundleError."""
    weights: Floats = read_arrays(MAP, {"weights": ("<f4", 2)}, 1 << 16)["weights"]
    return weights
