"""File bytes by the context prior and by the static tables, same symbols, and what each costs in time."""

from __future__ import annotations

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


def clip_row(clip: Path, model: str, levels: list[int]) -> np.ndarray:
    """[levels, prior, (bytes, encode s, decode s)], and the seconds of sound in the last row."""
    from nacre import load
    from nacre.codec.packets import PRIORS

    codec = load(model)
    wave, rate_hz = audio.read(clip)
    assert rate_hz == RATE_HZ, rate_hz
    totals = np.zeros((len(levels) + 1, 2, 3))
    for row, level in enumerate(levels):
        sounds = []
        for column, prior in enumerate(PRIORS):
            quality = 100 * level / (codec.config.levels - 1)
            started = time.process_time()
            data = codec.encode(wave, rate_hz, quality=quality, prior=prior)
            coded = time.process_time()
            sounds.append(codec.decode(data)[0])
            totals[row, column] = len(data), coded - started, time.process_time() - coded
        assert np.array_equal(*sounds)
    totals[-1] = wave.shape[1] / rate_hz
    return totals


def main(
    data: Annotated[Path, typer.Option(help="folder of speech at 16 kHz")],
    model: Annotated[str, typer.Option(help="a model with both priors: bundled, or a folder")] = "speech-16k",
    levels: Annotated[str, typer.Option(help="quality levels")] = "0,3,6,9,12,15",
    limit: Annotated[int | None, typer.Option(help="at most so many clips")] = None,
    jobs: Annotated[int, typer.Option(help="processes")] = 2,
) -> None:
    """Whole files at each level by both priors; the sound is checked to be the same to the bit."""
    chosen = [int(level) for level in numbers(levels)]
    work = partial(clip_row, model=model, levels=chosen)
    with workers(jobs) as pool:
        futures = [pool.submit(work, data / clip) for clip in find_clips(data, limit)]
        total = sum(one.result() for one in track(futures, "clips"))
    seconds = total[-1, 0, 0]
    table = Table(title=f"{len(futures)} clips, {seconds / 60:.1f} min")
    for head in ("level", "kb/s static", "kb/s context", "saved", "encode x, static and context", "decode x"):
        table.add_column(head, justify="right")
    for level, (context, static) in zip(chosen, total[:-1], strict=True):
        rates = [f"{8 * prior[0] / seconds / 1000:.2f}" for prior in (static, context)]
        speeds = [f"{seconds / static[at]:.0f}, {seconds / context[at]:.0f}" for at in (1, 2)]
        table.add_row(str(level), *rates, f"{1 - context[0] / static[0]:.1%}", *speeds)
    wide_console().print(table)


if __name__ == "__main__":
    typer.run(main)
