"""A context prior for a model that is there already: recordings are coded at every level, the prior learns of it."""

from __future__ import annotations

import math
import shutil
from collections import deque
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from nacre.codec.codec import Codec
from nacre.codec.encoder import analysed_groups
from nacre.codec.state import start_encoder
from nacre.core.errors import TrainError
from nacre.model import bundle as bundles
from nacre.model.model import Model
from nacre.train.card import write_card
from nacre.train.degrade import DegradeConfig
from nacre.train.export import check_free, measured_rates, new_folder
from nacre.train.post.context import ContextConfig, train
from nacre.train.recordings import Data, Given, load_corpus
from nacre.train.sampler import Sampler

Array = np.ndarray[Any, np.dtype[Any]]

EXCERPT_GROUPS = 8
MILD = DegradeConfig(0.3, (0.9, 1.12), 4.0, 0.05, 0.2, 0.08, (10.0, 30.0))
BALANCE = 0.75  # of sources, as in a recipe
RATE_SECONDS = 300  # of speech that the rates are measured on


def symbols_of(model: Model, waves: Array, level: int) -> Array:
    """Symbols [B, T, D] int16 of waves [B, N] at the model's rate, N a multiple of a group."""
    coded = []
    for wave in waves:
        groups = analysed_groups(model, start_encoder(model), wave, level)
        symbols = [model.symbols(analysed.latents, level) for analysed, _ in groups]
        coded.append(np.concatenate(symbols).astype(np.int16))
    return np.stack(coded)


def add_context(
    model: str | Path,
    data: Given,
    out: Path,
    noise: Data | None = None,
    hours: float = 2.4,
    config: ContextConfig | None = None,
    quiet: bool = False,
) -> bundles.Bundle:
    """Write the model anew with a context prior learned from `hours` of excerpts of `data`, coded at every level.

    Graphs and static tables stay as they are, so its files do too. Raises TrainError.
    """
    check_free(out)
    bundle, config = bundles.find(model), config or ContextConfig()
    if (quantiser := bundle.quantiser()).scales is None:
        raise TrainError(f"model {bundle.name} is of kind {quantiser.name}; a context prior is for kind scalar")
    if config.frames > EXCERPT_GROUPS * bundle.config.group_frames:
        raise TrainError(f"frames is {config.frames}; it must be at most those of {EXCERPT_GROUPS} groups")
    with new_folder(out) as part:
        with TemporaryDirectory(dir=part.parent) as cache:
            learned, rates = _learned(Codec(Model.load(bundle)), data, noise, Path(cache), hours, config, quiet, part)
        facts = bundle.metadata
        facts |= {"rates_kbps": rates, "static_rates_kbps": bundle.static_rates_kbps.tolist(), "context": learned}
        write_card(bundles.save(part, bundle.name, bundle.kind, bundle.config, facts))
    return bundles.load(out)


def _learned(
    codec: Codec,
    data: Given,
    noise: Data | None,
    cache: Path,
    hours: float,
    config: ContextConfig,
    quiet: bool,
    part: Path,
) -> tuple[dict[str, Any], list[float]]:
    """Fill the folder `part` with a copy of the model and its new prior; how it was made, and its rates."""
    rate_hz, bundle = codec.config.rate_hz, codec.bundle
    corpus = load_corpus(data, cache / "corpus", rate_hz, quiet)
    noises = load_corpus(noise, cache / "noise", rate_hz, quiet) if noise else None
    sampler = Sampler(corpus, codec.config, MILD, noises, BALANCE)
    samples = EXCERPT_GROUPS * codec.config.group_samples
    items = max(1, math.ceil(3600 * hours * rate_hz / samples))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=quiet) as bar:
        task, groups = bar.add_task("coding", total=codec.config.levels * items), []
        for level in range(codec.config.levels):
            coded = []
            for item in range(items):
                wave = sampler.batch(1, samples, (config.seed, level, item))
                coded.append(symbols_of(codec.model, wave, level))
                bar.advance(task)
            groups.append(np.concatenate(coded))
        task, recent = bar.add_task("learning", total=config.steps), deque[float](maxlen=100)

        def note(step: int, loss: float) -> None:
            recent.append(loss)
            text = f"learning, {np.mean(recent):.1%} of the bits of static tables"
            bar.update(task, completed=step + 1, description=text)

        scales = codec.model.quantiser.scales
        assert scales is not None
        prior = train(groups, scales, config, note)
    for name in {*bundles.parts_of(bundle.kind, bundle.facts.hashes)} - {bundles.CONTEXT}:
        shutil.copyfile(bundle.part(name), part / name)
    prior.save(part / bundles.CONTEXT)
    facts = bundle.metadata
    draft = bundles.save(part, bundle.name, bundle.kind, bundle.config, facts)
    items = max(1, math.ceil(RATE_SECONDS * rate_hz / samples))
    rates = measured_rates(Codec(Model.load(draft)), sampler.batch(items, samples, (config.seed, 1 << 30)))
    return {"hours_a_level": hours, "settings": asdict(config)}, rates
