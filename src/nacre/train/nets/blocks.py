"""Causal blocks in a row: ConvNeXt or recurrent, conditioned on the quality level.

Every layer looks at the past only, so one `forward` with its state passed in and out is both training over a clip
and a live step. Blocks follow ConvNeXt (Liu et al., 2022), or hold a GRU (Cho et al., 2014) or an LSTM (Hochreiter and
Schmidhuber, 1997); level conditioning is FiLM (Perez et al., 2018).

An installed package adds a block as an entry point of the group `nacre.blocks`: a function of NetConfig and the number
of levels, whose module has `past_shape` (rows, width) and takes and gives what CausalBlock does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.kinds import Registry
from nacre.train.checks import above_zero, check, one_of


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
        if torch.onnx.is_in_onnx_export() and self.past_frames:
            mixed = self._as_operator(joined)
        else:
            mixed = joined[:, :frames] * self.depthwise[0]
            for tap in range(1, self.past_frames + 1):  # shifted sums fuse well and need no transposed copies
                mixed = mixed + joined[:, tap : tap + frames] * self.depthwise[tap]
        scale, shift = self.film[level].unsqueeze(2).unbind(1)  # [B, 1, width] each
        hidden = self.norm(mixed) * (1 + scale) + shift
        return x + self.down(self.drop(F.gelu(self.up(hidden), approximate="tanh"))), joined[:, frames:]

    def _as_operator(self, joined: Tensor) -> Tensor:
        """The convolution as ONNX's own, of images one pixel wide: onnxruntime is quick at these alone."""
        taps = self.depthwise.t()[:, None, :, None]  # [width, 1, kernel, 1]
        image = joined.unsqueeze(2).permute(0, 3, 1, 2)
        return F.conv2d(image, taps, groups=len(taps)).permute(0, 2, 3, 1).squeeze(2)


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
        outputs = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if lstm else "GRU",
            inputs,
            settings,
            dtypes=[frames.dtype] * (1 + self.rows),
            shapes=[[frames.shape[0], 1, 1, width], *[[1, 1, width]] * self.rows],
            version=14,
        )
        return outputs[0].squeeze(1).transpose(0, 1), torch.cat(list(outputs[1:]))


BLOCKS: Registry[Callable[[NetConfig, int], nn.Module]] = Registry(
    "nacre.blocks",
    convolutional=lambda net, levels: CausalBlock(net, levels, net.kernel),
    gru=lambda net, levels: RecurrentBlock(net, levels, nn.GRU),
    lstm=lambda net, levels: RecurrentBlock(net, levels, nn.LSTM),
    dense=lambda net, levels: CausalBlock(net, levels, 1),
)


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
