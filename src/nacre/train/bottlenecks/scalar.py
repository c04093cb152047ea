"""A uniform posterior, one quantiser step wide, around the latent.

Its KL divergence from the prior is the cost in bits of the rounded symbol (Balle et al., 2017). One model serves all
rates through a step size per level and dimension, as in Opus DRED (Valin et al., 2023).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.entropy.static_prior import TOTAL, StaticPrior
from nacre.quantise import scalar
from nacre.quantise.base import Quantiser
from nacre.train.bottlenecks.base import Bottleneck, Quantised, Settings

DEAD_ZONE = 0.0  # 0.05 to 0.2 cost more distortion than the bits they saved, at 1.5, 2.7, 5 and 8 kb/s


def laplace_bits(symbols: Tensor, scale: Tensor) -> Tensor:
    """Bits of the unit interval around each value under a zero-mean Laplace density of this scale."""
    size = symbols.abs()
    inverse = 1 / scale
    tail = size * inverse - torch.log(torch.sinh(0.5 * inverse))
    centre = -torch.log1p(-torch.exp(-0.5 * inverse) * torch.cosh(size.clamp(max=0.5) * inverse) + 1e-9)
    return torch.where(size > 0.5, tail, centre) / math.log(2)


class ScalarQuantiser(Bottleneck):
    """Uniform quantiser with a learned step and a learned Laplace scale for each level and latent dimension."""

    steered = True

    def __init__(self, codec: CodecConfig, settings: Settings | None = None):
        super().__init__()
        self.width_in = codec.latent_dims
        position = torch.linspace(0, 1, codec.levels).unsqueeze(1).expand(-1, codec.latent_dims)
        self.log_gain = nn.Parameter(math.log(0.5) + position * math.log(6.0))  # 1 / step: 0.5 .. 3
        self.log_scale = nn.Parameter(torch.zeros(codec.levels, codec.latent_dims))

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, D], level [B] -> rounded latents (gradient straight through) and bits.

        The rate learns from uniform noise, the distortion from rounding (Minnen and Singh, 2020): noise on every
        unused dimension would drown the decoder at low rates.
        """
        gain = self.log_gain[level].exp().unsqueeze(1)
        scaled = latents.float() * gain
        symbols = scaled + (scaled.round() - scaled).detach()
        scale = self.log_scale[level].clamp(-3.5, 4.0).exp().unsqueeze(1)
        noisy_bits = laplace_bits(scaled + torch.rand_like(scaled) - 0.5, scale).sum(2)
        with torch.no_grad():
            rounded_bits = laplace_bits(symbols, scale).sum(2)
        return Quantised(symbols / gain, noisy_bits, rounded_bits, torch.zeros_like(rounded_bits))

    @torch.no_grad()
    def steps(self) -> Tensor:
        """Quantiser steps [L, D]."""
        return torch.exp(-self.log_gain)

    @torch.no_grad()
    def restore(self, quantiser: Quantiser, prior: StaticPrior) -> None:
        """Steps of the quantiser, and the scale of each density from how the prior spreads symbols."""
        if not isinstance(quantiser, scalar.ScalarQuantiser):
            return super().restore(quantiser, prior)
        sizes = np.abs(np.arange(prior.counts.shape[2]) - prior.counts.shape[2] // 2)
        spread = (prior.counts * sizes).sum(2) / TOTAL  # the scale of a Laplace density is its mean size
        self.log_gain.data = -torch.from_numpy(quantiser.steps).log()
        self.log_scale.data = torch.from_numpy(np.log(spread + math.exp(-3.5))).float()

    @torch.no_grad()
    def export_quantiser(self) -> Quantiser:
        """For the codec: the learned steps, to the six digits that a model.json holds."""
        steps = np.array(scalar.six_digits(self.steps().cpu().numpy()), np.float32)
        return scalar.ScalarQuantiser(steps, np.full_like(steps, DEAD_ZONE))
