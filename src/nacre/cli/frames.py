"""Tokens and latents with all that decoding needs, and back to sound."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from nacre.batch.coded import codec_of
from nacre.batch.frames import ARRAYS, sound_file, tokens_file
from nacre.batch.run import run_batch
from nacre.batch.sources import CODED
from nacre.cli.app import (
    AnyModel,
    AnyOutput,
    SoundModel,
    WritingBatch,
    app,
    with_options,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError
from nacre.io.folders import ANY_SOUND


@app.command()
@with_options
def tokens(
    output: AnyOutput = None,
    latents: Annotated[
        bool, typer.Option("--latents", help="Write latents, before rounding, instead of tokens.")
    ] = False,
    level: Annotated[
        int | None, typer.Option(help="Quality level. Default: the highest without a residual layer.")
    ] = None,
    mono: Annotated[bool, typer.Option(help="Average the channels, or keep each.")] = True,
    model: SoundModel = None,
    *,
    batch: WritingBatch,
) -> None:
    """Turn sound or .nacre files into tokens with gains, lengths and levels, one .npz per file.

    nacre tokens talk.wav -o talk.npz --level 6
    nacre from-tokens talk.npz -o again.wav
    """
    options = {"latents": latents, "level": level, "mono": mono, "model": model}
    task = batch.task(tokens_file, options, partial(codec_of, model or DEFAULT_MODEL))
    run_batch(task, batch.pairs(output, ".npz", ANY_SOUND | CODED))


@app.command()
@with_options
def from_tokens(
    output: AnyOutput = None,
    rate: Annotated[int | None, typer.Option(help="Output rate in Hz. Default: the original's.")] = None,
    model: AnyModel = None,
    *,
    batch: WritingBatch,
) -> None:
    """Turn what `nacre tokens` wrote, tokens or latents, back into sound.

    nacre from-tokens talk.npz -o again.wav
    """
    if "-" in (batch.inputs or []):
        raise UsageError("from-tokens cannot read standard input; give the name of an .npz file")
    task = batch.task(sound_file, {"rate_hz": rate, "model": model})
    run_batch(task, batch.pairs(output, ".wav", ARRAYS))
