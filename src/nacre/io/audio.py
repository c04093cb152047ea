"""Sound files to float32 [C, N] and back, in blocks; exact changes of rate. Home of soundfile and soxr."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile as sf
import soxr

from nacre.core.errors import AudioError, UsageError
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, ceil_div, resampled_count
from nacre.io.files import check_free, output_file
from nacre.io.ogg import ORDERS
from nacre.io.reader import (
    KNOWN,
    TAGS,
    AudioReader,
    Name,
    Sound,
    brief,
    check_finite,
    check_shape,
    named,
)
from nacre.io.stdio import printable

__all__ = [
    "FORMATS",
    "KNOWN",
    "MAX_CHANNELS",
    "MAX_RATE_HZ",
    "MIN_RATE_HZ",
    "AudioReader",
    "AudioWriter",
    "Recording",
    "Resampler",
    "check_free",
    "lossless_subtype",
    "mono_blocks",
    "output_file",
    "read",
    "read_with_facts",
    "resampled",
    "smallest_opus",
    "write",
]

FORMATS = {  # suffix: container and default subtype, in libsndfile's names
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
WAV_MAX_BYTES = 0xFFFFFFFF
PCM_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
BLOCK_SAMPLES = 1 << 14


class AudioWriter:
    """A sound file that appears, whole, when its `with` ends well; "-" streams 16-bit WAV to standard output.

    `subtype` is one of libsndfile's names for the format: PCM_16, PCM_24, FLOAT and so on. `tags` are those of TAGS;
    others, and formats that cannot have them, go without. `raw` leaves out the header, to standard output only.
    """

    def __init__(
        self,
        target: Name,
        rate_hz: int,
        channels: int,
        *,
        overwrite: bool = False,
        subtype: str | None = None,
        tags: dict[str, str] | None = None,
        raw: bool = False,
    ):
        self.name = "standard output" if str(target) == "-" else str(target)
        self.target, self.rate_hz, self.channels, self.overwrite = target, rate_hz, channels, overwrite
        self.samples_written = 0
        self.container, self.subtype = _format_of(target, subtype)
        self._order = np.argsort(ORDERS[channels]) if self.container == "OGG" and channels in ORDERS else None
        self._sound: Sound | None = None
        self._tags, self._raw = tags or {}, raw
        if raw and str(target) != "-":
            raise UsageError(f"{target} is a file, but raw samples go to '-', standard output; write a .wav instead")
        check_shape(self.name, rate_hz, channels)

    def __enter__(self) -> AudioWriter:
        with ExitStack() as stack:
            self._file = stack.enter_context(output_file(self.target, self.overwrite))
            if str(self.target) == "-" and not self._raw:
                self._file.write(_pipe_header(self.rate_hz, self.channels))
            elif str(self.target) != "-":
                self._sound = self._open(self._file.name)
                for name in TAGS & self._tags.keys():
                    setattr(self._sound, name, printable(self._tags[name]))
                stack.callback(_check_room, self._file)
                stack.callback(self._sound.close)
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exits.__exit__(*exc)  # type: ignore[arg-type]

    def _open(self, path: str) -> Sound:
        try:
            return Sound(named(path), "w", self.rate_hz, self.channels, self.subtype, format=self.container)
        except sf.SoundFileError as error:
            _check_room(self._file)
            form = f"{self.rate_hz} Hz, {self.channels} channels and {self.subtype}"
            raise AudioError(f"{self.name} cannot have {form} ({brief(error)}); write .wav or .flac") from error

    def write(self, wave: np.ndarray) -> None:
        """Append float32 [C, N], clipped to full scale and rounded to the nearest step."""
        assert wave.shape[:-1] == (self.channels,), wave.shape
        assert wave.dtype.kind == "f", wave.dtype
        check_finite(self.name, wave, self.samples_written, self.rate_hz)
        if self._order is not None:
            wave = wave[self._order]
        for start in range(0, wave.shape[1], BLOCK_SAMPLES):  # libsndfile crashes on very long Vorbis writes
            self._put(_to_steps(wave[:, start : start + BLOCK_SAMPLES].T, PCM_BITS.get(self.subtype)))

    def _put(self, data: np.ndarray) -> None:
        self.samples_written += len(data)  # [N, C] int32 or float32
        if self._sound is None:
            self._file.write((data >> 16).astype("<i2").tobytes())
            return
        room_bytes = WAV_MAX_BYTES - os.fstat(self._file.fileno()).st_size
        if self.container == "WAV" and 2 * data.nbytes > room_bytes:
            raise AudioError(f"{self.name} is too long, over the 4 GB that a .wav holds; write .flac")
        try:
            self._sound.write(data)
        except (sf.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            _check_room(self._file)
            raise AudioError(f"libsndfile could not write all of {self.name}; try another disk") from error


class Resampler:
    """A stream at another rate: no delay, `resampled_count` samples, the same bits however the input is cut.

    soxr takes 20 to 120 ms of input before it gives anything; `flush` brings the rest.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int):
        self.from_hz, self.to_hz, self.channels = from_hz, to_hz, channels
        self._taken = self._given = 0
        self._stream = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="HQ")

    def push(self, wave: np.ndarray) -> np.ndarray:
        """Take float32 [C, N], give what is ready, [C, M]."""
        assert wave.shape[:-1] == (self.channels,), wave.shape
        assert wave.dtype.kind == "f", wave.dtype
        ready = self._process(wave)  # [C, M] float32
        self._taken += wave.shape[1]
        self._given += ready.shape[1]
        return ready

    def flush(self) -> np.ndarray:
        """Give the rest, float32 [C, M], as if silence followed, and be ready for another sound."""
        missing = resampled_count(self._taken, self.from_hz, self.to_hz) - self._given
        two_more = np.zeros((self.channels, 2 * ceil_div(self.from_hz, self.to_hz)), np.float32)
        ends = [self._process(two_more), self._process(two_more[:, :0], last=True)]  # soxr alone rounds down
        tail = np.concatenate(ends, axis=1)[:, :missing]  # [C, M]
        self._stream.clear()
        self._taken = self._given = 0
        return np.pad(tail, ((0, 0), (0, missing - tail.shape[1])))

    def _process(self, wave: np.ndarray, last: bool = False) -> np.ndarray:
        if self.from_hz == self.to_hz or (wave.shape[1] == 0 and not last):
            return wave.astype(np.float32)
        data = np.ascontiguousarray(wave.T, np.float32)  # [N, C]
        return np.ascontiguousarray(self._stream.resample_chunk(data, last).T)


def resampled(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """A whole wave [N] as float32 at another rate, `resampled_count` samples."""
    resampler = Resampler(from_hz, to_hz, 1)
    resampled_wave: np.ndarray = np.concatenate([resampler.push(wave[None]), resampler.flush()], axis=1)[0]
    return resampled_wave


class Blocks(Protocol):
    """Sound that is read block by block, float32 [C, N]."""

    rate_hz: int

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """Blocks to the end."""
        ...


def mono_blocks(reader: Blocks, rate_hz: int) -> Iterator[np.ndarray]:
    """What `reader` holds as float32 [N] at another rate, channels averaged, about a second at a time."""
    resampler = Resampler(reader.rate_hz, rate_hz, 1)
    for block in reader.blocks(reader.rate_hz):
        yield resampler.push(block.mean(0, keepdims=True))[0]
    yield resampler.flush()[0]


@dataclass(frozen=True)
class Recording:
    """A whole sound file: float32 [C, N], and what was said of it."""

    wave: np.ndarray
    rate_hz: int
    subtype: str  # libsndfile's name for how samples are stored, such as PCM_16
    loss: AudioError | None  # what of the file is missing here
    notes: list[str]  # what was done to it

    @property
    def duration_s(self) -> float:
        """Of what is here."""
        return float(self.wave.shape[1] / self.rate_hz)


def read(path: Name) -> tuple[np.ndarray, int]:
    """A whole small file: float32 [C, N] and its rate in Hz."""
    recording = read_with_facts(path)
    return recording.wave, recording.rate_hz


def read_with_facts(path: Name) -> Recording:
    """As `read`, with what is missing and what was done."""
    with AudioReader(path) as reader:
        wave = np.concatenate(list(reader.blocks(BLOCK_SAMPLES)), axis=1)
        return Recording(wave, reader.rate_hz, reader.subtype, reader.loss(), reader.notes)


def write(path: Name, wave: np.ndarray, rate_hz: int, overwrite: bool = False) -> None:
    """Write float32 [C, N] as a whole file."""
    with AudioWriter(path, rate_hz, len(wave), overwrite=overwrite) as writer:
        writer.write(wave)


def lossless_subtype(subtype: str, target: Name) -> str | None:
    """`subtype`, where a file named `target` can hold its samples as they are; else None, the usual one."""
    suffix = "" if str(target) == "-" else Path(target).suffix.lower()
    kept = {".wav": [*PCM_BITS, "FLOAT"], ".flac": ["PCM_S8", "PCM_16", "PCM_24"]}.get(suffix, [])
    return subtype if subtype in kept and subtype in sf.available_subtypes(FORMATS[suffix][0]) else None


def _check_room(file: BinaryIO) -> None:
    """Meet again a disk error libsndfile swallowed: write a page at the end, and take it back."""
    end = file.seek(0, os.SEEK_END)
    file.write(bytes(4096))
    file.flush()
    file.truncate(end)


def _format_of(target: Name, subtype: str | None) -> tuple[str, str]:
    suffix = ".wav" if str(target) == "-" else Path(target).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{target} has {f'the suffix {suffix}' if suffix else 'no suffix'}; end it in one of {KNOWN}")
    container, default = FORMATS[suffix]
    known = [default] if str(target) == "-" else list(sf.available_subtypes(container))
    if subtype not in (None, *known):
        raise UsageError(f"{target} cannot have the subtype {subtype}; choose one of {', '.join(known)}")
    return container, subtype or default


def _pipe_header(rate_hz: int, channels: int) -> bytes:
    """A WAV header for 16-bit sound of unknown length: as in ffmpeg's, both sizes are the largest."""
    form = (16, 1, channels, rate_hz, 2 * channels * rate_hz, 2 * channels, 16)
    head = (b"RIFF", WAV_MAX_BYTES, b"WAVEfmt ", *form, b"data", WAV_MAX_BYTES)
    return struct.pack("<4sI8sIHHIIHH4sI", *head)


def _to_steps(data: np.ndarray, bits: int | None) -> np.ndarray:
    """[N, C] float to int32, the sample in its top `bits`; libsndfile itself rounds down, half a step low."""
    data = np.clip(data, -1.0, 1.0)
    if bits is not None:
        full = np.float64(2 ** (bits - 1))
        data = np.minimum(np.rint(data * full), full - 1).astype(np.int32) << (32 - bits)
    return np.ascontiguousarray(data, np.float32 if bits is None else np.int32)


def smallest_opus(wave: np.ndarray, rate_hz: int) -> tuple[bytes, np.ndarray]:
    """wave [N] float32 as a file of Opus at the lowest rate of libsndfile, and what that decodes to [N]."""
    file = BytesIO()
    sf.write(file, wave, rate_hz, format="OGG", subtype="OPUS", compression_level=1.0)
    data = file.getvalue()
    return data, sf.read(BytesIO(data), frames=len(wave), dtype="float32", fill_value=0.0)[0]
