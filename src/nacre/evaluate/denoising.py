"""Speech in unseen noise, as it is, denoised by a model and by other denoisers: a table, rows, a page with players.

clip + noise at each SNR -> every denoiser -> PESQ-WB, ESTOI, SI-SDR, DNSMOS against the clip
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nacre.codec.codec import Codec
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.evaluate import denoisers
from nacre.evaluate.choice import find_clips
from nacre.evaluate.denoisers import Denoiser
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.metrics import METRICS, available, pieces, require, score
from nacre.io.audio import AudioReader, mono_blocks
from nacre.io.files import check_free, output_file
from nacre.tools.denoise import denoise
from nacre.tools.html import ONE_PLAYER, data_uri, sound_uri, spectrogram, spectrum_db, style

JUDGES = ("pesq_wb", "estoi", "si_sdr_db", "dnsmos")
LONGEST_S = 6.0  # of each clip
LEVEL = 0.05  # of each clip, root mean square of full scale
PAGE_CLIPS, PAGE_COLUMNS = 10, 300
CLEAN = "clean"
ALL = "mean"


@dataclass(frozen=True, eq=False)
class Mixed:
    """A clip [N] in a noise, `snr` in dB or CLEAN."""

    clip: str
    noise: str
    snr: str
    wave: Array
    noisy: Array


@dataclass(frozen=True)
class Row:
    """What a way made of a mixture."""

    clip: str
    noise: str
    snr: str
    way: str
    figures: dict[str, float]


def snrs_of(text: str) -> list[str]:
    """'0,5,clean' -> ['0', '5', 'clean']. Raises UsageError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        try:
            fits = part == CLEAN or -50 <= float(part) <= 100
        except ValueError:
            fits = False
        if not fits:
            raise UsageError(f"--snrs {part} is no ratio; give dB from -50 to 100, or {CLEAN}, as in 0,5,{CLEAN}")
    return parts


def mixtures(speech: Path, noise: Path, snrs: Sequence[str], limit: int | None) -> Iterator[Mixed]:
    """Each clip at each SNR in one noise, the next for the next clip; always the same. Raises NacreError."""
    sounds = {str(name): _mono(noise / name) for name in find_clips(noise, None)}
    sounds = {name: sound for name, sound in sounds.items() if sound.any()}
    if not sounds:
        raise UsageError(f"all recordings in {noise} are silent; give a folder of noise")
    for index, clip in enumerate(find_clips(speech, limit)):
        wave = _mono(speech / clip)[: round(LONGEST_S * RATE_HZ)]
        if not wave.any():
            continue
        wave = wave * np.float32(LEVEL / wave.std())
        name = list(sounds)[index % len(sounds)]
        start = np.random.default_rng(index).integers(len(sounds[name]))
        sound = np.resize(np.roll(sounds[name], -start), len(wave))
        for snr in snrs:
            share = 0.0 if snr == CLEAN else 10 ** (-float(snr) / 20) * wave.std() / (sound.std() + 1e-9)
            yield Mixed(str(clip), name, snr, wave, wave + np.float32(share) * sound)


def ways_of(codec: Codec, notes: list[str]) -> dict[str, Denoiser]:
    """The noisy sound, the model, and other denoisers that are here."""
    ours: Denoiser = lambda wave: denoise(codec, wave, RATE_HZ)  # noqa: E731
    return {"noisy": lambda wave: wave, codec.bundle.name: ours} | denoisers.installed(notes)


def evaluate_denoising(
    codec: Codec,
    speech: Path,
    noise: Path,
    snrs: Sequence[str],
    console: Console,
    *,
    limit: int | None = None,
    target: Path | None = None,
    report: Path | None = None,
    force: bool = False,
) -> list[Row]:
    """Table of quality by noise and SNR, a JSON file of all rows, a page. Raises NacreError, UsageError."""
    for path in filter(None, (target, report)):
        check_free(path, force)
    if report:
        require(["jinja2"])
    notes: list[str] = []
    ways, names = ways_of(codec, notes), available(JUDGES, notes)
    rows, middle = [], snrs[len(snrs) // 2]
    shown: list[tuple[Mixed, dict[str, Array]]] = []
    for mixed in mixtures(speech, noise, snrs, limit):
        original, denoised = pieces(mixed.wave), {}
        for way, clean in ways.items():
            denoised[way] = np.clip(clean(mixed.noisy), -1, 1)
            rows.append(Row(mixed.clip, mixed.noise, mixed.snr, way, score(original, denoised[way], names)[0]))
        if report and mixed.snr == middle and len(shown) < PAGE_CLIPS:
            shown.append((mixed, denoised))
    console.print(table_of(rows, names))
    for note in notes:
        console.print(note)
    if target is not None:
        with output_file(target, force) as file:
            file.write(json.dumps([vars(row) for row in rows], indent=1).encode())
    if report is not None:
        with output_file(report, force) as file:
            file.write(page_of(shown, rows, names).encode())
    return rows


def means_of(rows: list[Row], names: Sequence[str]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """By (noise, SNR), the mean of all noises last, and by way: a mean of each measure, nan where there is none."""
    noises = [*dict.fromkeys(row.noise for row in rows), ALL]
    by_way: dict[tuple[str, str], dict[str, list[float]]] = {}
    for noise in noises:
        for snr in dict.fromkeys(row.snr for row in rows):
            mine = [row for row in rows if row.snr == snr and noise in (row.noise, ALL)]
            for way in dict.fromkeys(row.way for row in mine):
                figures = [row.figures for row in mine if row.way == way]
                means = [float(np.mean([one[name] for one in figures if name in one] or [np.nan])) for name in names]
                by_way.setdefault((noise, snr), {})[way] = means
    return by_way


def table_of(rows: list[Row], names: Sequence[str]) -> Table:
    """Means of the measures by noise and SNR, a column for each way."""
    ways = list(dict.fromkeys(row.way for row in rows))
    table = Table("noise", "dB", *ways, box=None, title=", ".join(METRICS[name].label for name in names))
    for (noise, snr), means in means_of(rows, names).items():
        table.add_row(noise, snr, *(" ".join(f"{value:.2f}" for value in means[way]) for way in ways))
    return table


def page_of(shown: list[tuple[Mixed, dict[str, Array]]], rows: list[Row], names: Sequence[str]) -> str:
    """One HTML page: players and spectrograms of the clips, and the table."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    clips = [(mixed, _sounds({"clean": mixed.wave} | denoised)) for mixed, denoised in shown]
    labels = [METRICS[name].label for name in names]
    fill: Callable[..., str] = partial(made.get_template("denoising.html").render, style=style(), one_player=ONE_PLAYER)
    return fill(clips=clips, means=means_of(rows, names), labels=labels, ways=dict.fromkeys(row.way for row in rows))


def _sounds(waves: dict[str, Array]) -> list[tuple[str, str, str]]:
    """(name, player's sound, picture) of each wave [N], all pictures on one scale."""
    levels = {name: spectrum_db(wave, PAGE_COLUMNS) for name, wave in waves.items()}
    loudest = max(float(level.max()) for level in levels.values())
    return [
        (name, sound_uri(wave[None], RATE_HZ), data_uri("image/png", spectrogram(levels[name], loudest)))
        for name, wave in waves.items()
    ]


def _mono(path: Path) -> Array:
    with AudioReader(path) as reader:
        return np.concatenate(list(mono_blocks(reader, RATE_HZ)))
