"""The training loop: seeded batches, one optimisation step after the other, stage by stage."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.train.bottlenecks.base import valid_frames
from nacre.train.data import Corpus, Excerpts, Sampler, load_corpus
from nacre.train.degrade import NOTHING
from nacre.train.log import Log
from nacre.train.losses import MelLoss, SpectralLoss
from nacre.train.nets.transforms import length_mask
from nacre.train.precision import fastest
from nacre.train.recipe import Recipe, StageConfig
from nacre.train.run import CHECKPOINT, Run, learning_rate, net_of, new_run
from nacre.train.validate import Validation, fit_prior, validate


@dataclass(frozen=True)
class Place:
    """Where this process trains: device, its number among `world` processes (torchrun sets them)."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Place:
        """Read torchrun's variables; one CUDA device a process where there is one."""
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if cuda else "gloo")
        return cls(device, rank, world)


def loss_of(recipe: Recipe) -> SpectralLoss | MelLoss:
    """How far what comes back is from what went in: of sound, or of log-mel frames where the codec makes those."""
    if recipe.codec.mel_bands:
        return MelLoss(recipe.codec.step_samples)
    return SpectralLoss(recipe.loss, recipe.codec.rate_hz, recipe.compile)


class Trainer:
    """Runs the steps of a recipe from wherever its run stands."""

    def __init__(self, recipe: Recipe, run: Run, sampler: Sampler, place: Place):
        self.recipe, self.run, self.sampler, self.place = recipe, run, sampler, place
        self.loss = loss_of(recipe).to(place.device)
        self.precision = fastest(place.device)
        run.adversary.precision = self.precision
        if recipe.compile:
            for module in list(run.net.modules()):
                if type(module).__name__ == "CausalBlock":
                    module.compile()
        self.forward: Callable[..., Any] = run.net
        self._wrapped_stage = -1

    def _wrap(self) -> None:
        if self.place.world > 1 and self._wrapped_stage != self.run.stage:
            # parts of a stage may go unused: the log scale of the prior where nothing is quantised, say
            self.forward = nn.parallel.DistributedDataParallel(self.run.net, find_unused_parameters=True)
            self._wrapped_stage = self.run.stage

    def step(self) -> dict[str, float]:
        """One optimisation step over all processes; returns the figures for the log."""
        recipe, run, place = self.recipe, self.run, self.place
        index, inside = recipe.stage_at(run.step)
        if index != run.stage:
            if recipe.stage[index].fit:
                self._fit()
            run.enter(index, recipe.stage[index])
        self._wrap()
        samples = round(recipe.data.excerpt_s * float(recipe.codec.frame_rate_hz)) * recipe.codec.hop_samples
        items = recipe.data.batch
        seed = (recipe.seed, run.step, place.rank)
        drawn = self.sampler.draw(items, samples, seed, recipe.stage[index].cleaning)
        torch.manual_seed(hash(seed) & 0x7FFFFFFF)
        level = torch.randint(recipe.codec.levels, (items,))
        values = self._optimise(drawn, level, recipe.stage[index], inside)
        run.step += 1
        run.seconds_seen += place.world * items * recipe.data.excerpt_s
        return values

    def _optimise(self, drawn: Excerpts, level: Tensor, stage: StageConfig, inside: int) -> dict[str, float]:
        run, place, bypass = self.run, self.place, stage.bottleneck == "bypassed"
        wave, target = (torch.from_numpy(waves).to(place.device) for waves in (drawn.waves, drawn.targets))
        lengths = torch.from_numpy(drawn.lengths).to(place.device) if self.recipe.data.whole else None
        cleaned = torch.from_numpy(drawn.cleaned)
        with self.precision.autocast(place.device):
            coded = self.forward(
                wave, level.to(place.device), lengths, bypass, cleaned.to(place.device) if stage.cleaning else None
            )
        bits, hard_bits = coded.soft_bits, coded.hard_bits
        judged = None if lengths is None else run.net.judged(lengths)
        steered = run.net.quantiser.steered and not bypass
        weight = run.control.weight(level).sqrt().to(place.device) if steered else torch.ones_like(bits)
        for optimiser in run.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(stage, inside) * group.get("pace", 1.0)
        adversarial = any(stage.adversarial)
        draws = [draw.float() for draw in (coded.sound, coded.other) if draw is not None]
        leaves = [draw.detach().requires_grad_() if adversarial else draw for draw in draws]
        wanted = run.net.target(target, draws[0])
        distortion, parts = self.loss(leaves[0], wanted, judged, *leaves[1:])
        distortion = distortion * stage.distortion_weight
        price = (distortion / weight.clamp(min=0.03)).mean()
        figures: dict[str, Tensor] = {}
        rate = (stage.rate_weight * weight * bits + coded.penalty).mean()
        if adversarial:
            share = torch.linspace(*stage.adversarial, self.recipe.codec.levels)[level].to(place.device)
            pulls, figures = self._pulls(price, leaves, wanted, judged, share, inside)
            run.adversary.watch(inside, self._mean(distortion.detach().mean()))
            pulled = [(draw * pull).sum() for draw, pull in zip(draws, pulls, strict=True)]
            (rate + torch.stack(pulled).sum()).backward()
        else:
            (rate + price).backward()
        norm = self._clipped()
        costs = {"distortion": distortion, "bits": bits, "penalty": coded.penalty, **parts}
        self._check_finite(norm, float((rate + price).detach()), costs)
        for optimiser in run.optimisers:
            optimiser.step()
        self._average()
        if steered:
            self._steer(level[~cleaned], hard_bits.cpu()[~cleaned])  # the plain ones state the rate of a level
        figures |= {"loss": rate + price, "distortion": distortion.mean(), "gradient": torch.tensor(norm)}
        figures |= {"bits": hard_bits.mean(), "soft_bits": bits.mean()}
        figures |= {f"loss/{name}": value.mean() for name, value in parts.items()}
        if not bypass:
            figures |= {"penalty": coded.penalty.mean()}
            figures |= {name: torch.tensor(value) for name, value in run.net.quantiser.figures().items()}
        return {name: float(value.detach()) for name, value in figures.items()} | {
            "learning_rate": learning_rate(stage, inside)
        }

    def _pulls(
        self, price: Tensor, leaves: list[Tensor], wanted: Tensor, judged: Tensor | None, share: Tensor, inside: int
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Gradients of every draw of the sound, those of the discriminators among them, and figures of the latter.

        They count `share` [B] of what the price does.
        """
        adversary = self.run.adversary
        pulls = list(torch.autograd.grad(price, leaves))
        size = torch.stack([pull.norm(dim=1) for pull in pulls]).sum(0)
        strength = share * size * adversary.ready(inside)
        among, figures = adversary.learn(leaves[0], wanted, judged, strength, self.place.world)
        pulls[0] = pulls[0] + among
        return pulls, figures

    def _clipped(self) -> float:
        """Norm of the gradient before it is clipped; every part that this stage trains gets one."""
        trained = [p for p in self.run.net.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # of a bypassed quantiser, say: a checkpoint has all that a stage trains
                parameter.grad = torch.zeros_like(parameter)
        return float(nn.utils.clip_grad_norm_(trained, 10.0))

    def _check_finite(self, gradient: float, loss: float, costs: dict[str, Tensor]) -> None:
        """Raise TrainError, naming what diverged, before a gradient that is not finite reaches the weights."""
        if math.isfinite(gradient):
            return
        wrong = [name for name, value in costs.items() if not value.isfinite().all()]
        raise TrainError(
            f"step {self.run.step}: gradient",
            found=f"{gradient}, loss {loss:g}, not finite: {', '.join(wrong) or 'only gradients'}",
            wanted="finite numbers",
            next="the last checkpoint is kept; lower learning_rate and use --resume",
        )

    @torch.no_grad()
    def _fit(self) -> None:
        """Codebooks by k-means on the latents of training speech, the same on all processes."""
        recipe, run = self.recipe, self.run
        samples = round(recipe.data.excerpt_s * float(recipe.codec.frame_rate_hz)) * recipe.codec.hop_samples
        torch.manual_seed(recipe.seed)
        run.net.eval()
        found: list[Tensor] = []
        while sum(map(len, found)) < run.net.quantiser.fit_frames:
            seed = (recipe.seed, 1 << 29, len(found) * recipe.data.batch)
            drawn = self.sampler.draw(recipe.data.batch, samples, seed)
            level = torch.full((len(drawn.waves),), recipe.codec.levels - 1, device=self.place.device)
            spectra = run.net.analysis.spectra(torch.from_numpy(drawn.waves).to(self.place.device))
            latents = run.net.encoder(spectra, level)[0].float()
            lengths = torch.from_numpy(drawn.lengths).to(self.place.device)
            found.append(valid_frames(latents, length_mask(lengths, recipe.codec.hop_samples, latents.shape[1])))
        quantiser = run.net.quantiser
        quantiser.fit(torch.cat(found))
        run.net.train()
        for name, value in quantiser.state_dict().items():
            run.mean[f"quantiser.{name}"] = value.detach().clone()

    def _average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.run.step) / (10 + self.run.step))
        with torch.no_grad():
            for name, value in self.run.net.state_dict().items():
                if value.is_floating_point():
                    self.run.mean[name].lerp_(value, 1 - decay)
                else:  # how many batches a normalisation has seen, say
                    self.run.mean[name].copy_(value)

    def _mean(self, value: Tensor) -> float:
        """The mean over all processes of what each of them found."""
        if self.place.world > 1:
            dist.all_reduce(value)
        return float(value) / self.place.world

    def _steer(self, level: Tensor, bits: Tensor) -> None:
        if self.place.world > 1:
            gathered: list[Any] = [None] * self.place.world
            dist.all_gather_object(gathered, (level, bits))
            level, bits = (torch.cat(pieces) for pieces in zip(*gathered, strict=True))
        self.run.control.update(level, bits)


def train(
    recipe: Recipe,
    data: Path | Sequence[Path],
    out: Path,
    noise: Path | None = None,
    valid: Path | None = None,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
    begin: Callable[[Trainer], None] | None = None,
) -> Run:
    """Train a recipe on a folder or several into the folder `out`.

    `resume` goes on from its checkpoint, `begin` sets up a run that is new.

    Raises TrainError for a folder in use, data without sound, or a run that diverged (its last checkpoint stays).
    """
    place = Place.here()
    checkpoint = claim(out, resume)
    silent = quiet or place.rank > 0
    corpus, noises, validation = corpora((data, noise, valid), out, recipe.codec.rate_hz, place, quiet)
    assert corpus is not None
    run = new_run(recipe, place.device)
    if resume and checkpoint.exists():
        run.load(checkpoint, recipe)
    recipe.quantiser.check_corpus(int(corpus.seconds * float(recipe.codec.frame_rate_hz)))
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    balance, whole = recipe.data.balance, recipe.data.whole
    sampler = Sampler(corpus, recipe.codec, recipe.degrade, noises, balance, whole, recipe.dirt)
    trainer = Trainer(recipe, run, sampler, place)
    if begin and run.step == 0:
        begin(trainer)
    if not silent:
        compiled = "; compiling, the first step takes a minute or two" if recipe.compile else ""
        print(f"layers compute in {trainer.precision.described}{compiled}", flush=True)
    judge = Judge(trainer, corpus, validation or corpus)
    stopped = _take_steps(trainer, judge, out, min(recipe.steps, max_steps or recipe.steps), silent)
    if place.world > 1:
        dist.destroy_process_group()
    if stopped:
        if not silent:
            print(f"step {run.step} is saved, --resume goes on from it", flush=True)
        raise KeyboardInterrupt
    return run


def claim(out: Path, resume: bool) -> Path:
    """The checkpoint of the run folder `out`, which is made. Raises TrainError where it is in use."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wanted = "a folder for the run"
        raise TrainError(str(out), found=error.strerror, wanted=wanted, next="choose another") from error
    checkpoint = out / f"{CHECKPOINT}.safetensors"
    if checkpoint.exists() and not resume:
        raise TrainError(str(out), found="a run that has begun", wanted="a new folder", next="or go on with --resume")
    return checkpoint


def corpora(
    folders: tuple[Path | Sequence[Path] | None, ...], out: Path, rate_hz: int, place: Place, quiet: bool
) -> list[Corpus | None]:
    """Recordings, noises and recordings for validation, as far as there are folders of them, decoded into `out`."""
    if place.rank > 0:
        dist.barrier()  # the first process decodes for all
    found = [
        load_corpus(folder, out / name, rate_hz, quiet or place.rank > 0) if folder else None
        for folder, name in zip(folders, ("corpus", "noise", "valid"), strict=True)
    ]
    if place.world > 1 and place.rank == 0:
        dist.barrier()
    if place.rank == 0:
        report_skipped([corpus for corpus in found if corpus], out / "skipped.txt", quiet)
    return found


def _take_steps(trainer: Trainer, judge: Judge, out: Path, last: int, silent: bool) -> bool:
    """Train up to step `last`, with checkpoints in `out`; whether Ctrl-C came between."""
    run, recipe, first = trainer.run, trainer.recipe, trainer.place.rank == 0
    with Log(out if first else None, run, last, silent) as log, interrupted() as stop:
        while run.step < last and not stop.is_set():
            log.add(trainer.step())
            if first and run.step % recipe.validate_steps == 0:
                log.note(judge.figures())
            if first and run.step % recipe.checkpoint_steps == 0:
                run.save(out)
        if first:
            run.save(out)
    return stop.is_set()


def report_skipped(corpora: list[Corpus], path: Path, quiet: bool) -> None:
    """Say how many files could not be read; write which, and why, to `path`."""
    skipped = [line for corpus in corpora for line in corpus.skipped]
    path.unlink(missing_ok=True)
    if not skipped:
        return
    path.write_text("\n".join(skipped) + "\n", "utf-8")
    if not quiet:
        total = sum(corpus.files for corpus in corpora)
        print(f"{len(skipped)} of {total} files skipped, listed in {path}", flush=True)


@contextmanager
def interrupted() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step is finished and saved whole; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class Judge:
    """Validation on real bytes at a few levels, with the averaged weights."""

    def __init__(self, trainer: Trainer, corpus: Corpus, validation: Corpus, items: int = 24, seconds: int = 3):
        codec = trainer.recipe.codec
        samples = seconds * codec.rate_hz // codec.hop_samples * codec.hop_samples
        self.trainer = trainer
        self.fitted, self.judged = (
            Sampler(found, codec, NOTHING, None, 1.0).batch(items, samples, (trainer.recipe.seed, 1 << 30))
            for found in (corpus, validation)
        )

    def figures(self) -> list[Validation]:
        """Rate and distortion at the lowest, two middle and the highest level."""
        run, recipe = self.trainer.run, self.trainer.recipe
        net = net_of(recipe).to(self.trainer.place.device).eval()
        net.load_state_dict(run.mean)
        top = recipe.codec.levels - 1
        levels = sorted({0, top // 3, 2 * top // 3, top})
        return validate(net, self.trainer.loss, fit_prior(net, self.fitted), self.judged, levels)
