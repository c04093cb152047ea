"""A decoder that was trained alone, in the model whose encoder, steps and priors it was trained with.

The bytes of a file stay what they were, so the model reads files of the one it comes from.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch

from nacre.core.errors import TrainError
from nacre.model import bundle as bundles
from nacre.model.model import Model
from nacre.train.adapt import BALANCE, MILD
from nacre.train.data import Sampler, open_cache
from nacre.train.export import averaged, card, check_free, making, new_folder, write_graph
from nacre.train.recipe import Recipe, recipe_of
from nacre.train.refine import rated_speech, rates_of, spread_graph
from nacre.train.run import CHECKPOINT, new_run


def export_decoder(folder: Path, base: str | Path, out: Path, name: str | None = None) -> bundles.Bundle:
    """Write a model with the decoder of a run and everything else of the model `base` that the run began from.

    Raises TrainError where the run trained more than its decoder, or a decoder of other sizes.
    """
    check_free(out)
    bundle, recipe = bundles.find(base), recipe_of(folder)
    _check(bundle, recipe)
    run = new_run(recipe, torch.device("cpu"))
    run.load(folder / f"{CHECKPOINT}.safetensors", recipe)
    corpus = open_cache(folder / "corpus")
    with new_folder(out) as part:
        for kept in bundles.parts_of(bundle.kind, bundle.facts["sha256"]):
            shutil.copyfile(bundle.part(kept), part / kept)
        write_graph(averaged(run), "decoder", part / "decoder.onnx")
        if refined := bundle.facts.get("refinement"):
            settings, count = refined["settings"], bundle.config.levels
            plain = count - len(settings["steps"])
            levels = [*range(plain), *(count - plain) * [settings["base"]]]
            spread_graph(part / "decoder.onnx", part / "decoder.onnx", count, levels)
        facts: dict[str, Any] = bundle.told | making(recipe, run, corpus) | {"reads": bundle.reads}
        draft = bundles.save(part, name or recipe.name, bundle.kind, recipe.codec, facts)
        sampler = Sampler(corpus, recipe.codec, MILD, None, BALANCE)
        facts |= rates_of(Model.load(draft), rated_speech(sampler))
        found = bundles.save(part, draft.name, bundle.kind, recipe.codec, facts)
        (part / "README.md").write_text(card(found, recipe))
    return bundles.load(out)


def _check(bundle: bundles.Bundle, recipe: Recipe) -> None:
    trained = {part for stage in recipe.stage for part in stage.train}
    if trained != {"decoder"}:
        advice = "export it without --base"
        raise TrainError("run", found=f"trained {sorted(trained)}", wanted="its decoder alone", next=advice)
    if dataclasses.replace(recipe.codec, noise=bundle.config.noise) != bundle.config:
        raise TrainError("run", found=recipe.codec, wanted=f"settings of {bundle.name} but for noise")
