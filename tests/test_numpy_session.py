"""Graphs run by numpy alone, where onnxruntime is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PACKAGE, damaged

import nacre
from nacre.core.errors import BundleError
from nacre.io import audio
from nacre.model import runtime
from nacre.model.numpy_session import Session

TINY = Path(__file__).parent / "data/tiny"
GRAPHS = [*sorted((PACKAGE / "models/speech-16k").glob("*.onnx")), *sorted(TINY.glob("*.onnx"))]
CLIP = PACKAGE / "clips/dutch.flac"
START = """import sys
sys.modules["onnxruntime"] = None  # as where it is not installed
from nacre.__main__ import main
sys.argv = sys.argv[1:]
main()"""


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_numpy_gives_what_onnxruntime_gives(path):
    data, rng = path.read_bytes(), np.random.default_rng(0)
    own, theirs = Session(data), runtime._opened(data, 1)
    shapes = {port.name: [port.shape[0], *port.shape[2:]] for port in own.get_inputs()}
    assert shapes == {port.name: [port.shape[0], *port.shape[2:]] for port in theirs.get_inputs()}
    for level in (0, 3):
        feed = {port.name: [30 if size is None else size for size in port.shape] for port in own.get_inputs()}
        feed = {name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in feed.items()}
        feed |= {"level": np.array([level])} if "level" in feed else {}
        for found, wanted in zip(own.run(None, feed), theirs.run(None, feed), strict=True):
            assert found.shape == wanted.shape
            assert np.mean((found - wanted) ** 2) <= 1e-3 * np.mean(wanted**2)  # noise: no speech


def test_commands_without_onnxruntime(tmp_path, environment):
    def run(*arguments):
        command = [sys.executable, "-c", START, "nacre", *map(str, arguments)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)

    run("encode", CLIP, "-o", "a.nacre")
    run("decode", "a.nacre", "-o", "a.wav")
    run("denoise", CLIP, "-o", "clean.wav")
    codec = nacre.load()
    wanted, _ = codec.decode((tmp_path / "a.nacre").read_bytes())
    found, _ = audio.read(tmp_path / "a.wav")
    assert np.mean((found - wanted) ** 2) < 1e-4 * np.mean(wanted**2)
    ours = codec.encode(*audio.read(CLIP))
    assert abs(len(ours) - (tmp_path / "a.nacre").stat().st_size) < 0.02 * len(ours)


def test_damaged_graphs_end_in_bundle_error(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "ort", None)
    whole, refused = (TINY / "encoder.onnx").read_bytes(), 0
    for data in damaged(whole, 200):
        (tmp_path / "a.onnx").write_bytes(data)
        try:
            network = runtime.Network(tmp_path / "a.onnx")
            network.step(np.zeros((4, network.width_in), np.float32), 1, network.start())
        except BundleError:
            refused += 1
    assert 50 < refused < 200


def test_layers_that_are_not_known_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "ort", None)
    (tmp_path / "a.onnx").write_bytes((TINY / "encoder.onnx").read_bytes().replace(b"MatMul", b"MutMul"))
    with pytest.raises(BundleError, match=r"MutMul.*install onnxruntime"):
        runtime.Network(tmp_path / "a.onnx").open()
