"""Training of a denoiser: noisy excerpts in, complex masks out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.train.degrade import NOTHING
from nacre.train.denoise_loss import DenoiseLoss
from nacre.train.denoise_net import DenoiseNet, Whole
from nacre.train.denoise_recipe import DenoiseRecipe
from nacre.train.loop import Sounds, open_run, run_steps
from nacre.train.recordings import Data, Given
from nacre.train.run import CHECKPOINT, Run, copies, part_of, read_checkpoint
from nacre.train.sampler import Sampler
from nacre.train.trainer import Trainer

JUDGED, JUDGED_ITEMS = 1 << 30, 24  # seed and number of excerpts that validation looks at
STEEPEST = 0.3  # gradient that is followed; ten times the usual one


@dataclass
class DenoiseRun(Run):
    """A run with one optimiser."""

    net: DenoiseNet

    @classmethod
    def new(cls, recipe: DenoiseRecipe, device: torch.device) -> DenoiseRun:
        """Fresh weights from the recipe's seed."""
        torch.manual_seed(recipe.seed)
        net = DenoiseNet(recipe.net, recipe.denoiser).to(device)
        return cls(net, copies(net), [torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0.01)])

    def begin_with(self, folder: Path) -> None:
        """Take the averaged weights of a finished run, perhaps of a network with a smaller GRU over all bands, or none.

        What that has not stays fresh and adds nothing at first. Raises TrainError.
        """
        path = folder / f"{CHECKPOINT}.safetensors"
        weights = part_of(read_checkpoint(path)[1], "mean.")
        try:
            for name, part in self.net.named_modules():
                smaller = part_of(weights, f"{name}.") if isinstance(part, Whole) else {}
                if smaller and len(smaller["inward.weight"]) < part.inward.out_features:
                    weights |= {f"{name}.{key}": value for key, value in part.grown(smaller).items()}
            unknown = self.net.load_state_dict(weights, strict=False).unexpected_keys
        except RuntimeError:
            unknown = list(weights)
        if unknown:
            raise TrainError(f"{path} is of another network than the recipe's; compare [net] in both")
        self.mean = copies(self.net)

    def prefix(self, index: int) -> str:
        """There is one optimiser, so its tensors go without a number."""
        return "optimiser."


class DenoiseTrainer(Trainer):
    """Runs the steps of a recipe from wherever its run stands."""

    run: DenoiseRun

    def __init__(self, recipe: DenoiseRecipe, run: DenoiseRun, sounds: Sounds, fabric: Fabric):
        self.recipe, self.run, self.sounds, self.fabric = recipe, run, sounds, fabric
        codec = CodecConfig(rate_hz=recipe.rate_hz)
        self.sampler = Sampler(
            sounds.speech, codec, recipe.degrade, sounds.noise, recipe.balance, noise_mix=recipe.dirt
        )
        valid = sounds.valid or sounds.speech
        self.judged = Sampler(valid, codec, NOTHING, sounds.noise, 1.0, noise_mix=recipe.dirt)
        how = recipe.magnitude, recipe.wave, recipe.windows, recipe.under, recipe.compression
        self.loss = DenoiseLoss(recipe.denoiser, recipe.rate_hz, *how).to(fabric.device)
        self.forward = fabric.setup_module(run.net)

    def drawn(
        self, sampler: Sampler, seed: tuple[int, ...], items: int, share: float, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Spectra [B, T, 2, bins] of noisy excerpts, and the clean [B, N], of unit power where there is speech."""
        drawn = sampler.draw(items, self.recipe.samples, seed, share, first)
        size = np.where(drawn.targets.std(1) > 1e-4, drawn.targets.std(1), drawn.waves.std(1)) + 1e-6
        waves = torch.from_numpy(np.stack([drawn.waves, drawn.targets]) / size[:, None].astype(np.float32))
        noisy, clean = waves.to(self.fabric.device)
        return self.loss.spectra(noisy), clean

    def step(self) -> dict[str, float]:
        """One step; returns the figures for the log. Raises TrainError for a run that diverged."""
        recipe, run, (optimiser,) = self.recipe, self.run, self.run.optimisers
        seed, first = (recipe.seed, run.step), self.fabric.global_rank * recipe.batch
        noisy, clean = self.drawn(self.sampler, seed, recipe.batch, 1 - recipe.clean, first)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate_at(run.step)
        optimiser.zero_grad(set_to_none=True)
        masks, _ = self.forward(self.loss.ready(noisy))
        loss = self.loss(masks, noisy, clean).mean()
        self.fabric.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(run.net.parameters(), STEEPEST))
        if not math.isfinite(norm):
            advice = "the last checkpoint is kept; lower learning_rate and use --resume"
            raise TrainError(f"step {run.step}: the gradient is {norm}; {advice}")
        optimiser.step()
        run.step += 1
        run.seconds_seen += self.fabric.world_size * recipe.batch * recipe.samples / recipe.rate_hz
        run.average(recipe.ema_decay)
        return {"loss": float(loss.detach()), "gradient": norm}

    @torch.no_grad()
    def validate(self) -> tuple[str, dict[str, float]]:
        """Loss of the averaged weights over that of sound left as it is, on noisy excerpts."""
        net = DenoiseNet(self.recipe.net, self.recipe.denoiser).to(self.fabric.device)
        net.load_state_dict(self.run.mean)
        noisy, clean = self.drawn(self.judged, (self.recipe.seed, JUDGED), JUDGED_ITEMS, 1.0)
        masks, _ = net(self.loss.ready(noisy))
        nothing = torch.stack([torch.ones_like(noisy[:, :, 0]), torch.zeros_like(noisy[:, :, 0])], 2).flatten(2)
        left = float(self.loss(masks, noisy, clean).mean() / self.loss(nothing, noisy, clean).mean())
        return f"{left:.1%} of the distance to clean speech is left", {"distance_left": left}

    def headline(self, figures: dict[str, float]) -> str:
        """Loss and speed."""
        return f"loss {figures['loss']:.4f}  {figures['audio_s_per_s']:.0f} x"


def train_denoiser(
    recipe: DenoiseRecipe,
    data: Given,
    out: Path,
    noise: Data | None = None,
    valid: Data | None = None,
    *,
    start: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
    processes: int = 1,
) -> DenoiseRun:
    """Train a recipe on a folder or several into the folder `out`; `resume` goes on from its checkpoint.

    A new run begins with the weights of the run in the folder `start`, as far as that has them. Raises TrainError for
    a folder in use, data without sound, or a run that diverged (its last checkpoint stays).
    """
    folders, new = (data, noise, valid), partial(DenoiseRun.new, recipe)
    run, sounds, fabric = open_run(folders, out, recipe.rate_hz, new, resume, quiet, processes, recipe.range_db)
    if start and run.step == 0:
        run.begin_with(start)
    run_steps(DenoiseTrainer(recipe, run, sounds, fabric), out, max_steps, quiet)
    return run
