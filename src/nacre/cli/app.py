"""The application, and what its commands share: options with one meaning each, and small helpers."""

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
from nacre.batch.sources import ANY_SOUND, Pair, Source, find, targets
from nacre.core.errors import TrainError, UsageError

app = typer.Typer(
    help="Speech in very small files, by variational autoencoders. Start with `nacre demo`.",
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
        help="Name from `nacre models`, or a folder; auto takes speech-16k or, of music, music-48k.",
    ),
]
AnyModel = Annotated[str | None, typer.Option("--model", "-m", help="Model folder, if the package lacks the model.")]
BandKhz = Annotated[
    int | None,
    typer.Option(
        help="Up to 8, 12 or 20 kHz. Default: 20, where the sound and the bitrate have room, "
        "but 8 with --denoise and packets of one size."
    ),
]
Noise = Annotated[Path | None, typer.Option(help="Mix in noise from this folder.")]
Valid = Annotated[Path | None, typer.Option(help="Validate on real files of the recordings in this folder.")]
Resume = Annotated[bool, typer.Option(help="Continue from the run's checkpoint.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes on this machine; one per GPU if there are GPUs.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting of the recipe, key=value; repeatable.")
]
Output = Annotated[str, typer.Option("--output", "-o", help="File, or folder for many inputs; '-' is standard output.")]
AnyOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", help="File, or folder for many inputs; '-' is a pipe. Default: beside IN."),
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
        bool, typer.Option("--recursive", "-r", help="Take all files inside folders, and keep the tree.")
    ] = False
    files_from: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Read names of inputs from a file, separated by newlines or NULs; '-' is standard input.",
        ),
    ] = None

    def find(self, kinds: frozenset[str]) -> list[Source]:
        """The files; `kinds` are the suffixes that count inside folders. Raises UsageError."""
        return find(self.inputs or [], kinds, self.recursive, self.files_from)


@dataclass(frozen=True)
class Batch(Inputs):
    """Options of a command that reads many files."""

    report: Annotated[
        str | None, typer.Option(metavar="OUT", help="Write a row for each file to OUT.csv or OUT.json.")
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
    """Something that turns where somebody watches."""
    return console().status(text) if is_terminal() and not quiet else nullcontext()


def numbers(text: str, what: str = "bitrates") -> list[float]:
    """Numbers from a text with commas. Raises UsageError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(what, found=text, wanted="numbers with commas, such as 1.5,3,6") from error


@contextmanager
def torch_at_hand() -> Iterator[None]:
    """Where a package of training is missing, a TrainError that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice = "pip install torch, then pip install 'nacre[train]'"
        raise TrainError(
            f"package {error.name}", found="not installed", wanted="the packages for training", next=advice
        ) from error
