"""Rate and quality of nacre and Opus on a folder of speech: PESQ-WB and ESTOI over measured kb/s."""

from __future__ import annotations

import csv
import functools
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import (
    RATE_HZ,
    Coded,
    Interval,
    audio_files,
    bootstrap,
    cache_key,
    lag_samples,
    numbers,
    opus_commands,
    opus_roundtrip,
    opus_version,
    read_cache,
    read_clip,
    score,
    wide_console,
    workers,
    write_cache,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

SHORTEST_S = 0.5
COLOURS = {"nacre": "tab:blue", "opus": "tab:orange"}


@dataclass
class Row:
    """One clip through one system; `failure` says why the scores are missing."""

    clip: str
    system: str
    target_kbps: float
    seconds: float
    payload_bytes: int = 0
    file_bytes: int = 0
    pesq_wb: float = float("nan")
    estoi: float = float("nan")
    lag_samples: int = 0
    failure: str = ""


NAMES = [field.name for field in fields(Row)]


@dataclass(frozen=True)
class Plan:
    model: str
    nacre_kbps: tuple[float, ...]
    opus_kbps: tuple[float, ...]
    frame_ms: float
    cache: Path | None


@dataclass(frozen=True)
class Point:
    """One system at one setting, over all clips used."""

    system: str
    target_kbps: float
    clips: int
    rate_kbps: float  # total bytes over total duration: payload for Opus, the whole file for nacre
    file_kbps: float
    pesq_wb: Interval
    estoi: Interval
    lag_samples: float  # median over clips
    aligned: float  # share of clips within one sample


@functools.cache
def load_codec(model: str):
    import nacre

    return nacre.load(model)


def possible_kbps(console: Console, model: str, wanted: list[float]) -> list[float]:
    """The rates that the model can give; the others are named."""
    from nacre.errors import UsageError

    possible = []
    for kbps in wanted:
        try:
            load_codec(model).rate_plan(1, kbps, None)
            possible.append(kbps)
        except UsageError as error:
            console.print(f"left out: {error}", markup=False)
    return possible


def nacre_roundtrip(wave: np.ndarray, model: str, bitrate_kbps: float) -> Coded:
    codec = load_codec(model)
    data = codec.encode(wave, rate_hz=RATE_HZ, bitrate_kbps=bitrate_kbps)
    decoded, rate_hz = codec.decode(data)
    if decoded.shape != (1, len(wave)) or rate_hz != RATE_HZ:
        raise ValueError(f"decoded {decoded.shape} at {rate_hz} Hz, wanted {(1, len(wave))} at {RATE_HZ} Hz")
    return Coded(decoded[0], len(data), len(data))


def measure(row: Row, wave: np.ndarray, roundtrip: Callable[[], Coded]) -> Row:
    """Fill a row in; any failure is written down and the other clips go on."""
    stage = "codec"
    try:
        coded = roundtrip()
        row.payload_bytes, row.file_bytes = coded.payload_bytes, coded.file_bytes
        row.lag_samples = lag_samples(wave, coded.wave)
        stage = "score"
        row.pesq_wb, row.estoi = score(wave, coded.wave)
    except Exception as error:
        row.failure = f"{stage}: {type(error).__name__} {error}".strip()
    return row


def measure_clip(path: Path, name: str, plan: Plan) -> list[Row]:
    wave = read_clip(path)
    seconds = len(wave) / RATE_HZ
    if seconds < SHORTEST_S:
        return []
    rows = []
    for kbps in plan.opus_kbps:
        key = cache_key(wave, opus_version(), opus_commands(kbps, plan.frame_ms), NAMES)
        known = read_cache(plan.cache, key)
        row = Row(name, "opus", kbps, seconds)
        if known:
            row = Row(**known | {"clip": name})
        else:
            row = measure(row, wave, functools.partial(opus_roundtrip, wave, kbps, plan.frame_ms))
            if not row.failure.startswith("codec"):
                write_cache(plan.cache, key, asdict(row))
        rows.append(row)
    for kbps in plan.nacre_kbps:
        roundtrip = functools.partial(nacre_roundtrip, wave, plan.model, kbps)
        rows.append(measure(Row(name, "nacre", kbps, seconds), wave, roundtrip))
    return rows


def summarise(rows: list[Row]) -> list[Point]:
    """Points by system and setting, over the clips that every system has a score for."""
    failed = {row.clip for row in rows if row.failure}
    groups = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.clip):
        if row.clip not in failed:
            groups[row.system, row.target_kbps].append(row)
    return [point(*key, group) for key, group in sorted(groups.items())]


def point(system: str, target_kbps: float, rows: list[Row]) -> Point:
    seconds = sum(row.seconds for row in rows)
    lags = np.array([row.lag_samples for row in rows])
    return Point(
        system=system,
        target_kbps=target_kbps,
        clips=len(rows),
        rate_kbps=8 * sum(row.payload_bytes for row in rows) / seconds / 1000,
        file_kbps=8 * sum(row.file_bytes for row in rows) / seconds / 1000,
        pesq_wb=bootstrap([row.pesq_wb for row in rows]),
        estoi=bootstrap([row.estoi for row in rows]),
        lag_samples=float(np.median(lags)),
        aligned=float(np.mean(np.abs(lags) <= 1)),
    )


def print_points(console: Console, points: list[Point], title: str) -> None:
    table = Table(title=title)
    for head in ("system", "asked", "kb/s", "file kb/s", "PESQ-WB", "ESTOI", "lag", "aligned"):
        table.add_column(head, justify="left" if head == "system" else "right")
    for row in points:
        table.add_row(
            row.system,
            f"{row.target_kbps:g}",
            f"{row.rate_kbps:.2f}",
            f"{row.file_kbps:.2f}",
            f"{row.pesq_wb.mean:.3f} ({row.pesq_wb.low:.2f}-{row.pesq_wb.high:.2f})",
            f"{row.estoi.mean:.3f} ({row.estoi.low:.3f}-{row.estoi.high:.3f})",
            f"{row.lag_samples:g}",
            f"{row.aligned:.0%}",
        )
    console.print(table)


def plot_points(path: Path, points: list[Point], labels: dict[str, str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for panel, field, name in zip(panels, ("pesq_wb", "estoi"), ("PESQ-WB", "ESTOI"), strict=True):
        for system in sorted({point.system for point in points}):
            line = [point for point in points if point.system == system]  # by rising target
            rates = [point.rate_kbps for point in line]
            means, lows, highs = zip(*(getattr(point, field) for point in line), strict=True)
            panel.plot(rates, means, "o-", color=COLOURS[system], label=labels[system])
            panel.fill_between(rates, lows, highs, color=COLOURS[system], alpha=0.2, linewidth=0)
        panel.set(xlabel="measured rate, kb/s", ylabel=name, title=f"{name}, mean and 95 % interval")
        panel.set_xlim(left=0)
        panel.grid(alpha=0.3)
        panel.legend(loc="best")
    figure.savefig(path, dpi=120)


def write_rows(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, NAMES)
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def print_failures(console: Console, rows: list[Row]) -> None:
    failed = [row for row in rows if row.failure]
    if not failed:
        return
    clips = Counter(row.clip for row in failed)
    console.print(f"{len(clips)} clips failed somewhere and are left out of every mean:")
    for row in failed:
        console.print(f"  {row.clip} {row.system} {row.target_kbps:g} kb/s: {row.failure}", markup=False)


def main(
    data: Annotated[Path, typer.Option(help="folder tree of speech")],
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    bitrates: Annotated[str, typer.Option(help="kb/s asked of nacre")] = "1.5,3,6,9,12",
    opus: Annotated[str, typer.Option(help="kb/s asked of Opus; '' leaves it out")] = "6,9,12",
    framesize: Annotated[float, typer.Option(help="Opus frame, ms")] = 20,
    nacre: Annotated[bool, typer.Option(help="measure nacre too")] = True,
    limit: Annotated[int | None, typer.Option(help="so many clips, spread over all")] = None,
    csv_out: Annotated[Path | None, typer.Option("--csv", help="rows by clip")] = None,
    plot: Annotated[Path | None, typer.Option(help="figure, PNG or SVG")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder that keeps the peers' results")] = None,
    jobs: Annotated[int, typer.Option(help="processes, one thread each")] = 2,
) -> None:
    """Code every clip at every rate, score it, print means with bootstrap intervals over clips."""
    console = wide_console()
    nacre_kbps = possible_kbps(console, model, numbers(bitrates)) if nacre else []
    plan = Plan(model, tuple(nacre_kbps), tuple(numbers(opus)), framesize, cache)
    files, rows, short = audio_files(data, limit), [], 0
    with workers(jobs) as pool:
        tasks = [pool.submit(measure_clip, path, path.relative_to(data).as_posix(), plan) for path in files]
        for task in track(as_completed(tasks), "clips", total=len(tasks), console=console):
            rows += task.result()
            short += not task.result()
    rows.sort(key=lambda row: (row.clip, row.system, row.target_kbps))
    if csv_out:
        write_rows(csv_out, rows)
    points = summarise(rows)
    used = points[0].clips if points else 0
    title = f"mean and 95 % interval over {used} of {len(files)} clips ({short} under {SHORTEST_S} s skipped)"
    print_points(console, points, title)
    console.print("kb/s: whole files for nacre, Opus without Ogg pages and headers (file kb/s has them)")
    console.print("lag: median in samples; aligned: clips within one sample by cross-correlation")
    print_failures(console, rows)
    if plot and points:
        labels = {"nacre": f"nacre {Path(model).name}"}
        if plan.opus_kbps:
            labels["opus"] = f"Opus, {framesize:g} ms"
            console.print(f"Opus: {opus_version()}")
        plot_points(plot, points, labels)
    if any(row.failure.startswith("codec") for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
