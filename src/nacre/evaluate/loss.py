"""Quality over the loss of a line: calls with copies of earlier frames, without, and by Opus with FEC or deep PLC.

The floor is a call without loss in which the lost frames are silent, as nobody conceals them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nacre.codec.codec import Codec
from nacre.codec.live import LiveSettings, reach_frames
from nacre.codec.rate_control import DEFAULT_KBPS
from nacre.core.errors import NacreError
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.evaluate import enhanced, opus_encode, opus_line
from nacre.evaluate.choice import find_clips
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.metrics import METRICS, available, choose, pieces, require, score
from nacre.evaluate.peer import fitted
from nacre.io.audio import AudioReader, mono_blocks, resampled
from nacre.io.files import Name, output_file
from nacre.link.line import Call, Line, call, lost

LOSSES = (0.0, 0.05, 0.1, 0.2, 0.3)
SHOWN = ("pesq_wb", "estoi")
Way = Callable[[Array, Line], tuple[Array, float]]  # wave [N], line -> (decoded [N], kb/s)


@dataclass(frozen=True)
class Point:
    """One system on one kind of line: means over clips."""

    system: str
    loss: float
    burst: float
    kbps: float
    figures: dict[str, float]


def ways_of(codec: Codec, settings: LiveSettings, rate_hz: int) -> dict[str, Way]:
    """nacre with copies, without, and with silence for what is lost; Opus at the same rate, where it is installed.

    The sender knows the loss and the bursts; packets wait as long as copies reach back.
    """

    def ours(redundant: bool) -> Way:
        def over(wave: Array, line: Line) -> tuple[Array, float]:
            reach_ms = settings.reach_ms or line.reach_ms
            expecting = replace(settings, redundant=redundant, loss=line.loss, reach_ms=reach_ms)
            made = call(codec, wave, rate_hz, expecting, line, 20.0 * (reach_frames(reach_ms) + 1))
            return made.wave, made.payload_kbps

        return over

    clean: dict[bytes, Call] = {}  # by wave: calls without loss, the same on each line

    def silent(wave: Array, line: Line) -> tuple[Array, float]:
        if (key := wave.tobytes()) not in clean:
            clean[key] = call(codec, wave, rate_hz, replace(settings, loss=0.0), Line(), 0.0)
        hop, made = codec.config.hop_samples * rate_hz // codec.config.rate_hz, clean[key]
        gone = lost(line, ceil_div(len(wave), hop))
        return np.where(np.repeat(gone, hop)[: len(wave)], np.float32(0), made.wave), made.payload_kbps

    ways = {"nacre": ours(True), "nacre, no copies": ours(False), "nacre, silence for lost frames": silent}
    return ways | opus_ways(DEFAULT_KBPS if settings.bitrate_kbps is None else settings.bitrate_kbps, rate_hz)


def opus_ways(bitrate_kbps: float, rate_hz: int) -> dict[str, Way]:
    """Opus at the same rate, as far as it is there: with its FEC, and with the networks of its decoder."""

    def way(coded: Way) -> Way:
        def over(wave: Array, line: Line) -> tuple[Array, float]:
            decoded, kbps = coded(resampled(wave, rate_hz, opus_line.RATE_HZ), line)
            return fitted(resampled(decoded, opus_line.RATE_HZ, rate_hz), len(wave)), kbps

        return over

    ways = {}
    with contextlib.suppress(NacreError, OSError):
        opus = opus_line.library()
        name = f"{opus.opus_get_version_string().decode()}, FEC"
        ways[name] = way(lambda wave, line: opus_line.call(opus, wave, bitrate_kbps, line))
    if enhanced.ready():
        name = f"{opus_encode.version(enhanced.libopus())}, NoLACE, deep PLC"
        ways[name] = way(lambda wave, line: enhanced.call(wave, max(bitrate_kbps, enhanced.LEAST_KBPS), line))
    return ways


def rate_of(codec: Codec) -> int:
    """Rate in Hz at which calls are compared: the model's, at least 16 kHz."""
    return max(RATE_HZ, codec.config.rate_hz)


def measure(
    ways: dict[str, Way],
    clips: dict[str, Array],
    rate_hz: int,
    losses: Sequence[float],
    bursts: Sequence[float],
    names: list[str],
) -> list[Point]:
    """Every way at each loss and burst over waves [N]; a clip's losses are the same for all ways."""
    points = []
    for loss in losses:
        for burst in bursts if loss else bursts[:1]:
            for system, way in ways.items():
                rows, rates = [], []
                for seed, wave in enumerate(clips.values()):
                    decoded, rate = way(wave, Line(loss, burst if loss else 1.0, seed=seed))
                    rows.append(score(pieces(wave, rate_hz), decoded, names)[0])
                    rates.append(rate)
                means = {name: float(np.mean([row[name] for row in rows if name in row] or [np.nan])) for name in names}
                points.append(Point(system, loss, burst if loss else 1.0, float(np.mean(rates)), means))
    return points


def evaluate_loss(
    codec: Codec,
    folder: Path,
    bitrate_kbps: float,
    losses: Sequence[float],
    bursts: Sequence[float],
    console: Console,
    *,
    metrics: str | None = None,
    limit: int | None = None,
    target: Path | None = None,
    force: bool = False,
) -> list[Point]:
    """Table of quality over loss for a folder of speech, and a JSON file of it. Raises NacreError, UsageError."""
    names = available(choose(metrics, False) if metrics else SHOWN, [])
    clips, rate_hz = {}, rate_of(codec)
    for name in find_clips(folder, limit):
        with AudioReader(folder / name) as reader:
            clips[str(name)] = np.concatenate(list(mono_blocks(reader, rate_hz)))
    ways = ways_of(codec, LiveSettings(bitrate_kbps), rate_hz)
    points = measure(ways, clips, rate_hz, losses, bursts, names)
    table = Table("system", "lost %", "burst", "kb/s", *(METRICS[name].label for name in names), box=None)
    for point in points:
        figures = (f"{point.figures[name]:.3f}" for name in names)
        table.add_row(point.system, f"{100 * point.loss:g}", f"{point.burst:g}", f"{point.kbps:.2f}", *figures)
    console.print(table)
    if target is not None:
        with output_file(target, force) as file:
            file.write(json.dumps([asdict(point) for point in points], indent=1).encode())
    return points


def draw_panel(panel: Any, points: Sequence[Point], name: str) -> None:
    """A metric over loss, a line for each system, in axes of matplotlib."""
    for system in dict.fromkeys(point.system for point in points):
        mine = [point for point in points if point.system == system]
        losses, values = [100 * point.loss for point in mine], [point.figures[name] for point in mine]
        panel.plot(losses, values, marker="o", label=system)
    panel.set(xlabel="packets lost, %", ylabel=METRICS[name].label)
    panel.grid(alpha=0.3)


def draw(
    codec: Codec, wave: Array, rate_hz: int, settings: LiveSettings, line: Line, target: Name, force: bool
) -> None:
    """A PNG of quality over loss for wave [N]. Raises NacreError where a package is missing."""
    require(["matplotlib"])
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = available(SHOWN, [])
    at_hz = rate_of(codec)
    clips = {"call": resampled(wave, rate_hz, at_hz)}
    points = measure(ways_of(codec, settings, at_hz), clips, at_hz, LOSSES, [line.burst], names)
    figure = Figure(figsize=(4.2 * len(names), 3.4), dpi=110, layout="constrained")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        draw_panel(panel, points, name)
        panel.legend(fontsize=8)
    figure.suptitle(f"{points[0].kbps:.1f} kb/s, bursts of {line.burst:g}", fontsize=10)
    with output_file(target, force) as file:
        FigureCanvasAgg(figure)
        figure.savefig(file, format="png")
