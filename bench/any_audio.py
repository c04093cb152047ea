"""What sound other than plain speech costs and keeps: two channels, near silence, music and ambience."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import RATE_HZ, numbers, wide_console, workers
from rich.progress import track
from rich.table import Table

from nacre import load
from nacre.core.units import db_to_gain, kbps
from nacre.dsp.stereo import AUTO, LEFT_RIGHT
from nacre.evaluate.choice import find_clips
from nacre.evaluate.measures import Sound, logmel_db, pesq_wb
from nacre.evaluate.peers import builtin
from nacre.io import audio

app = typer.Typer(help=__doc__, no_args_is_help=True)
Model = Annotated[str, typer.Option(help="bundled model or a model folder")]
Jobs = Annotated[int, typer.Option(help="processes")]
LEVELS = (1, 6, 11, 15)  # of 16, for curves
LONGEST_S = 10
DIRECT = 40  # samples after the peak of a room response that count as direct sound


def mono(path: Path, seconds: float = LONGEST_S) -> np.ndarray:
    """The first seconds of a file at 16 kHz, [N] float64."""
    wave, rate_hz = audio.read(path)
    return audio.resampled(wave.mean(0), rate_hz, RATE_HZ)[: round(seconds * RATE_HZ)].astype(np.float64)


# ---------------------------------------------------------------- two channels


def panned(wave: np.ndarray, left_db: float) -> np.ndarray:
    return np.stack([wave * db_to_gain(left_db / 2), wave * db_to_gain(-left_db / 2)])


def shifted(wave: np.ndarray, samples: float) -> np.ndarray:
    """wave [N] later by a share of a sample."""
    size = 1 << (len(wave) + 64).bit_length()
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * samples)
    return np.fft.irfft(np.fft.rfft(wave, size) * turn, size)[: len(wave)]


def in_room(wave: np.ndarray, rooms: list[np.ndarray], late: float) -> np.ndarray:
    """A pair of microphones [2, N]: the same direct sound, reverberation of its own in each, the right one `late`."""
    channels = []
    for response in rooms:
        peak = int(np.abs(rooms[0]).argmax())
        tail = np.roll(response, peak - int(np.abs(response).argmax()))
        tail[: peak + DIRECT] = 0
        tail *= np.sqrt(np.sum(rooms[0][peak + DIRECT :] ** 2) / np.sum(tail**2))
        tail[: peak + DIRECT] = rooms[0][: peak + DIRECT]
        size = 1 << (len(wave) + len(tail)).bit_length()
        reverberant = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)
        channels.append(reverberant[peak : peak + len(wave)])
    return np.stack([channels[0], shifted(channels[1], late)])


def pairs(wave: np.ndarray, other: np.ndarray, rooms: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Ways in which one sound, or two, come to lie in two channels [2, N]."""
    rng, power = np.random.default_rng(0), np.sqrt(np.mean(wave**2))
    other = np.resize(other, len(wave)) * power / np.sqrt(np.mean(np.resize(other, len(wave)) ** 2))
    same = np.stack([wave, wave])

    def noisy(level_db: float) -> np.ndarray:
        return same + rng.standard_normal(same.shape) * power * db_to_gain(level_db)

    return {
        "the same in both": same,
        "the same, 16-bit dither": same + (rng.random(same.shape) - rng.random(same.shape)) * 2**-15,
        **{f"the same, noise {level_db} dB": noisy(level_db) for level_db in (-40, -30, -20)},
        "half a sample apart": np.stack([wave, shifted(wave, 0.5)]),
        **{f"one {db:g} dB louder": panned(wave, db) for db in (1, 3.5, 6, 12)},
        "two microphones, dry room": in_room(wave, rooms[:2], 0),
        "the same, 17 cm apart": in_room(wave, rooms[:2], 8),
        "two microphones, live room": in_room(wave, rooms[2:], 0),
        "two sources, 6 dB to each side": panned(wave, 6) + panned(other, -6),
        "two sources, a channel each": np.stack([wave, other]),
    }


def balance_error_db(original: list[Sound], decoded: list[Sound]) -> float:
    """Mean error of the level difference between the channels, over bands and frames of 64 ms within 40 dB."""
    powers = [[sound.mels[2] + 1e-9 for sound in pair] for pair in (original, decoded)]
    both = powers[0][0] + powers[0][1]
    balance = [10 * np.log10(pair[0] / pair[1]) for pair in powers]
    return float(np.abs(balance[0] - balance[1])[both > 1e-4 * both.max()].mean())


def curves_of(work: tuple[str, str, np.ndarray]) -> tuple[str, dict[str, list[tuple[float, ...]]]]:
    """One pair both ways at several levels: rows of kb/s, PESQ, log-mel distance, balance error."""
    model, case, wave = work
    codec, rows = load(model), defaultdict(list)
    wave = (wave * min(1, 0.9 / np.abs(wave).max())).astype(np.float32)
    original = [Sound(channel) for channel in wave]
    for level in LEVELS:
        for way in (LEFT_RIGHT, AUTO):
            data = codec.encode(wave, RATE_HZ, quality=100 * level / 15, stereo=way)
            if way == AUTO and codec.parse(data).intensity_groups == 0:
                rows[way].append(rows[LEFT_RIGHT][-1])
                continue
            decoded = [Sound(channel) for channel in codec.decode(data)[0]]
            both = list(zip(original, decoded, strict=True))
            scores = [float(np.mean([score(*pair) for pair in both])) for score in (pesq_wb, logmel_db)]
            rate = kbps(len(data), wave.shape[1] / RATE_HZ)
            rows[way].append((rate, *scores, balance_error_db(original, decoded)))
    return case, dict(rows)


@app.command()
def stereo(
    speech: Annotated[Path, typer.Option(help="folder of speech")],
    rooms: Annotated[Path, typer.Option(help="folder of room responses")],
    model: Model = "speech-16k",
    clips: Annotated[int, typer.Option(help="so many")] = 6,
    rates: Annotated[str, typer.Option(help="kb/s of both channels, with commas")] = "4,8",
    jobs: Jobs = 2,
) -> None:
    """`--stereo auto` against `left-right` at equal bytes, interpolated between levels; mean of both channels."""
    names = find_clips(speech, clips + 1)
    responses = [mono(rooms / name) for name in find_clips(rooms, None)]
    responses.sort(key=lambda response: float(np.sum(response[RATE_HZ // 10 :] ** 2) / np.sum(response**2)))
    responses = responses[:2] + responses[-2:]  # the driest and the most reverberant
    waves = [mono(speech / name, 5) for name in names]
    work = []
    for wave, other in pairwise(waves):
        work += [(model, case, pair) for case, pair in pairs(wave, other, responses).items()]
    curves, targets = defaultdict(list), np.log(numbers(rates))
    with workers(jobs) as pool:
        for case, ways in track(pool.map(curves_of, work), "pairs", total=len(work)):
            for way, rows in ways.items():
                columns = np.array(rows).T
                at = [np.interp(targets, np.log(columns[0]), column) for column in columns[1:]]
                curves[case, way].append(np.array([np.resize(columns[0][1], len(targets)), *at]))
    table = Table(
        "channels",
        "bytes",
        *(f"{what} at {rate}" for what in ("PESQ", "log-mel dB", "balance dB") for rate in rates.split(",")),
        title=f"left-right > auto, {clips} clips",
    )
    for case in dict.fromkeys(case for case, _ in curves):
        apart, joined = (np.mean(curves[case, way], 0) for way in (LEFT_RIGHT, AUTO))
        cells = [f"{a:.2f} > {b:.2f}" for a, b in zip(apart[1:].ravel(), joined[1:].ravel(), strict=True)]
        table.add_row(case, f"{joined[0, 0] / apart[0, 0]:.0%}", *cells)
    wide_console().print(table)


# ---------------------------------------------------------------- near silence


@app.command()
def quiet(model: Model = "speech-16k", bitrate: Annotated[float, typer.Option(help="target kb/s")] = 6.0) -> None:
    """Rates of a minute of silence, of dither and of white noise at several levels, which is what rooms sound like."""
    codec, rng = load(model), np.random.default_rng(0)
    count = 60 * RATE_HZ
    sounds: dict[str, np.ndarray] = {"digital silence": np.zeros(count)}
    sounds["dither of 16 bits"] = np.rint(rng.random(count) - rng.random(count)) * 2**-15
    sounds |= {f"noise at {db} dBFS": rng.standard_normal(count) * db_to_gain(db) for db in (-90, -85, -80, -70, -60)}
    table = Table("sound", f"kb/s, target {bitrate:g}", "kb/s at quality 0", "at quality 50")
    for name, wave in sounds.items():
        files = [codec.encode(wave, RATE_HZ, bitrate_kbps=bitrate)]
        files += [codec.encode(wave, RATE_HZ, quality=quality) for quality in (0, 50)]
        table.add_row(name, *(f"{kbps(len(data), 60):.3f}" for data in files))
    wide_console().print(table)


# ---------------------------------------------------------------- music and ambience


def by_nacre(model: str, wave: np.ndarray, rate: float) -> tuple[float, np.ndarray]:
    codec = load(model)
    data = codec.encode(wave, RATE_HZ, bitrate_kbps=rate)
    return kbps(len(data), len(wave) / RATE_HZ), codec.decode(data)[0][0]


def by_opus(wave: np.ndarray, rate: float) -> tuple[float, np.ndarray]:
    coded = builtin()["opus"].code(wave, rate)
    return kbps(coded.payload_bytes, len(wave) / RATE_HZ), coded.wave


def distances(work: tuple[str, Path, list[float], list[float]]) -> tuple[str, list[list[tuple[float, float]]]]:
    """(kb/s, log-mel distance) of a file at each rate of each codec."""
    model, path, rates, peer_rates = work
    wave = mono(path).astype(np.float32)
    original, curves = Sound(wave), []
    coders: list[tuple[Callable, list[float]]] = [(partial(by_nacre, model), rates), (by_opus, peer_rates)]
    for code, targets in coders:
        coded = [code(wave, rate) for rate in targets]
        curves.append([(rate, logmel_db(original, Sound(decoded))) for rate, decoded in coded])
    return path.name, curves


@app.command()
def sounds(
    folder: Annotated[Path, typer.Argument(help="folder with a manifest.csv that gives path and kind")],
    model: Model = "speech-16k",
    rates: Annotated[str, typer.Option(help="kb/s of nacre, with commas")] = "3,6,9,12,16",
    peer_rates: Annotated[str, typer.Option(help="target kb/s of Opus, with commas")] = "5,7,9,12,16,24,32,48",
    jobs: Jobs = 2,
) -> None:
    """Log-mel distance of nacre and of Opus on every sound of a folder, and the rate at which Opus is as near."""
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] != "rir"]
    targets, work = numbers(rates), [(model, folder / row["path"], numbers(rates), numbers(peer_rates)) for row in rows]
    kinds: dict[str, list[np.ndarray]] = defaultdict(list)
    with workers(jobs) as pool:
        for row, (name, curves) in zip(rows, track(pool.map(distances, work), "sounds", total=len(work)), strict=True):
            ours, theirs = (np.array(points) for points in curves)
            label = name if row["kind"] in ("music", "animal") else row["kind"]
            kinds[label].append(np.concatenate([ours.ravel(), theirs.ravel()]))
    table = Table(
        "kind", "files", *(f"nacre {rate:g}" for rate in targets), "Opus", title="log-mel distance, dB (kb/s)"
    )
    for kind, files in kinds.items():
        pairs_of = np.mean(files, 0).reshape(-1, 2)
        cells = [f"{distance:.2f} ({rate:.1f})" for rate, distance in pairs_of]
        table.add_row(kind, str(len(files)), *cells[: len(targets)], ", ".join(cells[len(targets) :]))
    wide_console().print(table)


if __name__ == "__main__":
    app()
