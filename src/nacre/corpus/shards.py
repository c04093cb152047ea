"""Shards as files that appear whole: Parquet, tar for WebDataset, safetensors, or a tree with a table.

The bytes depend on the rows alone: no time, no name of a machine, blocks of rows cut by their number and size.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from nacre.core.errors import UsageError
from nacre.corpus.arrow import arrow
from nacre.corpus.columns import Column, Row, size_of
from nacre.io.files import output_file
from nacre.io.stdio import printable

SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar", "safetensors": ".safetensors", "tree": ".csv"}
BLOCK_ROWS, BLOCK_BYTES = 256, 8 << 20  # of a row group
COPY_BYTES = 1 << 20


class Writer(Protocol):
    """Takes the rows of a shard in order."""

    def add(self, row: Row) -> None:
        """One more row."""
        ...

    def finish(self) -> None:
        """Write what is left; the file is whole."""
        ...


@contextmanager
def shard_file(folder: str, name: str) -> Iterator[BinaryIO]:
    """A file under a passing name, on the disk and under its own if the `with` ends well, else removed."""
    part = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, os.path.join(folder, name))
        sync_folder(folder)
    finally:
        with suppress(OSError):
            os.unlink(part)


def sync_folder(folder: str) -> None:
    """Names in a folder on the disk, where folders can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(COPY_BYTES):
            digest.update(block)
    return digest.hexdigest()


def writer_of(to: str, file: BinaryIO, columns: tuple[Column, ...], facts: dict[str, str], folder: str) -> Writer:
    """A writer by the name of a destination. `facts` of the corpus go where the kind of file has a place for them."""
    if to == "parquet":
        return _Parquet(file, columns, facts)
    if to == "webdataset":
        return _Tar(file, columns)
    if to == "safetensors":
        return _Safetensors(file, columns, facts)
    return _Tree(file, columns, folder)


class _Parquet:
    """Row groups of up to 256 rows or 8 MB; arrays as lists of lists of one size, which `datasets` decodes."""

    def __init__(self, file: BinaryIO, columns: tuple[Column, ...], facts: dict[str, str]):
        pa = arrow()
        self._columns, self._rows, self._bytes = columns, list[Row](), 0
        fields = [pa.field(column.name, _arrow_type(column)) for column in columns]
        self._schema = pa.schema(fields, {f"nacre.{name}": text for name, text in facts.items()})
        self._writer = pa.parquet.ParquetWriter(file, self._schema, compression="zstd")

    def add(self, row: Row) -> None:
        """One more row."""
        self._rows.append(row)
        self._bytes += sum(map(size_of, row.values()))
        if len(self._rows) >= BLOCK_ROWS or self._bytes >= BLOCK_BYTES:
            self._write()

    def finish(self) -> None:
        """The last row group and the file's end."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._rows:
            arrays = [_arrow_array(column, [row[column.name] for row in self._rows]) for column in self._columns]
            self._writer.write_batch(arrow().record_batch(arrays, schema=self._schema))
        self._rows, self._bytes = [], 0


def _arrow_type(column: Column) -> Any:
    pa = arrow()
    kind = {"bytes": pa.binary(), "string": pa.string(), "bool": pa.bool_()}.get(column.dtype)
    held = kind or pa.from_numpy_dtype(np.dtype(column.dtype))
    for size in reversed(column.shape):
        held = pa.list_(held) if size is None else pa.list_(held, size)
    return held


def _arrow_array(column: Column, cells: list[Any]) -> Any:
    """Cells as an array of the column's type; arrays go over as whole blocks of numbers."""
    pa = arrow()
    if not column.shape:
        return _plain_array(column, cells)
    held = _of_numbers(np.concatenate([np.asarray(cell, column.dtype).reshape(-1) for cell in cells]))
    if column.shape[-1] is not None:
        held = pa.FixedSizeListArray.from_arrays(held, column.shape[-1])
    if column.shape[0] is None:
        held = pa.ListArray.from_arrays(_of_numbers(_ends(cells)), held)
    return held


def _plain_array(column: Column, cells: list[Any]) -> Any:
    """Cells that are values, made of Arrow's buffers: `pyarrow.array` imports pandas, which takes a worker 0.3 s."""
    pa, filled = arrow(), [cell is not None for cell in cells]
    buffers = [None if all(filled) else pa.py_buffer(np.packbits(filled, bitorder="little"))]
    if column.dtype in ("string", "bytes"):
        data = [cell.encode() if isinstance(cell, str) else cell or b"" for cell in cells]
        buffers += [pa.py_buffer(_ends(data)), pa.py_buffer(b"".join(data))]
    elif column.dtype == "bool":
        buffers.append(pa.py_buffer(np.packbits([bool(cell) for cell in cells], bitorder="little")))
    else:
        buffers.append(pa.py_buffer(np.array([cell or 0 for cell in cells], column.dtype)))
    return pa.Array.from_buffers(_arrow_type(column), len(cells), buffers)


def _of_numbers(values: Any) -> Any:
    pa = arrow()
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _ends(cells: list[Any]) -> Any:
    """Where each of these ends, behind a 0, int32 [n + 1]."""
    return np.cumsum([0, *map(len, cells)], dtype=np.int32)


class _Tar:
    """Samples by row number: NUMBER.json, and NUMBER.COLUMN.npy or .nacre for what is no text."""

    def __init__(self, file: BinaryIO, columns: tuple[Column, ...]):
        self._columns = columns
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - see finish

    def add(self, row: Row) -> None:
        """One more row."""
        name = f"{row['row']!s:0>9}"
        facts = {column.name: row[column.name] for column in self._columns if not column.is_array}
        self._put(f"{name}.json", json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace"))
        for column in self._columns:
            value = row[column.name]
            if isinstance(value, bytes):
                self._put(f"{name}.{column.name}", value)
            elif column.is_array:
                self._put(f"{name}.{column.name}.npy", _npy(value))

    def _put(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o644
        self._tar.addfile(member, io.BytesIO(data))

    def finish(self) -> None:
        """The end of the tar."""
        self._tar.close()


def _npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(value), allow_pickle=False)
    return file.getvalue()


TENSORS = {"float32": "F32", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"}  # numpy's names: theirs


class _Safetensors:
    """Each array column as one tensor of all rows and COLUMN.ends, int64 [rows]; the rest as JSON in `rows`.

    Written here, since the library wants all of a shard in memory: tensors wait in files and are copied at the end.
    """

    def __init__(self, file: BinaryIO, columns: tuple[Column, ...], facts: dict[str, str]):
        self._file, self._facts, self._rows = file, facts, list[dict[str, Any]]()
        self._plain = [column for column in columns if not column.is_array]
        self._arrays = [column for column in columns if column.is_array]
        self._waiting = [tempfile.TemporaryFile() for _ in self._arrays]  # noqa: SIM115 - closed by finish
        self._ends: list[list[int]] = [[] for _ in self._arrays]

    def add(self, row: Row) -> None:
        """One more row."""
        self._rows.append({column.name: row[column.name] for column in self._plain})
        for column, file, ends in zip(self._arrays, self._waiting, self._ends, strict=True):
            values = _numbers(column, row[column.name])
            file.write(values.tobytes())
            ends.append((ends[-1] if ends else 0) + len(values))

    def finish(self) -> None:
        """The header, then every tensor."""
        head: dict[str, Any] = {"__metadata__": self._facts | {"rows": json.dumps(self._rows, ensure_ascii=False)}}
        at = 0
        for column, ends in zip(self._arrays, self._ends, strict=True):
            kind = "uint8" if column.dtype == "bytes" else column.dtype
            shape = [ends[-1] if ends else 0, *(size for size in column.shape if size is not None)]
            for name, code, sides, item in (
                (column.name, TENSORS[kind], shape, np.dtype(kind).itemsize),
                (f"{column.name}.ends", "I64", [len(ends)], 8),
            ):
                size = item * int(np.prod(sides))
                head[name] = {"dtype": code, "shape": sides, "data_offsets": [at, at + size]}
                at += size
        text = json.dumps(head, ensure_ascii=False).encode("utf-8", "replace")
        text += b" " * (-len(text) % 8)
        self._file.write(struct.pack("<Q", len(text)) + text)
        for waiting, ends in zip(self._waiting, self._ends, strict=True):
            waiting.seek(0)
            while block := waiting.read(COPY_BYTES):
                self._file.write(block)
            waiting.close()
            self._file.write(np.asarray(ends, "<i8").tobytes())


def _numbers(column: Column, value: Any) -> Any:
    """[T, ...] of a cell, or [1, P] of a vector."""
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8)
    values = np.ascontiguousarray(value, column.dtype)
    return values if column.shape[0] is None else values[None]


class _Tree:
    """Every recording a `.nacre` file under its key; the shard is the table of them, with checksums."""

    def __init__(self, file: BinaryIO, columns: tuple[Column, ...], folder: str):
        self._names = [column.name for column in columns if not column.is_array]
        self._folder = folder
        self._text = io.TextIOWrapper(file, "utf-8", "replace", newline="", write_through=True)
        self._table = csv.writer(self._text)
        self._table.writerow([*self._names, "file", "sha256"])

    def add(self, row: Row) -> None:
        """One more row."""
        name, data = tree_name(str(row["key"])), row["nacre"]
        assert isinstance(data, bytes)
        path = os.path.join(self._folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with output_file(path, overwrite=True) as file:
            file.write(data)
        facts = [row[column] for column in self._names]
        self._table.writerow([*facts, name, hashlib.sha256(data).hexdigest()])

    def finish(self) -> None:
        """The end of the table, whose file stays open; all files of the shard on the disk before it."""
        self._text.detach()
        if hasattr(os, "sync"):
            os.sync()


def tree_name(key: str) -> str:
    """The file of a recording below the destination; it never leads out of it.

    >>> tree_name("/calls/../a.wav")
    'files/calls/_/a.wav.nacre'
    """
    parts = [part for part in printable(key).split("/") if part not in ("", ".")]
    return "/".join(["files", *("_" if part == ".." else part for part in parts)]) + ".nacre"


def check_destination(to: str, what: str) -> None:
    """Raise UsageError for a destination that there is not, or that `what` cannot have; look for its library."""
    if to not in SUFFIXES:
        raise UsageError(f"there is no kind of shards {to}; give --to {', '.join(SUFFIXES)}")
    if to == "tree" and what != "encode":
        raise UsageError(f"--to tree is for .nacre files, which encode makes; give another --to for {what}")
    if to == "parquet":
        arrow()
