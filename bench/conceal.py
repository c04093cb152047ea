"""PESQ-WB, ESTOI and PLCMOS of speech with gaps: left, repeated, concealed, by Opus; CPU speed.

Needs nacre[evaluate].
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console
from rich.progress import track
from rich.table import Table

from nacre import load
from nacre.evaluate import opus_line
from nacre.evaluate.choice import find_clips
from nacre.evaluate.judges import plcmos
from nacre.evaluate.measures import Sound, intelligibility, pesq_wb
from nacre.io import audio
from nacre.tools.restore import conceal, spans

LONGEST_S = 6.0  # of each clip
RUN = 3.0  # gaps in a row on average, where losses come in bursts
WAYS = ("silence", "repeat", "causal", "conceal", "opus")
METRICS = ("pesq_wb", "estoi", "plcmos")


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


def by_opus(opus, wave: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Through Opus at 32 kb/s without FEC, packets of 20 ms, those [bool] lost that are lost to the others."""
    packets, lag = opus_line.encoded(opus, wave, 32, 0.0)
    gone = np.zeros(len(packets), bool)
    gone[: len(lost)] = lost[: len(packets)]
    arrived = [None if miss else packet for packet, miss in zip(packets, gone, strict=True)]
    return opus_line.decoded(opus, arrived)[lag:][: len(wave)]


def ways_of(codec, opus, wave: np.ndarray, lost: np.ndarray, size: int) -> dict[str, Callable[[], np.ndarray]]:
    """How each way fills gaps of so many samples where `lost` [packets] says so."""
    stretches = [(at * size / RATE_HZ, (at + 1) * size / RATE_HZ) for at in np.flatnonzero(lost).tolist()]
    where = spans(stretches, len(wave), RATE_HZ)
    ways = {
        "silence": lambda: silenced(wave, where),
        "repeat": lambda: repeated(wave, where),
        "causal": lambda: conceal(codec, wave, RATE_HZ, stretches, causal=True),
        "conceal": lambda: conceal(codec, wave, RATE_HZ, stretches),
    }
    if opus and size == opus_line.FRAME:
        ways["opus"] = lambda: by_opus(opus, wave, lost)
    return ways


def figures_of(original: Sound, concealed: np.ndarray) -> dict[str, float]:
    """Raises ValueError where there is too little speech."""
    got = Sound(concealed)
    figures = {"pesq_wb": pesq_wb(original, got), "estoi": intelligibility(original, got, True)}
    return figures | {"plcmos": plcmos(original, got)}


def main(
    data: Annotated[Path, typer.Option(help="folder of speech")],
    out: Annotated[Path, typer.Option(help="CSV of all figures")] = Path("conceal.csv"),
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    gaps: Annotated[str, typer.Option(help="lengths in ms")] = "20,60,120,300",
    losses: Annotated[str, typer.Option(help="percent lost")] = "5,10,20,30",
    patterns: Annotated[str, typer.Option(help="random, bursty")] = "random,bursty",
    clips: Annotated[int, typer.Option(help="how many, spread over the folder")] = 20,
    libopus: Annotated[str, typer.Option(help="file of a libopus, whose concealment is measured too")] = "",
) -> None:
    """Lose the same stretches of every clip for all ways; one row of the CSV each, means in the table."""
    codec, opus, rows = load(model), opus_line.library(libopus) if libopus else None, []
    for index, clip in enumerate(track(find_clips(data, clips), "clips")):
        wave, rate_hz = audio.read(data / clip)
        assert rate_hz == RATE_HZ, rate_hz
        wave = wave.mean(0)[: round(LONGEST_S * RATE_HZ)]
        original = Sound(wave)
        for gap_ms, loss, kind in product(numbers(gaps), numbers(losses), patterns.split(",")):
            random, size = np.random.default_rng([index, round(gap_ms), round(loss)]), round(gap_ms / 1000 * RATE_HZ)
            lost = pattern(random, len(wave) // size, loss / 100, kind == "bursty")
            for way, fill in ways_of(codec, opus, wave, lost, size).items() if lost.any() else ():
                started = time.process_time()
                concealed = fill()
                speed = len(wave) / RATE_HZ / max(1e-6, time.process_time() - started)
                try:
                    figures = figures_of(original, concealed)
                except ValueError:
                    continue
                row = {"clip": clip, "gap_ms": gap_ms, "loss": loss, "pattern": kind, "way": way}
                rows.append(row | figures | {"speed": speed})
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    show(rows)


def show(rows: list[dict]) -> None:
    """Means, and how much of the way from silence to no loss each covers."""
    table = Table(title="PESQ-WB, ESTOI, PLCMOS, in brackets how far PESQ and ESTOI go from silence to no loss")
    for head in ("gap ms", "loss %", "pattern", "clips", *WAYS, "x real time"):
        table.add_column(head)
    for key in dict.fromkeys((row["gap_ms"], row["loss"], row["pattern"]) for row in rows):
        mine = [row for row in rows if (row["gap_ms"], row["loss"], row["pattern"]) == key]
        there = [way for way in WAYS if any(row["way"] == way for row in mine)]
        whole = set.intersection(*({row["clip"] for row in mine if row["way"] == way} for way in there))
        means = {}
        for way in there:
            kept = [row for row in mine if row["way"] == way and row["clip"] in whole]
            means[way] = [float(np.mean([row[name] for row in kept])) for name in (*METRICS, "speed")]
        cells = []
        for way in WAYS:
            if way not in there:
                cells.append("")
                continue
            scores, low = means[way], means["silence"]
            shares = [100 * (scores[i] - low[i]) / (top - low[i]) for i, top in enumerate((4.644, 1.0))]
            cells.append("{:.2f} {:.3f} {:.2f}".format(*scores) + " ({:.0f} {:.0f} %)".format(*shares))
        table.add_row(f"{key[0]:g}", f"{key[1]:g}", key[2], str(len(whole)), *cells, f"{means['conceal'][-1]:.0f}")
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
