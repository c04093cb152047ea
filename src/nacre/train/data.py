"""Recordings for training: folders of audio and tables of it, decoded once into a cache, drawn from by seed.

Each top folder below the data folder counts as a source, and so does each table; short files are joined, so that an
excerpt may cross from one recording into the next, as speech on a line does. The cache is a file that is mapped into
memory; of the recordings themselves no more than one block is in memory while they are decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol

import numpy as np
from rich.progress import track

from nacre.core.config import CodecConfig
from nacre.core.errors import NacreError, TrainError, reason
from nacre.core.units import db_to_gain
from nacre.dsp.gain import gain_for, gain_of
from nacre.io.audio import AudioReader, mono_blocks
from nacre.io.folders import inside
from nacre.train.degrade import (
    DegradeConfig,
    NoiseMixConfig,
    add_noise,
    change_speed,
    clipped,
    gusts,
    in_room,
    narrow,
    recoloured,
    tilt,
    tones,
)
from nacre.train.synthetic_noise import clicks, coloured, hum, synthetic

Array = np.ndarray[Any, np.dtype[Any]]

Read = Callable[[], Iterator[Array]]  # one recording in blocks [N]; raises NacreError

SPOOL_BYTES = 32 << 20  # of one recording in memory, the rest in a file
ROOMS = "rir"  # the source of noise that holds responses of rooms
FAINT = 1e-5  # below a third of a 16-bit step there is no noise
BAND_TOP_HZ = (3400.0, 7000.0)  # where a narrow band ends


@dataclass(frozen=True)
class Source:
    """One source of the corpus: int16 samples [N] of all its recordings in a row, and where each of them stops."""

    name: str
    samples: Array
    stops: Array


@dataclass(frozen=True)
class Corpus:
    """Sources at `rate_hz`, and which of the `files` could not be read, with reasons."""

    sources: list[Source]
    skipped: list[str]
    rate_hz: int
    files: int

    @property
    def seconds(self) -> float:
        """Length of the corpus."""
        return sum(len(source.samples) for source in self.sources) / self.rate_hz


class Recordings(Protocol):
    """Recordings that are no folder of files: rows of a table, members of tars."""

    @property
    def name(self) -> str:
        """Of the source that they are."""
        ...

    def listed(self) -> Iterator[list[Any]]:
        """Each of them, without its sound, as values of JSON that change where it does."""
        ...

    def read(self, rate_hz: int) -> Iterator[Read]:
        """Each of them, at this rate, to be read before the next."""
        ...


Data = Path | Recordings
Given = Data | Sequence[Data]


def load_corpus(data: Given, cache: Path, rate_hz: int, quiet: bool = False) -> Corpus:
    """Recordings of one folder or several, read from `cache` where their list and sizes are unchanged.

    Raises TrainError for a folder that is none, or that has no sound.
    """
    given: list[Data] = list(data) if isinstance(data, Sequence) else [data]
    tables = [each for each in given if not isinstance(each, Path)]
    files = sorted(chain.from_iterable(_files(each) for each in given if isinstance(each, Path)))
    listing = chain(([str(path), path.stat().st_size] for _, path in files), *(table.listed() for table in tables))
    wanted = _digest(listing) | {"rate_hz": rate_hz}
    index_path = cache.with_suffix(".json")
    try:
        index = json.loads(index_path.read_text())
        if "listing" in index:  # of an earlier version
            index |= _digest(index["listing"])
        if wanted.items() <= index.items():
            return open_cache(cache)
    except (OSError, ValueError, TypeError, AttributeError, TrainError):
        pass  # none yet, or one that a kill left unfinished
    index_path.unlink(missing_ok=True)  # before its samples change
    reads = _reads(files, tables, rate_hz)
    total = wanted["files"]
    index = _decode(track(reads, "reading recordings", total, disable=quiet), cache.with_suffix(".i16")) | wanted
    part = index_path.with_suffix(".part")
    part.write_text(json.dumps(index))
    os.replace(part, index_path)
    return open_cache(cache)


def open_cache(cache: Path) -> Corpus:
    """The corpus that `load_corpus` left in a run; raises TrainError where there is none."""
    try:
        index = json.loads(cache.with_suffix(".json").read_text())
        flat = np.memmap(cache.with_suffix(".i16"), np.int16, "r")
        if len(flat) != sum(index["counts"].values()):
            raise ValueError(f"{len(flat)} samples")
        skipped, rate_hz = index["skipped"], index["rate_hz"]
        files = len(index["listing"]) if "listing" in index else int(index["files"])
        if index["lengths"].keys() != index["counts"].keys():
            raise ValueError("other sources than lengths")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainError(f"{cache} holds no recordings decoded by `nacre train`: {reason(error)}") from error
    sources, start = [], 0
    for name, count in index["counts"].items():
        stops = np.cumsum(index["lengths"][name])
        if stops[-1:].tolist() != [count]:
            raise TrainError(f"{cache}: source {name} has {count} samples, and its recordings {stops[-1:]}")
        sources.append(Source(name, flat[start : start + count], stops))
        start += count
    return Corpus(sources, skipped, rate_hz, files)


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Every sound file below a folder, and the source that it is of."""
    if not folder.is_dir():
        raise TrainError(f"{folder} is no folder; give one of recordings")
    paths = [Path(path) for path in inside(folder)]
    if not paths:
        raise TrainError(f"{folder} holds no sound files; give a folder of recordings")
    return [(_source(path, folder), path) for path in paths]


def _source(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else "."


def _digest(listing: Iterable[list[Any]]) -> dict[str, Any]:
    """How many recordings there are, and SHA-256 of their list."""
    digest, count = hashlib.sha256(), 0
    for item in listing:
        digest.update(json.dumps(item).encode() + b"\n")
        count += 1
    return {"files": count, "digest": digest.hexdigest()}


def _reads(files: list[tuple[str, Path]], tables: list[Recordings], rate_hz: int) -> Iterator[tuple[str, Read]]:
    """All recordings source after source, whose samples lie in one row."""
    for name in sorted({name for name, _ in files} | {table.name for table in tables}):
        yield from ((name, partial(_blocks, path, rate_hz)) for source, path in files if source == name)
        for table in tables:
            if table.name == name:
                yield from ((name, read) for read in table.read(rate_hz))


def _blocks(path: Path, rate_hz: int) -> Iterator[Array]:
    with AudioReader(path) as reader:
        yield from mono_blocks(reader, rate_hz)


def _decode(reads: Iterable[tuple[str, Read]], data_path: Path) -> dict[str, Any]:
    """Write int16 samples of all recordings in a row; -> how many there are of each source and recording."""
    lengths: dict[str, list[int]] = {}
    skipped = []
    data_path.parent.mkdir(parents=True, exist_ok=True)
    with data_path.open("wb") as out:
        for name, read in reads:
            try:
                lengths.setdefault(name, []).append(_write(out, read()))
            except NacreError as error:
                skipped.append(str(error))
    counts = {name: sum(sizes) for name, sizes in lengths.items() if sizes}
    if not counts:
        raise TrainError(f"no recording can be read; the first: {skipped[0] if skipped else 'there are none'}")
    return {"counts": counts, "lengths": {name: lengths[name] for name in counts}, "skipped": skipped}


def _write(out: BinaryIO, blocks: Iterator[Array]) -> int:
    """A recording without its offset, which is no sound, once all of it could be read; -> how many samples it has."""
    total, count = 0.0, 0
    with SpooledTemporaryFile(SPOOL_BYTES) as spool:
        for block in blocks:
            spool.write(block.astype("<f4").tobytes())
            total, count = total + block.sum(dtype=np.float64), count + len(block)
        offset = np.float32(total / max(1, count))
        spool.seek(0)
        while data := spool.read(1 << 20):
            samples = np.frombuffer(data, "<f4") - offset
            out.write(np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2").tobytes())
    return count


@dataclass(frozen=True)
class Excerpts:
    """`waves` [B, N] float32 for the encoder, zeros at the end where a recording is shorter; `targets` [B, N] for the
    decoder, the same but where noise is to be left out, the `denoised` [B] bool; `lengths` [B] samples of each."""

    waves: Array
    targets: Array
    lengths: Array
    denoised: Array


class Sampler:
    """Draws training excerpts. The same (seed, step, item) always gives the same samples."""

    def __init__(
        self,
        corpus: Corpus,
        codec: CodecConfig,
        degrade: DegradeConfig,
        noise: Corpus | None,
        balance: float,
        whole: bool = False,
        noise_mix: NoiseMixConfig | None = None,
    ):
        self.codec, self.degrade, self.whole, self.noise_mix = codec, degrade, whole, noise_mix or NoiseMixConfig()
        long = [s for s in corpus.sources if len(s.samples) > codec.hop_samples]
        self.sources, self.stops = [s.samples for s in long], [s.stops for s in long]
        if not self.sources:
            raise TrainError(f"{corpus.seconds:.3f} s of recordings are too few; give more with --data")
        self.noises = [s.samples for s in noise.sources if s.name != ROOMS] if noise else []
        rooms = [s for s in noise.sources if s.name == ROOMS] if noise else []
        self.rooms = [response for s in rooms for response in np.split(s.samples, s.stops[:-1])]
        sizes = np.array([len(s) for s in self.sources], np.float64) ** balance
        self.share = sizes / sizes.sum()

    def batch(self, items: int, samples: int, seed: tuple[int, ...]) -> Array:
        """Excerpts [B, N] float32, level-normalised as the encoder does it."""
        return self.draw(items, samples, seed).waves

    def draw(self, items: int, samples: int, seed: tuple[int, ...], cleaning: float = 0.0, first: int = 0) -> Excerpts:
        """Excerpts, level-normalised as the encoder does it; a share of `cleaning` has noise to leave out.

        They are those of the seed from number `first` on.
        """
        waves, targets = np.zeros((2, items, samples), np.float32)
        lengths, denoised = np.zeros(items, np.int64), np.zeros(items, bool)
        for item in range(items):
            rng = np.random.default_rng([*seed, first + item])
            denoised[item] = cleaning > 0 and rng.random() < cleaning
            wave, target = self.item(samples, rng, bool(denoised[item]))
            lengths[item] = len(wave)
            waves[item, : len(wave)], targets[item, : len(wave)] = wave, target
        return Excerpts(waves, targets, lengths, denoised)

    def item(self, samples: int, rng: np.random.Generator, denoised: bool = False) -> tuple[Array, Array]:
        """One excerpt and its target [N] float32; shorter, by whole frames, where recordings are kept `whole`."""
        d = self.degrade
        factor = rng.uniform(*d.speed_range) if rng.random() < d.speed_probability else 1.0
        chosen = rng.choice(len(self.sources), p=self.share)
        source = self._recording(chosen, rng) if self.whole else self.sources[chosen]
        if d.tone_probability and rng.random() < d.tone_probability:
            wave = tones(samples, self.codec.rate_hz, rng)
            return wave, wave
        if self.whole:
            hop = self.codec.hop_samples
            samples = min(samples, max(hop, (int(len(source) / factor) - 64) // hop * hop))
        wave = excerpt(source, int(samples * factor) + 64 if factor != 1.0 else samples, rng)
        if factor != 1.0:
            wave = change_speed(wave, factor, samples)
        if rng.random() < d.tilt_probability:
            wave = tilt(wave, rng.uniform(-0.5, 0.5))
        if rng.random() < d.talker_probability:
            wave = add_noise(wave, self._other(samples, rng), rng.uniform(*d.talker_snr_db))
        if self.rooms and rng.random() < d.room_probability:
            wave, _ = in_room(wave, self._room(rng), self.codec.rate_hz)
        if rng.random() < d.band_probability:
            wave = narrow(wave, rng.uniform(0, 300), rng.uniform(*BAND_TOP_HZ), self.codec.rate_hz)
        target = wave
        if denoised:
            wave, target = self._noisy(wave, rng)
        elif self.noises and rng.random() < d.noise_probability:
            wave = target = add_noise(wave, self._noise(samples, rng), rng.uniform(*d.noise_snr_db))
        gain = gain_of(gain_for(wave, self.codec.hop_samples))
        change_db = rng.normal(0, d.level_spread_db) - (20 if rng.random() < d.quiet_probability else 0)
        sign = 1 if rng.random() < 0.5 else -1
        scale = np.float32(sign * gain * db_to_gain(change_db))
        return wave * scale, target * scale

    def _noisy(self, wave: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """wave [N] in noise and perhaps in a room, and what shall be left of it."""
        d, samples, rate_hz, target = self.noise_mix, len(wave), self.codec.rate_hz, wave
        if self.rooms and rng.random() < d.room_probability:
            wave, target = in_room(wave, self._room(rng), rate_hz)
        noise = self._background(samples, rng)
        noise /= np.float32(max(FAINT, noise.std()))
        if rng.random() < d.hum_probability:
            noise += np.float32(rng.uniform(0.3, 2)) * hum(samples, rate_hz, rng)
        if rng.random() < d.clicks_probability:
            noise += np.float32(rng.uniform(0.3, 2)) * clicks(samples, rate_hz, rng)
        if d.speechless_probability and rng.random() < d.speechless_probability:
            return noise * np.float32(0.05), np.zeros_like(wave)
        wave = add_noise(wave, noise, rng.uniform(*d.snr_db))
        if d.clipping_probability and rng.random() < d.clipping_probability:
            wave = clipped(wave, rng.uniform(0.2, 0.8))
        return wave, target

    def _background(self, samples: int, rng: np.random.Generator) -> Array:
        """What goes on behind speech [N]."""
        d, kind = self.noise_mix, rng.random() - self.noise_mix.babble_probability
        if kind < 0:
            return self._babble(samples, rng)
        varied = bool(d.varied_probability) and rng.random() < d.varied_probability
        made = d.coloured_probability + d.synthetic_probability
        if kind >= made and self.noises:
            return self._varied(samples, rng) if varied else self._noise(samples, rng)
        lively = d.coloured_probability <= kind < made
        noise = synthetic(samples, self.codec.rate_hz, rng) if lively else coloured(samples, rng)
        return _reshaped(noise, rng) if varied else noise

    def _babble(self, samples: int, rng: np.random.Generator) -> Array:
        """Three to six others who speak [N], as loud as each other."""
        others = (self._other(samples, rng) for _ in range(rng.integers(3, 7)))
        babble: Array = np.sum([other / np.float32(other.std() + 1e-4) for other in others], 0)
        return babble

    def _varied(self, samples: int, rng: np.random.Generator) -> Array:
        """Recorded noise [N] unlike the recording: few recordings must stand for all noise there is."""
        noise = np.zeros(samples, np.float32)
        for strength in (1.0, rng.uniform(0.3, 1.0))[: 2 if rng.random() < 0.25 else 1]:
            factor = rng.uniform(0.7, 1.4) if rng.random() < 0.6 else 1.0
            one = self._noise(int(samples * factor) + 64, rng)
            one = change_speed(one, factor, samples) if factor != 1.0 else one[:samples]
            noise[: len(one)] += one * np.float32(strength / (one.std() + 1e-4))
        return _reshaped(noise, rng)

    def _other(self, samples: int, rng: np.random.Generator) -> Array:
        return excerpt(self.sources[rng.choice(len(self.sources), p=self.share)], samples, rng)

    def _room(self, rng: np.random.Generator) -> Array:
        return self.rooms[rng.integers(len(self.rooms))] * np.float32(1 / 32767)

    def _noise(self, samples: int, rng: np.random.Generator) -> Array:
        """Recorded noise [N] without its offset, which would be all of a constant stretch."""
        noise = excerpt(self.noises[rng.integers(len(self.noises))], samples, rng)
        return noise - noise.mean()

    def _recording(self, chosen: int, rng: np.random.Generator) -> Array:
        """One recording of a source, the longer the likelier."""
        stops = self.stops[chosen]
        index = int(np.searchsorted(stops, rng.integers(stops[-1]), side="right"))
        return self.sources[chosen][stops[index - 1] if index else 0 : stops[index]]


def excerpt(samples: Array, count: int, rng: np.random.Generator) -> Array:
    """A random stretch [count] float32 of int16 samples; padded with zeros where there is less."""
    start = int(rng.integers(max(1, len(samples) - count)))
    wave = np.zeros(count, np.float32)
    piece = samples[start : start + count]
    wave[: len(piece)] = piece * np.float32(1 / 32767)
    return wave


def _reshaped(noise: Array, rng: np.random.Generator) -> Array:
    """noise [N], perhaps of another colour, perhaps in gusts."""
    if rng.random() < 0.5:
        noise = recoloured(noise, rng)
    return gusts(noise, rng) if rng.random() < 0.2 else noise
