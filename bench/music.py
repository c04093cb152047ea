"""Music after coding, beside Opus, AAC, MP3 and Vorbis at equal bytes: python bench/music.py CLIPS --bitrates 24,32

Every other codec codes a clip at the target rate, by variable rate where it has any; Vorbis is searched for the
quality that comes nearest. Nacre then gets the very rate that the first of them took. Rates are of packets, of nacre of
the whole file. ViSQOL is 3.3 in audio mode, of the mean of the channels, up to 4.73. Log-mel is the mean distance of 96
mel bands to 20 kHz in dB. SNR is signal over difference.
`bench/music_clips.py` makes clips of the kinds that are hard to code. Needs PyAV and visqol-python.
"""

from __future__ import annotations

import base64
import html
import io
import logging
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import av
import numpy as np
import soundfile
import typer
from blind import Sounds, write_blind_page
from common import numbers, wide_console
from rich.table import Table

import nacre
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.evaluate.choice import find_clips
from nacre.io import audio

RATE_HZ = 48_000
PEERS = {"Opus": ("libopus", "ogg"), "AAC": ("aac", "adts"), "MP3": ("libmp3lame", "mp3"), "Vorbis": ("", "")}
VORBIS_TRIES = 7
SHORTEST_S = 1.5  # ViSQOL takes no shorter ones
Row = tuple[float, ...]  # kb/s, ViSQOL, log-mel, SNR


def main(
    data: Annotated[Path, typer.Argument(help="Folder of clips.")],
    bitrates: Annotated[str, typer.Option(help="kb/s of the peers.")] = "24,32,48,64",
    seconds: Annotated[float, typer.Option(help="Of each clip.")] = 8.0,
    peers: Annotated[
        str, typer.Option(help="Of Opus, AAC, MP3, Vorbis; nacre gets the rate of the first.")
    ] = "Opus,AAC,MP3,Vorbis",
    page: Annotated[Path | None, typer.Option(help="A page with players and spectrograms.")] = None,
    blind: Annotated[Path | None, typer.Option(help="A page for a blind test at that rate.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Spectrograms of each clip at that rate, a PNG.")] = None,
    page_kbps: Annotated[float, typer.Option(help="The rate on that page.")] = 32.0,
) -> None:
    """A row for each clip and rate, and means."""
    codec, names = nacre.load("music-48k"), peers.split(",")
    rows: dict[float, dict[str, list[Row]]] = {rate: {} for rate in numbers(bitrates)}
    parts: list[str] = []
    shown: dict[str, list[tuple[str, Array]]] = {}
    page_sounds: Sounds = {}
    table = Table("clip", "target kb/s", *(f"{name}: kb/s, ViSQOL, log-mel, SNR" for name in ["nacre", *names]))
    for path in find_clips(data, None):
        wave, rate_hz = audio.read(data / path)
        if wave.shape[1] < SHORTEST_S * rate_hz:
            continue
        pair = wave[[0, -1]] if len(wave) < 3 else wave[:2]
        wave = np.stack([audio.resampled(row, rate_hz, RATE_HZ) for row in pair])[:, : int(seconds * RATE_HZ)]
        for rate in rows:
            made = {name: by_peer(wave, rate, *PEERS[name]) for name in names}
            limit = min(max(made[names[0]][1], 12.0), 128.0)
            sounds = {"nacre": by_nacre(codec, wave, limit)} | made
            figures = {name: (kb, *judged(wave, sound)) for name, (sound, kb) in sounds.items()}
            for name, row in figures.items():
                rows[rate].setdefault(name, []).append(row)
            table.add_row(str(path), f"{rate:g}", *(text_of(row) for row in figures.values()))
            print(path, f"{rate:g}", {name: text_of(row) for name, row in figures.items()}, flush=True)
            if rate == page_kbps:
                columns = [(f"{name}, {kb:.0f} kb/s", sound) for name, (sound, kb) in sounds.items()]
                page_sounds[str(path)] = {"original": wave} | {name: sound for name, (sound, _) in sounds.items()}
                shown[str(path)] = [("original", wave), *columns[:2]]
            if page and rate == page_kbps:
                parts.append(section(str(path), {"original": (wave, 0.0)} | sounds, figures))
    for rate, by_name in rows.items():
        means = {name: tuple(np.mean(each, 0)) for name, each in by_name.items()}
        table.add_row("mean", f"{rate:g}", *(text_of(row) for row in means.values()), style="bold")
    wide_console().print(table)
    if blind:
        write_blind_page(blind, f"Music at {page_kbps:g} kb/s", page_sounds, RATE_HZ)
    if figure:
        draw(figure, shown)
    if page:
        page.write_text(PAGE.replace("$parts", "\n".join(parts)), "utf-8")


def text_of(row: Row) -> str:
    """Figures as text."""
    return f"{row[0]:.1f}, {row[1]:.2f}, {row[2]:.2f}, {row[3]:.1f}"


def by_nacre(codec: nacre.MusicCodec, wave: Array, rate: float) -> tuple[Array, float]:
    """Decoded [2, N] and the rate of the file."""
    data = codec.encode(wave, RATE_HZ, bitrate_kbps=rate)
    return codec.decode(data)[0], kbps(len(data), wave.shape[1] / RATE_HZ)


def by_peer(wave: Array, rate: float, name: str, container: str) -> tuple[Array, float]:
    """Decoded [2, N], in time with wave, and the rate of its packets."""
    if not name:
        return by_vorbis(wave, rate)
    size, length = 0, wave.shape[1]
    with NamedTemporaryFile(suffix=f".{container}") as file:
        with av.open(file.name, "w", container) as output:
            stream: Any = output.add_stream(name, RATE_HZ, layout="stereo")
            stream.bit_rate = round(1000 * rate)
            if name == "libopus":
                stream.codec_context.options = {"vbr": "on", "compression_level": "10", "application": "audio"}
            samples = np.clip(wave, -1, 1).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            frame.sample_rate = RATE_HZ
            resampler = av.AudioResampler(
                stream.codec_context.format, "stereo", RATE_HZ, stream.codec_context.frame_size
            )
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                for packet in stream.encode(piece):
                    size += packet.size
                    output.mux(packet)
        with av.open(file.name) as source:
            blocks = [_planes(frame) for frame in source.decode(audio=0)]
    decoded = np.concatenate(blocks, 1)
    return in_time(wave, decoded)[:, :length], kbps(size, length / RATE_HZ)


def by_vorbis(wave: Array, rate: float) -> tuple[Array, float]:
    """By libvorbis, at the quality whose rate, without its headers, is nearest."""
    low, high, length_s = 0.0, 1.0, wave.shape[1] / RATE_HZ
    for _ in range(VORBIS_TRIES):
        level = (low + high) / 2  # 0 is the best
        data, empty = (_vorbis(each, level) for each in (wave, wave[:, :64]))
        got = kbps(len(data) - len(empty), length_s)
        low, high = (level, high) if got > rate else (low, level)
    decoded, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return in_time(wave, decoded.T)[:, : wave.shape[1]], got


def _vorbis(wave: Array, level: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave.T, RATE_HZ, format="OGG", subtype="VORBIS", compression_level=level)
    return file.getvalue()


def _planes(frame: Any) -> Array:
    samples = frame.to_ndarray()
    scale = 32768 if samples.dtype == np.int16 else 1
    wide = samples if frame.format.is_planar else samples.reshape(-1, 2).T
    return wide.astype(np.float32) / scale


def in_time(wave: Array, decoded: Array, most: int = 4096) -> Array:
    """Decoded sound moved to where it correlates best with wave, and as long."""
    size = 1 << int(np.ceil(np.log2(wave.shape[1] + decoded.shape[1])))
    spectra = [np.fft.rfft(each.mean(0), size) for each in (wave, decoded)]
    product = np.fft.irfft(spectra[1] * np.conj(spectra[0]), size)
    late = max(range(-most, most), key=lambda shift: product[shift])
    moved = decoded[:, late:] if late > 0 else np.pad(decoded, ((0, 0), (-late, 0)))
    return np.pad(moved, ((0, 0), (0, max(0, wave.shape[1] - moved.shape[1]))))


def judged(wave: Array, sound: Array) -> Row:
    """ViSQOL, log-mel distance, signal over difference."""
    sound = sound[:, : wave.shape[1]]
    near = [np.abs(log_mel(one) - log_mel(two)).mean() for one, two in zip(wave, sound, strict=True)]
    ratio = 10 * np.log10(np.square(wave).sum() / np.square(wave - sound).sum())
    score = visqol().measure_from_arrays(wave.mean(0).astype(float), sound.mean(0).astype(float), RATE_HZ).moslqo
    return float(score), float(np.mean(near)), float(ratio)


@cache
def visqol() -> Any:
    """In audio mode."""
    from visqol import VisqolApi

    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = VisqolApi()
    api.create(mode="audio")
    return api


@cache
def bank(bands: int = 96, top_hz: float = 20_000) -> Array:
    """Triangles [bins, bands] over windows of 2048."""
    hz = np.fft.rfftfreq(2048, 1 / RATE_HZ)
    mel, edges = 2595 * np.log10(1 + hz / 700), np.linspace(0, 2595 * np.log10(1 + top_hz / 700), bands + 2)
    rising = (mel[:, None] - edges[:-2]) / np.diff(edges[:-1])
    falling = (edges[2:] - mel[:, None]) / np.diff(edges[1:])
    bands = np.maximum(0, np.minimum(rising, falling))
    return bands / (bands.sum(0) + 1e-9)


def log_mel(wave: Array) -> Array:
    """wave [N] -> dB [T, bands]."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, 1024), 2048)[::512] * np.hanning(2048)
    return 10 * np.log10(np.square(np.abs(np.fft.rfft(frames))) / 2048 @ bank() + 1e-7)


def section(name: str, sounds: dict[str, tuple[Array, float]], figures: dict[str, Row]) -> str:
    """Players and spectrograms of one clip."""
    cells = []
    for codec, (wave, rate) in sounds.items():
        with NamedTemporaryFile(suffix=".flac") as file:
            audio.write(Path(file.name), wave, RATE_HZ, overwrite=True)
            data = base64.b64encode(Path(file.name).read_bytes()).decode()
        facts = f"{rate:.1f} kb/s, ViSQOL {figures[codec][1]:.2f}" if codec in figures else ""
        cells.append(
            f"<figure><figcaption><b>{codec}</b> {facts}</figcaption><img src='{picture(wave)}' alt=''>"
            f"<audio controls preload=none src='data:audio/flac;base64,{data}'></audio></figure>"
        )
    return f"<h2>{html.escape(name)}</h2><div class=row>{''.join(cells)}</div>"


def draw(path: Path, shown: dict[str, list[tuple[str, Array]]]) -> None:
    """Spectrograms to 24 kHz: a row for each clip."""
    from matplotlib.figure import Figure

    rows = list(shown.items())
    figure = Figure(figsize=(11, 1.9 * len(rows)), dpi=60, layout="constrained")
    for (clip, sounds), row in zip(rows, figure.subplots(len(rows), 3, squeeze=False, sharey=True), strict=True):
        row[0].set_ylabel(f"{clip.split('.')[0]}, kHz", fontsize=8)
        for (name, wave), axes in zip(sounds, row, strict=True):
            axes.set_title(name, loc="left", fontsize=8)
            spectrum(axes, wave)
    figure.savefig(path)


def spectrum(axes: Any, wave: Array) -> None:
    """The mean of the channels of wave [2, N] as a picture."""
    frames = np.lib.stride_tricks.sliding_window_view(wave.mean(0), 2048)[::480] * np.hanning(2048)
    level_db = 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-6)
    axes.imshow(level_db, origin="lower", aspect="auto", extent=(0, len(wave[0]) / RATE_HZ, 0, 24), vmin=-50, vmax=40)


def picture(wave: Array) -> str:
    """Spectrogram to 24 kHz as an address."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 2), dpi=80, layout="constrained")
    axes = figure.subplots()
    spectrum(axes, wave)
    axes.set_ylabel("kHz")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


PAGE = """<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Music by nacre and others at equal bytes</title>
<style>body{font:15px system-ui;margin:1em;max-width:110em}.row{display:flex;flex-wrap:wrap;gap:.8em}
figure{margin:0;width:20em}img,audio{width:100%}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}</style>
<h1>Music by nacre and others at equal bytes</h1>$parts</html>
"""


if __name__ == "__main__":
    typer.run(main)
