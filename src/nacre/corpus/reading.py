"""Shards as rows of numpy arrays again, whatever kind of file they are; no torch is needed.

>>> corpus = Corpus("latents/")  # doctest: +SKIP
>>> row = corpus[0]  # doctest: +SKIP
>>> row["latents"].shape  # doctest: +SKIP
(152, 64)
"""

from __future__ import annotations

import csv
import json
import struct
import tarfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nacre.codec.latents import Latents
from nacre.codec.tokens import Tokens
from nacre.core.errors import StreamError, UsageError, reason
from nacre.core.types import Array
from nacre.corpus.arrow import arrow
from nacre.corpus.columns import Cell, Column, Row
from nacre.corpus.manifest import read_description, read_records

MOST_HEAD_BYTES = 1 << 28  # of a safetensors file
OPEN_SHARDS = 4  # at a time


class ShardRows(Protocol):
    """The rows of one shard, in any order; in their own order each byte is read once."""

    def row(self, index: int) -> Row:
        """One row, arrays [T, ...] among its cells."""
        ...


class Corpus(Sequence[Row]):
    """All rows of a destination of `nacre corpus`, in the order of its source; `columns` limits what is read.

    Raises UsageError for another folder, StreamError for a shard that is damaged or missing.
    """

    def __init__(self, folder: str | Path, columns: Sequence[str] | None = None):
        self.folder, self.facts = Path(folder), read_description(folder)
        self.records = read_records(folder)
        every = tuple(Column(item["name"], item["dtype"], tuple(item["shape"])) for item in self.facts["columns"])
        if columns is not None and (missing := set(columns) - {column.name for column in every}):
            names = ", ".join(column.name for column in every)
            raise UsageError(f"{folder} has no column {', '.join(sorted(missing))}, only {names}")
        self.columns = tuple(column for column in every if columns is None or column.name in columns)
        self._starts = [0, *accumulate(record.rows for record in self.records)]
        self._open = lru_cache(OPEN_SHARDS)(self.open_shard)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        shard = bisect_right(self._starts, place) - 1
        return self._row(self._open(shard), shard, place - self._starts[shard])

    def rows(self, shard: int) -> Iterator[Row]:
        """The rows of the n-th of `records`."""
        opened = self.open_shard(shard)
        for index in range(self.records[shard].rows):
            yield self._row(opened, shard, index)

    def open_shard(self, shard: int) -> ShardRows:
        """The n-th of `records`, opened."""
        path = self.folder / self.records[shard].file
        try:
            opened: ShardRows = _OPENERS[self.facts["to"]](path, self.columns)
            return opened
        except (OSError, ValueError, LookupError, tarfile.TarError) as error:
            raise StreamError(f"{path} is no whole shard: {reason(error)}; see `nacre corpus verify`") from error

    def _row(self, opened: ShardRows, shard: int, index: int) -> Row:
        try:
            return opened.row(index)
        except (OSError, ValueError, LookupError) as error:
            place = f"{self.folder / self.records[shard].file}, row {index} of it"
            raise StreamError(f"{place}, cannot be read: {reason(error)}; see `nacre corpus verify`") from error

    def frames(self, row: Row) -> Tokens | Latents:
        """A row as what `Codec.from_tokens` or `Codec.from_latents` makes sound of. Raises UsageError."""
        kinds: dict[str, type[Tokens] | type[Latents]] = {"tokens": Tokens, "latents": Latents}
        what = self.facts["what"]
        needed = {what, "gains", "levels", "rate_hz", "samples", "frames"}
        if what not in kinds or not needed <= set(row):
            wanted = ", ".join(sorted(needed))
            raise UsageError(f"sound comes from tokens or latents by {wanted}; {self.folder} gives {', '.join(row)}")
        fingerprint, size = self.facts["static_fingerprint"], self.facts["group_frames"]
        cells: dict[str, Any] = {name: row[name] for name in needed}
        return kinds[what](**cells, group_frames=size, fingerprint=fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "columns": [column.name for column in self.columns]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _ParquetRows:
    """One row group is in memory."""

    def __init__(self, path: Path, columns: tuple[Column, ...]):
        try:
            self._file = arrow().parquet.ParquetFile(path)
        except arrow().ArrowException as error:
            raise ValueError(error) from error
        self._columns, facts = columns, self._file.metadata
        sizes = [facts.row_group(group).num_rows for group in range(facts.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._held, self._arrays = -1, dict[str, Any]()

    def row(self, index: int) -> Row:
        """One row."""
        group = bisect_right(self._starts, index) - 1
        if group != self._held:
            table = self._file.read_row_group(group, [column.name for column in self._columns], use_threads=False)
            self._arrays = {name: table.column(name).combine_chunks() for name in table.column_names}
            self._held = group
        place = index - self._starts[group]
        return {column.name: _value(self._arrays[column.name][place], column) for column in self._columns}


def _value(cell: Any, column: Column) -> Cell:
    """A cell of Arrow as an array of the column's shape, or as Python's own."""
    if not column.shape:
        value: Cell = cell.as_py()
        return value
    held = cell.values
    while hasattr(held, "flatten") and hasattr(held.type, "value_type"):
        held = held.flatten()
    if held.type != arrow().from_numpy_dtype(np.dtype(column.dtype)) or held.null_count:
        raise ValueError(f"{column.name} of type {held.type}")
    sides = [-1 if size is None else size for size in column.shape]
    data = held.buffers()[1] if len(held) else b""  # as it is: `to_numpy` imports pandas, 0.3 s for every worker
    return np.frombuffer(data, column.dtype, len(held), held.offset * held.type.bit_width // 8).reshape(sides).copy()


class _TarRows:
    """Members by their samples; an array is read when its row is."""

    def __init__(self, path: Path, columns: tuple[Column, ...]):
        self._columns, self._file = columns, open(path, "rb")  # noqa: SIM115 - for as long as this is there
        self._samples: list[dict[str, tuple[int, int]]] = []
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                _, _, ending = member.name.partition(".")
                if ending == "json":
                    self._samples.append({})
                self._samples[-1][ending] = member.offset_data, member.size

    def row(self, index: int) -> Row:
        """One row."""
        facts, made = json.loads(self._read(index, "json")), Row()
        for column in self._columns:
            if not column.is_array:
                made[column.name] = facts[column.name]
            elif column.dtype == "bytes":
                made[column.name] = self._read(index, column.name)
            else:
                made[column.name] = _npy(self._read(index, f"{column.name}.npy"), column)
        return made

    def _read(self, index: int, ending: str) -> bytes:
        offset, size = self._samples[index][ending]
        self._file.seek(offset)
        return self._file.read(size)


def _npy(data: bytes, column: Column) -> Array:
    import io

    array: Array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype != column.dtype:
        raise ValueError(f"{column.name} of type {array.dtype}")
    return array


class _SafetensorsRows:
    """Tensors of all rows, mapped into memory; the rest as JSON in the header."""

    def __init__(self, path: Path, columns: tuple[Column, ...]):
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MOST_HEAD_BYTES:
                raise ValueError(f"a header of {size} bytes")
            head = json.loads(file.read(size))
        self._columns, self._rows = columns, json.loads(head["__metadata__"]["rows"])
        self._tensors: dict[str, Array] = {}
        for column in columns:
            if column.is_array:
                kind = "uint8" if column.dtype == "bytes" else column.dtype
                for name, dtype in ((column.name, kind), (f"{column.name}.ends", "int64")):
                    place, shape = 8 + size + head[name]["data_offsets"][0], tuple(head[name]["shape"])
                    empty = 0 in shape  # which cannot be mapped
                    whole = np.zeros(shape, dtype) if empty else np.memmap(path, dtype, "r", place, shape)
                    self._tensors[name] = whole

    def row(self, index: int) -> Row:
        """One row."""
        made = Row()
        for column in self._columns:
            if not column.is_array:
                made[column.name] = self._rows[index][column.name]
                continue
            ends = self._tensors[f"{column.name}.ends"]
            value = np.array(self._tensors[column.name][int(ends[index - 1]) if index else 0 : int(ends[index])])
            if column.dtype == "bytes":
                made[column.name] = value.tobytes()
            else:
                made[column.name] = value if column.shape[0] is None else value[0]
        return made


class _TreeRows:
    """A table, and a file for each row."""

    KINDS = ((int, ("int64", "int32", "int16")), (float, ("float64",)))

    def __init__(self, path: Path, columns: tuple[Column, ...]):
        self._folder, self._columns = path.parent, columns
        with open(path, encoding="utf-8", newline="") as file:
            self._rows = list(csv.DictReader(file))

    def row(self, index: int) -> Row:
        """One row."""
        made = Row()
        for column in self._columns:
            if column.is_array:
                made[column.name] = (self._folder / self._rows[index]["file"]).read_bytes()
                continue
            text = self._rows[index][column.name]
            make = next((make for make, kinds in self.KINDS if column.dtype in kinds), str)
            made[column.name] = (text == "True" if column.dtype == "bool" else make(text)) if text else None
        return made


_OPENERS: dict[str, Any] = {
    "parquet": _ParquetRows,
    "webdataset": _TarRows,
    "safetensors": _SafetensorsRows,
    "tree": _TreeRows,
}
