"""From latents to bits, differentiably: posteriors with a density. Codebooks are next door in codebooks.py.

PlainQuantiser    nothing at all in training; steps from the spread of the latents afterwards (an autoencoder)
GaussianQuantiser a Gaussian posterior, its KL divergence in closed form (Kingma and Welling, 2014; beta:
                  Higgins et al., 2017); steps from the posterior's width afterwards
ScalarQuantiser   a uniform posterior, one quantiser step wide, around the latent; its KL divergence from the
                  prior is the cost in bits of the rounded symbol (Balle et al., 2017). One model serves all rates
                  through a step size per level and dimension, as in Opus DRED (Valin et al., 2023)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.quantise import gaussian, scalar
from nacre.quantise.base import Quantiser
from nacre.train.checks import check, not_negative, one_of, share

HIGHEST_WEIGHT = 0.3  # of a bit against distortion
DEAD_ZONE = 0.0  # 0.05 to 0.2 cost more distortion than the bits they saved, at 1.5, 2.7, 5 and 8 kb/s


@dataclass(frozen=True)
class QuantiserConfig:
    """Settings of the kinds; each reads its own.

    gaussian: `free_bits` a dimension and frame cost nothing (Kingma et al., 2016), `rate_weight` as in
    the codec's quantiser. rvq: `rate_weight` likewise, in training too; `codebooks` of
    `codebook_size` codes in `code_dims` dimensions, learned by moving averages ("ema") or by gradients
    ("gradient"); codes chosen less than `revive_below` times a batch move to where data is. fsq: `values` a
    dimension, an odd number.
    """

    free_bits: float = 0.0
    rate_weight: float = 0.0
    codebooks: int = 16
    codebook_size: int = 1024
    code_dims: int = 8
    update: str = "ema"
    decay: float = 0.98
    commitment: float = 0.25
    revive_below: float = 0.05
    values: int = 5

    def __post_init__(self) -> None:
        wanted = "0 or more"
        check(self, "quantiser", wanted, not_negative, "free_bits", "rate_weight", "commitment", "revive_below")
        check(self, "quantiser", "1 to 64", lambda n: 1 <= n <= 64, "codebooks", "code_dims")
        check(self, "quantiser", "2 to 4096", lambda n: 2 <= n <= 4096, "codebook_size")
        one_of(self, "quantiser", ("ema", "gradient"), "update")
        check(self, "quantiser", "0 to 1", share, "decay")
        check(self, "quantiser", "an odd number from 3 to 255", lambda n: 3 <= n <= 255 and n % 2 == 1, "values")


@dataclass(frozen=True)
class Quantised:
    """latents [B, T, D] as the decoder sees them; bits [B, T] a frame, `soft` to learn from, `hard` as they would be.

    `penalty` [B, T] is what else the quantiser asks of the encoder.
    """

    latents: Tensor
    soft_bits: Tensor
    hard_bits: Tensor
    penalty: Tensor


def used_columns(levels: int, columns: int) -> list[int]:
    """How many columns each level uses: an equal share more from level to level."""
    return [math.ceil((level + 1) * columns / levels) for level in range(levels)]


def knobs(levels: int, coarsest: float, finest: float) -> Tensor:
    """Factors on the steps [L, 1] for models that were trained at one rate, spaced geometrically."""
    position = torch.linspace(0, 1, levels).unsqueeze(1)
    return coarsest * (finest / coarsest) ** position


def kept(values: Tensor, inside: Tensor | None) -> Tensor:
    """Frames [N, X] of values [B, T, X], those outside `inside` [B, T] left out."""
    return values.flatten(0, 1) if inside is None else values[inside > 0]


class Bottleneck(nn.Module):
    """What every kind offers to training. `steered`: it has a rate to weigh; `width_in`: numbers it takes a frame."""

    steered = False
    width_in: int

    def enter(self, latents: Tensor, level: Tensor) -> Tensor:
        """The encoder's output [B, T, X] as the codec's quantiser takes it; part of the encoder graph."""
        return latents

    def leave(self, latents: Tensor, level: Tensor) -> Tensor:
        """Latents [B, T, D] of the codec's quantiser as the decoder takes them; part of the decoder graph."""
        return latents

    def bypass(self, latents: Tensor, level: Tensor) -> Tensor:
        """Latents [B, T, D] where nothing is quantised."""
        return latents.float()

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, X], level [B] -> latents as decoded and what they cost.

        Statistics are taken of the frames `inside` [B, T], 1 or 0; all where None.
        """
        raise NotImplementedError

    def station(self) -> Quantiser:
        """The same for the codec, in numpy."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Health of the bottleneck, for the log."""
        return {}


class PlainQuantiser(Bottleneck):
    """No quantiser in training: a plain autoencoder, cut into steps afterwards."""

    spread: Tensor

    def __init__(self, codec: CodecConfig, config: QuantiserConfig):
        super().__init__()
        self.width_in, self.levels = codec.latent_dims, codec.levels
        self.register_buffer("spread", torch.ones(codec.latent_dims))

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, D] unchanged, no bits."""
        if self.training:
            with torch.no_grad():
                self.spread.lerp_(kept(latents.float(), inside).std(0).clamp(min=1e-4), 0.01)
        nothing = latents.new_zeros(latents.shape[:2], dtype=torch.float32)
        return Quantised(latents, nothing, nothing, nothing)

    @torch.no_grad()
    def station(self) -> Quantiser:
        """For the codec: the same share of the spread in each dimension."""
        steps = (knobs(self.levels, 3.0, 0.05) * self.spread.cpu()).numpy()
        return scalar.ScalarQuantiser(steps, np.zeros_like(steps))


class GaussianQuantiser(Bottleneck):
    """Mean and log standard deviation in, a sample out; the prior is N(0, 1) in every dimension.

    What the encoder gives is scaled and shifted for each level and dimension, and so is what the decoder takes: at low
    rates it can turn dimensions off that hold nothing but the posterior's noise. `width` is the root of the mean
    posterior variance in training: the quantiser's steps after it.
    """

    steered = True
    width: Tensor

    def __init__(self, codec: CodecConfig, config: QuantiserConfig):
        super().__init__()
        self.config, self.dims, self.width_in = config, codec.latent_dims, 2 * codec.latent_dims
        self.log_gain = nn.Parameter(torch.zeros(codec.levels, codec.latent_dims))
        self.log_width = nn.Parameter(torch.full((codec.levels, codec.latent_dims), -1.0))
        self.decoder_gain = nn.Parameter(torch.ones(codec.levels, codec.latent_dims))
        self.register_buffer("width", torch.full((codec.levels, codec.latent_dims), 0.3))
        self.one_rate = False

    def enter(self, latents: Tensor, level: Tensor) -> Tensor:
        """The encoder's output [B, T, 2 D] as means and log standard deviations [B, T, 2 D]."""
        mean, log_sd = latents.split(self.dims, -1)
        mean = mean * self.log_gain[level].exp().unsqueeze(1)
        return torch.cat([mean, (log_sd + self.log_width[level].unsqueeze(1)).clamp(-7.0, 1.0)], 2)

    def leave(self, latents: Tensor, level: Tensor) -> Tensor:
        """Latents [B, T, D] as the decoder takes them."""
        return latents * self.decoder_gain[level].unsqueeze(1)

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, 2 D], level [B] -> a posterior sample (evaluating: its mean) and its KL divergence."""
        mean, log_sd = self.enter(latents.float(), level).split(self.dims, -1)
        bits = gaussian_kl_bits(mean, log_sd)  # [B, T, D]
        soft = bits.clamp(min=self.config.free_bits) if self.config.free_bits else bits
        if self.training:
            self._note(level, log_sd, inside)
        sample = mean + log_sd.exp() * torch.randn_like(mean) if self.training else mean
        return Quantised(sample, soft.sum(2), bits.sum(2).detach(), torch.zeros_like(soft[:, :, 0]))

    def bypass(self, latents: Tensor, level: Tensor) -> Tensor:
        """The means."""
        return self.enter(latents.float(), level)[..., : self.dims]

    @torch.no_grad()
    def _note(self, level: Tensor, log_sd: Tensor, inside: Tensor | None) -> None:
        for index in level.unique():
            items = level == index
            frames = kept(log_sd[items], None if inside is None else inside[items])
            self.width[index] = torch.lerp(self.width[index], (2 * frames).exp().mean(0).sqrt(), 0.02)

    @torch.no_grad()
    def station(self) -> Quantiser:
        """For the codec: a step has the variance of the posterior, width ** 2 = step ** 2 / 12."""
        factor = knobs(len(self.width), 4.0, 0.5) if self.one_rate else torch.ones(len(self.width), 1)
        steps = (factor * math.sqrt(12) * self.width.cpu()).numpy()
        return gaussian.GaussianQuantiser(steps, np.full(len(steps), self.config.rate_weight, np.float32))


def gaussian_kl_bits(mean: Tensor, log_sd: Tensor) -> Tensor:
    """KL divergence in bits of N(mean, exp(log_sd) ** 2) from N(0, 1), element by element.

    >>> float(gaussian_kl_bits(torch.tensor(1.0), torch.tensor(0.0)) * math.log(2))
    0.5
    """
    return (0.5 * ((2 * log_sd).exp() + mean.square() - 1) - log_sd) / math.log(2)


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

    def __init__(self, codec: CodecConfig, config: QuantiserConfig | None = None):
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
        soft_bits = laplace_bits(scaled + torch.rand_like(scaled) - 0.5, scale).sum(2)
        with torch.no_grad():
            hard_bits = laplace_bits(symbols, scale).sum(2)
        return Quantised(symbols / gain, soft_bits, hard_bits, torch.zeros_like(hard_bits))

    @torch.no_grad()
    def steps(self) -> Tensor:
        """Quantiser steps [L, D]."""
        return torch.exp(-self.log_gain)

    @torch.no_grad()
    def station(self) -> Quantiser:
        """For the codec: the learned steps, to the six digits that a model.json holds."""
        steps = [[float(f"{value:.6g}") for value in row] for row in self.steps().tolist()]
        found = np.array(steps, np.float32)
        return scalar.ScalarQuantiser(found, np.full_like(found, DEAD_ZONE))


class RateControl:
    """One Lagrange weight a level, steered until the level's rate meets its target; or one beta for all of them.

    Training minimises sqrt(weight) * bits + distortion / sqrt(weight). Weights start near zero, so that the
    posterior does not collapse, and climb by at most `climb` (natural log) a step. With `beta`, the weight of a nat in
    the ELBO, they climb to it in `warmup` steps and stay. With `hold` they stay where they are put.
    """

    def __init__(
        self,
        targets: Tensor,
        start: float,
        climb: float = 0.02,
        gain: float = 0.004,
        beta: float = 0,
        warmup: int = 1,
        hold: bool = False,
    ):
        self.targets, self.hold = targets, hold  # [L] bits a frame
        self.log_weight = torch.full_like(targets, math.log(start))
        self.climb, self.gain = climb, gain
        self.lowest, self.highest = math.log(start / 100), math.log(HIGHEST_WEIGHT)
        self.goal = math.log(beta * math.log(2)) if beta else None
        self.rise = abs(self.goal - math.log(start)) / warmup if self.goal is not None else 0.0

    def weight(self, level: Tensor) -> Tensor:
        """Lagrange weights [B] of these levels."""
        return self.log_weight[level].exp()

    def update(self, level: Tensor, bits: Tensor) -> None:
        """Move the weights of levels [B] by how far bits [B] a frame lie from their targets."""
        if self.hold:
            return
        if self.goal is not None:
            self.log_weight += (self.goal - self.log_weight).clamp(-self.rise, self.rise)
            return
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
