"""Codecs that are Python packages, as peers: an object with two methods in place of two commands."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from nacre.core.errors import UsageError
from nacre.evaluate.measures import RATE_HZ
from nacre.evaluate.peer import LENGTH_TOLERANCE, Coded, fitted, near_rates
from nacre.evaluate.programs import PeerError
from nacre.io import audio

Array = np.ndarray[Any, np.dtype[Any]]

FORM = "NAME=MODULE:OBJECT or NAME=FILE.py:OBJECT"


class PythonCodec(Protocol):
    """What the object offers. Sound is [N] float32 in -1..1; what comes back is as long as what went in."""

    rates_kbps: Sequence[float]  # that it has
    version: str

    def encode(self, wave: Array, rate_hz: int, kbps: float) -> bytes:
        """The bytes that would be sent."""
        ...

    def decode(self, data: bytes) -> tuple[Array, int]:
        """(sound, its rate in Hz)."""
        ...


@dataclass(frozen=True)
class PythonPeer:
    """A codec by the place of its object, or of a class or function that makes it without arguments."""

    name: str
    place: str

    def settings(self, target_kbps: list[float] | None) -> list[float]:
        """Rates to run: all, or those nearest to the target rates, each once. Raises UsageError."""
        known = [float(kbps) for kbps in _codec(self.place).rates_kbps]
        return sorted(known) if target_kbps is None else near_rates(target_kbps, known)

    def missing(self) -> str:
        """What has to be installed first, or ''."""
        try:
            _codec(self.place)
        except ModuleNotFoundError as error:
            return f"the Python package {error.name}"
        return ""

    def version(self) -> str:
        """The encoder's version, as the object gives it."""
        return str(getattr(_codec(self.place), "version", "")) or self.place

    def identity(self) -> list[str]:
        """What decides about its figures."""
        return [self.place, self.version()]

    def code(self, wave: Array, kbps: float, rate_hz: int = RATE_HZ) -> Coded:
        """[N] float32 -> what the codec makes of it, of the same length and rate. Raises PeerError."""
        codec = _warm(self.place)
        start_s = time.process_time()
        data = codec.encode(wave, rate_hz, kbps)
        middle_s = time.process_time()
        sound, back_hz = codec.decode(data)
        end_s = time.process_time()
        decoded = audio.resampled(np.asarray(sound, np.float32).reshape(-1), back_hz, rate_hz)
        if abs(len(decoded) - len(wave)) > LENGTH_TOLERANCE * rate_hz // RATE_HZ:
            raise PeerError(f"{self.name} decoded {len(decoded)} samples instead of {len(wave)}")
        decoded = fitted(decoded, len(wave))
        return Coded(decoded, len(data), len(data), middle_s - start_s, end_s - middle_s)

    def memory_mb(self, wave: Array, kbps: float, rate_hz: int = RATE_HZ) -> tuple[float, float]:
        """Unknown, since it shares a process with the metrics."""
        return 0.0, 0.0


def custom_object(text: str) -> PythonPeer:
    """A peer from `name=module:object` or `name=file.py:object`. Raises UsageError."""
    name, _, place = text.partition("=")
    module, _, attribute = place.rpartition(":")
    if not (name.strip() and module and attribute.isidentifier()):
        raise UsageError(f"--peer-py {text} is incomplete; write it as {FORM}")
    return PythonPeer(name.strip(), place)


@functools.cache
def _codec(place: str) -> PythonCodec:
    """The object at a place. Raises UsageError, ModuleNotFoundError."""
    module, _, attribute = place.rpartition(":")
    target: Any = getattr(_module(module), attribute, None)
    makes = isinstance(target, type) or (callable(target) and not hasattr(target, "encode"))
    codec = target() if makes else target
    if not all(hasattr(codec, name) for name in ("rates_kbps", "encode", "decode")):
        form = "give an object with rates_kbps, encode and decode, or a function that makes one"
        raise UsageError(f"--peer-py {place} is a {type(codec).__name__}, not a codec; {form}")
    made: PythonCodec = codec
    return made


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    if spec is None or spec.loader is None or not Path(name).is_file():
        raise UsageError(f"--peer-py names {name}, which is not a file; write it as {FORM}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def _warm(place: str) -> PythonCodec:
    """The object after its first run, which is slow and not to be timed."""
    codec = _codec(place)
    noise = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    codec.decode(codec.encode(noise, RATE_HZ, float(codec.rates_kbps[0])))
    return codec
