"""Clips of music to measure by, and to fit tables to: python bench/music_clips.py OUT --split test --speech SPEECH

Scores in the public domain from the corpus of music21, played by FluidSynth with another sound font and other pieces
for `fit` (FluidR3) than for `test` (MuseScore General), and sounds made by numpy. Needs `fluidsynth`, the Debian
packages fluid-soundfont-gm and musescore-general-soundfont-small, and the Python packages music21, mido and scipy.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import mido
import music21
import numpy as np
import typer
from scipy.signal import chirp

from nacre.evaluate.choice import find_clips
from nacre.io import audio

RATE_HZ, SECONDS = 48_000, 10
PANS = (30, 98, 50, 80, 64, 20, 110)  # of voices, from left to right
FONTS = {"fit": "sf2/FluidR3_GM.sf2", "test": "sf3/MuseScore_General.sf3"}
SCORES = {  # name: score, General MIDI programs of its parts
    "fit": {
        "strings": ("bach/bwv66.6", [48]),
        "harpsichord": ("bach/bwv244.46", [6]),
        "quartet": ("beethoven/opus18no1/movement1", [40, 40, 41, 42]),
        "piano": ("mozart/k80/movement1", [0]),
        "organ": ("bach/bwv7.7", [19]),
        "glockenspiel": ("bach/bwv65.2", [9, 11]),
        "winds": ("bach/bwv102.7", [73, 71, 68, 70]),
        "brass": ("bach/bwv10.7", [56, 60, 57, 58]),
        "choir": ("bach/bwv108.6", [52]),
        "guitar": ("bach/bwv144.6", [24, 25]),
        "piano2": ("beethoven/opus59no1/movement2", [0]),
        "harpsichord2": ("mozart/k155/movement1", [6]),
        "harp": ("bach/bwv113.8", [46]),
        "mixed": ("haydn/opus1no1/movement1", [0, 48]),
    },
    "test": {
        "strings": ("bach/bwv227.1", [48]),
        "glockenspiel": ("bach/bwv227.11", [9]),
        "harpsichord": ("mozart/k156/movement1", [6]),
        "voices": ("bach/bwv40.6", [52]),
        "piano": ("mozart/k458/movement1", [0]),
        "brass": ("bach/bwv311", [56, 60, 57, 58]),
    },
}
STRUCK = {  # name: keys of the drum kit, or of a program; seconds from one to the next
    "fit": {
        "drums": (None, [36, 38, 42, 46, 49, 45], 0.22),
        "percussion": (None, [85, 76, 77, 75, 67, 54, 81], 0.3),
        "applause": (126, [60], 3),
    },
    "test": {
        "castanets": (None, [85, 85, 76], 0.17),
        "triangle": (None, [81, 80], 0.6),
        "drums": (None, [36, 38, 42, 46, 51], 0.2),
        "applause": (126, [62], 3),
    },
}


def main(
    out: Path,
    split: Annotated[str, typer.Option(help="fit or test")] = "test",
    speech: Annotated[Path | None, typer.Option(help="Folder of speech at 48 kHz, for `test`.")] = None,
) -> None:
    """Write the clips of one split, FLAC in stereo."""
    out.mkdir(parents=True, exist_ok=True)
    font, made = f"/usr/share/sounds/{FONTS[split]}", {}
    for name, (score, programs) in SCORES[split].items():
        made[name] = played(_scored(score, programs), font)
    for seed, (name, (program, keys, gap)) in enumerate(STRUCK[split].items()):
        made[name] = played(_struck(program, keys, gap, seed), font)
    if split == "test":
        made |= synthetic()
        if speech:
            voices = [audio.read(speech / name) for name in find_clips(speech, None)]
            voice = np.concatenate([audio.resampled(wave[0], rate_hz, RATE_HZ) for wave, rate_hz in voices])
            voice = np.tile(_level(voice[: SECONDS * RATE_HZ]), (2, 1))
            made["solo voice"] = voice
            made["speech over music"] = voice + 0.3 * made["piano"][:, : voice.shape[1]]
    for name, wave in made.items():
        audio.write(out / f"{name.replace(' ', '-')}.flac", _level(wave), RATE_HZ)
        print(name, flush=True)


def synthetic() -> dict[str, np.ndarray]:
    """Tones and a sweep of noise [2, N]."""
    t = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    tones = np.sin(2 * np.pi * 440 * t) + 0.5 * np.sin(2 * np.pi * 2637 * t) + 0.3 * np.sin(2 * np.pi * 7902 * t)
    noise = np.random.default_rng(1).standard_normal((2, len(t)))
    sweep = noise * chirp(t, 200, SECONDS, 12_000)
    return {"synthetic tones": np.stack([tones, 0.7 * tones]), "noise sweep": sweep}


def _level(wave: np.ndarray) -> np.ndarray:
    loud: np.ndarray = (0.7 * wave / np.abs(wave).max()).astype(np.float32)
    return loud


def _scored(name: str, programs: list[int]) -> mido.MidiFile:
    score = music21.corpus.parse(name).measures(1, 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "score.mid"
        midi = music21.midi.translate.streamToMidiFile(score)
        midi.open(str(path), "wb")
        midi.write()
        midi.close()
        midi_file = mido.MidiFile(path)
    for index, track in enumerate(midi_file.tracks):
        channel = index % 9
        kept = [each for each in track if each.type != "program_change"]
        track[:] = [each.copy(channel=channel) if hasattr(each, "channel") else each for each in kept]
        track.insert(0, mido.Message("program_change", channel=channel, program=programs[index % len(programs)]))
        track.insert(0, mido.Message("control_change", channel=channel, control=10, value=PANS[index % len(PANS)]))
    return midi_file


def _struck(program: int | None, keys: list[int], gap_s: float, seed: int) -> mido.MidiFile:
    dice, midi, track = random.Random(seed), mido.MidiFile(), mido.MidiTrack()
    midi.tracks.append(track)
    channel, ticks = (9 if program is None else 0), int(gap_s * 960)
    if program is not None:
        track.append(mido.Message("program_change", channel=channel, program=program))
    for _ in range(int(SECONDS / gap_s)):
        key, loud = dice.choice(keys), 100 - dice.randrange(30)
        rest = 0 if dice.random() < 0.15 else ticks
        track.append(mido.Message("note_on", channel=channel, note=key, velocity=loud, time=rest))
        track.append(mido.Message("note_off", channel=channel, note=key, velocity=0, time=ticks // 10))
    return midi


def played(midi: mido.MidiFile, font: str) -> np.ndarray:
    """The first seconds [2, N] of what FluidSynth makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "score.mid", Path(folder) / "sound.wav"
        midi.save(source)
        command = ["fluidsynth", "-ni", "-g", "0.6", "-r", str(RATE_HZ), "-F", str(target), font, str(source)]
        subprocess.run(command, check=True, capture_output=True)
        wave, _ = audio.read(target)
    return wave[:, : SECONDS * RATE_HZ]


if __name__ == "__main__":
    typer.run(main)
