"""The bundled speech at several rates: files to compare, a table, and one page with players and spectrograms.

clips/*.flac -> encode -> name-rate.nacre -> decode -> name-rate.wav
                                all of them -> index.html, with sound and pictures inside, for use offline
"""

from __future__ import annotations

import struct
import tempfile
import time
import zlib
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from nacre import audio
from nacre.codec import Codec, load
from nacre.errors import AudioError, UsageError
from nacre.units import kbps

Array = np.ndarray[Any, np.dtype[Any]]

CLIPS = Path(__file__).with_name("clips")
NEXT = "<!-- next template"  # page, recording and row are three templates in one file
CLIP_RATE_HZ = 16_000
WINDOW_SAMPLES = 640  # bins of 25 Hz: wide enough to part the harmonics of a voice
COLUMNS, ROWS = 600, 160  # a row is two bins, 50 Hz
RANGE_DB = 80.0
SHADES = 64
ANCHORS = "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"  # dark to bright, equal steps in lightness


@dataclass(frozen=True)
class Clip:
    """One of the package's recordings: wave [1, N] float32 at 16 kHz, and the file it is from."""

    name: str
    origin: str
    flac: bytes
    wave: Array

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.wave[0]) / CLIP_RATE_HZ

    @property
    def pcm_bytes(self) -> int:
        """Size as 16-bit samples."""
        return 2 * len(self.wave[0])


@dataclass(frozen=True)
class Coded:
    """A clip at one rate: the `.nacre` file, what it decodes to [1, N], and the time both took."""

    clip: Clip
    asked_kbps: float
    data: bytes
    wave: Array
    encode_s: float
    decode_s: float

    @property
    def stem(self) -> str:
        """File name without a suffix."""
        return f"{self.clip.name}-{self.asked_kbps:g}"

    @property
    def rate_kbps(self) -> float:
        """Measured rate of the file."""
        return kbps(len(self.data), self.clip.duration_s)

    @property
    def times_smaller(self) -> float:
        """16-bit samples over the file."""
        return self.clip.pcm_bytes / len(self.data)


def run(out: Path, bitrates: list[float], model: str, force: bool) -> Path:
    """Code the clips at these rates into the folder `out`; gives the page. Nothing is written before all is coded.

    Raises UsageError for rates the model lacks, AudioError where `out` is in use and `force` is not given.
    """
    _check_free(out, force)
    codec = load(model)
    rates = sorted({f"{rate:g}": rate for rate in bitrates}.values())  # one file name, one rate
    if not rates:
        raise UsageError("bitrates", found="none", wanted="numbers with commas, such as 1.5,3,6")
    for rate in rates:
        codec.rate_plan(1, rate, None)
    clips = read_clips()
    coded = _code(codec, clips, rates)
    page = _page(codec, clips, coded).encode()
    _write(out, clips, coded, page)
    Console(highlight=False).print(_table(coded))
    return out / "index.html"


def read_clips() -> list[Clip]:
    """The recordings in the package, by name."""
    lines = (CLIPS / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    origins = {name: ", ".join(facts) for name, *facts in cells}
    return [_clip(path, origins.get(path.name, "")) for path in sorted(CLIPS.glob("*.flac"))]


def _clip(path: Path, origin: str) -> Clip:
    wave, rate_hz = audio.read(path)
    assert (len(wave), rate_hz) == (1, CLIP_RATE_HZ), path
    return Clip(path.stem, origin, path.read_bytes(), wave)


def _check_free(out: Path, force: bool) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise AudioError(str(out), found="a file", wanted="a folder", next="choose another name")
        used = out.exists() and any(out.iterdir())
    except OSError as error:
        raise AudioError(str(out), found=error.strerror, wanted="a folder that may be read and written") from error
    if used and not force:
        raise AudioError(
            str(out),
            found="a folder that is not empty",
            wanted="a new or an empty one",
            next="use --force to write into it",
        )


def _code(codec: Codec, clips: list[Clip], rates: list[float]) -> list[Coded]:
    say = Console(stderr=True, highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    first_s = clips[0].wave[:, :CLIP_RATE_HZ]
    codec.decode(codec.encode(first_s, CLIP_RATE_HZ, bitrate_kbps=rates[0]))  # a first run is slow; not timed
    coded = []
    with Progress(*columns, console=say, disable=not say.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=len(clips) * len(rates))
        for clip in clips:
            for rate in rates:
                bar.update(task, description=f"{clip.name} at {rate:g} kb/s")
                coded.append(_code_one(codec, clip, rate))
                bar.advance(task)
    return coded


def _code_one(codec: Codec, clip: Clip, rate_kbps: float) -> Coded:
    start_s = time.perf_counter()
    data = codec.encode(clip.wave, CLIP_RATE_HZ, bitrate_kbps=rate_kbps)
    middle_s = time.perf_counter()
    wave, _ = codec.decode(data)  # [1, N]
    return Coded(clip, rate_kbps, data, wave, middle_s - start_s, time.perf_counter() - middle_s)


def _write(out: Path, clips: list[Clip], coded: list[Coded], page: bytes) -> None:
    """All files, the page last: where it is, the rest is whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wanted = "a folder that may be written"
        raise AudioError(str(out), found=error.strerror, wanted=wanted, next="choose another place") from error
    for clip in clips:
        _write_bytes(out / f"{clip.name}.flac", clip.flac)
    for item in coded:
        _write_bytes(out / f"{item.stem}.nacre", item.data)
        audio.write(out / f"{item.stem}.wav", item.wave, CLIP_RATE_HZ, overwrite=True)
    _write_bytes(out / "index.html", page)


def _write_bytes(path: Path, data: bytes) -> None:
    with audio.output_file(path, overwrite=True) as file:
        file.write(data)


def _table(coded: list[Coded]) -> Table:
    table = Table("clip", box=None)
    for name in ("asked kb/s", "bytes", "measured kb/s", "times smaller", "encode", "decode"):
        table.add_column(name, justify="right")
    for before, item in zip([None, *coded], coded, strict=False):
        duration_s = item.clip.duration_s
        table.add_row(
            item.clip.name if before is None or before.clip is not item.clip else "",
            f"{item.asked_kbps:g}",
            str(len(item.data)),
            f"{item.rate_kbps:.2f}",
            f"{item.times_smaller:.0f}",
            f"{duration_s / item.encode_s:.0f} x",
            f"{duration_s / item.decode_s:.0f} x",
        )
    table.caption = "smaller than 16-bit samples; speeds in times real time"
    return table


def _page(codec: Codec, clips: list[Clip], coded: list[Coded]) -> str:
    page, section, row = _templates()
    sections = []
    for clip in clips:
        of_clip = [item for item in coded if item.clip is clip]
        loudest_db = float(spectrum_db(clip.wave[0]).max())
        facts = {"name": escape(clip.name), "seconds": f"{clip.duration_s:.1f}", "width": COLUMNS, "height": ROWS}
        rows = [_original_facts(clip), *map(_coded_facts, of_clip)]
        sounds = [(clip.flac, clip.wave), *((_flac(item.wave), item.wave) for item in of_clip)]
        filled = [
            row.substitute(facts, **texts, sound=_base64(flac), picture=_base64(spectrogram(wave[0], loudest_db)))
            for texts, (flac, wave) in zip(rows, sounds, strict=True)
        ]
        sections.append(section.substitute(name=facts["name"], origin=escape(clip.origin), rows="".join(filled)))
    return page.substitute(
        model=escape(codec.bundle.name),
        fingerprint=codec.bundle.fingerprint.hex(),
        count=len(clips),
        rates=", ".join(dict.fromkeys(f"{item.asked_kbps:g}" for item in coded)),
        links=" ".join(f'<a href="#{escape(clip.name)}">{escape(clip.name)}</a>' for clip in clips),
        clips="".join(sections),
    )


def _templates() -> list[Template]:
    """Templates of the page, of a recording and of a row."""
    first, *others = Path(__file__).with_name("demo.html").read_text(encoding="utf-8").split(NEXT)
    return [Template(first), *(Template(text.partition("-->\n")[2]) for text in others)]


def _original_facts(clip: Clip) -> dict[str, str]:
    numbers = f"{clip.pcm_bytes:,} bytes = {kbps(clip.pcm_bytes, clip.duration_s):.0f} kb/s as 16-bit samples"
    return {"label": "Original", "spoken": "original", "numbers": numbers}


def _coded_facts(item: Coded) -> dict[str, str]:
    label = f"{item.asked_kbps:g} kb/s"
    numbers = f"{len(item.data):,} bytes = {item.rate_kbps:.2f} kb/s, {item.times_smaller:.0f} times smaller"
    return {"label": label, "spoken": f"coded at {label}", "numbers": numbers}


def _flac(wave: Array) -> bytes:
    """wave [C, N] as the bytes of a FLAC file, which every browser plays and which is half the size of WAV."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.flac"
        audio.write(path, wave, CLIP_RATE_HZ)
        return path.read_bytes()


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def spectrum_db(wave: Array) -> Array:
    """Level [ROWS, COLUMNS] in dB of wave [N] at 16 kHz: 8 kHz in the first row, the whole length across."""
    padded = np.pad(wave.astype(np.float64), WINDOW_SAMPLES // 2)
    starts = np.linspace(0, len(wave), COLUMNS, endpoint=False).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[starts]  # [COLUMNS, WINDOW_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES))) ** 2
    rows = power[:, 1:].reshape(COLUMNS, ROWS, -1).mean(2)  # without the bin at 0 Hz
    level_db: Array = 10 * np.log10(rows + 1e-12)
    return level_db.T[::-1]


def spectrogram(wave: Array, loudest_db: float) -> bytes:
    """A PNG picture of wave [N]: `loudest_db` is the brightest shade, RANGE_DB below it the darkest."""
    share = 1 + (spectrum_db(wave) - loudest_db) / RANGE_DB
    return png(np.clip(share * (SHADES - 1), 0, SHADES - 1).round().astype(np.uint8), palette())


def palette() -> Array:
    """Colours [SHADES, 3] uint8 from dark to bright, between the anchors in straight lines."""
    anchors = np.array([list(bytes.fromhex(code)) for code in ANCHORS.split()])  # [A, 3]
    places = np.linspace(0, len(anchors) - 1, SHADES)
    mixed = [np.interp(places, range(len(anchors)), column) for column in anchors.T]
    return np.stack(mixed, 1).round().astype(np.uint8)


def png(pixels: Array, colours: Array) -> bytes:
    """A PNG file of pixels [height, width] uint8 that index colours [A, 3] uint8."""
    assert pixels.dtype == colours.dtype == np.uint8, (pixels.dtype, colours.dtype)
    height, width = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line starts with its filter, 0 for none
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, palette
    parts = (b"IHDR", head), (b"PLTE", colours.tobytes()), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(name, data) for name, data in parts)


def _png_part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
