"""A run: a network, the average of its weights, optimisers, and the checkpoint that holds all of them."""

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

from nacre.core.errors import TrainError, reason

CHECKPOINT = "checkpoint"


@dataclass
class Run:
    """Everything that a checkpoint must hold so that the curve goes on as if nothing had happened."""

    net: nn.Module
    mean: dict[str, Tensor]  # exponential moving average of the weights: what is exported
    optimisers: list[torch.optim.Optimizer] = field(default_factory=list)
    step: int = 0
    seconds_seen: float = 0.0  # length of all excerpts so far, of all processes

    def prefix(self, index: int) -> str:
        """What the names of an optimiser's tensors begin with in a checkpoint."""
        return f"optimiser.{index}."

    def extras(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint beside weights and optimisers."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Numbers of a checkpoint."""
        return {"step": self.step, "seconds_seen": self.seconds_seen}

    def restore(self, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take what `facts` and `extras` gave. Raises KeyError or RuntimeError where something is missing."""

    def begin(self, facts: dict[str, Any], path: Path) -> None:
        """Make the optimisers that a checkpoint has states for. Raises TrainError."""

    def average(self, decay: float) -> None:
        """Move the averaged weights towards those of this step, at first in longer strides."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                if value.is_floating_point():
                    self.mean[name].lerp_(value, 1 - decay)
                else:  # how many batches a normalisation has seen, say
                    self.mean[name].copy_(value)

    def save(self, folder: Path) -> None:
        """Write the checkpoint in one atomic step; no pickle. Raises TrainError."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"mean.{name}": value for name, value in self.mean.items()} | self.extras()
        for index, optimiser in enumerate(self.optimisers):
            for number, state in optimiser.state_dict()["state"].items():
                tensors |= {f"{self.prefix(index)}{number}.{name}": value for name, value in state.items()}
        part = folder / f".{CHECKPOINT}.part"
        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        try:
            save_file(contiguous, part, {"run": json.dumps(self.facts())})
            os.replace(part, folder / f"{CHECKPOINT}.safetensors")
        except (OSError, SafetensorError) as error:
            raise TrainError(f"cannot save to {folder}: {reason(error)}; is there room?") from error

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe. Raises TrainError where it does not fit."""
        facts, tensors = read_checkpoint(path)
        try:
            self.net.load_state_dict(part_of(tensors, "net."))
            self.mean = {name: tensors[f"mean.{name}"].to(value.device) for name, value in self.mean.items()}
            self.step, self.seconds_seen = int(facts["step"]), float(facts.get("seconds_seen", 0.0))
            self.restore(facts, tensors)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            wanted = "give a checkpoint of the same network"
            raise TrainError(f"{path} has other parts or sizes than the recipe's; {wanted}") from error
        if self.step == 0:
            return
        self.begin(facts, path)
        for index, optimiser in enumerate(self.optimisers):
            _restore(optimiser, part_of(tensors, self.prefix(index)), path)


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
        raise TrainError(f"{path} is of a stage that trained other parts than the recipe's; keep the recipe")
    optimiser.load_state_dict(whole)


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def copies(net: nn.Module) -> dict[str, Tensor]:
    """The weights of a network as they are now."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts, tensors) of a checkpoint file. Raises TrainError."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["run"])
        return facts, load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainError(f"{path} is no checkpoint written by `nacre train`: {reason(error)}") from error
