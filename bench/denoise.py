"""PESQ-WB, ESTOI, SI-SDR and DNSMOS of noisy speech, as it is, by spectral gating, and by `nacre denoise`.

Where the model has a denoiser, what its encoder's levels for cleaning make of the same sound stands beside. Needs
nacre[evaluate]; spectral gating, the classical baseline, is noisereduce (MIT), left out where it is not installed.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console, workers
from rich.progress import track
from rich.table import Table

from nacre.evaluate.choice import find_clips
from nacre.io import audio

LONGEST_S = 6.0  # of each clip
KINDS = ("recorded", "babble", "white")
WAYS = ("noisy", "gating", "levels", "nacre")
METRICS = ("pesq_wb", "estoi", "si_sdr_db", "dnsmos")
CLEAN = 99.0  # dB, no noise at all


def noise_of(kind: str, clip: int, samples: int, noises: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
    """Noise [N]: one of the recordings, four other clips at once, or white."""
    rng = np.random.default_rng([clip, KINDS.index(kind)])
    if kind == "white":
        return rng.standard_normal(samples)
    if kind == "recorded":
        return np.resize(np.roll(noises[clip % len(noises)], -int(rng.integers(20_000))), samples)
    chosen = rng.choice(len(others), 4, replace=False)
    return sum(np.resize(others[index], samples) / others[index].std() for index in chosen)


def mono(path: Path) -> np.ndarray:
    wave, rate_hz = audio.read(path)
    assert rate_hz == RATE_HZ, rate_hz
    return wave.mean(0)


def ways_of(codec) -> list[str]:
    """Which of WAYS there are."""
    both = codec.model.denoiser is not None and codec.config.cleans
    there = {"gating": importlib.util.find_spec("noisereduce") is not None, "levels": both}
    return [way for way in WAYS if there.get(way, True)]


def cleaned(way: str, codec, noisy: np.ndarray) -> np.ndarray:
    """noisy [N] as a way leaves it."""
    from nacre import Codec
    from nacre.tools.denoise import denoise

    if way == "gating":
        import noisereduce

        return noisereduce.reduce_noise(y=noisy, sr=RATE_HZ, n_jobs=1).astype(np.float32)
    if way == "levels":
        codec = Codec(dataclasses.replace(codec.model, denoiser=None))
    return noisy if way == "noisy" else denoise(codec, noisy, RATE_HZ)


def clip_rows(index: int, data: Path, clip: str, others: list[str], noise: list[Path], model: str, snrs: list[float]):
    """Rows of one clip."""
    from nacre import load
    from nacre.evaluate.measures import Sound, dnsmos, intelligibility, pesq_wb, si_sdr_db

    codec, rows = load(model), []
    wave = mono(data / clip)[: round(LONGEST_S * RATE_HZ)]
    wave = wave * np.float32(0.05 / wave.std())
    original = Sound(wave)
    voices, noises = [mono(data / other) for other in others if other != clip], [mono(path) for path in noise]
    for kind in KINDS:
        sound = noise_of(kind, index, len(wave), noises, voices)
        for snr in snrs:
            noisy = wave + np.float32(10 ** (-snr / 20) * wave.std() / sound.std()) * sound.astype(np.float32)
            for way in ways_of(codec):
                started = time.process_time()
                denoised = cleaned(way, codec, noisy)
                speed = len(wave) / RATE_HZ / max(1e-6, time.process_time() - started)
                got = Sound(np.clip(denoised, -1, 1))
                figures = {
                    "pesq_wb": pesq_wb(original, got),
                    "estoi": intelligibility(original, got, True),
                    "si_sdr_db": si_sdr_db(original, got),
                    "dnsmos": dnsmos(original, got),
                }
                rows.append({"clip": clip, "noise": kind, "snr_db": snr, "way": way} | figures | {"speed": speed})
    return rows


def main(
    data: Annotated[Path, typer.Option(help="folder of clean speech")],
    noise: Annotated[Path, typer.Option(help="folder of noise that training never had")],
    out: Annotated[Path, typer.Option(help="CSV of all figures")] = Path("denoise.csv"),
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    snrs: Annotated[str, typer.Option(help="dB; 99 is no noise at all")] = "-5,0,5,10,15,99",
    clips: Annotated[int, typer.Option(help="how many, spread over the folder")] = 20,
    jobs: Annotated[int, typer.Option(help="processes")] = 2,
) -> None:
    """Mix each clip with three kinds of noise and denoise it; one row of the CSV each, means in the table."""
    chosen, noises = find_clips(data, clips), sorted(noise.rglob("*.flac"))
    work = partial(clip_rows, data=data, others=chosen, noise=noises, model=str(model), snrs=numbers(snrs))
    with workers(jobs) as pool:
        futures = [pool.submit(work, index, clip=clip) for index, clip in enumerate(chosen)]
        rows = [row for one in track(futures, "clips") for row in one.result()]
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = Table(title=f"{len(chosen)} clips, mean of {', '.join(METRICS)}")
    ways = [way for way in WAYS if any(row["way"] == way for row in rows)]
    for head in ("noise", "SNR dB", *ways, "x real time"):
        table.add_column(head)
    for kind in (*KINDS, "all"):
        for snr in numbers(snrs):
            cells = []
            for way in ways:
                mine = [r for r in rows if r["way"] == way and r["snr_db"] == snr and kind in (r["noise"], "all")]
                means = [float(np.mean([row[name] for row in mine])) for name in METRICS]
                cells.append("{:.2f} {:.3f} {:.1f} {:.2f}".format(*means))
            speed = np.mean([row["speed"] for row in mine])
            table.add_row(kind, "clean" if snr == CLEAN else f"{snr:g}", *cells, f"{speed:.0f}")
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
