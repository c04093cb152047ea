"""Calls over UDP: send and receive with figures once a second, and reports back to the sender."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict

import numpy as np

from nacre.codec.codec import Codec
from nacre.codec.live import LiveEncoder, LiveSettings
from nacre.codec.live_decoder import LiveDecoder
from nacre.core.errors import NacreError, StreamError, UsageError, reason
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.format.live import pack_report, unpack_report
from nacre.link.line import Line, arrivals

Tell = Callable[[str], None]
Address = tuple[str, int]

TICK_S = 0.01
MOST_WAITING = 1000  # packets
HELD_AFTER_S = 0.3  # without a packet, on top of the wait, from which sound is held back
MOST_HELD = 6000  # ticks, a minute
DEFAULT_PORT = 5004


def address_of(text: str, host: str = "127.0.0.1") -> Address:
    """HOST:PORT, HOST or :PORT as a pair. Raises UsageError.

    >>> address_of("example.org:5006"), address_of(":7000")
    (('example.org', 5006), ('127.0.0.1', 7000))
    """
    name, _, port = text.rpartition(":") if ":" in text else (text, "", str(DEFAULT_PORT))
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"an address must be HOST:PORT, PORT from 1 to 65535, not {text}")
    return name.strip("[]") or host, int(port)


class _Sender(asyncio.DatagramProtocol):
    """Takes reports of the receiver."""

    def __init__(self, encoder: LiveEncoder):
        self.encoder, self.reports, self.loss = encoder, 0, 0.0

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            report = unpack_report(data)
        except StreamError:
            return
        if report.source == self.encoder.source:
            self.reports, self.loss = self.reports + 1, report.lost_share
            self.encoder.report(report.lost_share, report.burst)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there yet: packets go on, as on any line."""


async def paced(pieces: Iterator[Array], rate_hz: int) -> AsyncIterator[Array]:
    """Pieces [N] of 20 ms, none before its time."""
    start, done = time.monotonic(), 0
    step = max(1, rate_hz // 50)
    for wave in pieces:
        for at in range(0, len(wave), step):
            piece = wave[at : at + step]
            done += len(piece)
            await asyncio.sleep(max(0.0, start + done / rate_hz - time.monotonic()))
            yield piece


async def send(
    codec: Codec, pieces: Iterator[Array], rate_hz: int, to: Address, settings: LiveSettings, line: Line, tell: Tell
) -> None:
    """Sound as packets to an address, at the pace of speech, over a line made worse by `line`. Raises NacreError."""
    loop, encoder, way = asyncio.get_running_loop(), codec.live_encoder_of(rate_hz, settings), arrivals(line)
    try:
        transport, sender = await loop.create_datagram_endpoint(lambda: _Sender(encoder), remote_addr=to)
    except OSError as error:
        raise NacreError(f"{to[0]}:{to[1]} cannot be reached ({reason(error)}); check host and port") from error
    second = time.monotonic() + 1
    try:
        async for wave in paced(pieces, rate_hz):
            for packet in encoder.push(wave):
                _launch(loop, transport, packet, next(way))
            if time.monotonic() >= second:
                second += 1
                feedback = f"the receiver reports {100 * sender.loss:.0f} % lost" if sender.reports else "no report yet"
                tell(f"sent {encoder.packets} packets, {encoder.rate_kbps:.2f} kb/s, {feedback}")
        for packet in encoder.flush():
            _launch(loop, transport, packet, next(way))
            await asyncio.sleep(0.02 * settings.frames)
        await asyncio.sleep((line.delay_ms + 10 * line.jitter_ms) / 1000)
    finally:
        transport.close()
    tell(f"sent {encoder.packets} packets, {encoder.rate_kbps:.2f} kb/s, {sender.reports} reports came back")


def _launch(
    loop: asyncio.AbstractEventLoop, transport: asyncio.DatagramTransport, packet: bytes, delay_s: float | None
) -> None:
    if delay_s is not None:
        loop.call_later(delay_s, transport.sendto, packet)


class _Receiver(asyncio.DatagramProtocol):
    """Keeps packets, with the times at which they came, until the decoder takes them.

    Nothing else is done as they come, so that a machine that lags finds all that have arrived, not one at a time.
    """

    def __init__(self, decoder: LiveDecoder):
        self.decoder, self.last_s = decoder, time.monotonic()
        self.waiting: deque[tuple[float, bytes]] = deque(maxlen=MOST_WAITING)
        self.peer: Address | None = None

    def datagram_received(self, data: bytes, addr: Address | None) -> None:
        self.last_s = time.monotonic()
        self.peer = addr
        self.waiting.append((self.last_s, data))

    def taken(self) -> Array:
        """Sound [N] that has become due."""
        waves = []
        while self.waiting:
            arrival_s, data = self.waiting.popleft()
            waves.append(self.decoder.push(data, arrival_s))
        waves.append(self.decoder.push(None, time.monotonic()))
        return np.concatenate(waves)


async def receive(
    codec: Codec,
    at: Address,
    rate_hz: int,
    write: Callable[[Array], None],
    tell: Tell,
    *,
    depth_ms: float | None = None,
    idle_s: float = 5.0,
    seconds: float | None = None,
) -> LiveDecoder:
    """Packets that come to an address as sound to `write`, until none has come for `idle_s` after the first, or Ctrl-C.

    What was concealed after the last packet is left out. `seconds` is the longest it listens. Raises NacreError where
    the address is not this machine's, or in use.
    """
    decoder = codec.live_decoder(rate_hz, depth_ms=depth_ms)
    loop, start, idle = asyncio.get_running_loop(), time.monotonic(), _Idle(write)
    try:
        transport, receiver = await loop.create_datagram_endpoint(lambda: _Receiver(decoder), local_addr=at)
    except OSError as error:
        raise NacreError(f"{at[0]}:{at[1]} cannot be used ({reason(error)}); listen at another address") from error
    tell(f"listening at {at[0]}:{at[1]}")
    second, before = start + 1, 0
    try:
        while (now := time.monotonic()) - start < (seconds or float("inf")):
            await asyncio.sleep(TICK_S)
            idle.take(receiver.taken(), now - receiver.last_s > decoder.depth_ms / 1000 + HELD_AFTER_S)
            if decoder.stats.received and now - receiver.last_s > idle_s:
                break
            if now >= second and decoder.stats.received:
                second = now + 1
                tell(figures(decoder, decoder.stats.payload_bytes - before))
                before = decoder.stats.payload_bytes
                if receiver.peer:
                    transport.sendto(pack_report(decoder.report()), receiver.peer)
    except asyncio.CancelledError:
        tell("stopped")  # by Ctrl-C, which ends the call; what was heard is kept
    finally:
        transport.close()
    return decoder


class _Idle:
    """Sound to be written, but what is made up while nobody speaks only once somebody speaks again."""

    def __init__(self, write: Callable[[Array], None]):
        self._write, self._held = write, deque[Array]()

    def take(self, wave: Array, idle: bool) -> None:
        """wave [N] that has become due."""
        self._held.append(wave)
        while self._held and (not idle or len(self._held) > MOST_HELD):
            if len(wave := self._held.popleft()):
                self._write(wave)


def figures(decoder: LiveDecoder, second_bytes: int) -> str:
    """A line of what a decoder has done."""
    stats = asdict(decoder.stats)
    named = [f"{stats[name]} {name}" for name in ("received", "lost", "late", "restored", "concealed")]
    odd = [f"{stats[name]} {name}" for name in ("damaged", "foreign", "duplicate", "restarts") if stats[name]]
    return f"{kbps(second_bytes, 1.0):.2f} kb/s, {', '.join(named + odd)}, depth {decoder.depth_ms:.0f} ms"
