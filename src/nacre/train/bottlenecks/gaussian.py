"""A Gaussian posterior, its KL divergence in closed form (Kingma and Welling, 2014; beta: Higgins et al., 2017).

Steps come from the posterior's width afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.quantise import gaussian
from nacre.quantise.base import Quantiser
from nacre.train.bottlenecks.base import Bottleneck, Quantised, Settings, step_scales, valid_frames
from nacre.train.checks import check, not_negative


@dataclass(frozen=True)
class GaussianSettings(Settings):
    """`free_bits` a dimension and frame cost nothing (Kingma et al., 2016); `rate_weight` as in nacre.quantise."""

    free_bits: float = 0.0
    rate_weight: float = 0.0

    def __post_init__(self) -> None:
        check(self, "quantiser", "0 or more", not_negative, "free_bits", "rate_weight")


class GaussianQuantiser(Bottleneck):
    """Mean and log standard deviation in, a sample out; the prior is N(0, 1) in every dimension.

    What the encoder gives is scaled and shifted for each level and dimension, and so is what the decoder takes: at low
    rates it can turn dimensions off that hold nothing but the posterior's noise. `width` is the root of the mean
    posterior variance in training: the quantiser's steps after it.
    """

    settings_type = GaussianSettings
    folded: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("log_gain", "log_width"), "decoder": ("decoder_gain",)}
    steered = True
    width: Tensor

    def __init__(self, codec: CodecConfig, settings: GaussianSettings):
        super().__init__()
        self.settings, self.dims, self.width_in = settings, codec.latent_dims, 2 * codec.latent_dims
        self.log_gain = nn.Parameter(torch.zeros(codec.levels, codec.latent_dims))
        self.log_width = nn.Parameter(torch.full((codec.levels, codec.latent_dims), -1.0))
        self.decoder_gain = nn.Parameter(torch.ones(codec.levels, codec.latent_dims))
        self.register_buffer("width", torch.full((codec.levels, codec.latent_dims), 0.3))

    def to_latent(self, latents: Tensor, level: Tensor) -> Tensor:
        """The encoder's output [B, T, 2 D] as means and log standard deviations [B, T, 2 D]."""
        mean, log_sd = latents.split(self.dims, -1)
        mean = mean * self.log_gain[level].exp().unsqueeze(1)
        return torch.cat([mean, (log_sd + self.log_width[level].unsqueeze(1)).clamp(-7.0, 1.0)], 2)

    def from_latent(self, latents: Tensor, level: Tensor) -> Tensor:
        """Latents [B, T, D] as the decoder takes them."""
        return latents * self.decoder_gain[level].unsqueeze(1)

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, 2 D], level [B] -> a posterior sample (evaluating: its mean) and its KL divergence."""
        mean, log_sd = self.to_latent(latents.float(), level).split(self.dims, -1)
        bits = gaussian_kl_bits(mean, log_sd)  # [B, T, D]
        soft = bits.clamp(min=self.settings.free_bits) if self.settings.free_bits else bits
        if self.training:
            self._note(level, log_sd, inside)
        sample = mean + log_sd.exp() * torch.randn_like(mean) if self.training else mean
        return Quantised(sample, soft.sum(2), bits.sum(2).detach(), torch.zeros_like(soft[:, :, 0]))

    def bypass(self, latents: Tensor, level: Tensor) -> Tensor:
        """The means."""
        return self.to_latent(latents.float(), level)[..., : self.dims]

    def kl_bits(self, latents: Tensor) -> Tensor:
        """Of means and log standard deviations [..., 2 D]: bits [..., D]."""
        return gaussian_kl_bits(*latents.split(self.dims, -1))

    @torch.no_grad()
    def _note(self, level: Tensor, log_sd: Tensor, inside: Tensor | None) -> None:
        for index in level.unique():
            items = level == index
            frames = valid_frames(log_sd[items], None if inside is None else inside[items])
            self.width[index] = torch.lerp(self.width[index], (2 * frames).exp().mean(0).sqrt(), 0.02)

    @torch.no_grad()
    def export_quantiser(self) -> Quantiser:
        """For the codec: a step has the variance of the posterior, width ** 2 = step ** 2 / 12."""
        factor = step_scales(len(self.width), 4.0, 0.5) if self.one_rate else torch.ones(len(self.width), 1)
        steps = (factor * math.sqrt(12) * self.width.cpu()).numpy()
        return gaussian.GaussianQuantiser(steps, np.full(len(steps), self.settings.rate_weight, np.float32))


def gaussian_kl_bits(mean: Tensor, log_sd: Tensor) -> Tensor:
    """KL divergence in bits of N(mean, exp(log_sd) ** 2) from N(0, 1), element by element.

    >>> float(gaussian_kl_bits(torch.tensor(1.0), torch.tensor(0.0)) * math.log(2))
    0.5
    """
    return (0.5 * ((2 * log_sd).exp() + mean.square() - 1) - log_sd) / math.log(2)
