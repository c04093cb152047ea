"""Commands that do more with sound than code it: features, pictures, restoring, editing, a demo."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nacre.batch.coded import codec_of, is_coded, open_coded
from nacre.batch.extending import extend_file
from nacre.batch.messages import tell, warn
from nacre.batch.run import Task, run_batch
from nacre.batch.sources import CODED, Pair, find, targets
from nacre.batch.tasks import (
    conceal_file,
    denoise_file,
    features_file,
    interpolate_files,
    resynth_file,
    sample_file,
)
from nacre.cli.app import (
    AnyModel,
    AnyOutput,
    Force,
    Model,
    Output,
    Quiet,
    SoundModel,
    WritingBatch,
    app,
    numbers,
    spinner,
    with_options,
)
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError
from nacre.core.units import clock
from nacre.io.folders import ANY_SOUND


@app.command()
@with_options
def features(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="FILE.npy; a folder, or one FILE.npz, for several inputs; '-' is standard output. Default: beside IN.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", "-k", help="latent, tokens, logmel or mfcc.")] = "latent",
    pool: Annotated[
        str | None, typer.Option(help="Write one row per file instead of frames: mean, stats or parts.")
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(help="Quality level of latents and tokens. Default: the highest without a residual layer."),
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Quality, 0 to 100, instead of a level.")] = None,
    model: Model = DEFAULT_MODEL,
    *,
    batch: WritingBatch,
) -> None:
    """Turn sound or .nacre files into arrays for numpy: one [T, F] of frames per file.

    nacre features talk.wav -o talk.npy --kind latent
    nacre features *.flac -o all.npz --kind mfcc --pool stats
    """
    from nacre.tools import features as extraction

    extraction.check(kind, pool, level)
    options = {"kind": kind, "pool": pool, "level": extraction.level_of(model, kind, level, quality), "model": model}
    task = batch.task(features_file, options)
    suffix = "" if output is None else Path(output).suffix
    if output is None or suffix != ".npz":
        pairs = batch.pairs(output, ".npy", ANY_SOUND | CODED)
        if len(pairs) == 1 and pairs[0].target != "-" and Path(pairs[0].target).suffix != ".npy":
            raise UsageError(f"--output {output} must end in .npy or .npz; rename it")
        run_batch(task, pairs)
        return
    with tempfile.TemporaryDirectory() as passing:
        pairs = batch.pairs(passing, ".npy", ANY_SOUND | CODED)
        _features_in_one(task, pairs, Path(passing), output, batch.force)


def _features_in_one(task: Task, pairs: list[Pair], passing: Path, output: str, force: bool) -> None:
    """Frames of all inputs, made in the folder `passing`, in one .npz file; exit code 1 where some are missing."""
    from nacre.io.audio import output_file
    from nacre.tools import features as extraction

    failed = None
    with output_file(output, force) as file:
        try:
            run_batch(task, pairs)
        except typer.Exit as end:
            failed = end
        done = [Path(pair.target) for pair in pairs if Path(pair.target).exists()]
        if failed and not done:
            raise failed
        extraction.pack(file, done, passing)
    if failed:
        raise failed


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(metavar="IN", help="A .nacre file, or a sound file, which is encoded first.")],
    output: Annotated[str, typer.Option("--output", "-o", help="A picture, OUT.png, or a page, OUT.html.")],
    bitrate: Annotated[
        float | None, typer.Option(help="Bitrate in kb/s for a sound file. Default: 6 per channel.")
    ] = None,
    quality: Annotated[float | None, typer.Option(help="Quality, 0 to 100, instead of a bitrate.")] = None,
    channel: Annotated[int, typer.Option(help="Number of the channel, from 0.")] = 0,
    model: SoundModel = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Draw what a file holds: sound, bits by frame and dimension, latents, quality levels, damage.

    nacre inspect talk.nacre -o talk.html
    A page plays the sound with a moving cursor, and zooms. A picture needs nacre\\[plot].
    nacre draws a damaged file too, and exits with code 1.
    """
    from nacre.tools import inspect as view

    view.check_target(output)
    with spinner(f"inspecting {file}", quiet):
        if is_coded(file):
            if bitrate is not None or quality is not None:
                option = "--quality" if bitrate is None else "--bitrate"
                raise UsageError(f"{file} is encoded already, and {option} is for sound files; leave it out")
            contents, codec = open_coded(file, model)
            seen = view.look(codec, contents, Path(file).name, channel)
        else:
            codec = codec_of(model or DEFAULT_MODEL)
            seen = view.look_at_sound(codec, file, channel, bitrate_kbps=bitrate, quality=quality)
        view.write(seen, output, force)
    if not quiet:
        for name, value in seen.metadata.items():
            tell(f"{name}: {value}")
    for start_s, stop_s in seen.lost:
        warn(f"{file}: lost {clock(start_s)} to {clock(stop_s)}")
    if seen.damaged:
        raise typer.Exit(1)


@app.command()
def conceal(
    file: Annotated[str, typer.Argument(metavar="IN", help="A sound file or a .nacre file.")],
    output: Output,
    lost: Annotated[
        str | None, typer.Option(metavar="START-STOP,...", help="Lost stretches in seconds, such as 1.20-1.28,3.4-3.5.")
    ] = None,
    model: SoundModel = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Conceal lost stretches in all channels; every other sample stays as it is.

    nacre conceal talk.wav -o whole.wav --lost 1.20-1.28,3.4-3.5
    In a .nacre file nacre also conceals the damaged groups, without --lost.
    """
    if lost is None and not is_coded(file):
        raise UsageError(f"{file} is a sound file, so name its lost stretches with --lost, as in --lost 1.20-1.28")
    options = {"lost": lost, "model": model, "force": force}
    run_batch(Task(conceal_file, options, quiet=quiet), targets(find([file], ANY_SOUND), output, ".wav"))


@app.command()
@with_options
def denoise(
    output: AnyOutput = None,
    strength: Annotated[
        float, typer.Option(help="Share of the noise to remove, 0 to 1. Below 1 the model needs a denoiser.")
    ] = 1.0,
    model: Model = DEFAULT_MODEL,
    *,
    batch: WritingBatch,
) -> None:
    """Remove noise from recordings of speech; `nacre encode --denoise` does so while it encodes.

    nacre denoise street.wav -o clean.wav
    """
    task = batch.task(denoise_file, {"strength": strength, "model": model}, partial(codec_of, model))
    run_batch(task, batch.pairs(output, ".wav", ending="-denoised"))


@app.command()
@with_options
def extend(
    output: AnyOutput = None,
    model: AnyModel = None,
    *,
    batch: WritingBatch,
) -> None:
    """Add the frequencies above 8 kHz that speech lacks, as a guess, to sound or .nacre files without a band layer.

    nacre extend phone.wav -o wide.wav
    """
    run_batch(batch.task(extend_file, {"model": model}), batch.pairs(output, ".wav", ending="-extended"))


@app.command()
def interpolate(
    first: Annotated[str, typer.Argument(metavar="A", help="A sound file.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another sound file.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for one file per step, or a file for all.")],
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Number of steps, A and B included.")] = 5,
    model: Model = DEFAULT_MODEL,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Morph one recording into another through the latents between them, in length and loudness too.

    nacre interpolate hello.wav goodbye.wav -o between/ --steps 5
    """
    options = {"second": second, "steps": steps, "model": model, "force": force}
    run_batch(Task(interpolate_files, options, quiet=quiet), [Pair(first, output)])


@dataclass(frozen=True)
class Resynthesis:
    """Options of resynthesis."""

    speed: Annotated[float, typer.Option(help="Change the speed, 0.25 to 4; the pitch stays.")] = 1.0
    pitch: Annotated[float, typer.Option(help="Shift the pitch by -12 to +12 semitones; the duration stays.")] = 0.0
    formants: Annotated[bool, typer.Option(help="Keep the voice's resonances in place when its pitch moves.")] = True

    def check_unused(self) -> None:
        """Raise UsageError if any is given."""
        usual = Resynthesis()
        none_of([name for name, value in asdict(self).items() if value != getattr(usual, name)], "--resynth")


@dataclass(frozen=True)
class Sampling:
    """Options of sampling."""

    prompt: Annotated[str | None, typer.Option(metavar="IN", help="Continue this sound, from its last 10 s.")] = None
    seed: Annotated[int | None, typer.Option(help="Random seed. Default: a new one each time.")] = None
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature, 0 to 5; 0 takes the likeliest symbol. Default: 1.")
    ] = None
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the likeliest symbols of this total probability. Default: 0.9.")
    ] = None
    level: Annotated[int | None, typer.Option(help="Quality level to sample at. Default: an eighth of the way up.")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """Those that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@app.command()
@with_options
def generate(
    output: Output,
    resynth: Annotated[str | None, typer.Option(metavar="IN", help="Resynthesise this sound.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Sample this many seconds from the model's prior, 0.02 to 600.")
    ] = None,
    *,
    resynthesis: Resynthesis,
    sampling: Sampling,
    model: Model = DEFAULT_MODEL,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Resynthesise a recording at another speed or pitch, or sample babble from the model's prior.

    nacre generate --resynth talk.wav -o quick.wav --speed 1.25 --pitch +2
    nacre generate --seconds 4 -o babble.wav --seed 7 --prompt talk.wav
    """
    if (resynth is None) == (seconds is None):
        raise UsageError("generate takes either --resynth IN or --seconds NUMBER; see `nacre generate --help`")
    options: dict[str, Any] = {"model": model, "force": force}
    if resynth is not None:
        none_of(list(sampling.given()), "--seconds")
        changes = {"speed": resynthesis.speed, "semitones": resynthesis.pitch, "formants": resynthesis.formants}
        task = Task(resynth_file, options | changes, quiet=quiet)
        run_batch(task, targets(find([resynth], ANY_SOUND), output, ".wav"))
        return
    resynthesis.check_unused()
    settings, prompt = sampling.given(), sampling.prompt
    settings.pop("prompt", None)
    options |= {"seconds": seconds, "settings": settings, "prompted": prompt is not None}
    sources = find(["sample" if prompt is None else prompt], ANY_SOUND)
    run_batch(Task(sample_file, options, quiet=quiet), targets(sources, output, ".wav"))


def none_of(names: list[str], other: str) -> None:
    """Raise UsageError if an option is given that only goes with the `other`."""
    if names:
        option = "no-formants" if names[0] == "formants" else names[0].replace("_", "-")
        raise UsageError(f"--{option} only works with {other}; add that, or leave out --{option}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("nacre-demo"),
    bitrates: Annotated[str, typer.Option(help="Bitrates in kb/s, with commas.")] = "1.5,3,6,9",
    model: Model = DEFAULT_MODEL,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Code the bundled speech at several bitrates into files, a table, and a page with players and spectrograms.

    nacre demo --out nacre-demo
    """
    from nacre.tools import demo as showing

    page = showing.run(out, numbers(bitrates), model, force, quiet)
    if not quiet:
        tell(f"open {page} in a browser")
