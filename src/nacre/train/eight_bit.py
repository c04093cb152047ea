"""Matrices of a graph in 8 bits: half the bytes and twice the speed of float16. `eight_bit` writes, `weights` reads.

    x [1, T, K] -> size [1, T, 1] -> x / size as uint8 -> times W [K, N] int8 -> whole numbers [1, T, N] -> times size

Every row has a size of its own and sums are whole numbers, so a frame comes out the same whatever stands beside it.
W has a scale a column, such that no two rows that meet go beyond PAIR with one sign: x86 without VNNI adds two products
in 16 bits. The last matrices before the output stay as they are: in pauses they take the difference of large numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nacre.core.types import Array

SMALLEST = 128  # rows and columns of a matrix that is worth it
MOST = 255
WEIGHTS, PAIR = 127, (1 << 15) // MOST  # largest of a weight, and of the sum of two
TINY = 1e-20
EVEN = (128, TINY)  # what 0 becomes, the smallest size; of rows with both signs
GELU = (26, 1.5)  # GELU gives nothing below -.17, which is -26 in steps of 1.5 / 229


def eight_bit(model: ModelProto) -> None:
    """Turn products with large matrices [K, N] float32 into products of whole numbers, in place."""
    graph, nodes, rows, last = model.graph, [], dict[str, _Rows](), _last(model.graph)
    matrices = {tensor.name: tensor for tensor in graph.initializer if _is_large(tensor)}
    gelus = {node.output[0] for node in graph.node if node.op_type == "Gelu"}
    for node in graph.node:
        matrix = matrices.get(node.input[1]) if node.op_type == "MatMul" and node.output[0] not in last else None
        if matrix is None:
            nodes.append(node)
            continue
        name = node.input[0]
        if name not in rows:
            rows[name] = _Rows(name, *(GELU if name in gelus else EVEN))
            nodes += rows[name].nodes()
            graph.initializer.extend(rows[name].constants())
        nodes += rows[name].product(node, _rounded(graph, matrix))
    del graph.node[:]
    graph.node.extend(nodes)
    if rows:
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def weights(graph: GraphProto) -> Iterator[tuple[str, str, Array]]:
    """Operator, its output and each array of float32 that it takes, in their order, whatever a graph keeps them as.

    Products of 8 bits are told as "MatMul", a convolution as a "Mul" for each tap [C]. Single numbers are left out.
    """
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer if item.data_type in kinds}
    for node in graph.node:
        given = [arrays[name] for name in node.input if name in arrays]
        if node.op_type == "Cast" and given:
            arrays[node.output[0]] = given[0]
        elif node.op_type == "MatMulIntegerToFloat":
            matrix, scale = arrays[node.input[1]], arrays[node.input[3]]
            yield "MatMul", node.output[0].removesuffix("_unit"), matrix * scale
        elif node.op_type == "Conv":
            for tap in given[0].astype(np.float32)[:, 0, :, 0].T:
                yield "Mul", node.output[0], tap
        else:
            for array in given:
                if array.size > 1:
                    yield node.op_type, node.output[0], array.astype(np.float32)


def is_folded(operator: str, array: Array) -> bool:
    """Whether an array of `weights` is a table [L, D] of the bottleneck; what blocks look up by level is [L, 2, D]."""
    return operator in ("Gather", "GatherND") and array.ndim == 2


class _Rows:
    """Rows [1, T, K] of a name, each by its size in whole numbers of which `zero` stands for 0."""

    def __init__(self, name: str, zero: int, smallest: float):
        self.name, self.zero, self.smallest = name, zero, smallest
        self.size, self.whole = f"{name}_size", f"{name}_whole"
        self.step, self.middle = f"{name}_step", f"{name}_zero"

    def constants(self) -> list[TensorProto]:
        values: dict[str, Any] = {
            self.step: np.float32(1 / (MOST - self.zero)),
            self.middle: np.uint8(self.zero),
            f"{self.name}_smallest": np.float32(self.smallest),
            f"{self.name}_last": np.array([-1], np.int64),
        }
        return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]

    def nodes(self) -> list[NodeProto]:
        name = self.name
        return [
            helper.make_node("Abs", [name], [f"{name}_abs"]),
            helper.make_node("ReduceMax", [f"{name}_abs", f"{name}_last"], [f"{name}_largest"], keepdims=1),
            helper.make_node("Max", [f"{name}_largest", f"{name}_smallest"], [self.size]),
            helper.make_node("Div", [name, self.size], [f"{name}_share"]),
            helper.make_node("QuantizeLinear", [f"{name}_share", self.step, self.middle], [self.whole]),
        ]

    def product(self, node: NodeProto, scale: str) -> list[NodeProto]:
        matrix, out = node.input[1], node.output[0]
        given = [self.whole, matrix, self.step, scale, self.middle]
        unit = helper.make_node("MatMulIntegerToFloat", given, [f"{out}_unit"], node.name, domain="com.microsoft")
        return [unit, helper.make_node("Mul", [f"{out}_unit", self.size], [out])]


def _last(graph: GraphProto) -> set[str]:
    """What the products give from which no other one leads to the first output."""
    makers = {name: node for node in graph.node for name in node.output}
    last, names = set(), [graph.output[0].name]
    while names:
        name = names.pop()
        if name not in makers:
            continue
        if makers[name].op_type == "MatMul":
            last.add(name)
        else:
            names += makers[name].input
    return last


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and min(tensor.dims) >= SMALLEST


def _rounded(graph: GraphProto, tensor: TensorProto) -> str:
    """Make a matrix [K, N] int8 and add the scale of its columns, whose name is returned."""
    values = numpy_helper.to_array(tensor)
    even = np.pad(values, ((0, len(values) % 2), (0, 0)))
    pairs = np.stack([even, -even]).clip(0)
    pairs = pairs[:, ::2] + pairs[:, 1::2]  # [2, K / 2, N], of each sign
    scale = np.maximum(np.abs(values).max(0) / WEIGHTS, pairs.max((0, 1)) / (PAIR - 1))  # rounding adds one
    scale = np.maximum(scale, TINY).astype(np.float32)
    name = f"{tensor.name}_scale"
    tensor.CopyFrom(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), tensor.name))
    graph.initializer.append(numpy_helper.from_array(scale, name))
    return name
