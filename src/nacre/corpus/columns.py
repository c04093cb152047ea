"""What a row of a shard holds: columns by name, type and shape, the same for every destination."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nacre.core.types import Array
from nacre.corpus.recordings import Value

Cell = Value | bytes | Array
Row = dict[str, Cell]


@dataclass(frozen=True)
class Column:
    """`dtype` is numpy's name, "string" or "bytes". `shape`: () one value, (None,) a list [T], (None, D) frames [T, D],
    (P,) a vector of one size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()

    @property
    def is_array(self) -> bool:
        """Whether it goes beside the row where rows are text: arrays and bytes."""
        return bool(self.shape) or self.dtype == "bytes"

    def holds(self, cell: Cell) -> bool:
        """Whether an array has the sides that the column has; what is no array has no sides."""
        sides = getattr(cell, "shape", ())
        pairs = zip(sides, self.shape, strict=False)
        return len(sides) == len(self.shape) and all(wanted in (None, found) for found, wanted in pairs)

    def to_dict(self) -> dict[str, Any]:
        """For the description of a corpus."""
        return asdict(self) | {"shape": list(self.shape)}


def size_of(cell: Cell) -> int:
    """Bytes of a cell in memory; of a number none to speak of."""
    if isinstance(cell, (bytes, str)):
        return len(cell)
    return 0 if cell is None or isinstance(cell, (int, float)) else int(cell.nbytes)


FACTS = (  # of every recording
    Column("row", "int64"),
    Column("key", "string"),
    Column("rate_hz", "int32"),
    Column("channels", "int16"),
    Column("samples", "int64"),
    Column("duration_s", "float64"),
)


def columns_of(made: tuple[Column, ...], kept: dict[str, str]) -> tuple[Column, ...]:
    """All columns of a shard: facts, what is made of the sound, what is kept of the source."""
    return (*FACTS, *made, *(Column(name, kind) for name, kind in kept.items()))
