"""The trade of bits against distortion in training: a Lagrange weight for each quality level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HIGHEST_WEIGHT = 0.3  # of a bit against distortion


class RateControl:
    """One Lagrange weight a level, steered until the level's rate meets its target; or one beta for all of them.

    Training minimises sqrt(weight) * bits + distortion / sqrt(weight). Weights start near zero, so that the
    posterior does not collapse, and climb by at most `climb` (natural log) a step. With `beta`, the weight of a nat in
    the ELBO, they climb to it in `warmup` steps and stay. With `hold` they stay where they are put.
    """

    def __init__(
        self,
        targets: Tensor,
        start: float,
        climb: float = 0.02,
        gain: float = 0.004,
        beta: float = 0,
        warmup: int = 1,
        hold: bool = False,
    ):
        self.targets, self.hold = targets, hold  # [L] bits a frame
        self.log_weight = torch.full_like(targets, math.log(start))
        self.climb, self.gain = climb, gain
        self.lowest, self.highest = math.log(start / 100), math.log(HIGHEST_WEIGHT)
        self.goal = math.log(beta * math.log(2)) if beta else None
        self.rise = abs(self.goal - math.log(start)) / warmup if self.goal is not None else 0.0

    def weight(self, level: Tensor) -> Tensor:
        """Lagrange weights [B] of these levels."""
        return self.log_weight[level].exp()

    def update(self, level: Tensor, bits: Tensor) -> None:
        """Move the weights of levels [B] by how far bits [B] a frame lie from their targets."""
        if self.hold:
            return
        if self.goal is not None:
            self.log_weight += (self.goal - self.log_weight).clamp(-self.rise, self.rise)
            return
        error = torch.log(bits.clamp(min=0.1) / self.targets[level])
        change = torch.zeros_like(self.log_weight).index_add_(0, level, self.gain * error)
        self.log_weight += change.clamp(-self.climb, self.climb)
        self.log_weight = smooth(self.log_weight).clamp(self.lowest, self.highest)


def smooth(values: Tensor, share: float = 0.02) -> Tensor:
    """values [L] pulled a little towards the mean of their neighbours: rates of adjacent levels stay in order."""
    if len(values) == 1:
        return values
    padded = torch.cat([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    return values + share * ((padded[:-2] + padded[2:]) / 2 - values)
