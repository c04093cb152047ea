"""Graphs whose large matrices have 8 bits: near the networks, the same in any pieces, and read back as weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import onnx
import torch
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.model.runtime import Network
from nacre.torch.graph import fill
from nacre.train.denoise_net import recurrent
from nacre.train.eight_bit import PAIR, SMALLEST, WEIGHTS, weights
from nacre.train.export import write_graph, write_module
from nacre.train.nets.blocks import NetConfig
from nacre.train.nets.codec_net import CodecNet
from nacre.train.start import read_graph

CODEC = CodecConfig(latent_dims=8, levels=4, group_frames=10)
NET = NetConfig(SMALLEST, 7, 2, 1, 1, 1)
PARTS = ("encoder", "decoder")


def network() -> CodecNet:
    torch.manual_seed(7)
    net = CodecNet(CODEC, NET).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1 or name.endswith("film"):  # no two alike, which the exporter would make one
                parameter += 0.3 * torch.randn_like(parameter)
    return net


@pytest.fixture(scope="module")
def net() -> CodecNet:
    """A network with matrices that are just large enough."""
    return network()


@pytest.fixture(scope="module")
def graphs(net, tmp_path_factory) -> dict[str, Path]:
    """Both graphs in 8 bits."""
    folder = tmp_path_factory.mktemp("graphs")
    for part in PARTS:
        write_graph(net, part, folder / f"{part}.onnx")
    return {part: folder / f"{part}.onnx" for part in PARTS}


def opened(path: Path, part: str) -> Network:
    return Network(path, rows=CODEC.steps_per_frame if part == "decoder" else 1)


def frames_of(graph: Network) -> np.ndarray:
    """Frames [23, X] of very different size, as speech and pauses are."""
    rng = np.random.default_rng(5)
    sizes = np.geomspace(1, 1e-3, 23, dtype=np.float32)[:, None]
    return rng.standard_normal((23, graph.width_in)).astype(np.float32) * sizes


@pytest.mark.parametrize("part", PARTS)
def test_a_graph_is_near_its_network(net, graphs, part):
    graph = opened(graphs[part], part)
    frames = frames_of(graph)
    for level in range(CODEC.levels):
        found, _ = graph.step(frames, level, graph.start())
        with torch.no_grad():
            wanted = getattr(net, part)(torch.from_numpy(frames)[None], torch.tensor([level]))[0][0].numpy()
        away = np.square(found - wanted).sum() / np.square(wanted).sum()
        assert 1e-7 < away < 3e-3  # rounded, by little


@pytest.mark.parametrize("part", PARTS)
def test_a_frame_does_not_depend_on_those_beside_it(graphs, part):
    graph = opened(graphs[part], part)
    frames = frames_of(graph)
    whole, _ = graph.step(frames, 1, graph.start())
    for cuts in (range(1, 23), [1, 3, 20], [22]):
        pieces, past = [], graph.start()
        for piece in np.split(frames, cuts):
            out, past = graph.step(piece, 1, past)
            pieces.append(out)
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


def test_silence_and_huge_numbers_stay_finite(graphs):
    graph = opened(graphs["encoder"], "encoder")
    for size in (0, 1e-30, 1e20):
        found, _ = graph.step(np.full((3, graph.width_in), size, np.float32), 0, graph.start())
        assert np.isfinite(found).all()


@pytest.mark.parametrize("part", PARTS)
def test_matrices_are_bytes_and_the_convolution_is_one_operator(graphs, part):
    graph = onnx.load(graphs[part]).graph
    large = [item for item in graph.initializer if len(item.dims) == 2 and min(item.dims) >= SMALLEST]
    small = [onnx.numpy_helper.to_array(item).astype(int) for item in large if item.data_type == onnx.TensorProto.INT8]
    assert len(small) == len(large) - (part == "decoder")  # the one before the output stays
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulIntegerToFloat") == len(small)
    assert operators.count("Conv") == (1 if part == "encoder" else 2)
    for matrix in small:  # sums of two products fit into 16 bits
        pairs = np.stack([matrix, -matrix]).clip(0).reshape(2, -1, 2, matrix.shape[1]).sum(2)
        assert pairs.max() <= PAIR
        assert 60 < np.abs(matrix).max() <= WEIGHTS


@pytest.mark.parametrize("part", PARTS)
def test_weights_come_back_out_of_a_graph(net, graphs, part):
    """Both readers find every weight, within half a step of where it was."""
    by_name, by_place = network(), network()
    for other in (by_name, by_place):
        nn.utils.vector_to_parameters(torch.zeros(sum(p.numel() for p in other.parameters())), other.parameters())
    assert fill(getattr(by_name, part), part, graphs[part])
    read_graph(by_place, part, graphs[part])
    wanted = getattr(net, part)
    for other in (by_name, by_place):
        for (name, weight), found in zip(wanted.named_parameters(), getattr(other, part).parameters(), strict=True):
            step = 2 * weight.abs().amax(-1, keepdim=True) / (PAIR - 1) if weight.ndim == 2 else weight.abs() / 512
            assert ((weight - found).abs() <= 0.51 * step + 1e-6).all(), name


@pytest.mark.slow
def test_all_forms_have_the_same_weights_in_the_same_order(net, graphs, tmp_path):
    write_graph(net, "decoder", tmp_path / "plain.onnx", bits=32)
    write_graph(net, "decoder", tmp_path / "half.onnx", bits=16)
    plain, half, small = (
        list(weights(onnx.load(path).graph))
        for path in (tmp_path / "plain.onnx", tmp_path / "half.onnx", graphs["decoder"])
    )
    for other in (half, small):
        assert [(kind, array.shape) for kind, _, array in other] == [(kind, array.shape) for kind, _, array in plain]
        for (_, _, found), (_, _, wanted) in zip(other, plain, strict=True):
            np.testing.assert_allclose(found, wanted, atol=np.abs(wanted).max() / 100)
    sizes = [path.stat().st_size for path in (tmp_path / "plain.onnx", tmp_path / "half.onnx", graphs["decoder"])]
    assert sizes == sorted(sizes, reverse=True)


class Remembering(nn.Module):
    """A denoiser's kinds of matrices: a GRU's, one a frame, one for each of some bands."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.linear = nn.GRU(40, 40), nn.Linear(40, 40)
        self.bands = nn.Parameter(torch.randn(4, 10, 40) * torch.logspace(-3, 0, 40))

    def forward(self, frames: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        heard, after = recurrent(self.cell, self.linear(frames).transpose(0, 1), past)
        return torch.einsum("tnk,nkc->tnc", heard[:, 0].unflatten(1, (4, 10)), self.bands)[None].flatten(2), after


def test_matrices_stored_in_bytes_are_near_and_small(tmp_path):
    torch.manual_seed(3)
    net = Remembering().eval()
    example = {"frames": torch.randn(1, 7, 40), "past": torch.zeros(1, 1, 40)}
    found = []
    for bits in (16, 8):
        write_module(net, example, tmp_path / f"{bits}.onnx", stored_bits=bits)
        graph = Network(tmp_path / f"{bits}.onnx", levels=False)
        found.append(graph.step(example["frames"][0].numpy(), None, graph.start())[0])
    np.testing.assert_allclose(found[1], found[0], atol=0.02 * np.abs(found[0]).max())
    assert not np.array_equal(*found)
    whole, small = ((tmp_path / f"{bits}.onnx").stat().st_size for bits in (16, 8))
    assert small < 0.7 * whole
