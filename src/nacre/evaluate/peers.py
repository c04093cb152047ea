"""Other codecs, run as the programs that people use: 16-bit WAV -> file -> WAV, bytes and processor time counted.

    wave -> padded by the codec's delay -> a.wav -> encode -> a.opus -> decode -> b.wav -> delay cut off -> wave

`{in}`, `{out}`, `{kbps}`, `{bps}` and `{mode}` in a command are filled in. A codec is aligned by the delay stated here,
never by a fit; `lag_samples` checks it on every clip.
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

from nacre import audio
from nacre.errors import NacreError, UsageError
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.payload import mp3_payload_bytes, ogg_payload_bytes
from nacre.evaluate.programs import PeerError, run_command

Array = np.ndarray[Any, np.dtype[Any]]

MARK = ":::"
SHORTEST_LIMIT_S = 60.0  # a program may take so long, or 20 times the sound
LENGTH_TOLERANCE = 2  # samples, for codecs that work at another rate
START_RUNS = 3
CLEAR = 0.5  # normalised correlation below which a waveform counts as not kept
FAR = 1.5  # an asked rate further than this factor from all modes is left out
LEAST_S = 1e-3  # processor time is not told more finely once the start of the program is taken off


@dataclass(frozen=True)
class Coded:
    """What a codec made of a clip: wave [N] float32 at 16 kHz, aligned with what went in."""

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
    """A codec by two commands. `modes` are the settings that it has; without them any rate may be asked."""

    name: str
    encode: str
    decode: str
    suffix: str = ".bin"
    usual_kbps: tuple[float, ...] = ()
    lowest_kbps: float = 0.0
    modes: tuple[Mode, ...] = ()
    rate_hz: int = RATE_HZ
    raw: bool = False  # headerless 16-bit samples instead of WAV
    frame_samples: int = 1  # at 16 kHz; the sound is filled up to whole frames
    spare_samples: int = LENGTH_TOLERANCE  # that the decoder may leave at the end
    delay_samples: int = 0
    payload: Callable[[bytes], int] = len
    needs: tuple[tuple[str, str], ...] = ()  # program, Debian package
    ffmpeg_encoder: str = ""
    about: str = ""

    def mode(self, kbps: float) -> Mode:
        """The setting nearest to an asked rate."""
        if not self.modes:
            return Mode(kbps, f"{kbps:g}", self.delay_samples)
        return min(self.modes, key=lambda mode: abs(np.log(mode.kbps / kbps)))

    def settings(self, asked_kbps: list[float] | None) -> list[float]:
        """Rates to run: the usual ones, or those nearest to the asked ones, each once."""
        if asked_kbps is None:
            return list(self.usual_kbps)
        pairs = [(kbps, self.mode(kbps).kbps) for kbps in asked_kbps if kbps >= self.lowest_kbps]
        return sorted({found for kbps, found in pairs if 1 / FAR <= found / kbps <= FAR})

    def missing(self) -> str:
        """What has to be installed first, or ''."""
        for program, package in self.needs:
            if shutil.which(program) is None:
                return f"program {program}, Debian package {package}"
        if self.ffmpeg_encoder and self.ffmpeg_encoder not in _ffmpeg_encoders():
            return f"an ffmpeg with {self.ffmpeg_encoder}, as in Debian package ffmpeg"
        return ""

    def version(self) -> str:
        """What encodes; releases differ, so it belongs to the figures."""
        program = shlex.split(self.encode)[0]
        return ", ".join(part for part in (_first_line(program), self.about) if part)

    def code(self, wave: Array, kbps: float) -> Coded:
        """[N] float32 at 16 kHz -> what the codec makes of it, of the same length. Raises PeerError."""
        mode = self.mode(kbps)
        samples = len(wave) + mode.delay_samples
        padded = np.pad(wave, (0, mode.delay_samples + -samples % self.frame_samples))
        with tempfile.TemporaryDirectory(prefix="nacre-") as folder:
            start = self._start_s(kbps, folder)
            decoded, data, times = self._run(padded, mode, folder)
        decoded = decoded[mode.delay_samples :]
        spare = len(padded) - samples + self.spare_samples
        if not -LENGTH_TOLERANCE <= len(decoded) - len(wave) <= spare:
            raise PeerError("decoded", found=f"{len(decoded)} samples", wanted=len(wave))
        decoded = np.pad(decoded[: len(wave)], (0, max(0, len(wave) - len(decoded))))
        encode_s, decode_s = (max(took - idle, LEAST_S) for took, idle in zip(times, start, strict=True))
        return Coded(decoded, self.payload(data), len(data), encode_s, decode_s)

    def _start_s(self, kbps: float, folder: str) -> tuple[float, float]:
        """Processor time of the two programs on next to no sound, measured once in a process."""
        if self.name not in _STARTS:
            instant = np.zeros(max(self.frame_samples, RATE_HZ // 10), np.float32)
            try:
                runs = [self._run(instant, self.mode(kbps), folder)[2] for _ in range(START_RUNS)]
                _STARTS[self.name] = min(run[0] for run in runs), min(run[1] for run in runs)
            except NacreError:  # too short for this codec
                _STARTS[self.name] = 0.0, 0.0
        return _STARTS[self.name]

    def _run(self, wave: Array, mode: Mode, folder: str) -> tuple[Array, bytes, tuple[float, float]]:
        source, coded, result = (Path(folder, name) for name in ("a.pcm", f"a{self.suffix}", "b.pcm"))
        if not self.raw:
            source, result = source.with_suffix(".wav"), result.with_suffix(".wav")
        for path in (coded, result):
            path.unlink(missing_ok=True)
        self._write(source, wave)
        limit_s = max(SHORTEST_LIMIT_S, 20 * len(wave) / RATE_HZ)
        times = [
            run_command(fill(command, start, end, mode), end, limit_s)
            for command, start, end in ((self.encode, source, coded), (self.decode, coded, result))
        ]
        return self._read(result), coded.read_bytes(), (times[0], times[1])

    def _write(self, path: Path, wave: Array) -> None:
        sound = resample(wave, RATE_HZ, self.rate_hz)
        if self.raw:
            path.write_bytes(np.clip(np.rint(sound * 32768), -32768, 32767).astype("<i2").tobytes())
        else:
            audio.write(path, sound[None], self.rate_hz, overwrite=True)

    def _read(self, path: Path) -> Array:
        if self.raw:
            data = path.read_bytes()
            return resample(np.frombuffer(data[: len(data) // 2 * 2], "<i2") / np.float32(32768), self.rate_hz, RATE_HZ)
        wave, rate_hz = audio.read(path)
        return resample(wave.mean(0), rate_hz, RATE_HZ)


_STARTS: dict[str, tuple[float, float]] = {}


def resample(wave: Array, from_hz: int, to_hz: int) -> Array:
    """[N] float32 at another rate."""
    resampler = audio.Resampler(from_hz, to_hz, 1)
    mono = np.asarray(wave, np.float32)[None]
    ready: Array = np.concatenate([resampler.push(mono), resampler.flush()], 1)[0]
    return ready


def fill(command: str, source: Path, target: Path, mode: Mode) -> list[str]:
    """The words of a command with its placeholders filled in; names with spaces stay whole."""
    values = {"in": str(source), "out": str(target), "mode": mode.word}
    values |= {"kbps": f"{mode.kbps:g}", "bps": f"{1000 * mode.kbps:.0f}"}
    words = shlex.split(command)
    for name, value in values.items():
        words = [word.replace("{" + name + "}", value) for word in words]
    return words


def lag_samples(original: Array, decoded: Array, most: int = 800) -> int | None:
    """How late decoded [N] is, within +-`most` samples; None where it does not follow the waveform."""
    size = 1 << (len(original) + most).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    both = np.fft.irfft(product, size)
    near = np.concatenate([both[-most:], both[: most + 1]])
    energy = float(
        np.sqrt(np.sum(np.square(original, dtype=np.float64)) * np.sum(np.square(decoded, dtype=np.float64)))
    )
    best = int(near.argmax())
    return best - most if energy > 0 and near[best] > CLEAR * energy else None


# ---------------------------------------------------------------- the built-in ones


def _opus() -> Peer:
    """VBR, complexity 10, 20 ms frames; both decoders take the pre-skip off."""
    tools = Peer(
        "opus",
        "opusenc --quiet --vbr --comp 10 --bitrate {kbps} {in} {out}",
        f"opusdec --quiet --rate {RATE_HZ} --float --no-dither {{in}} {{out}}",
        ".opus",
        usual_kbps=(6, 8, 10, 12, 16),
        lowest_kbps=5.0,
        payload=ogg_payload_bytes,
        needs=(("opusenc", "opus-tools"), ("opusdec", "opus-tools")),
        about="variable rate, complexity 10, frames of 20 ms",
    )
    if not tools.missing() or shutil.which("ffmpeg") is None:
        return tools
    return replace(
        tools,
        encode=_ffmpeg("-c:a libopus -vbr on -compression_level 10 -b:a {bps}"),
        decode=f"ffmpeg -v error -y -threads 1 -c:a libopus -i {{in}} -ar {RATE_HZ} -c:a pcm_f32le {{out}}",
        needs=(("ffmpeg", "opus-tools or ffmpeg"),),
        ffmpeg_encoder="libopus",
    )


def _ffmpeg(options: str) -> str:
    return f"ffmpeg -v error -y -threads 1 -i {{in}} {options} {{out}}"


def builtin() -> dict[str, Peer]:
    """The peers that need no commands, by name."""
    speex_kbps = (3.95, 5.75, 7.75, 9.8, 12.8, 16.8, 20.6, 23.8, 27.8)
    codec2 = {"700C": 0.7, "1200": 1.2, "1300": 1.3, "1400": 1.4, "1600": 1.6, "2400": 2.4, "3200": 3.2}
    late = {"700C": 480}  # 30 ms, by envelopes; the others 20 ms, half their pitch window
    peers = (
        _opus(),
        Peer(
            "codec2",
            "c2enc {mode} {in} {out}",
            "c2dec {mode} {in} {out}",
            ".c2bits",
            usual_kbps=(0.7, 1.2, 1.6, 2.4, 3.2),
            modes=tuple(Mode(kbps, word, late.get(word, 320)) for word, kbps in codec2.items()),
            rate_hz=8_000,
            raw=True,
            frame_samples=640,
            needs=(("c2enc", "codec2"), ("c2dec", "codec2")),
            about="8 kHz, so half the band of the others; every frame filled up to whole bytes",
        ),
        Peer(
            "speex",
            _ffmpeg("-c:a libspeex -cbr_quality {mode} -compression_level 10"),
            _ffmpeg("-c:a pcm_s16le"),
            ".spx",
            usual_kbps=(5.75, 7.75, 9.8, 12.8, 16.8),
            modes=tuple(Mode(kbps, str(quality), 221) for quality, kbps in enumerate(speex_kbps)),
            frame_samples=320,
            payload=ogg_payload_bytes,
            needs=(("ffmpeg", "ffmpeg"),),
            ffmpeg_encoder="libspeex",
            about="wideband, constant rate, complexity 10",
        ),
        Peer(
            "mp3",
            _ffmpeg("-c:a libmp3lame -b:a {bps} -id3v2_version 0"),
            _ffmpeg("-c:a pcm_s16le"),
            ".mp3",
            usual_kbps=(8, 16, 24, 32, 40),
            modes=tuple(Mode(kbps) for kbps in (8, 16, 24, 32, 40, 48, 56, 64)),
            spare_samples=576,
            payload=mp3_payload_bytes,
            needs=(("ffmpeg", "ffmpeg"),),
            ffmpeg_encoder="libmp3lame",
            about="constant rate; its bit reservoir counts where it is filled",
        ),
    )
    return {peer.name: peer for peer in peers}


def custom(text: str) -> Peer:
    """A peer from `name=encode ... {in} {out} {kbps} ::: decode ... {in} {out} [::: delay in samples at 16 kHz]`."""
    name, _, commands = text.partition("=")
    parts = [part.strip() for part in commands.split(MARK)]
    form = 'name="encoder {in} {out} {kbps} ::: decoder {in} {out}"'
    if not name.strip() or len(parts) not in (2, 3) or not all(parts):
        raise UsageError("peer-cmd", found=text, wanted=form)
    for part in parts[:2]:
        try:
            shlex.split(part)
        except ValueError as error:
            raise UsageError("peer-cmd", found=f"{part} ({error})", wanted=form) from error
        if "{in}" not in part or "{out}" not in part:
            raise UsageError("peer-cmd", found=part, wanted="{in} and {out} in both commands", next=form)
    if len(parts) == 3 and not parts[2].isdecimal():
        raise UsageError("peer-cmd", found=parts[2], wanted="the delay in samples at 16 kHz", next=f"{form} ::: 320")
    needs = tuple((shlex.split(part)[0], "that brings it, or give its full path") for part in parts[:2])
    delay = int(parts[2]) if len(parts) == 3 else 0
    return Peer(name.strip(), parts[0], parts[1], delay_samples=delay, usual_kbps=(6, 9, 12), needs=needs)


def choose(names: list[str], commands: list[str]) -> list[Peer]:
    """Peers by name and by command; raises UsageError for an unknown or a doubled name."""
    known = builtin()
    for name in names:
        if name not in known:
            raise UsageError("peers", found=name, wanted="some of " + ", ".join(known), next="or use --peer-cmd")
    chosen = [known[name] for name in dict.fromkeys(names)] + [custom(text) for text in commands]
    seen: set[str] = set()
    for peer in chosen:
        if peer.name in seen or peer.name.startswith("nacre") or peer.name == "original":
            raise UsageError("peer-cmd", found=f"name {peer.name}", wanted="a name of its own")
        seen.add(peer.name)
    return chosen


@functools.cache
def _first_line(program: str) -> str:
    """First line that a program says of its version; its name where it says none."""
    option = {"ffmpeg": "-version", "opusenc": "--version"}.get(program)
    if option is None:
        return Path(program).name
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [program])[0].partition(" Copyright")[0]


@functools.cache
def _ffmpeg_encoders() -> set[str]:
    done = subprocess.run(["ffmpeg", "-v", "error", "-encoders"], capture_output=True, text=True, check=False)
    return {words[1] for words in map(str.split, done.stdout.splitlines()) if len(words) > 1}
