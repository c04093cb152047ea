"""A codec run as the two programs that people use: 16-bit WAV -> file -> WAV, bytes and processor time counted.

    wave -> padded by the codec's delay -> a.wav -> encode -> a.opus -> decode -> b.wav -> delay cut off -> wave

`{in}`, `{out}`, `{kbps}`, `{bps}`, `{mode}` and `{rate}` in a command are filled in. A codec is aligned by the delay
stated here, never by a fit; `measures.lag_samples` checks it on every clip.
"""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nacre.core.errors import NacreError
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.programs import PeerError, peak_mb, run_command
from nacre.io import audio

Array = np.ndarray[Any, np.dtype[Any]]

SHORTEST_LIMIT_S = 60.0  # a program may take so long, or 20 times the sound
LENGTH_TOLERANCE = 2  # samples, for codecs that work at another rate
START_RUNS = 3
FAR = 1.5  # a target rate further than this factor from all modes is left out
LEAST_S = 1e-3  # resolution of the processor time, once that of starting the program is subtracted


@dataclass(frozen=True)
class Coded:
    """What a codec made of a clip: wave [N] float32, aligned with what went in and at its rate."""

    wave: Array
    payload_bytes: int  # without the container's paging and headers
    file_bytes: int
    encode_s: float  # processor time of one thread
    decode_s: float


@dataclass(frozen=True)
class Mode:
    """A setting: its nominal rate, its name in the commands, its delay at 16 kHz."""

    kbps: float
    word: str = ""
    delay_samples: int = 0


@dataclass(frozen=True)
class Peer:
    """A codec by two commands. `modes` are the settings that it has; without them any rate may be requested."""

    name: str
    encode: str
    decode: str
    suffix: str = ".bin"
    usual_kbps: tuple[float, ...] = ()
    lowest_kbps: float = 0.0
    modes: tuple[Mode, ...] = ()
    rate_hz: int = RATE_HZ  # of the sound that the programs get
    any_rate: bool = False  # they get the rate of the evaluation instead
    raw: bool = False  # headerless 16-bit samples instead of WAV
    frame_samples: int = 1  # at 16 kHz; the sound is filled up to whole frames
    spare_samples: int = LENGTH_TOLERANCE  # that the decoder may leave at the end
    delay_samples: int = 0
    payload: Callable[[bytes], int] = len
    needs: tuple[tuple[str, str], ...] = ()  # program, Debian package
    lacks: Callable[[], str] = str  # what else has to be installed, or ''
    release: Callable[[], str] = str  # what codes, where the first program does not say
    ffmpeg_encoder: str = ""
    ffmpeg_package: str = "ffmpeg"  # Debian's that has the encoder
    about: str = ""

    def mode(self, kbps: float) -> Mode:
        """The setting nearest to a target rate."""
        if not self.modes:
            return Mode(kbps, f"{kbps:g}", self.delay_samples)
        return min(self.modes, key=lambda mode: abs(np.log(mode.kbps / kbps)))

    def settings(self, target_kbps: list[float] | None) -> list[float]:
        """Rates to run: the usual ones, or those nearest to the target rates, each once."""
        if target_kbps is None:
            return list(self.usual_kbps)
        target_kbps = [kbps for kbps in target_kbps if kbps >= self.lowest_kbps]
        return near_rates(target_kbps, [mode.kbps for mode in self.modes] or target_kbps)

    def missing(self) -> str:
        """What has to be installed first, or ''."""
        for program, package in self.needs:
            if shutil.which(program) is None:
                return f"program {program}, Debian package {package}"
        if self.ffmpeg_encoder and self.ffmpeg_encoder not in _ffmpeg_encoders():
            return f"an ffmpeg with {self.ffmpeg_encoder}, as in Debian package {self.ffmpeg_package}"
        return self.lacks()

    def version(self) -> str:
        """The encoder's version; releases differ, so it belongs to the figures."""
        coder = self.release() or _first_line(shlex.split(self.encode)[0])
        return ", ".join(part for part in (coder, self.about) if part)

    def identity(self) -> list[str]:
        """What decides about its figures."""
        return [self.encode, self.decode, self.version()]

    def code(self, wave: Array, kbps: float, rate_hz: int = RATE_HZ) -> Coded:
        """[N] float32 -> what the codec makes of it, of the same length and rate. Raises PeerError."""
        coded = self._coded(audio.resampled(wave, rate_hz, inner := self._inner_hz(rate_hz)), kbps, inner)
        return replace(coded, wave=fitted(audio.resampled(coded.wave, inner, rate_hz), len(wave)))

    def _inner_hz(self, rate_hz: int) -> int:
        """Rate at which sound is aligned."""
        return rate_hz if self.any_rate else RATE_HZ

    def _coded(self, wave: Array, kbps: float, rate_hz: int) -> Coded:
        mode = self.mode(kbps)
        padded = self._padded(wave, mode)
        with tempfile.TemporaryDirectory(prefix="nacre-") as folder:
            start = self._start_s(kbps, folder)
            decoded, data, times = self._run(padded, mode, folder, run_command, rate_hz)
        decoded = decoded[mode.delay_samples :]
        least, most = (size * rate_hz // RATE_HZ for size in (-LENGTH_TOLERANCE, self.spare_samples))
        spare = len(padded) - len(wave) - mode.delay_samples + most
        if not least <= len(decoded) - len(wave) <= spare:
            raise PeerError(f"{self.name} decoded {len(decoded)} samples instead of {len(wave)}")
        decoded = fitted(decoded, len(wave))
        encode_s, decode_s = (max(took - idle, LEAST_S) for took, idle in zip(times, start, strict=True))
        return Coded(decoded, self.payload(data), len(data), encode_s, decode_s)

    def memory_mb(self, wave: Array, kbps: float, rate_hz: int = RATE_HZ) -> tuple[float, float]:
        """Peak memory of the two programs on [N] float32, encoding and decoding. Raises PeerError."""
        mode, inner = self.mode(kbps), self._inner_hz(rate_hz)
        padded = self._padded(audio.resampled(wave, rate_hz, inner), mode)
        with tempfile.TemporaryDirectory(prefix="nacre-") as folder:
            return self._run(padded, mode, folder, peak_mb, inner)[2]

    def _padded(self, wave: Array, mode: Mode) -> Array:
        """[N] with as much behind it as the codec is late, up to whole frames."""
        late = mode.delay_samples
        return np.pad(wave, (0, late + -(len(wave) + late) % self.frame_samples))

    def _start_s(self, kbps: float, folder: str) -> tuple[float, float]:
        """Processor time of the two programs on next to no sound, measured once in a process."""
        if self.name not in _STARTS:
            instant = np.zeros(max(self.frame_samples, RATE_HZ // 10), np.float32)
            try:
                runs = [self._run(instant, self.mode(kbps), folder, run_command, RATE_HZ)[2] for _ in range(START_RUNS)]
                _STARTS[self.name] = min(run[0] for run in runs), min(run[1] for run in runs)
            except NacreError:  # too short for this codec
                _STARTS[self.name] = 0.0, 0.0
        return _STARTS[self.name]

    def _run(
        self, wave: Array, mode: Mode, folder: str, run: Callable[[list[str], Path, float], float], rate_hz: int
    ) -> tuple[Array, bytes, tuple[float, float]]:
        """Both programs by `run` -> decoded wave, the file between them, and the figures of `run` for each."""
        source, coded, result = (Path(folder, name) for name in ("a.pcm", f"a{self.suffix}", "b.pcm"))
        if not self.raw:
            source, result = source.with_suffix(".wav"), result.with_suffix(".wav")
        for path in (coded, result):
            path.unlink(missing_ok=True)
        outer = rate_hz if self.any_rate else self.rate_hz
        self._write(source, audio.resampled(wave, rate_hz, outer), outer)
        limit_s = max(SHORTEST_LIMIT_S, 20 * len(wave) / rate_hz)
        figures = [
            run(fill(command, start, end, mode, outer), end, limit_s)
            for command, start, end in ((self.encode, source, coded), (self.decode, coded, result))
        ]
        decoded = audio.resampled(*self._read(result, outer), rate_hz)
        return decoded, coded.read_bytes(), (figures[0], figures[1])

    def _write(self, path: Path, wave: Array, rate_hz: int) -> None:
        if self.raw:
            path.write_bytes(np.clip(np.rint(wave * 32768), -32768, 32767).astype("<i2").tobytes())
        else:
            audio.write(path, wave[None], rate_hz, overwrite=True)

    def _read(self, path: Path, rate_hz: int) -> tuple[Array, int]:
        if self.raw:
            data = path.read_bytes()
            return np.frombuffer(data[: len(data) // 2 * 2], "<i2") / np.float32(32768), rate_hz
        wave, rate_hz = audio.read(path)
        return wave.mean(0), rate_hz


_STARTS: dict[str, tuple[float, float]] = {}


def fitted(wave: Array, length: int) -> Array:
    """wave [N] -> [length], cut or with silence behind it."""
    return np.pad(wave[:length], (0, max(0, length - len(wave))))


def near_rates(target_kbps: list[float], known_kbps: list[float]) -> list[float]:
    """Of the known rates those nearest to the target rates by ratio, each once; none where all are far off."""
    pairs = [(kbps, min(known_kbps, key=lambda known: abs(np.log(known / kbps)))) for kbps in target_kbps]
    return sorted({near for kbps, near in pairs if 1 / FAR <= near / kbps <= FAR})


def fill(command: str, source: Path, target: Path, mode: Mode, rate_hz: int) -> list[str]:
    """The words of a command with its placeholders filled in; names with spaces stay whole."""
    values = {"in": str(source), "out": str(target), "mode": mode.word}
    values |= {"kbps": f"{mode.kbps:g}", "bps": f"{1000 * mode.kbps:.0f}", "rate": str(rate_hz)}
    words = shlex.split(command)
    for name, value in values.items():
        words = [word.replace("{" + name + "}", value) for word in words]
    return words


@functools.cache
def _first_line(program: str) -> str:
    """First line of a program's version; its name where it prints none."""
    option = {"ffmpeg": "-version", "opusenc": "--version"}.get(program)
    if option is None:
        return Path(program).name
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [program])[0].partition(" Copyright")[0]


@functools.cache
def _ffmpeg_encoders() -> set[str]:
    done = subprocess.run(["ffmpeg", "-v", "error", "-encoders"], capture_output=True, text=True, check=False)
    return {words[1] for words in map(str.split, done.stdout.splitlines()) if len(words) > 1}
