"""How good a run is now, on real bytes: tables fitted to training speech, validation speech entropy-coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nacre.core.units import kbps
from nacre.entropy import range_coder
from nacre.entropy.static_prior import TOTAL, StaticPrior, fit_counts, fit_indices
from nacre.train.codec_run import CodecRun, net_of
from nacre.train.degrade import NOTHING
from nacre.train.nets.codec_net import CodecNet
from nacre.train.recipe import Recipe
from nacre.train.recordings import Corpus
from nacre.train.sampler import Sampler

Array = np.ndarray[Any, np.dtype[Any]]

REACH = 191  # symbols -191..191: the widest dimensions at the finest steps


@dataclass(frozen=True)
class Validation:
    """One level's figures: rate from coded bytes, distortion of the training loss on what comes back."""

    level: int
    kbps: float
    distortion: float


def fit_prior(net: CodecNet, waves: Array) -> StaticPrior:
    """Count tables of every level from the symbols of waves [B, N] float32, coded as the encoder would."""
    prior = _tables(net, waves, None)
    if net.quantiser.export_quantiser().counts_bits:
        prior = _tables(net, waves, prior)  # choices depend on what bits cost, and the other way round
    return prior


def _tables(net: CodecNet, waves: Array, prior: StaticPrior | None) -> StaticPrior:
    quantiser = net.quantiser.export_quantiser()
    entries = quantiser.entries
    reach = entries // 2 if entries else REACH
    limits = np.full(quantiser.columns, reach, np.int32)
    counts = np.zeros((quantiser.levels, quantiser.columns, 2 * reach + 1), np.int32)
    counts[:, :, reach] = TOTAL
    for level in range(quantiser.levels):
        costs = prior.costs(level) if prior else None
        rows = [quantiser.symbols(_latents(net, wave, level), level, limits, costs) for wave in waves]
        symbols = np.concatenate(rows) + reach
        for column in range(quantiser.used(level)):
            histogram = np.bincount(symbols[:, column], minlength=2 * reach + 1).astype(np.int64)
            if entries:
                counts[level, column] = 0
                counts[level, column, :entries] = fit_indices(histogram[:entries])
            else:
                counts[level, column] = fit_counts(histogram)
    return StaticPrior(counts)


def _latents(net: CodecNet, wave: Array, level: int) -> Array:
    latents: Array = net.latents(torch.from_numpy(wave[None]).to(device_of(net)), level)[0].float().cpu().numpy()
    return latents


def device_of(net: CodecNet) -> torch.device:
    """Where a network is."""
    return next(net.parameters()).device


@torch.no_grad()
def validate(net: CodecNet, loss: nn.Module, prior: StaticPrior, waves: Array, levels: list[int]) -> list[Validation]:
    """Figures at these levels for waves [B, N] float32, each coded as one group."""
    quantiser, device, points = net.quantiser.export_quantiser(), device_of(net), []
    for level in levels:
        size_bytes, distortion = 0, 0.0
        for wave in waves:
            latents = _latents(net, wave, level)
            symbols = quantiser.symbols(latents, level, prior.limits(level), prior.costs(level))
            size_bytes += len(range_coder.encode(symbols, prior.tables(level)))
            sound = net.decoded(torch.from_numpy(quantiser.latents(symbols, level)[None]).to(device), level)
            distortion += float(loss(sound, net.target(torch.from_numpy(wave[None]).to(device), sound))[0])
        rate = kbps(size_bytes, waves.size / net.codec.rate_hz)
        points.append(Validation(level, round(rate, 3), round(distortion / len(waves), 4)))
    return points


class Judge:
    """Validation on real bytes at a few levels, with the averaged weights."""

    def __init__(self, recipe: Recipe, corpus: Corpus, validation: Corpus, items: int = 24, seconds: int = 3):
        codec = recipe.codec
        samples = seconds * codec.rate_hz // codec.hop_samples * codec.hop_samples
        self.recipe = recipe
        self.fitted, self.judged = (
            Sampler(sounds, codec, NOTHING, None, 1.0).batch(items, samples, (recipe.seed, 1 << 30))
            for sounds in (corpus, validation)
        )

    def figures(self, run: CodecRun, loss: nn.Module) -> list[Validation]:
        """Rate and distortion at the lowest, two middle and the highest level."""
        net = net_of(self.recipe).to(device_of(run.net)).eval()
        net.load_state_dict(run.mean)
        top = self.recipe.codec.levels - 1
        levels = sorted({0, top // 3, 2 * top // 3, top})
        return validate(net, loss, fit_prior(net, self.fitted), self.judged, levels)
