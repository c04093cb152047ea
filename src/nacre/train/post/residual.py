"""A residual layer for a model that is there already: its highest levels are spent on what the networks leave.

Networks that have learned all they can spend more bits for next to nothing. So the highest levels take the networks'
part of one level, `base`, and spend the rest on the coefficients of nacre.entropy.residual.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nacre.codec.codec import Codec
from nacre.codec.encoder import analysed_groups
from nacre.codec.residual import decoded_groups, encode_residual
from nacre.codec.state import Sent, start_encoder, start_sound
from nacre.core.config import CodecConfig
from nacre.core.errors import TrainError
from nacre.core.units import ceil_div
from nacre.entropy.context_prior import ContextPrior
from nacre.entropy.residual import EXTREME, LARGEST_SIZE, TAPS, ResidualLayer
from nacre.entropy.static_prior import StaticPrior, share_out
from nacre.model import bundle as bundles
from nacre.model.model import Model
from nacre.train.card import write_card
from nacre.train.checks import above_zero, check
from nacre.train.export import check_free, cleaning_span, copied_denoiser, measured_rates, new_folder
from nacre.train.post.adapt import BALANCE, EXCERPT_GROUPS, MILD, RATE_SECONDS
from nacre.train.recordings import Data, Given, load_corpus
from nacre.train.sampler import Sampler

Array = np.ndarray[Any, np.dtype[Any]]

LEVELLED = ("ratio", "b_in", "b_block", "mult", "base", "follow", "start", "tables")  # of a context prior, by level
ROWS = 2_000_000  # that the kernel is fitted to
FORGOTTEN = 1e-4  # of full scale: a difference that a residual layer does not mind
SCALE = 64  # a kernel's numbers for each symbol that is to be expected


@dataclass(frozen=True)
class ResidualConfig:
    """Settings: `steps` of the residual levels, from the coarsest, all on the networks' part of level `base`.

    A step is relative to the decoded sound's envelope to the power of `exponent`; it grows with frequency like
    (0.1 + f) ** tilt, f from 0 to 1. `block_ms` is a block of the transform; tables for `zones` of frequencies and
    `classes` of activity, symbols up to +-reach.
    """

    base: int = 9
    steps: tuple[float, ...] = (2.2, 1.5, 1.0, 0.68, 0.44)
    exponent: float = 0.7
    tilt: float = 2.0
    block_ms: float = 10.0
    zones: int = 6
    classes: int = 24
    reach: int = 15

    def __post_init__(self) -> None:
        check(self, "residual", "0 or more", lambda level: level >= 0, "base")
        falling = "numbers above 0, each smaller than the one before"
        check(self, "residual", falling, _falling, "steps")
        check(self, "residual", "0 to 2", lambda exponent: 0 <= exponent <= 2, "exponent")
        check(self, "residual", "-6 to 6", lambda tilt: -6 <= tilt <= 6, "tilt")
        check(self, "residual", "above 0", above_zero, "block_ms")
        check(self, "residual", "1 to 64", lambda n: 1 <= n <= 64, "zones")
        check(self, "residual", "3 to 256", lambda n: 3 <= n <= 256, "classes")
        check(self, "residual", "1 to 15", lambda n: 1 <= n <= 15, "reach")

    def block_samples(self, codec: CodecConfig) -> int:
        """Samples of a block; an even part of the codec's hop. Raises TrainError."""
        size = round(self.block_ms * codec.rate_hz / 1000)
        if size % 2 or not 2 <= size <= 1024 or codec.hop_samples % size:
            wanted = f"they must be even, at most 1024, and divide {codec.hop_samples}"
            raise TrainError(f"residual.block_ms {self.block_ms:g} is {size} samples; {wanted}")
        return size


def _falling(steps: tuple[float, ...]) -> bool:
    return bool(steps) and steps[-1] >= 1 / EXTREME and steps[0] <= EXTREME and all(np.diff(steps) < 0)


def add_residual_layer(
    model: str | Path,
    data: Given,
    out: Path,
    noise: Data | None = None,
    hours: float = 0.25,
    config: ResidualConfig | None = None,
    quiet: bool = False,
) -> bundles.Bundle:
    """Write the model anew, its highest levels with a residual layer; tables are fitted to `hours` of excerpts at each.

    The networks stay as they are; files of the model as it was need that one. Raises TrainError.
    """
    check_free(out)
    bundle, config = bundles.find(model), config or ResidualConfig()
    quantiser = bundle.quantiser()
    if quantiser.scales is None or bundle.config.mel_bands:
        raise TrainError(
            f"model {bundle.name} is of kind {quantiser.name}; a residual layer is for kind scalar of sound"
        )
    if bundle.has_residual:
        raise TrainError(f"model {bundle.name} has a residual layer already; take the one it was made from")
    plain = bundle.config.levels - len(config.steps)
    config.block_samples(bundle.config)
    if not 0 <= config.base < bundle.config.levels or plain < 1:
        levels = bundle.config.levels
        found = f"base is {config.base}, with {len(config.steps)} steps"
        raise TrainError(f"{found}; the model has levels 0 to {levels - 1}, so give such a base and fewer steps")
    with new_folder(out) as part, TemporaryDirectory(dir=part.parent) as cache:
        draft = _spread_levels(bundle, part, [*range(plain), *len(config.steps) * [config.base]], config)
        corpus = load_corpus(data, Path(cache) / "corpus", bundle.config.rate_hz, quiet)
        noises = load_corpus(noise, Path(cache) / "noise", bundle.config.rate_hz, quiet) if noise else None
        sampler = Sampler(corpus, bundle.config, MILD, noises, BALANCE)
        loaded = Model.load(draft)
        memory = memory_of(loaded, sampler.batch(1, 6 * bundle.config.group_samples, (1, 1 << 29))[0], plain)
        for share in (0.2, 1.0):  # symbols depend on what they cost, and the other way round
            groups = _symbols(loaded, sampler, plain, share * hours, quiet)
            loaded = replace(loaded, residual=_arrays(bundle.config, config, groups, memory))
        assert loaded.residual
        loaded.residual.save(part / bundles.RESIDUAL)
        _finish(draft, sampler, {"refinement": {"hours_a_level": hours, "settings": asdict(config)}})
    return bundles.load(out)


def _spread_levels(bundle: bundles.Bundle, part: Path, levels: list[int], config: ResidualConfig) -> bundles.Bundle:
    """A copy of the model in which level i is what `levels[i]` was, with a residual layer of untrained tables."""
    for side in ("encoder", "decoder"):
        spread_graph(bundle.part(f"{side}.onnx"), part / f"{side}.onnx", bundle.config, side, levels)
    StaticPrior(StaticPrior.load(bundle.part(bundles.PRIOR)).counts[levels]).save(part / bundles.PRIOR)
    if bundle.has_context:
        prior = ContextPrior.load(bundle.part(bundles.CONTEXT))
        arrays = prior.arrays | {name: prior.arrays[name][levels] for name in LEVELLED}
        ContextPrior(prior.sizes, arrays).save(part / bundles.CONTEXT)
    _arrays(bundle.config, config, []).save(part / bundles.RESIDUAL)
    if bundle.denoiser:
        copied_denoiser(bundle, part)
    facts = bundle.metadata
    for name in ("steps", "dead_zone", "rates_kbps", "static_rates_kbps"):
        if name in facts:
            facts[name] = [facts[name][level] for level in levels]
    return bundles.save(part, bundle.name, bundle.kind, bundle.config, facts)


def spread_graph(source: Path, target: Path, config: CodecConfig, side: str, levels: list[int]) -> None:
    """A copy of a graph, the "encoder" or "decoder", in which level i does what `levels[i]` did, denoising or not."""
    count = config.encoder_levels if side == "encoder" else config.levels
    levels = [level + first for first in range(0, count, config.levels) for level in levels]
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 3 and tensor.dims[:2] == [count, 2]:  # FiLM: scale and shift for each level
            values = np.ascontiguousarray(numpy_helper.to_array(tensor)[levels])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    target.write_bytes(model.SerializeToString(deterministic=True))


def _symbols(model: Model, sampler: Sampler, plain: int, hours: float, quiet: bool) -> list[Array]:
    """Symbols [S, size] of groups at all residual levels."""
    size, coded = model.config.group_samples, []
    excerpts = max(1, ceil_div(round(3600 * hours * model.config.rate_hz), EXCERPT_GROUPS * size))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet) as bar:
        task = bar.add_task("coding", total=(model.config.levels - plain) * excerpts)
        for level in range(plain, model.config.levels):
            for excerpt in range(excerpts):
                wave = sampler.batch(1, EXCERPT_GROUPS * size, (1, level, excerpt))[0]
                state = start_encoder(model, residual=True).residual
                assert state
                for analysed, _ in analysed_groups(model, start_encoder(model), wave, level):
                    symbols = model.symbols(analysed.latents, level)
                    residual, state = encode_residual(model, state, analysed.ready, symbols, level)
                    assert residual is not None
                    coded.append(residual.astype(np.int16))
                bar.advance(task)
    return coded


def memory_of(model: Model, wave: Array, level: int) -> int:
    """After how many groups of wave [N] the next one sounds as if all before had been decoded; 0: not after three."""
    frames = model.config.group_frames
    coded = analysed_groups(model, start_encoder(model), wave, level)
    groups = tuple(Sent(model.symbols(analysed.latents, level), frames, level) for analysed, _ in coded)
    wanted, _ = decoded_groups(model, start_sound(model), groups)
    for memory in (1, 2, 3):
        decoded, _ = decoded_groups(model, start_sound(model), groups[-1 - memory :])
        if np.abs(decoded.predicted - wanted.predicted).max() < FORGOTTEN:
            return memory
    return 0


def _arrays(codec: CodecConfig, config: ResidualConfig, groups: list[Array], memory: int = 0) -> ResidualLayer:
    """The residual layer with tables fitted to symbols of groups, or with any tables where there are none."""
    size = config.block_samples(codec)
    f = (np.arange(size) + 0.5) / size
    tilted = (0.1 + f) ** config.tilt
    kernel = fit_kernel(groups) if groups else np.ones((2, TAPS), np.uint16)
    highest = LARGEST_SIZE * int(kernel.sum(dtype=np.int64))
    edges = np.unique(np.ceil(np.geomspace(1, highest / 2, config.classes - 1))).astype(np.uint32)
    arrays = {
        "steps": np.array((codec.levels - len(config.steps)) * [0.0] + list(config.steps), np.float32),
        "weights": (tilted / np.exp(np.log(tilted).mean())).astype(np.float32),
        "exponent": np.array([config.exponent], np.float32),
        "per_frame": np.array([codec.hop_samples // size], np.uint8),
        "memory": np.array([memory], np.uint8),
        "kernel": kernel,
        "edges": edges,
        "tables": np.tile(
            share_out(np.ones(2 * config.reach + 2)).astype(np.uint16), (config.zones, len(edges) + 1, 1)
        ),
    }
    draft = ResidualLayer(arrays)
    return ResidualLayer(arrays | {"tables": fit_tables(draft, groups)}) if groups else draft


def fit_kernel(groups: list[Array]) -> Array:
    """What sizes of the two blocks before say of a size: least squares, symmetric in frequency; [2, TAPS] uint16."""
    reach, chosen = TAPS // 2, groups[:: max(1, sum(group.size for group in groups) // ROWS)]
    features, sizes = [], []
    for group in chosen:
        size = np.minimum(np.abs(group.astype(np.float32)), LARGEST_SIZE)
        padded = np.pad(size, ((2, 0), (reach, reach)))
        past = [padded[1:-1], padded[:-2]]
        pairs = [
            _taken(row, reach - away, group) + (_taken(row, reach + away, group) if away else 0)
            for row in past
            for away in range(reach + 1)
        ]
        features.append(np.stack([pair.ravel() for pair in pairs], 1))
        sizes.append(size.ravel())
    rows, wanted = np.concatenate(features), np.concatenate(sizes)
    weight = np.ones(len(rows), np.float32)
    for _ in range(2):  # once more with the spread that the first answer lets expect
        kernel = np.linalg.lstsq(rows * weight[:, None], wanted * weight, rcond=None)[0].clip(0)
        weight = 1 / (rows @ kernel + 0.05)
    half = np.rint(SCALE * kernel.reshape(2, reach + 1)).astype(np.uint16)
    if not half.any():
        raise TrainError("the residual layer has next to no symbols but 0; give smaller steps, or other recordings")
    return np.concatenate([half[:, :0:-1], half], 1)


def _taken(row: Array, at: int, group: Array) -> Array:
    return row[:, at : at + group.shape[1]]


def fit_tables(draft: ResidualLayer, groups: list[Array]) -> Array:
    """Counts [zones, classes, A] uint16 of symbols, alike for both signs."""
    shape = draft.arrays["tables"].shape
    seen, reach = np.zeros((shape[0] * shape[1], shape[2])), shape[2] // 2 - 1
    for group in groups:
        symbols = group.astype(np.int32)
        outside = np.abs(symbols) > reach
        np.add.at(seen, (draft.rows(symbols), np.where(outside, shape[2] - 1, symbols + reach)), 1)
    seen[:, :-1] += seen[:, -2::-1]
    seen[:, -1] *= 2
    typical = seen.reshape(*shape).sum(1).repeat(shape[1], 0)  # of the zone
    weights = seen + 32 * (typical + 1) / (typical + 1).sum(1, keepdims=True)
    tables = np.stack([share_out(row) for row in weights]).astype(np.uint16).reshape(shape)
    return tables


def rated_speech(sampler: Sampler) -> Array:
    """Excerpts [B, N] float32 that the rates of a model's levels are measured on."""
    samples = EXCERPT_GROUPS * sampler.codec.group_samples
    return sampler.batch(max(1, ceil_div(RATE_SECONDS * sampler.codec.rate_hz, samples)), samples, (1, 1 << 30))


def rates_of(model: Model, waves: Array) -> dict[str, list[float]]:
    """Rates of each level on waves [B, N], by each prior that a model has, as model.json holds them."""
    rates = {"rates_kbps": measured_rates(Codec(model), waves)}
    if model.context_prior:
        rates["static_rates_kbps"] = measured_rates(Codec(replace(model, context_prior=None)), waves)
    return rates


def _finish(bundle: bundles.Bundle, sampler: Sampler, facts: dict[str, Any]) -> None:
    """Write a draft's hashes, rates and card anew, now that its tables are there."""
    facts, waves = bundle.metadata | facts, rated_speech(sampler)
    model = Model.load(bundles.save(bundle.folder, bundle.name, bundle.kind, bundle.config, facts))
    facts |= rates_of(model, waves)
    if bundle.config.cleans:
        facts["cleaning_span"] = cleaning_span(Codec(model), waves)
    write_card(bundles.save(bundle.folder, bundle.name, bundle.kind, bundle.config, facts))
