"""The codec as one differentiable chain, conditioned on the quality level.

wave --analysis--> spectra --Encoder--> latents --(bottleneck)--> latents --Decoder--> spectra --synthesis--> wave
        100 a second         50 a second                            100 a second
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.train.bottlenecks.base import Quantised, Settings
from nacre.train.bottlenecks.registry import BOTTLENECKS
from nacre.train.nets.blocks import NetConfig, Stack
from nacre.train.nets.transforms import Analysis, LogMel, length_mask


class Encoder(nn.Module):
    """Spectra to latents, X numbers a frame as the quantiser asks for."""

    def __init__(self, codec: CodecConfig, net: NetConfig, width_out: int):
        super().__init__()
        self.inward = nn.Linear(codec.steps_per_frame * codec.step_width, net.width)
        self.stack = Stack(net, net.encoder, net.encoder_blocks, codec.encoder_levels)
        self.norm = nn.LayerNorm(net.width)
        self.outward = nn.Linear(net.width, width_out)
        self.past_shapes = self.stack.past_shapes

    def forward(self, spectra: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """spectra [B, T, steps * width], level [B] -> (latents [B, T, X], pasts)."""
        x, pasts = self.stack(self.inward(spectra), level, pasts)
        return self.outward(self.norm(x)), pasts


class Decoder(nn.Module):
    """Latents to compressed spectra, two for each latent frame."""

    def __init__(self, codec: CodecConfig, net: NetConfig):
        super().__init__()
        self.steps = codec.steps_per_frame
        self.inward = nn.Linear(codec.latent_dims, net.width)
        self.coarse = Stack(net, net.decoder, net.decoder_blocks, codec.levels)
        self.widen = nn.Linear(net.width, self.steps * net.width)
        self.fine = Stack(net, net.decoder, net.output_blocks, codec.levels)
        self.norm = nn.LayerNorm(net.width)
        self.outward = nn.Linear(net.width, codec.step_width)
        self.noise = nn.Linear(net.width, codec.bins) if codec.noise else None
        self.past_shapes = self.coarse.past_shapes + self.fine.past_shapes
        with torch.no_grad():
            self.outward.weight.mul_(0.3)
            if self.noise:  # a little at first, enough for gradients to find it
                self.noise.weight.mul_(0.1)
                self.noise.bias.fill_(-2.0)

    def forward(self, latents: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """latents [B, T, D], level [B] -> (spectra [B, T * steps, width], pasts)."""
        split = len(self.coarse.blocks)
        x, first = self.coarse(self.inward(latents), level, pasts[:split] if pasts else None)
        x = self.widen(x).unflatten(2, (self.steps, -1)).flatten(1, 2)
        x, second = self.fine(x, level, pasts[split:] if pasts else None)
        x = self.norm(x)
        spectra = torch.cat([self.outward(x), F.softplus(self.noise(x))], 2) if self.noise else self.outward(x)
        return spectra, first + second


class Coded(NamedTuple):
    """`sound` as decoded: [B, N - delay] samples or [B, S, bands]; bits and penalty [B] means over frames.

    `other` is the same with noise of another draw, where the codec substitutes noise.
    """

    sound: Tensor
    other: Tensor | None
    noisy_bits: Tensor
    rounded_bits: Tensor
    penalty: Tensor


class CodecNet(nn.Module):
    """Encoder, quantiser and decoder as one differentiable chain."""

    def __init__(
        self,
        codec: CodecConfig,
        net: NetConfig,
        kind: str = "scalar",
        quantiser: Settings | None = None,
    ):
        super().__init__()
        self.codec = codec
        self.analysis = LogMel(codec) if codec.mel_bands else Analysis(codec)
        bottleneck = BOTTLENECKS[kind]
        self.quantiser = bottleneck(codec, quantiser or bottleneck.settings_type())
        self.encoder = Encoder(codec, net, self.quantiser.width_in)
        self.decoder = Decoder(codec, net)

    def forward(
        self,
        wave: Tensor,
        level: Tensor,
        lengths: Tensor | None = None,
        bypass: bool = False,
        denoised: Tensor | None = None,
    ) -> Coded:
        """wave [B, N], level [B], lengths [B] samples of each item (all where None) -> what comes back and its cost.

        `denoised` [B] bool: items whose latents shall be those of the sound without its noise.

        Items of a batch do not touch each other, but for batch normalisation in training: beyond its length an item
        costs nothing, is silent, and no codebook learns of it. With `bypass` nothing is quantised.
        """
        wanted = level if denoised is None else level + self.codec.levels * denoised
        latents, _ = self.encoder(self.analysis.spectra(wave), wanted)
        valid = None if lengths is None else length_mask(lengths, self.codec.hop_samples, latents.shape[1])
        if bypass:
            nothing = latents.new_zeros(latents.shape[:2], dtype=torch.float32)
            quantised = Quantised(self.quantiser.bypass(latents, level), nothing, nothing, nothing)
        else:
            with torch.autocast(wave.device.type, enabled=False):  # codes in bf16 would be neighbours mistaken
                quantised = self.quantiser(latents.float(), level, valid)
        spectra, _ = self.decoder(self.quantiser.from_latent(quantised.latents, level), level)
        sound, *others = self.analysis.sounds(spectra, 2 if self.codec.noise else 1)
        other = others[0] if others else None
        costs = (quantised.noisy_bits, quantised.rounded_bits, quantised.penalty)
        if valid is None:
            return Coded(sound, other, *(cost.mean(1) for cost in costs))
        return Coded(sound, other, *((cost * valid).sum(1) / valid.sum(1) for cost in costs))

    def judged(self, lengths: Tensor) -> Tensor:
        """How many samples of each item's `sound` count [B]: as many as would come out if it were alone."""
        if self.codec.mel_bands:
            return lengths
        return (lengths - self.codec.delay_samples).clamp(min=self.codec.hop_samples)

    def target(self, wave: Tensor, sound: Tensor) -> Tensor:
        """What `sound` of `forward` should be for wave [B, N]."""
        return self.analysis.target(wave)[:, : sound.shape[1]]

    @torch.no_grad()
    def latents(self, wave: Tensor, level: int) -> Tensor:
        """wave [B, N] -> latents [B, T, X] for the codec's quantiser, at one quality level."""
        chosen = torch.full((len(wave),), level, device=wave.device)
        latents, _ = self.encoder(self.analysis.spectra(wave), chosen)
        return self.quantiser.to_latent(latents, chosen % self.codec.levels)

    @torch.no_grad()
    def decoded(self, latents: Tensor, level: int) -> Tensor:
        """latents [B, T, D] of the codec's quantiser -> sound as in `Coded`."""
        chosen = torch.full((len(latents),), level, device=latents.device)
        return self.analysis.sound(self.decoder(self.quantiser.from_latent(latents, chosen), chosen)[0])


def begin_denoising(state: dict[str, Tensor], levels: int) -> None:
    """Levels for denoising start as copies of the plain ones, unless they have learned something already."""
    for name, value in state.items():
        if name.startswith("encoder.") and name.endswith(".film") and not value[levels:].any():
            value[levels:] = value[:levels]
