"""Recordings in the cells of Parquet files and of Hugging Face datasets on disk: as bytes, paths or samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.errors import AudioError, UsageError, reason
from nacre.core.types import Array
from nacre.corpus.arrow import arrow as pyarrow
from nacre.corpus.recordings import InFile, InTable, Unreadable
from nacre.corpus.sources import (
    KEY_COLUMNS,
    RATE_COLUMNS,
    SOUND_COLUMNS,
    Found,
    Source,
    Wanted,
    check_kept,
    column_of,
    size_of,
)

ROWS_AT_ONCE = 16  # cells with sound in memory
READ_BYTES = 1 << 20
Blocks = Callable[[str, list[str]], Iterator[tuple[int, int, Any]]]  # (path, columns) -> block, bytes a row, rows


def parquet(paths: list[str], path: str, wanted: Wanted) -> Source:
    """The rows of Parquet files, in the order of their names. Raises UsageError."""
    with _opened(paths[0]) as file:
        schema = file.schema_arrow
    return _source("parquet", paths, path, wanted, schema, _parquet_blocks)


def arrow(path: str, wanted: Wanted) -> Source:
    """The rows of a dataset that `Dataset.save_to_disk` wrote. Raises UsageError."""
    try:
        if os.path.exists(os.path.join(path, "dataset_dict.json")):
            splits = json.loads(Path(path, "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            raise UsageError(f"{path} has splits {', '.join(splits)}; name one, as {os.path.join(path, splits[0])}")
        state = json.loads(Path(path, "state.json").read_text(encoding="utf-8"))
        paths = [os.path.join(path, Path(item["filename"]).name) for item in state["_data_files"]]
        with pyarrow().memory_map(paths[0]) as file:
            schema = pyarrow().ipc.open_stream(file).schema
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is no folder that Dataset.save_to_disk wrote: {reason(error)}") from error
    return _source("arrow", paths, path, wanted, schema, _arrow_blocks)


def _source(kind: str, paths: list[str], path: str, wanted: Wanted, schema: Any, blocks: Blocks) -> Source:
    pa, names = pyarrow(), list(schema.names)
    audio = column_of(path, names, wanted.audio, SOUND_COLUMNS, "audio")
    key = wanted.key or next((name for name in KEY_COLUMNS if name in names), "")
    check_kept(path, names, (*wanted.keep, *([key] if key else [])))
    held = schema.field(audio).type
    rate = ""
    if pa.types.is_list(held) or pa.types.is_large_list(held):
        rate = column_of(path, names, None, RATE_COLUMNS, "rate")
    elif not (pa.types.is_struct(held) or _is_text(held) or pa.types.is_binary(held) or pa.types.is_large_binary(held)):
        raise UsageError(f"{path}: column {audio} holds {held}; give one with bytes, paths or samples of sound")
    types = {name: _kept_type(path, schema.field(name)) for name in wanted.keep}
    light = [name for name in dict.fromkeys([key, *wanted.keep]) if name]
    if is_path := _is_text(held):
        light.append(audio)

    def rows_of(file: str) -> Iterator[Found]:
        for block, weight, rows in blocks(file, light):
            for index, values in enumerate(rows.to_pylist() if light else [{}] * rows.num_rows):
                label = str(values.get(key)) if key else f"{Path(file).name}#{block}.{index}"
                if not is_path:
                    yield Found(label, InTable(file, block, index, audio, rate), weight, values)
                elif values[audio]:
                    place = InFile(os.path.join(os.path.dirname(file), values[audio]))
                    yield Found(label if key else values[audio], place, size_of(place.path), values)
                else:
                    yield Found(label, Unreadable(f"column {audio} has no path in this row"), values=values)

    def read() -> Iterator[Found]:
        for file in paths:
            try:
                yield from rows_of(file)
            except (OSError, pa.ArrowException, UsageError) as error:
                yield Found(f"{Path(file).name}#end", Unreadable(f"{file} cannot be read from here on: {error}"))

    return Source(kind, path, types, read)


def _is_text(held: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_string(held) or types.is_large_string(held))


def _kept_type(path: str, field: Any) -> str:
    types = pyarrow().types
    for test, name in (
        (_is_text, "string"),
        (types.is_boolean, "bool"),
        (types.is_integer, "int64"),
        (types.is_floating, "float64"),
    ):
        if test(field.type):
            return name
    raise UsageError(f"{path}: column {field.name} holds {field.type}; --keep takes text and numbers")


def _opened(path: str) -> Any:
    """A Parquet file, of which little is in memory. Raises UsageError."""
    pa = pyarrow()
    try:
        return pa.parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path} is no Parquet file that can be read: {reason(error)}") from error


def _parquet_blocks(path: str, columns: list[str]) -> Iterator[tuple[int, int, Any]]:
    with _opened(path) as file:
        for block in range(file.num_row_groups):
            facts = file.metadata.row_group(block)
            weight = facts.total_byte_size // max(1, facts.num_rows)
            yield block, weight, file.read_row_group(block, columns, use_threads=False)


def _arrow_blocks(path: str, columns: list[str]) -> Iterator[tuple[int, int, Any]]:
    pa = pyarrow()
    with pa.memory_map(path) as file:
        for block, batch in enumerate(pa.ipc.open_stream(file)):
            yield block, batch.nbytes // max(1, batch.num_rows), batch.select(columns)


class Cells:
    """Cells of one column of one block, read on from where the last one was."""

    def __init__(self, place: InTable):
        self.at = (place.path, place.block, place.column)
        self.next = 0
        self._rows = self._read(place)

    def take(self, index: int) -> tuple[Any, Any]:
        """The cell of a row from `next` on and, where there is such a column, its rate. Raises AudioError."""
        pa = pyarrow()
        try:
            while True:
                cell, rate = next(self._rows)
                self.next += 1
                if self.next > index:
                    return cell, rate
        except StopIteration:
            raise AudioError(f"{self.at[0]} has fewer rows than it had; do not change it during a run") from None
        except (OSError, pa.ArrowException) as error:
            raise AudioError(f"{self.at[0]}: rows cannot be read: {reason(error)}") from error

    def _read(self, place: InTable) -> Iterator[tuple[Any, Any]]:
        columns = [place.column, *([place.rate_column] if place.rate_column else [])]
        for batch in self._batches(place, columns):
            rates = batch.column(place.rate_column).to_pylist() if place.rate_column else [None] * batch.num_rows
            yield from zip(batch.column(place.column), rates, strict=True)

    def _batches(self, place: InTable, columns: list[str]) -> Iterator[Any]:
        if place.path.endswith(".parquet"):
            with _opened(place.path) as file:
                yield from file.iter_batches(ROWS_AT_ONCE, [place.block], columns, use_threads=False)
            return
        for block, _, batch in _arrow_blocks(place.path, columns):
            if block == place.block:
                yield batch
                return


def sound_of_cell(cell: Any, rate: Any) -> bytes | str | tuple[Array, int]:
    """Bytes of a sound file, its path, or (wave [C, N], rate_hz). Raises AudioError."""
    if not cell.is_valid:
        raise AudioError("there is no sound in this row; it needs bytes, a path or samples")
    if hasattr(cell, "values") and not hasattr(cell, "keys"):
        return _wave(cell), _rate(rate)
    if not hasattr(cell, "keys"):
        value: bytes = cell.as_py()
        return value
    names = set(cell.keys())
    if "array" in names and cell["array"].is_valid:
        return _wave(cell["array"]), _rate(cell["sampling_rate"].as_py() if "sampling_rate" in names else None)
    for name in ("bytes", "path"):
        if name in names and (value := cell[name].as_py()):
            return value  # type: ignore[no-any-return]
    raise AudioError(f"the sound has nothing in {', '.join(sorted(names))}; it needs bytes, path or array")


def _rate(value: Any) -> int:
    if not isinstance(value, int):
        raise AudioError(f"the sampling rate is {value}; it must be a whole number of Hz")
    return value


def _wave(cell: Any) -> Array:
    """Samples [N], or channels [C, N], as float32 [C, N]; whole numbers are those of their full scale."""
    values = cell.values
    if hasattr(values, "offsets"):
        rows = [np.asarray(row.values) for row in values]
        if len({len(row) for row in rows}) != 1:
            sizes = ", ".join(str(len(row)) for row in rows)
            raise AudioError(f"channels have {sizes} samples; they must be of one length")
        wave = np.stack(rows)
    else:
        wave = np.asarray(values.to_numpy(zero_copy_only=False))[None]
    if wave.dtype.kind == "i":
        return (wave / float(1 << (8 * wave.dtype.itemsize - 1))).astype(np.float32)
    if wave.dtype.kind != "f":
        raise AudioError(f"samples are of type {wave.dtype}; they must be numbers")
    return wave.astype(np.float32)
