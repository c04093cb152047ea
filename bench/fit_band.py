"""The band layer's tables, fitted to speech at 24 or 48 kHz: src/nacre/entropy/band.npz.

    python bench/fit_band.py speech48k/train --out band.npz --every 3

Files of version 2 depend on these tables: new ones are a new version of the format. Clips are counted as they are,
those without anything above 8 kHz too, since such files are written as well; the shapes of frames are learnt from
frames within 40 dB of a clip's loudest above the core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from nacre.codec.band import BandEncoder, band_symbols, shapes_db
from nacre.core.types import Array, Floats, Ints
from nacre.dsp.band import EDGES
from nacre.dsp.gain import LevelState, choose_gain
from nacre.entropy import band as layer
from nacre.entropy.static_prior import share_out
from nacre.evaluate.choice import find_clips
from nacre.io import audio

GROUP_FRAMES, CORE_HZ, HOP = 50, 16_000, 320
RANGE_DB, ROUNDS, SEED = 40.0, 30, 1
MOST_SHAPES = 100_000

Group = tuple[Floats, int]  # powers [T, STEPS, B], gain code


def main(
    data: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    out: Annotated[Path, typer.Option(help="Tables to write.")],
    every: Annotated[int, typer.Option(help="Take every so many-th clip.")] = 1,
) -> None:
    """Write the tables, and say what the layer costs by them."""
    groups: list[Group] = []
    for name in track(find_clips(data, None)[::every], "reading"):
        groups += groups_of(data / name)
    quarters = shapes_of(groups)
    symbols = [band_symbols(*group, quarters) for group in groups]
    symbols += [np.delete(each, (2, 3), 1) for each in symbols[::2]]  # files up to 12 kHz
    tables = fitted(symbols, quarters)
    arrays = {name: tables.arrays[name] for name in layer.MEMBERS}
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    for bands in (2, 4):
        bits = [tables.costs(each).sum() for each in symbols if each.shape[1] == bands + 1]
        minutes = sum(len(each) for each in symbols if each.shape[1] == bands + 1) / 50 / 60
        print(f"{bands} bands: {sum(bits) / minutes / 60_000:.3f} kb/s over {minutes:.0f} min")


def groups_of(path: Path) -> list[Group]:
    """Groups of a clip, with the gains that an encoder gives them."""
    wave, rate_hz = audio.read(path)
    encoder = BandEncoder(rate_hz, len(wave), EDGES)
    encoder.push(wave)
    encoder.flush()
    core, size, state = audio.resampled(wave[0], rate_hz, CORE_HZ), GROUP_FRAMES * HOP, LevelState()
    coded = []
    for start in range(0, len(core), size):
        part = core[start : start + size]
        code, state = choose_gain(state, part, HOP)
        coded.append((encoder.take(-(-len(part) // HOP))[0], code))
    return coded


def shapes_of(groups: list[Group]) -> Floats:
    """Power of the quarters over the frame's, [SHAPES, QUARTERS], the first even: k-means of what frames do, in dB."""
    rng, rows = np.random.default_rng(SEED), []
    for powers, code in groups:
        level_db = 10 * np.log10(powers.mean(1).sum(1) + 1e-12)
        rows.append(shapes_db(powers)[level_db + 3 * (code - 12) > -20 - RANGE_DB])
    given = np.concatenate(rows)
    given = given[rng.permutation(len(given))[:MOST_SHAPES]]
    centres = given[rng.permutation(len(given))[: layer.SHAPES]].copy()
    centres[0] = 0
    for _ in range(ROUNDS):
        nearest = np.square(given[:, None] - centres).sum(2).argmin(1)
        for shape in range(1, layer.SHAPES):
            if (nearest == shape).any():
                centres[shape] = given[nearest == shape].mean(0)
    power = 10 ** (centres / 10)
    return (power / power.mean(1, keepdims=True)).astype(np.float32)


def fitted(symbols: list[Ints], quarters: Floats) -> layer.BandTables:
    """Tables by counting; a class that was seen seldom leans on its band's mean."""
    levels = np.zeros((layer.BANDS * layer.CLASSES, 2 * layer.REACH + 2))
    shapes = np.zeros((layer.RISES * layer.SHAPES, layer.SHAPES))
    for each in symbols:
        distances, rows = layer.level_rows(each)
        escaped = np.abs(distances) > layer.REACH
        np.add.at(levels, (rows, np.where(escaped, 2 * layer.REACH + 1, distances + layer.REACH)), 1)
        shape, rows = layer.shape_rows(each)
        np.add.at(shapes, (rows, shape), 1)
    levels, shapes = levels.reshape(layer.BANDS, layer.CLASSES, -1), shapes.reshape(layer.RISES, layer.SHAPES, -1)
    arrays = {"levels": _counts(levels, 1), "shapes": _counts(shapes, 1), "quarters": quarters}
    return layer.BandTables(arrays)


def _counts(seen: Array, axis: int) -> Array:
    usual = seen.sum(axis, keepdims=True)
    weights = seen + 20 * usual / usual.sum(-1, keepdims=True) + 0.05
    rows = [share_out(row) for row in weights.reshape(-1, seen.shape[-1])]
    return np.stack(rows).reshape(seen.shape).astype("<u2")


if __name__ == "__main__":
    typer.run(main)
