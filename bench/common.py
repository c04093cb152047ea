"""What the benchmarks share: clips and single-threaded workers."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr
from rich.console import Console

RATE_HZ = 16_000
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


def numbers(text: str) -> list[float]:
    """'1.5,3' -> [1.5, 3.0]; '' -> []."""
    return [float(part) for part in text.split(",") if part.strip()]


def audio_files(folder: Path) -> list[Path]:
    """Sound files below `folder` by name."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise SystemExit(f"no sound files below {folder}")
    return files


def read_clip(path: Path, rate_hz: int = RATE_HZ) -> np.ndarray:
    """-> [N] float32, channels mixed, resampled where the file has another rate."""
    wave, file_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)
    return mono if file_hz == rate_hz else soxr.resample(mono, file_hz, rate_hz, "VHQ").astype(np.float32)


def looped_speech(folder: Path, seconds: float, rate_hz: int = RATE_HZ) -> Iterator[np.ndarray]:
    """Blocks [N] float32 of the folder's clips one after another, started again as often as it takes."""
    files, left = audio_files(folder), round(seconds * rate_hz)
    while left > 0:
        for path in files:
            block = read_clip(path, rate_hz)[:left]
            left -= len(block)
            yield block
            if left <= 0:
                return


def wide_console() -> Console:
    """Tables keep their columns when the output goes to a file or a narrow terminal."""
    return Console(width=max(110, Console().width))


def workers(jobs: int) -> ProcessPoolExecutor:
    """Fresh processes that see one-thread settings before any library starts its threads."""
    os.environ.update(ONE_THREAD)
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
