"""Files worked on one after another or side by side; no bad one spoils the others, and what is done is done once."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import typer

from nacre.batch.messages import complain, console, is_terminal, tell
from nacre.batch.report import Result, check_report, report_text, summary
from nacre.batch.sources import Pair
from nacre.core.errors import AudioError, NacreError, UsageError, reason
from nacre.io.files import output_file

Work = Callable[..., Result]
Tick = Callable[[float], None]
FIRST_BYTES_PER_S = 32_000  # of a sound file, until some are known


@dataclass
class Task:
    """What to do with every file, and how. Raises UsageError for a report of an unknown kind."""

    work: Work
    options: dict[str, Any]
    prepare: Callable[[], object] | None = None  # in every process, before its first file
    jobs: int = 1
    quiet: bool = False
    skip_existing: bool = False
    report: str | None = None
    says: Callable[[str], None] = tell  # prints the line on each good file
    word: str = field(default="")

    def __post_init__(self) -> None:
        check_report(self.report)
        self.word = self.word or self.work.__name__.removesuffix("_file")


def run_batch(task: Task, pairs: list[Pair]) -> list[Result]:
    """Run every pair, reporting bad ones. Exits with code 1 if any failed, 2 if all by wrong usage."""
    results: list[Result] = []
    started = time.perf_counter()
    if not pairs and not task.quiet:
        tell("the list names no files, so there is nothing to do")
    try:
        with _progress(task, pairs) as (tick, advance):
            for result in _results(task, pairs, tick):
                results.append(result)
                if result.error:
                    complain(result.error)
                elif not task.quiet and not result.skipped:
                    task.says(result.text)
                advance(result)
    finally:
        if len(pairs) > 1 or task.skip_existing:
            _sum_up(task, results, len(pairs), time.perf_counter() - started)
        if task.report:
            with output_file(task.report, overwrite=True) as file:
                file.write(report_text(task.report, results))
    if failed := [result.error for result in results if result.error]:
        raise typer.Exit(2 if all(error.exit_code == 2 for error in failed) else 1)
    return results


def _sum_up(task: Task, results: list[Result], count: int, wall_s: float) -> None:
    if task.jobs == 1 or count == 1:
        wall_s = sum(result.work_s for result in results)  # start-up left out
    for line in summary(results, count, wall_s, task.word):
        if not task.quiet or any(result.error for result in results):
            tell(line)


@contextmanager
def _progress(task: Task, pairs: list[Pair]) -> Iterator[tuple[Tick, Callable[[Result], None]]]:
    """On a terminal, a bar in seconds of sound: one function takes the share of a single file, one each result."""
    if task.quiet or not is_terminal():
        yield _no_tick, lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    left, known = _Amount(pairs), 0.0
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[sound]}"), TimeRemainingColumn()
    with Progress(*columns, console=console(), transient=True) as bar:
        shown = bar.add_task(task.word, total=left.seconds(), sound="")

        def tick(share: float) -> None:
            if len(pairs) == 1:
                bar.update(shown, completed=min(1.0, share) * left.seconds())

        def advance(result: Result) -> None:
            nonlocal known
            known += result.seconds
            left.take(result)
            text = f"{known / 3600:.2f} of {(known + left.seconds()) / 3600:.2f} h of sound"
            bar.update(shown, completed=known, total=known + left.seconds(), sound=text)

        yield tick, advance


class _Amount:
    """Seconds of sound in the files left, estimated from their sizes and from finished files of the same kind."""

    def __init__(self, pairs: list[Pair]):
        self._sizes: dict[str, int] = {}
        self._seen: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # by suffix: bytes, seconds
        for pair in pairs:
            with suppress(OSError):
                self._sizes[pair.source] = os.path.getsize(pair.source)

    def take(self, result: Result) -> None:
        """One less, of which more is known now."""
        size = self._sizes.pop(result.source, 0)
        if result.seconds:
            for key in (Path(result.source).suffix.lower(), ""):
                self._seen[key][0] += size
                self._seen[key][1] += result.seconds

    def seconds(self) -> float:
        """Of sound that is left."""
        total = 0.0
        for name, size in self._sizes.items():
            bytes_seen, seconds = self._seen.get(Path(name).suffix.lower()) or self._seen.get("") or (0.0, 0.0)
            total += size * seconds / bytes_seen if bytes_seen else size / FIRST_BYTES_PER_S
        return total


def _results(task: Task, pairs: list[Pair], tick: Tick) -> Iterator[Result]:
    to_do = []
    for pair in pairs:
        if early := _early(task, pair):
            yield early
        else:
            to_do.append(pair)
    if task.jobs == 1 or len(to_do) <= 1 or "-" in [pair.source for pair in to_do]:  # which only this process has
        for pair in to_do:
            yield attempt(task, pair, tick)
    else:
        from nacre.batch.workers import Crew  # here: what it imports would delay every start by 20 ms

        yield from Crew(partial(attempt, task), task.jobs, task.prepare).results(to_do)


def _early(task: Task, pair: Pair) -> Result | None:
    """The result of a pair that needs no work."""
    if pair.error:
        return Result(error=pair.error, source=pair.source, target=pair.target)
    if task.skip_existing and pair.target != "-" and os.path.exists(pair.target):
        return Result(skipped=True, source=pair.source, target=pair.target)
    return None


def _no_tick(share: float) -> None:
    """Progress inside a file is not shown for many files at once."""


def check_apart(source: str, target: str) -> None:
    """Raise UsageError where an output would replace its own input, even with --force."""
    files = "-" not in (source, target) and os.path.exists(source) and os.path.exists(target)
    if files and os.path.samefile(source, target):
        raise UsageError(f"{target} is both input and output; choose another --output")


def attempt(task: Task, pair: Pair, tick: Tick = _no_tick) -> Result:
    """The result of a pair; errors become part of it."""
    started = time.perf_counter()
    try:
        result = _worked(task, pair, tick)
    except NacreError as error:
        result = Result(error=error)
    except UnicodeError as error:  # a name in another encoding than the system's, which a library will not take
        result = Result(error=AudioError(f"the name of {pair.source} is not in UTF-8; rename the file ({error})"))
    except OSError as error:  # not of the files themselves: a full folder for temporary files, say
        place = f"{error.filename}: " if error.filename else ""
        advice = "check the disk and its permissions"
        result = Result(error=AudioError(f"{pair.source} failed: {place}{reason(error)}; {advice}"))
    result.source, result.target, result.work_s = pair.source, pair.target, time.perf_counter() - started
    return result


def _worked(task: Task, pair: Pair, tick: Tick) -> Result:
    check_apart(pair.source, pair.target)
    if pair.target != "-":
        _make_parents(pair.target)
    result = task.work(pair.source, pair.target, **task.options, tick=tick)
    if not result.bytes_in and pair.source != "-":
        with suppress(OSError):
            result.bytes_in = os.path.getsize(pair.source)
    if not result.bytes_out and pair.target != "-":
        with suppress(OSError):
            result.bytes_out = os.path.getsize(pair.target)
    return result


def _make_parents(target: str) -> None:
    """Folders for an output. Raises AudioError where there can be none."""
    folder = Path(target).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "choose another output"
        raise AudioError(f"{target}: folder {folder} cannot be made ({reason(error)}); {advice}") from error
