"""Spectrograms of clips as recorded and as coded, with windows of 32 and of 128 ms: what a spectrum shows of a buzz.

The short window shows how sound moves, the long one shows lines: harmonics of a voice, and combs that a codec made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ

from nacre import load
from nacre.evaluate import peers
from nacre.io import audio

WINDOWS = (512, 2048)
RANGE_DB = 70.0


def spectrogram_db(wave: np.ndarray, window: int) -> np.ndarray:
    """wave [N] -> power in dB [bins, T], windows an eighth of their length apart."""
    padded = np.pad(wave, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 8] * np.hanning(window)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-6)


def coded(clip: np.ndarray, models: list[str], peer_names: list[str], kbps: float) -> dict[str, np.ndarray]:
    """The recording [N], and what each codec makes of it."""
    sounds = {"recording": clip}
    for model in models:
        codec = load(model)
        label = f"nacre {codec.bundle.fingerprint.hex()}, {kbps:g} kb/s"
        sounds[label] = codec.decode(codec.encode(clip, RATE_HZ, bitrate_kbps=kbps))[0][0]
    for peer in peers.choose(peer_names, []):
        result = peer.code(clip, kbps)
        sounds[f"{peer.name}, {8e-3 * result.payload_bytes * RATE_HZ / len(clip):.1f} kb/s"] = result.wave
    return sounds


def draw(rows: dict[str, np.ndarray], title: str, out: Path) -> None:
    """One picture: a row for each codec, a column for each window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), len(WINDOWS), figsize=(13, 2.1 * len(rows)), squeeze=False, sharex=True)
    for row, (label, wave) in zip(axes, rows.items(), strict=True):
        for axis, window in zip(row, WINDOWS, strict=True):
            power = spectrogram_db(wave, window)
            top = power.max()
            extent = (0, len(wave) / RATE_HZ, 0, RATE_HZ / 2000)
            axis.imshow(
                power, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE_DB, vmax=top, extent=extent
            )
            axis.set_title(f"{label}: window {1000 * window // RATE_HZ} ms", fontsize=8, loc="left")
            axis.tick_params(labelsize=7)
    figure.suptitle(f"{title} (kHz over seconds)", fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 80})
    plt.close(figure)


def main(
    clips: Annotated[list[Path], typer.Argument(help="Recordings; the first two seconds from --start are drawn.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    model: Annotated[list[str] | None, typer.Option(help="Model name or folder; several allowed.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Other codecs, as in nacre evaluate.")] = None,
    kbps: Annotated[float, typer.Option(help="Target rate of all codecs.")] = 6.0,
    start: Annotated[float, typer.Option(help="Seconds to leave out before.")] = 0.3,
) -> None:
    """Draw clips as recorded and as coded."""
    out.mkdir(parents=True, exist_ok=True)
    for path in clips:
        wave, rate_hz = audio.read(path)
        clip = audio.resampled(wave.mean(0), rate_hz, RATE_HZ)
        rows = coded(clip, model or ["speech-16k"], peer or [], kbps)
        part = slice(round(start * RATE_HZ), round((start + 2) * RATE_HZ))
        draw({label: sounds[part] for label, sounds in rows.items()}, path.stem, out / f"{path.stem}.jpg")
        typer.echo(out / f"{path.stem}.jpg")


if __name__ == "__main__":
    typer.run(main)
