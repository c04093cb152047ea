"""A trained run to a model folder: graphs, integer tables fitted to coded symbols, and rates measured on files."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nacre.codec.codec import Codec
from nacre.codec.encoder import analysed_groups
from nacre.codec.latent_denoiser import distance
from nacre.codec.state import start_encoder
from nacre.core.errors import TrainError, reason
from nacre.core.units import kbps
from nacre.format.file import pack_packet
from nacre.model import bundle as bundles
from nacre.model.model import Model
from nacre.train.card import write_card
from nacre.train.codec_run import CodecRun, new_run
from nacre.train.degrade import NOTHING
from nacre.train.eight_bit import eight_bit
from nacre.train.nets.codec_net import CodecNet
from nacre.train.recipe import Recipe, recipe_of
from nacre.train.recordings import Corpus, open_cache
from nacre.train.run import CHECKPOINT
from nacre.train.sampler import Sampler
from nacre.train.validate import fit_prior

TABLE_SECONDS, TABLE_GROUPS = 1200, 10  # of speech for the tables, in excerpts of so many groups
TALKATIVE = ("onnxscript", "torch.onnx")  # logs
BITS = 8  # of weights, unless others are asked for
LARGE = 1024  # tensors of at least so many numbers are stored as float16
TINY = 1e-12  # scale of a row of zeros, which must not be 0


class _Step(nn.Module):
    """One side of the codec with its list of pasts packed along the frames of one tensor.

    A side without memory has one row that it hands on, so that all graphs look alike.
    """

    def __init__(self, codec: CodecNet, part: str):
        super().__init__()
        self.codec, self.part = codec, part
        self.sizes = [size for size, _ in getattr(codec, part).past_shapes]
        self.rows = max(1, sum(self.sizes))

    def forward(self, frames: Tensor, level: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """frames [1, T, X], level [1], past [1, P, W] -> (frames, past)."""
        remembers = sum(self.sizes) > 0
        pasts = list(past.split(self.sizes, 1)) if remembers else None
        if self.part == "encoder":
            out, after = self.codec.encoder(frames, level, pasts)
            out = self.codec.quantiser.to_latent(out, level % self.codec.codec.levels)
        else:
            out, after = self.codec.decoder(self.codec.quantiser.from_latent(frames, level), level, pasts)
        return out, torch.cat(after, 1) if remembers else past + 0


def write_graph(net: CodecNet, part: str, path: Path, bits: int = BITS) -> None:
    """The "encoder" or "decoder" as an ONNX graph with weights of so many bits, 8, 16 or 32.

    Those of 16 are turned into float32 when it is loaded; 8 are for large matrices, see `eight_bit`, 16 for the rest.
    """
    net = net.eval().cpu()
    step = _Step(net, part)
    past = torch.zeros(1, step.rows, getattr(net, part).inward.out_features)
    example = {
        "frames": torch.randn(1, 7, getattr(net, part).inward.in_features),
        "level": torch.zeros(1, dtype=torch.int64),
        "past": past,
    }
    write_module(step, example, path, bits)


def write_module(
    module: nn.Module, example: dict[str, Tensor], path: Path, bits: int = 16, stored_bits: int = 16
) -> None:
    """A module of named inputs as an ONNX graph of two outputs; the first input has any number of frames, axis 1.

    With `stored_bits` 8, matrices that `bits` leaves alone are a byte a weight in the file, and float32 once loaded.
    """
    frames = torch.export.Dim("frames", min=1, max=4096)
    with hushed():
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            input_names=list(example),
            output_names=["out", "after"],
            dynamic_shapes=({1: frames}, *(None for _ in range(len(example) - 1))),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    if bits == 8:
        eight_bit(model)
    if stored_bits == 8:
        _quarter(model.graph)
    if bits < 32:
        _halve(model.graph)
    del model.metadata_props[:]
    for node in model.graph.node:  # traces of the exporter: file names and line numbers
        del node.metadata_props[:]
        node.doc_string = ""
    for value in model.graph.value_info:
        del value.metadata_props[:]
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def hushed() -> Iterator[None]:
    """Nothing of the exporter's that a user can do nothing about: what it did not fold, packages it could use."""
    before = {name: logging.getLogger(name).level for name in TALKATIVE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in TALKATIVE:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _quarter(graph: Any) -> None:
    """Store large float32 matrices as int8 and a scale a row or a column, whichever errs less; see `_halve`."""
    nodes, scales = [], []
    for tensor in _large(graph, 2):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        ways = [(np.abs(values).max(axis, keepdims=True) / 127 + TINY).astype(np.float32) for axis in (-1, -2)]
        scale = min(ways, key=lambda scale: float(np.square(np.rint(values / scale) * scale - values).sum()))
        tensor.CopyFrom(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), name + "_bytes"))
        scales.append(numpy_helper.from_array(scale, name + "_scale"))
        nodes.append(helper.make_node("Cast", [name + "_bytes"], [name + "_whole"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [name + "_whole", name + "_scale"], [name]))
    graph.initializer.extend(scales)
    _first(graph, nodes)


def _halve(graph: Any) -> None:
    """Store large float32 tensors as float16 followed by a cast, which runs once when the graph is loaded."""
    casts = []
    for tensor in _large(graph):
        name, values = tensor.name, numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name + "_cast", to=TensorProto.FLOAT))
    _first(graph, casts)


def _large(graph: Any, dims: int = 0) -> list[Any]:
    """Its large float32 tensors of so many axes at least."""
    floats = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]
    return [tensor for tensor in floats if math.prod(tensor.dims) >= LARGE and len(tensor.dims) >= dims]


def _first(graph: Any, nodes: list[Any]) -> None:
    """Put nodes before all that a graph has."""
    nodes = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def export_run(
    folder: Path, out: Path, name: str | None = None, bits: int = BITS, denoiser: bundles.Bundle | None = None
) -> bundles.Bundle:
    """Export the checkpoint of a run folder; tables and rates come from its own training recordings.

    Large matrices have so many bits a weight, see `write_graph`. `denoiser` is a model whose denoiser this one gets.
    Raises TrainError.
    """
    check_free(out)
    recipe = recipe_of(folder)
    if denoiser:
        check_denoiser(denoiser, recipe)
    run = new_run(recipe, torch.device("cpu"))
    run.load(folder / f"{CHECKPOINT}.safetensors")
    corpus = open_cache(folder / "corpus")
    clean = dataclasses.replace(NOTHING, level_spread_db=recipe.degrade.level_spread_db)
    sampler = Sampler(corpus, recipe.codec, clean, None, recipe.data.balance)
    samples = TABLE_GROUPS * recipe.codec.group_samples
    items = math.ceil(min(TABLE_SECONDS, corpus.seconds) * recipe.codec.rate_hz / samples)
    waves = sampler.batch(items, samples, (recipe.seed, 1 << 30))
    bundle = export(run, waves, out, name or recipe.name, making(recipe, run, corpus), bits, denoiser)
    write_card(bundle, recipe)
    return bundle


def making(recipe: Recipe, run: CodecRun, corpus: Corpus) -> dict[str, Any]:
    """What a user of the model should know about its making, for model.json."""
    return {
        "description": recipe.description,
        "licence": recipe.licence,
        "training": {
            "recipe": dataclasses.asdict(recipe),
            "steps": run.step,
            "audio_seconds_seen": round(run.seconds_seen),
            "corpus_hours": round(corpus.seconds / 3600, 3),
            "sources": [source.name for source in corpus.sources],
        },
    }


def averaged(run: CodecRun) -> CodecNet:
    """The run's network with its averaged weights, on the CPU."""
    net = run.net
    net.load_state_dict(run.mean)
    return net.float().cpu().eval()


def check_denoiser(bundle: bundles.Bundle, recipe: Recipe) -> None:
    """Raise TrainError unless the model has a denoiser that suits what this recipe makes."""
    if bundle.denoiser is None:
        raise TrainError(f"model {bundle.name} has no denoiser to take; give another model, or train one")
    check_rates(recipe.name, recipe.codec.rate_hz, bundle.config.rate_hz)


def check_rates(name: str, model_hz: int, denoiser_hz: int) -> None:
    """Raise TrainError unless a model of this name and a denoiser are of one rate."""
    if model_hz != denoiser_hz:
        raise TrainError(
            f"model {name} is of {model_hz} Hz, and the denoiser of {denoiser_hz} Hz; both must be the same"
        )


def copied_denoiser(bundle: bundles.Bundle, part: Path) -> dict[str, Any]:
    """Put the denoiser of a model into the folder of another; what model.json says of it."""
    shutil.copyfile(bundle.part(bundles.DENOISER), part / bundles.DENOISER)
    return {"denoiser": bundle.metadata["denoiser"]}


def measured_rates(codec: Codec, waves: np.ndarray[Any, Any]) -> list[float]:
    """kb/s of each level [L] on waves [B, N], from the bytes of the packets."""
    rates = []
    for level in range(codec.config.levels):
        stream = codec.encoder(codec.config.rate_hz, quality=100 * level / max(1, codec.config.levels - 1))
        packets = [packet for wave in waves for packet in stream.push(wave)]
        duration_s = len(packets) * codec.config.group_samples / codec.config.rate_hz
        rates.append(round(kbps(sum(len(pack_packet(packet)) for packet in packets), duration_s), 3))
    return rates


def cleaning_span(codec: Codec, waves: np.ndarray[Any, Any]) -> list[float]:
    """Median and ninth decile of the distance between denoised and plain latents on training speech [B, N], by groups.

    At the highest level without residual layer: what is denoised has none.
    """
    model, distances = codec.model, []
    level, start = model.plain_levels - 1, start_encoder(model)
    for wave in waves:
        plain = analysed_groups(model, start, wave, level)
        clean = analysed_groups(model, start, wave, level + model.config.levels)
        pairs = zip(clean, plain, strict=True)
        distances += [distance(denoised.latents, kept.latents) for (denoised, _), (kept, _) in pairs]
    low, high = np.percentile(distances, [50, 90]).tolist()
    return [round(low, 4), round(max(high, low + 1e-3), 4)]


def use(codec: Codec, waves: np.ndarray[Any, Any]) -> dict[str, Any]:
    """What the quantiser has to say of the tokens of waves [B, N]: how much of its codebooks is in use."""
    quantiser, rate_hz = codec.model.quantiser, codec.config.rate_hz
    if not quantiser.entries:
        return {}
    return quantiser.use(np.concatenate([codec.tokens(wave, rate_hz) for wave in waves]))


@torch.no_grad()
def kl_rates(net: CodecNet, waves: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The KL divergence in kb/s of each level on waves [B, N], of kinds that know one, beside the files' rates."""
    rates = []
    for level in range(net.codec.levels):
        total = 0.0
        for wave in waves:
            bits = net.quantiser.kl_bits(net.latents(torch.from_numpy(wave[None]), level))
            if bits is None:
                return {}
            total += float(bits.sum())
        rates.append(round(total * net.codec.rate_hz / waves.size / 1000, 3))
    return {"kl_kbps": rates}


def check_free(out: Path) -> None:
    """Raise TrainError unless `out` is a new name or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        there = "a folder that is not empty" if out.is_dir() else "a file"
        raise TrainError(f"{out} is {there}; choose another -o")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all went well, and is gone otherwise. Raises TrainError."""
    check_free(out)
    out = out.resolve()
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise TrainError(f"{out} cannot be made: {reason(error)}; choose another -o") from error
    try:
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def export(
    run: CodecRun,
    waves: np.ndarray[Any, Any],
    out: Path,
    name: str,
    facts: dict[str, Any],
    bits: int = BITS,
    denoiser: bundles.Bundle | None = None,
) -> bundles.Bundle:
    """Write a model folder; `waves` [B, N] are level-normalised training excerpts for the tables and rates."""
    with new_folder(out) as part:
        net = averaged(run)
        write_graph(net, "encoder", part / "encoder.onnx", bits)
        write_graph(net, "decoder", part / "decoder.onnx", bits)
        prior, quantiser = fit_prior(net, waves), net.quantiser.export_quantiser()
        prior.save(part / bundles.PRIOR)
        measured: dict[str, Any] = copied_denoiser(denoiser, part) if denoiser else {}
        measured |= quantiser.save(part)
        measured["rates_kbps"] = [float(level + 1) for level in range(net.codec.levels)]
        if net.codec.cleans:
            measured["cleaning_span"] = [0.0, 1.0]  # until there is a codec to measure it with
        draft = bundles.save(part, name, quantiser.code, net.codec, measured | facts)
        codec = Codec(Model.load(draft))
        measured["rates_kbps"] = measured_rates(codec, waves)
        if net.codec.cleans:
            measured["cleaning_span"] = cleaning_span(codec, waves)
        measured |= use(codec, waves) | kl_rates(net, waves)
        bundles.save(part, name, quantiser.code, net.codec, measured | facts)
    return bundles.load(out)
