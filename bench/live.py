"""Live packets against files: payload, and time a frame; curves of quality over loss from `nacre evaluate --loss`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import typer
from common import RATE_HZ

import nacre
from nacre.codec.live import LiveSettings
from nacre.codec.stream import StreamEncoder
from nacre.evaluate.choice import find_clips
from nacre.evaluate.loss import Point, draw_panel
from nacre.io.audio import AudioReader, mono_blocks

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def clips_of(folder: Path, limit: int) -> dict[str, np.ndarray]:
    """Name -> wave [N], this many clips spread over all."""
    waves = {}
    for clip in find_clips(folder, limit):
        with AudioReader(folder / clip) as reader:
            waves[Path(clip).stem] = np.concatenate(list(mono_blocks(reader, RATE_HZ)))
    return waves


def live_at(codec, wave: np.ndarray, level: int, frames: int) -> tuple[int, int]:
    """(bytes of payloads, packets) at one quality level."""
    from nacre.codec.rate_control import RatePlan

    encoder = codec.live_encoder_of(RATE_HZ, LiveSettings(frames=frames), 1)
    encoder._plan = RatePlan(codec.bundle.rates_kbps, None, level)
    encoder._level = level
    packets = encoder.push(wave) + encoder.flush()
    return encoder.payload_bytes, len(packets)


def file_at(codec, wave: np.ndarray, level: int) -> int:
    """Bytes of payloads of a file at one quality level."""
    quality = 100 * level / (codec.config.levels - 1)
    from nacre.codec.stream import Settings

    stream = StreamEncoder(codec.model, RATE_HZ, 1, Settings(quality=quality))
    return sum(len(packet.payload) for packet in [*stream.push(wave), *stream.flush()])


@app.command()
def payload(data: Path, level: int = 9, limit: int = 12, model: str = "speech-16k") -> None:
    """Bytes of live payloads over those of files at the same quality level, by frames a packet."""
    codec, total = nacre.load(model), {"file": 0, 1: 0, 2: 0, 3: 0}
    seconds = 0.0
    for wave in clips_of(data, limit).values():
        seconds += len(wave) / RATE_HZ
        total["file"] += file_at(codec, wave, level)
        for frames in (1, 2, 3):
            total[frames] += live_at(codec, wave, level, frames)[0]
    for what, size in total.items():
        name = what if what == "file" else f"{what} frame(s) a packet"
        print(f"{name:22s} {size * 8 / seconds / 1000:6.3f} kb/s  {100 * size / total['file'] - 100:+6.1f} %")


@app.command()
def speed(
    data: Path, kbps: float = 6.0, loss: float = 0.0, limit: int = 4, runs: int = 3, model: str = "speech-16k"
) -> None:
    """Milliseconds of CPU a frame, each way; of so many runs the best of each frame, for machines that are busy."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    codec, spent = nacre.load(model), {"encode": [], "decode": []}
    for wave in clips_of(data, limit).values():
        best = np.min([frame_seconds(codec, wave, kbps, loss) for _ in range(runs)], axis=0)
        for way, times in zip(spent, best, strict=True):
            spent[way] += times.tolist()
    for way, times in spent.items():
        median, high = 1000 * np.percentile(times, [50, 99])
        print(f"{way}: median {median:.2f} ms, p99 {high:.2f} ms of CPU a frame, {len(times)} frames")


def frame_seconds(codec, wave: np.ndarray, kbps: float, loss: float) -> tuple[list[float], list[float]]:
    """CPU seconds of each frame of a call: encoding, decoding."""
    encoder = codec.live_encoder(RATE_HZ, bitrate_kbps=kbps, loss=loss)
    decoder, encoding, decoding = codec.live_decoder(depth_ms=40), [], []
    for at in range(len(wave) // 320):
        start = time.thread_time()
        packets = encoder.push(wave[320 * at : 320 * at + 320])
        middle = time.thread_time()
        for packet in packets:
            decoder.push(packet, 0.02 * at)
        encoding.append(middle - start)
        decoding.append(time.thread_time() - middle)
    return encoding, decoding


@app.command()
def curves(results: Path, out: Path, metrics: str = "plcmos,distillmos,pesq_wb") -> None:
    """Quality over loss as a picture, a panel for each metric and burst, from `nacre evaluate --loss ... --json`."""
    import json

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points, names = [Point(**values) for values in json.loads(results.read_text())], metrics.split(",")
    bursts = sorted({point.burst for point in points if point.loss})
    figure, panels = pyplot.subplots(
        len(bursts), len(names), figsize=(4.2 * len(names), 3 * len(bursts)), layout="constrained", squeeze=False
    )
    for row, burst in zip(panels, bursts, strict=True):
        for panel, name in zip(row, names, strict=True):
            draw_panel(panel, [point for point in points if point.burst == burst or not point.loss], name)
            panel.set_xlabel(f"packets lost, %, in bursts of {burst:g}")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    app()
