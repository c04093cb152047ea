"""Sound files to float32 [C, N] and back, in blocks; exact changes of rate. Home of soundfile and soxr."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf
import soxr

from nacre.core.errors import AudioError, UsageError
from nacre.core.kinds import MAGIC
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, ceil_div, clock, resampled_count
from nacre.io.stdio import standard_input, standard_output

FORMATS = {  # suffix: container and default subtype, in libsndfile's names
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
KNOWN = ", ".join(FORMATS)
AGAIN = "record, fetch or convert it again"
WAV_MAX_BYTES = 0xFFFFFFFF
PCM_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
BLOCK_SAMPLES = 1 << 14
MP3_FRAME_SAMPLES = 1152
UNKNOWN_BYTES = 0x7FFFF000  # from here on a wav of a pipe states no size, but the largest that it can
STATED = re.compile(  # in libsndfile's log
    r"^\s*(?:data|SSND|BODY|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
OGG_LAST_PAGE_BYTES, OGG_END = 1 << 16, 4
OGG_HEAD_BYTES, OGG_SERIAL = 27, slice(14, 18)  # of a page, its mark included
Name = str | Path


class _Sound(sf.SoundFile):  # type: ignore[misc]
    """Read or written straight on: soundfile seeks after each block, which changes what MP3 and Opus give."""

    def seekable(self) -> bool:
        return False


class AudioReader:
    """A sound file, or standard input for "-", as float32 blocks, for use in a `with`.

    `samples` is what the container states, a guess for some MP3, or None; `blocks` gives the true count.
    """

    def __init__(self, source: Name):
        self.name = "standard input" if str(source) == "-" else str(source)
        self.samples: int | None = None
        self.samples_read, self._guessed_length, self._cut = 0, False, False
        try:
            piped = str(source) == "-" or Path(source).is_fifo()
            self._sound = self._spool(source) if piped else self._open(source)
        except OSError as error:
            raise _error(self.name, error.strerror, "a readable sound file", "check the name") from error
        self.rate_hz, self.channels = self._sound.samplerate, self._sound.channels
        self.subtype: str = self._sound.subtype  # libsndfile's name
        _check_shape(self.name, self.rate_hz, self.channels)

    def _spool(self, source: Name) -> _Sound:
        with tempfile.NamedTemporaryFile() as spool:  # most formats need seeking, and a pipe cannot
            with nullcontext(standard_input()) if str(source) == "-" else open(source, "rb") as pipe:
                shutil.copyfileobj(pipe, spool)
            spool.flush()
            return self._open(spool.name)

    def _open(self, path: Name) -> _Sound:
        with open(path, "rb") as file:
            head, size_bytes = file.read(len(MAGIC)), file.seek(0, os.SEEK_END)
        if size_bytes == 0:
            raise _error(self.name, "an empty file", "sound", AGAIN)
        if head == MAGIC:
            raise _error(self.name, "a .nacre file", KNOWN, "nacre decode makes sound of it")
        sound = self._open_sound(_named(path))
        self._cut = _is_cut(sound, path)
        self.samples = sound.frames if sound.frames < 1 << 62 else None
        if sound.format in ("WAV", "WAVEX") and size_bytes > WAV_MAX_BYTES:
            raise _error(self.name, "a wav over 4 GB", "rf64 or flac", "convert it first")
        if sound.format == "MP3" and (pipe := _feed_untagged_mp3(path)):
            self._guessed_length = True
            return self._open_sound(pipe)
        return sound

    def _open_sound(self, file: str | bytes | int) -> _Sound:
        found = "no header"
        try:
            sound = _Sound(file)
            if sound.format != "RAW":  # libsndfile takes any text named .au for headerless sound
                return sound
        except (sf.SoundFileError, TypeError) as error:  # TypeError: a name ending in .raw
            found = str(error)
        raise _error(f"{self.name}: not a sound file", found, KNOWN, "convert it first with ffmpeg")

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """Yield float32 [C, N], 0 < N <= block_samples, to the end; called again, go on from there."""
        while (data := self._read(block_samples)).size:
            wave = np.ascontiguousarray(data.T)  # [C, N] float32
            _check_finite(self.name, wave, self.samples_read, self.rate_hz)
            self.samples_read += wave.shape[1]
            yield wave
        if self.samples_read == 0:
            raise _error(self.name, "no samples", "sound", AGAIN)

    @property
    def is_cut(self) -> bool:
        """Whether the file states, or has, more sound than `blocks` gives; of MP3 that is known when all is read."""
        if self._sound.format == "MP3" and not self._guessed_length:
            return 0 < self.samples_read < (self.samples or 0) - 2 * MP3_FRAME_SAMPLES
        return self._cut

    def _read(self, block_samples: int) -> np.ndarray:
        size = min(block_samples, MP3_FRAME_SAMPLES) if self._guessed_length else block_samples
        try:
            return np.asarray(self._sound.read(size, dtype="float32", always_2d=True))  # [N, C]
        except sf.SoundFileError as error:
            if self._guessed_length and self.samples_read:  # an MP3 cut inside its last frame
                return np.zeros((0, self.channels), np.float32)
            place = f"{self.name}: damaged or cut off after {clock(self.samples_read / self.rate_hz)}"
            raise _error(place, error, "sound to the end", AGAIN) from error

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sound.close()


class AudioWriter:
    """A sound file that appears, whole, when its `with` ends well; "-" streams 16-bit WAV to standard output.

    `subtype` is one of libsndfile's names for the format: PCM_16, PCM_24, FLOAT and so on.
    """

    def __init__(
        self, target: Name, rate_hz: int, channels: int, *, overwrite: bool = False, subtype: str | None = None
    ):
        self.name = "standard output" if str(target) == "-" else str(target)
        self.target, self.rate_hz, self.channels, self.overwrite = target, rate_hz, channels, overwrite
        self.samples_written = 0
        self.container, self.subtype = _format_of(target, subtype)
        self._sound: _Sound | None = None
        _check_shape(self.name, rate_hz, channels)

    def __enter__(self) -> AudioWriter:
        with ExitStack() as stack:
            self._file = stack.enter_context(output_file(self.target, self.overwrite))
            if str(self.target) == "-":
                self._file.write(_pipe_header(self.rate_hz, self.channels))
            else:
                self._sound = self._open(self._file.name)
                stack.callback(_check_room, self._file)
                stack.callback(self._sound.close)
            self._exits = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exits.__exit__(*exc)  # type: ignore[arg-type]

    def _open(self, path: str) -> _Sound:
        try:
            return _Sound(_named(path), "w", self.rate_hz, self.channels, self.subtype, format=self.container)
        except sf.SoundFileError as error:
            _check_room(self._file)
            place = f"{self.name}: {self.rate_hz} Hz and {self.channels} channels in {self.subtype}"
            raise _error(place, error, "another rate or format", "use .wav or .flac") from error

    def write(self, wave: np.ndarray) -> None:
        """Append float32 [C, N], clipped to full scale and rounded to the nearest step."""
        assert wave.shape[:-1] == (self.channels,), wave.shape
        assert wave.dtype.kind == "f", wave.dtype
        _check_finite(self.name, wave, self.samples_written, self.rate_hz)
        for start in range(0, wave.shape[1], BLOCK_SAMPLES):  # libsndfile crashes on very long Vorbis writes
            self._put(_to_steps(wave[:, start : start + BLOCK_SAMPLES].T, PCM_BITS.get(self.subtype)))

    def _put(self, data: np.ndarray) -> None:
        self.samples_written += len(data)  # [N, C] int32 or float32
        if self._sound is None:
            self._file.write((data >> 16).astype("<i2").tobytes())
            return
        room_bytes = WAV_MAX_BYTES - os.fstat(self._file.fileno()).st_size
        if self.container == "WAV" and 2 * data.nbytes > room_bytes:
            raise _error(f"{self.name}: too long", "over 4 GB", "less in a wav", "write .flac")
        try:
            self._sound.write(data)
        except (sf.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            _check_room(self._file)
            raise _error(self.name, "a write that failed", "room", "try another disk") from error


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
    found: np.ndarray = np.concatenate([resampler.push(wave[None]), resampler.flush()], axis=1)[0]
    return found


def mono_blocks(reader: AudioReader, rate_hz: int) -> Iterator[np.ndarray]:
    """What `reader` holds as float32 [N] at another rate, channels averaged, about a second at a time."""
    resampler = Resampler(reader.rate_hz, rate_hz, 1)
    for block in reader.blocks(reader.rate_hz):
        yield resampler.push(block.mean(0, keepdims=True))[0]
    yield resampler.flush()[0]


def read(path: Name) -> tuple[np.ndarray, int]:
    """A whole small file: float32 [C, N] and its rate in Hz."""
    wave, rate_hz, _, _ = read_with_facts(path)
    return wave, rate_hz


def read_with_facts(path: Name) -> tuple[np.ndarray, int, str, bool]:
    """As `read`, libsndfile's name for how samples are stored, such as PCM_16, and whether the end is missing."""
    with AudioReader(path) as reader:
        wave = np.concatenate(list(reader.blocks(BLOCK_SAMPLES)), axis=1)
        return wave, reader.rate_hz, reader.subtype, reader.is_cut


def write(path: Name, wave: np.ndarray, rate_hz: int, overwrite: bool = False) -> None:
    """Write float32 [C, N] as a whole file."""
    with AudioWriter(path, rate_hz, len(wave), overwrite=overwrite) as writer:
        writer.write(wave)


def lossless_subtype(subtype: str, target: Name) -> str | None:
    """`subtype`, where a file named `target` can hold its samples as they are; else None, the usual one."""
    suffix = "" if str(target) == "-" else Path(target).suffix.lower()
    kept = {".wav": [*PCM_BITS, "FLOAT"], ".flac": ["PCM_S8", "PCM_16", "PCM_24"]}.get(suffix, [])
    return subtype if subtype in kept and subtype in sf.available_subtypes(FORMATS[suffix][0]) else None


@contextmanager
def output_file(target: Name, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A file under a passing name, renamed `target` if the `with` ends well, else removed; "-" is stdout."""
    path = Path(os.path.realpath(target))
    part = path.with_name(f".nacre-{secrets.token_hex(6)}.part")
    try:
        if str(target) == "-":
            yield standard_output()
            standard_output().flush()
        elif path.is_char_device() or path.is_fifo():  # written, never replaced
            with open(path, "wb") as file:
                yield file
        else:
            check_free(target, overwrite)
            with open(part, "xb") as file:
                yield file
            check_free(target, overwrite)  # another process may have been quicker
            os.replace(part, path)
    except OSError as error:
        if error.filename not in (None, str(part), str(path)):  # another file's error
            raise
        wanted = "a folder that exists, may be written and has room"
        raise _error(f"{target}: cannot write", error.strerror, wanted, "choose another place") from error
    finally:
        with suppress(OSError):
            part.unlink()


def check_free(target: Name, overwrite: bool) -> None:
    """Raise AudioError for a target that is a folder, or a file that may not be replaced."""
    path = Path(os.path.realpath(target))
    if path.is_dir():
        raise _error(str(target), "a folder", "a file name", f"try {Path(target) / 'out.wav'}")
    if path.exists() and not overwrite:
        raise _error(str(target), "a file already there", "a new name", "use --force to replace it")


def _check_room(file: BinaryIO) -> None:
    """Meet again a disk error libsndfile swallowed: write a page at the end, and take it back."""
    end = file.seek(0, os.SEEK_END)
    file.write(bytes(4096))
    file.flush()
    file.truncate(end)


def _check_shape(name: str, rate_hz: int, channels: int) -> None:
    limits = ("sample rate in Hz", rate_hz, MIN_RATE_HZ, MAX_RATE_HZ), ("channels", channels, 1, MAX_CHANNELS)
    for what, value, low, high in limits:
        if not low <= value <= high:
            raise _error(f"{name}: {what}", value, f"{low} to {high}", "resample or mix it first")


def _check_finite(name: str, wave: np.ndarray, start_samples: int, rate_hz: int) -> None:
    finite = np.isfinite(wave).all(axis=0)  # [N]
    if not finite.all():
        place = f"{name} at {clock((start_samples + int(finite.argmin())) / rate_hz)}"
        raise _error(place, "a NaN or infinite sample", "finite numbers", "export the sound again")


def _error(what: str, found: object, wanted: str, advice: str) -> AudioError:
    return AudioError(what, found=str(found).rsplit(": ")[-1].strip("."), wanted=wanted, next=advice)


def _format_of(target: Name, subtype: str | None) -> tuple[str, str]:
    suffix = ".wav" if str(target) == "-" else Path(target).suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{target}: suffix", found=suffix or "none", wanted=KNOWN, next="rename it")
    container, default = FORMATS[suffix]
    known = [default] if str(target) == "-" else list(sf.available_subtypes(container))
    if subtype not in (None, *known):
        raise UsageError(f"{target}: subtype", found=subtype, wanted=", ".join(known), next="choose one")
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


def _named(path: Name) -> str | bytes:
    """A name as libsndfile takes it, in whatever encoding it may be."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _is_cut(sound: _Sound, path: Name) -> bool:
    """Whether a file has less than it states, or an Ogg stream no end, or another one behind it."""
    if sound.format == "OGG":
        with open(path, "rb") as file:
            first = file.read(OGG_HEAD_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_LAST_PAGE_BYTES))
            last = file.read()
        last = last[max(0, last.rfind(b"OggS")) :]
        if len(last) <= OGG_HEAD_BYTES or not last[5] & OGG_END or last[OGG_SERIAL] != first[OGG_SERIAL]:
            return True
        pieces = last[OGG_HEAD_BYTES - 1]
        return len(last) < OGG_HEAD_BYTES + pieces + sum(last[OGG_HEAD_BYTES : OGG_HEAD_BYTES + pieces])
    stated = STATED.search(sound.extra_info)
    return stated is not None and int(stated[2]) < int(stated[1]) < UNKNOWN_BYTES


def _feed_untagged_mp3(path: Name) -> int | None:
    """A pipe with an MP3 that states no length: in a file libsndfile stops at its guess, often too early."""
    source = open(path, "rb")  # noqa: SIM115 - the thread closes it
    head = source.read(10)
    tag_bytes = sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    start = source.seek(10 + tag_bytes if head.startswith(b"ID3") else 0)
    first = source.read(4096)
    if any(mark in first for mark in (b"Xing", b"Info", b"VBRI")):
        source.close()
        return None
    source.seek(start)
    read_end, write_end = os.pipe()

    def copy() -> None:
        with suppress(BrokenPipeError), source, open(write_end, "wb") as pipe:
            shutil.copyfileobj(source, pipe)

    threading.Thread(target=copy, daemon=True).start()
    return read_end
