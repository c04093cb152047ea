"""Arrays in files: what is written comes back, what is anything else ends in BundleError, earlier models are read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nacre
from nacre.core.errors import BundleError
from nacre.io.arrays import read_arrays, write_arrays
from nacre.model import bundle as bundles

ARRAYS = {
    "counts": np.arange(6, dtype="<u2").reshape(2, 3),
    "weights": np.arange(4, dtype="i1"),
    "steps": np.ones((1, 2, 2), "<f4"),
}
MEMBERS = {"counts": ("|u1 <u2", 2), "weights": ("|i1", 1), "steps": ("<f4", 3)}


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "a.safetensors"
    write_arrays(path, ARRAYS | {"counts": ARRAYS["counts"].T.copy().T})  # in whatever order it lies in memory
    found = read_arrays(path, MEMBERS, 16)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_an_npz_of_an_earlier_version_is_read_and_replaced(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **ARRAYS)
    path = tmp_path / "a.safetensors"
    for _ in range(2):
        np.testing.assert_array_equal(read_arrays(path, MEMBERS, 1000)["counts"], ARRAYS["counts"])
        write_arrays(path, ARRAYS)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"counts": ARRAYS["counts"].astype("<u4")},
        {"counts": ARRAYS["counts"].astype("<i2")},
        {"counts": np.arange(6, dtype="<u2")},
        {"weights": np.zeros(17, "i1")},
        {"weights": None},
    ],
)
def test_other_arrays_are_refused(tmp_path, change):
    arrays = {name: array for name, array in (ARRAYS | change).items() if array is not None}
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(BundleError, match="does not hold the arrays counts, weights, steps"):
        read_arrays(tmp_path / "a.safetensors", MEMBERS, 16)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file(ARRAYS | {"more": np.zeros(200_000, "u1")}, path)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read"))
    with pytest.raises(BundleError, match="bytes"):
        read_arrays(path, MEMBERS, 16)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "U2", "shape": [2, 3], "data_offsets": [0, 12]},
        {"dtype": "U16", "shape": [2, 3], "data_offsets": [0, 1 << 60]},
        {"dtype": "U16", "shape": [1 << 40, 3], "data_offsets": [0, 12]},
        {"dtype": "U16", "shape": [-2, -3], "data_offsets": [0, 12]},
        {"dtype": "U16", "shape": [2, 3], "data_offsets": [12, 0]},
        {"dtype": "U16"},
        [],
    ],
)
def test_headers_that_lie_are_refused(tmp_path, tensor):
    head = json.dumps({"counts": tensor}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(12))
    with pytest.raises(BundleError):
        read_arrays(tmp_path / "a.safetensors", {"counts": ("<u2", 2)}, 1000)


@pytest.mark.parametrize("data", [b"", b"PK", struct.pack("<Q", 1 << 62), struct.pack("<Q", 2) + b"{}", b"\x80\x05."])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BundleError):
        read_arrays(tmp_path / "a.safetensors", MEMBERS, 1000)


def as_npz(folder: Path) -> None:
    """Put a model's arrays back into the form of earlier versions."""
    for path in folder.glob("*.safetensors"):
        np.savez_compressed(path.with_suffix(".npz"), **load_file(path))
        path.unlink()


def test_models_are_the_same_in_either_form(both_model, tmp_path, speech):
    older = tmp_path / "older"
    shutil.copytree(both_model, older)
    as_npz(older)
    plain = bundles.load(both_model)
    found = bundles.save(older, plain.name, plain.kind, plain.config, plain.metadata)
    assert {path.suffix for path in older.iterdir()} == {".npz", ".onnx", ".json"}
    assert found.has_context
    assert nacre.load(older).symbols(nacre.load(older).encode(speech[:9000], 16_000)).tokens.tolist() == (
        nacre.load(both_model).symbols(nacre.load(both_model).encode(speech[:9000], 16_000)).tokens.tolist()
    )


def test_two_forms_of_a_part_are_refused(both_model, tmp_path):
    shutil.copytree(both_model, tmp_path / "m")
    as_npz(tmp_path / "m")
    plain = bundles.load(both_model)
    bundles.save(tmp_path / "m", plain.name, plain.kind, plain.config, plain.metadata)
    shutil.copy(both_model / bundles.CONTEXT, tmp_path / "m")
    with pytest.raises(BundleError, match=r"context\.safetensors stands beside context\.npz"):
        nacre.load(tmp_path / "m")
