"""The denoiser's network: a complex mask for each bin of each spectrum, from the past alone.

    spectra --a matrix for each band--> bands --[GRU over time, mixing across bands] x blocks--> a matrix each --> masks
    [B, T, 2 * bins]               [B, T, bands, width]                                              [B, T, 2 * bins]

Bands share the weights of their GRU (Cho et al., 2014), as sub-bands do in GTCRN (Rong et al., ICASSP 2024), and lie
closer where hearing is finer. Across bands there is the mixing of MLP-Mixer (Tolstikhin et al., 2021) in place of
attention: bands have their places, and two matrices are less to compute, in training too. Losses on compressed
spectra follow Braun and Tashev, "A consolidated view of loss functions for supervised deep learning-based speech
enhancement" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import DenoiserConfig
from nacre.dsp.low_delay import windows
from nacre.train.checks import above_zero, check

FAINT = 1e-6  # power of bins, over the loudest level so far, that counts as none
START = 0.7  # of masks: a little less than nothing done


@dataclass(frozen=True)
class DenoiseNetConfig:
    """Sizes: `width` numbers a band, `blocks`; `bands` are pairs (how many, bins in each), from the lowest up."""

    width: int = 24
    blocks: int = 2
    bands: tuple[tuple[int, int], ...] = ((8, 4), (8, 8), (8, 20))

    def __post_init__(self) -> None:
        check(self, "net", "a whole number above 0", above_zero, "width", "blocks")
        fits = "pairs of an even number of bins and how many bands have it"
        check(self, "net", fits, lambda pairs: pairs and all(n > 0 < w and w % 2 == 0 for n, w in pairs), "bands")

    @property
    def bins(self) -> int:
        """Bins that the bands cover; the one at 0 Hz, which is dropped, comes before them."""
        return sum(count * bins for count, bins in self.bands)


class Inward(nn.Module):
    """A matrix for each of `count` bands, from its `bins` bins and half as many on both sides."""

    index: Tensor

    def __init__(self, first: int, count: int, bins: int, whole: int, width: int):
        super().__init__()
        at = first + torch.arange(count)[:, None] * bins + torch.arange(-bins // 2, bins + bins // 2)
        at = at.abs()
        self.register_buffer("index", torch.where(at > whole - 1, 2 * (whole - 1) - at, at).flatten(), False)
        self.count, rows = count, 6 * bins
        self.weight = nn.Parameter(torch.randn(count, rows, width) * rows**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, T, 3, bins] -> [B, T, count, width]."""
        near = features[..., self.index].unflatten(-1, (self.count, -1)).transpose(2, 3).flatten(3)
        mixed: Tensor = torch.einsum("btnk,nkc->btnc", near, self.weight)
        return mixed


class Outward(nn.Module):
    """A matrix for each of `count` bands, to the masks of its `bins` bins."""

    def __init__(self, count: int, bins: int, width: int):
        super().__init__()
        self.bins = bins
        self.weight = nn.Parameter(torch.randn(count, width, 2 * bins) * (0.3 * width**-0.5))
        self.bias = nn.Parameter(torch.tensor([[START], [0.0]]).repeat(count, 1, bins).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, count, width] -> masks [B, T, 2, count * bins]."""
        mask = torch.einsum("btnc,nck->btnk", x, self.weight) + self.bias
        return mask.unflatten(-1, (2, self.bins)).transpose(2, 3).flatten(3)


class Block(nn.Module):
    """A GRU along time, the same in all bands, then two layers across bands, the same for all numbers of a band."""

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.cell = nn.GRU(width, width)
        self.before, self.after = nn.LayerNorm((bands, width)), nn.LayerNorm((bands, width))
        self.up = nn.Parameter(torch.randn(2 * bands, bands) * bands**-0.5)
        self.bias = nn.Parameter(torch.zeros(2 * bands, 1))
        self.down = nn.Parameter(torch.randn(bands, 2 * bands) * (0.3 * (2 * bands) ** -0.5))

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, bands, width], past [B, bands, width] -> (x, past)."""
        batch, _, bands, width = x.shape
        rows = x.permute(1, 0, 2, 3).flatten(1, 2)  # [T, B * bands, width]
        state = past.reshape(1, batch * bands, width)
        hidden, after = (
            as_operator(self.cell, rows, state) if torch.onnx.is_in_onnx_export() else self.cell(rows, state)
        )
        x = x + hidden.unflatten(1, (batch, bands)).permute(1, 0, 2, 3)
        x = x + self.down @ F.relu(self.up @ self.before(x) + self.bias)
        return self.after(x), after.reshape(batch, bands, width)


def as_operator(cell: nn.GRU, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """A GRU as ONNX's own operator, which is one call for any number of frames: rows [T, R, W], state [1, R, W]."""
    parts = [torch.cat([value.chunk(3)[gate] for gate in (1, 0, 2)]) for value in cell.parameters()]  # rzn to zrh
    inputs = [rows, parts[0][None], parts[1][None], torch.cat(parts[2:])[None], None, state]
    frames, count, width = rows.shape
    hidden, after = torch.onnx.ops.symbolic_multi_out(
        "GRU",
        inputs,
        {"hidden_size": width, "linear_before_reset": 1},
        dtypes=[rows.dtype] * 2,
        shapes=[[frames, 1, count, width], [1, count, width]],
        version=14,
    )
    return hidden.squeeze(1), after


class DenoiseNet(nn.Module):
    """Spectra over the loudest level so far -> masks."""

    def __init__(self, net: DenoiseNetConfig, denoiser: DenoiserConfig):
        super().__init__()
        bands, first = sum(count for count, _ in net.bands), 1
        self.blocks = nn.ModuleList(Block(bands, net.width) for _ in range(net.blocks))
        self.inward, self.outward = nn.ModuleList(), nn.ModuleList()
        for count, bins in net.bands:
            self.inward.append(Inward(first, count, bins, denoiser.bins, net.width))
            self.outward.append(Outward(count, bins, net.width))
            first += count * bins
        self.bias = nn.Parameter(torch.zeros(bands, net.width))
        self.before, self.after = nn.LayerNorm((bands, net.width)), nn.LayerNorm((bands, net.width))
        self.counts = [count for count, _ in net.bands]
        self.past_shape, self.bins = (net.blocks * bands, net.width), denoiser.bins

    def forward(self, frames: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """frames [B, T, 2 * bins], past [B, P, W] -> (masks [B, T, 2 * bins], past); real parts come first."""
        if past is None:
            past = frames.new_zeros(len(frames), *self.past_shape)
        features = compressed(frames.unflatten(-1, (2, -1)))
        x = torch.cat([inward(features) for inward in self.inward], 2) + self.bias
        skipped, after = x, []
        x = self.before(x)
        for block, state in zip(self.blocks, past.chunk(len(self.blocks), 1), strict=True):
            x, state = block(x, state)
            after.append(state)
        x = F.relu(self.after(x) + 0.5 * skipped)
        parts = zip(self.outward, x.split(self.counts, 2), strict=True)
        masks = torch.cat([outward(part) for outward, part in parts], -1)
        return F.pad(masks, (1, 0)).flatten(2), torch.cat(after, 1)  # nothing is left at 0 Hz


def compressed(parts: Tensor) -> Tensor:
    """Spectra [..., 2, bins] -> [..., 3, bins]: real, imaginary part and size, sizes to the power of 1/4."""
    power = parts.square().sum(-2, keepdim=True) + FAINT
    size = power.sqrt().sqrt().sqrt()
    return torch.cat([parts * (size * power.rsqrt()), size], -2)


class DenoiseLoss(nn.Module):
    """Distance of masked from clean spectra, compressed: `magnitude` of it of sizes, the rest of complex values."""

    window: Tensor

    def __init__(self, denoiser: DenoiserConfig, rate_hz: int, magnitude: float):
        super().__init__()
        window = torch.from_numpy(windows(denoiser.window_samples, denoiser.step_samples)[0])
        self.register_buffer("window", window / window.square().sum().sqrt(), False)
        self.denoiser, self.fall, self.magnitude = denoiser, denoiser.fall(rate_hz), magnitude

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N] -> [B, T, 2, bins]."""
        size, step = self.denoiser.window_samples, self.denoiser.step_samples
        spectra = torch.fft.rfft(F.pad(wave, (size - step, 0)).unfold(-1, size, step) * self.window)
        return torch.stack([spectra.real, spectra.imag], 2)

    def ready(self, spectra: Tensor) -> Tensor:
        """What the network is given [B, T, 2 * bins]: spectra over the loudest level so far, as it falls."""
        level = spectra.square().sum(2).mean(-1).clamp_min(1e-8).log().mul(0.5)  # [B, T]
        slope = torch.arange(level.shape[1], device=level.device) * -torch.tensor(self.fall).log()
        loudest = (level + slope).cummax(1).values - slope
        return (spectra * (-loudest).exp()[..., None, None]).flatten(2)

    def forward(self, masks: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
        """masks [B, T, 2 * bins], spectra [B, T, 2, bins] -> [B]."""
        mask, wanted = masks.unflatten(-1, (2, -1)), compressed(clean)
        real = noisy[:, :, 0] * mask[:, :, 0] - noisy[:, :, 1] * mask[:, :, 1]
        imag = noisy[:, :, 0] * mask[:, :, 1] + noisy[:, :, 1] * mask[:, :, 0]
        error = (compressed(torch.stack([real, imag], 2)) - wanted).square().mean((1, 3))  # [B, 3]
        return self.magnitude * error[:, 2] + (1 - self.magnitude) * error[:, :2].sum(1)
