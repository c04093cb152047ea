"""The adversarial loss: discriminators that learn to tell decoded sound from recordings, and draw it towards these.

Each sees patches of complex spectra and their level, at one window length (after Zeghidour et al., 2021, and Defossez
et al., 2022), learns by the hinge loss (Lim and Ye, 2017), and acts by its verdict and by the features it found in the
recording (Larsen et al., 2016; Kumar et al., 2019). How strongly it acts does not depend on the size of their
gradients: these are scaled to a share of the distortion's, item by item (after Defossez et al., 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.train.checks import above_zero, check, not_negative
from nacre.train.losses import planar_spectra
from nacre.train.nets.transforms import length_mask
from nacre.train.precision import FLOAT32

EXPONENT = 0.3  # that of the distortion: weak sounds are seen too
PATCH = 8  # bins
SLOPE = 0.2  # of the leaky rectifiers


@dataclass(frozen=True)
class AdversaryConfig:
    """Discriminators, one a window in samples, with `channels` and `layers` each, and how they learn.

    They see the first `items` of each part of a batch on each process. For the first `settle_steps` of a stage they
    learn and do not act yet. `matching` weighs the features against the verdict. A run whose distortion rises above
    `limit` times what it was while the discriminators settled has turned to noise and is stopped.
    """

    windows: tuple[int, ...] = (1024, 512, 256)
    channels: int = 16
    layers: int = 3
    items: int = 8
    learning_rate: float = 5e-4
    matching: float = 2.0
    settle_steps: int = 100
    limit: float = 1.3

    def __post_init__(self) -> None:
        framed = f"at least one window, each a multiple of {2 * PATCH} samples"
        check(self, "adversary", framed, lambda n: n and all(w > 0 and w % (2 * PATCH) == 0 for w in n), "windows")
        check(self, "adversary", "above 0", above_zero, "channels", "layers", "items", "learning_rate", "settle_steps")
        check(self, "adversary", "0 or more", not_negative, "matching")
        check(self, "adversary", "above 1", lambda limit: limit > 1, "limit")


class Discriminator(nn.Module):
    """Verdicts on patches, 8 bins by 3 frames and their surroundings: above 0 for recordings, below for decoded."""

    window: Tensor

    def __init__(self, size: int, channels: int, layers: int):
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.inward = nn.Conv2d(3, channels, (3, PATCH), stride=(1, PATCH // 2), padding=(1, PATCH // 4))
        self.place = nn.Parameter(torch.zeros(channels, 1, size // PATCH))  # which band a patch is of
        self.widen = normed(nn.Conv2d(channels, 2 * channels, 3, stride=(1, 2), padding=1))
        self.layers = nn.ModuleList(
            normed(nn.Conv2d(2 * channels, 2 * channels, 3, padding=(2**index, 1), dilation=(2**index, 1)))
            for index in range(layers)
        )
        self.outward = nn.Conv2d(2 * channels, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """wave [B, N] -> (verdicts [B, T, bands], features of each layer [B, 2 * channels, T, bands])."""
        parts = planar_spectra(wave, self.window)[..., :-1].transpose(0, 1)  # [B, 2, T, size / 2]
        log_power = (parts.square().sum(1, keepdim=True) + 1e-7).log()
        seen = [parts * ((EXPONENT / 2 - 0.5) * log_power).exp(), EXPONENT / 2 * (log_power + 6)]
        x = torch.cat(seen, 1).contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.inward(x) + self.place, SLOPE)
        features = []
        for layer in (self.widen, *self.layers):
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return self.outward(x).squeeze(1).float(), features


class Adversary(nn.Module):
    """All discriminators, what moves them, and the watch over the run."""

    settled: Tensor
    smoothed: Tensor

    def __init__(self, config: AdversaryConfig):
        super().__init__()
        self.config = config
        discriminators = (Discriminator(size, config.channels, config.layers) for size in config.windows)
        self.critics = nn.ModuleList(discriminators)  # the name that checkpoints have
        self.precision = FLOAT32
        self.register_buffer("settled", torch.zeros(()))  # distortion before the discriminators had a say
        self.register_buffer("smoothed", torch.zeros(()))  # and its moving average since

    def optimiser(self, learning_rate: float) -> torch.optim.Optimizer:
        """For a stage of this learning rate: the discriminators' own follows its course."""
        group = {"params": self.critics.parameters(), "pace": self.config.learning_rate / learning_rate}
        return torch.optim.AdamW([group], betas=(0.5, 0.9), weight_decay=0.01)

    def learn(
        self, decoded: Tensor, wave: Tensor, lengths: Tensor | None, strength: Tensor, parts: int = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """decoded (a leaf), wave [B, N], lengths [B] samples of each item (all where None) -> a gradient, and figures.

        The gradient [B, N] is on `decoded`, of norm `strength` [B] in each item that is seen, 0 in others. The
        discriminators' own gradients, the mean over `parts` of a batch, wait for the optimiser.
        """
        ours, theirs = decoded[: self.config.items], wave[: self.config.items]
        if lengths is not None:
            inside = length_mask(lengths[: self.config.items], 1, ours.shape[1])
            ours, theirs = ours * inside, theirs * inside
        fault, against, right = ours.new_zeros(()), ours.new_zeros(()), []
        for discriminator in self.critics:
            with self.precision.autocast(wave.device):
                true, features = discriminator(theirs)
                false, made = discriminator(ours)
            fault = fault + F.relu(1 - true).mean() + F.relu(1 + false).mean()
            apart = [
                (a - b.detach()).abs().mean((1, 2, 3), dtype=torch.float32)
                / b.detach().abs().mean(dtype=torch.float32).clamp(min=1e-3)
                for a, b in zip(made, features, strict=True)
            ]
            against = against - false.mean((1, 2)).sum() + self.config.matching * torch.stack(apart).mean(0).sum()
            right += [(true > 0).float().mean(), (false < 0).float().mean()]
        (gradient,) = torch.autograd.grad(against, decoded, retain_graph=True)
        (fault / parts).backward(inputs=list(self.parameters()))
        figures = {"discriminators/loss": fault / len(self.critics), "discriminators/right": torch.stack(right).mean()}
        return gradient * (strength / gradient.norm(dim=1).clamp(min=1e-12)).unsqueeze(1), figures

    def ready(self, step: int) -> bool:
        """Whether discriminators act at this step of a stage: at first they only learn."""
        return step >= self.config.settle_steps

    def watch(self, step: int, distortion: float) -> None:
        """Take the distortion of a step of the stage; raises TrainError where the decoder runs away from speech."""
        if not self.ready(step):
            if step == 0:
                self.settled.zero_()
            self.settled += (distortion - self.settled) / (step + 1)
            self.smoothed.copy_(self.settled)
            return
        self.smoothed += 0.02 * (distortion - self.smoothed)
        if self.smoothed > self.config.limit * self.settled:
            raise TrainError(
                f"step {step} of the adversarial stage: distortion is {self.smoothed:.3f},"
                f" {self.smoothed / self.settled:.2f} times that of its start, with a limit of {self.config.limit};"
                " start again with a lower adversarial share or learning_rate"
            )
