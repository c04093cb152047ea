"""How good a run is now, on real bytes: tables fitted to training speech, validation speech entropy-coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nacre import entropy
from nacre.priors import StaticPrior, fit_counts
from nacre.quantise import dequantise, quantise
from nacre.train.losses import SpectralLoss
from nacre.train.nets import CodecNet
from nacre.units import kbps

Array = np.ndarray[Any, np.dtype[Any]]

REACH = 191  # symbols -191..191: the widest dimensions at the finest steps
DEAD_ZONE = 0.0  # 0.05 to 0.2 cost more distortion than the bits they saved, at 1.5, 2.7, 5 and 8 kb/s


@dataclass(frozen=True)
class Validation:
    """One level's figures: rate from coded bytes, distortion of the training loss on the decoded sound."""

    level: int
    kbps: float
    distortion: float


def fit_prior(net: CodecNet, waves: Array, dead_zone: float = DEAD_ZONE) -> StaticPrior:
    """Count tables of every level from the symbols of waves [B, N] float32, coded as the encoder would."""
    steps = net.quantiser.steps().cpu().numpy()
    levels, dims = steps.shape
    counts = np.zeros((levels, dims, 2 * REACH + 1), np.int32)
    for level in range(levels):
        rows = [_symbols(net, wave, level, steps[level], np.full(dims, REACH, np.int32), dead_zone) for wave in waves]
        symbols = np.concatenate(rows) + REACH
        for dim in range(dims):
            histogram = np.bincount(symbols[:, dim], minlength=2 * REACH + 1)
            counts[level, dim] = fit_counts(histogram.astype(np.int64))
    return StaticPrior(counts)


def _symbols(net: CodecNet, wave: Array, level: int, steps: Array, limits: Array, dead_zone: float) -> Array:
    device = net.analysis.window.device
    latents = net.latents(torch.from_numpy(wave[None]).to(device), level)[0].float().cpu().numpy()
    return quantise(latents, steps, np.full(len(steps), dead_zone, np.float32), limits)


@torch.no_grad()
def validate(
    net: CodecNet, loss: SpectralLoss, prior: StaticPrior, waves: Array, levels: list[int]
) -> list[Validation]:
    """Figures at these levels for waves [B, N] float32, each coded as one group."""
    steps, rate_hz = net.quantiser.steps().cpu().numpy(), net.codec.rate_hz
    device, found = net.analysis.window.device, []
    for level in levels:
        size_bytes, distortion = 0, 0.0
        for wave in waves:
            symbols = _symbols(net, wave, level, steps[level], prior.limits(level), DEAD_ZONE)
            size_bytes += len(entropy.encode(symbols, prior.tables(level)))
            latents = torch.from_numpy(dequantise(symbols, steps[level])[None]).to(device)
            spectra, _ = net.decoder(latents, torch.tensor([level], device=device))
            decoded = net.analysis.wave(spectra)[:, net.codec.delay_samples :]
            original = torch.from_numpy(wave[None, : decoded.shape[1]]).to(device)
            distortion += float(loss(decoded, original)[0])
        rate = kbps(size_bytes, waves.size / rate_hz)
        found.append(Validation(level, round(rate, 3), round(distortion / len(waves), 4)))
    return found
