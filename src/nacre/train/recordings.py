"""Recordings for training: folders of audio and tables of it, decoded once into a cache.

Each top folder below the data folder counts as a source, and so does each table; short files are joined. The cache is
a file that is mapped into memory; of the recordings themselves no more than one block is in memory while they are
decoded.
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

from nacre.core.errors import NacreError, TrainError, reason
from nacre.io.audio import AudioReader, mono_blocks
from nacre.io.folders import inside

Array = np.ndarray[Any, np.dtype[Any]]

Read = Callable[[], Iterator[Array]]  # one recording in blocks [N]; raises NacreError

SPOOL_BYTES = 32 << 20  # of one recording in memory, the rest in a file
FAINT = 1e-5  # below a third of a 16-bit step there is no noise
FRAME_S, QUIET, LOUD = 0.02, 8, 95  # percentiles of the frames that tell a recording's own noise, and its speech


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


def load_corpus(data: Given, cache: Path, rate_hz: int, quiet: bool = False, range_db: float = 0.0) -> Corpus:
    """Recordings of one folder or several, read from `cache` where their list and sizes are unchanged.

    Those are skipped whose noise lies less than `range_db` below their speech: who learns to give them back learns to
    keep noise. Raises TrainError for a folder that is none, or that has no sound.
    """
    given: list[Data] = list(data) if isinstance(data, Sequence) else [data]
    tables = [each for each in given if not isinstance(each, Path)]
    files = sorted(chain.from_iterable(_files(each) for each in given if isinstance(each, Path)))
    listing = chain(([str(path), path.stat().st_size] for _, path in files), *(table.listed() for table in tables))
    wanted = _digest(listing) | {"rate_hz": rate_hz, "range_db": range_db}
    index_path = cache.with_suffix(".json")
    try:
        index = {"range_db": 0.0} | json.loads(index_path.read_text())  # earlier versions took all
        if "listing" in index:  # of an earlier version
            index |= _digest(index["listing"])
        if wanted.items() <= index.items():
            return open_cache(cache)
    except (OSError, ValueError, TypeError, AttributeError, TrainError):
        pass  # none yet, or one that a kill left unfinished
    index_path.unlink(missing_ok=True)  # before its samples change
    reads = _reads(files, tables, rate_hz)
    total = wanted["files"]
    index = _decode(track(reads, "reading recordings", total, disable=quiet), cache, rate_hz, range_db) | wanted
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


def _reads(files: list[tuple[str, Path]], tables: list[Recordings], rate_hz: int) -> Iterator[tuple[str, str, Read]]:
    """All recordings source after source, whose samples lie in one row: source, what to call it, samples."""
    for name in sorted({name for name, _ in files} | {table.name for table in tables}):
        yield from ((name, str(path), partial(_blocks, path, rate_hz)) for source, path in files if source == name)
        for table in tables:
            if table.name == name:
                for number, read in enumerate(table.read(rate_hz), 1):
                    yield name, f"{name}, recording {number}", read


def _blocks(path: Path, rate_hz: int) -> Iterator[Array]:
    with AudioReader(path) as reader:
        yield from mono_blocks(reader, rate_hz)


def _decode(reads: Iterable[tuple[str, str, Read]], cache: Path, rate_hz: int, range_db: float) -> dict[str, Any]:
    """Write int16 samples of all recordings in a row; -> how many there are of each source and recording."""
    lengths: dict[str, list[int]] = {}
    skipped = []
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".i16").open("wb") as out:
        for name, called, read in reads:
            start = out.tell()
            try:
                count, found_db = _write(out, read(), round(FRAME_S * rate_hz))
                if found_db < range_db:
                    wanted = f"the recipe's range_db wants {range_db:g}, and 0 takes all"
                    raise TrainError(f"{called} has noise only {found_db:.0f} dB below its speech; {wanted}")
                lengths.setdefault(name, []).append(count)
            except NacreError as error:
                out.seek(start)
                out.truncate()
                skipped.append(str(error))
    counts = {name: sum(sizes) for name, sizes in lengths.items() if sizes}
    if not counts:
        raise TrainError(f"no recording can be used; the first: {skipped[0] if skipped else 'there are none'}")
    return {"counts": counts, "lengths": {name: lengths[name] for name in counts}, "skipped": skipped}


def _write(out: BinaryIO, blocks: Iterator[Array], frame: int) -> tuple[int, float]:
    """A recording without its offset, which is no sound, once all of it could be read.

    -> (how many samples it has, dB from its quiet frames to its loud ones).
    """
    total, count, powers = 0.0, 0, [np.zeros(0, np.float32)]
    with SpooledTemporaryFile(SPOOL_BYTES) as spool:
        for block in blocks:
            spool.write(block.astype("<f4").tobytes())
            total, count = total + block.sum(dtype=np.float64), count + len(block)
        offset = np.float32(total / max(1, count))
        spool.seek(0)
        while data := spool.read(4096 * frame):
            samples = np.frombuffer(data, "<f4") - offset
            out.write(np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2").tobytes())
            powers.append(np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(1))
    of_frames = np.concatenate(powers)
    quiet, loud = np.percentile(of_frames, (QUIET, LOUD)) if len(of_frames) else (0.0, 0.0)
    return count, float(10 * np.log10((loud + FAINT**2) / (quiet + FAINT**2)))
