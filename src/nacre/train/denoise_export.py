"""A trained denoiser into a model folder."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nacre.model import bundle as bundles
from nacre.train.card import CARD, with_denoiser
from nacre.train.denoise_net import DenoiseNet
from nacre.train.denoise_recipe import DenoiseRecipe, values_of
from nacre.train.denoise_run import DenoiseRun
from nacre.train.export import check_free, check_rates, new_folder, write_module
from nacre.train.recipe import build
from nacre.train.run import CHECKPOINT


def export_denoiser(folder: Path, base: str | Path, out: Path, name: str | None = None) -> bundles.Bundle:
    """Write the model `base` anew with the denoiser that a run trained. Its files stay what they were.

    Raises TrainError.
    """
    check_free(out)
    bundle = bundles.find(base)
    recipe: DenoiseRecipe = build(DenoiseRecipe, values_of(folder))
    check_rates(bundle.name, bundle.config.rate_hz, recipe.rate_hz)
    run = DenoiseRun.new(recipe, torch.device("cpu"))
    run.load(folder / f"{CHECKPOINT}.safetensors")
    with new_folder(out) as part:
        for file in {*bundles.parts_of(bundle.kind, bundle.facts.hashes)} - {bundles.DENOISER}:
            shutil.copyfile(bundle.part(file), part / file)
        run.net.load_state_dict(run.mean)
        write_denoiser(run.net, part / bundles.DENOISER)
        made = asdict(recipe.denoiser) | {"training": _made(recipe, run)}
        before = bundle.folder / CARD
        (part / CARD).write_text(with_denoiser(before.read_text("utf-8") if before.is_file() else "", made), "utf-8")
        bundles.save(part, name or bundle.name, bundle.kind, bundle.config, bundle.metadata | {"denoiser": made})
    return bundles.load(out)


def _made(recipe: DenoiseRecipe, run: DenoiseRun) -> dict[str, Any]:
    """What a user of the denoiser should know about its making."""
    return {"recipe": asdict(recipe), "steps": run.step, "audio_seconds_seen": round(run.seconds_seen)}


def write_denoiser(net: DenoiseNet, path: Path) -> None:
    """The network as an ONNX graph: (frames [1, T, 2 * bins], past [1, P, W]) -> (masks, past)."""
    net = net.eval().cpu()
    example = {"frames": torch.randn(1, 7, 2 * net.bins), "past": torch.zeros(1, *net.past_shape)}
    write_module(net, example, path, stored_bits=8)
