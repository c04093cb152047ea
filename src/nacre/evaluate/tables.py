"""A run as tables: for people on the terminal, by clip as CSV, whole as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nacre.core.units import kbps
from nacre.evaluate import stats
from nacre.evaluate.metrics import METRICS, Metric
from nacre.evaluate.results import Run, Score
from nacre.evaluate.stats import BdRate, Point
from nacre.io import audio

DIGITS = {"distillmos": 2, "visqol": 2, "pesq_wb": 2, "stoi": 3, "estoi": 3, "hiss_repeat": 2, "hiss_flicker": 2}
DIGITS |= {"logmel_db": 2, "f0_cents": 0, "dnsmos": 2, "plcmos": 2}
WORST = 3
LISTED = 20


def write_csv(path: Path, run: Run, force: bool) -> None:
    """One row for each clip, system and rate."""
    names = measured(run.scores)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    head = ["clip", "system", "target_kbps", "seconds", "file_bytes", "payload_bytes", "file_kbps", "payload_kbps"]
    head += ["encode_s", "decode_s", "encode_peak_mb", "decode_peak_mb"]
    peaks = {memory.system: (f"{memory.encode_mb:.1f}", f"{memory.decode_mb:.1f}") for memory in run.memory}
    writer.writerow([*head, *names, "lag_samples", "failure"])
    for score in run.scores:
        rates = [f"{kbps(size, score.seconds):.4f}" for size in (score.file_bytes, score.payload_bytes)]
        times = [f"{seconds:.6f}" for seconds in (score.encode_s, score.decode_s)]
        times += peaks.get(score.system, ("", ""))  # of the system on the longest clip, the same in all its rows
        figures = [score.metrics.get(name, "") for name in names]
        lag = "" if score.lag_samples is None else score.lag_samples
        sizes = (score.file_bytes, score.payload_bytes)
        row = (score.clip, score.system, score.target_kbps, score.seconds, *sizes, *rates, *times, *figures)
        writer.writerow([*row, lag, score.failure])
    _write(path, text.getvalue(), force)


def write_json(path: Path, run: Run, force: bool) -> None:
    """All rows, and what was worked out from them."""
    whole = asdict(run) | {
        "metrics": {metric.name: _about(metric.name) for metric in METRICS.values()},
        "points": [asdict(point) for point in stats.points(run.scores)],
        "differences": [asdict(difference) for difference in stats.differences(run.scores)],
        "bd_rates": [asdict(difference) for difference in stats.bd_rates(run.scores)],
    }
    _write(path, json.dumps(whole, indent=1, allow_nan=False) + "\n", force)


def _about(name: str) -> dict[str, Any]:
    metric = METRICS[name]
    better = "higher" if metric.better > 0 else "lower"
    better = better if metric.aim is None else f"nearest {metric.aim:g}"
    return {"title": metric.title, "unit": metric.unit, "better": better, "cannot_see": metric.blind}


def _write(path: Path, text: str, force: bool) -> None:
    with audio.output_file(path, force) as file:
        file.write(text.encode())


def measured(scores: list[Score]) -> list[str]:
    """Names of the metrics that any row has, in the order of METRICS."""
    there = {name for score in scores for name in score.metrics}
    return [name for name in METRICS if name in there]


def wide_console() -> Console:
    """Tables keep their columns when the output goes to a file or a narrow terminal."""
    return Console(width=max(170, Console().width), highlight=False, emoji=False)


def show(console: Console, run: Run) -> None:
    """Print points, savings, worst clips and failures."""
    names = measured(run.scores)
    console.print(points_table(stats.points(run.scores), names))
    console.print(
        "kb/s: nacre's whole files, the others' packets without their container (file kb/s has it). Metrics: mean and "
        "95 % interval over the clips that every system has figures for. Speeds: times real time, one thread.",
        soft_wrap=True,
    )
    if run.memory:
        console.print(memory_words(run), markup=False, soft_wrap=True)
    savings = stats.bd_rates(run.scores)
    if savings:
        console.print(savings_table(savings))
    _show_worst(console, run, names)
    show_failures(console, run)


def memory_words(run: Run) -> str:
    """Peak memory of the programs, a sentence."""
    text = "; ".join(f"{peak.system} {peak.encode_mb:.0f} and {peak.decode_mb:.0f}" for peak in run.memory)
    return f"Peak memory of the programs in MB, encoding and decoding: {text}."


def points_table(points: list[Point], names: list[str]) -> Table:
    """One row for each system and rate."""
    table = Table("system", box=None)
    titles = [METRICS[name].label + _way(METRICS[name]) for name in names]
    for head in ("target", "clips", "kb/s", "file kb/s", *titles, "encode", "decode", "lag"):
        table.add_column(head, justify="right")
    before = ""
    for point in points:
        figures = [_figure(point, name) for name in names]
        speeds = [f"{speed:.0f} x" if speed else "" for speed in (point.encode_x, point.decode_x)]
        lag = "" if point.lag_samples is None else f"{point.lag_samples:g}"
        rates = [f"{rate:.2f}" for rate in (point.rate_kbps, point.file_kbps)]
        clips = f"{point.clips} of {point.clips + point.failed}" if point.failed else str(point.clips)
        name = point.system if point.system != before else ""
        table.add_row(name, f"{point.target_kbps:g}", clips, *rates, *figures, *speeds, lag)
        before = point.system
    table.caption = (
        "(-) less is better, (to 0) 0 is ideal; lag in samples against the stated delay, blank where no waveform is "
        "preserved"
    )
    return table


def _way(metric: Metric) -> str:
    if metric.aim is not None:
        return f" (to {metric.aim:g})"
    return " (-)" if metric.better < 0 else ""


def _figure(point: Point, name: str) -> str:
    interval = point.metrics.get(name)
    if interval is None:
        return "-"
    digits = DIGITS.get(name, 1)
    half = max(interval.high - interval.mean, interval.mean - interval.low)
    return f"{interval.mean:.{digits}f} ±{half:.{digits}f}"


def savings_table(savings: list[BdRate]) -> Table:
    """BD-rates, one row for each peer and metric."""
    table = Table("system", "against", "at equal", box=None, title="bits at equal quality (BD-rate)")
    for head in ("bits", "95 %", "over", "of its span"):
        table.add_column(head, justify="right")
    for saving in sorted(savings, key=lambda saving: (saving.system, saving.peer)):
        names = (saving.system, saving.peer, METRICS[saving.metric].label)
        if saving.percent is None:
            table.add_row(*names, "-", "", "no shared quality", "")
            continue
        digits = DIGITS.get(saving.metric, 1)
        span = f"{saving.from_quality:.{digits}f} to {saving.to_quality:.{digits}f}"
        table.add_row(
            *names, f"{saving.percent:+.0f} %", f"{saving.low:+.0f} to {saving.high:+.0f}", span, f"{saving.share:.0%}"
        )
    return table


def _show_worst(console: Console, run: Run, names: list[str]) -> None:
    for name in names[:1]:
        for score in stats.worst(run.scores, name, WORST):
            digits = DIGITS.get(name, 1)
            value = f"{METRICS[name].title} {score.metrics[name]:.{digits}f}"
            console.print(f"worst: {score.clip}, {score.system} at {score.target_kbps:g} kb/s: {value}", markup=False)


def show_failures(console: Console, run: Run) -> None:
    """Print what was left out and what went wrong."""
    for text in run.skipped[:LISTED]:
        console.print(f"left out: {text}", markup=False, soft_wrap=True)
    failed = [score for score in run.scores if score.failure]
    kinds = Counter((score.failure.partition(":")[0], score.system) for score in failed)
    for (kind, system), count in kinds.items():
        console.print(f"{system}: {kind} failed on {count} of {_rows(run, system)} rows", markup=False)
    for score in failed[:LISTED]:
        place = f"{score.clip}, {score.system} at {score.target_kbps:g} kb/s"
        console.print(f"  {place}: {score.failure}", markup=False, soft_wrap=True)
    left = len(failed) - LISTED, len(run.skipped) - LISTED
    if max(left) > 0:
        console.print("  the rest is in the report, CSV and JSON", markup=False)


def _rows(run: Run, system: str) -> int:
    return sum(score.system == system for score in run.scores)
