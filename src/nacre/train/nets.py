"""Networks of the codec: causal stacks of ConvNeXt or recurrent blocks, conditioned on the quality level.

    wave --analysis--> spectra --Encoder--> latents --(quantisers)--> latents --Decoder--> spectra --synthesis--> wave
            100 a second         50 a second                            100 a second

Every layer looks at the past only, so one `forward` with its state passed in and out is both training over a clip
and a live step. Blocks follow ConvNeXt (Liu et al., 2022), or hold a GRU (Cho et al., 2014) or an LSTM (Hochreiter and
Schmidhuber, 1997); level conditioning is FiLM (Perez et al., 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.dsp.mel import COMPRESSION as MEL_COMPRESSION
from nacre.dsp.mel import LogMelAnalyser
from nacre.dsp.noise import fades
from nacre.dsp.stft import COMPRESSION, LARGEST_LOG, hann_root
from nacre.train.checks import above_zero, check, one_of
from nacre.train.codebooks import FiniteScalar, ResidualVQ
from nacre.train.quantisers import (
    Bottleneck,
    GaussianQuantiser,
    PlainQuantiser,
    Quantised,
    QuantiserConfig,
    ScalarQuantiser,
)

KINDS: dict[str, Callable[[CodecConfig, QuantiserConfig], Bottleneck]] = {
    "scalar": ScalarQuantiser,
    "gaussian": GaussianQuantiser,
    "rvq": ResidualVQ,
    "fsq": FiniteScalar,
    "autoencoder": PlainQuantiser,
}


@dataclass(frozen=True)
class NetConfig:
    """Sizes of the networks. `width` channels, `kernel` frames a depthwise convolution, `expansion` in the block.

    `encoder` and `decoder` are "convolutional", "gru", "lstm" or "dense", each frame by itself. `norm` is "layer" or
    "batch"; `dropout` is the share of a block's hidden numbers that training leaves out.
    """

    width: int = 256
    kernel: int = 7
    expansion: int = 3
    encoder_blocks: int = 4
    decoder_blocks: int = 4  # at the latent frame rate
    output_blocks: int = 4  # at the rate of spectra
    encoder: str = "convolutional"
    decoder: str = "convolutional"
    norm: str = "layer"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = ("width", "kernel", "expansion", "encoder_blocks", "decoder_blocks", "output_blocks")
        check(self, "net", "a whole number above 0", above_zero, *sizes)
        one_of(self, "net", BLOCKS, "encoder", "decoder")
        one_of(self, "net", NORMS, "norm")
        check(self, "net", "0 to below 1", lambda value: 0 <= value < 1, "dropout")

    @property
    def depth(self) -> int:
        """Blocks in all."""
        return self.encoder_blocks + self.decoder_blocks + self.output_blocks


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy, 2015) of x [B, T, width] over batch and frames."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm}


class CausalBlock(nn.Module):
    """Depthwise causal convolution, norm, FiLM by level, two linear layers, residual."""

    def __init__(self, net: NetConfig, levels: int, kernel: int):
        super().__init__()
        width, expansion = net.width, net.expansion
        self.past_shape = (kernel - 1, width)
        self.past_frames = kernel - 1
        self.depthwise = nn.Parameter(torch.randn(kernel, width) / math.sqrt(kernel))
        self.norm = NORMS[net.norm](width)
        self.film = nn.Parameter(torch.zeros(levels, 2, width))
        self.up = nn.Linear(width, expansion * width)
        self.drop = nn.Dropout(net.dropout)
        self.down = nn.Linear(expansion * width, width)
        with torch.no_grad():
            self.down.weight.mul_(1 / math.sqrt(net.depth))

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
        return x + self.down(self.drop(F.gelu(self.up(hidden), approximate="tanh"))), joined[:, frames:]


class RecurrentBlock(nn.Module):
    """Norm, FiLM by level, a GRU or LSTM layer, a linear layer, residual. Its past is the cell's state."""

    def __init__(self, net: NetConfig, levels: int, cell: type[nn.GRU] | type[nn.LSTM]):
        super().__init__()
        width = net.width
        self.rows = 2 if cell is nn.LSTM else 1
        self.past_shape = (self.rows, width)
        self.norm = NORMS[net.norm](width)
        self.film = nn.Parameter(torch.zeros(levels, 2, width))
        self.cell = cell(width, width, batch_first=True)
        self.drop = nn.Dropout(net.dropout)
        self.down = nn.Linear(width, width)
        with torch.no_grad():
            self.down.weight.mul_(1 / math.sqrt(net.depth))

    def forward(self, x: Tensor, level: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, width], level [B], past [B, 1 or 2, width] -> (x, past)."""
        if past is None:
            past = x.new_zeros(x.shape[0], self.rows, x.shape[2], dtype=torch.float32)
        scale, shift = self.film[level].unsqueeze(2).unbind(1)
        hidden = (self.norm(x) * (1 + scale) + shift).float()
        state = past.transpose(0, 1).contiguous()  # [1 or 2, B, width]
        with torch.autocast(x.device.type, enabled=False):  # a state in bf16 would lose slow changes
            if torch.onnx.is_in_onnx_export():
                hidden, after = self._as_operator(hidden, state)
            elif self.rows == 2:
                hidden, (memory, cell) = self.cell(hidden, (state[:1], state[1:]))
                after = torch.cat([memory, cell])
            else:
                hidden, after = self.cell(hidden, state)
        return x + self.down(self.drop(hidden)), after.transpose(0, 1)

    def _as_operator(self, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The cell as ONNX's own operator, which is one call for any number of frames."""
        lstm, width = self.rows == 2, hidden.shape[2]
        order = (0, 3, 1, 2) if lstm else (1, 0, 2)  # gates: ours ifgo and rzn, theirs iofc and zrh
        parts = [torch.cat([value.chunk(len(order))[gate] for gate in order]) for value in self.cell.parameters()]
        frames = hidden.transpose(0, 1)
        inputs = [frames, parts[0][None], parts[1][None], torch.cat(parts[2:])[None], None, *state.split(1)]
        settings: dict[str, Any] = {"hidden_size": width} if lstm else {"hidden_size": width, "linear_before_reset": 1}
        found = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if lstm else "GRU",
            inputs,
            settings,
            dtypes=[frames.dtype] * (1 + self.rows),
            shapes=[[frames.shape[0], 1, 1, width], *[[1, 1, width]] * self.rows],
            version=14,
        )
        return found[0].squeeze(1).transpose(0, 1), torch.cat(list(found[1:]))


BLOCKS: dict[str, Callable[[NetConfig, int], nn.Module]] = {
    "convolutional": lambda net, levels: CausalBlock(net, levels, net.kernel),
    "gru": lambda net, levels: RecurrentBlock(net, levels, nn.GRU),
    "lstm": lambda net, levels: RecurrentBlock(net, levels, nn.LSTM),
    "dense": lambda net, levels: CausalBlock(net, levels, 1),
}


class Stack(nn.Module):
    """Causal blocks in a row; their pasts are kept in one list."""

    def __init__(self, net: NetConfig, kind: str, blocks: int, levels: int):
        super().__init__()
        self.blocks = nn.ModuleList(BLOCKS[kind](net, levels) for _ in range(blocks))
        self.past_shapes = [block.past_shape for block in self.blocks]

    def forward(self, x: Tensor, level: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """x [B, T, width] -> (x [B, T, width], pasts)."""
        after = []
        for index, block in enumerate(self.blocks):
            x, past = block(x, level, pasts[index] if pasts else None)
            after.append(past)
        return x, after


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


class Analysis(nn.Module):
    """The fixed transforms of nacre.dsp.stft in torch, so that gradients pass. Parity is tested against numpy."""

    window: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        self.register_buffer("window", torch.from_numpy(hann_root(codec.window_samples)), persistent=False)
        self.noise = NoiseSubstitution(codec) if codec.noise else None

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

    def sound(self, spectra: Tensor) -> Tensor:
        """What a decoder gives [B, T * steps, X] -> wave [B, N - delay], in time with what went in."""
        return self.sounds(spectra, 1)[0]

    def sounds(self, spectra: Tensor, draws: int) -> list[Tensor]:
        """As `sound`, as often as asked, each with noise of its own where the codec has any."""
        predicted = self.expanded(spectra[..., : self.codec.step_width])
        found = [predicted] * draws
        if self.noise:
            found = self.noise(predicted, spectra[..., self.codec.step_width :], draws)
        return [self.wave(parts)[:, self.codec.delay_samples :] for parts in found]

    def target(self, wave: Tensor) -> Tensor:
        """What `sound` should be: wave [B, N] itself."""
        return wave

    def expanded(self, spectra: Tensor) -> Tensor:
        """Compressed spectra [B, S, 2 * bins] -> their real and imaginary parts as they are [B, S, 2, bins]."""
        parts = spectra.float().unflatten(2, (2, self.codec.bins))
        magnitude = parts.square().sum(-2, keepdim=True).add(1e-9).sqrt()
        return parts * (torch.expm1(magnitude.clamp(max=LARGEST_LOG)) / (COMPRESSION * magnitude))

    def wave(self, parts: Tensor) -> Tensor:
        """Real and imaginary parts [B, T * steps, 2, bins] -> wave [B, N], lagging by the codec's delay."""
        c = self.codec
        frames = torch.fft.irfft(torch.complex(parts[:, :, 0], parts[:, :, 1]), n=c.window_samples, norm="ortho")
        overlap = c.window_samples // c.step_samples
        pieces = (frames * (self.window * (2 / overlap))).unflatten(2, (overlap, c.step_samples))
        steps = pieces.shape[1]
        total = pieces[:, :, 0]
        for lag in range(1, overlap):
            total = total + F.pad(pieces[:, : steps - lag, lag], (0, 0, lag, 0))
        return total.flatten(1)


class LogMel(nn.Module):
    """nacre.dsp.mel.LogMelAnalyser in torch: what a codec of log-mel frames takes, gives, and is judged by."""

    bank: Tensor
    window: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        fixed = LogMelAnalyser(
            codec.rate_hz, codec.window_samples, codec.step_samples, codec.steps_per_frame, codec.mel_bands
        )
        self.register_buffer("bank", torch.from_numpy(fixed._bank), persistent=False)
        self.register_buffer("window", torch.from_numpy(fixed._window), persistent=False)

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N], N a multiple of the hop -> log-mel frames [B, T, steps * bands]."""
        c = self.codec
        frames = frame(F.pad(wave, (c.window_samples - c.step_samples, 0)), c.window_samples, c.step_samples)
        spectrum = torch.fft.rfft(frames * self.window, norm="ortho")
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.bank
        values = torch.log1p(MEL_COMPRESSION * (power + 1e-12).sqrt())
        return values.reshape(wave.shape[0], -1, c.steps_per_frame * c.mel_bands)

    def sound(self, spectra: Tensor) -> Tensor:
        """Log-mel frames [B, T * steps, bands] as they are: sound is found from them outside training."""
        return spectra.float()

    def sounds(self, spectra: Tensor, draws: int) -> list[Tensor]:
        """As `sound`, as often as asked."""
        return [self.sound(spectra)] * draws

    def target(self, wave: Tensor) -> Tensor:
        """wave [B, N] -> the frames that `sound` should be."""
        return self.spectra(wave).unflatten(2, (self.codec.steps_per_frame, -1)).flatten(1, 2)


class NoiseSubstitution(nn.Module):
    """nacre.dsp.noise in torch, with noise that is drawn anew each time."""

    window: Tensor
    predicted_fade: Tensor
    noise_fade: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        for name, factors in zip(("predicted_fade", "noise_fade"), fades(codec), strict=True):
            self.register_buffer(name, torch.from_numpy(factors), persistent=False)
        self.register_buffer("window", torch.from_numpy(hann_root(codec.window_samples)), persistent=False)

    def forward(self, predicted: Tensor, levels: Tensor, draws: int) -> list[Tensor]:
        """predicted [B, S, 2, bins], compressed levels [B, S, bins] -> spectra [B, S, 2, bins], one a draw."""
        size = torch.expm1(levels.float().clamp(max=LARGEST_LOG)) / COMPRESSION * self.noise_fade
        faded = predicted * self.predicted_fade
        return [faded + size.unsqueeze(2) * self.drawn(predicted) for _ in range(draws)]

    def drawn(self, like: Tensor) -> Tensor:
        """Spectra [B, S, 2, bins] of white noise, of unit power in each bin."""
        c = self.codec
        lead = c.window_samples // c.step_samples - 1
        wave = torch.randn(like.shape[0], (like.shape[1] + lead) * c.step_samples, device=like.device)
        spectrum = torch.fft.rfft(frame(wave, c.window_samples, c.step_samples) * self.window, norm="ortho")
        return torch.stack([spectrum.real, spectrum.imag], 2) * math.sqrt(2)


@dataclass(frozen=True)
class Coded:
    """`sound` as decoded: [B, N - delay] samples or [B, S, bands]; bits and penalty [B] means over frames.

    `other` is the same with noise of another draw, where the codec substitutes noise.
    """

    sound: Tensor
    other: Tensor | None
    soft_bits: Tensor
    hard_bits: Tensor
    penalty: Tensor


class CodecNet(nn.Module):
    """Encoder, quantiser and decoder as one differentiable chain."""

    def __init__(
        self,
        codec: CodecConfig,
        net: NetConfig,
        kind: str = "scalar",
        quantiser: QuantiserConfig | None = None,
    ):
        super().__init__()
        self.codec = codec
        self.analysis = LogMel(codec) if codec.mel_bands else Analysis(codec)
        self.quantiser = KINDS[kind](codec, quantiser or QuantiserConfig())
        self.encoder = Encoder(codec, net, self.quantiser.width_in)
        self.decoder = Decoder(codec, net)

    def forward(
        self,
        wave: Tensor,
        level: Tensor,
        lengths: Tensor | None = None,
        bypass: bool = False,
        cleaned: Tensor | None = None,
    ) -> Coded:
        """wave [B, N], level [B], lengths [B] samples of each item (all where None) -> what comes back and its cost.

        `cleaned` [B] bool: items whose latents shall be those of the sound without its noise.

        Items of a batch do not touch each other, but for batch normalisation in training: beyond its length an item
        costs nothing, is silent, and no codebook learns of it. With `bypass` nothing is quantised.
        """
        wanted = level if cleaned is None else level + self.codec.levels * cleaned
        latents, _ = self.encoder(self.analysis.spectra(wave), wanted)
        inside = None if lengths is None else within(lengths, self.codec.hop_samples, latents.shape[1])
        if bypass:
            nothing = latents.new_zeros(latents.shape[:2], dtype=torch.float32)
            found = Quantised(self.quantiser.bypass(latents, level), nothing, nothing, nothing)
        else:
            with torch.autocast(wave.device.type, enabled=False):  # codes in bf16 would be neighbours mistaken
                found = self.quantiser(latents.float(), level, inside)
        spectra, _ = self.decoder(self.quantiser.leave(found.latents, level), level)
        sound, *others = self.analysis.sounds(spectra, 2 if self.codec.noise else 1)
        other = others[0] if others else None
        costs = (found.soft_bits, found.hard_bits, found.penalty)
        if inside is None:
            return Coded(sound, other, *(cost.mean(1) for cost in costs))
        return Coded(sound, other, *((cost * inside).sum(1) / inside.sum(1) for cost in costs))

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
        found, _ = self.encoder(self.analysis.spectra(wave), chosen)
        return self.quantiser.enter(found, chosen % self.codec.levels)

    @torch.no_grad()
    def decoded(self, latents: Tensor, level: int) -> Tensor:
        """latents [B, T, D] of the codec's quantiser -> sound as in `Coded`."""
        chosen = torch.full((len(latents),), level, device=latents.device)
        return self.analysis.sound(self.decoder(self.quantiser.leave(latents, chosen), chosen)[0])


def begin_cleaning(state: dict[str, Tensor], levels: int) -> None:
    """Levels for cleaning start as copies of the plain ones, unless they have learned something already."""
    for name, value in state.items():
        if name.startswith("encoder.") and name.endswith(".film") and not value[levels:].any():
            value[levels:] = value[:levels]


def within(lengths: Tensor, size: int, count: int) -> Tensor:
    """Which of `count` frames of `size` samples hold samples of items so long [B]: [B, T] of 0 and 1."""
    return (torch.arange(count, device=lengths.device) * size < lengths.unsqueeze(1)).float()


def frame(wave: Tensor, size: int, step: int) -> Tensor:
    """wave [B, N] -> overlapping frames [B, T, size]; joined slices keep the backward pass cheap."""
    overlap = size // step
    hops = wave[:, : wave.shape[1] // step * step].unflatten(1, (-1, step))
    count = hops.shape[1] - overlap + 1
    return torch.cat([hops[:, lag : lag + count] for lag in range(overlap)], 2)
