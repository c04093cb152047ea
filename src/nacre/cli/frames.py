"""Tokens and latents with all that the sound comes back by, and the way back."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from nacre.batch.coded import codec_of
from nacre.batch.frames import ARRAYS, sound_file, tokens_file
from nacre.batch.run import Task, run_batch
from nacre.batch.sources import ANY_SOUND, CODED
from nacre.cli.app import (
    AnyModel,
    AnyOutput,
    FilesFrom,
    Force,
    Inputs,
    Jobs,
    Quiet,
    Recursive,
    Report,
    SkipExisting,
    app,
    pairs_of,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError


@app.command()
def tokens(
    inputs: Inputs = None,
    output: AnyOutput = None,
    latents: Annotated[bool, typer.Option("--latents", help="Latents, before rounding, instead of tokens.")] = False,
    level: Annotated[int | None, typer.Option(help="Quality level. Default: the highest without refinement.")] = None,
    mono: Annotated[bool, typer.Option(help="Average the channels; else each has its own.")] = True,
    model: AnyModel = None,
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn sound, or .nacre files, into tokens with gains, lengths and levels: an .npz for each file.

    nacre tokens talk.wav -o talk.npz --level 6
    nacre from-tokens talk.npz -o again.wav
    """
    options = {"latents": latents, "level": level, "mono": mono, "model": model, "force": force}
    prepare = partial(codec_of, model or DEFAULT_MODEL)
    task = Task(tokens_file, options, prepare, jobs, quiet, skip_existing, report)
    run_batch(task, pairs_of(task, inputs, output, ".npz", recursive, files_from, kinds=ANY_SOUND | CODED))


@app.command()
def from_tokens(
    inputs: Inputs = None,
    output: AnyOutput = None,
    rate: Annotated[int | None, typer.Option(help="Hz. Default: the rate of what went in.")] = None,
    model: AnyModel = None,
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn what `nacre tokens` wrote, tokens or latents, back into sound.

    nacre from-tokens talk.npz -o again.wav
    """
    if inputs and "-" in inputs:
        raise UsageError("from-tokens", found="standard input", wanted="the name of an .npz")
    options = {"rate_hz": rate, "model": model, "force": force}
    task = Task(sound_file, options, None, jobs, quiet, skip_existing, report)
    run_batch(task, pairs_of(task, inputs, output, ".wav", recursive, files_from, kinds=ARRAYS))
