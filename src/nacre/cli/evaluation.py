"""Beside other codecs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from nacre.batch.coded import codec_of
from nacre.batch.messages import console
from nacre.cli.app import (
    Force,
    Jobs,
    Quiet,
    app,
    numbers,
    with_options,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError

Peers = Annotated[
    str | None,
    typer.Option(help="Of opus,codec2,speex,opus-lace,opus-nolace,amr-wb,mp3. Default: the first 3, if here; '' none."),
]
PeerCommands = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=CMD", help='name="enc {in} {out} {kbps} ::: dec {in} {out}", repeatable.'),
]
PeerObjects = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PLACE", help="name=module:object or name=file.py:object of Python, repeatable."),
]
Loss = Annotated[
    str | None, typer.Option(help="Calls over lines that lose so many %, such as 0,5,10,20,30, not files.")
]
Noise = Annotated[
    Path | None, typer.Option(help="Folder of noise: speech in it, cleaned, is measured, with --task denoise.")
]
SNRS = "0,5,10,clean"


@dataclass(frozen=True)
class Shared:
    """Options of an evaluation that do not say what is measured."""

    report: Annotated[Path | None, typer.Option(help="The page, one HTML file.")] = None
    csv: Annotated[Path | None, typer.Option(help="A row for each clip, codec and rate.")] = None
    as_json: Annotated[Path | None, typer.Option("--json", help="Rows, means, intervals and facts.")] = None
    examples: Annotated[int, typer.Option(min=0, help="Clips to hear on the page.")] = 4
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips, spread over all.")] = None
    jobs: Jobs = 2
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a run that was stopped.")] = False
    force: Force = False
    quiet: Quiet = False


@app.command()
@with_options(Shared)
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, any depth, format and rate.")],
    shared: Shared,
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="Model, repeatable.")] = None,
    bitrates: Annotated[str, typer.Option(help="kb/s asked of nacre.")] = "1.5,3,4.5,6,9",
    peers: Peers = None,
    peer_cmd: PeerCommands = None,
    peer_py: PeerObjects = None,
    peer_bitrates: Annotated[str | None, typer.Option(help="kb/s asked of the others. Default: each its own.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Names with commas, or all. Default: the usual ones.")] = None,
    asr: Annotated[bool, typer.Option("--asr", help="Word error of a recogniser as well; slow, English.")] = False,
    loss: Loss = None,
    burst: Annotated[str, typer.Option(help="Mean runs of lost packets, with --loss.")] = "1,3",
    task: Annotated[str, typer.Option(help="codec or denoise.")] = "codec",
    noise: Noise = None,
    snrs: Annotated[str, typer.Option(help="dB of speech over noise, or clean, with --task denoise.")] = SNRS,
) -> None:
    """Measure rate, quality and speed on a folder of speech, beside other codecs. Needs nacre\\[evaluate].

    nacre evaluate speech --peers opus,codec2,speex,amr-wb --report out.html
    nacre evaluate speech --bitrates 6 --loss 0,10,20 --burst 1,3
    nacre evaluate speech --task denoise --noise noise --report out.html
    Exit code 1 if a clip was left out or a codec failed.
    """
    named = models or [DEFAULT_MODEL]
    if task != "codec":
        _evaluate_denoising(folder, named, task, noise, snrs, shared)
        return
    if loss is not None:
        _evaluate_calls(folder, named, numbers(bitrates), (loss, burst), metrics, shared)
        return
    from nacre.evaluate.choice import Options
    from nacre.evaluate.run import evaluate as run

    given = {field.name: getattr(shared, field.name) for field in fields(shared)}
    options = Options(
        folder=folder,
        models=tuple(named),
        bitrates_kbps=tuple(numbers(bitrates)),
        peers=None if peers is None else tuple(name.strip() for name in peers.split(",") if name.strip()),
        peer_commands=tuple(peer_cmd or ()),
        peer_objects=tuple(peer_py or ()),
        peer_bitrates_kbps=None if peer_bitrates is None else tuple(numbers(peer_bitrates)),
        metrics=metrics,
        asr=asr,
        json=given.pop("as_json"),
        command=shlex.join(["nacre", *sys.argv[1:]]),
        **given,
    )
    if not run(options, console()):
        raise typer.Exit(1)


def _evaluate_calls(
    folder: Path,
    models: list[str],
    rates_kbps: list[float],
    line: tuple[str, str],
    metrics: str | None,
    shared: Shared,
) -> None:
    """Calls by one model at one rate, over lines of these losses in % and mean runs. Raises UsageError."""
    from nacre.evaluate.loss import evaluate_loss

    if len(rates_kbps) > 1 or len(models) > 1:
        raise UsageError("--loss", found="several bitrates or models", wanted="one of each, such as --bitrates 6")
    shares, runs = [at / 100 for at in numbers(line[0], "loss")], numbers(line[1], "burst")
    codec, out = codec_of(models[0]), console()
    chosen: Any = {"metrics": metrics, "limit": shared.limit, "target": shared.as_json, "force": shared.force}
    evaluate_loss(codec, folder, rates_kbps[0], shares, runs, out, **chosen)


def _evaluate_denoising(
    folder: Path, models: list[str], task: str, noise: Path | None, snrs: str, shared: Shared
) -> None:
    """Speech in noise at these SNRs, cleaned by one model and by others. Raises UsageError."""
    from nacre.evaluate.denoising import evaluate_denoising, snrs_of

    chosen = snrs_of(snrs)
    if task != "denoise" or noise is None or len(models) > 1 or not chosen:
        raise UsageError("--task", found=task, wanted="codec, or denoise with --noise FOLDER, SNRs and one --model")
    codec, out = codec_of(models[0]), console()
    files: Any = {"target": shared.as_json, "report": shared.report, "force": shared.force}
    evaluate_denoising(codec, folder, noise, chosen, out, limit=shared.limit, **files)
