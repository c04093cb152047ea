"""An evaluation from folder to results: systems chosen, clips spread over processes, every result kept at once.

folder -> clips -> workers -> journal (a line for each clip) -> Run -> table, CSV, JSON, page
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nacre.core.errors import AudioError, NacreError, reason
from nacre.core.units import clock
from nacre.evaluate import choice, metrics, stats, tables, work
from nacre.evaluate.choice import Options
from nacre.evaluate.journal import Journal
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.results import Memory, Run, Score
from nacre.evaluate.work import Plan, Result
from nacre.model import bundle as bundles

Array = np.ndarray[Any, np.dtype[Any]]
Sounds = dict[tuple[str, str, float], tuple[Array, int]]

EXAMPLE_S, EXAMPLE_LEAST_S = 8.0, 2.0


def evaluate(options: Options, say: Console) -> bool:
    """Measure, print tables, write the files that `options` name; gives whether all went well.

    Raises UsageError for wrong options, NacreError where nothing can be measured.
    """
    choice.check_rates(options)
    notes: list[str] = []
    chosen = metrics.choose(options.metrics, options.asr)
    metrics.require(["scipy", *(["jinja2"] if options.report else [])])
    names = metrics.available(chosen, notes)
    systems, all_there = choice.choose_systems(options, notes)
    all_there &= names == chosen or options.metrics in (None, "all")
    for note in notes:
        say.print(note, style="yellow", markup=False, soft_wrap=True)
    plan = Plan(options.folder, tuple(systems), tuple(names))
    clips = choice.find_clips(options.folder, options.limit)
    _check_outputs(options)
    journal = Journal(_journal_path(options), choice.plan_facts(plan))
    known = journal.start(options.resume, options.force)
    results = measure(clips, plan, options, journal, known, say)
    outcome = gather(results, plan, options, notes)
    if options.quiet:
        tables.show_failures(say, outcome)
    else:
        tables.show(tables.wide_console(), outcome)
    written = write_all(options, plan, outcome, say)
    if written:
        journal.close()
    return written and all_there and not outcome.skipped and all(map(stats.coded, outcome.scores))


# ---------------------------------------------------------------- measuring


def measure(
    clips: list[str], plan: Plan, options: Options, journal: Journal, known: dict[str, Result], say: Console
) -> list[Result]:
    """Results of all clips, by name; those in the journal are not measured again unless their file has changed."""
    kept = {
        clip: known[clip] for clip in clips if clip in known and known[clip].sha256 == work.digest(plan.folder / clip)
    }
    results = dict(kept)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=say, disable=options.quiet or not say.is_terminal, transient=True) as bar:
        task = bar.add_task(f"clips, each coded {plan.rows} times", total=len(clips), completed=len(kept))

        def record(result: Result) -> None:
            journal.add(result)
            results[result.clip] = result
            bar.advance(task)

        _spread_work([clip for clip in clips if clip not in kept], plan, options.jobs, record)
    return [results[clip] for clip in clips]


def _spread_work(clips: list[str], plan: Plan, jobs: int, record: Callable[[Result], None]) -> None:
    """Every clip through the workers; one on which a worker dies is recorded as failed."""
    for clip, result in work.each(partial(work.measure_clip, plan=plan), clips, jobs):
        record(result or work.failed(clip, plan, "the process died on this clip"))


def gather(results: Iterable[Result], plan: Plan, options: Options, notes: list[str]) -> Run:
    """All rows, with the facts that a reader needs to trust them."""
    results = list(results)
    scores = [score for result in results for score in result.scores]
    memory = measure_memory(results, plan)
    skipped = [result.skipped for result in results if result.skipped]
    facts = {
        "command": options.command,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        **_model_facts(plan),
        **{f"codec {system.name}": system.peer.version() for system in plan.systems if system.peer},
        "releases": choice.releases(plan),
        "processor": processor(),
        "clips": _clips_fact(results),
        "memory": _memory_fact(memory, results),
        "sound": _sound_fact(plan.rate_hz),
        "rates": "nacre is charged for its whole files, other codecs for their packets without the container.",
        "speed": "Processor time of one thread. nacre from samples in memory to bytes and back; programs with their "
        "file handling, less what they take to start.",
        "means": "Each mean is over the clips that all systems have the metric for; intervals are bootstrap, 95 %.",
        "notes": "; ".join(notes),
    }
    kept = {name: fact for name, fact in facts.items() if fact}
    return Run(scores, kept, skipped, choose_examples(scores, options.examples), memory)


def _model_facts(plan: Plan) -> dict[str, str]:
    facts = {}
    for system in plan.systems:
        if not system.peer:
            bundle = bundles.find(system.model)
            facts[f"model {system.name.removeprefix('nacre ')}"] = (
                f"fingerprint {bundle.fingerprint.hex()}, {bundle.size_bytes / 1e6:.1f} MB"
            )
    return facts


def _sound_fact(rate_hz: int) -> str:
    khz = f"{rate_hz / 1000:g} kHz"
    fact = f"Clips are mixed to mono, resampled to {khz} and rounded to 16 bits; that is what every codec gets."
    return fact if rate_hz == RATE_HZ else f"{fact} SI-SDR and log-mel are taken at {khz}, other metrics at 16 kHz."


def _clips_fact(results: list[Result]) -> str:
    lengths = [result.scores[0].seconds for result in results if result.scores]
    return f"{len(lengths)} of {len(results)}, {clock(sum(lengths))} min of sound"


def measure_memory(results: list[Result], plan: Plan) -> list[Memory]:
    """Peak memory of every system's programs on the longest clip, at its highest rate; none where it is unknown."""
    good = [score for result in results for score in result.scores if stats.coded(score)]
    longest = max(good, key=lambda score: (score.seconds, score.clip), default=None)
    peaks: list[Memory] = []
    if longest is None:
        return peaks
    for system in (system for system in plan.systems if system.name in {score.system for score in good}):
        kbps = system.rates_kbps[-1]
        try:
            peaks_mb = system.programs().memory_mb(
                work.read_clip(plan.folder / longest.clip, plan.rate_hz), kbps, plan.rate_hz
            )
        except (NacreError, OSError):  # it coded, so this is about the machine
            continue
        if all(peaks_mb):
            peaks.append(Memory(system.name, kbps, longest.seconds, *peaks_mb))
    return peaks


def _memory_fact(memory: list[Memory], results: list[Result]) -> str:
    about = f"Programs on {memory[0].seconds:.0f} s of sound, nacre's with Python" if memory else ""
    most = max((result.peak_mb for result in results), default=0.0)
    return "; ".join(filter(None, [about, f"a worker of this run with all metrics {most:.0f} MB" if most else ""]))


def processor() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


# ---------------------------------------------------------------- writing


def choose_examples(scores: Iterable[Score], count: int) -> list[str]:
    """Clips to listen to: spread evenly over those of two seconds or more, the last one the worst of all."""
    scores = list(scores)
    lengths = {score.clip: score.seconds for score in scores if stats.coded(score)}
    long = sorted(clip for clip, seconds in lengths.items() if seconds >= EXAMPLE_LEAST_S)
    chosen = choice.spread(long or sorted(lengths), count)
    names = tables.measured(scores)
    worst = [score.clip for score in stats.worst(scores, names[0], 1)] if names else []
    return [*chosen[:-1], *worst] if worst and worst[0] not in chosen and len(chosen) > 1 else chosen


def decode_examples(plan: Plan, run: Run, jobs: int) -> Sounds:
    """The example clips again, this time for their sound."""
    sounds: Sounds = {}
    if not run.examples:
        return sounds
    coded = dict(work.each(partial(work.code_clip, plan=plan, seconds=EXAMPLE_S), run.examples, jobs))
    for clip in run.examples:
        for (system, kbps), wave in (coded[clip] or {}).items():
            sounds[clip, system, kbps] = wave, plan.rate_hz
    return sounds


def write_all(options: Options, plan: Plan, run: Run, say: Console) -> bool:
    """CSV, JSON and page; one that cannot be written does not keep the others back."""
    force = options.force or options.resume
    todo: list[Callable[[], None]] = []
    if options.csv:
        path = options.csv
        todo.append(lambda: tables.write_csv(path, run, force))
    if options.json:
        other = options.json
        todo.append(lambda: tables.write_json(other, run, force))
    if options.report:
        todo.append(lambda: _write_page(options, plan, run))
    good = True
    for write in todo:
        try:
            write()
        except (NacreError, OSError) as error:
            what = f"the results cannot be written ({reason(error)})" if isinstance(error, OSError) else error
            say.print(f"error: {what}", style="red", markup=False, soft_wrap=True)
            good = False
    return good


def _write_page(options: Options, plan: Plan, run: Run) -> None:
    from nacre.evaluate.report import write_page

    assert options.report is not None
    write_page(run, decode_examples(plan, run, options.jobs), options.report)


def _journal_path(options: Options) -> Path | None:
    beside = options.report or options.json or options.csv
    return beside.with_suffix(".journal.jsonl") if beside else None


def _check_outputs(options: Options) -> None:
    """Raise before the work begins where its results could not be written."""
    for path in (options.report, options.csv, options.json):
        if path is None:
            continue
        if path.is_dir():
            raise AudioError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
        if path.exists() and not (options.force or options.resume):
            raise AudioError(f"{path} exists already; choose a new name, or use --force to replace it")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise AudioError(f"{path} cannot be written; choose a folder that exists and that you may write to")
