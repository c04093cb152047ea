"""Weights out of an ONNX graph by the names and the order that the exporter leaves them: quick, where it applies.

named initialisers     biases and norms, as they are
MatMul before a bias   the weight of that linear layer, transposed
Gather by the level    `film` of block after block, parameters of the bottleneck
Mul by one constant    the taps of `depthwise`, block after block
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import GraphProto, numpy_helper
from torch import nn

from nacre.core.types import Array
from nacre.train.bottlenecks.base import Bottleneck
from nacre.train.eight_bit import is_folded, weights


def fill_folded(bottleneck: Bottleneck, part: str, path: Path) -> bool:
    """Give a bottleneck the parameters that a graph has of it; False where they are not what it wants."""
    names = bottleneck.folded.get(part, ())
    tables = [array for operator, _, array in weights(onnx.load(path).graph) if is_folded(operator, array)]
    wanted = [bottleneck.get_parameter(name) for name in names]
    if [table.shape for table in tables] != [tuple(value.shape) for value in wanted]:
        return False
    with torch.no_grad():
        for value, table in zip(wanted, tables, strict=True):
            value.copy_(torch.tensor(table))
    return True


def fill(side: nn.Module, part: str, path: Path) -> bool:
    """Give the "encoder" or "decoder" the weights of a graph; False where not every one of them was found."""
    weights = _weights(onnx.load(path).graph, f"codec.{part}.")
    blocks = [name.removesuffix("film") for name, _ in side.named_parameters() if name.endswith("film")]
    taps = [int(side.get_parameter(f"{block}depthwise").shape[0]) for block in blocks if _convolves(side, block)]
    if len(weights.films) != len(blocks) or len(taps) != len(blocks) or len(weights.taps) != sum(taps):
        return False
    at = 0
    for block, film, count in zip(blocks, weights.films, taps, strict=True):
        weights.named[f"{block}film"] = film
        weights.named[f"{block}depthwise"] = np.stack(weights.taps[at : at + count])
        at += count
    wanted = {name: tuple(value.shape) for name, value in side.named_parameters()}
    if {name: weights.named[name].shape for name in wanted.keys() & weights.named.keys()} != wanted:
        return False
    with torch.no_grad():
        for name, value in side.named_parameters():
            value.copy_(torch.tensor(weights.named[name]))
    return True


class _Found:
    """Weights by name, and those that only their order tells apart."""

    def __init__(self) -> None:
        self.named: dict[str, Array] = {}
        self.films: list[Array] = []
        self.taps: list[Array] = []


def _convolves(side: nn.Module, block: str) -> bool:
    return any(name == f"{block}depthwise" for name, _ in side.named_parameters())


def _weights(graph: GraphProto, prefix: str) -> _Found:
    gathered = _Found()
    for item in graph.initializer:
        if item.name.startswith(prefix):
            gathered.named[item.name.removeprefix(prefix)] = numpy_helper.to_array(item).astype(np.float32)
    biases = {given: node for node in graph.node if node.op_type == "Add" for given in node.input}
    for operator, output, array in weights(graph):
        if operator == "MatMul" and output in biases:
            bias = next((name for name in biases[output].input if name.startswith(prefix)), "")
            gathered.named[bias.removeprefix(prefix).removesuffix("bias") + "weight"] = array.T
        elif operator in ("Gather", "GatherND") and array.ndim == 3:
            gathered.films.append(array)
        elif operator == "Mul" and array.ndim == 1:
            gathered.taps.append(array)
    return gathered
