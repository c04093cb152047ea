"""Beside other codecs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass, fields
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


@dataclass(frozen=True)
class Others:
    """Options that say which other codecs stand beside."""

    peers: Annotated[
        str | None,
        typer.Option(
            help="Of opus,codec2,speex,opus-lace,opus-nolace,amr-wb,mp3. Default: the first 3, if installed; '': none."
        ),
    ] = None
    peer_cmd: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CMD", help='name="enc {in} {out} {kbps} ::: dec {in} {out}", repeatable.'),
    ] = None
    peer_py: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PLACE", help="name=module:object or name=file.py:object of Python, repeatable."),
    ] = None
    peer_bitrates: Annotated[
        str | None, typer.Option(help="Bitrates of the other codecs in kb/s. Default: each codec's own.")
    ] = None

    def chosen(self) -> dict[str, Any]:
        """The same as options of `nacre.evaluate`. Raises UsageError."""
        names, rates = self.peers, self.peer_bitrates
        return {
            "peers": None if names is None else tuple(name.strip() for name in names.split(",") if name.strip()),
            "peer_commands": tuple(self.peer_cmd or ()),
            "peer_objects": tuple(self.peer_py or ()),
            "peer_bitrates_kbps": None if rates is None else tuple(numbers(rates)),
        }


@dataclass(frozen=True)
class Measured:
    """Options that say what is measured."""

    metrics: Annotated[
        str | None, typer.Option(help="Names of metrics with commas, or all. Default: the usual ones.")
    ] = None
    asr: Annotated[bool, typer.Option("--asr", help="Measure word errors of a recogniser too; slow, English only.")] = (
        False
    )


@dataclass(frozen=True)
class Lossy:
    """Options of calls over lines that lose packets."""

    loss: Annotated[
        str | None,
        typer.Option(
            help="Measure calls over lines that lose this many % of packets, such as 0,5,10,20,30, instead of files."
        ),
    ] = None
    burst: Annotated[str, typer.Option(help="Mean lengths of runs of lost packets, with --loss.")] = "1,3"


@dataclass(frozen=True)
class Noisy:
    """Options of denoising."""

    task: Annotated[str, typer.Option(help="What to measure: codec or denoise.")] = "codec"
    noise: Annotated[Path | None, typer.Option(help="Folder of noise to mix into the speech, with --task denoise.")] = (
        None
    )
    snrs: Annotated[str, typer.Option(help="Speech-to-noise ratios in dB, or clean, with --task denoise.")] = (
        "0,5,10,clean"
    )


@dataclass(frozen=True)
class Shared:
    """Options of an evaluation that do not say what is measured."""

    report: Annotated[Path | None, typer.Option(help="Write the page, one HTML file.")] = None
    csv: Annotated[Path | None, typer.Option(help="Write a row for each clip, codec and rate.")] = None
    as_json: Annotated[Path | None, typer.Option("--json", help="Write rows, means, intervals and facts.")] = None
    examples: Annotated[int, typer.Option(min=0, help="Clips with players on the page.")] = 4
    limit: Annotated[int | None, typer.Option(min=1, help="Use this many clips, spread over all.")] = None
    jobs: Jobs = 2
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False
    force: Force = False
    quiet: Quiet = False


@app.command()
@with_options
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings of any depth, format and rate.")],
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="Model, repeatable.")] = None,
    bitrates: Annotated[str, typer.Option(help="Bitrates of nacre in kb/s.")] = "1.5,3,4.5,6,9",
    *,
    measured: Measured,
    others: Others,
    lossy: Lossy,
    noisy: Noisy,
    shared: Shared,
) -> None:
    """Measure rate, quality and speed on a folder of speech, beside other codecs. Needs nacre\\[evaluate].

    nacre evaluate speech --peers opus,codec2,speex,amr-wb --report out.html
    nacre evaluate speech --bitrates 6 --loss 0,10,20 --burst 1,3
    nacre evaluate speech --task denoise --noise noise --report out.html
    Exit code 1 if a clip was left out or a codec failed.
    """
    named = models or [DEFAULT_MODEL]
    if noisy.task != "codec":
        _evaluate_denoising(folder, named, noisy, shared)
        return
    if lossy.loss is not None:
        _evaluate_calls(folder, named, numbers(bitrates), numbers(lossy.loss, "loss"), lossy.burst, measured, shared)
        return
    from nacre.evaluate.choice import Options
    from nacre.evaluate.run import evaluate as run

    given = {field.name: getattr(shared, field.name) for field in fields(shared)}
    options = Options(
        folder=folder,
        models=tuple(named),
        bitrates_kbps=tuple(numbers(bitrates)),
        json=given.pop("as_json"),
        command=shlex.join(["nacre", *sys.argv[1:]]),
        **asdict(measured),
        **others.chosen(),
        **given,
    )
    if not run(options, console()):
        raise typer.Exit(1)


def _evaluate_calls(
    folder: Path,
    models: list[str],
    rates_kbps: list[float],
    percents: list[float],
    burst: str,
    measured: Measured,
    shared: Shared,
) -> None:
    """Calls by one model at one rate, over lines of these losses in % and mean runs. Raises UsageError."""
    from nacre.evaluate.loss import evaluate_loss

    if len(rates_kbps) > 1 or len(models) > 1:
        raise UsageError("--loss", found="several bitrates or models", wanted="one of each, such as --bitrates 6")
    shares, runs = [at / 100 for at in percents], numbers(burst, "burst")
    codec, out = codec_of(models[0]), console()
    chosen: Any = {"metrics": measured.metrics, "limit": shared.limit, "target": shared.as_json, "force": shared.force}
    evaluate_loss(codec, folder, rates_kbps[0], shares, runs, out, **chosen)


def _evaluate_denoising(folder: Path, models: list[str], noisy: Noisy, shared: Shared) -> None:
    """Speech in noise at these SNRs, cleaned by one model and by others. Raises UsageError."""
    from nacre.evaluate.denoising import evaluate_denoising, snrs_of

    chosen = snrs_of(noisy.snrs)
    if noisy.task != "denoise" or noisy.noise is None or len(models) > 1 or not chosen:
        wanted = "codec, or denoise with --noise FOLDER, SNRs and one --model"
        raise UsageError("--task", found=noisy.task, wanted=wanted)
    codec, out = codec_of(models[0]), console()
    files: Any = {"target": shared.as_json, "report": shared.report, "force": shared.force}
    evaluate_denoising(codec, folder, noisy.noise, chosen, out, limit=shared.limit, **files)
