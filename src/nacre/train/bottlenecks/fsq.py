"""A few values a dimension and no codebook (finite scalar quantisation: Mentzer et al., 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nacre.core.config import CodecConfig
from nacre.quantise import fsq
from nacre.quantise.base import Quantiser
from nacre.train.bottlenecks.base import Bottleneck, Quantised, Settings, used_columns
from nacre.train.checks import check


@dataclass(frozen=True)
class FiniteSettings(Settings):
    """`values` a dimension, an odd number."""

    values: int = 5

    def __post_init__(self) -> None:
        check(self, "quantiser", "an odd number from 3 to 255", lambda n: 3 <= n <= 255 and n % 2 == 1, "values")


class FiniteScalar(Bottleneck):
    """Latents squashed into -1..1 and rounded to `values` values a dimension; a level uses the first dimensions."""

    settings_type = FiniteSettings
    most_dims = 255
    learns = False
    dims: Tensor

    def __init__(self, codec: CodecConfig, settings: FiniteSettings):
        super().__init__()
        self.width_in, self.reach = codec.latent_dims, settings.values // 2
        self.register_buffer("dims", torch.tensor(used_columns(codec.levels, codec.latent_dims)), persistent=False)

    def _active(self, level: Tensor) -> Tensor:
        place = torch.arange(self.width_in, device=level.device)
        return (place < self.dims[level].unsqueeze(1)).unsqueeze(1)  # [B, 1, D]

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, D], level [B] -> rounded latents; bits of fixed-length symbols."""
        bounded = torch.tanh(latents.float())
        rounded = bounded + ((self.reach * bounded).round() / self.reach - bounded).detach()
        bits = self.dims[level].float().unsqueeze(1).expand(latents.shape[:2]) * math.log2(2 * self.reach + 1)
        nothing = torch.zeros_like(bits)
        return Quantised(rounded * self._active(level), nothing, bits, nothing)

    def bypass(self, latents: Tensor, level: Tensor) -> Tensor:
        """Squashed, not rounded."""
        return torch.tanh(latents.float())

    def export_quantiser(self) -> Quantiser:
        """For the codec."""
        return fsq.FiniteScalar(self.reach, self.width_in, self.dims.cpu().numpy().astype(np.uint8))
