"""Graphs out of ONNX files without the onnx package: the few fields of them that layers need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nacre.core.types import Array

TYPES = {1: "<f4", 2: "|u1", 3: "|i1", 6: "<i4", 7: "<i8", 9: "|b1", 10: "<f2", 11: "<f8"}
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # kinds of fields
Value = int | bytes


@dataclass(frozen=True)
class Node:
    """A layer: what it does, and the names of what it takes and gives."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, int | float | str | list[int]]


@dataclass
class Graph:
    """Layers in order, constants by name, and (name, shape) of what goes in and comes out; None is any size."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: list[tuple[str, list[int | None]]] = field(default_factory=list)
    outputs: list[tuple[str, list[int | None]]] = field(default_factory=list)


def read_graph(data: bytes) -> Graph:
    """The graph of an ONNX file. Raises ValueError."""
    graph = Graph()
    for number, part in _fields(_one(data, 7)):
        if number == 1:
            graph.nodes.append(_node(_bytes(part)))
        elif number == 5:
            name, values = _tensor(_bytes(part))
            graph.constants[name] = values
        elif number in (11, 12):
            (graph.inputs if number == 11 else graph.outputs).append(_shape(_bytes(part)))
    return graph


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) of every field of a message; numbers of 4 and 8 bytes as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, size = key & 7, 0
        if kind == VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if kind == FOUR_BYTES else 8
        else:
            raise ValueError(f"a field of kind {kind}")
        if size > len(data) - at:
            raise ValueError("a field that is longer than the file")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value - (1 << 64) if value >> 63 else value, at
    raise ValueError("a number without an end")


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number in place of a message")
    return value


def _one(data: bytes, number: int) -> bytes:
    """The last field of a number, empty where there is none."""
    return next((_bytes(value) for key, value in reversed(list(_fields(data))) if key == number), b"")


def _text(value: Value) -> str:
    return _bytes(value).decode()


def _whole(value: Value) -> list[int]:
    """Whole numbers, one or packed."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _node(data: bytes) -> Node:
    fields = list(_fields(data))
    inputs, outputs, attributes = ([value for key, value in fields if key == number] for number in (1, 2, 5))
    named = dict(_attribute(_bytes(value)) for value in attributes)
    return Node(_text(_one(data, 4)), [_text(value) for value in inputs], [_text(value) for value in outputs], named)


def _attribute(data: bytes) -> tuple[str, int | float | str | list[int]]:
    name, many = "", list[int]()
    value: int | float | str | None = None
    for number, part in _fields(data):
        if number == 1:
            name = _text(part)
        elif number == 2:
            value = float(np.frombuffer(_bytes(part), "<f4")[0])
        elif number == 3:
            value = _whole(part)[0]
        elif number == 4:
            value = _text(part)
        elif number == 8:
            many += _whole(part)
    return name, many if value is None else value


def _tensor(data: bytes) -> tuple[str, Array]:
    shape, kind, name, raw = list[int](), 0, "", b""
    for number, part in _fields(data):
        if number == 1:
            shape += _whole(part)
        elif number == 2:
            kind = _whole(part)[0]
        elif number == 8:
            name = _text(part)
        elif number == 9:
            raw = _bytes(part)
    if kind not in TYPES or min(shape, default=0) < 0:
        raise ValueError(f"constant {name} of type {kind} and shape {shape}")
    return name, np.frombuffer(raw, TYPES[kind]).reshape(shape)


def _shape(data: bytes) -> tuple[str, list[int | None]]:
    dims = [_bytes(part) for number, part in _fields(_one(_one(_one(data, 2), 1), 2)) if number == 1]
    sizes = [next((_whole(value)[0] for number, value in _fields(dim) if number == 1), None) for dim in dims]
    return _text(_one(data, 1)), sizes
