"""Training of a denoiser: noisy excerpts in, a graph for a model folder out."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.model import bundle as bundles
from nacre.train.data import Sampler
from nacre.train.degrade import NOTHING
from nacre.train.denoise_net import DenoiseLoss, DenoiseNet
from nacre.train.denoise_recipe import DenoiseRecipe, values_of
from nacre.train.export import check_free, new_folder, write_module
from nacre.train.loop import Place, claim, corpora, interrupted
from nacre.train.recipe import build
from nacre.train.run import CHECKPOINT, read_checkpoint

TOLD, LINE = 20, 100  # steps between two figures in the progress line, in a log
CARD, HEADING = "README.md", "## Denoiser"
JUDGED, JUDGED_ITEMS = 1 << 30, 24  # seed and number of excerpts that validation looks at


@dataclass
class DenoiseRun:
    """Network, average of its weights, optimiser, and how far they have come: all that a checkpoint holds."""

    net: DenoiseNet
    mean: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0

    @classmethod
    def new(cls, recipe: DenoiseRecipe, device: torch.device) -> DenoiseRun:
        """Fresh weights from the recipe's seed."""
        torch.manual_seed(recipe.seed)
        net = DenoiseNet(recipe.net, recipe.denoiser).to(device)
        mean = {name: value.detach().clone() for name, value in net.state_dict().items()}
        return cls(net, mean, torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0.01))

    def save(self, folder: Path) -> None:
        """Write the checkpoint in one atomic step; no pickle."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"mean.{name}": value for name, value in self.mean.items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
        part = folder / f".{CHECKPOINT}.part"
        try:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part, _facts(self.step))
            os.replace(part, folder / f"{CHECKPOINT}.safetensors")
        except (OSError, SafetensorError) as error:
            raise TrainError(f"{folder}: cannot save", found=str(error), wanted="a folder with room") from error

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe. Raises TrainError."""
        facts, tensors = read_checkpoint(path)
        whole = self.optimiser.state_dict()
        try:
            self.net.load_state_dict({name: tensors[f"net.{name}"] for name in self.mean})
            self.mean = {name: tensors[f"mean.{name}"].to(value.device) for name, value in self.mean.items()}
            self.step = int(facts["step"])
            for key in (key for key in tensors if key.startswith("optimiser.")):
                _, number, name = key.split(".")
                whole["state"].setdefault(int(number), {})[name] = tensors[key]
            self.optimiser.load_state_dict(whole)
        except (RuntimeError, KeyError, ValueError) as error:
            found = "other parts or sizes than the recipe's"
            raise TrainError(str(path), found=found, wanted="a checkpoint of the same network") from error

    def average(self, decay: float) -> None:
        """Move the averaged weights towards those of this step."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.mean[name].lerp_(value, 1 - decay)


def _facts(step: int) -> dict[str, str]:
    return {"run": json.dumps({"step": step})}


class DenoiseTrainer:
    """Runs the steps of a recipe from wherever its run stands."""

    def __init__(self, recipe: DenoiseRecipe, run: DenoiseRun, sampler: Sampler, device: torch.device):
        self.recipe, self.run, self.sampler, self.device = recipe, run, sampler, device
        self.loss = DenoiseLoss(recipe.denoiser, recipe.rate_hz, recipe.magnitude).to(device)

    def spectra(self, seed: tuple[int, ...], items: int, dirty: float) -> tuple[Tensor, Tensor]:
        """Noisy and clean spectra [B, T, 2, bins] of excerpts, the clean ones of unit power where there is speech."""
        drawn = self.sampler.draw(items, self.recipe.samples, seed, dirty)
        size = np.where(drawn.targets.std(1) > 1e-4, drawn.targets.std(1), drawn.waves.std(1)) + 1e-6
        waves = torch.from_numpy(np.stack([drawn.waves, drawn.targets]) / size[:, None].astype(np.float32))
        noisy, clean = self.loss.spectra(waves.flatten(0, 1).to(self.device)).chunk(2)
        return noisy, clean

    def step(self) -> dict[str, float]:
        """One step; returns the figures for the log. Raises TrainError for a run that diverged."""
        recipe, run = self.recipe, self.run
        noisy, clean = self.spectra((recipe.seed, run.step), recipe.batch, 1 - recipe.clean)
        for group in run.optimiser.param_groups:
            group["lr"] = recipe.rate_at(run.step)
        run.optimiser.zero_grad(set_to_none=True)
        masks, _ = run.net(self.loss.ready(noisy))
        loss = self.loss(masks, noisy, clean).mean()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(run.net.parameters(), 1.0))
        if not math.isfinite(norm):
            advice = "the last checkpoint is kept; lower learning_rate and use --resume"
            raise TrainError(f"step {run.step}: gradient", found=norm, wanted="finite numbers", next=advice)
        run.optimiser.step()
        run.step += 1
        run.average(recipe.ema_decay)
        return {"loss": float(loss.detach()), "gradient": norm}

    @torch.no_grad()
    def judge(self, sampler: Sampler) -> float:
        """Loss of the averaged weights over that of sound left as it is, on noisy excerpts of `sampler`."""
        net = DenoiseNet(self.recipe.net, self.recipe.denoiser).to(self.device)
        net.load_state_dict(self.run.mean)
        other = DenoiseTrainer(self.recipe, self.run, sampler, self.device)
        noisy, clean = other.spectra((self.recipe.seed, JUDGED), JUDGED_ITEMS, 1.0)
        masks, _ = net(self.loss.ready(noisy))
        nothing = torch.stack([torch.ones_like(noisy[:, :, 0]), torch.zeros_like(noisy[:, :, 0])], 2).flatten(2)
        return float(self.loss(masks, noisy, clean).mean() / self.loss(nothing, noisy, clean).mean())


def train_denoiser(
    recipe: DenoiseRecipe,
    data: Path | Sequence[Path],
    out: Path,
    noise: Path | None = None,
    valid: Path | None = None,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
) -> DenoiseRun:
    """Train a recipe on a folder or several into the folder `out`; `resume` goes on from its checkpoint.

    Raises TrainError for a folder in use, data without sound, or a run that diverged (its last checkpoint stays).
    """
    place = Place(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    checkpoint = claim(out, resume)
    corpus, noises, validation = corpora((data, noise, valid), out, recipe.rate_hz, place, quiet)
    assert corpus is not None
    run = DenoiseRun.new(recipe, place.device)
    if resume and checkpoint.exists():
        run.load(checkpoint)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    codec = CodecConfig(rate_hz=recipe.rate_hz)
    sampler = Sampler(corpus, codec, recipe.degrade, noises, recipe.balance, dirt=recipe.dirt)
    judged = Sampler(validation or corpus, codec, NOTHING, noises, 1.0, dirt=recipe.dirt)
    _loop(
        DenoiseTrainer(recipe, run, sampler, place.device),
        judged,
        min(recipe.steps, max_steps or recipe.steps),
        out,
        quiet,
    )
    return run


def _loop(trainer: DenoiseTrainer, judged: Sampler, last: int, out: Path, quiet: bool) -> None:
    """Steps up to `last`, with figures and checkpoints. Raises KeyboardInterrupt after Ctrl-C, when all is saved."""
    run, recipe = trainer.run, trainer.recipe
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=quiet) as bar, interrupted() as stop:
        task, losses = bar.add_task("training", total=last, completed=run.step), []
        while run.step < last and not stop.is_set():
            losses.append(trainer.step()["loss"])
            if run.step % TOLD == 0:
                mean = sum(losses[-LINE:]) / len(losses[-LINE:])
                bar.update(task, completed=run.step, description=f"loss {mean:.4f}")
                if run.step % LINE == 0 and not quiet and not bar.console.is_terminal:
                    print(f"step {run.step}: loss {mean:.4f}", flush=True)
            if run.step % recipe.validate_steps == 0 and not quiet:
                text = f"step {run.step}: {trainer.judge(judged):.1%} of the distance to clean speech is left"
                bar.console.print(text, highlight=False, soft_wrap=True)
            if run.step % recipe.checkpoint_steps == 0:
                run.save(out)
        run.save(out)
    if stop.is_set():
        if not quiet:
            print(f"step {run.step} is saved, --resume goes on from it", flush=True)
        raise KeyboardInterrupt


def export_denoiser(folder: Path, base: str | Path, out: Path, name: str | None = None) -> bundles.Bundle:
    """Write the model `base` anew with the denoiser that a run trained. Its files stay what they were.

    Raises TrainError.
    """
    check_free(out)
    bundle = bundles.find(base)
    recipe: DenoiseRecipe = build(DenoiseRecipe, values_of(folder))
    if recipe.rate_hz != bundle.config.rate_hz:
        found = f"a denoiser for {recipe.rate_hz} Hz"
        raise TrainError(f"model {bundle.name}", found=found, wanted=f"one for {bundle.config.rate_hz} Hz")
    run = DenoiseRun.new(recipe, torch.device("cpu"))
    run.load(folder / f"{CHECKPOINT}.safetensors")
    with new_folder(out) as part:
        for file in {*bundles.parts_of(bundle.kind, bundle.facts.hashes)} - {bundles.DENOISER}:
            shutil.copyfile(bundle.part(file), part / file)
        (part / CARD).write_text(_card(bundle.part(CARD), recipe, run), "utf-8")
        run.net.load_state_dict(run.mean)
        write_denoiser(run.net, part / bundles.DENOISER)
        facts = bundle.metadata | {"denoiser": asdict(recipe.denoiser) | {"training": _made(recipe, run)}}
        bundles.save(part, name or bundle.name, bundle.kind, bundle.config, facts)
    return bundles.load(out)


def _card(before: Path, recipe: DenoiseRecipe, run: DenoiseRun) -> str:
    """The model's card with a section on its denoiser."""
    text = before.read_text("utf-8").split(HEADING)[0].rstrip() if before.is_file() else ""
    seen_h = run.step * recipe.batch * recipe.samples / recipe.rate_hz / 3600
    made = (
        f"Recipe `{recipe.name}`, seed {recipe.seed}: {run.step} steps, {seen_h:.1f} h of excerpts. "
        f"Licence of the weights: {recipe.licence or 'not stated'}."
    )
    sources = "\n".join(f"- {source}" for source in recipe.sources) or "- not stated"
    return "\n\n".join(filter(None, [text, HEADING, made, sources])) + "\n"


def _made(recipe: DenoiseRecipe, run: DenoiseRun) -> dict[str, Any]:
    """What a user of the denoiser should know about its making."""
    seen_s = run.step * recipe.batch * recipe.samples / recipe.rate_hz
    return {"recipe": asdict(recipe), "steps": run.step, "audio_seconds_seen": round(seen_s)}


def write_denoiser(net: DenoiseNet, path: Path) -> None:
    """The network as an ONNX graph: (frames [1, T, 2 * bins], past [1, P, W]) -> (masks, past)."""
    net = net.eval().cpu()
    example = {"frames": torch.randn(1, 7, 2 * net.bins), "past": torch.zeros(1, *net.past_shape)}
    write_module(net, example, path)
