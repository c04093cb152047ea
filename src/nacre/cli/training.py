"""Commands that make models: train, fine-tune, add parts, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.batch.messages import tell
from nacre.cli.app import (
    Changes,
    Noise,
    Processes,
    Quiet,
    Resume,
    Valid,
    app,
    numbers,
    training_packages,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError

if TYPE_CHECKING:
    from nacre.train.recordings import Data


@app.command()
def recipes() -> None:
    """List the recipes inside this package, for `nacre train`."""
    from rich.console import Console
    from rich.table import Table

    from nacre import recipes as inside

    table = Table("recipe", "purpose", box=None)
    for path in inside.bundled():
        table.add_row(path.stem, inside.about(path))
    Console(highlight=False).print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name from `nacre recipes`, or a file.")],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings, or a source of `nacre corpus`; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, for checkpoint and logs.")],
    noise: Noise = None,
    valid: Valid = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Start from the weights of this model, a name or a folder; a denoiser, of this run's folder."
        ),
    ] = None,
    resume: Resume = False,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many steps. Default: as the recipe says.")
    ] = None,
    processes: Processes = 1,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on your own recordings. Needs nacre\\[train].

    nacre train speech-16k --data recordings --out run
    Watch the run with tensorboard --logdir run, then make a model of it with `nacre export`.
    """
    with training_packages():
        from nacre import recipes as recipes_inside
        from nacre.model import bundle as bundles
        from nacre.train.codec_trainer import train as run
        from nacre.train.denoise_recipe import is_denoiser, load_denoise_recipe
        from nacre.train.denoise_run import train_denoiser
        from nacre.train.recipe import load_recipe, read_values
        from nacre.train.start import start_from

        path, overrides = recipes_inside.find(recipe), tuple(changes or ())
        how: Any = {"resume": resume, "max_steps": max_steps, "quiet": quiet, "processes": processes}
        if is_denoiser(read_values(path)):
            chosen, begin_with = load_denoise_recipe(path, overrides), Path(start) if start else None
            train_denoiser(chosen, _all(data), out, _one(noise), _one(valid), start=begin_with, **how)
            return
        begin = start_from(bundles.find(start)) if start else None
        run(load_recipe(path, overrides), _all(data), out, _one(noise), _one(valid), begin=begin, **how)


@app.command()
def finetune(
    model: Annotated[str, typer.Argument(help="Model of kind scalar: name from `nacre models`, or a model folder.")],
    data: Annotated[list[Path], typer.Option(help="Folder of your recordings; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, for `nacre export`.")],
    noise: Noise = None,
    valid: Valid = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps.")] = 2000,
    learning_rate: Annotated[
        float, typer.Option(help="Peak learning rate; it decays over the last 70 % of the steps.")
    ] = 5e-4,
    resume: Resume = False,
    processes: Processes = 1,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train a model further on your own recordings, with the recipe that made it. Needs nacre\\[train].

    nacre finetune speech-16k --data recordings --out run
    """
    with training_packages():
        from nacre.model import bundle as bundles
        from nacre.train.codec_trainer import train as run
        from nacre.train.start import recipe_from, start_from

        bundle = bundles.find(model)
        recipe = recipe_from(bundle, steps, learning_rate, tuple(changes or ()))
        begin = start_from(bundle)
        how: Any = {"resume": resume, "quiet": quiet, "processes": processes}
        run(recipe, _all(data), out, _one(noise), _one(valid), begin=begin, **how)


@app.command()
def prior(
    model: Annotated[str, typer.Argument(help="Name from `nacre models`, or a model folder.")],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings like those it will code; repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model with its prior.")],
    noise: Annotated[Path | None, typer.Option(help="Mix noise from this folder into some excerpts.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=1000, help="Hours of excerpts to code at each level.")] = 2.4,
    steps: Annotated[int, typer.Option(min=1, help="Training steps; 7000 take a quarter of an hour.")] = 7000,
    quiet: Quiet = False,
) -> None:
    """Add a context prior to a model, for smaller files of the same sound. Needs nacre\\[train].

    nacre prior my-model --data recordings --output my-model-context
    """
    with training_packages():
        from nacre.train.post.adapt import add_context
        from nacre.train.post.context import ContextConfig

        bundle = add_context(model, _all(data), output, _one(noise), hours, ContextConfig(steps=steps), quiet)
    saved = 1 - (bundle.rates_kbps / bundle.static_rates_kbps).mean()
    text = f"{abs(saved):.1%} {'smaller' if saved >= 0 else 'larger'} files, fingerprint {bundle.fingerprint.hex()}"
    if not quiet:
        tell(f"{output}: {bundle.size_bytes / 1e6:.1f} MB, {text}")


@app.command()
def refine(
    model: Annotated[
        str, typer.Argument(help="Model without a residual layer: name from `nacre models`, or a model folder.")
    ],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings like those it will code; repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model with its layer.")],
    noise: Annotated[Path | None, typer.Option(help="Mix noise from this folder into some excerpts.")] = None,
    hours: Annotated[
        float, typer.Option(min=0.01, max=1, help="Hours of excerpts to code at each residual level.")
    ] = 0.25,
    base: Annotated[int, typer.Option(min=0, max=15, help="Quality level whose networks the residual levels use.")] = 9,
    steps: Annotated[
        str, typer.Option(help="Quantiser steps of the residual levels, from the coarsest.")
    ] = "2.2,1.5,1,.68,.44",
    quiet: Quiet = False,
) -> None:
    """Add a residual layer to a model's highest levels: it codes what the networks miss. Needs nacre\\[train].

    nacre refine my-model --data recordings --output my-model-refined
    """
    with training_packages():
        from nacre.train.post.residual import ResidualConfig, add_residual_layer

        config = ResidualConfig(base=base, steps=tuple(numbers(steps, "steps")))
        bundle = add_residual_layer(model, _all(data), output, _one(noise), hours, config, quiet)
    rates = f"{bundle.rates_kbps[0]:.1f} to {bundle.rates_kbps[-1]:.1f} kb/s"
    if not quiet:
        tell(f"{output}: {bundle.size_bytes / 1e6:.1f} MB, {rates}, fingerprint {bundle.fingerprint.hex()}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `nacre train` or `nacre finetune`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: the recipe's.")] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Model the run started from; keep its other parts, so that its files stay readable. "
            "For a denoiser: the model to add it to. Default: speech-16k."
        ),
    ] = None,
    denoiser: Annotated[
        str | None, typer.Option(help="Model whose denoiser to put into this one, such as speech-16k.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Bits per weight of the large matrices: 8, or 16 for twice the size.")] = 8,
    quiet: Quiet = False,
) -> None:
    """Turn a training run into a model folder, which encodes and decodes without torch. Needs nacre\\[train].

    nacre export run --output my-model
    """
    if bits not in (8, 16):
        raise UsageError(f"--bits {bits} is not possible; give 8 or 16")
    with training_packages():
        made = _exported(run, output, name, base, denoiser, bits)
    if not quiet:
        tell(f"{output}: {made}")


def _exported(run: Path, output: Path, name: str | None, base: str | None, denoiser: str | None, bits: int) -> str:
    """Export a run of either sort; what was made, in words."""
    from nacre.model import bundle as bundles
    from nacre.train.denoise_export import export_denoiser
    from nacre.train.denoise_recipe import is_denoiser, values_of
    from nacre.train.export import export_run
    from nacre.train.post.graft import export_networks

    if is_denoiser(values_of(run)):
        if denoiser:
            raise UsageError("--denoiser is not for the run of a denoiser; leave it out")
        bundle = export_denoiser(run, base or DEFAULT_MODEL, output, name)
        size_kb = bundle.part(bundles.DENOISER).stat().st_size / 1e3
        return f"{bundle.name} with a denoiser of {size_kb:.0f} kB; its files stay the same"
    given = bundles.find(denoiser) if denoiser else None
    if base:
        bundle = export_networks(run, base, output, name, bits, given)
    else:
        bundle = export_run(run, output, name, bits, given)
    rates = f"{bundle.rates_kbps[0]:.1f} to {bundle.rates_kbps[-1]:.1f} kb/s"
    return f"{bundle.size_bytes / 1e6:.1f} MB, {rates}, fingerprint {bundle.fingerprint.hex()}"


def _all(data: list[Path]) -> list[Data]:
    from nacre.corpus.training import training_data

    return [training_data(path) for path in data]


def _one(path: Path | None) -> Data | None:
    return _all([path])[0] if path else None
