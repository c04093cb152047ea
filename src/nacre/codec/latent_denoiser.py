"""Latents of the speech alone, by the encoder's denoising levels, as far as there is noise.

Sound without noise would lose by it. It is known by the two latents, denoised and plain, being as much alike as in
clean speech: the model's `cleaning_span` says at what distance denoising sets in, and at what distance it is complete.
"""

from __future__ import annotations

import numpy as np

from nacre.codec.state import LatentDenoiserState
from nacre.core.types import Array
from nacre.model.model import Model


def denoise_latents(
    model: Model, state: LatentDenoiserState, spectra: Array, plain: Array, level: int
) -> tuple[Array, LatentDenoiserState]:
    """Spectra of a group, and what the plain level makes of them [T, X] -> ([T, X], state)."""
    assert model.cleaning_span
    clean, past = model.encoder_net.step(spectra, level + model.config.levels, state.past)
    apart = distance(clean, plain)
    mean = apart if state.distance is None else 0.5 * (state.distance + apart)
    low, high = model.cleaning_span
    share = np.float32(np.clip((mean - low) / (high - low), 0, 1))
    mixed: Array = plain + share * (clean - plain)
    return mixed, LatentDenoiserState(past, mean)


def distance(clean: Array, plain: Array) -> float:
    """Size of the difference of latents [T, X] over the size of the second."""
    return float(np.sqrt(np.square(clean - plain).sum() / (np.square(plain).sum() + 1e-9)))
