"""A graph run by numpy alone, for machines that onnxruntime has no wheel for: at about half of its pace.

What it gives differs from onnxruntime's in the last places, and with the pieces in which frames come. A file says the
same to both, since no floating point enters the entropy decoder; its sound is then about 50 dB apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre.core.types import Array
from nacre.dsp.blas import one_thread
from nacre.model.protobuf import TYPES, read_graph

Op = Callable[[list[Any], dict[str, Any]], Any]


def _norm(x: Array, weight: Array, bias: Array, epsilon: float, axis: int) -> Array:
    axes = tuple(range(axis % x.ndim, x.ndim))
    x = x - x.mean(axes, keepdims=True)
    out: Array = x * (1 / np.sqrt(np.mean(x * x, axes, keepdims=True) + np.float32(epsilon))) * weight + bias
    return out


def _gelu(x: Array, approximate: str) -> Array:
    if approximate != "tanh":
        raise ValueError("Gelu without tanh")
    out: Array = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))
    return out


def _conv(x: Array, weight: Array, attributes: dict[str, Any]) -> Array:
    """Depthwise, [1, C, T + K - 1, 1] and [C, 1, K, 1] -> [1, C, T, 1]."""
    plain = not any(attributes.get("pads", ())) and {*attributes.get("strides", [1]), *attributes["dilations"]} == {1}
    if not plain or weight.shape[1::2] != (1, 1) or attributes["group"] != len(weight) or x.shape[1] != len(weight):
        raise ValueError("a convolution that is not depthwise")
    taps = weight.shape[2]
    frames = x.shape[2] - taps + 1
    return np.asarray(sum(x[:, :, tap : tap + frames] * weight[None, :, 0, tap, None] for tap in range(taps)))


def _gru(given: list[Any], attributes: dict[str, Any]) -> tuple[Array, Array]:
    """x [T, B, X], weights [1, 3 H, X] and [1, 3 H, H], biases [1, 6 H], -, start [1, B, H] -> [T, 1, B, H], end."""
    x, inward, around, biases, _, start = given
    if not attributes.get("linear_before_reset") or len(inward) != 1:
        raise ValueError("a GRU of another kind")
    width, state = attributes["hidden_size"], start[0]
    before, behind = biases[0, : 3 * width], biases[0, 3 * width :]
    drive, states = x @ inward[0].T + before, []  # [T, B, 3 H]
    for row in drive:
        own = state @ around[0].T + behind
        update = 1 / (1 + np.exp(-(row[:, :width] + own[:, :width])))
        reset = 1 / (1 + np.exp(-(row[:, width : 2 * width] + own[:, width : 2 * width])))
        new = np.tanh(row[:, 2 * width :] + reset * own[:, 2 * width :])
        state = (1 - update) * new + update * state
        states.append(state)
    return np.stack(states)[:, None], state[None]


def _slice(x: Array, start: Array, stop: Array, axes: Array, steps: Array | None = None) -> Array:
    where = [slice(None)] * x.ndim
    for low, high, axis, step in zip(start, stop, axes, np.ones_like(axes) if steps is None else steps, strict=True):
        where[axis] = slice(int(low), int(high), int(step))
    return x[tuple(where)]


def _split(given: list[Any], attributes: dict[str, Any]) -> list[Array]:
    axis = attributes.get("axis", 0)
    if len(given) > 1:
        return np.split(given[0], np.cumsum(given[1])[:-1], axis)
    return np.array_split(given[0], attributes["num_outputs"], axis)


def _reshape(x: Array, sizes: Array) -> Array:
    return x.reshape([x.shape[at] if size == 0 else int(size) for at, size in enumerate(sizes)])


def _pad(given: list[Any], attributes: dict[str, Any]) -> Array:
    x, widths = given[:2]
    axes = given[3] if len(given) > 3 else range(x.ndim)
    around = [(0, 0)] * x.ndim
    for place, axis in enumerate(axes):
        around[axis] = (int(widths[place]), int(widths[place + len(widths) // 2]))
    return np.pad(x, around)


OPS: dict[str, Op] = {
    "Abs": lambda x, a: np.abs(x[0]),
    "Add": lambda x, a: x[0] + x[1],
    "Cast": lambda x, a: x[0].astype(TYPES[a["to"]]),
    "Clip": lambda x, a: np.clip(x[0], x[1], x[2]),
    "Concat": lambda x, a: np.concatenate(x, a["axis"]),
    "Conv": lambda x, a: _conv(x[0], x[1], a),
    "Div": lambda x, a: x[0] / x[1],
    "Einsum": lambda x, a: np.einsum(a["equation"], *x, optimize=True),
    "Exp": lambda x, a: np.exp(x[0]),
    "GRU": _gru,
    "GatherND": lambda x, a: x[0][tuple(np.moveaxis(x[1], -1, 0))],
    "Gelu": lambda x, a: _gelu(x[0], a.get("approximate", "none")),
    "Greater": lambda x, a: x[0] > x[1],
    "Identity": lambda x, a: x[0],
    "LayerNormalization": lambda x, a: _norm(x[0], x[1], x[2], a["epsilon"], a.get("axis", -1)),
    "MatMul": lambda x, a: x[0] @ x[1],
    "MatMulIntegerToFloat": lambda x, a: ((x[0] - np.float32(x[4])) @ x[1]) * (x[2] * x[3]),
    "Max": lambda x, a: np.maximum(x[0], x[1]),
    "Mul": lambda x, a: x[0] * x[1],
    "Pad": _pad,
    "Pow": lambda x, a: x[0] ** x[1],
    "QuantizeLinear": lambda x, a: np.clip(np.rint(x[0] / x[1]) + np.float32(x[2]), 0, 255),  # floats multiply faster
    "Reciprocal": lambda x, a: 1 / x[0],
    "ReduceMax": lambda x, a: x[0].max(tuple(x[1]), keepdims=bool(a.get("keepdims", 1))),
    "ReduceSum": lambda x, a: x[0].sum(tuple(x[1]), keepdims=bool(a.get("keepdims", 1))),
    "Relu": lambda x, a: np.maximum(x[0], 0),
    "Reshape": lambda x, a: _reshape(x[0], x[1]),
    "Shape": lambda x, a: np.array(x[0].shape[a.get("start", 0) : a.get("end", x[0].ndim)]),
    "Slice": lambda x, a: _slice(*x),
    "Softplus": lambda x, a: np.logaddexp(x[0], np.float32(0)),
    "Split": _split,
    "Sqrt": lambda x, a: np.sqrt(x[0]),
    "Squeeze": lambda x, a: np.squeeze(x[0], tuple(x[1]) if len(x) > 1 else None),
    "Transpose": lambda x, a: x[0].transpose(a["perm"]),
    "Unsqueeze": lambda x, a: np.expand_dims(x[0], tuple(x[1])),
    "Where": lambda x, a: np.where(x[0], x[1], x[2]),
}
STORED = ("Cast", "Mul")  # of constants: how weights are kept in a file


@dataclass(frozen=True)
class Port:
    """What goes in or comes out."""

    name: str
    shape: list[int | None]


class Session:
    """As much of onnxruntime's InferenceSession as nacre needs. Creation raises ValueError."""

    def __init__(self, data: bytes):
        graph = read_graph(data)
        if lacking := sorted({node.op for node in graph.nodes} - OPS.keys()):
            raise ValueError(f"layers that numpy does not know here ({', '.join(lacking)}): install onnxruntime")
        self._inputs, self._outputs = ([Port(*port) for port in ports] for ports in (graph.inputs, graph.outputs))
        bytes_as_floats = {name: a.astype(np.float32) for name, a in graph.constants.items() if a.dtype == np.int8}
        self._constants: dict[str, Any] = {"": None} | graph.constants | bytes_as_floats
        self._nodes = []
        for node in graph.nodes:
            if node.op in STORED and all(name in self._constants for name in node.inputs):
                given = [self._constants[name] for name in node.inputs]
                self._constants[node.outputs[0]] = OPS[node.op](given, node.attributes)
            else:
                self._nodes.append(node)

    def get_inputs(self) -> list[Port]:
        """Names and shapes of what goes in."""
        return self._inputs

    def get_outputs(self) -> list[Port]:
        """Names and shapes of what comes out."""
        return self._outputs

    @one_thread
    def run(self, _: None, feed: dict[str, Array]) -> list[Array]:
        """All that comes out."""
        values = self._constants | feed
        with np.errstate(all="ignore"):  # `Network` looks for what is no number
            for node in self._nodes:
                made = OPS[node.op]([values[name] for name in node.inputs], node.attributes)
                values.update(zip(node.outputs, made if isinstance(made, tuple | list) else (made,), strict=False))
        return [np.asarray(values[port.name], np.float32) for port in self._outputs]
