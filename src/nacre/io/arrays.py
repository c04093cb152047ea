"""Arrays by name in a file, read without trust: sizes are checked before memory is taken, headers before they are used.

Models are written with safetensors. An npz is read too: models of earlier versions, and tables of this package.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.core.errors import BundleError, reason

SUFFIX, EARLIER_SUFFIX = ".safetensors", ".npz"
MOST_HEADER_BYTES = 1 << 16
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
# npy 1.0 as numpy writes it; its own parser evaluates the header and leaks errors of the tokeniser
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '(...)', 'fortran_order': False, "
    rb"'shape': \((\d{1,8}),(?: (\d{1,8}))?(?:, (\d{1,8}))?\), } *\n",
    re.DOTALL,
)

Members = dict[str, tuple[str, int]]  # name -> (types such as "<f4" or "|u1 <u2", axes)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as safetensors, in place of an npz of the same name."""
    from safetensors.numpy import save_file

    assert path.suffix == SUFFIX, path
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    earlier(path).unlink(missing_ok=True)


def earlier(path: Path) -> Path:
    """Where models of earlier versions have what is now in this file."""
    return path.with_suffix(EARLIER_SUFFIX) if path.suffix == SUFFIX else path


def read_arrays(path: str | Path, members: Members, most_bytes: int) -> dict[str, NDArray[Any]]:
    """The named arrays of a safetensors or npz file, each of at most `most_bytes`; else BundleError.

    Where there is no such safetensors file, an npz of the same name is read.
    """
    path = Path(path)
    path = path if path.exists() else earlier(path)
    return (_read_npz if path.suffix == EARLIER_SUFFIX else _read_safetensors)(path, members, most_bytes)


def _read_safetensors(path: Path, members: Members, most_bytes: int) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if (size := path.stat().st_size) > len(members) * most_bytes + MOST_HEADER_BYTES:
            raise ValueError(f"it has {size} bytes")
        arrays = load(path.read_bytes())
        for name, (kinds, axes) in members.items():
            array = arrays[name]
            if array.dtype.str not in kinds.split() or array.ndim != axes or array.nbytes > most_bytes:
                raise ValueError(f"{name} has type {array.dtype} and shape {array.shape}")
        return {name: arrays[name] for name in members}
    except (*_UNREADABLE, SafetensorError) as error:
        raise _unusable(path, members, error) from error


def _read_npz(path: Path, members: Members, most_bytes: int) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _member(archive, name, *form, most_bytes) for name, form in members.items()}
    except _UNREADABLE as error:
        raise _unusable(path, members, error) from error


def _unusable(path: Path, members: Members, error: Exception) -> BundleError:
    why = reason(error) if isinstance(error, OSError) else error
    return BundleError(f"{path} does not hold the arrays {', '.join(members)} as nacre writes them ({why})")


def _member(archive: zipfile.ZipFile, name: str, kinds: str, axes: int, most_bytes: int) -> NDArray[Any]:
    info = archive.getinfo(name + ".npy")
    if info.file_size > most_bytes or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} has {info.file_size} bytes and packing {info.compress_type}")
    data = archive.read(info)
    header = _NPY_HEADER.match(data)
    if not header or header[1].decode() not in kinds.split():
        raise ValueError(f"{name} has another type")
    shape = [int(size) for size in header.groups()[1:] if size is not None]
    if len(shape) != axes:
        raise ValueError(f"{name} has shape {shape}")
    return np.frombuffer(data[header.end() :], header[1].decode()).reshape(
        shape
    )  # ValueError where bytes and shape disagree
