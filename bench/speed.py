"""Times real time of nacre on one core: samples to bytes and back, whole clips and frame by frame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, looped_speech, numbers, wide_console, workers
from rich.table import Table

TARGETS = {"encode": 100, "decode": 100, "live encode": 15, "live decode": 15}
TARGETS |= {"nacre encode": 100, "nacre decode": 100}
START_S = 0.1  # a file so short that the command's time is its start
TICK_S = 0.002
HEADS = ("what", "Hz", "wall s", "CPU s", "x wall", "x CPU", "target", "slowest ms", "CPU by module")


@dataclass
class Timing:
    what: str
    rate_hz: int
    seconds: float
    wall_s: float
    cpu_s: float
    parts_s: dict[str, float]  # CPU time by module of the package
    slowest_ms: float = 0.0  # the slowest single call, live only


@contextmanager
def cpu_by_module(package: Path) -> Iterator[Counter]:
    """CPU seconds by the innermost module of `package` on the stack, sampled.

    A signal waits for a long call into a library to return, so a sample weighs the CPU time since the last.
    """
    parts, last = Counter(), time.process_time()

    def sample(_signal, frame) -> None:
        nonlocal last
        now = time.process_time()
        while frame and package not in Path(frame.f_code.co_filename).parents:
            frame = frame.f_back
        parts[Path(frame.f_code.co_filename).stem if frame else "elsewhere"] += now - last
        last = now

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, TICK_S, TICK_S)
    try:
        yield parts
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def timed(work: Callable[[], object]) -> tuple[object, float, float]:
    """-> result, wall seconds, CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def best(what: str, rate_hz: int, seconds: float, work: Callable[[], object], package: Path, repeats: int):
    """-> result and the best of `repeats` timings; one more run, not timed, samples the modules that take it."""
    runs = [timed(work) for _ in range(repeats)]
    with cpu_by_module(package) as parts:
        work()
    wall_s, cpu_s = (min(run[at] for run in runs) for at in (1, 2))
    return runs[0][0], Timing(what, rate_hz, seconds, wall_s, cpu_s, dict(parts))


def live(codec, wave: np.ndarray, level: int) -> list[Timing]:
    """One model frame a call and a packet, as a call over a network would have it."""
    from nacre.codec.decoder import decode_frames
    from nacre.codec.encoder import encode_frames
    from nacre.codec.state import start_decoder, start_encoder

    size, model, coded, decoded = codec.config.hop_samples, codec.model, [], []
    wave = wave[: len(wave) // size * size]
    encoder, decoder = start_encoder(model, residual=True), start_decoder(model)
    for frame in wave.reshape(-1, size):
        coded.append(timed(partial(encode_frames, model, encoder, frame, level)))
        packet, encoder = coded[-1][0]
        decoded.append(timed(partial(decode_frames, model, decoder, packet, 1)))
        _, decoder = decoded[-1][0]
    seconds = len(wave) / RATE_HZ
    return [live_timing("live encode", seconds, coded), live_timing("live decode", seconds, decoded)]


def live_timing(what: str, seconds: float, runs: list[tuple]) -> Timing:
    walls = [run[1] for run in runs]
    return Timing(what, RATE_HZ, seconds, sum(walls), sum(run[2] for run in runs), {}, 1000 * max(walls))


def measure(model: str, data: Path | None, seconds: float, rates_hz: list[int], kbps: float, repeats: int):
    import nacre

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, whatever a library starts
    package = Path(nacre.__file__).resolve().parent
    folder = data or package  # the package carries demo clips
    codec, load_wall_s, load_cpu_s = timed(lambda: nacre.load(model))
    rows = [Timing("load", 0, 0, load_wall_s, load_cpu_s, {})]
    for rate_hz in rates_hz:
        wave = np.concatenate(list(looped_speech(folder, seconds, rate_hz)))
        length_s = len(wave) / rate_hz
        codec.decode(codec.encode(wave[: 2 * rate_hz], rate_hz=rate_hz, bitrate_kbps=kbps))  # warm
        encode = partial(codec.encode, wave, rate_hz=rate_hz, bitrate_kbps=kbps)
        coded, encoding = best("encode", rate_hz, length_s, encode, package, repeats)
        _, decoding = best("decode", rate_hz, length_s, partial(codec.decode, coded), package, repeats)
        rows += [encoding, decoding]
    wave = np.concatenate(list(looped_speech(folder, min(seconds, 20), RATE_HZ)))
    return rows + live(codec, wave, codec.rate_plan(1, kbps, None).level)


def installed(model: str, data: Path | None, seconds: float, kbps: float, repeats: int) -> list[Timing]:
    """The commands as users start them: processes of their own, on all cores, with start and file reading."""
    import nacre
    from nacre.io.audio import write

    wave = np.concatenate(list(looped_speech(data or Path(nacre.__file__).parent, seconds, RATE_HZ)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, samples in (("short", round(START_S * RATE_HZ)), ("long", len(wave))):
            write(Path(folder, f"{name}.wav"), wave[None, :samples], RATE_HZ)
        for what, name, source, target in (
            ("nacre encode, start", "encode", "short.wav", "short.nacre"),
            ("nacre encode", "encode", "long.wav", "long.nacre"),
            ("nacre decode", "decode", "long.nacre", "back.wav"),
        ):
            command = [sys.executable, "-m", "nacre", name, source, "-o", target, "-f", "-q", "-m", model]
            command += ["--bitrate", f"{kbps:g}"] if name == "encode" else []
            runs = [command_times(command, folder) for _ in range(repeats)]
            length_s = START_S if source == "short.wav" else seconds
            rows.append(Timing(what, RATE_HZ, length_s, *(min(run[at] for run in runs) for at in (0, 1)), {}))
    return rows


def command_times(command: list[str], folder: str) -> tuple[float, float]:
    """-> wall seconds and CPU seconds of a command."""
    before, wall = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True)
    after = os.times()
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - wall, cpu_s


def parts_text(parts_s: dict[str, float]) -> str:
    total = sum(parts_s.values()) or 1
    shares = sorted(((cost / total, name) for name, cost in parts_s.items()), reverse=True)
    return ", ".join(f"{name} {share:.0%}" for share, name in shares if share >= 0.01)


def main(
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    data: Annotated[Path | None, typer.Option(help="speech; else the package's demo clips")] = None,
    seconds: Annotated[float, typer.Option(help="length of the clip")] = 60,
    bitrate: Annotated[float, typer.Option(help="target kb/s")] = 6.0,
    rates: Annotated[str, typer.Option(help="sample rates, Hz")] = "16000,48000",
    repeats: Annotated[int, typer.Option(help="the best of so many runs counts")] = 3,
) -> None:
    """In-memory samples to bytes and back, resampling included, file reading left out; and commands as installed."""
    rates_hz = [int(rate) for rate in numbers(rates)]
    with workers(1) as pool:
        rows = pool.submit(measure, model, data, seconds, rates_hz, bitrate, repeats).result()
    rows += installed(model, data, seconds, bitrate, repeats)
    title = f"{seconds:g} s of speech at {bitrate:g} kb/s, one core (nacre ...: all cores), best of {repeats}"
    table = Table(title=title)
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("what", "CPU by module") else "right")
    for row in rows:
        wall_x, cpu_x = (f"{row.seconds / max(cost, 1e-9):.1f}" for cost in (row.wall_s, row.cpu_s))
        table.add_row(
            row.what,
            str(row.rate_hz or ""),
            f"{row.wall_s:.3f}",
            f"{row.cpu_s:.3f}",
            wall_x if row.seconds else "",
            cpu_x if row.seconds else "",
            f">= {TARGETS[row.what]}" if row.what in TARGETS and row.rate_hz == RATE_HZ else "",
            f"{row.slowest_ms:.1f}" if row.slowest_ms else "",
            parts_text(row.parts_s),
        )
    wide_console().print(table)
    print("x CPU is the figure to compare when other work shares the machine; live: one frame a call")


if __name__ == "__main__":
    typer.run(main)
