"""Fits the tables of a model of music to recordings: python bench/fit_music.py FOLDER... --out DIR

Kernels by least squares of the sizes of values on those around them; tables by counting what falls into each class.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nacre.entropy.static_prior import share_out
from nacre.io.audio import AudioReader
from nacre.music import model as models
from nacre.music import symbols as code
from nacre.music.encoder import AHEAD, GROUP, _Part
from nacre.music.groups import Analysed, quantised
from nacre.music.model import GROUP_FRAMES
from nacre.music.shape import RATE_HZ
from nacre.music.symbols import MEMBERS, PASSES, GroupSymbols, MusicTables

FINENESS = (8, 14, 20, 26)
SCALE = 24


def draft() -> dict[str, np.ndarray]:
    """Arrays of the right sizes with no knowledge but a kernel to begin with."""
    arrays = {}
    for (name, (kind, _)), size in zip(MEMBERS.items(), code._SHAPES, strict=True):
        arrays[name] = np.ones(size, kind)
    for name in code._COUNTS:
        arrays[name] = counted(np.zeros(arrays[name].shape))
    arrays["edges"] = np.arange(1, code.ACTIVITIES).astype("<u2")
    return arrays


def counted(seen: np.ndarray, weight: float = 8.0) -> np.ndarray:
    """Counts that sum to the total in each row; rows lean on the mean of all where little was seen."""
    rows = seen.reshape(-1, seen.shape[-1]).astype(np.float64)
    mean = rows.sum(0) + 1
    rows = rows + weight * mean / mean.sum() + 1e-3
    return np.stack([share_out(row) for row in rows]).astype("<u2").reshape(seen.shape)


def groups_of(path: Path, seconds: float) -> list[Analysed]:
    """Groups of a recording, of a pair and of its first channel alone."""
    with AudioReader(str(path)) as reader:
        wave = np.concatenate(list(reader.blocks(RATE_HZ)), 1)[:, : int(seconds * RATE_HZ)]
    found = []
    for channels in (wave[:2], wave[:1]):
        part = _Part(len(channels))
        part.add(channels)
        while part.samples >= GROUP + AHEAD:
            found.append(part.analysed(GROUP_FRAMES, False))
    return found


def features_of(symbols: GroupSymbols, fineness: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ratio classes [n], features [F, n], values [n]) of all that is coded, pass by pass."""
    classes, own = code.classes_of(symbols, fineness), code.sizes(symbols.values)
    past = [np.pad(own, ((0, 0), (ago, 0), (0, 0)))[:, : own.shape[1]] for ago in (1, 2)]
    other = np.concatenate([np.zeros_like(own[:1]), own[:-1]])
    for number, part in enumerate(PASSES):
        kept = classes[..., part] >= 0
        found = [row[kept] for row in MusicTables.features(number, own, *past, other)]
        yield classes[..., part][kept], np.stack(found), symbols.values[..., part][kept]


def main(
    folders: list[Path],
    out: Annotated[Path, typer.Option()],
    seconds: Annotated[float, typer.Option()] = 10.0,
) -> None:
    """Fit, and write a model folder."""
    files = sorted(path for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder]))
    files = [path for path in files if path.suffix in (".wav", ".flac", ".opus")]
    groups = [group for path in files for group in groups_of(path, seconds)]
    groups = [group for group in groups if group.levels.any()]
    print(len(files), "files", len(groups), "groups", flush=True)
    arrays = draft()
    first = [np.mean([g.levels[min(c, len(g.levels) - 1), 0] for g in groups if len(g.levels) > c], 0) for c in (0, 1)]
    arrays["first"] = np.rint(first).astype("|u1")
    rng = np.random.default_rng(0)
    coded = []
    for group in groups:
        loud = int(group.levels.max()) - 26
        chosen = int(np.clip(rng.choice(FINENESS) + loud, 0, 63))
        coded.append((quantised(group, chosen), chosen))
    tables = MusicTables(arrays)
    rows: list[list[tuple]] = [[], [], []]
    for symbols, fineness in coded:
        for number, found in enumerate(features_of(symbols, fineness)):
            rows[number].append(found)
    kernel, activities, joined = [], [], []
    for number in range(3):
        ratio = np.concatenate([row[0] for row in rows[number]])
        found = np.concatenate([row[1] for row in rows[number]], 1).astype(np.float32)
        values = np.concatenate([row[2] for row in rows[number]])
        size = np.minimum(np.abs(values), code.VALUES).astype(np.float32)
        weight = np.ones(len(size), np.float32)
        for _ in range(3):
            gram = (found * weight**2) @ found.T + 1e-3 * np.eye(len(found))
            answer = np.linalg.solve(gram, (found * weight**2) @ size).clip(0)
            weight = 1 / (answer @ found + 0.1)
        kernel.append(np.rint(SCALE * answer).clip(0, 255))
        activities.append(kernel[-1] @ found)
        joined.append((ratio, values))
        print("kernel", number, kernel[-1].astype(int).tolist(), len(size), flush=True)
    arrays["kernel"] = np.array(kernel).astype("|u1")
    every = np.concatenate(activities)
    busy = every[every > 0]
    edges = np.unique(np.concatenate([[1], np.quantile(busy, np.linspace(0, 1, code.ACTIVITIES)[1:-1])]).astype(int))
    while len(edges) < code.ACTIVITIES - 1:
        edges = np.append(edges, edges[-1] + 4)
    arrays["edges"] = edges[: code.ACTIVITIES - 1].astype("<u2")
    print("edges", arrays["edges"].tolist())
    seen = np.zeros((3 * code.RATIOS * code.ACTIVITIES, 2 * code.VALUES + 2))
    for number in range(3):
        ratio, values = joined[number]
        row = (number * code.RATIOS + ratio) * code.ACTIVITIES + np.searchsorted(
            arrays["edges"].astype(int), activities[number], "right"
        )
        outside = np.abs(values) > code.VALUES
        np.add.at(seen, (row, np.where(outside, 2 * code.VALUES + 1, values + code.VALUES)), 1)
    seen[:, :-1] += seen[:, -2::-1]
    seen[:, -1] *= 2
    arrays["values"] = counted(seen, 4.0)
    tables = MusicTables(arrays)
    count_rest(tables, arrays, groups)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tables.npz"
        np.savez_compressed(path, **arrays)
        models.save(out, path, {"licence": "Apache-2.0", "sources": [], "hours": round(seconds * len(files) / 3600, 3)})
    print(json.dumps({"bytes": (out / models.TABLES).stat().st_size}))


def count_rest(tables: MusicTables, arrays: dict[str, np.ndarray], groups: list[Analysed]) -> None:
    """Count everything but values."""
    splits, shares = np.zeros(4), np.zeros(arrays["shares"].shape)
    angles, turns, levels = np.zeros(code.ANGLES), np.zeros(code.ANGLES), np.zeros(arrays["levels"].shape)
    for group in groups:
        np.add.at(splits, group.splits, 1)
        for part in range(code.PARTS):
            if len(at := code.parted(group.splits, part)):
                before = code._before(group.shares, group.splits, at, part)
                np.add.at(shares, (before, group.shares[at, part * code.step_of(group.splits[at])]), 1)
        if len(group.levels) > 1:
            np.add.at(angles, group.angles[0], 1)
            np.add.at(turns, (group.angles[1] - group.angles[0]) % code.ANGLES, 1)
        for channel in range(len(group.levels)):
            for tier in code.tiers(group.levels.shape[1]):
                for odd in (0, 1):
                    expected, row = tables.level_rows(group.levels, channel, tier, odd)
                    away = group.levels[channel][tier.frames, odd::2] - expected
                    column = np.where(np.abs(away) > code.REACH, 2 * code.REACH + 1, away + code.REACH)
                    np.add.at(levels, (row, column), 1)
    for name, found in (("splits", splits), ("shares", shares), ("angles", angles), ("turns", turns)):
        arrays[name] = counted(found[None] if found.ndim == 1 else found, 2.0).reshape(found.shape)
    arrays["levels"] = counted(levels)


if __name__ == "__main__":
    typer.run(main)
