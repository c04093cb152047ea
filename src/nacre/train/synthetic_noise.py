"""Noise made by rule, all seeded and of unit power: few recordings with a clear licence stand for all that there is.

Hum and coloured noise as of mains and amplifiers; engines, which turn at a drifting speed; impacts, which ring in a few
modes (footsteps, dishes, keys, rails); textures, whose bands swell and fall by themselves and together, by what
McDermott and Simoncelli, "Sound texture perception via statistics of the auditory periphery" (2011), found that tells
rain from fire and fire from a crowd.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BANDS, LOWEST_HZ = 16, 60.0  # of a texture, equally far apart in octaves
LONGEST_S = 0.4  # that an impact rings
PARTIALS = 40  # of an engine, at most


def unit(wave: Array) -> Array:
    """wave [N] of unit power, float32; silence stays."""
    return (wave / (wave.std() + 1e-9)).astype(np.float32)


def coloured(samples: int, rng: np.random.Generator) -> Array:
    """Noise [N] whose level falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(1, np.arange(len(spectrum))) ** -rng.uniform(0, 1)
    return unit(np.fft.irfft(spectrum, samples))


def hum(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """Hum [N]: mains at 50 or 60 Hz and its overtones."""
    order = np.arange(1, 9)[:, None]
    place = np.arange(samples) * (2 * np.pi * rng.choice((50, 60)) * rng.uniform(0.995, 1.005) / rate_hz)
    strength = rng.uniform(0, 1, (8, 1)) / order
    return unit((strength * np.sin(order * place + rng.uniform(0, 2 * np.pi, (8, 1)))).sum(0))


def clicks(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """Clicks [N], 1 to 20 a second, a millisecond each."""
    wave = np.zeros(samples + rate_hz // 100, np.float32)
    decay = np.exp(-np.arange(rate_hz // 100) * (1000 / rate_hz))
    for at in rng.integers(samples, size=1 + rng.poisson(rng.uniform(1, 20) * samples / rate_hz)):
        wave[at : at + len(decay)] += rng.standard_normal(len(decay)) * decay * rng.uniform(0.2, 1)
    return unit(wave[:samples])


def engine(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """Something that turns [N]: overtones of a drifting pitch, rough from turn to turn, in noise of its own."""
    pitch_hz = 15 * 27 ** rng.random() * _course(samples, rate_hz, rng, rng.uniform(0, 0.1), rng.uniform(0.2, 3))
    place = np.cumsum(pitch_hz) * (2 * np.pi / rate_hz)
    wave, fall = np.zeros(samples), rng.uniform(0.2, 1.2)
    for order in range(1, min(PARTIALS, int(rate_hz / 2 / pitch_hz.max())) + 1):
        strength = rng.lognormal(0, 0.8) * order**-fall
        wave += strength * np.sin(order * place + rng.uniform(0, 2 * np.pi))
    rough = 1 + rng.uniform(0, 0.8) * np.sin(place / rng.integers(1, 5) + rng.uniform(0, 2 * np.pi))
    return unit(unit(wave * rough) + rng.uniform(0.1, 1.5) * coloured(samples, rng) * rough)


def impacts(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """Things that are hit [N], at random or in a rhythm: each a burst and 2 to 8 modes that ring, some alike."""
    ring = np.arange(int(LONGEST_S * rate_hz)) / rate_hz
    shapes = [_struck(ring, rng) for _ in range(rng.integers(1, 5))]
    per_second, wave, length_s = 0.7 * 25 ** rng.random(), np.zeros(samples + len(ring)), samples / rate_hz
    if rng.random() < 0.4:
        beat = np.arange(rng.random() * min(1 / per_second, length_s), length_s, 1 / per_second)
        times = beat + rng.normal(0, rng.uniform(0, 0.1) / per_second, len(beat))
    else:
        times = rng.uniform(0, length_s, 1 + rng.poisson(per_second * length_s))
    for start in np.clip(times * rate_hz, 0, samples - 1).astype(int):
        wave[start : start + len(ring)] += shapes[rng.integers(len(shapes))] * rng.lognormal(0, 0.7)
    return unit(wave[:samples])


def _struck(ring: Array, rng: np.random.Generator) -> Array:
    """One hit over the times `ring` [M] in seconds."""
    wave = rng.standard_normal(len(ring)) * np.exp(-ring / rng.uniform(5e-4, 0.02)) * rng.uniform(0, 1)
    for _ in range(rng.integers(2, 9)):
        hz, decay_s = 120 * 55 ** rng.random(), 0.003 * 40 ** rng.random()
        wave += rng.lognormal(-1, 0.7) * np.exp(-ring / decay_s) * np.sin(2 * np.pi * hz * ring + rng.uniform(0, 6))
    struck: Array = wave * np.minimum(1, (ring[-1] - ring) / 0.05)
    return struck


def texture(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """A texture [N]: noise in bands whose levels wander, at one pace together and at another each by itself."""
    spectrum, wave = np.fft.rfft(rng.standard_normal(samples)), np.zeros(samples)
    octaves = np.log(np.linspace(1, rate_hz / 2, len(spectrum)) / LOWEST_HZ) / np.log(rate_hz / 2 / LOWEST_HZ)
    levels = np.cumsum(rng.normal(0, 0.5, BANDS)) + rng.normal(0, 0.4, BANDS)
    depth, alone, paces = rng.uniform(0, 1.6), rng.random(), 0.5 * 100 ** rng.random(2)
    together = _course(samples, rate_hz, rng, depth * (1 - alone), paces[0])
    for index, level in enumerate(levels):
        share = np.clip(1 - np.abs(octaves * (BANDS - 1) - index), 0, 1)
        band = np.fft.irfft(spectrum * share, samples)
        own = _course(samples, rate_hz, rng, depth * alone, paces[1])
        wave += band * own * np.exp(level) / (band.std() + 1e-9)
    return unit(wave * together)


def _course(samples: int, rate_hz: int, rng: np.random.Generator, depth: float, pace_hz: float) -> Array:
    """What wanders [N] about 1, by `depth` as a logarithm, as often as `pace_hz` allows."""
    count, weights = int(samples / rate_hz * 4 * pace_hz) + 4, np.exp(-0.5 * np.arange(12))
    steps = rng.standard_normal(count + len(weights) - 1)
    slow = np.convolve(steps, weights / np.sqrt(np.square(weights).sum()), "valid")
    course: Array = np.exp(depth * np.interp(np.linspace(0, count - 1, samples), np.arange(count), slow))
    return course


KINDS = (engine, impacts, texture)


def synthetic(samples: int, rate_hz: int, rng: np.random.Generator) -> Array:
    """One of the kinds that stand for recordings [N], or two of them together."""
    chosen = rng.choice(len(KINDS), 2 if rng.random() < 0.25 else 1)
    return unit(np.sum([rng.uniform(0.4, 1) * KINDS[kind](samples, rate_hz, rng) for kind in chosen], 0))
