"""Speech above 8 kHz after coding: the core alone, extended blindly, with its band layer, and Opus, at real rates.

    python bench/band.py speech48k/valid/kathleen speech48k/valid/nathalie speech48k/valid/dctts
    python bench/band.py speech48k/valid/kathleen --figure docs/band.png --clips 1

Over frames of 43 ms within 50 dB of a clip's loudest: LSD is the log-spectral distance, the root mean square of the
difference of the bins in dB, averaged over frames, from 0 and from 8 to 20 kHz; two pieces of one loud noise are 7.9 dB
apart. Envelope is that of bands of 1 kHz, from 8 kHz. Repeat is the correlation of the decoded band with itself 20 ms
later where the original is loud. What is softer than -100 dB a bin counts as that. Opus is the libopus in PyAV,
variable rate, complexity 10, its packets without Ogg's pages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import av
import numpy as np
import typer
from blind import Sounds, write_blind_page
from common import numbers, wide_console
from rich.progress import track
from rich.table import Table
from scipy.signal import butter, sosfiltfilt

from nacre import load
from nacre.codec.codec import Codec
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.evaluate.choice import find_clips
from nacre.io import audio
from nacre.tools.extend import extend

RATE_HZ, WINDOW, STEP = 48_000, 2048, 512
HZ = np.fft.rfftfreq(WINDOW, 1 / RATE_HZ)
BAND = slice(int(8000 / HZ[1]), int(20000 / HZ[1]))
FLOOR_DB, RANGE_DB, LATER = -100.0, 50.0, RATE_HZ // 50

Coder = Callable[[Array], tuple[Array, float]]


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of recordings at 44.1 kHz or more.")],
    bitrate: Annotated[float, typer.Option(help="kb/s of nacre's core; the layer comes on top.")] = 6.0,
    opus: Annotated[str, typer.Option(help="Rates of Opus, kb/s; 20 behind a + asks for all of 20 kHz.")] = "12,16,24",
    clips: Annotated[int | None, typer.Option(help="So many of each folder.")] = None,
    blind: Annotated[Path | None, typer.Option(help="A page for a blind test of all of these.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Spectrograms of the first clip, a PNG.")] = None,
) -> None:
    """Means over clips."""
    codec = load()
    ways: dict[str, Coder] = {
        "nacre, core": lambda wave: by_nacre(codec, wave, bitrate, 8),
        "nacre, extended": lambda wave: by_guess(codec, wave, bitrate),
        "nacre, band layer": lambda wave: by_nacre(codec, wave, bitrate, 20),
    }
    ways |= {f"Opus {rate:g}": partial(by_opus, rate=rate) for rate in numbers(opus)}
    names = [folder / name for folder in data for name in find_clips(folder, clips)]
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    sounds: Sounds = {}
    for path in track(names, "coding"):
        wave, rate_hz = audio.read(path)
        wave = audio.resampled(wave[0], rate_hz, RATE_HZ)
        made = {name: way(wave) for name, way in ways.items()}
        for name, (decoded, rate) in made.items():
            rows[name].append((rate, *distances(wave, decoded), repeat(wave, decoded)))
        sounds[path.stem] = {"original": wave[None]} | {name: sound[None] for name, (sound, _) in made.items()}
        if figure:
            draw(figure, {"original": wave} | {name: decoded for name, (decoded, _) in made.items()})
            figure = None
    if blind:
        write_blind_page(blind, f"Speech to 20 kHz, core at {bitrate:g} kb/s", sounds, RATE_HZ)
    table = Table("codec", "kb/s", "LSD to 20 kHz, dB", "from 8 kHz, dB", "envelope, dB", "level, dB", "repeat")
    for name, figures in rows.items():
        rate, *rest = np.nanmean(figures, 0)
        table.add_row(name, f"{rate:.2f}", *(f"{value:.2f}" for value in rest))
    wide_console().print(table)


def by_nacre(codec: Codec, wave: Array, bitrate: float, band_khz: int) -> tuple[Array, float]:
    """Decoded [N] and the rate of the file."""
    quality = 100 * int(np.abs(codec.bundle.rates_kbps - bitrate).argmin()) / (codec.config.levels - 1)
    data = codec.encode(wave, RATE_HZ, quality=quality, band_khz=band_khz)
    return codec.decode(data)[0][0], kbps(len(data), len(wave) / RATE_HZ)


def by_guess(codec: Codec, wave: Array, bitrate: float) -> tuple[Array, float]:
    """The core with what `nacre extend` makes of it."""
    core, rate = by_nacre(codec, wave, bitrate, 8)
    return extend(core, RATE_HZ)[0], rate


def by_opus(wave: Array, rate: float) -> tuple[Array, float]:
    """Decoded [N] and the rate of its packets."""
    size, length = 0, len(wave)
    with NamedTemporaryFile(suffix=".opus") as file:
        with av.open(file.name, "w", "ogg") as container:
            stream = container.add_stream("libopus", RATE_HZ, layout="mono")
            stream.bit_rate = round(1000 * rate)
            stream.codec_context.options = {"vbr": "on", "compression_level": "10"}
            samples = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = RATE_HZ
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                size += packet.size
                container.mux(packet)
        decoded, _ = audio.read(file.name)
    return np.pad(decoded[0], (0, max(0, length - decoded.shape[1])))[:length], kbps(size, length / RATE_HZ)


def levels_db(wave: Array) -> Array:
    """Power of the bins of overlapping windows [T, bins] in dB, a full-scale sine about 0."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::STEP] * (np.hanning(WINDOW) * 4 / WINDOW)
    return 10 * np.log10(np.square(np.abs(np.fft.rfft(frames))) + 10 ** (FLOOR_DB / 10))


def distances(wave: Array, decoded: Array) -> tuple[float, float, float, float]:
    """Log-spectral distance, that from 8 kHz, distance of envelopes, and of levels, there."""
    true, got = levels_db(wave), levels_db(decoded)
    loud = 10 * np.log10((10 ** (true / 10)).sum(1))
    kept = loud > loud.max() - RANGE_DB
    whole = _rms(true[kept, : BAND.stop] - got[kept, : BAND.stop])
    true, got = true[kept, BAND], got[kept, BAND]
    coarse = [10 * np.log10(_bands(10 ** (values / 10))) for values in (true, got)]
    level = [10 * np.log10((10 ** (values / 10)).mean()) for values in (true, got)]
    return whole, _rms(true - got), _rms(coarse[0] - coarse[1]), float(level[1] - level[0])


def _bands(power: Array) -> Array:
    edges = np.searchsorted(HZ[BAND], np.arange(8000, 20000, 1000))
    return np.add.reduceat(power, edges, 1) / np.diff([*edges, power.shape[1]])


def _rms(difference: Array) -> float:
    return float(np.sqrt(np.square(difference).mean(1)).mean())


def repeat(wave: Array, decoded: Array, size: int = 1536) -> float:
    """Correlation of the decoded band with itself 20 ms later, over frames in which the original's is loud."""
    high = sosfiltfilt(butter(6, 8000, "high", fs=RATE_HZ, output="sos"), np.stack([wave, decoded]).astype(float))
    count = (len(wave) - LATER) // size
    true = high[0, : count * size].reshape(count, size)
    level_db = 10 * np.log10(np.square(true).mean(1) + 1e-12)
    values = []
    for index in np.flatnonzero(level_db > level_db.max() - 35):
        here, there = (high[1, index * size + late :][:size] for late in (0, LATER))
        if here @ here > 1e-9:
            values.append(float(here @ there / np.sqrt((here @ here) * (there @ there) + 1e-12)))
    return float(np.mean(values)) if values else float("nan")


def draw(path: Path, waves: dict[str, Array]) -> None:
    """Spectrograms to 24 kHz, one under another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.1 * len(waves)), dpi=60, layout="constrained")
    for axes, (name, wave) in zip(
        figure.subplots(len(waves), 1, sharex=True, squeeze=False)[:, 0], waves.items(), strict=True
    ):
        frames = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::240] * np.hanning(1024)
        level_db = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-6)
        axes.imshow(
            level_db,
            origin="lower",
            aspect="auto",
            extent=(0, len(wave) / RATE_HZ, 0, 24),
            vmin=-50,
            vmax=30,
            cmap="magma",
        )
        axes.set_ylabel("kHz")
        axes.set_title(name, loc="left", fontsize=9)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
