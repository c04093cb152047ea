"""Networks of the codec: causal ConvNeXt stacks conditioned on the quality level.

    wave --analysis--> spectra --Encoder--> latents --(quantisers)--> latents --Decoder--> spectra --synthesis--> wave
            100 a second         50 a second                            100 a second

Every layer looks at the past only, so one `forward` with its state passed in and out is both training over a clip
and a live step. Blocks follow ConvNeXt (Liu et al., 2022); level conditioning is FiLM (Perez et al., 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.analysis import COMPRESSION, LARGEST_LOG, hann_root
from nacre.config import CodecConfig
from nacre.train.checks import above_zero, check
from nacre.train.quantisers import ScalarQuantiser


@dataclass(frozen=True)
class NetConfig:
    """Sizes of the networks. `width` channels, `kernel` frames a depthwise convolution, `expansion` in the block."""

    width: int = 256
    kernel: int = 7
    expansion: int = 3
    encoder_blocks: int = 4
    decoder_blocks: int = 4  # at the latent frame rate
    output_blocks: int = 4  # at the rate of spectra

    def __post_init__(self) -> None:
        check(self, "net", "a whole number above 0", above_zero, *(f.name for f in fields(self)))


class CausalBlock(nn.Module):
    """Depthwise causal convolution, norm, FiLM by level, two linear layers, residual."""

    def __init__(self, width: int, kernel: int, expansion: int, levels: int, depth: int):
        super().__init__()
        self.past_frames = kernel - 1
        self.depthwise = nn.Parameter(torch.randn(kernel, width) / math.sqrt(kernel))
        self.norm = nn.LayerNorm(width)
        self.film = nn.Parameter(torch.zeros(levels, 2, width))
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        with torch.no_grad():
            self.down.weight.mul_(1 / math.sqrt(depth))

    def forward(self, x: Tensor, level: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, width], level [B], past [B, kernel - 1, width] -> (x, past)."""
        if past is None:
            past = x.new_zeros(x.shape[0], self.past_frames, x.shape[2])
        frames = x.shape[1]
        joined = torch.cat([past, x], 1)
        mixed = joined[:, :frames] * self.depthwise[0]
        for tap in range(1, self.past_frames + 1):  # shifted sums fuse well and need no transposed copies
            mixed = mixed + joined[:, tap : tap + frames] * self.depthwise[tap]
        scale, shift = self.film[level].unsqueeze(2).unbind(1)  # [B, 1, width] each
        hidden = self.norm(mixed) * (1 + scale) + shift
        return x + self.down(F.gelu(self.up(hidden), approximate="tanh")), joined[:, frames:]


class Stack(nn.Module):
    """Causal blocks in a row; their pasts are kept in one list."""

    def __init__(self, net: NetConfig, blocks: int, levels: int):
        super().__init__()
        depth = net.encoder_blocks + net.decoder_blocks + net.output_blocks
        self.blocks = nn.ModuleList(
            CausalBlock(net.width, net.kernel, net.expansion, levels, depth) for _ in range(blocks)
        )

    def forward(self, x: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """x [B, T, width] -> (x [B, T, width], pasts)."""
        after = []
        for index, block in enumerate(self.blocks):
            x, past = block(x, level, pasts[index] if pasts else None)
            after.append(past)
        return x, after


class Encoder(nn.Module):
    """Spectra to latents, in the unit of the quantiser: one step is 1."""

    def __init__(self, codec: CodecConfig, net: NetConfig):
        super().__init__()
        self.inward = nn.Linear(codec.steps_per_frame * 2 * codec.bins, net.width)
        self.stack = Stack(net, net.encoder_blocks, codec.levels)
        self.norm = nn.LayerNorm(net.width)
        self.outward = nn.Linear(net.width, codec.latent_dims)
        self.past_shapes = [(net.kernel - 1, net.width)] * net.encoder_blocks

    def forward(self, spectra: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """spectra [B, T, steps * 2 * bins], level [B] -> (latents [B, T, D], pasts)."""
        x, pasts = self.stack(self.inward(spectra), level, pasts)
        return self.outward(self.norm(x)), pasts


class Decoder(nn.Module):
    """Latents to compressed spectra, two for each latent frame."""

    def __init__(self, codec: CodecConfig, net: NetConfig):
        super().__init__()
        self.steps = codec.steps_per_frame
        self.inward = nn.Linear(codec.latent_dims, net.width)
        self.coarse = Stack(net, net.decoder_blocks, codec.levels)
        self.widen = nn.Linear(net.width, self.steps * net.width)
        self.fine = Stack(net, net.output_blocks, codec.levels)
        self.norm = nn.LayerNorm(net.width)
        self.outward = nn.Linear(net.width, 2 * codec.bins)
        self.past_shapes = [(net.kernel - 1, net.width)] * (net.decoder_blocks + net.output_blocks)
        with torch.no_grad():
            self.outward.weight.mul_(0.3)

    def forward(self, latents: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """latents [B, T, D], level [B] -> (spectra [B, T * steps, 2 * bins], pasts)."""
        split = len(self.coarse.blocks)
        x, first = self.coarse(self.inward(latents), level, pasts[:split] if pasts else None)
        x = self.widen(x).unflatten(2, (self.steps, -1)).flatten(1, 2)
        x, second = self.fine(x, level, pasts[split:] if pasts else None)
        return self.outward(self.norm(x)), first + second


class Analysis(nn.Module):
    """The fixed transforms of nacre.analysis in torch, so that gradients pass. Parity is tested against numpy."""

    window: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        self.register_buffer("window", torch.from_numpy(hann_root(codec.window_samples)), persistent=False)

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N], N a multiple of the hop -> compressed spectra [B, T, steps * 2 * bins]."""
        c = self.codec
        wave = F.pad(wave, (c.window_samples - c.step_samples, 0))
        frames = frame(wave, c.window_samples, c.step_samples)
        spectrum = torch.fft.rfft(frames * self.window, norm="ortho")
        parts = torch.stack([spectrum.real, spectrum.imag], -2)  # [B, steps, 2, bins]
        magnitude = parts.square().sum(-2, keepdim=True).add(1e-12).sqrt()
        compressed = parts * (torch.log1p(COMPRESSION * magnitude) / magnitude)
        return compressed.reshape(wave.shape[0], -1, c.steps_per_frame * 2 * c.bins)

    def wave(self, spectra: Tensor) -> Tensor:
        """Compressed spectra [B, T * steps, 2 * bins] -> wave [B, N], lagging by the codec's delay."""
        c = self.codec
        parts = spectra.float().unflatten(2, (2, c.bins))
        magnitude = parts.square().sum(-2, keepdim=True).add(1e-9).sqrt()
        parts = parts * (torch.expm1(magnitude.clamp(max=LARGEST_LOG)) / (COMPRESSION * magnitude))
        frames = torch.fft.irfft(torch.complex(parts[:, :, 0], parts[:, :, 1]), n=c.window_samples, norm="ortho")
        overlap = c.window_samples // c.step_samples
        pieces = (frames * (self.window * (2 / overlap))).unflatten(2, (overlap, c.step_samples))
        steps = pieces.shape[1]
        total = pieces[:, :, 0]
        for lag in range(1, overlap):
            total = total + F.pad(pieces[:, : steps - lag, lag], (0, 0, lag, 0))
        return total.flatten(1)


class CodecNet(nn.Module):
    """Encoder, quantiser and decoder as one differentiable chain."""

    def __init__(self, codec: CodecConfig, net: NetConfig):
        super().__init__()
        self.codec = codec
        self.analysis = Analysis(codec)
        self.encoder = Encoder(codec, net)
        self.quantiser = ScalarQuantiser(codec)
        self.decoder = Decoder(codec, net)

    def forward(self, wave: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """wave [B, N], level [B] -> (decoded wave [B, N - delay], aligned; soft and hard bits [B] a frame)."""
        latents, _ = self.encoder(self.analysis.spectra(wave), level)
        quantised = self.quantiser(latents, level)
        spectra, _ = self.decoder(quantised.latents, level)
        decoded = self.analysis.wave(spectra)[:, self.codec.delay_samples :]
        return decoded, quantised.soft_bits, quantised.hard_bits

    @torch.no_grad()
    def latents(self, wave: Tensor, level: int) -> Tensor:
        """wave [B, N] -> latents [B, T, D] at one quality level."""
        found, _ = self.encoder(self.analysis.spectra(wave), torch.full((len(wave),), level, device=wave.device))
        return found


def frame(wave: Tensor, size: int, step: int) -> Tensor:
    """wave [B, N] -> overlapping frames [B, T, size]; joined slices keep the backward pass cheap."""
    overlap = size // step
    hops = wave[:, : wave.shape[1] // step * step].unflatten(1, (-1, step))
    count = hops.shape[1] - overlap + 1
    return torch.cat([hops[:, lag : lag + count] for lag in range(overlap)], 2)
