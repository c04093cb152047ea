"""How like speech is sound drawn from the prior, by level, temperature, top-p. Needs nacre[evaluate], speechmos."""

from __future__ import annotations

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
from nacre.evaluate.measures import Sound, dnsmos, mel_powers
from nacre.io import audio
from nacre.tools.sample import LEVEL_SHARE, TEMPERATURE, TOP_P, draw_symbols, sample

PIECE_S, PROMPT_S = 10.0, 3.0
PAUSE_DB = 30.0  # below the loudest tenth
STRETCH = 5  # frames of 20 ms that are compared at once
TRAINING_CLIPS, TRAINING_STRETCHES, STRETCHES = 400, 30_000, 1500
HEADS = ("x real time", "DNSMOS", "F0 Hz", "voiced %", "pauses %", "spectrum dB", "nearest / real")


def pieces_of(folder: Path, count: int, seconds: float = PIECE_S) -> list[np.ndarray]:
    """`count` pieces [N] of clips spread over a folder, short ones repeated to the length."""
    waves = []
    for clip in find_clips(folder, count):
        wave, rate_hz = audio.read(folder / clip)
        assert rate_hz == RATE_HZ, rate_hz
        waves.append(np.resize(wave.mean(0), round(seconds * RATE_HZ)))
    return waves


def levels_db(wave: np.ndarray) -> np.ndarray:
    """Mel levels [T, 40] in dB every 20 ms, 0 for the loudest tenth of the frames."""
    powers = mel_powers(wave, 640, 40)[::2]
    loudest = np.sort(powers.mean(1))[-max(1, len(powers) // 10) :].mean()
    return 10 * np.log10(np.maximum(powers / max(loudest, 1e-12), 1e-6))


def stretches(waves: list[np.ndarray], most: int) -> np.ndarray:
    """[n, STRETCH * 40] of frames in a row that are no pause, at most so many, spread evenly."""
    pauses = []
    for wave in waves:
        levels = levels_db(wave)
        runs = np.lib.stride_tricks.sliding_window_view(levels, STRETCH, 0).reshape(-1, STRETCH * 40)
        pauses.append(runs[runs.mean(1) > -PAUSE_DB])
    every = np.concatenate(pauses).astype(np.float32)
    return every[np.linspace(0, len(every) - 1, min(most, len(every))).astype(int)]


def nearest(these: np.ndarray, those: np.ndarray) -> float:
    """Median over `these` of the root mean square difference in dB to the nearest of `those`."""
    squares = (these**2).sum(1)[:, None] + (those**2).sum(1) - 2 * these @ those.T
    return float(np.median(np.sqrt(np.maximum(squares.min(1), 0) / these.shape[1])))


def spectrum(waves: list[np.ndarray]) -> np.ndarray:
    """Long-term mean spectrum in 40 mel bands, dB, without the overall level."""
    powers = np.mean([mel_powers(wave, 640, 40).mean(0) / max(1e-12, float(np.mean(wave**2))) for wave in waves], 0)
    levels = 10 * np.log10(np.maximum(powers, 1e-12))
    return levels - levels.mean()


def figures(waves: list[np.ndarray], real: np.ndarray, training: np.ndarray) -> list[float]:
    """DNSMOS, F0, voiced, pauses, spectrum, distance."""
    pitches = np.concatenate([Sound(wave).pitch for wave in waves])
    levels = np.concatenate([10 * np.log10((10 ** (levels_db(wave) / 10)).mean(1)) for wave in waves])
    return [
        float(np.mean([dnsmos(Sound(wave), Sound(wave)) for wave in waves])),
        float(np.median(pitches[pitches > 0])) if (pitches > 0).any() else 0.0,
        100 * float(np.mean(pitches > 0)),
        100 * float(np.mean(levels < -PAUSE_DB)),
        float(np.abs(spectrum(waves) - real).mean()),
        nearest(stretches(waves, STRETCHES), training),
    ]


def restarted(codec, level: int, seed: int, temperature: float, top_p: float) -> np.ndarray:
    """A piece whose prior forgets everything at the end of each group, as in a file."""
    random, size = np.random.default_rng(seed), codec.config.group_frames
    groups = round(PIECE_S * codec.config.frame_rate_hz) // size
    parts = [draw_symbols(codec.model.context_prior, level, size, random, temperature, top_p) for _ in range(groups)]
    return codec.from_latents(codec.model.quantiser.latents(np.concatenate(parts), level), level)


def likeness(codec, prompts: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean spectrum of a drawn second against that of the prompt before it, of any prompt; of two prompts. dB."""
    before, after = [], []
    for seed, prompt in enumerate(prompts):
        made = sample(codec, 1.0, prompt=(prompt, RATE_HZ), seed=seed)
        for spectra, part in zip((before, after), np.split(made.wave, [made.prompt_samples]), strict=True):
            spectra.append(spectrum([part]))
    drawn, prompts = (np.abs(np.array(these)[:, None] - before).mean(-1) for these in (after, before))
    apart = ~np.eye(len(prompts), dtype=bool)
    return float(np.diag(drawn).mean()), float(drawn[apart].mean()), float(prompts[apart].mean())


def main(
    data: Annotated[Path, typer.Option(help="folder of speech to compare with")],
    train: Annotated[Path, typer.Option(help="folder the model was trained on, for the nearest of its clips")],
    model: Annotated[str, typer.Option(help="bundled model or a model folder, with a context prior")] = "speech-16k",
    temperatures: Annotated[str, typer.Option(help="at the usual level and top-p 1")] = "0,0.6,0.8,0.9,1",
    top_ps: Annotated[str, typer.Option(help="at the usual level and temperature 1")] = "0.8,0.9,0.95,0.97",
    levels: Annotated[str, typer.Option(help="eighths of the scale, at the usual temperature and top-p")] = "0,2,4,6",
    pieces: Annotated[int, typer.Option(help="of 10 s each")] = 4,
    prompts: Annotated[int, typer.Option(help="of 3 s each; 0 leaves them out")] = 24,
) -> None:
    """One row for real speech, one for speech through the codec, one for each way of drawing."""
    codec = load(model)
    scale, usual = codec.config.levels, codec.config.levels // LEVEL_SHARE
    ways = [(usual, temperature, 1.0) for temperature in numbers(temperatures)]
    ways += [(usual, 1.0, top_p) for top_p in numbers(top_ps)]
    ways += [(int(eighth * scale) // 8, TEMPERATURE, TOP_P) for eighth in numbers(levels)]
    training = stretches(pieces_of(train, TRAINING_CLIPS, 4.0), TRAINING_STRETCHES)
    speech = pieces_of(data, 2 * pieces)
    real = spectrum(speech)
    others, base = speech[::2], figures(speech, real, training)
    rows = [("real speech", 0.0, base), ("half of it", 0.0, figures(others, real, training))]
    coded = [codec.from_latents(codec.latents(wave, RATE_HZ, usual).sounding, usual) for wave in others]
    rows.append((f"the half through the latents, level {usual}", 0.0, figures(coded, real, training)))
    for level, temperature, top_p in track(ways, "drawing"):
        options = {"level": level, "temperature": temperature, "top_p": top_p}
        started = time.process_time()
        waves = [sample(codec, PIECE_S, seed=seed, **options).wave for seed in range(pieces)]
        speed = pieces * PIECE_S / (time.process_time() - started)
        rows.append((f"level {level}, T {temperature:g}, p {top_p:g}", speed, figures(waves, real, training)))
    waves = [restarted(codec, usual, seed, TEMPERATURE, TOP_P) for seed in range(pieces)]
    name = f"level {usual}, T {TEMPERATURE:g}, p {TOP_P:g}, anew each group"
    rows.append((name, 0.0, figures(waves, real, training)))
    table = Table("", *HEADS, title=f"{pieces} pieces of {PIECE_S:g} s, model {codec.bundle.fingerprint.hex()}")
    for name, speed, (mos, hz, voiced, pauses, away_db, near_db) in rows:
        ratio = f"{near_db:.1f} dB, {near_db / base[-1]:.2f}"
        cells = f"{mos:.2f}", f"{hz:.0f}", f"{voiced:.0f}", f"{pauses:.0f}", f"{away_db:.1f}", ratio
        table.add_row(name, f"{speed:.0f}" if speed else "", *cells)
    wide_console().print(table)
    if prompts:
        own, others_db, two = likeness(codec, pieces_of(data, prompts, PROMPT_S))
        print(f"a second drawn on: spectrum {own:.1f} dB from the own prompt's, {others_db:.1f} from another's")
        print(f"two prompts: {two:.1f} dB")


if __name__ == "__main__":
    typer.run(main)
