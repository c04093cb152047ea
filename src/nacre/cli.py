"""The command line: thin commands over the Python API. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nacre import cli_live
from nacre.batch.messages import complain, console, is_terminal, tell, warn
from nacre.batch.report import check_report
from nacre.batch.run import Task, run_batch
from nacre.batch.sources import ANY_SOUND, CODED, Pair, find, targets
from nacre.core.errors import NacreError, TrainError, UsageError
from nacre.core.units import clock
from nacre.batch.tasks import (
    advise_size,
    codec_of,
    conceal_file,
    decode_file,
    denoise_file,
    encode_file,
    facts_of,
    features_file,
    interpolate_files,
    is_coded,
    open_coded,
    resynth_file,
    sample_file,
    verify_file,
)

app = typer.Typer(
    help="Speech in very small files, by variational autoencoders. Start with `nacre demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cli_live.register(app)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace output that exists.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Files worked on at the same time.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Name from `nacre models`, or a model folder.")]
AnyModel = Annotated[str | None, typer.Option("--model", "-m", help="Model folder, where the package lacks it.")]
Inputs = Annotated[list[str] | None, typer.Argument(metavar="IN...", help="Files or folders; '-' is standard input.")]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Take folders, with all in them, and keep their tree.")
]
FilesFrom = Annotated[
    str | None, typer.Option(metavar="LIST", help="File with names of inputs, by lines or NULs; '-' is standard input.")
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out inputs whose output is there already.")]
Report = Annotated[str | None, typer.Option(metavar="OUT", help="A row for each file: OUT.csv or OUT.json.")]
Noise = Annotated[Path | None, typer.Option(help="Folder of noises to mix in.")]
Valid = Annotated[Path | None, typer.Option(help="Folder of recordings to validate on, by real files.")]
Resume = Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe's, repeatable.")]
Output = Annotated[str, typer.Option("--output", "-o", help="File, or folder for many inputs; '-' is standard output.")]
AnyOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", help="File, or folder for many inputs; '-' is a pipe. Default: beside IN."),
]

INTERRUPTED = 130  # exit code


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
    inputs: Inputs = None,
    output: AnyOutput = None,
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
    raw: Annotated[
        str | None, typer.Option(metavar="RATE[,CHANNELS[,FORMAT]]", help="Input has no header: 16000,1,s16le say.")
    ] = None,
    model: Model = "speech-16k",
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Compress sound (wav, flac, ogg, opus, mp3; 8 to 192 kHz, 1 to 8 channels) to .nacre files.

    nacre encode talk.wav -o talk.nacre --bitrate 6
    nacre encode --recursive archive -o coded --skip-existing --jobs 2 --report coded.csv
    """
    settings = {"bitrate_kbps": bitrate, "quality": quality, "stereo": stereo, "prior": prior, "denoise": denoise}
    settings |= {"packet_bytes": packet_bytes}
    if packet_bytes is not None and not quiet:
        advise_size(model, packet_bytes)
    options = {"settings": settings, "model": model, "force": force}
    options |= {"raw": raw}
    task = Task(encode_file, options, partial(codec_of, model), jobs, quiet, skip_existing, report)
    run_batch(task, _pairs(task, inputs, output, ".nacre", recursive, files_from))


@app.command()
def decode(
    inputs: Inputs = None,
    output: AnyOutput = None,
    rate: Annotated[int | None, typer.Option(help="Output rate in Hz instead of the original's.")] = None,
    raw: Annotated[bool, typer.Option(help="Samples without a header to '-': 16 bits, little-endian.")] = False,
    model: AnyModel = None,
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn .nacre files back into sound of the same length, rate and channels (wav; or flac, ogg, mp3 by name).

    Damaged groups are concealed and named, the rest is kept, and the exit code is 1.
    """
    options = {"rate_hz": rate, "model": model, "force": force, "raw": raw}
    task = Task(decode_file, options, None, jobs, quiet, skip_existing, report)
    run_batch(task, _pairs(task, inputs, output, ".wav", recursive, files_from))


@app.command()
def info(
    inputs: Inputs = None,
    model: AnyModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, of several files a list.")] = False,
    recursive: Recursive = False,
    files_from: FilesFrom = None,
) -> None:
    """Show what .nacre files hold: model, duration, rate and its parts."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found, failed = [], False
    for source in find(inputs or [], CODED, recursive, files_from):
        try:
            if source.error:
                raise source.error
            found.append(facts_of(source.path, model))
        except NacreError as error:
            failed = True
            complain(error)
    if as_json and found:
        print(json.dumps(found[0] if len(found) == 1 and not failed else found, indent=1))
    for number, facts in enumerate([] if as_json else found):
        table = Table(box=None, show_header=False)
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), Text(str(value)))  # as text: a name may hold [brackets]
        print("\n" * (number > 0), end="", flush=True)
        Console(highlight=False).print(table)
    if failed:
        raise typer.Exit(1)


@app.command()
def verify(
    inputs: Inputs = None,
    model: AnyModel = None,
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    report: Report = None,
    jobs: Jobs = 1,
    quiet: Quiet = False,
) -> None:
    """Check every group of .nacre files; name the damaged ones by time. Exit code 1 if there are any."""
    task = Task(verify_file, {"model": model}, None, jobs, quiet, report=report, says=print)
    run_batch(task, _pairs(task, inputs, "-", "", recursive, files_from))


@app.command()
def models() -> None:
    """List the models inside this package."""
    from rich.console import Console
    from rich.table import Table

    from nacre.model import bundle as bundles

    table = Table("model", "kb/s a channel", "MB", "fingerprint", "licence", box=None)
    for folder in bundles.bundled():
        found = bundles.load(folder)
        rates = f"{found.rates_kbps[0]:.1f} to {found.rates_kbps[-1]:.1f}"
        row = (found.name, rates, f"{found.size_bytes / 1e6:.1f}", found.fingerprint.hex())
        table.add_row(*row, str(found.facts.get("licence", "")))
    Console(highlight=False).print(table)


@app.command()
def recipes() -> None:
    """List the recipes inside this package, for `nacre train`."""
    from rich.console import Console
    from rich.table import Table

    from nacre import recipes as inside

    table = Table("recipe", "what for", box=None)
    for path in inside.bundled():
        table.add_row(path.stem, inside.about(path))
    Console(highlight=False).print(table)


@app.command()
def features(
    inputs: Inputs = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="FILE.npy; for many inputs a folder, or one FILE.npz; '-' is a pipe."),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", "-k", help="latent, tokens, logmel or mfcc.")] = "latent",
    pool: Annotated[str | None, typer.Option(help="One row a file, not frames: mean, stats or parts.")] = None,
    level: Annotated[
        int | None, typer.Option(help="Quality level of a model. Default: the highest without refinement.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="0..100, instead of a level.")] = None,
    model: Model = "speech-16k",
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn sound (or .nacre files) into arrays that numpy loads: one [T, F] of frames for each file.

    nacre features talk.wav -o talk.npy --kind latent
    nacre features *.flac -o all.npz --kind mfcc --pool stats
    """
    from nacre.tools import features as room
    from nacre.io.audio import output_file

    room.check(kind, pool, level)
    options = {"kind": kind, "pool": pool, "level": room.level_of(model, kind, level, quality), "model": model}
    task = Task(features_file, options | {"force": force}, None, jobs, quiet, skip_existing, report)
    suffix = "" if output is None else Path(output).suffix
    if output is None or suffix != ".npz":
        pairs = _pairs(task, inputs, output, ".npy", recursive, files_from, kinds=ANY_SOUND | CODED)
        if len(pairs) == 1 and pairs[0].target != "-" and Path(pairs[0].target).suffix != ".npy":
            raise UsageError(f"{output}: suffix", found=suffix or "none", wanted=".npy or .npz", next="rename it")
        run_batch(task, pairs)
        return
    with tempfile.TemporaryDirectory() as passing:
        pairs, failed = _pairs(task, inputs, passing, ".npy", recursive, files_from, kinds=ANY_SOUND | CODED), None
        with output_file(output, force) as file:
            try:
                run_batch(task, pairs)
            except typer.Exit as end:
                failed = end
            done = [Path(pair.target) for pair in pairs if Path(pair.target).exists()]
            if failed and not done:
                raise failed
            room.pack(file, done, Path(passing))
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

    Needs nacre\\[plot]. Exit code 1 if something is damaged; the picture is drawn all the same.
    """
    from nacre.tools import inspect as view

    view.check_target(output)
    with _spinner(f"looking into {file}", quiet):
        if is_coded(file):
            if bitrate is not None or quality is not None:
                raise UsageError("bitrate, quality", found="given for a .nacre file", wanted="for sound files only")
            contents, codec = open_coded(file, model)
            seen = view.look(codec, contents, Path(file).name, channel)
        else:
            codec = codec_of(model or "speech-16k")
            seen = view.look_at_sound(codec, file, channel, bitrate_kbps=bitrate, quality=quality)
        view.write(seen, output, force)
    if not quiet:
        for name, value in seen.facts.items():
            tell(f"{name}: {value}")
    for start_s, stop_s in seen.lost:
        warn(f"{file}: lost {clock(start_s)} to {clock(stop_s)}")
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
    if lost is None and not is_coded(file):
        raise UsageError("lost", found="nothing", wanted="--lost START-STOP,... for a sound file")
    options = {"lost": lost, "model": model, "force": force}
    run_batch(Task(conceal_file, options, quiet=quiet), targets(find([file], ANY_SOUND), output, ".wav"))


@app.command()
def denoise(
    inputs: Inputs = None,
    output: AnyOutput = None,
    model: Model = "speech-16k",
    recursive: Recursive = False,
    files_from: FilesFrom = None,
    skip_existing: SkipExisting = False,
    report: Report = None,
    jobs: Jobs = 1,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Leave only the speech of noisy recordings. `nacre encode --denoise` does it on the way to a small file.

    nacre denoise street.wav -o clean.wav
    """
    options = {"model": model, "force": force}
    task = Task(denoise_file, options, partial(codec_of, model), jobs, quiet, skip_existing, report)
    run_batch(task, _pairs(task, inputs, output, ".wav", recursive, files_from, "-denoised"))


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
    run_batch(Task(interpolate_files, options, quiet=quiet), [Pair(first, output)])


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
        run_batch(Task(resynth_file, options, quiet=quiet), targets(find([resynth], ANY_SOUND), output, ".wav"))
        return
    _none_of([name for name, (value, usual) in again.items() if value != usual], "--resynth")
    chosen = {name.replace("-", "_"): value for name, value in drawn.items() if value is not None}
    options |= {"seconds": seconds, "settings": {key: chosen[key] for key in chosen.keys() - {"prompt"}}}
    options |= {"prompted": prompt is not None}
    sources = find(["sample" if prompt is None else prompt], ANY_SOUND)
    run_batch(Task(sample_file, options, quiet=quiet), targets(sources, output, ".wav"))


def _pairs(
    task: Task,
    inputs: list[str] | None,
    output: str | None,
    suffix: str,
    recursive: bool,
    files_from: str | None,
    mark: str = "",
    kinds: frozenset[str] | None = None,
) -> list[Pair]:
    """Inputs and outputs of a command over many files."""
    check_report(task.report)
    coded = task.word in ("decode", "verify")
    sources = find(inputs or [], kinds or (CODED if coded else ANY_SOUND), recursive, files_from)
    if task.word == "verify":
        return [Pair(source.path, "-", source.error) for source in sources]
    return targets(sources, output, suffix, mark)


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
    quiet: Quiet = False,
) -> None:
    """Code the bundled speech at several rates: files, a table, and one page with players and spectrograms."""
    from nacre.tools import demo as room

    page = room.run(out, _numbers(bitrates), model, force, quiet)
    if not quiet:
        tell(f"open {page} in a browser")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of recordings, any depth, format and rate.")],
    models: Annotated[list[str] | None, typer.Option("--model", "-m", help="Model, repeatable.")] = None,
    bitrates: Annotated[str, typer.Option(help="kb/s asked of nacre.")] = "1.5,3,4.5,6,9",
    peers: Annotated[
        str | None,
        typer.Option(
            help="Of opus,codec2,speex,opus-lace,opus-nolace,amr-wb,mp3. Default: the first 3, if here; '' none."
        ),
    ] = None,
    peer_cmd: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=CMD", help='name="enc {in} {out} {kbps} ::: dec {in} {out}", repeatable.'),
    ] = None,
    peer_bitrates: Annotated[str | None, typer.Option(help="kb/s asked of the others. Default: each its own.")] = None,
    report: Annotated[Path | None, typer.Option(help="The page, one HTML file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="A row for each clip, codec and rate.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Rows, means, intervals and facts.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Names with commas, or all. Default: the usual ones.")] = None,
    asr: Annotated[bool, typer.Option("--asr", help="Word error of a recogniser as well; slow, English.")] = False,
    loss: Annotated[
        str | None, typer.Option(help="Calls over lines that lose so many %, such as 0,5,10,20,30, not files.")
    ] = None,
    burst: Annotated[str, typer.Option(help="Mean runs of lost packets, with --loss.")] = "1,3",
    examples: Annotated[int, typer.Option(min=0, help="Clips to hear on the page.")] = 4,
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips, spread over all.")] = None,
    jobs: Jobs = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a run that was stopped.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure rate, quality and speed on a folder of speech, beside other codecs. Needs nacre\\[evaluate].

    nacre evaluate speech --peers opus,codec2,speex,amr-wb --report out.html
    nacre evaluate speech --bitrates 6 --loss 0,10,20 --burst 1,3
    Exit code 1 if a clip was left out or a codec failed.
    """
    if loss is not None:
        from nacre.evaluate.loss import evaluate_loss

        rates, named = _numbers(bitrates), models or ["speech-16k"]
        if len(rates) > 1 or len(named) > 1:
            raise UsageError("--loss", found="several bitrates or models", wanted="one of each, such as --bitrates 6")
        shares, runs = [at / 100 for at in _numbers(loss, "loss")], _numbers(burst, "burst")
        codec, out = codec_of(named[0]), console()
        evaluate_loss(
            codec, folder, rates[0], shares, runs, out, metrics=metrics, limit=limit, target=as_json, force=force
        )
        return
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
    if not run(options, console()):
        raise typer.Exit(1)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name from `nacre recipes`, or a file.")],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings, any depth and format; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, logs.")],
    noise: Noise = None,
    valid: Valid = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Start from this model's weights: name or folder.")
    ] = None,
    resume: Resume = False,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")] = None,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on your own recordings. Needs `pip install nacre\\[train]`; see tensorboard --logdir OUT."""
    with _torch_room():
        from nacre import recipes as recipes_inside
        from nacre.model import bundle as bundles
        from nacre.train.loop import train as run
        from nacre.train.recipe import load_recipe
        from nacre.train.start import start_from

        run(
            load_recipe(recipes_inside.find(recipe), tuple(changes or ())),
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
    data: Annotated[list[Path], typer.Option(help="Folder of your recordings; repeat it for several.")],
    out: Annotated[Path, typer.Option(help="Folder of the run, for `nacre export`.")],
    noise: Noise = None,
    valid: Valid = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps in all.")] = 2000,
    learning_rate: Annotated[float, typer.Option(help="Highest rate; it falls over the last 70 %.")] = 5e-4,
    resume: Resume = False,
    changes: Changes = None,
    quiet: Quiet = False,
) -> None:
    """Train a model further on your own recordings, by the recipe that made it and from the rates it has."""
    with _torch_room():
        from nacre.model import bundle as bundles
        from nacre.train.loop import train as run
        from nacre.train.start import recipe_from, start_from

        found = bundles.find(model)
        recipe = recipe_from(found, steps, learning_rate, tuple(changes or ()))
        run(recipe, data, out, noise, valid, resume=resume, quiet=quiet, begin=start_from(found))


@app.command()
def prior(
    model: Annotated[str, typer.Argument(help="A model: the name of one in the package, or its folder.")],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings such as it will code; repeatable.")],
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
    if not quiet:
        tell(f"{output}: {found.size_bytes / 1e6:.1f} MB, {text}")


@app.command()
def refine(
    model: Annotated[str, typer.Argument(help="A model without refinement: a name in the package, or a folder.")],
    data: Annotated[list[Path], typer.Option(help="Folder of recordings such as it will code; repeatable.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the refined model.")],
    noise: Annotated[Path | None, typer.Option(help="Folder of noises to mix into some.")] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=1, help="Excerpts coded at each refined level.")] = 0.25,
    base: Annotated[int, typer.Option(min=0, max=15, help="Level whose networks the refined levels use.")] = 9,
    steps: Annotated[str, typer.Option(help="Steps of the refined levels, from the coarsest.")] = "2.2,1.5,1,.68,.44",
    quiet: Quiet = False,
) -> None:
    """Give a model's highest levels what its networks leave over of the sound, for higher rates worth their bytes."""
    with _torch_room():
        from nacre.train.refine import RefineConfig, add_refinement

        config = RefineConfig(base=base, steps=tuple(_numbers(steps, "steps")))
        found = add_refinement(model, data, output, noise, hours, config, quiet)
    rates = f"{found.rates_kbps[0]:.1f} to {found.rates_kbps[-1]:.1f} kb/s"
    if not quiet:
        tell(f"{output}: {found.size_bytes / 1e6:.1f} MB, {rates}, fingerprint {found.fingerprint.hex()}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of `nacre train`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the model.")],
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: the recipe's.")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Model the run began from: keep all but its decoder, so that files stay the same."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Turn a training run into a model folder that encodes and decodes without torch."""
    with _torch_room():
        from nacre.train.export import export_run
        from nacre.train.graft import export_decoder

        found = export_decoder(run, base, output, name) if base else export_run(run, output, name)
    rates = f"{found.rates_kbps[0]:.1f} to {found.rates_kbps[-1]:.1f} kb/s"
    if not quiet:
        tell(f"{output}: {found.size_bytes / 1e6:.1f} MB, {rates}, fingerprint {found.fingerprint.hex()}")


def _spinner(text: str, quiet: bool) -> AbstractContextManager[object]:
    return console().status(text) if is_terminal() and not quiet else nullcontext()


def _numbers(text: str, what: str = "bitrates") -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(what, found=text, wanted="numbers with commas, such as 1.5,3,6") from error


@contextmanager
def _torch_room() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        advice = "pip install torch, then pip install 'nacre[train]'"
        raise TrainError(
            f"package {error.name}", found="not installed", wanted="the training room", next=advice
        ) from error


def _hold_standard_files() -> None:
    """No other file may get the number of a standard one that is closed; names in any encoding can be printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end(number: int, frame: object) -> None:
    """Stop as by Ctrl-C, so that no half a file stays behind."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point: every known error ends in one line and its exit code, never in a traceback."""
    told = False
    _hold_standard_files()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _end)
    try:
        try:
            app()
        except SystemExit as end:
            told = bool(end.code)
            if end.code in (INTERRUPTED, 128 + signal.SIGTERM):
                tell("stopped")
            raise
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be told of
    except NacreError as error:
        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        tell("stopped")
        sys.exit(INTERRUPTED)
    except OSError as error:
        if not told and not isinstance(error, BrokenPipeError):
            complain(f"{error.filename or 'output'}: {error.strerror}")
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
