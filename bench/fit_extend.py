"""The map of `nacre extend`, fitted to speech with all of its band: src/nacre/tools/extend.npz.

    python bench/fit_extend.py speech48k/train/kathleen speech48k/train/nathalie speech48k/train/dctts --out extend.npz

Each folder is a voice, and weighs the same. Printed is how far off the guess is, root mean square in dB of each band
over frames within 45 dB of a clip's loudest, on every tenth clip, which is left out of the fit: by a map of all
voices, by a map that has not seen the voice, and where the voice's own mean level is all that is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import wide_console
from rich.progress import track
from rich.table import Table

from nacre.codec.band import BandEncoder
from nacre.core.types import Array
from nacre.evaluate.choice import find_clips
from nacre.io import audio
from nacre.tools.extend import EDGES, LOW, terms_of

RANGE_DB, RIDGE = 45.0, 1e-3


def main(
    voices: Annotated[list[Path], typer.Argument(help="Folders of recordings, one a voice.")],
    out: Annotated[Path, typer.Option(help="Map to write.")],
    every: Annotated[int, typer.Option(help="Take every so many-th clip.")] = 1,
) -> None:
    """Write the map, and say how far off it is."""
    fitted, held = {}, {}
    for folder in voices:
        names = find_clips(folder, None)[::every]
        rows = [rows_of(folder / name) for name in track(names, f"reading {folder.name}")]
        held[folder.name] = _joined(rows[::10])
        fitted[folder.name] = _joined([row for index, row in enumerate(rows) if index % 10])
    solved = solve(list(fitted.values()))
    np.savez_compressed(out, weights=solved.astype("<f4"))
    table = Table("voice", "by all voices", "by the others", "by its own mean")
    for name, (terms, targets) in held.items():
        others = solve([each for other, each in fitted.items() if other != name])
        errors = (targets - terms @ solved, targets - terms @ others, targets - fitted[name][1].mean(0))
        table.add_row(name, *(" ".join(f"{value:.1f}" for value in np.sqrt(np.square(e).mean(0))) for e in errors))
    wide_console().print(table)


def rows_of(path: Path) -> tuple[Array, Array]:
    """Terms [T, TERMS] of a clip's frames, and levels of the bands above [T, BANDS] in dB over the reference."""
    wave, rate_hz = audio.read(path)
    analyser = BandEncoder(rate_hz, len(wave), EDGES)
    analyser.push(wave)
    analyser.flush()
    powers = analyser.take(analyser.frames)[0]
    level_db, terms = terms_of(powers)
    above_db = 10 * np.log10(powers[1:-1, :, LOW:].mean(1) + 1e-10)
    loud_db = 10 * np.log10(powers[1:-1].sum(-1).mean(1) + 1e-10)
    kept = loud_db > loud_db.max() - RANGE_DB
    return terms[kept], (above_db - level_db[:, None])[kept]


def solve(voices: list[tuple[Array, Array]]) -> Array:
    """Ridge regression [TERMS, BANDS] in which each voice weighs the same."""
    gram = sum(terms.T @ terms / len(terms) for terms, _ in voices) / len(voices)
    cross = sum(terms.T @ targets / len(terms) for terms, targets in voices) / len(voices)
    return np.linalg.solve(gram + RIDGE * np.eye(len(gram)), cross)


def _joined(rows: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.concatenate([terms for terms, _ in rows]), np.concatenate([targets for _, targets in rows])


if __name__ == "__main__":
    typer.run(main)
