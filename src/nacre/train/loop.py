"""The training loop: seeded batches, staged optimisation, logs, checkpoints that survive a kill at any moment."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nacre.errors import TrainError
from nacre.train.adversary import Adversary
from nacre.train.codebooks import ResidualVQ
from nacre.train.data import Corpus, Excerpts, Sampler, load_corpus
from nacre.train.degrade import NOTHING
from nacre.train.losses import MelLoss, SpectralLoss
from nacre.train.nets import CodecNet, begin_cleaning, within
from nacre.train.quantisers import GaussianQuantiser, RateControl, kept
from nacre.train.recipe import Recipe, StageConfig
from nacre.train.validate import Validation, fit_prior, validate
from nacre.units import clock

CHECKPOINT = "checkpoint"
FIT_FRAMES, FIT_EACH = 20_000, 20  # frames for k-means: at least so many, and so many a code


def level_targets(recipe: Recipe) -> Tensor:
    """Target bits a frame [L] of each quality level."""
    rate, codec = recipe.rate, recipe.codec
    ratio = rate.highest_kbps / rate.lowest_kbps
    position = torch.linspace(0, 1, codec.levels)
    return rate.lowest_kbps * 1000 * ratio**position / float(codec.frame_rate_hz)


def optimisers(net: CodecNet, stage: StageConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the matrices inside blocks, AdamW for everything else that this stage trains."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for part, child in net.named_children():
        for module in child.modules():  # averages over batches and chance are training too
            if isinstance(module, nn.BatchNorm1d | nn.Dropout):
                module.train(part in stage.train)
    for name, parameter in net.named_parameters():
        trained = name.split(".")[0] in stage.train
        parameter.requires_grad_(trained)
        parameter.grad = None  # a frozen part must not count in the norm of the gradient
        if trained:
            (matrices if name.endswith(("up.weight", "down.weight")) else others).append(parameter)
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)]
    if matrices:
        found.append(torch.optim.Muon(matrices, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw"))
    return found


def learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay to 2 %."""
    rise = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    left = (stage.steps - step) / max(1.0, stage.steps * stage.decay_share)
    return stage.learning_rate * min(rise, max(0.02, min(1.0, left)))


@dataclass
class Run:
    """Everything that a checkpoint must hold so that the curve goes on as if nothing had happened."""

    net: CodecNet
    mean: dict[str, Tensor]  # exponential moving average of the weights: what is exported
    control: RateControl
    adversary: Adversary
    optimisers: list[torch.optim.Optimizer] = field(default_factory=list)
    stage: int = -1
    step: int = 0
    seconds_seen: float = 0.0

    def enter(self, stage_index: int, stage: StageConfig) -> None:
        """Start a stage: freeze what it does not train, new optimisers."""
        self.stage = stage_index
        if stage.cleaning:
            begin_cleaning(self.net.state_dict(), self.net.codec.levels)
            begin_cleaning(self.mean, self.net.codec.levels)
        self.optimisers = optimisers(self.net, stage)
        if any(stage.adversarial):
            self.optimisers.append(self.adversary.optimiser(stage.learning_rate))

    def save(self, folder: Path) -> None:
        """Write the checkpoint in one atomic step; no pickle."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.items()} | {"control": self.control.log_weight}
        if self.adversary.settled:  # it has learned something
            tensors |= {f"adversary.{k}": v for k, v in self.adversary.state_dict().items()}
        for index, optimiser in enumerate(self.optimisers):
            for number, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{index}.{number}.{k}": v for k, v in state.items()}
        facts = json.dumps({"step": self.step, "stage": self.stage, "seconds_seen": self.seconds_seen})
        temporary = folder / f".{CHECKPOINT}.part"
        contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        try:
            save_file(contiguous, temporary, {"run": facts})
            os.replace(temporary, folder / f"{CHECKPOINT}.safetensors")
        except (OSError, SafetensorError) as error:
            raise TrainError(f"{folder}: cannot save", found=str(error), wanted="a folder with room") from error

    def load(self, path: Path, recipe: Recipe) -> None:
        """Continue from a checkpoint of the same recipe; raises TrainError where it does not fit."""
        facts, tensors = read_checkpoint(path)
        try:
            self.net.load_state_dict(_part(tensors, "net."))
            self.mean = {k: tensors[f"mean.{k}"].to(value.device) for k, value in self.mean.items()}
            self.control.log_weight = tensors["control"]
            if critics := _part(tensors, "adversary."):
                self.adversary.load_state_dict(critics)
            self.step, self.seconds_seen = facts["step"], facts["seconds_seen"]
        except (RuntimeError, KeyError) as error:
            found = "other parts or sizes than the recipe's"
            raise TrainError(str(path), found=found, wanted="a checkpoint of the same network") from error
        if self.step == 0:
            return
        if recipe.stage_at(self.step - 1)[0] != facts["stage"]:
            place = f"step {self.step} of stage {facts['stage'] + 1}"
            raise TrainError(str(path), found=place, wanted="stages as long as the recipe's", next="keep the recipe")
        self.enter(facts["stage"], recipe.stage[facts["stage"]])
        for index, optimiser in enumerate(self.optimisers):
            _restore(optimiser, _part(tensors, f"optimiser.{index}."), path)


def _restore(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    """Give an optimiser the state it had, tensors "number.name"."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    whole = optimiser.state_dict()
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        whole["state"].setdefault(int(number), {})[name] = value
    fits = whole["state"].keys() == set(range(len(parameters))) and all(
        value.dim() == 0 or value.shape == parameters[number].shape
        for number, state in whole["state"].items()
        for value in state.values()
    )
    if not fits:
        raise TrainError(str(path), found="a stage that trained other parts", wanted="the recipe's", next="keep it")
    optimiser.load_state_dict(whole)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts, tensors) of a checkpoint file."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["run"])
        return facts, load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError(str(path), found=str(error), wanted="a checkpoint written by `nacre train`") from error


def new_run(recipe: Recipe, device: torch.device) -> Run:
    """Fresh networks from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    net = net_of(recipe).to(device)
    mean = {k: v.detach().clone() for k, v in net.state_dict().items()}
    rate = recipe.rate
    control = RateControl(level_targets(recipe), rate.start_weight, beta=rate.beta, warmup=rate.warmup_steps)
    return Run(net, mean, control, Adversary(recipe.adversary).to(device))


def net_of(recipe: Recipe) -> CodecNet:
    """Networks and quantiser as the recipe asks for them."""
    net = CodecNet(recipe.codec, recipe.net, recipe.kind, recipe.quantiser)
    if isinstance(net.quantiser, GaussianQuantiser):
        net.quantiser.one_rate = recipe.rate.beta > 0
    return net


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
        with torch.autocast(place.device.type, torch.bfloat16):
            coded = self.forward(
                wave, level.to(place.device), lengths, bypass, cleaned.to(place.device) if stage.cleaning else None
            )
        bits, hard_bits, sound = coded.soft_bits, coded.hard_bits, coded.sound.float()
        judged = None if lengths is None else run.net.judged(lengths)
        steered = run.net.quantiser.steered and not bypass
        weight = run.control.weight(level).sqrt().to(place.device) if steered else torch.ones_like(bits)
        for optimiser in run.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(stage, inside) * group.get("pace", 1.0)
        adversarial = any(stage.adversarial)
        heard = sound.detach().requires_grad_() if adversarial else sound
        wanted = run.net.target(target, sound)
        distortion, parts = self.loss(heard, wanted, judged)
        distortion = distortion * stage.distortion_weight
        price = (distortion / weight.clamp(min=0.03)).mean()
        figures: dict[str, Tensor] = {}
        rate = (stage.rate_weight * weight * bits + coded.penalty).mean()
        if adversarial:
            (pull,) = torch.autograd.grad(price, heard)
            share = torch.linspace(*stage.adversarial, self.recipe.codec.levels)[level].to(place.device)
            strength = share * pull.norm(dim=1) * run.adversary.ready(inside)
            among, figures = run.adversary.learn(heard, wanted, judged, strength, place.world)
            run.adversary.watch(inside, float(distortion.detach().mean()))
            (rate + (sound * (pull + among)).sum()).backward()
        else:
            (rate + price).backward()
        trained = [p for p in run.net.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # of a bypassed quantiser, say: a checkpoint has all that a stage trains
                parameter.grad = torch.zeros_like(parameter)
        norm = float(nn.utils.clip_grad_norm_(trained, 10.0))
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
        wanted = max(FIT_FRAMES, FIT_EACH * recipe.quantiser.codebook_size)
        torch.manual_seed(recipe.seed)
        run.net.eval()
        found: list[Tensor] = []
        while sum(map(len, found)) < wanted:
            seed = (recipe.seed, 1 << 29, len(found) * recipe.data.batch)
            drawn = self.sampler.draw(recipe.data.batch, samples, seed)
            level = torch.full((len(drawn.waves),), recipe.codec.levels - 1, device=self.place.device)
            spectra = run.net.analysis.spectra(torch.from_numpy(drawn.waves).to(self.place.device))
            latents = run.net.encoder(spectra, level)[0].float()
            lengths = torch.from_numpy(drawn.lengths).to(self.place.device)
            found.append(kept(latents, within(lengths, recipe.codec.hop_samples, latents.shape[1])))
        quantiser = run.net.quantiser
        assert isinstance(quantiser, ResidualVQ)
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

    def _steer(self, level: Tensor, bits: Tensor) -> None:
        if self.place.world > 1:
            gathered: list[Any] = [None] * self.place.world
            dist.all_gather_object(gathered, (level, bits))
            level, bits = (torch.cat(pieces) for pieces in zip(*gathered, strict=True))
        self.run.control.update(level, bits)


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    noise: Path | None = None,
    valid: Path | None = None,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    quiet: bool = False,
    begin: Callable[[Trainer], None] | None = None,
) -> Run:
    """Train a recipe into the folder `out`; `resume` goes on from its checkpoint, `begin` sets up a run that is new.

    Raises TrainError for a folder in use, data without sound, or a run that diverged (its last checkpoint stays).
    """
    place = Place.here()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wanted = "a folder for the run"
        raise TrainError(str(out), found=error.strerror, wanted=wanted, next="choose another") from error
    checkpoint = out / f"{CHECKPOINT}.safetensors"
    if checkpoint.exists() and not resume:
        raise TrainError(str(out), found="a run that has begun", wanted="a new folder", next="or go on with --resume")
    silent = quiet or place.rank > 0
    if place.rank > 0:
        dist.barrier()  # the first process decodes for all
    corpora = [
        load_corpus(folder, out / name, recipe.codec.rate_hz, silent) if folder else None
        for folder, name in ((data, "corpus"), (noise, "noise"), (valid, "valid"))
    ]
    corpus, noises, validation = corpora
    assert corpus is not None
    if place.world > 1 and place.rank == 0:
        dist.barrier()
    if place.rank == 0:
        report_skipped([found for found in corpora if found], out / "skipped.txt", quiet)
    run = new_run(recipe, place.device)
    if resume and checkpoint.exists():
        run.load(checkpoint, recipe)
    check_codebooks(recipe, corpus)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    balance, whole = recipe.data.balance, recipe.data.whole
    sampler = Sampler(corpus, recipe.codec, recipe.degrade, noises, balance, whole, recipe.dirt)
    trainer = Trainer(recipe, run, sampler, place)
    if begin and run.step == 0:
        begin(trainer)
    judge = Judge(trainer, corpus, validation or corpus)
    last = min(recipe.steps, max_steps or recipe.steps)
    with Log(out if place.rank == 0 else None, run, last, silent) as log, interrupted() as stop:
        while run.step < last and not stop.is_set():
            log.add(trainer.step())
            if place.rank == 0 and run.step % recipe.validate_steps == 0:
                log.note(judge.figures())
            if place.rank == 0 and run.step % recipe.checkpoint_steps == 0:
                run.save(out)
        if place.rank == 0:
            run.save(out)
    if place.world > 1:
        dist.destroy_process_group()
    if stop.is_set():
        raise KeyboardInterrupt
    return run


def check_codebooks(recipe: Recipe, corpus: Corpus) -> None:
    """Raise TrainError where a codebook has more entries than the recordings have frames."""
    frames = int(corpus.seconds * float(recipe.codec.frame_rate_hz))
    if recipe.kind == "rvq" and recipe.quantiser.codebook_size > frames:
        found = f"{recipe.quantiser.codebook_size} codes for {frames} frames of recordings"
        advice = "change it in the recipe, or give more recordings"
        raise TrainError("quantiser.codebook_size", found=found, wanted=f"at most {frames}", next=advice)


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


class Log:
    """Progress line and TensorBoard events of one process."""

    def __init__(self, out: Path | None, run: Run, last: int, quiet: bool, every: int = 20):
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.every, self.quiet = run, every, quiet
        self.writer = SummaryWriter(str(out / "events"), purge_step=run.step or None) if out else None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            disable=quiet,
        )
        self.task = self.bar.add_task("training", total=last, completed=run.step)
        self.sums: dict[str, float] = {}
        self.count = 0
        self.mark = (time.perf_counter(), run.seconds_seen)

    def __enter__(self) -> Log:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.writer:
            self.writer.close()

    def note(self, figures: list[Validation]) -> None:
        """Show and log a validation."""
        for item in figures:
            if self.writer:
                self.writer.add_scalar(f"valid/kbps_level_{item.level}", item.kbps, self.run.step)
                self.writer.add_scalar(f"valid/distortion_level_{item.level}", item.distortion, self.run.step)
        pairs = "  ".join(f"{item.kbps:.2f} kb/s: {item.distortion:.3f}" for item in figures)
        if not self.quiet:
            text = f"step {self.run.step}, validation distortion at  {pairs}"
            self.bar.console.print(text, highlight=False, soft_wrap=True)

    def add(self, figures: dict[str, float]) -> None:
        """Take the figures of one step; show their mean every few steps."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.bar.update(self.task, completed=self.run.step)
        if self.count < self.every:
            return
        now = time.perf_counter()
        mean = {name: value / self.count for name, value in self.sums.items()}
        mean["audio_s_per_s"] = (self.run.seconds_seen - self.mark[1]) / (now - self.mark[0])
        self.sums, self.count, self.mark = {}, 0, (now, self.run.seconds_seen)
        if self.writer:
            for name, value in mean.items():
                self.writer.add_scalar(name, value, self.run.step)
            weights = self.run.control.weight(torch.arange(len(self.run.control.targets)))
            self.writer.add_histogram("rate_weight", weights, self.run.step)
        text = f"distortion {mean['distortion']:.3f}  bits/frame {mean['bits']:.0f}  {mean['audio_s_per_s']:.0f} x"
        if "codebook/mean_use" in mean:
            text += f"  codebooks {mean['codebook/mean_use']:.0%} used, {mean['codebook/dead']:.0%} dead"
        self.bar.update(self.task, description=text)
        if not self.quiet and not self.bar.console.is_terminal and self.run.step % (5 * self.every) == 0:
            parts = " ".join(f"{k} {v:.3f}" for k, v in mean.items())
            print(f"{clock(self.run.seconds_seen)} seen, step {self.run.step}: {parts}", flush=True)
