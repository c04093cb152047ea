"""The command line: thin commands over the Python API. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from nacre.errors import AudioError, NacreError, StreamError, TrainError, UsageError
from nacre.units import clock, kbps

if TYPE_CHECKING:
    from nacre.codec import Codec, Damage
    from nacre.container import Contents

app = typer.Typer(
    help="Speech in very small files, by variational autoencoders. Start with `nacre demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
say = Console(stderr=True, highlight=False, emoji=False)  # messages never mix with sound on standard output

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace output that exists.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Files worked on at the same time.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Name from `nacre models`, or a model folder.")]
AnyModel = Annotated[str | None, typer.Option("--model", "-m", help="Model folder, where the package lacks it.")]
Inputs = Annotated[list[str], typer.Argument(metavar="IN...", help="Files; '-' is standard input.")]
Output = Annotated[str, typer.Option("--output", "-o", help="File, or folder for many inputs; '-' is standard output.")]

LARGEST_FILE_BYTES = 1 << 30
INTERRUPTED = 130  # exit code
PAUSE_S = 0.3  # between the steps of an interpolation in one file


def _version(wanted: bool) -> None:
    if wanted:
        from nacre import __version__

        print(f"nacre {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Options without a command."""


@app.command()
def encode(
    inputs: Inputs,
    output: Output,
    bitrate: Annotated[float | None, typer.Option(help="kb/s over all channels. Default: 6 a channel.")] = None,
    quality: Annotated[float | None, typer.Option(help="0..100 at constant quality, instead of a bitrate.")] = None,
    stereo: Annotated[
        str, typer.Option(help="auto writes what is alike in two channels once; or left-right.")
    ] = "auto",
    prior: Annotated[
        str, typer.Option(help="context, or static: a quarter more bytes, decoded in half the time.")
    ] = "context",
    denoise: Annotated[bool, typer.Option(help="Leave out what is not speech, for good.")] = False,
    packet_bytes: Annotated[int | None, typer.Option(help="One size for all packets, instead of a bitrate.")] = None,
    model: Model = "speech-16k",
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compress sound (wav, flac, ogg, opus, mp3; 8 to 192 kHz, 1 to 8 channels) to .nacre files.

    nacre encode talk.wav -o talk.nacre --bitrate 6
    nacre encode *.flac -o folder --bitrate 3 --jobs 2
    """
    settings = {"bitrate_kbps": bitrate, "quality": quality, "stereo": stereo, "prior": prior, "denoise": denoise}
    settings |= {"packet_bytes": packet_bytes}
    options = {"settings": settings, "model": model, "force": force}
    _batch(_encode_file, _pairs(inputs, output, ".nacre"), options, jobs, quiet)


@app.command()
def decode(
    inputs: Inputs,
    output: Output,
    rate: Annotated[int | None, typer.Option(help="Output rate in Hz instead of the original's.")] = None,
    model: AnyModel = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn .nacre files back into sound of the same length, rate and channels (wav; or flac, ogg, mp3 by name).

    Damaged groups are concealed and named, the rest is kept, and the exit code is 1.
    """
    options = {"rate_hz": rate, "model": model, "force": force}
    _batch(_decode_file, _pairs(inputs, output, ".wav"), options, jobs, quiet)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A .nacre file.")],
    model: AnyModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a .nacre file holds: model, duration, rate and its parts."""
    facts = _facts(file, model)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), Text(str(value)))  # as text: a name may hold [brackets]
    Console(highlight=False).print(table)


@app.command()
def verify(file: Annotated[str, typer.Argument(help="A .nacre file.")], model: AnyModel = None) -> None:
    """Check every group of a .nacre file; name the damaged ones by time. Exit code 1 if there are any."""
    from nacre.codec import verify as damage_of

    contents, codec = _open(file, model)
    damage = damage_of(codec, contents)
    _report_damage(file, damage, contents)
    if contents.skipped_bytes:
        text = f"{file}: {contents.skipped_bytes} bytes belong to no group"
        say.print(text, style="yellow", markup=False, soft_wrap=True)
    if damage or contents.truncated or contents.skipped_bytes:
        raise typer.Exit(1)
    print(f"{file}: {len(contents.packets)} groups, all good")


@app.command()
def models() -> None:
    """List the models inside this package."""
    from nacre import bundle as bundles

    table = Table("model", "kb/s a channel", "MB", "fingerprint", "licence", box=None)
    for folder in bundles.bundled():
        found = bundles.load(folder)
        rates = f"{found.rates_kbps[0]:.1f} to {found.rates_kbps[-1]:.1f}"
        row = (found.name, rates, f"{found.size_bytes / 1e6:.1f}", found.fingerprint.hex())
        table.add_row(*row, str(found.facts.get("licence", "")))
    Console(highlight=False).print(table)


@app.command()
def features(
    inputs: Inputs,
    output: Annotated[
        str, typer.Option("--output", "-o", help="FILE.npy; for many inputs a folder, or one FILE.npz; '-' is a pipe.")
    ],
    kind: Annotated[str, typer.Option("--kind", "-k", help="latent, tokens, logmel or mfcc.")] = "latent",
    pool: Annotated[str | None, typer.Option(help="One row a file, not frames: mean, stats or parts.")] = None,
    level: Annotated[int | None, typer.Option(help="Quality level of a model. Default: the highest.")] = None,
    quality: Annotated[float | None, typer.Option(help="0..100, instead of a level.")] = None,
    model: Model = "speech-16k",
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn sound (or .nacre files) into arrays that numpy loads: one [T, F] of frames for each file.

    nacre features talk.wav -o talk.npy --kind latent
    nacre features *.flac -o all.npz --kind mfcc --pool stats
    """
    from nacre import features as room
    from nacre.audio import output_file

    room.check(kind, pool, level)
    options = {"kind": kind, "pool": pool, "level": room.level_of(model, kind, level, quality), "model": model}
    suffix = Path(output).suffix
    if suffix != ".npz":
        if suffix == ".npy" and len(inputs) > 1 and not Path(output).is_dir():
            raise UsageError("output", found="one .npy for many inputs", wanted="a folder, or one .npz")
        pairs = _pairs(inputs, output, ".npy")
        if len(inputs) == 1 and pairs[0][1] != "-" and Path(pairs[0][1]).suffix != ".npy":
            raise UsageError(f"{output}: suffix", found=suffix or "none", wanted=".npy or .npz", next="rename it")
        _batch(_features_file, pairs, options | {"force": force}, jobs, quiet)
        return
    with tempfile.TemporaryDirectory() as passing:
        pairs, failed = _pairs(inputs, passing + os.sep, ".npy"), None
        with output_file(output, force) as file:
            try:
                _batch(_features_file, pairs, options | {"force": False}, jobs, quiet)
            except typer.Exit as end:
                failed = end
            done = [Path(target) for _, target in pairs if Path(target).exists()]
            if failed and not done:
                raise failed
            room.pack(file, done)
    if failed:
        raise failed


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="IN", help="A .nacre file, or a sound file, which is encoded first.")],
    output: Annotated[str, typer.Option("--output", "-o", help="A picture, OUT.png, or a page, OUT.html.")],
    bitrate: Annotated[float | None, typer.Option(help="kb/s for a sound file. Default: 6 a channel.")] = None,
    quality: Annotated[float | None, typer.Option(help="0..100, instead of a bitrate.")] = None,
    channel: Annotated[int, typer.Option(help="Which channel, from 0.")] = 0,
    model: AnyModel = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw what is in a file: sound, bits by frame and dimension, latents, quality levels, damage.

    Needs nacre\\[evaluate]. Exit code 1 if something is damaged; the picture is drawn all the same.
    """
    from nacre import view

    view.check_target(output)
    with _spinner(f"looking into {file}", quiet):
        if _is_coded(file):
            if bitrate is not None or quality is not None:
                raise UsageError("bitrate, quality", found="given for a .nacre file", wanted="for sound files only")
            contents, codec = _open(file, model)
            seen = view.look(codec, contents, Path(file).name, channel)
        else:
            codec = _codec(model or "speech-16k")
            seen = view.look_at_sound(codec, file, channel, bitrate_kbps=bitrate, quality=quality)
        view.write(seen, output, force)
    if not quiet:
        for name, value in seen.facts.items():
            say.print(f"{name}: {value}", markup=False, soft_wrap=True)
    for start_s, stop_s in seen.lost:
        say.print(f"{file}: lost {clock(start_s)} to {clock(stop_s)}", style="yellow", markup=False, soft_wrap=True)
    if seen.damaged:
        raise typer.Exit(1)


@app.command()
def conceal(
    file: Annotated[str, typer.Argument(metavar="IN", help="Sound, or a .nacre file.")],
    output: Output,
    lost: Annotated[
        str | None, typer.Option(metavar="START-STOP,...", help="Stretches in seconds, such as 1.20-1.28,3.4-3.5.")
    ] = None,
    model: AnyModel = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Put a guess in place of stretches that are lost, in all channels; every other sample stays as it is.

    Damaged groups of a .nacre file are concealed in any case, and --lost may name more.
    """
    if lost is None and not _is_coded(file):
        raise UsageError("lost", found="nothing", wanted="--lost START-STOP,... for a sound file")
    options = {"lost": lost, "model": model, "force": force}
    _batch(_conceal_file, _pairs([file], output, ".wav"), options, 1, quiet)


@app.command()
def denoise(
    inputs: Inputs,
    output: Output,
    model: Model = "speech-16k",
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Leave only the speech of noisy recordings. `nacre encode --denoise` does it on the way to a small file.

    nacre denoise street.wav -o clean.wav
    """
    _batch(_denoise_file, _pairs(inputs, output, ".wav"), {"model": model, "force": force}, jobs, quiet)


@app.command()
def interpolate(
    first: Annotated[str, typer.Argument(metavar="A", help="A sound file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for a file a step, or one file of all.")],
    steps: Annotated[int, typer.Option(min=2, max=1000, help="How many, A and B among them.")] = 5,
    model: Model = "speech-16k",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Go from one recording to another through the latents in between, in length and loudness as well.

    nacre interpolate hello.wav goodbye.wav -o between/ --steps 5
    """
    options = {"second": second, "steps": steps, "model": model, "force": force}
    _batch(_interpolate_files, [(first, output)], options, 1, quiet)


@app.command()
def generate(
    output: Output,
    resynth: Annotated[str | None, typer.Option(metavar="IN", help="Say this sound again.")] = None,
    seconds: Annotated[float | None, typer.Option(help="0.02 to 600 of sound drawn from the model's prior.")] = None,
    speed: Annotated[float, typer.Option(help="0.25 to 4 times as fast; the pitch stays.")] = 1.0,
    pitch: Annotated[float, typer.Option(help="-12 to +12 semitones; the duration stays.")] = 0.0,
    formants: Annotated[bool, typer.Option(help="Keep the voice's resonances in place when its pitch moves.")] = True,
    prompt: Annotated[str | None, typer.Option(metavar="IN", help="Draw on from this; its last 10 s count.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same gives the same sound. Default: a fresh one.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 5; 0: always the likeliest. Default: 1.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the likeliest only, up to this share. Default: 0.9.")] = None,
    level: Annotated[int | None, typer.Option(help="Quality level to draw at. Default: an eighth up.")] = None,
    model: Model = "speech-16k",
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make sound from latents: a recording said again at another pace or pitch, or babble drawn by lot.

    nacre generate --resynth talk.wav -o quick.wav --speed 1.25 --pitch +2
    nacre generate --seconds 4 -o babble.wav --seed 7 --prompt talk.wav
    """
    if (resynth is None) == (seconds is None):
        found, wanted = "neither" if resynth is None else "both", "one of the two"
        raise UsageError("--resynth and --seconds", found=found, wanted=wanted, next="see `nacre generate --help`")
    again = {"speed": (speed, 1.0), "pitch": (pitch, 0.0), "no-formants": (formants, True)}
    drawn = {"prompt": prompt, "seed": seed, "temperature": temperature, "top-p": top_p, "level": level}
    options: dict[str, Any] = {"model": model, "force": force}
    if resynth is not None:
        _none_of([name for name, value in drawn.items() if value is not None], "--seconds")
        options |= {"speed": speed, "semitones": pitch, "formants": formants}
        _batch(_resynth_file, _pairs([resynth], output, ".wav"), options, 1, quiet)
        return
    _none_of([name for name, (value, usual) in again.items() if value != usual], "--resynth")
    chosen = {name.replace("-", "_"): value for name, value in drawn.items() if value is not None}
    options |= {"seconds": seconds, "settings": {key: chosen[key] for key in chosen.keys() - {"prompt"}}}
    options |= {"prompted": prompt is not None}
    _batch(_sample_file, _pairs(["sample" if prompt is None else prompt], output, ".wav"), options, 1, quiet)


def _none_of(names: list[str], other: str) -> None:
    """Raise UsageError where an option was given that only goes with the `other`."""
    if names:
        raise UsageError(f"--{names[0]}", found=f"no {other}", wanted=f"{other}, to which it belongs")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("nacre-demo"),
    bitrates: Annotated[str, typer.Option(help="Rates in kb/s.")] = "1.5,3,6,9",
    model: Model = "speech-16k",
    force: Force = False,
) -> None:
    """Code the bundled speech at several rates: files, a table, and one page with players and spectrograms."""
    from nacre import demo as room

    page = room.run(out, _numbers(bitrates), model, force)
    say.print(f"open {page} in a browser")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, any depth, format and rate.")],
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="Model, repeatable.")] = None,
    bitrates: Annotated[str, typer.Option(help="kb/s asked of nacre.")] = "1.5,3,4.5,6,9",
    peers: Annotated[
        str | None, typer.Option(help="Of opus,codec2,speex,amr-wb,mp3. Default: the first three, if here; '' none.")
    ] = None,
    peer_cmd: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CMD", help='name="enc {in} {out} {kbps} ::: dec {in} {out}", repeatable.'),
    ] = None,
    peer_bitrates: Annotated[str | None, typer.Option(help="kb/s asked of the others. Default: each its own.")] = None,
    report: Annotated[Path | None, typer.Option(help="The page, one HTML file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A row for each clip, codec and rate.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Rows, means, intervals and facts.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Names with commas, or all. Default: the quick ones.")] = None,
    asr: Annotated[bool, typer.Option("--asr", help="Word error of a recogniser as well; slow, English.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Clips to hear on the page.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips, spread over all.")] = None,
    jobs: Jobs = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a run that was stopped.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure rate, quality and speed on a folder of speech, beside other codecs. Needs nacre\\[evaluate].

    nacre evaluate speech --peers opus,codec2,speex,amr-wb --report out.html
    Exit code 1 if a clip was left out or a codec failed.
    """
    from nacre.evaluate.choice import Options
    from nacre.evaluate.run import evaluate as run

    options = Options(
        folder=folder,
        models=tuple(models or ["speech-16k"]),
        bitrates_kbps=tuple(_numbers(bitrates)),
        peers=None if peers is None else tuple(name.strip() for name in peers.split(",") if name.strip()),
        peer_commands=tuple(peer_cmd or ()),
        peer_bitrates_kbps=None if peer_bitrates is None else tuple(_numbers(peer_bitrates)),
        metrics=metrics,
        asr=asr,
        report=report,
        csv=csv,
        json=as_json,
        jobs=jobs,
        limit=limit,
        examples=examples,
        resume=resume,
        force=force,
        quiet=quiet,
        command=shlex.join(["nacre", *sys.argv[1:]]),
    )
    if not run(options, say):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, see recipes/*.toml.")],
    data: Annotated[Path, typer.Option(help="Folder of recordings, any depth, format and rate.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, logs.")],
    noise: Annotated[Path | None, typer.Option(help="Folder of noises to mix in.")] = None,
    valid: Annotated[Path | None, typer.Option(help="Folder of recordings to validate on, by real files.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Start from this model's weights: name or folder.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe's, repeatable.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on your own recordings. Needs `pip install nacre\\[train]`; see tensorboard --logdir OUT."""
    with _torch_room():
        from nacre import bundle as bundles
        from nacre.train.loop import train as run
        from nacre.train.recipe import load_recipe
        from nacre.train.start import start_from

        run(
            load_recipe(recipe, tuple(changes or ())),
            data,
            out,
            noise,
            valid,
            resume=resume,
            max_steps=max_steps,
            quiet=quiet,
            begin=start_from(bundles.find(start)) if start else None,
        )


@app.command()
def finetune(
    model: Annotated[str, typer.Argument(help="A model of kind scalar: name of one in the package, or its folder.")],
    data: Annotated[Path, typer.Option(help="Folder of your recordings, any depth, format and rate.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, for `nacre export`.")],
    noise: Annotated[Path | None, typer.Option(help="Folder of noises to mix in.")] = None,
    valid: Annotated[Path | None, typer.Option(help="Folder of recordings to validate on, by real files.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 2000,
    learning_rate: Annotated[float, typer.Option(help="Highest rate; it falls over the last 70 %.")] = 5e-4,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe's, repeatable.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model further on your own recordings, by the recipe that made it and from the rates it has."""
    with _torch_room():
        from nacre import bundle as bundles
        from nacre.train.loop import train as run
        from nacre.train.start import recipe_from, start_from

        found = bundles.find(model)
        recipe = recipe_from(found, steps, learning_rate, tuple(changes or ()))
        run(recipe, data, out, noise, valid, resume=resume, quiet=quiet, begin=start_from(found))


@app.command()
def prior(
    model: Annotated[str, typer.Argument(help="A model: the name of one in the package, or its folder.")],
    data: Annotated[Path, typer.Option(help="Folder of recordings such as the model will be used for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model with its prior.")],
    noise: Annotated[Path | None, typer.Option(help="Folder of noises to mix into some.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=1000, help="Excerpts coded at each level.")] = 2.4,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training; 7000 take a quarter of an hour.")] = 7000,
    quiet: Quiet = False,
) -> None:
    """Teach a model how its latents go on: a context prior, for smaller files of the same sound."""
    with _torch_room():
        from nacre.train.adapt import add_context
        from nacre.train.context import ContextConfig

        found = add_context(model, data, output, noise, hours, ContextConfig(steps=steps), quiet)
    saved = 1 - (found.rates_kbps / found.static_rates_kbps).mean()
    text = f"{abs(saved):.1%} {'smaller' if saved >= 0 else 'larger'} files, fingerprint {found.fingerprint.hex()}"
    say.print(f"{output}: {found.size_bytes / 1e6:.1f} MB, {text}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `nacre train`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: the recipe's.")] = None,
) -> None:
    """Turn a training run into a model folder that encodes and decodes without torch."""
    with _torch_room():
        from nacre.train.export import export_run

        found = export_run(run, output, name)
    rates = f"{found.rates_kbps[0]:.1f} to {found.rates_kbps[-1]:.1f} kb/s"
    say.print(f"{output}: {found.size_bytes / 1e6:.1f} MB, {rates}, fingerprint {found.fingerprint.hex()}")


def _encode_file(
    source: str, target: str, settings: dict[str, Any], model: str, force: bool, tick: Callable[[float], None]
) -> str:
    from nacre.audio import FORMATS, AudioReader, output_file
    from nacre.container import Writer

    if (suffix := Path(target).suffix.lower()) in FORMATS:
        raise UsageError(f"{target}: suffix", found=suffix, wanted=".nacre", next="rename it")
    started = time.perf_counter()
    codec = _codec(model)
    with AudioReader(source) as reader:
        stream = codec.encoder(reader.rate_hz, reader.channels, **settings)
        with output_file(target, force) as file:
            counted = _Counted(file)
            writer = Writer(cast("BinaryIO", counted), stream.header)
            for block in reader.blocks(reader.rate_hz):
                for packet in stream.push(block):
                    writer.add(packet)
                tick(stream.samples / reader.samples if reader.samples else 0)
            for packet in stream.flush():
                writer.add(packet)
            writer.finish(stream.samples)
    duration_s = stream.samples / reader.rate_hz
    if reader.is_cut:
        place, advice = f"{source}: cut off after {clock(duration_s)}", f"{target} has what is there"
        raise AudioError(place, found="less than it states", wanted="a whole file", next=advice)
    return _summary(source, duration_s, counted.size_bytes, started)


def _decode_file(
    source: str,
    target: str,
    rate_hz: int | None,
    model: str | None,
    force: bool,
    tick: Callable[[float], None],
) -> str:
    from nacre.audio import AudioWriter

    started = time.perf_counter()
    contents, codec = _open(source, model)
    stream = codec.decoder(contents, rate_hz)
    written = 0
    with AudioWriter(target, stream.rate_hz, stream.header.channels, overwrite=force) as writer:
        for block in stream.blocks():
            writer.write(block)
            written += block.shape[1]
            tick(written / max(1, stream.samples))
    if stream.damage or contents.truncated:
        _report_damage(source, stream.damage, contents)
        lost = len(stream.damage) + contents.missing
        kept = f"{lost} of {len(contents.packets) + contents.missing} groups lost"
        raise StreamError(f"{source}: damaged", found=kept, next=f"{clock(written / stream.rate_hz)} of sound written")
    return _summary(source, written / stream.rate_hz, contents.size_bytes, started)


def _features_file(
    source: str,
    target: str,
    kind: str,
    pool: str | None,
    level: int | None,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> str:
    from nacre import features as room

    values = room.from_file(source, kind, pool, model=model, level=level)
    room.save(target, values, force)
    tick(1.0)
    pace = "one row" if pool else f"{room.frame_rate_hz(kind, model):g} frames a second"
    return f"{source}: {kind} {list(values.shape)} {values.dtype}, {pace}"


def _conceal_file(
    source: str, target: str, lost: str | None, model: str | None, force: bool, tick: Callable[[float], None]
) -> str:
    from nacre import restore
    from nacre.audio import lossless_subtype, read_with_subtype

    stretches, damaged, missing = restore.stretches(lost) if lost is not None else [], 0, 0
    if _is_coded(source):
        contents, codec = _open(source, model)
        stream = codec.decoder(contents)
        wave, rate_hz, subtype = restore.whole(stream), stream.rate_hz, None
        _report_damage(source, stream.damage, contents)
        damaged, missing = len(stream.damage), contents.missing
    else:
        codec = _codec(model or "speech-16k")
        wave, rate_hz, found = read_with_subtype(source)
        subtype = lossless_subtype(found, target)
    started = time.perf_counter()
    wave = restore.conceal(codec, wave, rate_hz, stretches, tick=tick)
    _write_sound(target, wave, rate_hz, force, subtype)
    gaps = restore.spans(stretches, wave.shape[1], rate_hz)
    lost_s = sum(stop - start for start, stop in gaps) / rate_hz
    done = f"{source}: {len(gaps)} stretches, {lost_s:.3f} s, concealed"
    if damaged:
        done += f", and {damaged} damaged groups"
    if missing:
        place = f"{done}; cut short after {clock(wave.shape[1] / rate_hz)}"
        raise StreamError(place, found=f"{missing} groups missing", wanted="a whole file", next="get the rest")
    return f"{done}  {_pace(wave.shape[1] / rate_hz, started)}"


def _denoise_file(source: str, target: str, model: str, force: bool, tick: Callable[[float], None]) -> str:
    from nacre import restore
    from nacre.audio import read

    codec = _codec(model)
    wave, rate_hz = read(source)
    started = time.perf_counter()
    clean = restore.denoise(codec, wave, rate_hz, tick=tick)
    _write_sound(target, clean, rate_hz, force)
    return f"{source}: denoised  {_pace(wave.shape[1] / rate_hz, started)}"


def _interpolate_files(
    source: str, target: str, second: str, steps: int, model: str, force: bool, tick: Callable[[float], None]
) -> str:
    from nacre.audio import FORMATS, read
    from nacre.generate import between, joined

    codec, one, two = _codec(model), read(source), read(second)
    started, rate_hz, waves = time.perf_counter(), codec.config.rate_hz, []
    for wave in between(codec, one, two, steps):
        waves.append(wave)
        tick(len(waves) / steps)
    if target == "-" or Path(target).suffix.lower() in FORMATS:
        _write_sound(target, joined(waves, round(PAUSE_S * rate_hz))[None], rate_hz, force)
    else:
        names = [f"step-{step:0{len(str(steps))}d}.wav" for step in range(1, steps + 1)]
        _write_all([path for _, path in _pairs(names, target, ".wav")], waves, rate_hz, force)
    made_s = sum(len(wave) for wave in waves) / rate_hz
    return f"{source} to {second}: {steps} steps in {target}  {_pace(made_s, started)}"


def _resynth_file(
    source: str,
    target: str,
    speed: float,
    semitones: float,
    formants: bool,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> str:
    from nacre.audio import read
    from nacre.generate import resynthesise

    codec, (wave, rate_hz) = _codec(model), read(source)
    started = time.perf_counter()
    again = resynthesise(codec, wave, rate_hz, speed=speed, semitones=semitones, formants=formants, tick=tick)
    _write_sound(target, again, rate_hz, force)
    lengths = f"{clock(wave.shape[1] / rate_hz)} said again in {clock(again.shape[1] / rate_hz)}"
    return f"{source}: {lengths}  {_pace(wave.shape[1] / rate_hz, started)}"


def _sample_file(
    source: str,
    target: str,
    seconds: float,
    settings: dict[str, Any],
    prompted: bool,
    model: str,
    force: bool,
    tick: Callable[[float], None],
) -> str:
    from nacre.audio import read
    from nacre.sampling import sample

    codec, prompt = _codec(model), read(source) if prompted else None
    started = time.perf_counter()
    made = sample(codec, seconds, prompt=prompt, **settings, tick=tick)
    _write_sound(target, made.wave[None], made.rate_hz, force)
    lengths = f"{seconds:g} s drawn"
    if prompt:
        end = f"the last {made.prompt_samples / made.rate_hz:.2f} s of {source}, through the codec"
        lengths = f"{end}, then {lengths}"
    return f"{target}: {lengths}  --seed {made.seed} --level {made.level}  {_pace(seconds, started)}"


def _write_sound(target: str, wave: Any, rate_hz: int, force: bool, subtype: str | None = None) -> None:
    from nacre.audio import AudioWriter

    with AudioWriter(target, rate_hz, len(wave), overwrite=force, subtype=subtype) as writer:
        writer.write(wave)


def _write_all(paths: list[str], waves: list[Any], rate_hz: int, force: bool) -> None:
    """All of these files or, as far as they are new, none."""
    new = [path for path in paths if not Path(path).exists()]
    if len(new) < len(paths) and not force:
        there = next(path for path in paths if path not in new)
        raise AudioError(there, found="a file already there", wanted="a new name", next="use --force to replace it")
    try:
        for path, wave in zip(paths, waves, strict=True):
            _write_sound(path, wave[None], rate_hz, force)
    except BaseException:
        for path in new:
            Path(path).unlink(missing_ok=True)
        raise


def _pace(duration_s: float, started: float) -> str:
    return f"{duration_s / max(1e-9, time.perf_counter() - started):.0f} x real time"


class _Counted:
    """A binary file that knows how far it was written, pipes included."""

    def __init__(self, file: BinaryIO):
        self._file, self.size_bytes = file, 0
        self.tell, self.seek = file.tell, file.seek

    def seekable(self) -> bool:
        """Standard output may be a file or a pipe: count on no more than a pipe there."""
        return self._file is not sys.stdout.buffer and self._file.seekable()

    def write(self, data: bytes) -> int:
        """Write and count; a header written again counts once."""
        before = self._file.tell() if self.seekable() else self.size_bytes
        self.size_bytes = max(self.size_bytes, before + len(data))
        return self._file.write(data)


def _summary(name: str, duration_s: float, size_bytes: int, started: float) -> str:
    speed = duration_s / max(1e-9, time.perf_counter() - started)
    rate = kbps(size_bytes, duration_s)
    return f"{name}: {clock(duration_s)}  {size_bytes} bytes  {rate:.2f} kb/s  {speed:.0f} x real time"


_CODECS: dict[str, Codec] = {}


def _codec(model: str) -> Codec:
    """A codec, loaded once in each process."""
    if model not in _CODECS:
        from nacre.codec import load

        _CODECS[model] = load(model)
    return _CODECS[model]


def _open(file: str, model: str | None) -> tuple[Contents, Codec]:
    """Packets and codec of a file; the model is found by its fingerprint."""
    from nacre import bundle as bundles
    from nacre.container import unpack_header

    data = _read(file)
    mark = unpack_header(data).fingerprint
    if model is None:
        inside = [folder.name for folder in bundles.bundled() if mark in bundles.load(folder).marks]
        if not inside:
            known = ", ".join(folder.name for folder in bundles.bundled()) or "it has none"
            wanted = f"a model of this package ({known})"
            raise StreamError(f"{file}: model", found=mark.hex(), wanted=wanted, next="name its folder with --model")
        model = inside[0]
    codec = _codec(model)
    try:
        return codec.parse(data), codec
    except StreamError as error:
        raise StreamError(f"{file}: {error}") from error


def _is_coded(file: str) -> bool:
    """Whether a file, or standard input, starts as a .nacre file does, or says so by its name."""
    from nacre.container import begins_file

    return Path(file).suffix == ".nacre" or begins_file(file)


def _spinner(text: str, quiet: bool) -> AbstractContextManager[object]:
    return say.status(text) if say.is_terminal and not quiet else nullcontext()


def _read(file: str) -> bytes:
    from nacre.container import HEADER_BYTES, unpack_header

    try:
        with nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as source:
            head = source.read(HEADER_BYTES)
            unpack_header(head)  # before reading on: it may be a film
            data = head + source.read(LARGEST_FILE_BYTES)
    except OSError as error:
        raise StreamError(file, found=error.strerror, wanted="a .nacre file", next="check the name") from error
    except StreamError as error:
        raise StreamError(f"{file}: {error}") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise StreamError(file, found="over 1 GB", wanted="a .nacre file")
    return data


def _facts(file: str, model: str | None) -> dict[str, Any]:
    contents, codec = _open(file, model)
    header, samples = contents.header, contents.samples
    duration_s = (samples or 0) / header.rate_hz
    levels = [packet.level for packet in contents.packets if packet is not None and packet.payload]
    size = contents.size_bytes
    return {
        "file": file,
        "model": f"{codec.bundle.name} ({header.fingerprint.hex()})",
        "kind": header.kind.name.lower(),
        "prior": "context" if codec.coding(header).context else "static",
        "duration_s": round(duration_s, 3),
        "samples": samples,
        "rate_hz": header.rate_hz,
        "channels": header.channels,
        "bytes": size,
        "kbps": round(kbps(size, duration_s), 3),
        "kbps_payload": round(kbps(contents.payload_bytes, duration_s), 3),
        "kbps_heads": round(kbps(contents.head_bytes, duration_s), 3),
        "bytes_payload": contents.payload_bytes,
        "bytes_heads": contents.head_bytes,
        "bytes_skipped": contents.skipped_bytes,
        "groups": len(contents.packets),
        "silent_groups": sum(packet is not None and not packet.payload for packet in contents.packets)
        - contents.joined,
        "joined_groups": contents.joined,
        "lost_groups": contents.lost,
        "levels": f"{min(levels)} to {max(levels)}" if levels else "none",
        "truncated": contents.truncated,
        **_codebook_facts(codec, levels),
    }


def _codebook_facts(codec: Codec, levels: list[int]) -> dict[str, Any]:
    """Of a model with codebooks: how many this file needs, what their indices cost, how much of them is in use."""
    found = codec.bundle.facts.get("codebooks")
    if not found:
        return {}
    layout = codec.token_format(max(levels, default=0))
    saved = 1 - layout.coded_bits_per_s / layout.fixed_bits_per_s
    return {
        "codebooks": f"{len(layout.alphabet)} of {len(found['used'])}, {found['entries']} entries each",
        "codebook_entries_used": f"{min(found['used']):.0%} to {max(found['used']):.0%} in training speech",
        "codebook_perplexity": f"{min(found['perplexity']):g} to {max(found['perplexity']):g}",
        "saved_by_entropy_coding": f"{saved:.1%} of fixed-length indices, by the tables",
    }


def _report_damage(file: str, damage: list[Damage], contents: Contents) -> None:
    for item in damage:
        where = f"{clock(item.start_s)} to {clock(item.stop_s)}, channel {item.channel}"
        say.print(f"{file}: {where}: {item.reason}", style="yellow", markup=False, soft_wrap=True)
    if contents.truncated:
        count = f"{contents.missing} groups missing" if contents.missing else "no end"
        say.print(f"{file}: cut short, {count}", style="yellow", markup=False, soft_wrap=True)


def _pairs(inputs: list[str], output: str, suffix: str) -> list[tuple[str, str]]:
    """(input, output) names; many inputs, or an output that is a folder, keep their names with a new suffix."""
    folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    if len(inputs) == 1 and not folder:
        return [(inputs[0], output)]
    if output == "-":
        raise UsageError("output", found="'-' for many inputs", wanted="a folder")
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(output, found=error.strerror, wanted="a folder for many outputs") from error
    return [(name, str(Path(output) / (stem + suffix))) for name, stem in zip(inputs, _stems(inputs), strict=True)]


def _stems(inputs: list[str]) -> list[str]:
    """Names without suffix; where two are alike, with their folders in front, and if that does not help, the suffix.

    >>> _stems(["a/one.wav", "b/one.wav", "b/two.wav", "b/two.mp3"])
    ['a-one', 'b-one', 'b-two.wav', 'b-two.mp3']
    """
    top = os.path.commonpath([Path(name).absolute().parent for name in inputs])
    below = [os.path.relpath(Path(name).absolute(), top).replace(os.sep, "-") for name in inputs]
    ways = [Path(name).stem for name in inputs], [str(Path(name).with_suffix("")) for name in below], below
    found: list[str] = []
    for index, name in enumerate(inputs):
        alone = (way[index] for way in ways if way.count(way[index]) == 1)
        stem = next(alone, None)
        if stem is None:
            raise UsageError(name, found="the same file twice", wanted="each once")
        found.append(stem)
    return found


def _batch(
    work: Callable[..., str], pairs: list[tuple[str, str]], options: dict[str, Any], jobs: int, quiet: bool
) -> None:
    """Run every pair; a bad one is reported and the others go on. Exit code 1 if any failed."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    failed: list[NacreError] = []
    with Progress(*columns, console=say, disable=quiet or not say.is_terminal, transient=True) as bar:
        task = bar.add_task(work.__name__.strip("_").removesuffix("_file"), total=len(pairs))

        def tick(share: float) -> None:
            bar.update(task, completed=min(1.0, share) if len(pairs) == 1 else None)

        for result in _results(work, pairs, options, jobs, tick):
            if isinstance(result, NacreError):
                failed.append(result)
                say.print(f"error: {result}", style="red", markup=False, soft_wrap=True)
            elif not quiet:
                say.print(result, markup=False, soft_wrap=True)
            bar.advance(task)
    if failed:
        if len(pairs) > 1:
            say.print(f"{len(failed)} of {len(pairs)} failed")
        raise typer.Exit(2 if all(error.exit_code == 2 for error in failed) else 1)


def _results(
    work: Callable[..., str],
    pairs: list[tuple[str, str]],
    options: dict[str, Any],
    jobs: int,
    tick: Callable[[float], None],
) -> Iterator[str | NacreError]:
    if jobs == 1 or len(pairs) == 1:
        for pair in pairs:
            yield _attempt(work, pair, options, tick)
        return
    with ProcessPoolExecutor(min(jobs, len(pairs)), initializer=_start_worker) as pool:
        try:
            yield from pool.map(_attempt_apart, [work] * len(pairs), pairs, [options] * len(pairs))
        except BrokenProcessPool as error:
            advice = "try fewer --jobs"
            raise NacreError("a process of --jobs", found="its sudden end", wanted="memory", next=advice) from error
        except BaseException:  # Ctrl-C: without this the files under way would be worked to their end
            for process in multiprocessing.active_children():
                with suppress(OSError):
                    if process.pid:
                        os.kill(process.pid, signal.SIGINT)
            raise


_WORKER = {"busy": False, "stop": False}


def _start_worker() -> None:
    """Ctrl-C stops a worker's work, and is only noted while it waits, where it would end in a traceback."""

    def interrupt(*_: object) -> None:
        first, _WORKER["stop"] = not _WORKER["stop"], True
        if first and _WORKER["busy"]:  # a second one must not disturb the cleaning up after the first
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _attempt_apart(work: Callable[..., str], pair: tuple[str, str], options: dict[str, Any]) -> str | NacreError:
    if _WORKER["stop"]:
        raise KeyboardInterrupt
    _WORKER["busy"] = True
    try:
        return _attempt(work, pair, options)
    finally:
        _WORKER["busy"] = False


def _no_tick(share: float) -> None:
    """Progress inside a file is not shown for many files at once."""


def _attempt(
    work: Callable[..., str],
    pair: tuple[str, str],
    options: dict[str, Any],
    tick: Callable[[float], None] = _no_tick,
) -> str | NacreError:
    source, target = pair
    try:
        if os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
            raise UsageError(target, found="the input itself", wanted="another output")
        return work(source, target, **options, tick=tick)
    except NacreError as error:
        return error
    except UnicodeError as error:  # a name in another encoding than the system's, which a library will not take
        return AudioError(source, found=str(error), wanted="a name in UTF-8", next="rename it")
    except OSError as error:  # not of the files themselves: a full folder for passing files, say
        return AudioError(source, found=error.strerror, wanted="a file system that works", next=str(error.filename))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError("bitrates", found=text, wanted="numbers with commas, such as 1.5,3,6") from error


@contextmanager
def _torch_room() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        advice = "pip install torch, then pip install 'nacre[train]'"
        raise TrainError(
            f"package {error.name}", found="not installed", wanted="the training room", next=advice
        ) from error


def main() -> None:
    """Entry point: every known error ends in one line and its exit code, never in a traceback."""
    told = False
    if sys.stdout is None:  # closed by whoever started this: its number must not go to another file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        try:
            app()
        except SystemExit as end:
            told = bool(end.code)
            if end.code == INTERRUPTED:
                say.print("stopped")
            raise
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told of
    except NacreError as error:
        say.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say.print("stopped")
        sys.exit(INTERRUPTED)
    except OSError as error:
        if not told and not isinstance(error, BrokenPipeError):
            place = error.filename or "output"
            say.print(f"error: {place}: {error.strerror}", style="red", markup=False, soft_wrap=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
