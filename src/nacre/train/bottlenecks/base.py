"""What every kind of latents offers to training, and what it takes from a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.entropy.static_prior import MOST, StaticPrior
from nacre.quantise.base import Quantiser


@dataclass(frozen=True)
class Settings:
    """The table [quantiser] of a recipe; a kind that has settings derives its own."""

    def check_codec(self, codec: CodecConfig) -> None:
        """Raise TrainError for settings that contradict the codec's."""

    def check_corpus(self, frames: int) -> None:
        """Raise TrainError where so many frames of recordings are too few."""


@dataclass(frozen=True)
class Quantised:
    """latents [B, T, D] as the decoder sees them; bits [B, T] a frame, `soft` to learn from, `hard` as they would be.

    `penalty` [B, T] is what else the quantiser asks of the encoder.
    """

    latents: Tensor
    noisy_bits: Tensor
    rounded_bits: Tensor
    penalty: Tensor


class Bottleneck(nn.Module):
    """What every kind offers to training.

    `steered`: it has a rate to weigh; `learns`: it has weights of its own; `denoises`: an encoder may be taught to
    leave noise out; `width_in`: numbers it takes a frame, X; `one_rate`: all levels trained at one rate; `folded`: its
    parameters [L, D] inside the graphs, in the order in which each graph looks them up by level.
    """

    settings_type: ClassVar[type[Settings]] = Settings
    most_dims: ClassVar[int] = MOST[1]  # latent dims that a model folder can hold
    learns: ClassVar[bool] = True
    denoises: ClassVar[bool] = True
    folded: ClassVar[dict[str, tuple[str, ...]]] = {}
    fits: ClassVar[bool] = False  # a stage may start it from the latents of training speech
    steered = False
    one_rate = False
    width_in: int

    def to_latent(self, latents: Tensor, level: Tensor) -> Tensor:
        """The encoder's output [B, T, X] as the codec's quantiser takes it; part of the encoder graph."""
        return latents

    def from_latent(self, latents: Tensor, level: Tensor) -> Tensor:
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

    def export_quantiser(self) -> Quantiser:
        """The same for the codec, in numpy."""
        raise NotImplementedError

    def restore(self, quantiser: Quantiser, prior: StaticPrior) -> None:
        """Take the place of a model's quantiser, whose symbols the prior counted. Raises TrainError."""
        raise TrainError(f"training starts from models of kind scalar only; this one is of kind {quantiser.name}")

    @property
    def fit_frames(self) -> int:
        """How many frames `fit` wants at least, of a kind that `fits`."""
        return 0

    def fit(self, latents: Tensor) -> None:
        """Start from latents [N, D] of training speech, of a kind that `fits`."""
        raise NotImplementedError

    def kl_bits(self, latents: Tensor) -> Tensor | None:
        """KL divergence of latents [..., X], as of `to_latent`, from the prior; None of kinds that know none."""
        return None

    def figures(self) -> dict[str, float]:
        """Health of the bottleneck, for the log."""
        return {}


def used_columns(levels: int, columns: int) -> list[int]:
    """How many columns each level uses: an equal share more from level to level."""
    return [math.ceil((level + 1) * columns / levels) for level in range(levels)]


def step_scales(levels: int, coarsest: float, finest: float) -> Tensor:
    """Factors on the steps [L, 1] for models that were trained at one rate, spaced geometrically."""
    position = torch.linspace(0, 1, levels).unsqueeze(1)
    return coarsest * (finest / coarsest) ** position


def valid_frames(values: Tensor, inside: Tensor | None) -> Tensor:
    """Frames [N, X] of values [B, T, X], those outside `inside` [B, T] left out."""
    return values.flatten(0, 1) if inside is None else values[inside > 0]
