"""From latents to bits, differentiably: the uniform-noise posterior and its Laplace prior, per level and dimension.

The posterior is uniform, one quantiser step wide, around the latent; its KL divergence from the prior is the cost
in bits of the rounded symbol (Balle et al., 2017). One model serves all rates through a step size per level and
dimension, as in the rate-distortion VAE of Opus DRED (Valin et al., 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nacre.config import CodecConfig

HIGHEST_WEIGHT = 0.3  # of a bit against distortion


@dataclass(frozen=True)
class Quantised:
    """latents [B, T, D] as the decoder sees them; bits [B] a frame, `soft` to learn from, `hard` as they would be."""

    latents: Tensor
    soft_bits: Tensor
    hard_bits: Tensor


def laplace_bits(symbols: Tensor, scale: Tensor) -> Tensor:
    """Bits of the unit interval around each value under a zero-mean Laplace density of this scale."""
    size = symbols.abs()
    inverse = 1 / scale
    tail = size * inverse - torch.log(torch.sinh(0.5 * inverse))
    centre = -torch.log1p(-torch.exp(-0.5 * inverse) * torch.cosh(size.clamp(max=0.5) * inverse) + 1e-9)
    return torch.where(size > 0.5, tail, centre) / math.log(2)


class ScalarQuantiser(nn.Module):
    """Uniform quantiser with a learned step and a learned Laplace scale for each level and latent dimension."""

    def __init__(self, codec: CodecConfig):
        super().__init__()
        position = torch.linspace(0, 1, codec.levels).unsqueeze(1).expand(-1, codec.latent_dims)
        self.log_gain = nn.Parameter(math.log(0.5) + position * math.log(6.0))  # 1 / step: 0.5 .. 3
        self.log_scale = nn.Parameter(torch.zeros(codec.levels, codec.latent_dims))

    def forward(self, latents: Tensor, level: Tensor) -> Quantised:
        """latents [B, T, D], level [B] -> rounded latents (gradient straight through) and bits.

        The rate learns from uniform noise, the distortion from rounding (Minnen and Singh, 2020): noise on every
        unused dimension would drown the decoder at low rates.
        """
        gain = self.log_gain[level].exp().unsqueeze(1)
        scaled = latents.float() * gain
        symbols = scaled + (scaled.round() - scaled).detach()
        scale = self.log_scale[level].clamp(-3.5, 4.0).exp().unsqueeze(1)
        soft_bits = laplace_bits(scaled + torch.rand_like(scaled) - 0.5, scale).sum(2).mean(1)
        with torch.no_grad():
            hard_bits = laplace_bits(symbols, scale).sum(2).mean(1)
        return Quantised(symbols / gain, soft_bits, hard_bits)

    @torch.no_grad()
    def steps(self) -> Tensor:
        """Quantiser steps [L, D]."""
        return torch.exp(-self.log_gain)


class RateControl:
    """One Lagrange weight a level, steered until the level's rate meets its target.

    Training minimises sqrt(weight) * bits + distortion / sqrt(weight). Weights start near zero, so that the
    posterior does not collapse, and climb by at most `climb` (natural log) a step.
    """

    def __init__(self, targets: Tensor, start: float, climb: float = 0.02, gain: float = 0.004):
        self.targets = targets  # [L] bits a frame
        self.log_weight = torch.full_like(targets, math.log(start))
        self.climb, self.gain = climb, gain
        self.lowest, self.highest = math.log(start / 100), math.log(HIGHEST_WEIGHT)

    def weight(self, level: Tensor) -> Tensor:
        """Lagrange weights [B] of these levels."""
        return self.log_weight[level].exp()

    def update(self, level: Tensor, bits: Tensor) -> None:
        """Move the weights of levels [B] by how far bits [B] a frame lie from their targets."""
        error = torch.log(bits.clamp(min=0.1) / self.targets[level])
        change = torch.zeros_like(self.log_weight).index_add_(0, level, self.gain * error)
        self.log_weight += change.clamp(-self.climb, self.climb)
        self.log_weight = smooth(self.log_weight).clamp(self.lowest, self.highest)


def smooth(values: Tensor, share: float = 0.02) -> Tensor:
    """values [L] pulled a little towards the mean of their neighbours: rates of adjacent levels stay in order."""
    if len(values) == 1:
        return values
    padded = torch.cat([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    return values + share * ((padded[:-2] + padded[2:]) / 2 - values)
