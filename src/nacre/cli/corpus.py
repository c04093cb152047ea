"""Whole corpora: `nacre corpus encode|latents|tokens|features SOURCE -o DEST`, and `verify` of what came of it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from nacre.batch.messages import complain, tell
from nacre.batch.report import duration
from nacre.cli.app import Model, Quiet, app
from nacre.core.config import DEFAULT_MODEL

corpus = typer.Typer(
    help="Corpora of any size: files, latents, tokens or features in shards, the same for any number of workers.",
    no_args_is_help=True,
)
app.add_typer(corpus, name="corpus")

SourceOf = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder; .csv, .tsv, .jsonl or Lhotse cuts; .tar, .parquet or folders of them; a saved HF dataset.",
    ),
]
Destination = Annotated[str, typer.Option("--output", "-o", metavar="DEST", help="Folder for the shards.")]
To = Annotated[str, typer.Option(help="parquet, webdataset, safetensors; encode also to a tree.")]
Audio = Annotated[str | None, typer.Option(help="Column of the sound; of tars its suffix. Default: by its name.")]
Key = Annotated[str | None, typer.Option(help="Column of names.")]
Keep = Annotated[str | None, typer.Option(metavar="A,B", help="Columns that go into the shards: labels, say.")]
Workers = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers. Default: all cores.")]
EngineOf = Annotated[str, typer.Option("--engine", help="local: processes here; ray: a cluster.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster. Default: RAY_ADDRESS, else one is started here.")]
ShardRows = Annotated[int, typer.Option(min=1, help="Recordings in a shard, at most.")]
ShardMb = Annotated[float, typer.Option(help="MB of the source in a shard, about.")]
Again = Annotated[bool, typer.Option("--force", "-f", help="Make shards again whose recordings have changed.")]
Retry = Annotated[bool, typer.Option("--retry", help="Make shards again in which a recording failed.")]
Longest = Annotated[float, typer.Option(help="Seconds of a recording; it is in memory at once.")]
Level = Annotated[int | None, typer.Option(help="Quality level. Default: the highest without refinement.")]


@corpus.command()
def encode(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    bitrate: Annotated[float | None, typer.Option(help="kb/s over all channels. Default: 6 a channel.")] = None,
    quality: Annotated[float | None, typer.Option(help="0..100 at constant quality, instead of a bitrate.")] = None,
    stereo: Annotated[str, typer.Option(help="auto or left-right.")] = "auto",
    prior: Annotated[str, typer.Option(help="context, or static.")] = "context",
    denoise: Annotated[bool, typer.Option(help="Leave out what is not speech, for good.")] = False,
    audio: Audio = None,
    key: Key = None,
    keep: Keep = None,
    model: Model = DEFAULT_MODEL,
    jobs: Workers = None,
    engine: EngineOf = "local",
    address: Address = None,
    shard_rows: ShardRows = 1000,
    shard_mb: ShardMb = 256,
    force: Again = False,
    retry: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Compress every recording to a .nacre file, in shards or as a tree.

    nacre corpus encode calls/ -o coded --bitrate 3
    nacre corpus encode train.csv -o coded --keep speaker,text --engine ray
    """
    options = {"bitrate_kbps": bitrate, "quality": quality, "stereo": stereo, "prior": prior, "denoise": denoise}
    work = {"engine": engine, "jobs": jobs, "address": address, "again": force, "retry": retry, "quiet": quiet}
    form = {"folder": output, "to": to, "shard_rows": shard_rows, "shard_mb": shard_mb}
    _run(("encode", model, options, 0.0), (source, audio, key, keep), form | work)


@corpus.command()
def latents(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    level: Level = None,
    longest: Longest = 3600,
    audio: Audio = None,
    key: Key = None,
    keep: Keep = None,
    model: Model = DEFAULT_MODEL,
    jobs: Workers = None,
    engine: EngineOf = "local",
    address: Address = None,
    shard_rows: ShardRows = 1000,
    shard_mb: ShardMb = 256,
    force: Again = False,
    retry: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Turn every recording into latents [T, D] float32, with the gains by which the sound comes back.

    nacre corpus latents train.csv -o latents --keep label
    """
    work = {"engine": engine, "jobs": jobs, "address": address, "again": force, "retry": retry, "quiet": quiet}
    form = {"folder": output, "to": to, "shard_rows": shard_rows, "shard_mb": shard_mb}
    _run(("latents", model, {"level": level}, longest), (source, audio, key, keep), form | work)


@corpus.command()
def tokens(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    level: Level = None,
    longest: Longest = 3600,
    audio: Audio = None,
    key: Key = None,
    keep: Keep = None,
    model: Model = DEFAULT_MODEL,
    jobs: Workers = None,
    engine: EngineOf = "local",
    address: Address = None,
    shard_rows: ShardRows = 1000,
    shard_mb: ShardMb = 256,
    force: Again = False,
    retry: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Turn every recording into tokens [T, K], with the gains by which the sound comes back to the sample.

    nacre corpus tokens calls/ -o tokens --to webdataset
    """
    work = {"engine": engine, "jobs": jobs, "address": address, "again": force, "retry": retry, "quiet": quiet}
    form = {"folder": output, "to": to, "shard_rows": shard_rows, "shard_mb": shard_mb}
    _run(("tokens", model, {"level": level}, longest), (source, audio, key, keep), form | work)


@corpus.command()
def features(
    source: SourceOf,
    output: Destination,
    to: To = "parquet",
    kind: Annotated[str, typer.Option("--kind", "-k", help="logmel or mfcc.")] = "logmel",
    pool: Annotated[str | None, typer.Option(help="One row a recording, not frames: mean, stats or parts.")] = None,
    longest: Longest = 3600,
    audio: Audio = None,
    key: Key = None,
    keep: Keep = None,
    jobs: Workers = None,
    engine: EngineOf = "local",
    address: Address = None,
    shard_rows: ShardRows = 1000,
    shard_mb: ShardMb = 256,
    force: Again = False,
    retry: Retry = False,
    quiet: Quiet = False,
) -> None:
    """Turn every recording into log-mel or MFCC frames [T, F], or pooled rows [P].

    nacre corpus features commands.csv -o mfcc --kind mfcc --pool stats --keep label
    """
    work = {"engine": engine, "jobs": jobs, "address": address, "again": force, "retry": retry, "quiet": quiet}
    form = {"folder": output, "to": to, "shard_rows": shard_rows, "shard_mb": shard_mb}
    _run(("features", "", {"kind": kind, "pool": pool}, longest), (source, audio, key, keep), form | work)


@corpus.command()
def verify(
    folder: Annotated[str, typer.Argument(metavar="DEST", help="A folder of `nacre corpus`.")], quiet: Quiet = False
) -> None:
    """Compare every shard with its checksum. Exit code 1 if one is missing or damaged."""
    from nacre.corpus.manifest import check, read_description

    read_description(folder)
    shards, rows, seconds, bad = 0, 0, 0.0, 0
    for record, wrong in check(folder):
        shards, rows, seconds, bad = shards + 1, rows + record.rows, seconds + record.seconds, bad + bool(wrong)
        if wrong:
            complain(f"shard {record.shard}, {folder}/{record.file}: {wrong}; delete it and run the same again")
    if not quiet:
        tell(f"{folder}: {shards} shards, {rows} recordings, {duration(seconds)} of sound, {bad} shards bad")
    if bad:
        raise typer.Exit(1)


def _run(making: tuple[str, str, dict[str, Any], float], columns: tuple[Any, ...], request: dict[str, Any]) -> None:
    from nacre.corpus.coders import Making
    from nacre.corpus.run import Request, run_corpus
    from nacre.corpus.sources import Wanted, open_source

    what, model, options, longest_s = making
    path, audio, key, keep = columns
    model = os.path.abspath(model) if os.path.isdir(model) else model  # workers may be elsewhere
    wanted = Wanted(audio, key, tuple(name.strip() for name in (keep or "").split(",") if name.strip()))
    source = open_source(os.path.abspath(path), wanted)
    request["folder"] = os.path.abspath(request["folder"])
    if not run_corpus(Request(source, Making(what, model, options, longest_s), **request)).good:
        raise typer.Exit(1)
