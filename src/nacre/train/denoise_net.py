"""The denoiser's network: a complex mask for each bin of each spectrum, from the past alone.

    spectra --a matrix for each band--> bands --[GRU over time, mixing across bands] x blocks--> a matrix each --> masks
    [B, T, 2 * bins]               [B, T, bands, width]                                              [B, T, 2 * bins]

Bands share the weights of their GRU (Cho et al., 2014), as sub-bands do in GTCRN (Rong et al., ICASSP 2024), and lie
closer where hearing is finer. Across bands there is the mixing of MLP-Mixer (Tolstikhin et al., 2021) in place of
attention: bands have their places, and two matrices are less to compute, in training too. A second GRU hears all bands
at once, so that a block knows what kind of noise there is; its weights are used once a frame, not once a band.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import DenoiserConfig
from nacre.train.checks import above_zero, check, not_negative

FAINT = 1e-6  # power of bins, over the loudest level so far, that counts as none
QUARTER = 0.25  # the power of sizes that the network sees
START = 0.7  # of masks: a little less than nothing done


@dataclass(frozen=True)
class DenoiseNetConfig:
    """Sizes: `width` numbers a band, `blocks`; `bands` are pairs (how many, bins in each), from the lowest up.

    The GRU over all bands has `whole` times `width` numbers; 0 leaves it out.
    """

    width: int = 24
    blocks: int = 2
    bands: tuple[tuple[int, int], ...] = ((8, 4), (8, 8), (8, 20))
    whole: int = 0

    def __post_init__(self) -> None:
        check(self, "net", "a whole number above 0", above_zero, "width", "blocks")
        check(self, "net", "0 or more", not_negative, "whole")
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


class Whole(nn.Module):
    """A GRU that hears all bands at once. It adds nothing before it has learnt."""

    def __init__(self, bands: int, width: int, rows: int):
        super().__init__()
        self.inward, self.outward = nn.Linear(bands * width, rows * width), nn.Linear(rows * width, bands * width)
        self.cell = nn.GRU(rows * width, rows * width)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, bands, width], past [B, rows, width] -> (what to add to x, past)."""
        heard, after = recurrent(self.cell, F.relu(self.inward(x.flatten(2))).transpose(0, 1), past.flatten(1)[None])
        return self.outward(heard.transpose(0, 1)).unflatten(2, x.shape[2:]), after.reshape(past.shape)

    def grown(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a smaller one at this size: what is new hears all, and nothing hears it yet."""
        own, old = {name: value.clone() for name, value in self.state_dict().items()}, len(weights["inward.weight"])
        for name, value in weights.items():
            if name.startswith("cell.weight"):
                gates = own[name].unflatten(0, (3, -1))
                gates[:, :old] = 0
                gates[:, :old, :old] = value.unflatten(0, (3, -1))
            elif name.startswith("cell.bias"):
                own[name].unflatten(0, (3, -1))[:, :old] = value.unflatten(0, (3, -1))
            elif name == "outward.weight":
                own[name] = torch.cat([value, torch.zeros_like(own[name][:, old:])], 1)
            else:
                own[name][: len(value)] = value
        return own


class Block(nn.Module):
    """A GRU along time, the same in all bands, then two layers across bands, the same for all numbers of a band."""

    def __init__(self, bands: int, width: int, whole: int):
        super().__init__()
        self.cell = nn.GRU(width, width)
        self.before, self.after = nn.LayerNorm((bands, width)), nn.LayerNorm((bands, width))
        self.up = nn.Parameter(torch.randn(2 * bands, bands) * bands**-0.5)
        self.bias = nn.Parameter(torch.zeros(2 * bands, 1))
        self.down = nn.Parameter(torch.randn(bands, 2 * bands) * (0.3 * (2 * bands) ** -0.5))
        self.whole = Whole(bands, width, whole) if whole else None

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, bands, width], past [B, P, width] -> (x, past)."""
        batch, _, bands, width = x.shape
        rows = x.permute(1, 0, 2, 3).flatten(1, 2)  # [T, B * bands, width]
        hidden, after = recurrent(self.cell, rows, past[:, :bands].reshape(1, batch * bands, width))
        x = x + hidden.unflatten(1, (batch, bands)).permute(1, 0, 2, 3)
        seen, pasts = self.before(x), [after.reshape(batch, bands, width)]
        x = x + self.down @ F.relu(self.up @ seen + self.bias)
        if self.whole is not None:
            added, after = self.whole(seen, past[:, bands:])
            x, pasts = x + added, [*pasts, after]
        return self.after(x), torch.cat(pasts, 1)


def recurrent(cell: nn.GRU, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """rows [T, R, W], state [1, R, W] -> (rows, state); in a graph the GRU is ONNX's own."""
    if torch.onnx.is_in_onnx_export():
        return as_operator(cell, rows, state)
    heard, after = cell(rows, state)
    return heard, after


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
        self.blocks = nn.ModuleList(Block(bands, net.width, net.whole) for _ in range(net.blocks))
        self.inward, self.outward = nn.ModuleList(), nn.ModuleList()
        for count, bins in net.bands:
            self.inward.append(Inward(first, count, bins, denoiser.bins, net.width))
            self.outward.append(Outward(count, bins, net.width))
            first += count * bins
        self.bias = nn.Parameter(torch.zeros(bands, net.width))
        self.before, self.after = nn.LayerNorm((bands, net.width)), nn.LayerNorm((bands, net.width))
        self.counts = [count for count, _ in net.bands]
        self.past_shape, self.bins = (net.blocks * (bands + net.whole), net.width), denoiser.bins

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


def compressed(parts: Tensor, exponent: float = QUARTER) -> Tensor:
    """Spectra [..., 2, bins] -> [..., 3, bins]: real, imaginary part and size, sizes to the power of `exponent`."""
    power = parts.square().sum(-2, keepdim=True) + FAINT
    size = power.sqrt().sqrt().sqrt() if exponent == QUARTER else power ** (exponent / 2)  # graphs have roots only
    return torch.cat([parts * (size * power.rsqrt()), size], -2)
