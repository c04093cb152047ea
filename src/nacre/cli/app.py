"""The application and what its commands share: options with one meaning each, and small helpers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, is_dataclass
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from nacre.batch.messages import console, is_terminal
from nacre.batch.run import Task, Work
from nacre.batch.sources import Pair, Source, find, targets
from nacre.core.errors import TrainError, UsageError
from nacre.io.folders import ANY_SOUND

app = typer.Typer(
    help="Compress speech into very small files with variational autoencoders. Start with `nacre demo`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace output that exists.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Work on this many files at once.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Name from `nacre models`, or a model folder.")]
EncodingModel = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name from `nacre models`, or a model folder; auto takes music-48k for music, else speech-16k.",
    ),
]
AnyModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Name from `nacre models`, or a model folder. Default: the model that wrote the file.",
    ),
]
SoundModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Name from `nacre models`, or a model folder. "
        "Default: speech-16k; for a .nacre file the model that wrote it.",
    ),
]
BandKhz = Annotated[
    int | None,
    typer.Option(
        help="Highest frequency to code: 8, 12 or 20 kHz. Default: 20 if sound and bitrate allow it, "
        "8 with --denoise or --packet-bytes."
    ),
]
Noise = Annotated[Path | None, typer.Option(help="Mix in noise from the recordings in this folder.")]
Valid = Annotated[Path | None, typer.Option(help="Validate on the recordings in this folder, encoded to real files.")]
Resume = Annotated[bool, typer.Option(help="Continue from the run's checkpoint.")]
Processes = Annotated[int, typer.Option(min=1, help="Train with this many processes; on GPUs use one per GPU.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting of the recipe, such as data.batch=8; repeatable."
    ),
]
Output = Annotated[str, typer.Option("--output", "-o", help="Output file; '-' is standard output.")]
AnyOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="File, or folder for several inputs; '-' is standard output. Default: beside each input.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from nacre import __version__

        print(f"nacre {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options without a command."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of its arguments that are dataclasses."""
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    parameters: list[Parameter] = []
    for each in signature(command, eval_str=True).parameters.values():
        of_each = [each]
        if isinstance(group := each.annotation, type) and is_dataclass(group):
            hints = get_type_hints(group, include_extras=True)
            of_each = [field.replace(annotation=hints[field.name]) for field in signature(group).parameters.values()]
            groups[each.name] = group, [field.name for field in of_each]
        parameters += [field.replace(kind=Parameter.KEYWORD_ONLY) for field in of_each]

    def run(**values: Any) -> None:
        made = {name: group(**{key: values.pop(key) for key in keys}) for name, (group, keys) in groups.items()}
        command(**values, **made)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


@dataclass(frozen=True)
class Inputs:
    """Options that say which files a command works on."""

    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="IN...", help="Files or folders; '-' is standard input.")
    ] = None
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take all files in folders and their subfolders; keep the tree.")
    ] = False
    files_from: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Read input names from a file, one a line or separated by NULs; '-' is standard input.",
        ),
    ] = None

    def find(self, kinds: frozenset[str]) -> list[Source]:
        """The files; `kinds` are the suffixes that count inside folders. Raises UsageError."""
        return find(self.inputs or [], kinds, self.recursive, self.files_from)


@dataclass(frozen=True)
class Batch(Inputs):
    """Options of a command that reads many files."""

    report: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write one row per file to OUT.csv or OUT.json.")
    ] = None
    jobs: Jobs = 1
    quiet: Quiet = False


@dataclass(frozen=True)
class WritingBatch(Batch):
    """Options of a command that makes a file of each of many."""

    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Skip inputs whose output exists.")] = False
    force: Force = False

    def task(self, work: Work, options: dict[str, Any], prepare: Callable[[], object] | None = None) -> Task:
        """What to do with every file. Raises UsageError."""
        options = options | {"force": self.force}
        return Task(work, options, prepare, self.jobs, self.quiet, self.skip_existing, self.report)

    def pairs(self, output: str | None, suffix: str, kinds: frozenset[str] = ANY_SOUND, ending: str = "") -> list[Pair]:
        """Inputs with their outputs, see `sources.targets`. Raises UsageError."""
        return targets(self.find(kinds), output, suffix, ending)


def spinner(text: str, quiet: bool) -> AbstractContextManager[object]:
    """A spinner where standard error is a terminal."""
    return console().status(text) if is_terminal() and not quiet else nullcontext()


def numbers(text: str, option: str = "bitrates") -> list[float]:
    """Numbers from the value of an option, with commas between them. Raises UsageError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--{option} {text} is not a list of numbers; write them with commas, as in 1.5,3,6"
        ) from error


@contextmanager
def training_packages() -> Iterator[None]:
    """Raise TrainError, which says how to install it, where training lacks a package."""
    try:
        yield
    except ModuleNotFoundError as error:
        lacks = f"training needs the package {error.name}, which is not installed"
        raise TrainError(f"{lacks}; run pip install torch, then pip install 'nacre[train]'") from error
