"""What the benchmarks share; they choose and read clips as `nacre evaluate` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from nacre.batch.pool import start_pool
from nacre.core.errors import NacreError
from nacre.evaluate.choice import find_clips
from nacre.evaluate.programs import one_thread
from nacre.evaluate.tables import wide_console
from nacre.evaluate.work import RATE_HZ
from nacre.io.audio import AudioReader, mono_blocks

__all__ = ["RATE_HZ", "looped_speech", "numbers", "wide_console", "workers"]


def workers(jobs: int) -> ProcessPoolExecutor:
    """Fresh processes that see one-thread settings before any library starts its threads."""
    os.environ.update(one_thread())
    return start_pool(jobs, None, "spawn")


def numbers(text: str) -> list[float]:
    """'1.5,3' -> [1.5, 3.0]; '' -> []."""
    return [float(part) for part in text.split(",") if part.strip()]


def looped_speech(folder: Path, seconds: float, rate_hz: int = RATE_HZ) -> Iterator[np.ndarray]:
    """Blocks [N] float32 of the folder's clips one after another, started again as often as it takes."""
    try:
        clips, left = find_clips(folder, None), round(seconds * rate_hz)
        while left > 0:
            for clip in clips:
                with AudioReader(folder / clip) as reader:
                    for block in mono_blocks(reader, rate_hz):
                        yield block[:left]
                        left -= len(block[:left])
                if left <= 0:
                    return
    except NacreError as error:
        raise SystemExit(f"error: {error}") from error
