"""What a page that needs no network is made of: spectrograms, sound and style as text inside it."""

from __future__ import annotations

import struct
import tempfile
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from nacre.io import audio

Array = np.ndarray[Any, np.dtype[Any]]

WINDOW_SAMPLES = 640  # at 16 kHz bins of 25 Hz: wide enough to part the harmonics of a voice
COLUMNS, ROWS = 600, 160  # a row is two bins
RANGE_DB = 80.0
SHADES = 64
ANCHORS = "000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"  # dark to bright, equal steps in lightness
ONE_PLAYER = """addEventListener("play", event => {
  if (event.target.paused) return;
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
}, true);"""  # starting one player stops the others; an event that comes too late does nothing


def style() -> str:
    """Colours, light and dark, and type that all pages share."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def sound_uri(wave: Array, rate_hz: int) -> str:
    """wave [C, N] as a data: address."""
    return data_uri("audio/flac", flac(wave, rate_hz))


def data_uri(kind: str, data: bytes) -> str:
    """`data` of this media type as an address that holds it."""
    return f"data:{kind};base64,{b64encode(data).decode()}"


def flac(wave: Array, rate_hz: int) -> bytes:
    """wave [C, N] as the bytes of a FLAC file, which every browser plays and which is half the size of WAV."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.flac"
        audio.write(path, wave, rate_hz)
        return path.read_bytes()


def spectrum_db(wave: Array, columns: int = COLUMNS) -> Array:
    """Level [ROWS, columns] in dB of wave [N]: half its sample rate in the first row, the whole length across."""
    padded = np.pad(wave.astype(np.float64), WINDOW_SAMPLES // 2)
    starts = np.linspace(0, len(wave), columns, endpoint=False).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[starts]  # [columns, WINDOW_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES))) ** 2
    rows = power[:, 1:].reshape(columns, ROWS, -1).mean(2)  # without the bin at 0 Hz
    level_db: Array = 10 * np.log10(rows + 1e-12)
    return level_db.T[::-1]


def spectrogram(level_db: Array, loudest_db: float) -> bytes:
    """A PNG picture of a `spectrum_db`: `loudest_db` is the brightest shade, RANGE_DB below it the darkest."""
    share = 1 + (level_db - loudest_db) / RANGE_DB
    return png(np.clip(share * (SHADES - 1), 0, SHADES - 1).round().astype(np.uint8), palette())


def palette(anchors: str = ANCHORS, shades: int = SHADES) -> Array:
    """Colours [shades, 3] uint8 from the first anchor to the last, between them in straight lines."""
    colours = np.array([list(bytes.fromhex(code)) for code in anchors.split()])  # [A, 3]
    places = np.linspace(0, len(colours) - 1, shades)
    mixed = [np.interp(places, range(len(colours)), column) for column in colours.T]
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
