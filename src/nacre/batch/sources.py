"""Which files a command works on, from names, folders and lists, and what their outputs are called.

An output's name depends on its input and the input's folder, never on the rest of the batch. So a batch that was
stopped continues under the same names, and so does one over other files of the same folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nacre.core.errors import AudioError, NacreError, UsageError, reason
from nacre.core.kinds import MAGIC
from nacre.io.folders import ANY_SOUND, SOUND, inside
from nacre.io.riff import OTHERS, is_riff
from nacre.io.stdio import standard_input

CODED = frozenset({".nacre"})


@dataclass(frozen=True)
class Source:
    """An input, and its place below the folder or list that named it."""

    path: str
    place: Path
    error: NacreError | None = None  # what keeps it from being worked on
    below: bool = False  # listed in a folder or a list, so that its output is in a folder, too


def find(
    inputs: Sequence[str], kinds: frozenset[str], recursive: bool = False, listed: str | None = None
) -> list[Source]:
    """Every input once, those in folders in the order of their names. `kinds`: suffixes that count inside folders.

    `listed` is a file with names, or "-" for standard input, one a line or between NULs; a list may be empty, as that
    of a night without new recordings. Raises UsageError.
    """
    sources: dict[tuple[object, ...], Source] = {}
    for source in [*_given(inputs, kinds, recursive), *(_listed(listed) if listed is not None else ())]:
        sources.setdefault(_identity(source.path), source)
    if not sources and listed is None:
        if not inputs:
            raise UsageError("no input is named; give files, folders with --recursive, or a list with --files-from")
        kind = " or ".join([*(["sound"] if kinds >= SOUND else []), *sorted(kinds - ANY_SOUND)])
        raise UsageError(f"{', '.join(inputs)} holds no {kind} files; give files of other suffixes by name")
    return list(sources.values())


def _given(inputs: Sequence[str], kinds: frozenset[str], recursive: bool) -> Iterator[Source]:
    for name in inputs:
        if not name:
            raise UsageError("the name of an input is empty; give a file or a folder")
        if name == "-" or not os.path.isdir(name):
            yield Source(name, Path(Path(name).name))
        elif recursive:
            for path in inside(name, kinds):
                yield Source(path, Path(os.path.relpath(path, name)), below=True)
        else:
            error = AudioError(f"{name} is a folder; give a file, or use --recursive")
            yield Source(name, Path(Path(name).name), error)


def _listed(name: str) -> Iterator[Source]:
    """Files named in a list, each in its place below the folder where the command runs, or below the root."""
    try:
        data = standard_input().read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(
            f"--files-from {name} cannot be read ({reason(error)}); give a file that lists names"
        ) from error
    if data[: len(MAGIC)] == MAGIC or is_riff(data[:16]) or data[:4] in OTHERS or data[:3] == b"ID3":
        raise UsageError(f"--files-from {name} is sound, not a list of names; pass it as an input")
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    for path in [os.fsdecode(line) for line in lines if line]:
        place = Path(os.path.normpath(path))
        if place.is_absolute() or ".." in place.parts:
            absolute = Path(os.path.abspath(path))
            place = absolute.relative_to(absolute.anchor)
        yield Source(path, place, below=True)


def _identity(path: str) -> tuple[object, ...]:
    """What two names of the same file have in common."""
    if path == "-":
        return (path,)
    try:
        state = os.stat(path)
    except OSError:
        return (os.path.abspath(path),)
    return (state.st_dev, state.st_ino) if state.st_ino else (os.path.realpath(path),)


@dataclass(frozen=True)
class Pair:
    """An input and where what is made of it goes."""

    source: str
    target: str
    error: NacreError | None = None


def targets(sources: list[Source], output: str | None, suffix: str, ending: str = "") -> list[Pair]:
    """The output of each input: a file, one below a folder in the place that the input has, or one beside the input.

    `ending` stands before the suffix of outputs beside inputs that have the same one. Raises UsageError where two
    inputs would have one output.
    """
    folder = output is not None and is_folder(output)
    if output is not None and not folder and len(sources) == 1 and not sources[0].below:
        return [Pair(sources[0].path, output, sources[0].error)]
    if output == "-" or (output is None and "-" in [source.path for source in sources] and len(sources) > 1):
        raise UsageError("standard output cannot take the outputs of several inputs; give a folder with --output")
    if output is not None and os.path.exists(output) and not os.path.isdir(output):
        raise AudioError(f"{output} is a file, but several outputs need a folder; choose another name for --output")
    if output is not None and not folder and Path(output).suffix.lower() == suffix and len(sources) > 1:
        raise UsageError(
            f"--output {output} names one file for {len(sources)} inputs; give a folder, with / at the end of a new one"
        )
    known: dict[str, frozenset[str]] = {}
    pairs = [Pair(source.path, _target(source, output, suffix, ending, known), source.error) for source in sources]
    seen: dict[str, str] = {}
    for pair in pairs:
        key = os.path.normcase(os.path.abspath(pair.target)).casefold()
        if key in seen and pair.error is None and pair.target != "-":
            raise UsageError(
                f"{seen[key]} and {pair.source} would both become {pair.target}; "
                "give the folder above them with --recursive, or run them one by one"
            )
        seen[key] = pair.source
    return pairs


def is_folder(output: str) -> bool:
    """Whether an output is a folder: it exists as one, or its name ends in a slash."""
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _target(source: Source, output: str | None, suffix: str, ending: str, known: dict[str, frozenset[str]]) -> str:
    if source.path == "-":
        return "-" if output is None else str(Path(output, "-" + suffix))
    name = _renamed(source, suffix, known)
    if output is not None:
        return str(Path(output, source.place.parent, name))
    beside = Path(source.path).parent / name
    if ending and beside == Path(source.path):
        beside = beside.with_name(Path(name).stem + ending + suffix)
    return str(beside)


def _renamed(source: Source, suffix: str, known: dict[str, frozenset[str]]) -> str:
    """The input's name with another suffix; behind its own one, where a file of another kind beside it has its name."""
    path = source.place
    if path.suffix.lower() not in CODED | ANY_SOUND:
        return path.stem + suffix
    if path.suffix.lower() in CODED:
        return path.stem if path.stem.lower().endswith(suffix) else path.stem + suffix
    return (
        path.name + suffix
        if path.stem.casefold() in _doubles(os.path.dirname(source.path), known)
        else path.stem + suffix
    )


def _doubles(folder: str, known: dict[str, frozenset[str]]) -> frozenset[str]:
    """Names without suffix that more than one sound file in a folder has."""
    if folder not in known:
        names = list[Path]()
        with suppress(OSError):
            names = [Path(name) for name in os.listdir(folder or ".") if Path(name).suffix.lower() in ANY_SOUND]
        counts = Counter(name.stem.casefold() for name in names)
        known[folder] = frozenset(stem for stem, count in counts.items() if count > 1)
    return known[folder]
