"""Arrays in an npz, read without trust: sizes are checked before unpacking, headers before they are believed."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
# npy 1.0 as numpy writes it; its own parser evaluates the header and leaks errors of the tokeniser
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '(...)', 'fortran_order': False, "
    rb"'shape': \((\d{1,8}),(?: (\d{1,8}))?(?:, (\d{1,8}))?\), } *\n",
    re.DOTALL,
)

Members = dict[str, tuple[str, int]]  # name -> (types such as "<f4" or "|u1 <u2", axes)


def read_arrays(path: str | Path, members: Members, most_bytes: int) -> dict[str, NDArray[Any]]:
    """The named arrays of an npz, each of at most `most_bytes`; anything else ends in BundleError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, name, *form, most_bytes) for name, form in members.items()}
    except _UNREADABLE as error:
        raise BundleError(f"{path}", found=error, wanted=f"arrays {', '.join(members)}") from error


def _member(archive: zipfile.ZipFile, name: str, kinds: str, axes: int, most_bytes: int) -> NDArray[Any]:
    info = archive.getinfo(name + ".npy")
    if info.file_size > most_bytes or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} of {info.file_size} bytes, packing {info.compress_type}")
    data = archive.read(info)
    header = _NPY_HEADER.match(data)
    if not header or header[1].decode() not in kinds.split():
        raise ValueError(f"{name} of another kind of array")
    shape = [int(size) for size in header.groups()[1:] if size is not None]
    if len(shape) != axes:
        raise ValueError(f"{name} of shape {shape}")
    return np.frombuffer(data[header.end() :], header[1].decode()).reshape(
        shape
    )  # ValueError where bytes and shape disagree
