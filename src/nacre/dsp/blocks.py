"""A lapped transform whose blocks may change their size: long ones for tones, short ones for attacks.

The MDCT (Princen and Bradley, 1986) of neighbours of two sizes laps over their border by the smaller one (Edler, 1989):

    |--------- 2048 ---------|-256-|-256-| ...
                          \\/    \\/

A frame of FRAME samples is one block or 2, 4 or 8 of equal size, 2 ** n of them at split n. Its coefficients are laid
out by frequency, those of its blocks side by side: coefficient i of a frame lies near i / FRAME of the band, whatever
its split is. Every transform is orthonormal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nacre.core.types import Array, Floats

FRAME = 2048
SPLITS = 4  # into 1, 2, 4 or 8 blocks
HALF = FRAME // 2  # a border reaches no further


def cosines(rows: Floats) -> Floats:
    """DCT-IV of rows [R, n], n even; its own inverse."""
    size = rows.shape[-1]
    before, after = _turns(size)
    spectrum = np.fft.fft((rows[..., ::2] + 1j * rows[..., ::-2]) * before) * after
    out = np.empty(rows.shape, np.float32)
    out[..., ::2], out[..., ::-2] = spectrum.real, -spectrum.imag
    return out


@lru_cache(maxsize=8)
def _turns(size: int) -> tuple[Array, Array]:
    """Factors [size / 2] complex64 before and after the transform of Fourier."""
    angles = np.pi / size * np.arange(size // 2)
    before, after = np.exp(-1j * (angles + np.pi / 4 / size)), np.exp(-1j * angles) * np.sqrt(2 / size)
    return before.astype(np.complex64), after.astype(np.complex64)


@lru_cache(maxsize=8)
def _slopes(size: int) -> tuple[Floats, Floats]:
    """Cosines and sines [size / 2] outwards from a border that is lapped over by `size` samples."""
    half = np.arange(size // 2) + 0.5
    cos, sin = (np.sin(np.pi / 2 * (size / 2 + sign * half) / size).astype(np.float32) for sign in (1, -1))
    return cos, sin


def turn_border(wave: Floats, border: int, lap: int, sign: int) -> None:
    """Turn samples of wave [..., N] at equal distances from a border into each other, in place; sign -1 undoes it."""
    cos, sin = _slopes(lap)
    half = lap // 2
    before, after = wave[..., border - half : border][..., ::-1].copy(), wave[..., border : border + half].copy()
    wave[..., border - half : border] = (cos * before - sign * sin * after)[..., ::-1]
    wave[..., border : border + half] = cos * after + sign * sin * before


def block_size(split: int) -> int:
    """Samples of each block of a frame."""
    return FRAME >> split


def borders(splits: Sequence[int], before: int | None, after: int | None) -> list[tuple[int, int]]:
    """(place, lap) of every border of frames in a row; `before` and `after` are the splits of their neighbours."""
    places = []
    lefts = [before, *splits]
    for index, split in enumerate(splits):
        start, size = index * FRAME, block_size(split)
        if (left := lefts[index]) is not None:
            places.append((start, min(block_size(left), size)))
        places += [(start + at, size) for at in range(size, FRAME, size)]
    if after is not None and splits:
        places.append((len(splits) * FRAME, min(block_size(splits[-1]), block_size(after))))
    return places


def to_frames(turned: Floats, splits: Sequence[int]) -> Floats:
    """Samples [C, T * FRAME], turned at their borders, -> coefficients [C, T, FRAME]."""
    coefficients = np.empty((len(turned), len(splits), FRAME), np.float32)
    frames = turned.reshape(len(turned), -1, FRAME)
    for split in set(splits):
        at = [index for index, each in enumerate(splits) if each == split]
        blocks = frames[:, at].reshape(len(turned), len(at), 1 << split, -1)
        coefficients[:, at] = cosines(blocks).swapaxes(2, 3).reshape(len(turned), len(at), FRAME)
    return coefficients


def from_frames(coefficients: Floats, splits: Sequence[int]) -> Floats:
    """The inverse of `to_frames`: [C, T, FRAME] -> samples [C, T * FRAME], still turned at their borders."""
    wave = np.empty(coefficients.shape, np.float32)
    for split in set(splits):
        at = [index for index, each in enumerate(splits) if each == split]
        blocks = coefficients[:, at].reshape(len(coefficients), len(at), -1, 1 << split).swapaxes(2, 3)
        wave[:, at] = cosines(blocks).reshape(len(coefficients), len(at), FRAME)
    return wave.reshape(len(coefficients), -1)


def uniform(wave: Floats, split: int) -> Floats:
    """wave [C, T * FRAME] in blocks of one size, ends unlapped -> coefficients [C, T, FRAME]."""
    size = block_size(split)
    cos, sin = _slopes(size)
    turned = wave.reshape(len(wave), -1, size).copy()
    before, after = turned[:, :-1, : size // 2 - 1 : -1].copy(), turned[:, 1:, : size // 2].copy()
    turned[:, :-1, : size // 2 - 1 : -1] = cos * before - sin * after
    turned[:, 1:, : size // 2] = cos * after + sin * before
    return to_frames(turned.reshape(wave.shape), [split] * (wave.shape[1] // FRAME))
