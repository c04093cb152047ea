"""Sound as it is given to nacre: arrays checked, padded and cut into groups."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ


def as_sound(wave: Array) -> Array:
    """wave [N] or [C, N] of floats as float32 [C, N]; raises AudioError for anything else."""
    try:
        given = np.asarray(wave)
    except (TypeError, ValueError) as error:
        raise AudioError(f"wave must be an array [N] or [C, N], not {type(wave).__name__}") from error
    if given.dtype.kind != "f":
        raise AudioError(f"wave must hold floats from -1 to 1, not {given.dtype}; divide 16-bit samples by 32768")
    with np.errstate(over="ignore"):
        sound: Array = np.atleast_2d(given.astype(np.float32, copy=False))
    if sound.ndim != 2:
        raise AudioError(f"wave must have shape [N] or [C, N], not {sound.shape}")
    if not np.isfinite(sound).all():
        raise AudioError("wave holds NaN or infinite samples; make all of them finite")
    return sound


def check_samples(sound: Array) -> None:
    """Raise AudioError for a sound [..., N] without samples."""
    if sound.shape[-1] == 0:
        raise AudioError("wave holds no samples; give at least one")


def mixed(sound: Array, mono: bool | None) -> Array:
    """sound [C, N] averaged to [1, N] if `mono`, else as it is. Raises UsageError for None and several channels, which
    might be meant as a batch."""
    if mono is None and len(sound) > 1:
        batch = "tokens_batch, latents_batch and FeatureExtractor take several sounds"
        raise UsageError(f"wave has {len(sound)} channels; mono=True averages them, {batch}")
    return sound.mean(0, keepdims=True) if mono else sound


def check_shape(rate_hz: float, channels: int) -> int:
    """The rate as a whole number; raises AudioError where rate or channels cannot be coded."""
    known = isinstance(rate_hz, (int, float, np.integer, np.floating)) and not isinstance(rate_hz, bool)
    fits = known and MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and rate_hz == int(rate_hz)
    if not fits or not 1 <= channels <= MAX_CHANNELS:
        limits = f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz and 1 to {MAX_CHANNELS} channels"
        raise AudioError(f"nacre takes sound of {limits}, not of {rate_hz} Hz and {channels} channels")
    return int(rate_hz)


def pad(wave: Array, multiple: int) -> Array:
    """wave [..., N] with zeros up to a multiple of this many samples."""
    missing = -wave.shape[-1] % multiple
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, missing)])


def pieces_of(rows: Array, size: int) -> Iterator[Array]:
    """rows [N, ...] in pieces [size, ...]; the last one may be shorter."""
    for at in range(0, len(rows), size):
        yield rows[at : at + size]
