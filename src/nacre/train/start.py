"""Training that starts from a model folder instead of from chance: weights are read back out of its graphs.

A graph keeps weights in its own order, transposed and cut up. So the same network is exported once more with numbered
weights: where a number comes out, the model's weight is put back. The result is held against the model's own graphs.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.entropy.static_prior import StaticPrior
from nacre.model.bundle import PRIOR, Bundle
from nacre.model.runtime import Network
from nacre.train.codec_run import CodecRun
from nacre.train.codec_trainer import CodecTrainer
from nacre.train.eight_bit import is_folded, weights
from nacre.train.export import write_graph
from nacre.train.nets.codec_net import CodecNet
from nacre.train.recipe import Recipe, override, parse
from nacre.train.run import copies

CLOSE = 0.05  # of the size of what comes out: a graph rounds what goes through its matrices to 8 bits, by less


def recipe_from(bundle: Bundle, steps: int, learning_rate: float, changes: tuple[str, ...] = ()) -> Recipe:
    """The recipe that made a model, for one more stage of all parts that begins at its rates. Raises TrainError."""
    values = copy.deepcopy(bundle.facts.training.get("recipe"))
    if not isinstance(values, dict) or not values.get("stage"):
        raise TrainError(f"model {bundle.name} has no recipe inside; give one: nacre train RECIPE --from MODEL")
    last = values["stage"][-1]
    stage = {"name": "fine-tuning", "steps": steps, "learning_rate": learning_rate, "decay_share": 0.7}
    values["stage"] = [stage | {"warmup_steps": min(100, steps // 10), "cleaning": last.get("cleaning", 0.0)}]
    for change in changes:
        override(values, change)
    recipe: Recipe = parse(values, earlier=True)
    return recipe


def start_from(bundle: Bundle) -> Callable[[CodecTrainer], None]:
    """What gives a fresh run the weights of a model, and the weights of its rates. Raises TrainError if they differ."""

    def begin(trainer: CodecTrainer) -> None:
        put(trainer.run, trainer.recipe, bundle)
        calibrate(trainer)

    return begin


@torch.no_grad()
def calibrate(trainer: CodecTrainer, items: int = 32) -> None:
    """Lagrange weights from how distortion falls with the rate from level to level, so that rates stay where they are.

    Where the curves of two levels have the same slope, one more bit buys as much in either. Levels with the same steps,
    as residual levels have, are one level here.
    """
    run, recipe = trainer.run, trainer.recipe
    waves = trainer.sampler.batch(items, trainer.samples, (recipe.seed, 1 << 28))
    wave, bits, distortion = torch.from_numpy(waves).to(trainer.fabric.device), [], []
    scales = run.net.quantiser.export_quantiser().scales
    assert scales is not None, "`put` refuses such kinds"
    first, which = distinct(torch.from_numpy(scales))
    run.net.eval()
    for level in first:
        coded = run.net(wave, torch.full((items,), level, device=wave.device))
        losses, _ = trainer.loss(coded.sound, run.net.target(wave, coded.sound), None, coded.other)
        bits.append(float(coded.rounded_bits.mean()))
        distortion.append(float(losses.mean()))
    run.net.train()
    slope = -np.gradient(distortion, np.maximum.accumulate(bits) + 1e-3 * np.arange(len(bits)))
    weights = np.minimum.accumulate(np.maximum(slope, recipe.rate.start_weight / 100))
    run.control.log_weight = torch.from_numpy(np.log(weights[which])).float()


def distinct(rows: Tensor) -> tuple[list[int], list[int]]:
    """rows [L, D] -> (the first of each kind of row, in order; for each row, which of those it equals).

    >>> distinct(torch.tensor([[1.0], [2.0], [3.0], [2.0]]))
    ([0, 1, 2], [0, 1, 2, 1])
    """
    first: list[int] = []
    which = []
    for level, row in enumerate(rows):
        same = [at for at, earlier in enumerate(first) if torch.equal(rows[earlier], row)]
        which.append(same[0] if same else len(first))
        if not same:
            first.append(level)
    return first, which


def put(run: CodecRun, recipe: Recipe, bundle: Bundle) -> None:
    """Give a run the weights of a model; its averaged weights too.

    Levels for denoising that only one of them has are left as they are, or left out.
    """
    if bundle.config.levels != recipe.codec.levels:
        levels = f"{bundle.config.levels} levels, the recipe {recipe.codec.levels}"
        raise TrainError(f"the model has {levels}; make them the same")
    source = CodecNet(bundle.config, recipe.net, recipe.kind, recipe.quantiser)
    source.quantiser.restore(bundle.quantiser(), StaticPrior.load(bundle.part(PRIOR)))
    for part in ("encoder", "decoder"):
        read_graph(source, part, bundle.part(f"{part}.onnx"))
    weights = run.net.state_dict()
    for name, value in source.state_dict().items():
        if value.shape == weights[name].shape:
            weights[name].copy_(value)
        else:  # levels for denoising come after the others
            both = min(len(value), len(weights[name]))
            weights[name][:both] = value[:both]
    run.mean = copies(run.net)


def read_graph(net: CodecNet, part: str, path: Path) -> None:
    """Put the weights of a graph, an "encoder" or "decoder", into that part of a network of the same sizes.

    What the graph has of the bottleneck must be there before.
    """
    side = getattr(net, part)
    values = nn.utils.parameters_to_vector(side.parameters()).detach().clone()
    nn.utils.vector_to_parameters(torch.arange(len(values), dtype=torch.float32), side.parameters())
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "numbered.onnx"
        write_graph(net, part, draft, bits=32)
        places = _weights(draft)
    found, wanted = _weights(path), [place.shape for place in places]
    if [weight.shape for weight in found] != wanted:
        raise TrainError(f"{path} has {len(found)} weights, not of the sizes of the recipe's {len(wanted)}; compare")
    for place, weight in zip(places, found, strict=True):
        values[torch.from_numpy(place.astype(np.int64)).flatten()] = torch.from_numpy(weight).flatten()
    nn.utils.vector_to_parameters(values, side.parameters())
    _check(net, part, path)


def _weights(path: Path) -> list[np.ndarray]:
    found = weights(onnx.load(path).graph)
    return [array for operator, _, array in found if not is_folded(operator, array)]


def _check(net: CodecNet, part: str, path: Path) -> None:
    """Raise TrainError unless the network gives what the graph gives."""
    rows = net.codec.steps_per_frame if part == "decoder" else 1
    graph, side, rng = Network(path, rows=rows), getattr(net, part), np.random.default_rng(0)
    frames = rng.standard_normal((20, graph.width_in)).astype(np.float32)
    theirs, _ = graph.step(frames, 1, graph.start())
    given, level = torch.from_numpy(frames)[None], torch.ones(1, dtype=torch.int64)
    with torch.no_grad():
        if part == "encoder":
            ours: Tensor = net.quantiser.to_latent(side(given, level)[0], level)[0]
        else:
            ours = side(net.quantiser.from_latent(given, level), level)[0][0]
    away = float(np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max())
    if not away < CLOSE:
        raise TrainError(f"{path} gives other output than the recipe's network, by {away:.3g}; compare both")
