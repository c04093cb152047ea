"""What the benchmarks share: clips, Opus, scores, confidence intervals and single-threaded workers."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from rich.console import Console

RATE_HZ = 16_000
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


class Coded(NamedTuple):
    wave: np.ndarray  # [N] float32 at 16 kHz, aligned with what went in
    payload_bytes: int  # without the container's paging and headers
    file_bytes: int


class Score(NamedTuple):
    pesq_wb: float
    estoi: float


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


# ---------------------------------------------------------------- clips and workers


def numbers(text: str) -> list[float]:
    """'1.5,3' -> [1.5, 3.0]; '' -> []."""
    return [float(part) for part in text.split(",") if part.strip()]


def audio_files(folder: Path, limit: int | None = None) -> list[Path]:
    """Sound files below `folder` by name; with a limit, that many spread evenly over all of them."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise SystemExit(f"no sound files below {folder}")
    if limit is None or limit >= len(files):
        return files
    return [files[index * len(files) // limit] for index in range(limit)]


def read_clip(path: Path, rate_hz: int = RATE_HZ) -> np.ndarray:
    """-> [N] float32, channels mixed, resampled where the file has another rate."""
    wave, file_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)
    return mono if file_hz == rate_hz else soxr.resample(mono, file_hz, rate_hz, "VHQ").astype(np.float32)


def looped_speech(folder: Path, seconds: float, rate_hz: int = RATE_HZ) -> Iterator[np.ndarray]:
    """Blocks [N] float32 of the folder's clips one after another, started again as often as it takes."""
    files, left = audio_files(folder), round(seconds * rate_hz)
    while left > 0:
        for path in files:
            block = read_clip(path, rate_hz)[:left]
            left -= len(block)
            yield block
            if left <= 0:
                return


def wide_console() -> Console:
    """Tables keep their columns when the output goes to a file or a narrow terminal."""
    return Console(width=max(110, Console().width))


def workers(jobs: int) -> ProcessPoolExecutor:
    """Fresh processes that see one-thread settings before any library starts its threads."""
    os.environ.update(ONE_THREAD)
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


# ---------------------------------------------------------------- Opus


@functools.cache
def opus_version() -> str:
    """What encodes: it is part of a figure's name, since releases differ."""
    if shutil.which("opusenc") and shutil.which("opusdec"):
        return subprocess.run(["opusenc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    if shutil.which("ffmpeg"):
        line = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True).stdout.splitlines()[0]
        return "ffmpeg libopus " + line.split()[2]
    raise SystemExit("Opus needs opusenc and opusdec (opus-tools), or ffmpeg with libopus")


def opus_commands(bitrate_kbps: float, frame_ms: float) -> tuple[list[str], list[str]]:
    """Commands a.wav -> a.opus and a.opus -> b.wav: VBR, complexity 10, 16 kHz out, pre-skip removed."""
    if opus_version().startswith("opusenc"):
        encode = f"opusenc --quiet --vbr --comp 10 --bitrate {bitrate_kbps:g} --framesize {frame_ms:g}"
        decode = f"opusdec --quiet --rate {RATE_HZ} --float --no-dither"
        return [*encode.split(), "a.wav", "a.opus"], [*decode.split(), "a.opus", "b.wav"]
    quiet = "ffmpeg -v error -y -threads 1 -i"
    encode = f"{quiet} a.wav -c:a libopus -vbr on -compression_level 10 -b:a {bitrate_kbps:g}k"
    encode += f" -frame_duration {frame_ms:g} a.opus"
    decode = f"ffmpeg -v error -y -threads 1 -c:a libopus -i a.opus -ar {RATE_HZ} -c:a pcm_f32le b.wav"
    return encode.split(), decode.split()


def ogg_payload_bytes(data: bytes, header_packets: int = 2) -> int:
    """Bytes of the packets in an Ogg stream, without pages, lacing values and the header packets.

    A lacing value of 255 means that the packet goes on in the next value, over page ends too.
    """
    at, packet, total = 0, 0, 0
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {at}")
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        for size in lacing:
            total += size if packet >= header_packets else 0
            packet += size < 255
        at += 27 + len(lacing) + sum(lacing)
    return total


def opus_roundtrip(wave: np.ndarray, bitrate_kbps: float, frame_ms: float = 20) -> Coded:
    """[N] float32 at 16 kHz -> what Opus makes of it, of the same length."""
    encode, decode = opus_commands(bitrate_kbps, frame_ms)
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder, "a.wav"), wave, RATE_HZ, subtype="PCM_16")
        for command in (encode, decode):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        data = Path(folder, "a.opus").read_bytes()
        decoded = read_clip(Path(folder, "b.wav"))
    if abs(len(decoded) - len(wave)) > 2:
        raise ValueError(f"Opus returned {len(decoded)} samples, wanted {len(wave)}")
    decoded = np.pad(decoded[: len(wave)], (0, max(0, len(wave) - len(decoded))))
    return Coded(decoded, ogg_payload_bytes(data), len(data))


# ---------------------------------------------------------------- scores


def lag_samples(reference: np.ndarray, decoded: np.ndarray, most: int = 800) -> int:
    """How late `decoded` is, by cross-correlation within +-`most` samples; 0 when it is aligned."""
    size = 1 << (len(reference) + most).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(reference, size))
    correlation = np.fft.irfft(product, size)
    return int(np.argmax(np.concatenate([correlation[-most:], correlation[: most + 1]]))) - most


def score(reference: np.ndarray, decoded: np.ndarray) -> Score:
    """PESQ-WB and ESTOI of [N] against [N]; what cannot be scored raises, it never becomes a number."""
    from pesq import pesq
    from pystoi import stoi

    decoded = np.clip(decoded, -1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi only warns when nothing is left after silence
        estoi = stoi(reference, decoded, RATE_HZ, extended=True)
        return Score(pesq(RATE_HZ, reference, decoded, "wb"), float(estoi))


def bootstrap(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean over files with its 95 % percentile interval."""
    values = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    return Interval(values.mean(), *np.percentile(values[draws].mean(axis=1), [2.5, 97.5]))


# ---------------------------------------------------------------- cache of what never changes


def cache_key(wave: np.ndarray, *settings: object) -> str:
    """Name of a result: the samples, the settings, and the releases of what measured them."""
    packages = [f"{name} {version(name)}" for name in ("pesq", "pystoi")]
    text = json.dumps([*map(str, settings), *packages]).encode()
    return hashlib.sha256(wave.tobytes() + text).hexdigest()[:32]


def read_cache(folder: Path | None, key: str) -> dict | None:
    path = folder / f"{key}.json" if folder else None
    return json.loads(path.read_text()) if path and path.exists() else None


def write_cache(folder: Path | None, key: str, row: dict) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{key}.{os.getpid()}"
        partial.write_text(json.dumps(row))
        partial.replace(folder / f"{key}.json")
