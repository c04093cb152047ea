"""Training of a codec: seeded batches, one optimisation step after the other, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.train.bottlenecks.base import valid_frames
from nacre.train.codec_run import CodecRun, learning_rate, new_run
from nacre.train.loop import Sounds, open_run, run_steps
from nacre.train.losses import MelLoss, SpectralLoss
from nacre.train.nets.codec_net import Coded
from nacre.train.nets.transforms import length_mask
from nacre.train.precision import fastest
from nacre.train.processes import gathered, mean_of, share_gradients
from nacre.train.recipe import Recipe, StageConfig
from nacre.train.recordings import Data, Given
from nacre.train.sampler import Excerpts, Sampler
from nacre.train.trainer import Trainer
from nacre.train.validate import Judge


def loss_of(recipe: Recipe) -> SpectralLoss | MelLoss:
    """How far what comes back is from what went in: of sound, or of log-mel frames where the codec makes those."""
    if recipe.codec.mel_bands:
        return MelLoss(recipe.codec.step_samples)
    return SpectralLoss(recipe.loss, recipe.codec.rate_hz, recipe.compile)


@dataclass(frozen=True)
class Items:
    """Excerpts [B, N] for the encoder and for the decoder, their lengths [B] where they are masked, whether they are
    to be denoised [B], and their quality levels [B]."""

    wave: Tensor
    target: Tensor
    lengths: Tensor | None
    denoised: Tensor
    level: Tensor

    @classmethod
    def of(cls, drawn: Excerpts, level: Tensor, whole: bool, device: torch.device) -> Items:
        """Excerpts on a device."""
        arrays = (drawn.waves, drawn.targets, drawn.lengths, drawn.denoised)
        wave, target, lengths, denoised = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(wave, target, lengths if whole else None, denoised, level.to(device))

    def parts(self, count: int) -> list[Items]:
        """The same in `count` parts of one size."""
        columns = [
            [None] * count if column is None else column.chunk(count)
            for column in (self.wave, self.target, self.lengths, self.denoised, self.level)
        ]
        return [Items(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Learned:
    """What a part of a batch cost, [B] each, and figures for the log."""

    costs: dict[str, Tensor]
    figures: dict[str, Tensor]

    @classmethod
    def joined(cls, parts: list[Learned]) -> Learned:
        """The parts of a batch as one."""
        costs = {name: torch.cat([part.costs[name] for part in parts]) for name in parts[0].costs}
        figures = {name: torch.stack([part.figures[name] for part in parts]).mean() for name in parts[0].figures}
        return cls(costs, figures)


class CodecTrainer(Trainer):
    """Runs the steps of a recipe from wherever its run stands."""

    run: CodecRun

    def __init__(self, recipe: Recipe, run: CodecRun, sounds: Sounds, fabric: Fabric):
        self.recipe, self.run, self.sounds, self.fabric = recipe, run, sounds, fabric
        self.sampler = Sampler(
            sounds.speech,
            recipe.codec,
            recipe.degrade,
            sounds.noise,
            recipe.data.balance,
            recipe.data.whole,
            recipe.dirt,
        )
        self.loss = loss_of(recipe).to(fabric.device)
        self.precision = fastest(fabric.device)  # Fabric's own bf16-mixed would round the waves, too
        run.adversary.precision = self.precision
        if recipe.compile:
            for module in list(run.net.modules()):
                if type(module).__name__ == "CausalBlock":
                    module.compile()
        self.forward: Any = run.net
        self._wrapped_stage = -1
        self._judge: Judge | None = None

    @property
    def samples(self) -> int:
        """Length of an excerpt."""
        codec = self.recipe.codec
        return round(self.recipe.data.excerpt_s * float(codec.frame_rate_hz)) * codec.hop_samples

    def step(self) -> dict[str, float]:
        """One optimisation step over all processes; returns the figures for the log. Raises TrainError."""
        recipe, run, fabric = self.recipe, self.run, self.fabric
        index, inside = recipe.stage_at(run.step)
        stage, items = recipe.stage[index], recipe.data.batch
        if index != run.stage:
            if stage.fit:
                self._fit()
            run.enter(index)
        if index != self._wrapped_stage:
            self.forward, self._wrapped_stage = fabric.setup_module(run.net), index
        seed = (recipe.seed, run.step, fabric.global_rank)
        drawn = self.sampler.draw(items, self.samples, seed, stage.cleaning)
        torch.manual_seed(hash(seed) & 0x7FFFFFFF)
        level = torch.randint(recipe.codec.levels, (items,))
        figures = self._optimise(Items.of(drawn, level, recipe.data.whole, fabric.device), stage, inside)
        run.step += 1
        run.seconds_seen += fabric.world_size * items * recipe.data.excerpt_s
        return figures

    def _optimise(self, items: Items, stage: StageConfig, inside: int) -> dict[str, float]:
        """Move the weights by the gradient of all parts of a batch."""
        run, count, rate = self.run, self.recipe.data.accumulate, learning_rate(stage, inside)
        for optimiser in run.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("pace", 1.0)
        parts = []
        for number, part in enumerate(items.parts(count), 1):
            with self.fabric.no_backward_sync(self.forward, enabled=number < count):
                parts.append(self._learn(part, stage, inside))
        learned = Learned.joined(parts)
        if any(stage.adversarial):
            if self.fabric.world_size > 1:
                share_gradients(self.fabric, run.adversary)
            run.adversary.watch(inside, float(mean_of(self.fabric, learned.costs["distortion"].mean())))
        norm = self._clipped()
        self._check_finite(norm, learned)
        for optimiser in run.optimisers:
            optimiser.step()
        run.average(self.recipe.ema_decay)
        if self._steered(stage):
            self._steer(items.level, learned.costs["bits"], items.denoised)
        figures = {name: float(value) for name, value in learned.figures.items()}
        figures |= {name: float(value.mean()) for name, value in learned.costs.items()}
        if stage.bottleneck != "bypassed":
            figures |= run.net.quantiser.figures()
        return figures | {"gradient": norm, "learning_rate": rate}

    def _steered(self, stage: StageConfig) -> bool:
        return self.run.net.quantiser.steered and stage.bottleneck != "bypassed"

    def _learn(self, items: Items, stage: StageConfig, inside: int) -> Learned:
        """Add the gradients of one part of a batch to those that are there."""
        run, count, bypass = self.run, self.recipe.data.accumulate, stage.bottleneck == "bypassed"
        with self.precision.autocast(self.fabric.device):
            denoised = items.denoised if stage.cleaning else None
            coded: Coded = self.forward(items.wave, items.level, items.lengths, bypass, denoised)
        judged = None if items.lengths is None else run.net.judged(items.lengths)
        weight = torch.ones_like(coded.noisy_bits)
        if self._steered(stage):
            weight = run.control.weight(items.level.cpu()).sqrt().to(weight.device)
        adversarial = any(stage.adversarial)
        draws = [draw.float() for draw in (coded.sound, coded.other) if draw is not None]
        leaves = [draw.detach().requires_grad_() if adversarial else draw for draw in draws]
        wanted = run.net.target(items.target, draws[0])
        distortion, parts = self.loss(leaves[0], wanted, judged, *leaves[1:])
        distortion = distortion * stage.distortion_weight
        price = (distortion / weight.clamp(min=0.03)).mean()
        rate = (stage.rate_weight * weight * coded.noisy_bits + coded.penalty).mean()
        figures: dict[str, Tensor] = {}
        if adversarial:
            share = torch.linspace(*stage.adversarial, self.recipe.codec.levels).to(weight.device)[items.level]
            gradients, figures = self._gradients(price, leaves, wanted, judged, share, inside)
            weighted = [(draw * gradient).sum() for draw, gradient in zip(draws, gradients, strict=True)]
            self.fabric.backward((rate + torch.stack(weighted).sum()) / count)
        else:
            self.fabric.backward((rate + price) / count)
        costs = {"distortion": distortion, "bits": coded.rounded_bits, "soft_bits": coded.noisy_bits}
        costs |= {f"loss/{name}": value for name, value in parts.items()} | (
            {} if bypass else {"penalty": coded.penalty}
        )
        figures["loss"] = rate + price
        return Learned(*({name: value.detach() for name, value in values.items()} for values in (costs, figures)))

    def _gradients(
        self, price: Tensor, leaves: list[Tensor], wanted: Tensor, judged: Tensor | None, share: Tensor, inside: int
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Gradients of every draw of the sound, those of the discriminators among them, and figures of the latter.

        They count `share` [B] of what the price does.
        """
        adversary = self.run.adversary
        gradients = list(torch.autograd.grad(price, leaves))
        size = torch.stack([gradient.norm(dim=1) for gradient in gradients]).sum(0)
        strength = share * size * adversary.ready(inside)
        among, figures = adversary.learn(leaves[0], wanted, judged, strength, self.recipe.data.accumulate)
        gradients[0] = gradients[0] + among
        return gradients, figures

    def _clipped(self) -> float:
        """Norm of the gradient before it is clipped; every part that this stage trains gets one."""
        trained = [p for p in self.run.net.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # of a bypassed quantiser, say: a checkpoint has all that a stage trains
                parameter.grad = torch.zeros_like(parameter)
        return float(nn.utils.clip_grad_norm_(trained, 10.0))

    def _check_finite(self, gradient: float, learned: Learned) -> None:
        """Raise TrainError, naming what diverged, before a gradient that is not finite reaches the weights."""
        if math.isfinite(gradient):
            return
        wrong = [name for name, value in learned.costs.items() if not value.isfinite().all()]
        raise TrainError(
            f"step {self.run.step}: the gradient is {gradient}, the loss {learned.figures['loss']:g};"
            f" not finite: {', '.join(wrong) or 'only gradients'};"
            " the last checkpoint is kept; lower learning_rate and use --resume"
        )

    @torch.no_grad()
    def _fit(self) -> None:
        """Codebooks by k-means on the latents of training speech, the same on all processes."""
        recipe, run, device = self.recipe, self.run, self.fabric.device
        torch.manual_seed(recipe.seed)
        run.net.eval()
        rows: list[Tensor] = []
        while sum(map(len, rows)) < run.net.quantiser.fit_frames:
            seed = (recipe.seed, 1 << 29, len(rows) * recipe.data.batch)
            drawn = self.sampler.draw(recipe.data.batch, self.samples, seed)
            level = torch.full((len(drawn.waves),), recipe.codec.levels - 1, device=device)
            spectra = run.net.analysis.spectra(torch.from_numpy(drawn.waves).to(device))
            latents = run.net.encoder(spectra, level)[0].float()
            lengths = torch.from_numpy(drawn.lengths).to(device)
            rows.append(valid_frames(latents, length_mask(lengths, recipe.codec.hop_samples, latents.shape[1])))
        quantiser = run.net.quantiser
        quantiser.fit(torch.cat(rows))
        run.net.train()
        for name, value in quantiser.state_dict().items():
            run.mean[f"quantiser.{name}"] = value.detach().clone()

    def _steer(self, *columns: Tensor) -> None:
        """Steer each level by the bits of its items [B] in all processes: columns of levels, bits, and denoised."""
        level, bits, denoised = (gathered(self.fabric, column).cpu() for column in columns)
        self.run.control.update(level[~denoised], bits[~denoised])  # the plain ones state the rate of a level

    def validate(self) -> tuple[str, dict[str, float]]:
        """Rate and distortion at the lowest, two middle and the highest level, on real bytes."""
        sounds = self.sounds
        self._judge = self._judge or Judge(self.recipe, sounds.speech, sounds.valid or sounds.speech)
        points = self._judge.figures(self.run, self.loss)
        figures = {f"kbps_level_{item.level}": item.kbps for item in points}
        figures |= {f"distortion_level_{item.level}": item.distortion for item in points}
        pairs = "  ".join(f"{item.kbps:.2f} kb/s: {item.distortion:.3f}" for item in points)
        return f"validation distortion at  {pairs}", figures

    def headline(self, figures: dict[str, float]) -> str:
        """Distortion, rate and speed."""
        text = f"distortion {figures['distortion']:.3f}  bits/frame {figures['bits']:.0f}"
        text += f"  {figures['audio_s_per_s']:.0f} x"
        if "codebook/mean_use" in figures:
            text += f"  codebooks {figures['codebook/mean_use']:.0%} used, {figures['codebook/dead']:.0%} dead"
        return text

    def histograms(self) -> dict[str, Tensor]:
        """Lagrange weights of the levels."""
        return {"rate_weight": self.run.control.log_weight.exp()}


def train(
    recipe: Recipe,
    data: Given,
    out: Path,
    noise: Data | None = None,
    valid: Data | None = None,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
    begin: Callable[[CodecTrainer], None] | None = None,
    processes: int = 1,
) -> CodecRun:
    """Train a recipe on a folder or several into the folder `out`, in so many processes (see `processes.start`).

    `resume` goes on from its checkpoint, `begin` sets up a run that is new.

    Raises TrainError for a folder in use, data without sound, or a run that diverged (its last checkpoint stays).
    """
    folders, new = (data, noise, valid), partial(new_run, recipe)
    run, sounds, fabric = open_run(folders, out, recipe.codec.rate_hz, new, resume, quiet, processes)
    recipe.quantiser.check_corpus(int(sounds.speech.seconds * float(recipe.codec.frame_rate_hz)))
    trainer = CodecTrainer(recipe, run, sounds, fabric)
    if begin and run.step == 0:
        begin(trainer)
    if not quiet and fabric.is_global_zero:
        compiled = "; compiling, the first step takes a minute or two" if recipe.compile else ""
        print(f"layers compute in {trainer.precision.described}{compiled}", flush=True)
    run_steps(trainer, out, max_steps, quiet)
    return run
