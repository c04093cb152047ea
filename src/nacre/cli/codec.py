"""Sound to files and back, and what is in files."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from nacre.batch.choice import AUTO
from nacre.batch.coded import file_codec_of, metadata_of
from nacre.batch.messages import complain
from nacre.batch.run import Task, run_batch
from nacre.batch.sources import CODED, Pair
from nacre.batch.tasks import (
    advise_size,
    decode_file,
    encode_file,
    verify_file,
)
from nacre.cli.app import (
    AnyModel,
    AnyOutput,
    BandKhz,
    Batch,
    EncodingModel,
    Inputs,
    WritingBatch,
    app,
    with_options,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import NacreError


@app.command()
@with_options
def encode(
    output: AnyOutput = None,
    bitrate: Annotated[
        float | None, typer.Option(help="Bitrate in kb/s over all channels. Default: 6 per channel.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Constant quality, 0 to 100, instead of a bitrate.")] = None,
    stereo: Annotated[
        str, typer.Option(help="auto codes a signal once if both channels carry it; left-right codes each channel.")
    ] = "auto",
    prior: Annotated[
        str, typer.Option(help="context, or static: a quarter more bytes, half the decoding time.")
    ] = "context",
    denoise: Annotated[bool, typer.Option(help="Remove noise before encoding; decoding cannot restore it.")] = False,
    band: BandKhz = None,
    packet_bytes: Annotated[
        int | None, typer.Option(help="Make every packet this many bytes long, instead of a bitrate.")
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="RATE[,CHANNELS[,FORMAT]]",
            help="Read samples without a header in this form, such as 16000,1,s16le.",
        ),
    ] = None,
    model: EncodingModel = DEFAULT_MODEL,
    *,
    batch: WritingBatch,
) -> None:
    """Compress sound (wav, flac, ogg, opus, mp3; 8 to 192 kHz, 1 to 8 channels) into .nacre files.

    nacre encode talk.wav -o talk.nacre --bitrate 6
    nacre encode song.flac -o song.nacre --model auto --bitrate 32
    nacre encode --recursive archive -o coded --skip-existing --jobs 2 --report coded.csv
    """
    settings = {"bitrate_kbps": bitrate, "quality": quality, "stereo": stereo, "prior": prior, "denoise": denoise}
    settings |= {"packet_bytes": packet_bytes, "band_khz": band}
    named = DEFAULT_MODEL if model == AUTO else model
    if packet_bytes is not None and not batch.quiet:
        advise_size(named, packet_bytes)
    options = {"settings": settings, "model": model, "raw": raw}
    task = batch.task(encode_file, options, partial(file_codec_of, named))
    run_batch(task, batch.pairs(output, ".nacre"))


@app.command()
@with_options
def decode(
    output: AnyOutput = None,
    rate: Annotated[int | None, typer.Option(help="Output rate in Hz. Default: the original's.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write 16-bit little-endian samples without a header; needs -o -.")
    ] = False,
    model: AnyModel = None,
    *,
    batch: WritingBatch,
) -> None:
    """Turn .nacre files back into sound of the same length, rate and channels.

    nacre decode talk.nacre -o talk.wav
    nacre decode -r coded -o decoded --jobs 2
    The suffix of the output chooses the format: wav, flac, ogg or mp3.
    nacre conceals damaged groups, names them, and exits with code 1.
    """
    task = batch.task(decode_file, {"rate_hz": rate, "model": model, "raw": raw})
    run_batch(task, batch.pairs(output, ".wav", CODED))


@app.command()
@with_options
def info(
    model: AnyModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list for several files.")] = False,
    *,
    inputs: Inputs,
) -> None:
    """Show what .nacre files hold: model, duration, bitrate and its parts.

    nacre info talk.nacre
    nacre info -r coded --json
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown, failed = [], False
    for source in inputs.find(CODED):
        try:
            if source.error:
                raise source.error
            shown.append(metadata_of(source.path, model))
        except NacreError as error:
            failed = True
            complain(error)
    if as_json and shown:
        print(json.dumps(shown[0] if len(shown) == 1 and not failed else shown, indent=1))
    for number, metadata in enumerate([] if as_json else shown):
        table = Table(box=None, show_header=False)
        for name, value in metadata.items():
            table.add_row(name.replace("_", " "), Text(str(value)))  # as text: a name may hold [brackets]
        print("\n" * (number > 0), end="", flush=True)
        Console(highlight=False).print(table)
    if failed:
        raise typer.Exit(1)


@app.command()
@with_options
def verify(model: AnyModel = None, *, batch: Batch) -> None:
    """Check every group of .nacre files and name the damaged ones by time; exit with code 1 if any is.

    nacre verify -r archive --report damage.csv
    """
    task = Task(verify_file, {"model": model}, None, batch.jobs, batch.quiet, report=batch.report, says=print)
    run_batch(task, [Pair(source.path, "-", source.error) for source in batch.find(CODED)])


@app.command()
def models() -> None:
    """List the models inside this package."""
    from rich.console import Console
    from rich.table import Table

    from nacre.model import bundle as bundles
    from nacre.music.model import find as find_music
    from nacre.music.model import size_bytes
    from nacre.music.rate import LEAST_KBPS, MOST_KBPS

    table = Table("model", "kb/s a channel", "MB", "fingerprint", "licence", box=None)
    for folder in bundles.bundled():
        bundle = bundles.load(folder)
        rates = f"{bundle.rates_kbps[0]:.1f} to {bundle.rates_kbps[-1]:.1f}"
        row = (bundle.name, rates, f"{bundle.size_bytes / 1e6:.1f}", bundle.fingerprint.hex())
        table.add_row(*row, bundle.facts.licence)
    music = find_music()
    row = (music.name, f"{LEAST_KBPS:g} to {MOST_KBPS:g}", f"{size_bytes(music) / 1e6:.1f}", music.fingerprint.hex())
    table.add_row(*row, str(music.facts.get("licence", "")))
    Console(highlight=False).print(table)
