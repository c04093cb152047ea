"""A run: networks, averages, rates, critics and optimisers, and the checkpoint that holds all of them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.train.adversary import Adversary
from nacre.train.nets.codec_net import CodecNet, begin_cleaning
from nacre.train.rate import RateControl
from nacre.train.recipe import Recipe, StageConfig

CHECKPOINT = "checkpoint"


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
    control = RateControl(
        level_targets(recipe), rate.start_weight, beta=rate.beta, warmup=rate.warmup_steps, hold=rate.hold
    )
    return Run(net, mean, control, Adversary(recipe.adversary).to(device))


def net_of(recipe: Recipe) -> CodecNet:
    """Networks and quantiser as the recipe asks for them."""
    net = CodecNet(recipe.codec, recipe.net, recipe.kind, recipe.quantiser)
    net.quantiser.one_rate = recipe.rate.beta > 0
    return net
