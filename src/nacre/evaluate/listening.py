"""The page's sounds: players, spectrograms, and the pairs that a blind test draws from."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

from nacre.core.units import kbps
from nacre.evaluate import words
from nacre.evaluate.results import Run, Score
from nacre.evaluate.stats import NEAR, is_nacre
from nacre.io.audio import resampled
from nacre.tools.html import RANGE_DB, Array, data_uri, palette, png, sound_uri, spectrogram, spectrum_db

Sounds = dict[tuple[str, str, float], tuple[Array, int]]  # (clip, system, target kb/s): wave [N], rate in Hz

ORIGINAL = "original"
LONGEST_S = 10.0  # of an example; more is cut off
COLUMNS = 420  # of a picture; half as many bytes as the demo's
ROW_BYTES = 2_500  # of a sound, without itself and its pictures
QUIETEST_DB = -40.0  # of a picture's brightest shade, so that silence is black
DIFFERENCE_DB = 24.0
DIFFERENCE_ANCHORS = "041c4a 1f4e8c 7d8795 a9a9a9 b8a68a e0913a fff0c0"  # dark is missing, bright is added
DIFFERENCE_SHADES = 25


@dataclass(frozen=True)
class Picture:
    """A PNG, its name and its text for those who do not see it."""

    what: str
    words: str
    uri: str


@dataclass(frozen=True)
class Sound:
    """One row: a player, its numbers and its pictures."""

    id: str
    system: str
    target_kbps: float
    rate_kbps: float  # of the payload; of 16-bit samples for the original
    label: str
    numbers: str
    uri: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Group:
    """Sounds of a clip at nearly one rate."""

    name: str
    sounds: list[Sound]


@dataclass(frozen=True)
class Example:
    """A clip with all that was made of it."""

    name: str
    note: str
    seconds: str
    top_khz: str
    middle_khz: str
    groups: list[Group]

    @property
    def sounds(self) -> list[Sound]:
        """All of them, the original first."""
        return [sound for group in self.groups for sound in group.sounds]

    @property
    def size_bytes(self) -> int:
        """What it adds to the page."""
        data = sum(len(sound.uri) + sum(len(picture.uri) for picture in sound.pictures) for sound in self.sounds)
        return data + ROW_BYTES * len(self.sounds)


def examples(run: Run, sounds: Sounds, order: list[str], room_bytes: int) -> tuple[list[Example], list[str]]:
    """The clips of `run.examples` that fit into the page, and a sentence for each that is not shown."""
    shown: list[Example] = []
    notes = []
    for clip in dict.fromkeys(run.examples):
        if not _has_sound(sounds.get((clip, ORIGINAL, 0.0))):
            notes.append(f"{clip} is not shown: its original is missing.")
            continue
        example = _example(run, sounds, order, clip, len(shown))
        if example.size_bytes > room_bytes:
            notes.append(f"{clip} is not shown, to keep this page small.")
            continue
        room_bytes -= example.size_bytes
        shown.append(example)
    return shown, notes


def key_picture() -> Picture:
    """The colours of a difference."""
    shades = np.arange(DIFFERENCE_SHADES, dtype=np.uint8)[None]
    colours = palette(DIFFERENCE_ANCHORS, DIFFERENCE_SHADES)
    return Picture("key", "from dark over grey to bright", data_uri("image/png", png(shades, colours)))


def pairs(shown: list[Example]) -> dict[str, object]:
    """What the blind test needs: sounds by id, and pairs of nacre with others at a near rate and with the original."""
    sounds = {
        sound.id: {
            "clip": example.name,
            "system": sound.system,
            "label": sound.label,
            "kbps": f"{sound.rate_kbps:.2f}",
        }
        for example in shown
        for sound in example.sounds
    }
    pairs = [pair for example in shown for pair in _pairs_of(example)]
    key = zlib.crc32("".join(sound.uri for example in shown for sound in example.sounds).encode())
    return {"key": f"{key:08x}", "sounds": sounds, "pairs": pairs}


def _pairs_of(example: Example) -> list[dict[str, object]]:
    original, *coded = example.sounds
    pairs: list[dict[str, object]] = []
    for ours in (sound for sound in coded if is_nacre(sound.system)):
        peers = dict.fromkeys(sound.system for sound in coded if not is_nacre(sound.system))
        others = [_nearest([s for s in coded if s.system == peer], ours.rate_kbps) for peer in peers]
        for other in [original, *filter(None, others)]:
            group = f"{ours.system} with {'the original' if other is original else other.system}"
            pairs.append({"one": ours.id, "two": other.id, "group": group, "rate": f"{ours.target_kbps:g}"})
    return pairs


def _nearest(sounds: list[Sound], rate_kbps: float) -> Sound | None:
    def distance(sound: Sound) -> float:
        return abs(math.log(sound.rate_kbps / rate_kbps)) if sound.rate_kbps > 0 < rate_kbps else math.inf

    best = min(sounds, key=distance)
    return best if distance(best) <= math.log(NEAR) else None


def _has_sound(sound: tuple[Array, int] | None) -> bool:
    return sound is not None and len(sound[0]) > 0


def _example(run: Run, sounds: Sounds, order: list[str], clip: str, number: int) -> Example:
    whole, rate_hz = sounds[clip, ORIGINAL, 0.0]
    wave = _cut(whole, rate_hz)  # [N]
    seconds = len(wave) / rate_hz
    level_db = spectrum_db(wave, COLUMNS)
    loudest_db = max(float(level_db.max()), QUIETEST_DB)
    first = Sound(
        f"s{number}-0",
        ORIGINAL,
        0.0,
        kbps(2 * rate_hz, 1),
        ORIGINAL,
        f"{rate_hz:,} Hz; {kbps(2 * rate_hz, 1):.0f} kb/s as 16-bit samples",
        sound_uri(wave[None], rate_hz),
        [Picture(ORIGINAL, "Spectrogram", data_uri("image/png", spectrogram(level_db, loudest_db)))],
    )
    scores = {(score.system, score.target_kbps): score for score in run.scores if score.clip == clip}
    playable = [(s, t) for c, s, t in sounds if c == clip and s in order and _has_sound(sounds[c, s, t])]
    anchors = sorted({target for system, target in playable if is_nacre(system)})
    playable.sort(key=lambda key: (_anchor(key[1], anchors), order.index(key[0]), key[1]))
    groups: dict[float, list[Sound]] = {}
    for count, (system, target) in enumerate(playable, 1):
        sound = sounds[clip, system, target]
        pictures = _pictures(spectrum_db(_like(sound, rate_hz, len(wave)), COLUMNS), level_db, loudest_db)
        row = groups.setdefault(_anchor(target, anchors), [])
        row.append(_coded(f"s{number}-{count}", system, target, sound, scores.get((system, target)), pictures))
    named = [Group(f"about {rate:g} kb/s", row) for rate, row in groups.items()]
    cut = f", the first {seconds:.0f} s of {len(whole) / rate_hz:.1f} s" if len(wave) < len(whole) else ""
    half_khz = rate_hz / 2000
    return Example(
        clip,
        f"{seconds:.1f} s{cut}",
        f"{seconds:.1f}",
        f"{half_khz:g} kHz",
        f"{half_khz / 2:g}",
        [Group("as recorded", [first]), *named],
    )


def _anchor(target_kbps: float, anchors: list[float]) -> float:
    """The rate of ours that a sound is shown under; its own if none is near."""
    near = min(anchors, key=lambda anchor: abs(math.log(anchor / target_kbps)), default=target_kbps)
    return near if max(near / target_kbps, target_kbps / near) <= NEAR else target_kbps


def _coded(
    name: str, system: str, target: float, sound: tuple[Array, int], score: Score | None, pictures: list[Picture]
) -> Sound:
    rate_kbps = kbps(score.payload_bytes, score.seconds) if score else 0.0
    label = f"{system} at {rate_kbps:.2f} kb/s" if score else f"{system}, target {target:g} kb/s"
    numbers = _numbers(score, rate_kbps) if score else "not scored"
    return Sound(name, system, target, rate_kbps, label, numbers, sound_uri(_cut(*sound)[None], sound[1]), pictures)


def _numbers(score: Score, rate_kbps: float) -> str:
    file_kbps = kbps(score.file_bytes, score.seconds)
    file = "" if score.file_bytes == score.payload_bytes else f" ({file_kbps:.2f} as a file)"
    some = {name: score.metrics[name] for name in words.HEADLINE if name in score.metrics}
    figures = words.scores(replace(score, metrics=some or score.metrics))
    return f"{rate_kbps:.2f} kb/s{file}" + (f", {figures}" if figures else "")


def _pictures(decoded_db: Array, original_db: Array, loudest_db: float) -> list[Picture]:
    floor_db = loudest_db - RANGE_DB
    change_db = np.maximum(decoded_db, floor_db) - np.maximum(original_db, floor_db)  # [ROWS, COLUMNS]
    share = np.clip(change_db / DIFFERENCE_DB, -1, 1) / 2 + 0.5
    pixels = (share * (DIFFERENCE_SHADES - 1)).round().astype(np.uint8)
    change = png(pixels, palette(DIFFERENCE_ANCHORS, DIFFERENCE_SHADES))
    decoded = spectrogram(decoded_db, loudest_db)
    return [
        Picture("decoded", "Spectrogram", data_uri("image/png", decoded)),
        Picture("difference", "Difference from the original", data_uri("image/png", change)),
    ]


def _cut(wave: Array, rate_hz: int) -> Array:
    """The part that is shown, [N] float32 without what no player plays."""
    return np.nan_to_num(wave[: round(LONGEST_S * rate_hz)].astype(np.float32), posinf=1.0, neginf=-1.0)


def _like(sound: tuple[Array, int], rate_hz: int, samples: int) -> Array:
    """A sound at the original's rate and length, for pictures."""
    wave, from_hz = _cut(*sound), sound[1]
    wave = resampled(wave, from_hz, rate_hz)
    return np.pad(wave[:samples], (0, max(0, samples - len(wave))))
