"""Whole corpora: `nacre corpus encode|latents|tokens|features SOURCE -o DEST`, and `verify` of the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from nacre.batch.messages import complain, tell
from nacre.batch.report import duration
from nacre.cli.app import BandKhz, Model, Quiet, app, with_options
from nacre.core.config import DEFAULT_MODEL

corpus = typer.Typer(
    help="Turn corpora of any size into files, latents, tokens or features, in shards that many workers write.",
    no_args_is_help=True,
)
app.add_typer(corpus, name="corpus")

SourceOf = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder; .csv, .tsv, .jsonl or Lhotse cuts; .tar, .parquet or folders of them; a saved HF dataset; .nacre"
        " files, or what encode made of any of these.",
    ),
]
Destination = Annotated[str, typer.Option("--output", "-o", metavar="DEST", help="Folder for the shards.")]
To = Annotated[
    str, typer.Option(help="Form of the output: parquet, webdataset or safetensors; for encode also tree, plain files.")
]
Longest = Annotated[float, typer.Option(help="Longest recording to accept, in seconds; each is held in memory.")]
Level = Annotated[int | None, typer.Option(help="Quality level. Default: the highest without a residual layer.")]


@dataclass(frozen=True)
class Shared:
    """Options of every command that makes shards."""

    audio: Annotated[
        str | None, typer.Option(help="Column of the sound, or its suffix in tars. Default: recognised by its name.")
    ] = None
    key: Annotated[str | None, typer.Option(help="Column with the names of the recordings.")] = None
    keep: Annotated[
        str | None, typer.Option(metavar="A,B", help="Copy these columns into the shards, such as labels.")
    ] = None
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")] = None
    engine: Annotated[str, typer.Option("--engine", help="local: processes on this machine; ray: a cluster.")] = "local"
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster. Default: RAY_ADDRESS, or a new one on this machine.")
    ] = None
    shard_rows: Annotated[int, typer.Option(min=1, help="Largest number of recordings in a shard.")] = 1000
    shard_mb: Annotated[float, typer.Option(help="Approximate size of a shard, in MB of source sound.")] = 256
    force: Annotated[bool, typer.Option("--force", "-f", help="Rewrite shards whose recordings have changed.")] = False
    retry: Annotated[bool, typer.Option("--retry", help="Rewrite shards in which a recording failed.")] = False
    quiet: Quiet = False


@corpus.command()
@with_options
def encode(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    bitrate: Annotated[
        float | None, typer.Option(help="Bitrate in kb/s over all channels. Default: 6 per channel.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Constant quality, 0 to 100, instead of a bitrate.")] = None,
    stereo: Annotated[str, typer.Option(help="auto or left-right.")] = "auto",
    prior: Annotated[str, typer.Option(help="context, or static.")] = "context",
    band: BandKhz = None,
    denoise: Annotated[bool, typer.Option(help="Remove noise before encoding; decoding cannot restore it.")] = False,
    model: Model = DEFAULT_MODEL,
    *,
    shared: Shared,
) -> None:
    """Compress every recording to a .nacre file, in shards or as a tree.

    nacre corpus encode calls/ -o coded --bitrate 3
    nacre corpus encode train.csv -o coded --keep speaker,text --engine ray
    """
    options = {"bitrate_kbps": bitrate, "quality": quality, "stereo": stereo, "prior": prior, "denoise": denoise}
    options |= {"band_khz": band}
    _run(("encode", model, options, 0.0), source, output, to, shared)


@corpus.command()
@with_options
def latents(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    level: Level = None,
    longest: Longest = 3600,
    model: Model = DEFAULT_MODEL,
    *,
    shared: Shared,
) -> None:
    """Turn every recording into latents [T, D] float32, with the gains that decoding needs.

    nacre corpus latents train.csv -o latents --keep label
    """
    _run(("latents", model, {"level": level}, longest), source, output, to, shared)


@corpus.command()
@with_options
def tokens(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    level: Level = None,
    longest: Longest = 3600,
    model: Model = DEFAULT_MODEL,
    *,
    shared: Shared,
) -> None:
    """Turn every recording into tokens [T, K], with the gains that decoding needs to give back every sample.

    nacre corpus tokens calls/ -o tokens --to webdataset
    """
    _run(("tokens", model, {"level": level}, longest), source, output, to, shared)


@corpus.command()
@with_options
def features(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    kind: Annotated[str, typer.Option("--kind", "-k", help="logmel or mfcc.")] = "logmel",
    pool: Annotated[
        str | None, typer.Option(help="Write one row per recording instead of frames: mean, stats or parts.")
    ] = None,
    longest: Longest = 3600,
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Model of .nacre files. Default: the one of the package that wrote each."),
    ] = "",
    *,
    shared: Shared,
) -> None:
    """Turn every recording into log-mel or MFCC frames [T, F], or pooled rows [P].

    nacre corpus features commands.csv -o mfcc --kind mfcc --pool stats --keep label
    """
    _run(("features", model, {"kind": kind, "pool": pool}, longest), source, output, to, shared)


@corpus.command()
def verify(
    folder: Annotated[str, typer.Argument(metavar="DEST", help="A folder of `nacre corpus`.")], quiet: Quiet = False
) -> None:
    """Compare every shard with its checksum; exit with code 1 if one is missing or damaged.

    nacre corpus verify coded
    """
    from nacre.corpus.manifest import check, read_description

    read_description(folder)
    shards, rows, seconds, bad = 0, 0, 0.0, 0
    for record, wrong in check(folder):
        shards, rows, seconds, bad = shards + 1, rows + record.rows, seconds + record.seconds, bad + bool(wrong)
        if wrong:
            complain(f"shard {record.shard}, {folder}/{record.file}: {wrong}; delete it and run the same command again")
    if not quiet:
        tell(f"{folder}: {shards} shards, {rows} recordings, {duration(seconds)} of sound, {bad} bad shards")
    if bad:
        raise typer.Exit(1)


def _run(making: tuple[str, str, dict[str, Any], float], path: str, folder: str, to: str, shared: Shared) -> None:
    from nacre.corpus.coders import Making
    from nacre.corpus.run import Request, run_corpus
    from nacre.corpus.sources import Wanted, open_source

    what, model, options, longest_s = making
    model = os.path.abspath(model) if os.path.isdir(model) else model  # workers may be elsewhere
    columns = tuple(name.strip() for name in (shared.keep or "").split(",") if name.strip())
    source = open_source(os.path.abspath(path), Wanted(shared.audio, shared.key, columns))
    request = Request(
        source,
        Making(what, model, options, longest_s),
        os.path.abspath(folder),
        to,
        shard_rows=shared.shard_rows,
        shard_mb=shared.shard_mb,
        again=shared.force,
        retry=shared.retry,
        engine=shared.engine,
        jobs=shared.jobs,
        address=shared.address,
        quiet=shared.quiet,
    )
    if not run_corpus(request).good:
        raise typer.Exit(1)
