"""How noise-like hissing sounds still are after coding, between 4 and 8 kHz, decoded against original.

Counted are frames of 32 ms in which the original hisses: strong there, and flat. Flatness is that of a frame's
spectrum: below 0 dB a frame is more tonal than in life. Flicker is how much a bin changes from frame to frame: below 1
hiss stands still where in life it would swarm. Repeats is the correlation of the band's wave with itself 20 ms later,
one frame of latents: 0 in life, 1 for a wave that comes again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console
from rich.progress import track
from rich.table import Table
from scipy.signal import butter, sosfiltfilt

from nacre import audio, load
from nacre.evaluate.choice import find_clips

WINDOW = 512
BAND = slice(128, 250)  # bins of 4 to 7.8 kHz
FLAT_DB, BELOW_LOUDEST_DB = -4.0, 35.0


def band_db(wave: np.ndarray) -> np.ndarray:
    """wave [N] -> power in dB of the band's bins [T, bins], of windows that do not overlap."""
    frames = wave[: len(wave) // WINDOW * WINDOW].reshape(-1, WINDOW) * np.hanning(WINDOW)
    return 10 * np.log10(np.abs(np.fft.rfft(frames)[:, BAND]) ** 2 + 1e-12)


def level_db(band: np.ndarray) -> np.ndarray:
    """Mean power of a band [T, bins] in dB [T]."""
    return 10 * np.log10((10 ** (band / 10)).mean(1))


def again(wave: np.ndarray, hisses: np.ndarray, later: int) -> list[float]:
    """Correlation of wave [N], the band of it, with itself `later` samples on, of each frame that hisses."""
    high = sosfiltfilt(butter(6, 4000, "high", fs=RATE_HZ, output="sos"), wave)
    found = []
    for start in np.flatnonzero(hisses) * WINDOW:
        here, there = high[start : start + WINDOW], high[start + later : start + later + WINDOW]
        if len(there) == WINDOW:
            found.append(float(here @ there / np.sqrt((here @ here) * (there @ there) + 1e-12)))
    return found


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
                true, found = band_db(wave[0]), band_db(decoded[0])
                loud = level_db(true)
                hisses = (true.mean(1) - loud > FLAT_DB) & (loud > loud.max() - BELOW_LOUDEST_DB)
                level += (level_db(found) - loud)[hisses].tolist()
                flat += (found.mean(1) - level_db(found) - (true.mean(1) - loud))[hisses].tolist()
                both = hisses[1:] & hisses[:-1]
                flicker += np.abs(np.diff(found, axis=0))[both].mean(1).tolist()
                still += np.abs(np.diff(true, axis=0))[both].mean(1).tolist()
                repeats += again(decoded[0], hisses, codec.config.hop_samples)
            ratio = np.mean(flicker) / np.mean(still)
            row = (f"{rate:g}", f"{np.mean(level):+.2f}", f"{np.mean(flat):+.2f}", f"{ratio:.2f}")
            row = (*row, f"{np.mean(repeats):.2f}", str(len(level)))
            table.add_row(name, *row)
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
