"""A bad line, by lot and by seed: which packets arrive and when, and what a call over it sounds like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.live import LiveSettings, reach_of
from nacre.codec.live_inbox import LiveStats
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import kbps

TICK_S = 0.02
SOURCE = 0x6E616372  # the same in every simulation, so that packets are the same bytes
TAIL_S = 0.2


@dataclass(frozen=True)
class Line:
    """What a line does to packets: `loss` is the share lost, in runs of `burst` on average; `jitter_ms` is the mean of
    an exponential delay on top of `delay_ms`; `drift_ppm` is how much faster the receiver's clock goes."""

    loss: float = 0.0
    burst: float = 1.0
    delay_ms: float = 50.0
    jitter_ms: float = 0.0
    drift_ppm: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "loss": (self.loss, 0, 1),
            "burst": (self.burst, 1, 100),
            "delay": (self.delay_ms, 0, 10_000),
            "jitter": (self.jitter_ms, 0, 1000),
            "drift": (self.drift_ppm, -1000, 1000),
        }
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise UsageError(f"{name} must be {low:g} to {high:g}, not {value:g}")
        if self.burst > 1 and self.loss > (most := self.burst / (1 + self.burst)):
            raise UsageError(f"loss in bursts of {self.burst:g} must be at most {most:.2f}, not {self.loss:g}")

    @property
    def reach_ms(self) -> float:
        """How far copies should reach back: most runs are no longer than twice their mean and one."""
        return reach_of(2 * self.burst + 1)


@dataclass(frozen=True, eq=False)
class Call:
    """What came out: wave [N] float32 as long as what went in, and what it took."""

    wave: Array
    stats: LiveStats
    payload_kbps: float
    sent: int
    arrived: int
    depth_ms: float
    latency_ms: float  # sound in to sound out at the end of the call, the line included


def arrivals(line: Line) -> Iterator[float | None]:
    """For packet after packet: how long it is on its way in seconds, None where it is lost.

    Losses follow two states, as Gilbert (1960) has them: a run of lost packets ends with probability 1 / burst.
    """
    rng = np.random.default_rng(line.seed)
    stay = 1 - 1 / line.burst
    enter = line.loss if line.burst == 1 else line.loss / line.burst / max(1e-9, 1 - line.loss)
    lost = False
    while True:
        lost = bool(rng.random() < (enter if line.burst == 1 or not lost else stay))
        jitter = rng.exponential(line.jitter_ms) if line.jitter_ms else 0.0
        yield None if lost else (line.delay_ms + jitter) / 1000


def lost(line: Line, packets: int) -> list[bool]:
    """Of each of the first packets, whether it is lost."""
    return [delay_s is None for delay_s in islice(arrivals(line), packets)]


def call(
    codec: Codec, wave: Array, rate_hz: int, settings: LiveSettings, line: Line, depth_ms: float | None = None
) -> Call:
    """wave [N] float32 through encoder, line and decoder, at the speed of this machine. Raises AudioError, UsageError.

    The sound that comes out begins when the first frame is played, without the codec's delay.
    """
    encoder, decoder = codec.live_encoder_of(rate_hz, settings, SOURCE), codec.live_decoder(rate_hz, depth_ms=depth_ms)
    step, way = round(TICK_S * rate_hz), arrivals(line)
    flying: list[tuple[float, int, bytes]] = []
    blocks: list[Array] = []
    sent = arrived = played = 0
    first_s, seconds = None, len(wave) / rate_hz
    ticks = int(np.ceil((seconds + TAIL_S + line.delay_ms / 1000) / TICK_S)) + 1
    for tick in range(ticks + 100):
        now = (tick + 1) * TICK_S  # the last sample of this piece has just been recorded
        piece = wave[tick * step : (tick + 1) * step]
        packets = encoder.push(piece) if len(piece) else []
        if len(wave) <= (tick + 1) * step and tick * step < len(wave):
            packets += encoder.flush()
        for packet in packets:
            sent += 1
            if (delay_s := next(way)) is not None:
                flying.append((now + delay_s, sent, packet))
        flying.sort()
        while flying and flying[0][0] <= now:
            at, _, packet = flying.pop(0)
            arrived += 1
            blocks.append(decoder.push(packet, at * (1 + line.drift_ppm * 1e-6)))
            played += len(blocks[-1])
        blocks.append(decoder.push(None, now * (1 + line.drift_ppm * 1e-6)))
        played += len(blocks[-1])
        first_s = now if first_s is None and played else first_s
        if played >= len(wave) + codec.config.delay_samples * rate_hz / codec.config.rate_hz and not flying:
            break
    lag = round(codec.config.delay_samples * rate_hz / codec.config.rate_hz)
    missed = decoder.first_sample * rate_hz // codec.config.rate_hz  # before the first packet that arrived
    sound = np.concatenate([np.zeros(missed, np.float32), np.concatenate(blocks)[lag:]])[: len(wave)]
    sound = np.pad(sound, (0, len(wave) - len(sound)))
    latency_ms = 1000 * codec.config.delay_samples / codec.config.rate_hz + 20 * settings.frames
    rate = kbps(encoder.payload_bytes, seconds)
    return Call(
        sound, decoder.stats, rate, sent, arrived, decoder.depth_ms, latency_ms + line.delay_ms + decoder.depth_ms
    )
