"""Any sound file to float32 [C, N] in blocks: all that can be read of it, and word of what cannot."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile as sf

from nacre.core.errors import AudioError, reason
from nacre.core.kinds import MAGIC
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, clock
from nacre.io import flac
from nacre.io.plans import plan_of
from nacre.io.raw import Raw, raw_plan
from nacre.io.sniff import HEAD_BYTES, foreign, no_sound, unknown
from nacre.io.stdio import standard_input
from nacre.io.view import Extent, Part, Plan, View, read_at, size_of

KNOWN = ".wav, .flac, .ogg, .opus, .mp3"
AGAIN = "record, fetch or convert it again"
MP3_FRAME_SAMPLES = 1152
UNKNOWN_BYTES = 0x7FFFF000  # from here on a file of a pipe states no size, but the largest that it can
STATED = re.compile(  # in libsndfile's log
    r"^\s*(?:data|SSND|BODY|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
LONGEST_HOLE_S = 60  # of silence in place of what is missing; a longer one is a number gone wrong
LOUDEST = 32.0  # a float sample above is no overshoot: it is on the scale of integers
SCALES = {16: 2.0**15, 24: 2.0**23, 32: 2.0**31}  # by bits
SCAN_SAMPLES = 1 << 16
DAMAGED_SHARE = 1e-3  # fewer samples than this over full scale are damaged, and no scale
SAID = re.compile(r"not recognised|possibly a pipe|SF_INFO struct|malformed|embedding")  # by libsndfile, of any bytes
TAGS = frozenset({"title", "artist", "album", "date", "genre", "tracknumber", "comment", "copyright", "license"})
Name = str | Path


class Sound(sf.SoundFile):  # type: ignore[misc]
    """Read or written straight on: soundfile seeks after each block, which changes what MP3 and Opus give."""

    def seekable(self) -> bool:
        return False


class AudioReader:
    """A sound file, or standard input for "-", as float32 blocks, for use in a `with`.

    `samples` is what the container states, a guess for some MP3, or None; `blocks` gives the true count. When all is
    read, `losses` says in words what the file has, or states, and `blocks` did not give; `notes` what was done to it.
    `raw` describes samples without any header. `name` is what messages call a passing file. `tags` are what the
    file says of itself, by the names in TAGS.
    """

    def __init__(self, source: Name, raw: Raw | None = None, name: str = ""):
        self._raw = raw
        self.name = name or ("standard input" if str(source) == "-" else str(source))
        self.samples: int | None = None
        self.samples_read, self.losses, self.notes = 0, list[str](), list[str]()
        self._sound: Sound | None = None
        try:
            piped = str(source) == "-" or Path(source).is_fifo()
            self._spool(source) if piped else self._open(source)
        except IsADirectoryError as error:
            raise AudioError(f"{self.name} is a folder; give a file") from error
        except OSError as error:
            raise AudioError(f"{self.name} cannot be read ({reason(error)}); check the name") from error

    def _spool(self, source: Name) -> None:
        import shutil  # here and below: few files need what would delay every start
        import tempfile

        with tempfile.NamedTemporaryFile() as spool:  # most formats need seeking, and a pipe cannot
            with nullcontext(standard_input()) if str(source) == "-" else open(source, "rb") as pipe:
                shutil.copyfileobj(pipe, spool)
            spool.flush()
            self._open(spool.name)

    def _open(self, path: Name) -> None:
        self._path, self._file = path, cast(BinaryIO, open(path, "rb"))  # noqa: SIM115 - closed by __exit__
        try:
            head = read_at(self._file, 0, HEAD_BYTES)
            if not head:
                raise AudioError(f"{self.name} is empty; {AGAIN}")
            if head[: len(MAGIC)] == MAGIC:
                raise AudioError(f"{self.name} is a .nacre file, not sound; make sound of it with nacre decode")
            if kind := no_sound(head):
                raise AudioError(f"{self.name} is not a sound file but {kind}; give one of {KNOWN}")
            if kind := foreign(head):
                self._file.close()
                self._convert(path, kind)
            else:
                self._start(raw_plan(self._file, self._raw) if self._raw else plan_of(self._file, head, path))
        except BaseException:
            self._file.close()
            raise

    def _convert(self, path: Name, kind: str) -> None:
        """Have ffmpeg read what is not read here."""
        import tempfile

        from nacre.io import outside

        ffmpeg = outside.program()
        if ffmpeg is None:
            advice = f"install it, or convert the file to one of {KNOWN}"
            raise AudioError(f"{self.name} is {kind}, for which nacre needs ffmpeg; {advice}")
        with tempfile.NamedTemporaryFile(suffix=".wav") as spool:
            complaint = outside.to_wav(ffmpeg, path, spool.name)
            if os.path.getsize(spool.name) == 0:
                raise AudioError(f"ffmpeg finds no sound in {self.name}, {kind} ({complaint}); {AGAIN}")
            self._open(spool.name)
        if complaint:
            self.losses.append(f"what ffmpeg could read ({complaint})")

    def _start(self, plan: Plan) -> None:
        self._parts, self._order = deque(plan.parts), plan.order
        self.losses, self._ends_early = list(plan.losses), plan.cut
        self._part_read = self._silence = self._missing = self._holes = 0
        self._anchor = (0, 0)  # samples given, and what the file counts there
        self._scale, self._to_skip, self._wrong, self._wrong_at_s = 1.0, 0, 0, 0.0
        only = len(plan.parts) == 1
        sound = self._next_part()
        self.rate_hz, self.channels = sound.samplerate, sound.channels
        self.subtype: str = sound.subtype  # libsndfile's name
        check_shape(self.name, self.rate_hz, self.channels)
        if only:
            self.samples = self._stated(sound)
        if plan.parts[0].pieces is None and not plan.parts[0].kind:
            stated = STATED.search(sound.extra_info)
            self._ends_early |= stated is not None and int(stated[2]) < int(stated[1]) < UNKNOWN_BYTES
        self.tags = {name: text for name, text in sound.copy_metadata().items() if name in TAGS and text}
        if self.subtype in ("FLOAT", "DOUBLE"):
            self._scale = self._scale_of(plan)

    def _stated(self, sound: Sound) -> int | None:
        """Samples that a single part states, or that are guessed."""
        if self._part.kind != "mp3 unsized":
            return sound.frames if sound.frames < 1 << 62 else None
        with self._open_sound(View(self._file, (Extent(0, size_of(self._file)),))) as guess:
            return int(guess.frames)

    def _next_part(self) -> Sound:
        """Open the first of the parts that are left, and be silent for what is missing before it."""
        part = self._parts.popleft()
        try:
            sound = self._open_part(part)
        except AudioError:
            if part.kind != "flac" or not self._salvage(part, 0):
                raise
            self.losses.append("its head is damaged or missing")
            self._parts[0] = replace(self._parts[0], fresh=True)
            return self._next_part()
        self._sound, self._part, self._part_read, self._to_skip = sound, part, 0, part.skip
        self._left = 1 << 62
        if not part.fresh and part.ends_at is not None:
            given, counted = self._anchor
            due = (part.ends_at - counted) * self.rate_hz // (part.clock_hz or self.rate_hz)
            self._left = sound.frames - part.skip - part.spare * self.rate_hz // (part.clock_hz or self.rate_hz)
            hole = due - (self.samples_read - given) - self._left
            self._silence = hole if 0 < hole <= LONGEST_HOLE_S * self.rate_hz else 0
            self._missing += self._silence
            self._holes += hole > 0 or part.within is None
        return sound

    def _open_part(self, part: Part) -> Sound:
        below = self._file if part.within is None else cast(BinaryIO, View(self._file, part.within))
        if part.kind == "mp3 unsized":  # in a file libsndfile stops at its guess, often too early
            return self._open_sound(_feed(View(self._file, part.pieces or (Extent(0, size_of(self._file)),))))
        if part.pieces is None:
            return self._open_sound(named(self._path))
        return self._open_sound(View(below, part.pieces))

    def _open_sound(self, file: str | bytes | int | View) -> Sound:
        why = "no header"
        try:
            sound = Sound(file)
            if sound.format != "RAW":  # libsndfile takes any text named .au for headerless sound
                return sound
        except (sf.SoundFileError, TypeError) as error:  # TypeError: a name ending in .raw
            why = str(error)
        if SAID.search(why):
            why = unknown(read_at(self._file, 0, HEAD_BYTES))
        raise AudioError(f"{self.name} is not a sound file that nacre reads ({brief(why)}); convert it to .flac")

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """Yield float32 [C, N], 0 < N <= block_samples, to the end; called again, go on from there."""
        while (data := self._read(block_samples)).size:
            if self._order:
                data = data[:, self._order]
            wave = self._sane(np.ascontiguousarray(data.T))  # [C, N] float32
            self.samples_read += wave.shape[1]
            yield wave
        if self.samples_read == 0:
            raise AudioError(f"{self.name} holds no samples; {AGAIN}")

    def _sane(self, wave: np.ndarray) -> np.ndarray:
        """wave [C, N] with silence in place of samples that are none."""
        good = np.abs(wave) <= LOUDEST  # not a NaN
        wrong = np.flatnonzero(~good.all(0))
        if not len(wrong):
            return wave
        if not self._wrong:
            self._wrong_at_s = (self.samples_read + int(wrong[0])) / self.rate_hz
        self._wrong += len(wrong)
        return np.where(good, wave, np.float32(0))

    @property
    def is_cut(self) -> bool:
        """Whether the file states, or has, more sound than `blocks` gave; all is known when all is read."""
        return self._ends_early or bool(self.losses) or self._holes > 0 or self._wrong > 0

    def loss(self) -> AudioError | None:
        """What is missing of a file that was read to its end, as an error to raise or to report; None for nothing."""
        if not self.is_cut:
            return None
        read_s, losses = self.samples_read / self.rate_hz, list(self.losses)
        if self._holes:
            places = f"{self._holes} place{'s' * (self._holes > 1)}"
            losses.append(f"{self._missing / self.rate_hz:.2f} s lost in {places}, silent there")
        if self._wrong:
            losses.append(f"{self._wrong} samples from {clock(self._wrong_at_s)} on that are no sound, silent there")
        if self._ends_early and not losses:
            more = (self.samples or 0) > self.samples_read
            losses.append(f"{clock(read_s)} of {clock((self.samples or 0) / self.rate_hz)}" if more else "no end")
        cut = f"is cut off after {clock(read_s)}, less than it states"
        what = cut if self._ends_early else f"could be read only in part, {clock(read_s)} of sound"
        return AudioError(f"{self.name} {what} ({'; '.join(losses)}); {AGAIN}")

    def _read(self, block_samples: int) -> np.ndarray:
        """[N, C] float32 of the next samples, none at the end."""
        while True:
            if self._silence:
                size = min(block_samples, self._silence)
                self._silence -= size
                return np.zeros((size, self.channels), np.float32)
            if self._sound is None:
                return np.zeros((0, self.channels), np.float32)
            data = self._read_part(block_samples)
            self._part_read += len(data)
            dropped = min(len(data), self._to_skip)
            self._to_skip -= dropped
            data = data[: dropped + self._left]
            self._left -= len(data) - dropped
            if len(data) > dropped:
                return data[dropped:] * np.float32(1 / self._scale) if self._scale != 1 else data[dropped:]
            if not len(data):
                self._end_part()

    def _read_part(self, block_samples: int) -> np.ndarray:
        assert self._sound is not None
        unsized = self._part.kind == "mp3 unsized"
        size = min(block_samples, MP3_FRAME_SAMPLES) if unsized else block_samples
        if self._sound.format == "FLAC":  # or all of them are lost where bytes behind the last frame are none
            size = min(size, max(1, self._sound.frames - self._part_read))
        try:
            return np.asarray(self._sound.read(size, dtype="float32", always_2d=True))  # [N, C]
        except sf.SoundFileError as error:
            if self._part.kind != "flac" and not self.samples_read:
                place = f"damaged or cut off after {clock(self.samples_read / self.rate_hz)}"
                raise AudioError(f"{self.name} is {place} ({brief(error)}); {AGAIN}") from error
            self._ends_early |= not unsized and self._part.kind != "flac"  # an MP3 may be cut inside its last frame
            return np.zeros((0, self.channels), np.float32)

    def _end_part(self) -> None:
        """Close a part at its end, mend what it lacks, and open the next."""
        assert self._sound is not None
        stated, part = self._sound.frames if self._sound.frames < 1 << 62 else 0, self._part
        self._sound.close()
        self._sound = None
        if part.fresh:
            self._anchor = (self.samples_read, self._part_read if part.ends_at is None else part.ends_at)
        missing = stated - self._part_read
        if part.kind == "flac":
            self._end_flac(part, stated)
        elif part.kind.startswith("mp3") and part.kind != "mp3 unsized":
            self._ends_early |= missing > 2 * MP3_FRAME_SAMPLES
        while self._parts and self._sound is None:
            try:
                sound = self._next_part()
            except AudioError as error:
                self.losses.append(f"something behind it that cannot be read ({error})")
                continue
            if (sound.samplerate, sound.channels) != (self.rate_hz, self.channels):
                shape = f"{sound.samplerate} Hz with {sound.channels} channels"
                self.losses.append(f"another recording at {shape} behind it")
                sound.close()
                self._sound = None

    def _end_flac(self, part: Part, stated: int) -> None:
        """Read on behind a bad spot, and behind an end that was stated too early."""
        if self._part_read < stated:
            self._salvage(part, stated)
        elif part.fresh:
            pieces = part.pieces or (Extent(0, size_of(self._file)),)
            there = flac.counted(cast(BinaryIO, View(self._file, pieces)))
            if there > self._part_read:
                self._salvage(part, there)
            elif there < self._part_read and not self.losses:
                self.losses.append(f"frames are missing from {clock(there / self.rate_hz)} on, silent there")

    def _salvage(self, part: Part, stated: int) -> bool:
        """Put whole frames of FLAC behind a bad spot in front of the parts that are left; -> whether there are any."""
        pieces, done = part.pieces or (Extent(0, size_of(self._file)),), self._part_read
        salvaged = flac.salvage(cast(BinaryIO, View(self._file, pieces)), done)
        self._parts.extendleft(replace(item, within=pieces) for item in reversed(salvaged))
        self._ends_early |= ((salvaged[-1].ends_at or 0) if salvaged else done) < stated
        return bool(salvaged)

    def _scale_of(self, plan: Plan) -> float:
        """What float samples must be divided by: 1, but for those that were left on the scale of integers."""
        peak, whole, loud, sounding = 0.0, True, 0, 0
        for part in plan.parts:
            with self._open_part(part) as sound:
                while len(data := sound.read(SCAN_SAMPLES, dtype="float32", always_2d=True)):
                    data = data[np.isfinite(data)]
                    peak = max(peak, float(np.abs(data).max(initial=0)))
                    loud += int(np.count_nonzero(np.abs(data) > 2))
                    sounding += int(np.count_nonzero(data))
                    whole = whole and bool((data == np.rint(data)).all())
        if (peak <= LOUDEST and not (whole and peak > 2)) or loud < DAMAGED_SHARE * sounding:
            return 1.0
        bits, scale = next(((bits, scale) for bits, scale in SCALES.items() if peak <= 1.01 * scale), (0, 1.0))
        if bits:
            advice = f"taken for {bits}-bit numbers and divided by {scale:.0f}"
            self.notes.append(f"{self.name}: float samples reach {peak:.0f} where full scale is 1; {advice}")
        return scale

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._sound is not None:
            self._sound.close()
        self._file.close()


def _feed(source: View) -> int:
    """A pipe with the bytes of a file."""
    import shutil
    import threading

    read_end, write_end = os.pipe()

    def copy() -> None:
        with suppress(OSError, ValueError), open(write_end, "wb") as pipe:  # the reader may close before the end
            shutil.copyfileobj(source, pipe)

    threading.Thread(target=copy, daemon=True).start()
    return read_end


def check_shape(name: str, rate_hz: int, channels: int) -> None:
    """Raise AudioError for a rate or a number of channels that nothing here takes."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(f"{name} has a rate of {rate_hz} Hz, not {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; resample it first")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"{name} has {channels} channels, not 1 to {MAX_CHANNELS}; mix it down first")


def check_finite(name: str, wave: np.ndarray, start_samples: int, rate_hz: int) -> None:
    """Raise AudioError for samples [C, N] that are no numbers, with their place."""
    finite = np.isfinite(wave).all(axis=0)  # [N]
    if not finite.all():
        place = clock((start_samples + int(finite.argmin())) / rate_hz)
        raise AudioError(f"{name} holds a NaN or infinite sample at {place}; export the sound again")


def brief(complaint: object) -> str:
    """What libsndfile says, without the file's name and the full stop."""
    return str(complaint).rsplit(": ")[-1].strip(".")


def named(path: Name) -> str | bytes:
    """A name as libsndfile takes it, in whatever encoding it may be."""
    return os.fsencode(path) if os.name == "posix" else str(path)
