"""PESQ-WB and ESTOI of speech with gaps, as left, as repeated, and as concealed; CPU speed. Needs nacre[evaluate]."""

from __future__ import annotations

import csv
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console
from rich.progress import track
from rich.table import Table

from nacre import load
from nacre.evaluate.choice import find_clips
from nacre.evaluate.measures import Sound, intelligibility, pesq_wb
from nacre.io import audio
from nacre.tools.restore import conceal, spans

LONGEST_S = 6.0  # of each clip
RUN = 3.0  # gaps in a row on average, where losses come in bursts
WAYS = ("silence", "repeat", "causal", "conceal")


def pattern(random: np.random.Generator, count: int, share: float, bursty: bool) -> np.ndarray:
    """Which of `count` packets are lost: each by itself, or in runs by Gilbert's chain (1960); [count] bool."""
    leave = 1 / RUN if bursty else 1 - share
    enter = leave * share / (1 - share) if bursty else share
    lost, state = np.zeros(count, bool), False
    for index in range(1, count):  # the first is never lost
        state = random.random() < (1 - leave if state else enter)
        lost[index] = state
    return lost


def repeated(wave: np.ndarray, gaps: list[tuple[int, int]]) -> np.ndarray:
    """Each gap filled with the stretch of the same length before it."""
    wave = wave.copy()
    for start, stop in gaps:
        before = wave[max(0, 2 * start - stop) : start]
        wave[start:stop] = np.resize(before, stop - start) if len(before) else 0
    return wave


def silenced(wave: np.ndarray, gaps: list[tuple[int, int]]) -> np.ndarray:
    wave = wave.copy()
    for start, stop in gaps:
        wave[start:stop] = 0
    return wave


def by_opus(wave: np.ndarray, loss: float) -> np.ndarray:
    """Through Opus at 32 kb/s, so many percent of its packets of 20 ms lost by its own decoder, at random."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio.write(folder / "in.wav", wave[None], RATE_HZ)
        coding = ["opusenc", "--quiet", "--bitrate", "32", "--framesize", "20", "in.wav", "a.opus"]
        decoding = ["opusdec", "--quiet", "--rate", str(RATE_HZ), "--packet-loss", f"{loss:g}", "a.opus", "out.wav"]
        for command in (coding, decoding):
            subprocess.run(command, cwd=folder, check=True)
        return audio.read(folder / "out.wav")[0][0][: len(wave)]


def main(
    data: Annotated[Path, typer.Option(help="folder of speech")],
    out: Annotated[Path, typer.Option(help="CSV of all figures")] = Path("conceal.csv"),
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    gaps: Annotated[str, typer.Option(help="lengths in ms")] = "20,60,120,300",
    losses: Annotated[str, typer.Option(help="percent lost")] = "5,10,20,30",
    patterns: Annotated[str, typer.Option(help="random, bursty")] = "random,bursty",
    clips: Annotated[int, typer.Option(help="how many, spread over the folder")] = 20,
    opus: Annotated[bool, typer.Option(help="Opus's own concealment too; needs opus-tools")] = False,
) -> None:
    """Lose the same stretches of every clip for all ways; one row of the CSV each, means in the table."""
    codec, rows, by_loss = load(model), [], {}
    for index, clip in enumerate(track(find_clips(data, clips), "clips")):
        wave, rate_hz = audio.read(data / clip)
        assert rate_hz == RATE_HZ, rate_hz
        wave = wave.mean(0)[: round(LONGEST_S * RATE_HZ)]
        original = Sound(wave)
        for gap_ms in numbers(gaps):
            for loss in numbers(losses):
                for kind in patterns.split(","):
                    random = np.random.default_rng([index, round(gap_ms), round(loss)])
                    size = round(gap_ms / 1000 * RATE_HZ)
                    lost = np.flatnonzero(pattern(random, len(wave) // size, loss / 100, kind == "bursty")) * size
                    stretches = [(start / RATE_HZ, (start + size) / RATE_HZ) for start in lost.tolist()]
                    if not stretches:
                        continue
                    where = spans(stretches, len(wave), RATE_HZ)
                    for way in WAYS:
                        started = time.process_time()
                        if way in ("silence", "repeat"):
                            heard = (silenced if way == "silence" else repeated)(wave, where)
                        else:
                            heard = conceal(codec, wave, RATE_HZ, stretches, causal=way == "causal")
                        speed = len(wave) / RATE_HZ / max(1e-6, time.process_time() - started)
                        try:
                            got = Sound(heard)
                            figures = {"pesq_wb": pesq_wb(original, got), "estoi": intelligibility(original, got, True)}
                        except ValueError:  # too little speech
                            continue
                        row = {"clip": clip, "gap_ms": gap_ms, "loss": loss, "pattern": kind, "way": way}
                        rows.append(row | figures | {"speed": speed})
        for loss in [0.0, *numbers(losses)] if opus else ():
            got = Sound(by_opus(wave, loss))
            if len(got.wave) == len(wave):
                figures = {"pesq_wb": pesq_wb(original, got), "estoi": intelligibility(original, got, True)}
                by_loss.setdefault(loss, []).append(list(figures.values()))
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    show(rows)
    for loss, found in by_loss.items():
        figures = "PESQ-WB {:.2f}, ESTOI {:.3f}".format(*np.mean(found, 0))
        print(f"Opus at 32 kb/s, {loss:g} % of packets lost: {figures}, {len(found)} clips")


def show(rows: list[dict]) -> None:
    """Means, and how much of the way from silence to no loss each covers."""
    table = Table(title="PESQ-WB and ESTOI, in brackets the share of the gap between silence and no loss")
    for head in ("gap ms", "loss %", "pattern", "clips", *WAYS, "x real time"):
        table.add_column(head)
    for key in dict.fromkeys((row["gap_ms"], row["loss"], row["pattern"]) for row in rows):
        mine = [row for row in rows if (row["gap_ms"], row["loss"], row["pattern"]) == key]
        whole = set.intersection(*({row["clip"] for row in mine if row["way"] == way} for way in WAYS))
        means = {}
        for way in WAYS:
            means[way] = [
                float(np.mean([row[name] for row in mine if row["way"] == way and row["clip"] in whole]))
                for name in ("pesq_wb", "estoi", "speed")
            ]
        cells = []
        for way in WAYS:
            shares = [
                100 * (got - low) / (top - low)
                for got, low, top in zip(means[way], means["silence"], (4.644, 1.0), strict=False)
            ]
            cells.append(f"{means[way][0]:.2f} {means[way][1]:.3f} ({shares[0]:.0f} {shares[1]:.0f} %)")
        table.add_row(f"{key[0]:g}", f"{key[1]:g}", key[2], str(len(whole)), *cells, f"{means['conceal'][2]:.0f}")
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
