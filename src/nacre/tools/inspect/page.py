"""The contents of a file as one page: panels that zoom, a cursor that follows the sound. Needs no network."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.types import Array
from nacre.core.units import clock
from nacre.tools.html import RANGE_DB, data_uri, png, sound_uri, spectrum_db, style
from nacre.tools.inspect.seen import Seen, averaged, order_of

MOST_PLAYER_S = 900.0  # longer sound is left out of the page
MOST_POINTS = 6000  # of a panel, along
GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
WORDS = {
    "wave": "The loudest and softest sample of each moment.",
    "spectrogram": "The frequencies over time: low ones at the bottom, loud ones bright.",
    "bits a frame": "What a frame of 20 ms costs in the file, by the model's prior. "
    "Grey: the residual layer, which the highest levels add, and the band layer.",
    "bits by dimension": "The same for each dimension of a frame, the most expensive at the top.",
    "latents": "The input of the decoder's network: a column of numbers per frame, blue below 0 and red above.",
    "quality level": "How finely a group is quantised, from 0 up, chosen to meet the bitrate. "
    "Line: the gain that brings the group to the loudness of the training data.",
    "packet bytes": "The size of each group in the file, header and check value included.",
}


def page(seen: Seen) -> str:
    """One HTML file: metadata, players, panels."""
    here = Path(__file__)
    sounds = {"as decoded": seen.decoded} | ({} if seen.original is None else {"original": seen.original})
    players = "".join(
        f"<div>{label}<audio controls preload='metadata' src='{sound_uri(wave[None], seen.rate_hz)}'></audio></div>"
        for label, wave in reversed(sounds.items())
        if 0 < len(wave) <= MOST_PLAYER_S * seen.rate_hz
    )
    metadata = dict(seen.metadata)
    if seen.lost:
        metadata["lost"] = ", ".join(f"{clock(start_s)} to {clock(stop_s)}" for start_s, stop_s in seen.lost)
    parts = {
        "style": style(),
        "script": here.with_name("page.js").read_text(encoding="utf-8"),
        "metadata": "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in metadata.items()),
        "players": players,
        "data": json.dumps(_data(seen)).replace("<", "\\u003c"),
        "name": escape(seen.name),
    }
    template = here.with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda place: parts[place[1]], template)


def _data(seen: Seen) -> dict[str, Any]:
    """What the script draws."""
    end_s = max([seen.duration_s, seen.frame_s, *(stop_s for _, stop_s in seen.lost)])
    panels = [_wave("wave, decoded", seen.decoded, seen)]
    waves = {"decoded": seen.decoded}
    if seen.original is not None:
        panels.insert(0, _wave("wave, original", seen.original, seen))
        waves = {"original": seen.original, **waves}
    panels += _spectrograms(seen, waves)
    panels += [_frame_bits(seen), _bits(seen), _latents(seen), _levels(seen), _bytes(seen)]
    for panel in panels:
        panel["words"] = WORDS[panel["name"].split(",")[0]]
    return {"end": end_s, "frame": seen.frame_s, "group": seen.group_s, "lost": seen.lost, "panels": panels}


def _wave(name: str, wave: Array, seen: Seen) -> dict[str, Any]:
    columns = max(1, min(MOST_POINTS, len(wave)))
    starts = np.arange(columns) * len(wave) // columns
    pair = [np.zeros(1)] * 2 if not len(wave) else [f.reduceat(wave, starts) for f in (np.minimum, np.maximum)]
    ends = np.round(100 * np.stack(pair)).astype(int).tolist()
    return {"name": name, "wave": ends, "stop": len(wave) / seen.rate_hz, "height": 70}


def _spectrograms(seen: Seen, waves: dict[str, Array]) -> list[dict[str, Any]]:
    columns = int(np.clip(100 * seen.duration_s, 200, 2 * MOST_POINTS // 3))
    levels_db = {name: spectrum_db(wave, columns) for name, wave in waves.items()}
    loudest_db = max(float(next(iter(levels_db.values())).max()), -60.0)
    return [
        {"name": f"spectrogram, {name}", "height": 150, "top": seen.rate_hz / 2000, "unit": "kHz", "colours": "sound"}
        | _image(1 + (level_db - loudest_db) / RANGE_DB, seen.duration_s)
        for name, level_db in levels_db.items()
    ]


def _frame_bits(seen: Seen) -> dict[str, Any]:
    layers = np.stack([seen.bits.sum(1) + seen.layer_bits, seen.layer_bits], 1)
    bits, edges_s = averaged(layers, seen.frame_s, MOST_POINTS)
    bars = {"bars": np.round(bits.T, 1).tolist(), "edges": np.round(edges_s, 3).tolist()}
    return {"name": "bits a frame", **bars, "unit": "bits", "height": 90}


def _bits(seen: Seen) -> dict[str, Any]:
    means, edges_s = averaged(seen.bits[:, order_of(seen)], seen.frame_s, MOST_POINTS)
    most = max(1.0, float(np.percentile(means, 99.5)))
    shown = _image(means.T / most, float(edges_s[-1]))
    return {"name": "bits by dimension", "height": 130, "scale": f"0 to {most:.1f} bits", "colours": "bits"} | shown


def _latents(seen: Seen) -> dict[str, Any]:
    latents = seen.latents
    order = order_of(seen) if latents.shape[1] == seen.bits.shape[1] else np.arange(latents.shape[1])
    means, edges_s = averaged(latents[:, order], seen.frame_s, MOST_POINTS)
    limit = max(1e-6, float(np.percentile(np.abs(means), 99)))
    shown = _image(0.5 + means.T / limit / 2, float(edges_s[-1]))
    return {"name": "latents", "height": 130, "scale": f"-{limit:.1f} to {limit:.1f}", "colours": "latents"} | shown


def _levels(seen: Seen) -> dict[str, Any]:
    levels = [-1 if group.level is None else group.level for group in seen.groups]
    gains = [None if np.isnan(group.gain_db) else round(group.gain_db, 1) for group in seen.groups]
    steps = {"steps": levels, "most": seen.levels - 1, "line": gains, "height": 80}
    return {"name": "quality level", **steps, "scale": f"0 to {seen.levels - 1}; line: gain, -40 to 60 dB"}


def _bytes(seen: Seen) -> dict[str, Any]:
    sizes = [group.size_bytes for group in seen.groups]
    edges_s = [round(index * seen.group_s, 4) for index in range(len(sizes) + 1)]
    return {"name": "packet bytes", "bars": [sizes], "edges": edges_s, "unit": "bytes", "height": 70}


def _image(share: Array, stop_s: float) -> dict[str, Any]:
    """A matrix [rows, columns] of 0 to 1 as a grey picture, to be coloured by the page."""
    pixels = np.clip(np.round(255 * np.nan_to_num(share)), 0, 255).astype(np.uint8)
    return {"image": data_uri("image/png", png(np.ascontiguousarray(pixels), GREYS)), "stop": stop_s}
