"""One voice through encoder, a line that is made worse, and decoder, back to whoever spoke: a call with oneself."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.live import LiveSettings
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.link.line import Line, arrivals

AHEAD_S = 1.0  # sound that comes faster than it can be spoken is left out
FLYING = 1000  # packets on their way at most


@dataclass(frozen=True)
class EchoSettings:
    """What a call goes by: kb/s with copies, loss in %, mean runs of lost packets, delay and its mean jitter in ms."""

    rate_hz: int = 48_000
    kbps: float = 6.0
    copies: bool = True
    loss: float = 0.0
    burst: float = 1.0
    delay_ms: float = 50.0
    jitter_ms: float = 0.0

    @classmethod
    def read(cls, text: str) -> EchoSettings:
        """From JSON with any of these names. Raises UsageError."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise UsageError(f"settings must be a JSON object, not {text[:40]!r}")
        known = {field.name: field.default for field in fields(cls)}
        for name, value in message.items():
            number = isinstance(value, (int, float)) and isinstance(value, bool) == (name == "copies")
            if name not in known:
                raise UsageError(f"there is no setting {name[:20]!r}; use {', '.join(known)}")
            if not number:
                kind = "true or false" if name == "copies" else "a number"
                raise UsageError(f"setting {name} must be {kind}, not {str(value)[:20]!r}")
        return cls(**message)

    @property
    def line(self) -> Line:
        """The line. Raises UsageError."""
        return Line(self.loss / 100, self.burst, self.delay_ms, self.jitter_ms)


class Echo:
    """Sound in, what the other end hears out, `now` in seconds of one clock. Loss is reported once a second.

    Raises AudioError and UsageError for settings that cannot be.
    """

    def __init__(self, codec: Codec, settings: EchoSettings, now: float):
        self.codec, self.settings = codec, settings
        self.live = LiveSettings(settings.kbps, redundant=settings.copies)
        self.encoder = codec.live_encoder_of(settings.rate_hz, self.live)
        self.decoder = codec.live_decoder(settings.rate_hz)
        self.left_out = 0  # samples
        self._way: Iterator[float | None] = arrivals(settings.line)
        self._flying: list[tuple[float, int, bytes]] = []
        self._start_s, self._samples = now, 0
        self._reported_s, self._reported_bytes = now, 0

    def change(self, settings: EchoSettings, now: float) -> Echo:
        """The call by other settings: the same one where only the line is another. Raises as on creation."""
        mine, other = self.settings, settings
        if (mine.rate_hz, mine.kbps, mine.copies) != (other.rate_hz, other.kbps, other.copies):
            return Echo(self.codec, settings, now)
        self._way, self.settings = arrivals(settings.line), settings
        return self

    def speak(self, wave: Array, now: float) -> None:
        """wave [N] float32 that has just been recorded."""
        most = round((now - self._start_s + AHEAD_S) * self.settings.rate_hz) - self._samples
        self.left_out += max(0, len(wave) - max(0, most))
        wave = wave[: max(0, most)]
        self._samples += len(wave)
        for packet in self.encoder.push(wave):
            delay_s = next(self._way)
            if delay_s is not None and len(self._flying) < FLYING:
                heapq.heappush(self._flying, (now + delay_s, self.encoder.packets, packet))

    def hear(self, now: float) -> Array:
        """wave [N] float32 that is due by now; call it each 10 or 20 ms."""
        waves = []
        while self._flying and self._flying[0][0] <= now:
            arrival_s, _, packet = heapq.heappop(self._flying)
            waves.append(self.decoder.push(packet, arrival_s))
        waves.append(self.decoder.push(None, now))
        return np.concatenate(waves)

    def figures(self, now: float) -> dict[str, float] | None:
        """Once a second what the call has come to, else None."""
        if now - self._reported_s < 1:
            return None
        report = self.decoder.report()
        self.encoder.report(report.lost_share, report.burst)
        spent, codec = self.encoder.payload_bytes - self._reported_bytes, self.codec.config
        rate = kbps(spent, now - self._reported_s)
        self._reported_s, self._reported_bytes = now, self.encoder.payload_bytes
        delay_ms = 20 + 1000 * codec.delay_samples / codec.rate_hz + self.settings.delay_ms + self.decoder.depth_ms
        counts: dict[str, float] = asdict(self.decoder.stats)
        line = {"kbps": rate, "wait_ms": self.decoder.depth_ms, "delay_ms": delay_ms, "left_out": self.left_out}
        return counts | line | {"lost_now": report.lost_share}
