"""What a worker does with a clip: read it, send it through every system at every rate, score what comes back.

A worker is a fresh process with one thread. A failure is recorded in the result, and the other clips go on.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nacre.batch.executor import spread
from nacre.codec.codec import Codec, load
from nacre.core.errors import AudioError, NacreError
from nacre.evaluate import metrics
from nacre.evaluate.measures import RATE_HZ, Sound, lag_samples
from nacre.evaluate.peer import Coded, Peer
from nacre.evaluate.programs import one_thread
from nacre.evaluate.python_peer import PythonPeer
from nacre.evaluate.results import Score
from nacre.io import audio

Array = np.ndarray[Any, np.dtype[Any]]
Out = TypeVar("Out")

SHORTEST_S, LONGEST_S = 0.5, 600.0
SILENT = 1e-3  # peak, -60 dB of full scale


@dataclass(frozen=True)
class System:
    """A model of ours or another codec, and the rates to run it at."""

    name: str
    rates_kbps: tuple[float, ...]
    model: str = ""
    peer: Peer | PythonPeer | None = None
    rate_hz: int = RATE_HZ  # of the model

    def code(self, wave: Array, kbps: float, rate_hz: int = RATE_HZ) -> Coded:
        """wave [N] there and back; raises NacreError."""
        return self.peer.code(wave, kbps, rate_hz) if self.peer else code_nacre(self.model, wave, kbps, rate_hz)

    def programs(self) -> Peer | PythonPeer:
        """The codec as programs; for nacre its own commands."""
        return self.peer or nacre_programs(self.model)


@dataclass(frozen=True)
class Plan:
    """All that a worker has to know."""

    folder: Path
    systems: tuple[System, ...]
    metrics: tuple[str, ...]

    @property
    def rate_hz(self) -> int:
        """Of the sound that every codec gets: the highest of the models, at least 16 kHz."""
        return max([RATE_HZ, *(system.rate_hz for system in self.systems)])

    @property
    def rows(self) -> int:
        """Rows for each clip."""
        return sum(len(system.rates_kbps) for system in self.systems)


@dataclass(frozen=True)
class Result:
    """The rows of a clip, or why it was left out, in a sentence that names it."""

    clip: str
    sha256: str
    scores: list[Score]
    skipped: str = ""
    peak_mb: float = 0.0  # of the worker so far


def each(work: Callable[[str], Out], clips: list[str], jobs: int) -> Iterator[tuple[str, Out | None]]:
    """`executor.spread` in processes that see one-thread settings before any library starts its threads."""
    os.environ.update(one_thread())
    return spread(work, clips, jobs)


def digest(path: Path) -> str:
    """A hash of the file's content; '' where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def read_clip(path: Path, rate_hz: int = RATE_HZ) -> Array:
    """[N] float32 at a rate, channels mixed, rounded to 16 bits, which is what every codec gets. Raises AudioError."""
    with audio.AudioReader(path) as reader:
        parts = []
        for part in audio.mono_blocks(reader, rate_hz):
            parts.append(part)
            if reader.samples_read > LONGEST_S * reader.rate_hz:
                raise AudioError(f"{path} is longer than 10 minutes; cut it into clips")
        wave = np.concatenate(parts)
    rounded: Array = np.clip(np.rint(wave * 32768), -32768, 32767) / np.float32(32768)
    return rounded


def check_clip(clip: str, wave: Array, rate_hz: int = RATE_HZ) -> None:
    """Raise AudioError where a clip has nothing to judge."""
    seconds, peak = len(wave) / rate_hz, float(np.abs(wave).max(initial=0))
    if seconds < SHORTEST_S:
        raise AudioError(f"{clip} is only {seconds:.2f} s long; clips need {SHORTEST_S} s or more")
    if peak < SILENT:
        raise AudioError(f"{clip} is silent; clips need a peak above -60 dB")


def measure_clip(clip: str, plan: Plan) -> Result:
    """A clip through every system at every rate."""
    path = plan.folder / clip
    sha256 = digest(path)
    try:
        wave = read_clip(path, plan.rate_hz)
        check_clip(clip, wave, plan.rate_hz)
    except NacreError as error:
        return Result(clip, sha256, [], str(error).replace(str(path), clip), peak_mb())
    original = metrics.pieces(wave, plan.rate_hz)
    scores = [
        _measure(system, kbps, clip, wave, original, plan) for system in plan.systems for kbps in system.rates_kbps
    ]
    return Result(clip, sha256, scores, peak_mb=peak_mb())


def _measure(system: System, kbps: float, clip: str, wave: Array, original: list[Sound], plan: Plan) -> Score:
    row = Score(clip, system.name, kbps, len(wave) / plan.rate_hz)
    try:
        coded = system.code(wave, kbps, plan.rate_hz)
    except Exception as error:
        text = str(error) if isinstance(error, NacreError) else f"{type(error).__name__} {error}"
        return replace(row, failure=f"codec: {text}")
    figures, failures = metrics.score(original, coded.wave, plan.metrics)
    return replace(
        row,
        file_bytes=coded.file_bytes,
        payload_bytes=coded.payload_bytes,
        encode_s=coded.encode_s,
        decode_s=coded.decode_s,
        metrics=figures,
        failure="; ".join(failures),
        lag_samples=lag_samples(wave, coded.wave),
    )


def failed(clip: str, plan: Plan, reason: str) -> Result:
    """A clip on which its worker died."""
    rows = [
        Score(clip, system.name, kbps, 0.0, failure=f"codec: {reason}")
        for system in plan.systems
        for kbps in system.rates_kbps
    ]
    return Result(clip, digest(plan.folder / clip), rows)


def code_clip(clip: str, plan: Plan, seconds: float) -> dict[tuple[str, float], Array]:
    """The start of a clip as it was and as each system gives it back, by system and rate."""
    wave, end = read_clip(plan.folder / clip, plan.rate_hz), round(seconds * plan.rate_hz)
    sounds = {("original", 0.0): wave[:end]}
    for system in plan.systems:
        for kbps in system.rates_kbps:
            try:
                sounds[system.name, kbps] = system.code(wave, kbps, plan.rate_hz).wave[:end]
            except Exception:  # its row says why
                continue
    return sounds


@functools.cache
def _codec(model: str) -> Codec:
    """A codec after its first run, which is slow and not to be timed."""
    codec = load(model)
    noise = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    codec.decode(codec.encode(noise, RATE_HZ))
    return codec


def code_nacre(model: str, wave: Array, kbps: float, rate_hz: int) -> Coded:
    """wave [N] to file bytes and back, in memory."""
    codec = _codec(model)
    start_s = time.process_time()
    data = codec.encode(wave, rate_hz, bitrate_kbps=kbps)
    middle_s = time.process_time()
    decoded, back_hz = codec.decode(data)
    end_s = time.process_time()
    if decoded.shape != (1, len(wave)) or back_hz != rate_hz:
        shapes = f"{list(decoded.shape)} at {back_hz} Hz, not as [1, {len(wave)}] at {rate_hz} Hz"
        raise AudioError(f"model {model} decoded the clip as {shapes}")
    return Coded(decoded[0], len(data), len(data), middle_s - start_s, end_s - middle_s)


def nacre_programs(model: str) -> Peer:
    """`nacre encode` and `nacre decode` of this very package as a peer."""
    where = str(Path(__file__).parents[2])
    start = f"import sys; sys.path.insert(0, {where!r}); from nacre.cli.main import main; main()"
    nacre = f"{shlex.quote(sys.executable)} -c {shlex.quote(start)}"
    options = f"{{in}} -o {{out}} --quiet --model {shlex.quote(model)}"
    commands = f"{nacre} encode {options} --bitrate {{kbps}}", f"{nacre} decode {options}"
    return Peer("nacre", *commands, ".nacre", any_rate=True)


def peak_mb() -> float:
    """Most memory that this process has held; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()  # without what it was born with, unlike ru_maxrss
        return next(int(line.split()[1]) / 1000 * 1.024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        pass
    if os.name != "posix":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
