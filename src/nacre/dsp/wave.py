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
        raise AudioError("wave", found=type(wave).__name__, wanted="an array [N] or [C, N]") from error
    if given.dtype.kind != "f":
        advice = "divide 16-bit samples by 32768"
        raise AudioError("wave", found=given.dtype, wanted="floats from -1 to 1", next=advice)
    with np.errstate(over="ignore"):
        sound: Array = np.atleast_2d(given.astype(np.float32, copy=False))
    if sound.ndim != 2:
        raise AudioError("wave", found=f"shape {sound.shape}", wanted="[N] or [C, N]")
    if not np.isfinite(sound).all():
        raise AudioError("wave", found="NaN or infinite samples", wanted="finite numbers")
    return sound


def mixed(sound: Array, mono: bool | None) -> Array:
    """sound [C, N] averaged to [1, N] if `mono`, else as it is. Raises UsageError for None and several channels, which
    might be meant as a batch."""
    if mono is None and len(sound) > 1:
        advice = "mono=True averages them; several sounds are a batch: tokens_batch, latents_batch, FeatureExtractor"
        raise UsageError("wave", found=f"{len(sound)} channels", wanted="one, or a word on them", next=advice)
    return sound.mean(0, keepdims=True) if mono else sound


def check_shape(rate_hz: float, channels: int) -> int:
    """The rate as a whole number; raises AudioError where rate or channels cannot be coded."""
    known = isinstance(rate_hz, (int, float, np.integer, np.floating)) and not isinstance(rate_hz, bool)
    fits = known and MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and rate_hz == int(rate_hz)
    if not fits or not 1 <= channels <= MAX_CHANNELS:
        wanted = f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, 1 to {MAX_CHANNELS} channels"
        raise AudioError("sound", found=f"{rate_hz} Hz, {channels} channels", wanted=wanted)
    return int(rate_hz)


def pad(wave: Array, multiple: int) -> Array:
    """wave [..., N] with zeros up to a multiple of this many samples."""
    missing = -wave.shape[-1] % multiple
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, missing)])


def pieces_of(rows: Array, size: int) -> Iterator[Array]:
    """rows [N, ...] in pieces [size, ...]; the last one may be shorter."""
    for at in range(0, len(rows), size):
        yield rows[at : at + size]
