"""A decoder, or decoder and encoder, in the model whose steps and priors they were trained with.

What a file's symbols mean stays what it was, so the model reads files of the one it comes from.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from nacre.codec.codec import Codec
from nacre.core.errors import TrainError
from nacre.model import bundle as bundles
from nacre.model.model import Model
from nacre.train.card import write_card
from nacre.train.codec_run import new_run
from nacre.train.export import (
    BITS,
    averaged,
    check_denoiser,
    check_free,
    cleaning_span,
    copied_denoiser,
    making,
    new_folder,
    write_graph,
)
from nacre.train.post.adapt import BALANCE, MILD
from nacre.train.post.residual import rated_speech, rates_of, spread_graph
from nacre.train.recipe import Recipe, recipe_of
from nacre.train.recordings import open_cache
from nacre.train.run import CHECKPOINT
from nacre.train.sampler import Sampler


def export_networks(
    folder: Path,
    base: str | Path,
    out: Path,
    name: str | None = None,
    bits: int = BITS,
    denoiser: bundles.Bundle | None = None,
) -> bundles.Bundle:
    """Write a model with the networks that a run trained and everything else of the model `base` it began from.

    `denoiser` is a model whose denoiser it gets in place of its own. Raises TrainError where the run trained its
    quantiser, or no decoder, or networks of other sizes.
    """
    check_free(out)
    bundle, recipe = bundles.find(base), recipe_of(folder)
    trained = _trained(bundle, recipe)
    if denoiser:
        check_denoiser(denoiser, recipe)
    run = new_run(recipe, torch.device("cpu"))
    run.load(folder / f"{CHECKPOINT}.safetensors")
    corpus = open_cache(folder / "corpus")
    with new_folder(out) as part:
        for kept in bundles.parts_of(bundle.kind, bundle.facts.hashes):
            shutil.copyfile(bundle.part(kept), part / kept)
        for side in trained:
            graph = part / f"{side}.onnx"
            write_graph(averaged(run), side, graph, bits)
            if layer := bundle.facts.refinement:
                settings, count = layer["settings"], bundle.config.levels
                plain = count - len(settings["steps"])
                levels = [*range(plain), *(count - plain) * [settings["base"]]]
                spread_graph(graph, graph, bundle.config, side, levels)
        facts: dict[str, Any] = bundle.metadata | making(recipe, run, corpus) | {"reads": bundle.reads}
        if denoiser:
            facts |= copied_denoiser(denoiser, part)
        draft = bundles.save(part, name or recipe.name, bundle.kind, recipe.codec, facts)
        sampler = Sampler(corpus, recipe.codec, MILD, None, BALANCE)
        model, speech = Model.load(draft), rated_speech(sampler)
        facts |= rates_of(model, speech)
        if "encoder" in trained and model.config.cleans:
            facts["cleaning_span"] = cleaning_span(Codec(model), speech)
        saved = bundles.save(part, draft.name, bundle.kind, recipe.codec, facts)
        write_card(saved, recipe)
    return bundles.load(out)


def _trained(bundle: bundles.Bundle, recipe: Recipe) -> list[str]:
    trained = {part for stage in recipe.stage for part in stage.train}
    if not {"decoder"} <= trained <= {"encoder", "decoder"}:
        wanted = "--base wants the decoder, with or without the encoder, and the quantiser frozen"
        raise TrainError(f"the run trained {', '.join(sorted(trained))}; {wanted}; export it without --base")
    if dataclasses.replace(recipe.codec, noise=bundle.config.noise) != bundle.config:
        raise TrainError(f"the run is of {recipe.codec}, from which {bundle.name} differs; only noise may")
    return sorted(trained)
