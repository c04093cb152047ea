"""Training of the context prior: a network in floating point that rounds as the integers will, and its conversion.

Weights take steps of 2^-k, one k for each output; activations take steps of 1/16 up to 127/16. In the second half of
the training both are rounded, with straight-through gradients (Bengio et al., 2013; Jacob et al., 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nacre.core.errors import TrainError
from nacre.entropy.context_prior import (
    CURVE,
    CURVE_BITS,
    CURVE_STEPS,
    FINE,
    HISTORY,
    LOGS,
    PARTS,
    PLANES,
    SPREAD,
    TABLE,
    TOP,
    WEIGHT_BITS,
    WEIGHTS,
    WIDTHS,
    ContextPrior,
    Sizes,
    planes_of,
)
from nacre.entropy.symbols import LARGEST
from nacre.train.precision import FLOAT32, fastest

Array = np.ndarray[Any, np.dtype[Any]]

CPU = torch.device("cpu")
UNIT = 16  # activations and logarithms are whole numbers of 1 / UNIT
OUT = 256  # the network's last numbers are whole numbers of 1 / OUT
NARROWEST, PER_OCTAVE = 2.0**-4.5, 4  # width of curve 0, and widths in an octave
PER_NAT, WEIGHT_MIDDLE = 4, 32  # weights of the second curve: steps per unit of the logit, place of logit 0
RATIO = 256  # parts of the step that levels share, which is that of the level at three quarters
IDLE_BITS = 0.05  # a dim below this at every level goes by a table


@dataclass(frozen=True)
class ContextConfig:
    """Shape and training of a context prior."""

    hidden: int = 320
    small: int = 112
    depth: int = 2
    shares: tuple[float, ...] = (0.06, 0.16, 0.29, 0.45, 0.64, 1.0)  # of the dims: where each block ends
    steps: int = 7000
    batch: int = 48
    frames: int = 50
    learning_rate: float = 2e-3
    rounding_from: float = 0.5
    seed: int = 0
    fast: bool = True  # the faster number type for matrices, and compiled likelihood


def _rounded(x: Tensor, per_unit: float) -> Tensor:
    """x in whole numbers of 1 / per_unit; the gradient passes as if it were not."""
    return x + ((x.detach() * per_unit).round() / per_unit - x.detach())


def shifts_of(weights: Tensor, lowest: int) -> Tensor:
    """k of each column [O] of weights [I, O]: the largest at which rounded weights * 2^k fit into int8."""
    most = weights.detach().abs().amax(0).clamp(min=1e-9)
    return torch.floor(torch.log2((TOP + 0.49) / most)).clamp(lowest, 14)


@dataclass(frozen=True)
class Statistics:
    """What symbols look like without context: order of the dims, mean and mean size around it, logarithms."""

    order: Array  # [U] dims in coding order
    mean: Array  # [L, U]
    size: Array  # [L, U]
    ratio: Array  # [L, U] uint16, see nacre.entropy.context_prior
    logs: Array  # [LOGS] uint8

    def logarithms(self, symbols: Array, level: Array) -> Array:
        """Signed logarithms of symbols [B, T, U] at level [B], as the prior takes them, float32."""
        sizes = np.minimum(
            (np.abs(symbols.astype(np.int32)) * self.ratio[level].astype(np.int32)[:, None]) >> 4, LOGS - 1
        )
        return np.copysign(self.logs[sizes].astype(np.float32), symbols)


def statistics(groups: Sequence[Array], steps: Array) -> Statistics:
    """Statistics of symbols, [n, T, D] of each level, that were quantised with steps [L, D]."""
    dims, spent, means, sizes = steps.shape[1], np.zeros(steps.shape), [], []
    for level, found in enumerate(groups):
        flat = found.reshape(-1, dims).astype(np.int32)
        for dim in range(dims):
            count = np.bincount(flat[:, dim] + LARGEST)
            share = count[count > 0] / len(flat)
            spent[level, dim] = -(share * np.log2(share)).sum()
        means.append(flat.mean(0))
        sizes.append(np.abs(flat - means[-1]).mean(0).clip(0.02))
    order = np.argsort(-spent.sum(0), kind="stable")[: max(1, int((spent.max(0) > IDLE_BITS).sum()))]
    common = steps[3 * len(steps) // 4]
    ratio = np.round(RATIO * steps / common).clip(1, 65535)[:, order].astype("<u2")
    logs = np.round(UNIT * np.log2(1 + np.arange(LOGS) / UNIT)).clip(0, TOP).astype("u1")
    return Statistics(order, np.stack(means)[:, order], np.stack(sizes)[:, order], ratio, logs)


def block_ends(used: int, shares: Sequence[float]) -> list[int]:
    """Where blocks end that take up to these shares of the dims, at least one dim each."""
    ends: list[int] = []
    for share in shares:
        ends.append(max(ends[-1] + 1 if ends else 1, round(share * used)))
    ends = sorted({min(end, used) for end in ends})
    return ends


class ContextNet(nn.Module):
    """The network of `nacre.entropy.context_prior` in floating point; B groups of T frames, U dims in coding order."""

    earlier: Tensor
    mean: Tensor
    size: Tensor

    def __init__(self, config: ContextConfig, found: Statistics):
        super().__init__()
        s, c = found, config
        levels, used = s.mean.shape
        self.config, self.rounding = config, False
        self.precision = fastest(CPU) if config.fast else FLOAT32
        self.ends = block_ends(used, c.shares)
        wide = len(self.ends) * c.small
        self.w_in = nn.Parameter(torch.randn(HISTORY * used, c.hidden) / math.sqrt(HISTORY * used))
        self.b_in = nn.Parameter(torch.randn(levels, c.hidden) * 0.1)
        self.w_mid = nn.Parameter(torch.randn(c.depth - 1, c.hidden, c.hidden) / math.sqrt(c.hidden))
        self.w_mid.data += torch.eye(c.hidden)
        self.b_mid = nn.Parameter(torch.zeros(c.depth - 1, c.hidden))
        self.w_block = nn.Parameter(torch.randn(c.hidden, wide) / math.sqrt(c.hidden))
        self.b_block = nn.Parameter(torch.randn(levels, wide) * 0.1)
        self.w_frame = nn.Parameter(torch.randn(used, wide) * 0.5 / math.sqrt(used))
        self.w_out = nn.Parameter(torch.randn(c.small, PLANES, used) * 0.1 / math.sqrt(c.small))
        self.b_out = nn.Parameter(torch.zeros(PLANES, used))
        self.shape = nn.Parameter(torch.zeros(levels, PLANES, used))  # offsets of each level
        self.shape.data[:, 2] -= 1
        self.shape.data[:, 3] += 0.7
        self.shape.data[:, 1] -= 0.3
        self.follow = nn.Parameter(torch.zeros(levels, used))
        starts = torch.tensor([0, *self.ends[:-1]]).repeat_interleave(c.small)
        self.register_buffer("earlier", (torch.arange(used)[:, None] < starts).float())
        self.register_buffer("mean", torch.tensor(s.mean, dtype=torch.float32))
        self.register_buffer("size", torch.tensor(s.size, dtype=torch.float32))

    def forward(self, planes: Tensor, logs: Tensor, before: Tensor, level: Tensor) -> Tensor:
        """planes [B, T, HISTORY * U], logs [B, T, U], before [B, T, U], level [B] -> chosen [B, T, PLANES, U].

        Planes of the result: place, natural logarithm of the width, logit of the second curve, its width, its distance.
        """
        with self.precision.autocast(CPU):
            hidden = self._layer(planes / UNIT, self.w_in, self.b_in[level][:, None])
            for weights, bias in zip(self.w_mid, self.b_mid, strict=True):
                hidden = self._layer(hidden, weights, bias)
            both = torch.cat([self.w_block, self.w_frame * self.earlier])
            small = self._layer(torch.cat([hidden, logs / UNIT], -1), both, self.b_block[level][:, None])
        outs, start = [], 0
        for index, end in enumerate(self.ends):
            part = small[..., index * self.config.small : (index + 1) * self.config.small]
            weights = self.w_out[..., start:end].flatten(1)
            if self.rounding:
                weights = self._weights(weights, 4)
            outs.append((part.float() @ weights).unflatten(-1, (PLANES, end - start)))
            start = end
        out = torch.cat(outs, -1) + self.b_out
        return self._chosen(out, before, level)

    def _layer(self, x: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        if self.rounding:
            weights = self._weights(weights, 0)
        out = (x @ weights).float() + bias
        out = out.clamp(0, TOP / UNIT)
        return _rounded(out, UNIT) if self.rounding else out

    def _weights(self, weights: Tensor, lowest: int) -> Tensor:
        scale = torch.exp2(shifts_of(weights, lowest))
        clipped = (weights * scale).clamp(-TOP, TOP)
        return _rounded(clipped, 1) / scale

    def _chosen(self, out: Tensor, before: Tensor, level: Tensor) -> Tensor:
        size, mean, shape = self.size[level][:, None], self.mean[level][:, None], self.shape[level][:, None]
        place = mean + size * (2 * out[:, :, 0] + shape[:, :, 0]) + self.follow[level][:, None] * (before - mean)
        width = torch.log(size) + shape[:, :, 1] + out[:, :, 1]
        weight = shape[:, :, 2] + out[:, :, 2]
        width_2 = torch.log(size) + shape[:, :, 3] + out[:, :, 3]
        apart = size * (2 * out[:, :, 4] + shape[:, :, 4])
        return torch.stack([place, width, weight, width_2, apart], 2)


def bits(chosen: Tensor, symbols: Tensor, rounding: bool) -> Tensor:
    """Bits [B, T, U] of symbols [B, T, U] by the curves chosen [B, T, PLANES, U]."""
    place, width, weight, width_2, apart = chosen.unbind(2)
    lowest, highest = math.log(NARROWEST), math.log(NARROWEST) + (WIDTHS - 1) * math.log(2) / PER_OCTAVE
    width, width_2 = width.clamp(lowest, highest), width_2.clamp(lowest, highest)
    weight = weight.clamp(-WEIGHT_MIDDLE / PER_NAT, (WEIGHTS - 1 - WEIGHT_MIDDLE) / PER_NAT)
    apart = apart.clamp(-SPREAD, SPREAD)
    if rounding:
        per_nat = PER_OCTAVE / math.log(2)
        width = _rounded(width - lowest, per_nat) + lowest
        width_2 = _rounded(width_2 - lowest, per_nat) + lowest
        place, apart, weight = _rounded(place, PARTS), _rounded(apart, PARTS), _rounded(weight, PER_NAT)
    share = torch.sigmoid(weight)
    one, two = (symbols - place).abs(), (symbols - place - apart).abs()
    by_width, by_width_2 = torch.exp(-width), torch.exp(-width_2)
    p_one = torch.sigmoid((0.5 - one) * by_width) - torch.sigmoid((-0.5 - one) * by_width)
    p_two = torch.sigmoid((0.5 - two) * by_width_2) - torch.sigmoid((-0.5 - two) * by_width_2)
    return -torch.log2(p_one + share * (p_two - p_one) + 2.0**-24)


class Groups:
    """Symbols of every level in coding order, and excerpts of them drawn by seed."""

    def __init__(self, groups: Sequence[Array], found: Statistics):
        self.whole, self.found = groups, found
        self.groups = [np.ascontiguousarray(level[..., found.order]) for level in groups]

    def draw(self, count: int, frames: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """symbols [B, T, U] int16 and level [B]; levels are equally likely, places too."""
        level = rng.integers(len(self.groups), size=count)
        symbols = np.empty((count, frames, len(self.found.order)), np.int16)
        for row, index in enumerate(level):
            source = self.groups[index]
            start = int(rng.integers(source.shape[1] - frames + 1))
            symbols[row] = source[rng.integers(len(source)), start : start + frames]
        return symbols, level

    def inputs(self, symbols: Array, level: Array) -> tuple[Tensor, ...]:
        """What the network takes: planes, logs, before, level; and symbols as float32."""
        logs = self.found.logarithms(symbols, level)
        planes = planes_of(logs)
        start = np.round(self.found.mean[level])[:, None]
        before = np.concatenate([start, symbols[:, :-1]], 1, dtype=np.float32)
        parts = (planes.reshape(*planes.shape[:2], -1), logs, before, level, symbols.astype(np.float32))
        return tuple(torch.from_numpy(part) for part in parts)


def train(
    groups: Sequence[Array],
    steps: Array,
    config: ContextConfig,
    note: Callable[[int, float], None] = lambda step, loss: None,
) -> ContextPrior:
    """A context prior for symbols, [n, T, D] integers of each level, quantised with steps [L, D].

    `note` hears of every step and its loss: bits relative to those of static tables, the mean over the levels.
    """
    data = Groups(groups, statistics(groups, steps))
    return to_prior(fit(data, config, note), data)


def fit(data: Groups, config: ContextConfig, note: Callable[[int, float], None]) -> ContextNet:
    """The network, trained; see `train`."""
    if any(level.shape[1] < config.frames or not len(level) for level in data.groups):
        shapes = [level.shape for level in data.groups]
        raise TrainError(f"symbols are {shapes}, of fewer than {config.frames} frames; code longer excerpts")
    torch.manual_seed(config.seed)
    rng, net = np.random.default_rng(config.seed), ContextNet(config, data.found)
    static = torch.tensor(static_bits(data.groups), dtype=torch.float32)
    optimiser = torch.optim.AdamW(net.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    cost = torch.compile(bits) if config.fast else bits
    for step in range(config.steps):
        net.rounding = step >= config.rounding_from * config.steps
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(step / config.steps, step)
        *inputs, wanted = data.inputs(*data.draw(config.batch, config.frames, rng))
        spent = cost(net(*inputs), wanted, net.rounding).sum(-1).mean(1)
        loss = (spent / static[inputs[-1]]).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimiser.step()
        note(step, float(loss.detach()))
    return net


def _rate(done: float, step: int) -> float:
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.02, (1 - done) / 0.6))


def static_bits(groups: Sequence[Array]) -> Array:
    """Bits a frame of each level [L] by the best static tables."""
    totals = []
    for level in groups:
        flat = level.reshape(-1, level.shape[-1]).astype(np.int32)
        counts = [np.bincount(column + LARGEST + 1) for column in flat.T]
        shares = [count[count > 0] / len(flat) for count in counts]
        totals.append(max(1e-3, sum(float(-(share * np.log2(share)).sum()) for share in shares)))
    return np.array(totals)


def to_prior(net: ContextNet, data: Groups) -> ContextPrior:
    """The trained network in integers."""
    found, groups = data.found, data.whole
    ends = net.ends
    dims, levels, c = groups[0].shape[-1], len(groups), net.config
    a: dict[str, Array] = {"order": found.order, "ends": np.array(ends), "ratio": found.ratio, "logs": found.logs}
    a["reach"] = reaches(net, data)
    a["w_in"], a["b_in"], a["s_in"] = _whole(net.w_in, net.b_in)
    mids = [_whole(weights, bias) for weights, bias in zip(net.w_mid, net.b_mid, strict=True)]
    for index, name in enumerate(("w_mid", "b_mid", "s_mid")):
        shape = ((0, c.hidden, c.hidden), (0, c.hidden), (0, c.hidden))[index]
        a[name] = np.stack([mid[index] for mid in mids]) if mids else np.zeros(shape)
    both, a["b_block"], a["s_block"] = _whole(torch.cat([net.w_block, net.w_frame * net.earlier]), net.b_block)
    a["w_block"], a["w_frame"] = np.split(both, [c.hidden])
    w_out, b_out, s_out = _whole(net.w_out.flatten(1), net.b_out.flatten(), 4, 4)
    a["w_out"], a["b_out"], a["s_out"] = (x.reshape(*x.shape[:-1], PLANES, -1) for x in (w_out, b_out, s_out))
    a["mult"], a["base"], a["follow"] = _choices(net)
    a["start"] = np.round(found.mean)
    a["curve"] = np.round((1 << CURVE_BITS) / (1 + np.exp(np.arange(CURVE) / CURVE_STEPS)))
    a["curve"][-1] = 0
    widths = NARROWEST * 2.0 ** (np.arange(WIDTHS) / PER_OCTAVE)
    a["narrow"] = np.round(256 * CURVE_STEPS / PARTS / widths)
    logits = (np.arange(WEIGHTS) - WEIGHT_MIDDLE) / PER_NAT
    a["weight"] = np.round((1 << WEIGHT_BITS) / (1 + np.exp(-logits)))
    a["tables"] = other_tables(groups, np.setdiff1d(np.arange(dims), found.order))
    sizes = Sizes(levels, dims, len(found.order), len(ends), c.hidden, c.small, c.depth, a["tables"].shape[-1] - 1)
    return ContextPrior(sizes, {name: a[name].astype(kind) for name, (kind, _) in sizes.arrays.items()})


def _whole(weights: Tensor, bias: Tensor, lowest: int = 0, keep: int = 0) -> tuple[Array, Array, Array]:
    """Weights [I, O] as int8, bias [..., O] to match with half a step added for rounding, shifts [O]."""
    shifts = shifts_of(weights, lowest)
    whole = torch.round(weights.detach() * torch.exp2(shifts)).clamp(-TOP, TOP)
    down = shifts - keep
    half = torch.where(down > 0, torch.exp2(down - 1), torch.zeros(()))
    bias = torch.round(bias.detach() * UNIT * torch.exp2(shifts) + half)
    return whole.numpy(), bias.numpy(), down.numpy()


def _choices(net: ContextNet) -> tuple[Array, Array, Array]:
    """mult and base [L, PLANES, U], follow [L, U]: the network's numbers of 1 / OUT to places and indices."""
    size, mean, shape, follow = (x.detach().double().numpy() for x in (net.size, net.mean, net.shape, net.follow))
    fine, per_nat = 1 << FINE, PER_OCTAVE / math.log(2)
    mult, base = np.empty(shape.shape), np.empty(shape.shape)
    mult[:, 0] = mult[:, 4] = 2 * PARTS * size
    mult[:, 1] = mult[:, 3] = per_nat
    mult[:, 2] = PER_NAT
    base[:, 0] = PARTS * (mean + size * shape[:, 0] - follow * mean)
    base[:, 4] = PARTS * size * shape[:, 4]
    for plane in (1, 3):
        base[:, plane] = per_nat * (np.log(size) + shape[:, plane] - math.log(NARROWEST))
    base[:, 2] = WEIGHT_MIDDLE + PER_NAT * shape[:, 2]
    return np.round(mult * fine / OUT), np.round((base + 0.5) * fine), np.round(PARTS * follow * fine)


@torch.no_grad()
def reaches(net: ContextNet, data: Groups, draws: int = 40, beyond: float = 5e-5) -> Array:
    """Window of each block [K]: so wide that a share `beyond` of the symbols escapes at the worst level and dim."""
    far, rng = [], np.random.default_rng(net.config.seed + 1)
    for _ in range(draws):
        symbols, level = data.draw(net.config.batch, net.config.frames, rng)
        *inputs, wanted = data.inputs(symbols, level)
        far.append((wanted - net(*inputs)[:, :, 0]).abs().flatten(0, 1).numpy())
    found, start, reach = np.concatenate(far), 0, []
    for end in net.ends:
        worst = np.quantile(found[:, start:end], 1 - beyond)
        reach.append(int(np.clip(math.ceil(worst) + 1, 2, LARGEST)))
        start = end
    return np.array(reach)


def other_tables(groups: Sequence[Array], dims: Array) -> Array:
    """Counts [L, n, A + 1] of the dims that go by tables; the last column is for sizes beyond A // 2."""
    largest = max((int(np.abs(level[..., dims]).max(initial=0)) for level in groups), default=0)
    reach = min(largest + 1, 3)
    tables = np.ones((len(groups), len(dims), 2 * reach + 2), np.int64)
    for level, found in enumerate(groups):
        flat = found.reshape(-1, found.shape[-1]).astype(np.int32)
        for row, dim in enumerate(dims):
            index = np.where(np.abs(flat[:, dim]) > reach, 2 * reach + 1, flat[:, dim] + reach)
            count = np.bincount(index, minlength=2 * reach + 2)
            tables[level, row] += count * (TABLE - 2 * reach - 2) // len(flat)
            tables[level, row, count.argmax()] += TABLE - tables[level, row].sum()
    return tables
