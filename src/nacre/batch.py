"""Many files one after another or side by side: names of outputs, progress, and no bad file spoils the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nacre.core.errors import AudioError, NacreError, UsageError

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """Where progress is shown: standard error, since messages never mix with sound on standard output."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def is_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell(text: object, style: str = "") -> None:
    """A line on standard error, above the progress where that is shown."""
    if is_terminal():
        console().print(str(text), style=style, markup=False, soft_wrap=True)
    elif sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say what is wrong with something that goes on all the same."""
    tell(text, "yellow")


def complain(error: object) -> None:
    """Say what failed."""
    tell(f"error: {error}", "red")


def pairs_of(inputs: list[str], output: str, suffix: str) -> list[tuple[str, str]]:
    """(input, output) names; many inputs, or an output that is a folder, keep their names with a new suffix."""
    folder = os.path.isdir(output) or output.endswith(("/", os.sep))
    if len(inputs) == 1 and not folder:
        return [(inputs[0], output)]
    if output == "-":
        raise UsageError("output", found="'-' for many inputs", wanted="a folder")
    stems = _stems(inputs)
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(output, found=error.strerror, wanted="a folder for many outputs") from error
    return [(name, str(Path(output) / (stem + suffix))) for name, stem in zip(inputs, stems, strict=True)]


def _stems(inputs: list[str]) -> list[str]:
    """Names without suffix; where two are alike, with their folders in front, and if that does not help, the suffix.

    >>> _stems(["a/one.wav", "b/one.wav", "b/two.wav", "b/two.mp3"])
    ['a-one', 'b-one', 'b-two.wav', 'b-two.mp3']
    >>> _stems(["a/one.wav", "c/one.wav", "a-one.wav"])
    ['a-one.wav', 'c-one', 'a-one']
    """
    paths = [Path(os.path.abspath(name)) for name in inputs]
    for path, name in zip(paths, inputs, strict=True):
        if paths.count(path) > 1:
            raise UsageError(name, found="the same file twice", wanted="each once")
    try:
        top = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on two drives
        top = ""
    below = [("-".join(path.relative_to(top or path.anchor).parts)) for path in paths]
    ways = [path.stem for path in paths], [str(Path(name).with_suffix("")) for name in below], below
    found: list[str | None] = [None] * len(paths)
    for way in ways:
        known = Counter(name.casefold() for name in [*way, *filter(None, found)])
        for index, name in enumerate(way):
            if found[index] is None and known[name.casefold()] == 1:
                found[index] = name
    return [stem or f"{index + 1}-{name}" for index, (stem, name) in enumerate(zip(found, below, strict=True))]


def run_batch(
    work: Callable[..., str], pairs: list[tuple[str, str]], options: dict[str, Any], jobs: int, quiet: bool
) -> None:
    """Run every pair; a bad one is reported and the others go on. Exit code 1 if any failed."""
    failed: list[NacreError] = []
    with _progress(work.__name__.removesuffix("_file"), len(pairs), quiet) as (tick, advance):
        for result in _results(work, pairs, options, jobs, tick):
            if isinstance(result, NacreError):
                failed.append(result)
                complain(result)
            elif not quiet:
                tell(result)
            advance()
    if failed:
        if len(pairs) > 1:
            tell(f"{len(failed)} of {len(pairs)} failed")
        raise typer.Exit(2 if all(error.exit_code == 2 for error in failed) else 1)


@contextmanager
def _progress(what: str, count: int, quiet: bool) -> Iterator[tuple[Callable[[float], None], Callable[[], None]]]:
    """A bar where somebody watches: what to call with the share of a single file that is done, and after each file."""
    if quiet or not is_terminal():
        yield _no_tick, lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(what, total=count)

        def tick(share: float) -> None:
            bar.update(task, completed=min(1.0, share) if count == 1 else None)

        yield tick, lambda: bar.advance(task)


def _results(
    work: Callable[..., str],
    pairs: list[tuple[str, str]],
    options: dict[str, Any],
    jobs: int,
    tick: Callable[[float], None],
) -> Iterator[str | NacreError]:
    if jobs == 1 or len(pairs) == 1 or "-" in [source for source, _ in pairs]:  # which only this process has
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
    signal.signal(signal.SIGTERM, interrupt)


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


def check_apart(source: str, target: str) -> None:
    """Raise UsageError where an output would replace its own input, whatever --force says."""
    files = "-" not in (source, target) and os.path.exists(source) and os.path.exists(target)
    if files and os.path.samefile(source, target):
        raise UsageError(target, found="the input itself", wanted="another output")


def _attempt(
    work: Callable[..., str],
    pair: tuple[str, str],
    options: dict[str, Any],
    tick: Callable[[float], None] = _no_tick,
) -> str | NacreError:
    source, target = pair
    try:
        check_apart(source, target)
        return work(source, target, **options, tick=tick)
    except NacreError as error:
        return error
    except UnicodeError as error:  # a name in another encoding than the system's, which a library will not take
        return AudioError(source, found=str(error), wanted="a name in UTF-8", next="rename it")
    except OSError as error:  # not of the files themselves: a full folder for passing files, say
        return AudioError(source, found=error.strerror, wanted="a file system that works", next=str(error.filename))
