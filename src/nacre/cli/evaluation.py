"""The command that compares nacre with other codecs."""

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

Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Name from `nacre models`, or a model folder; repeatable. Default: speech-16k."),
]


@dataclass(frozen=True)
class Others:
    """Options that choose the other codecs."""

    peers: Annotated[
        str | None,
        typer.Option(
            help="Codecs to compare with: opus,codec2,speex,opus-lace,opus-nolace,amr-wb,mp3; '' is none. "
            "Default: those of the first 3 that are installed."
        ),
    ] = None
    peer_cmd: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=CMD",
            help='Another codec as two programs, name="enc {in} {out} {kbps} ::: dec {in} {out}"; repeatable.',
        ),
    ] = None
    peer_py: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PLACE",
            help="Another codec as a Python object, name=module:object or name=file.py:object; repeatable.",
        ),
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
    """Options that choose the metrics."""

    metrics: Annotated[
        str | None, typer.Option(help="Names of metrics with commas, or all. Default: the usual ones.")
    ] = None
    asr: Annotated[
        bool, typer.Option("--asr", help="Also measure a speech recogniser's word errors; slow, English only.")
    ] = False


@dataclass(frozen=True)
class Lossy:
    """Options of calls over lines that lose packets."""

    loss: Annotated[
        str | None,
        typer.Option(help="Measure calls instead of files, at these packet losses in %, such as 0,5,10,20,30."),
    ] = None
    burst: Annotated[str, typer.Option(help="With --loss: mean numbers of packets lost in a row.")] = "1,3"


@dataclass(frozen=True)
class Noisy:
    """Options of denoising."""

    task: Annotated[str, typer.Option(help="What to measure: codec or denoise.")] = "codec"
    noise: Annotated[Path | None, typer.Option(help="With --task denoise: folder of noise to mix into the speech.")] = (
        None
    )
    snrs: Annotated[str, typer.Option(help="With --task denoise: signal-to-noise ratios in dB, or clean.")] = (
        "0,5,10,clean"
    )


@dataclass(frozen=True)
class Shared:
    """Options of every evaluation."""

    report: Annotated[Path | None, typer.Option(help="Write a page with tables, curves and players to this file.")] = (
        None
    )
    csv: Annotated[Path | None, typer.Option(help="Write one row per clip, codec and rate to this file.")] = None
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write rows, means and confidence intervals to this file.")
    ] = None
    examples: Annotated[int, typer.Option(min=0, help="Number of clips with players on the page.")] = 4
    limit: Annotated[int | None, typer.Option(min=1, help="Use only this many clips, spread evenly. Default: all.")] = (
        None
    )
    jobs: Jobs = 2
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False
    force: Force = False
    quiet: Quiet = False


@app.command()
@with_options
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings in any format and rate, with subfolders.")],
    models: Models = None,
    bitrates: Annotated[str, typer.Option(help="Bitrates of nacre in kb/s, with commas.")] = "1.5,3,4.5,6,9",
    *,
    measured: Measured,
    others: Others,
    lossy: Lossy,
    noisy: Noisy,
    shared: Shared,
) -> None:
    """Compare rate, quality and speed with other codecs on a folder of speech. Needs nacre\\[evaluate].

    nacre evaluate speech --peers opus,codec2,speex,amr-wb --report out.html
    nacre evaluate speech --bitrates 6 --loss 0,10,20 --burst 1,3
    nacre evaluate speech --task denoise --noise noise --report out.html
    The exit code is 1 if a clip was left out or a codec failed.
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
    """Calls by one model at one rate, over lines with these losses in % and mean bursts. Raises UsageError."""
    from nacre.evaluate.loss import evaluate_loss

    if len(rates_kbps) > 1 or len(models) > 1:
        raise UsageError("--loss measures one model at one bitrate; give one of each, as in --bitrates 6")
    shares, runs = [at / 100 for at in percents], numbers(burst, "burst")
    codec, out = codec_of(models[0]), console()
    chosen: Any = {"metrics": measured.metrics, "limit": shared.limit, "target": shared.as_json, "force": shared.force}
    evaluate_loss(codec, folder, rates_kbps[0], shares, runs, out, **chosen)


def _evaluate_denoising(folder: Path, models: list[str], noisy: Noisy, shared: Shared) -> None:
    """Speech in noise at these SNRs, denoised by one model and by others. Raises UsageError."""
    from nacre.evaluate.denoising import evaluate_denoising, snrs_of

    if noisy.task != "denoise":
        raise UsageError(f"--task {noisy.task} is unknown; give codec or denoise")
    chosen = snrs_of(noisy.snrs)
    if noisy.noise is None or len(models) > 1 or not chosen:
        raise UsageError("--task denoise needs --noise FOLDER, at least one ratio in --snrs, and a single --model")
    codec, out = codec_of(models[0]), console()
    files: Any = {"target": shared.as_json, "report": shared.report, "force": shared.force}
    evaluate_denoising(codec, folder, noisy.noise, chosen, out, limit=shared.limit, **files)
