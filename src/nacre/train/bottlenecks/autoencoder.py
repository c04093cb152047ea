"""No quantiser in training: a plain autoencoder, whose latents are cut into equal steps afterwards."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nacre.core.config import CodecConfig
from nacre.quantise import scalar
from nacre.quantise.base import Quantiser
from nacre.train.bottlenecks.base import Bottleneck, Quantised, Settings, step_scales, valid_frames


class PlainQuantiser(Bottleneck):
    """No quantiser in training: a plain autoencoder, cut into steps afterwards."""

    learns = denoises = False
    spread: Tensor

    def __init__(self, codec: CodecConfig, settings: Settings):
        super().__init__()
        self.width_in, self.levels = codec.latent_dims, codec.levels
        self.register_buffer("spread", torch.ones(codec.latent_dims))

    def forward(self, latents: Tensor, level: Tensor, inside: Tensor | None = None) -> Quantised:
        """latents [B, T, D] unchanged, no bits."""
        if self.training:
            with torch.no_grad():
                self.spread.lerp_(valid_frames(latents.float(), inside).std(0).clamp(min=1e-4), 0.01)
        nothing = latents.new_zeros(latents.shape[:2], dtype=torch.float32)
        return Quantised(latents, nothing, nothing, nothing)

    @torch.no_grad()
    def export_quantiser(self) -> Quantiser:
        """For the codec: the same share of the spread in each dimension."""
        even = (step_scales(self.levels, 3.0, 0.05) * self.spread.cpu()).numpy()
        steps = np.array(scalar.six_digits(even), np.float32)
        return scalar.ScalarQuantiser(steps, np.zeros_like(steps))
