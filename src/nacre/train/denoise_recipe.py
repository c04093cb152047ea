"""Recipes of denoisers: TOML files whose kind is "denoiser"."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.core.config import DenoiserConfig
from nacre.core.errors import TrainError, reason
from nacre.train.checks import above_zero, check, not_negative, one_of, share
from nacre.train.degrade import DegradeConfig, NoiseMixConfig
from nacre.train.denoise_net import DenoiseNetConfig
from nacre.train.recipe import build, read_values

KIND = "denoiser"


@dataclass(frozen=True)
class DenoiseRecipe:
    """A training run of a denoiser.

    Of the `batch` excerpts of a step a share `clean` has no noise: nothing is to be done to them. `magnitude`, `under`,
    `wave`, `windows` and `compression` are what `denoise_loss.DenoiseLoss` takes. Recordings of speech whose noise lies
    less than `range_db` below it are left out.
    """

    name: str
    steps: int
    kind: str = KIND
    seed: int = 0
    rate_hz: int = 16_000
    batch: int = 6
    excerpt_s: float = 2.0
    balance: float = 0.5
    clean: float = 0.1
    magnitude: float = 0.7
    under: float = 1.0
    wave: float = 0.03
    windows: tuple[int, ...] = (256, 512, 1024)
    compression: float = 0.25
    range_db: float = 0.0
    learning_rate: float = 3e-3
    warmup_steps: int = 150
    decay_share: float = 0.5  # last share of the run over which the rate falls to 1 %
    ema_decay: float = 0.998
    checkpoint_steps: int = 200
    validate_steps: int = 1000
    licence: str = ""
    sources: tuple[str, ...] = ()
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    net: DenoiseNetConfig = field(default_factory=DenoiseNetConfig)
    degrade: DegradeConfig = field(default_factory=DegradeConfig)
    dirt: NoiseMixConfig = field(default_factory=NoiseMixConfig)

    def __post_init__(self) -> None:
        one_of(self, "", (KIND,), "kind")
        check(self, "", "above 0", above_zero, "steps", "batch", "excerpt_s", "learning_rate", "rate_hz", "compression")
        check(self, "", "above 0", above_zero, "checkpoint_steps", "validate_steps")
        check(self, "", "0 or more", not_negative, "seed", "warmup_steps", "balance", "wave", "under", "range_db")
        longest = self.samples - self.denoiser.step_samples
        fits = f"some sizes of 8 to {longest} samples"
        check(self, "", fits, lambda sizes: sizes and min(sizes) >= 8 and max(sizes) <= longest, "windows")
        check(self, "", "0 to 1", share, "clean", "magnitude", "compression", "decay_share", "ema_decay")
        covered = self.denoiser.bins - 1
        check(self.net, "net", f"{covered} bins in all", lambda _: self.net.bins == covered, "bands")

    @property
    def samples(self) -> int:
        """Samples of an excerpt: whole steps, as many as make a window at least."""
        step, window = self.denoiser.step_samples, self.denoiser.window_samples
        return max(window // step + 1, round(self.excerpt_s * self.rate_hz / step)) * step

    def rate_at(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, linear decay."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.steps - step) / max(1.0, self.steps * self.decay_share)
        return self.learning_rate * min(rise, max(0.01, min(1.0, left)))


def is_denoiser(values: dict[str, Any]) -> bool:
    """Whether the values of a recipe are of a denoiser."""
    return values.get("kind") == KIND


def load_denoise_recipe(path: Path, changes: tuple[str, ...] = ()) -> DenoiseRecipe:
    """Recipe from a TOML file with key=value overrides. Raises TrainError."""
    recipe: DenoiseRecipe = build(DenoiseRecipe, read_values(path, changes))
    return recipe


def values_of(run: Path) -> dict[str, Any]:
    """The values of the recipe that a run folder was trained with. Raises TrainError."""
    try:
        values = json.loads((run / "recipe.json").read_text())
    except (OSError, ValueError) as error:
        raise TrainError(f"{run} is no folder written by `nacre train`: {reason(error)}") from error
    return values if isinstance(values, dict) else {}
