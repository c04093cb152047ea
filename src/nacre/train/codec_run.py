"""The run of a codec: networks, rates, discriminators, and the optimisers of the stage it is in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.train.adversary import Adversary
from nacre.train.nets.codec_net import CodecNet, begin_denoising
from nacre.train.rate import RateControl
from nacre.train.recipe import Recipe, StageConfig
from nacre.train.run import Run, copies, part_of


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
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)]
    if matrices:
        optimisers.append(torch.optim.Muon(matrices, weight_decay=0.01, ns_steps=4, adjust_lr_fn="match_rms_adamw"))
    return optimisers


def learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up, constant, linear decay to 2 %."""
    rise = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    left = (stage.steps - step) / max(1.0, stage.steps * stage.decay_share)
    return stage.learning_rate * min(rise, max(0.02, min(1.0, left)))


@dataclass
class CodecRun(Run):
    """A run through the stages of a recipe."""

    net: CodecNet
    recipe: Recipe = field(kw_only=True)
    control: RateControl = field(kw_only=True)
    adversary: Adversary = field(kw_only=True)
    stage: int = -1

    def enter(self, index: int) -> None:
        """Start a stage: freeze what it does not train, new optimisers."""
        self.stage, stage = index, self.recipe.stage[index]
        if stage.cleaning:
            begin_denoising(self.net.state_dict(), self.net.codec.levels)
            begin_denoising(self.mean, self.net.codec.levels)
        self.optimisers = optimisers(self.net, stage)
        if any(stage.adversarial):
            self.optimisers.append(self.adversary.optimiser(stage.learning_rate))

    def extras(self) -> dict[str, Tensor]:
        """Weights of the rates; those of the discriminators once they have learned something."""
        learned = self.adversary.state_dict() if self.adversary.settled else {}
        return {"control": self.control.log_weight} | {f"adversary.{name}": value for name, value in learned.items()}

    def facts(self) -> dict[str, Any]:
        """How far the run has come."""
        return super().facts() | {"stage": self.stage}

    def restore(self, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Take what `facts` and `extras` gave."""
        self.control.log_weight = tensors["control"]
        if learned := part_of(tensors, "adversary."):
            self.adversary.load_state_dict(learned)

    def begin(self, facts: dict[str, Any], path: Path) -> None:
        """Go on in the stage of a checkpoint. Raises TrainError where the recipe has another at that step."""
        if self.recipe.stage_at(self.step - 1)[0] != facts["stage"]:
            place = f"step {self.step} of stage {facts['stage'] + 1}"
            raise TrainError(f"{path} is at {place}, where the recipe has another stage; keep the recipe")
        self.enter(facts["stage"])


def new_run(recipe: Recipe, device: torch.device) -> CodecRun:
    """Fresh networks from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    net = net_of(recipe).to(device)
    rate = recipe.rate
    control = RateControl(
        level_targets(recipe), rate.start_weight, beta=rate.beta, warmup=rate.warmup_steps, hold=rate.hold
    )
    adversary = Adversary(recipe.adversary).to(device)
    return CodecRun(net, copies(net), recipe=recipe, control=control, adversary=adversary)


def net_of(recipe: Recipe) -> CodecNet:
    """Networks and quantiser as the recipe asks for them."""
    net = CodecNet(recipe.codec, recipe.net, recipe.kind, recipe.quantiser)
    net.quantiser.one_rate = recipe.rate.beta > 0
    return net
