"""Hissing sounds after coding, frame by frame over many clips: level, flatness, flicker, repeats.

The measures are those of `nacre evaluate` (nacre.evaluate.hiss), here as means over all frames instead of over clips.
Flatness is that of a frame's spectrum: below 0 dB a frame is more tonal than in life.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console
from rich.progress import track
from rich.table import Table

from nacre import load
from nacre.evaluate.choice import find_clips
from nacre.evaluate.hiss import again, band_db, changes_db, hissing, level_db
from nacre.io import audio


def main(
    data: Annotated[Path, typer.Option(help="Folder of validation clips.")],
    model: Annotated[list[str] | None, typer.Option(help="Model name or folder; several allowed.")] = None,
    bitrates: Annotated[str, typer.Option(help="kb/s, with commas.")] = "1.5,3,6,9",
    prior: Annotated[str, typer.Option(help="context or static.")] = "context",
    clips: Annotated[int, typer.Option(help="How many, spread over the folder.")] = 36,
) -> None:
    """Means over hissing frames: decoded less original, and flicker as a ratio."""
    names = find_clips(data, clips)
    table = Table("model", "kb/s", "level, dB", "flatness, dB", "flicker", "repeats", "frames")
    for name in model or ["speech-16k"]:
        codec = load(name)
        for rate in track(numbers(bitrates), f"coding by {name}"):
            level, flat, flicker, still, repeats = [], [], [], [], []
            for clip in names:
                wave, rate_hz = audio.read(data / clip)
                assert rate_hz == RATE_HZ, rate_hz
                decoded, _ = codec.decode(codec.encode(wave, rate_hz, bitrate_kbps=rate, prior=prior))
                true, got = band_db(wave[0]), band_db(decoded[0])
                loud, hisses = level_db(true), hissing(true)
                level += (level_db(got) - loud)[hisses].tolist()
                flat += (got.mean(1) - level_db(got) - (true.mean(1) - loud))[hisses].tolist()
                both = hisses[1:] & hisses[:-1]
                flicker += changes_db(got, both).tolist()
                still += changes_db(true, both).tolist()
                repeats += again(decoded[0], hisses, codec.config.hop_samples)
            ratio = np.mean(flicker) / np.mean(still)
            row = (f"{rate:g}", f"{np.mean(level):+.2f}", f"{np.mean(flat):+.2f}", f"{ratio:.2f}")
            row = (*row, f"{np.mean(repeats):.2f}", str(len(level)))
            table.add_row(name, *row)
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
