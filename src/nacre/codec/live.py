"""Live encoder: samples in, RTP packets of 20 to 60 ms out, with coarse copies of earlier frames for bad lines."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from nacre.codec.denoiser import StreamDenoiser
from nacre.codec.encoder import analyse_frames, code_frames
from nacre.codec.live_packets import (
    COPY_LEVELS,
    MOST_FRAMES,
    REACHES,
    Context,
    Frame,
    Mode,
    Payload,
    PayloadCoder,
)
from nacre.codec.rate_control import DEFAULT_KBPS, plan_rate
from nacre.codec.state import Options, start_encoder
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.dsp.gain import RELEASE_DB, LevelState, choose_gain, is_silent
from nacre.dsp.offset import OffsetState, without_offset
from nacre.dsp.wave import as_sound, check_shape, pad
from nacre.format.live import RtpPacket, pack_rtp
from nacre.io.audio import Resampler
from nacre.model.model import Model

REFRESH = ((0.003, 50), (0.02, 10), (0.05, 4))  # up to this share of loss a key in so many packets; above, each is one
ANNOUNCED = (0, 2, 8)  # packets at the start that say which model they are for, so that one of them arrives
ANNOUNCE_PACKETS = 50
COPIES_FROM = 0.01  # share of loss from which copies are sent
RICH_FROM, RICHEST, RICH_SHARE = 0.05, 2, 0.25  # from such a loss copies are better ones, if a quarter of the rate does
SILENT_FRAMES = 10  # without sound that are coded like sound, so that no word is cut
QUIET_PACKETS = 20  # while there is silence one packet in so many is sent
FIRST_LEVEL = LevelState(-26.0, 14)  # of speech as it is usually recorded, before any has come
CHAINED, KEYED, COPIED = 1.06, 1.28, 1.37  # first guesses: packets and copies over files at the same level
USUAL_REACH_MS = 80.0  # until a report comes


@dataclass(frozen=True)
class LiveSettings:
    """What a caller may request of a live encoder.

    `bitrate_kbps` counts payloads, copies included; None is what files have by default. `frames` of 20 ms go into a
    packet; `loss` is the share of packets that the line is thought to lose, which sets keys and copies. Copies reach
    back `reach_ms`, None as far as reported bursts need, and are of `copy_level`, None as the loss needs; there
    are none where `redundant` is False. `denoise` leaves out noise, 10 ms later.
    """

    bitrate_kbps: float | None = None
    frames: int = 1
    loss: float = 0.0
    reach_ms: float | None = None
    redundant: bool = True
    copy_level: int | None = None
    denoise: bool = False

    def __post_init__(self) -> None:
        limits = {
            "frames": (self.frames, 1, MOST_FRAMES),
            "loss": (self.loss, 0, 1),
            "reach_ms": (self.reach_ms, 40, 1000),
            "copy_level": (self.copy_level, 0, COPY_LEVELS - 1),
        }
        for name, (value, low, high) in limits.items():
            if value is None:
                continue
            if not low <= value <= high or (name in ("frames", "copy_level") and value != int(value)):
                raise UsageError(f"{name} must be {low} to {high}, not {value}")


def reach_of(burst: float, frames: int = 1) -> float:
    """ms that copies must reach back to restore runs of so many lost packets, of so many frames.

    >>> reach_of(1), reach_of(3), reach_of(2, frames=3)
    (40.0, 80.0, 100.0)
    """
    return max(40.0, min(1000.0, 20.0 * (frames * (max(burst, 1) - 1) + 2)))


def reach_frames(reach_ms: float) -> int:
    """Frames from the newest copy to the packet: the largest of REACHES that does not reach further back.

    >>> reach_frames(40), reach_frames(80), reach_frames(180)
    (1, 3, 6)
    """
    return max(reach for reach in REACHES if reach <= max(1.0, reach_ms / 20 - 1))


class LiveEncoder:
    """Samples in, packets out; the packets do not depend on the pieces. Raises AudioError, UsageError."""

    def __init__(self, model: Model, rate_hz: float, settings: LiveSettings, source: int | None = None):
        self.model, self.settings, self.rate_hz = model, settings, check_shape(rate_hz, 1)
        self.source = int.from_bytes(os.urandom(4), "big") if source is None else source
        self.payload_bytes, self.packets, self._reach_ms = 0, 0, settings.reach_ms or USUAL_REACH_MS
        self._plan = plan_rate(model, 1, settings.bitrate_kbps, None)
        self._plan.spent_bytes = 0
        self._plan.activity = self._overhead()
        self._coder, self._resampler = PayloadCoder(model), Resampler(self.rate_hz, model.config.rate_hz, 1)
        self._denoiser = StreamDenoiser(model, 1) if settings.denoise else None
        self._primary = start_encoder(model, residual=self._plan.highest >= model.plain_levels)
        self._coarse, self._loudness = start_encoder(model), FIRST_LEVEL
        self._context: Context | None = None
        self._frames = 0  # given to packets so far
        self._old: deque[Frame] = deque(maxlen=REACHES[-1] + 2 * MOST_FRAMES)
        self._uncopied: list[tuple[Array, int, bool]] = []  # the newest frames: wave [hop], gain code, silence
        self._second_bytes, self._level = 0, self._plan.choose()
        self._still = self._quiet = 0  # frames without sound, packets that said so
        self._waiting, self._offset = np.zeros(0, np.float32), OffsetState()

    @property
    def rate_kbps(self) -> float:
        """Payload of the packets so far in kb/s."""
        seconds = self._frames * self.model.config.hop_samples / self.model.config.rate_hz
        return 8 * self.payload_bytes / seconds / 1000 if seconds else 0.0

    def push(self, wave: Array) -> list[bytes]:
        """wave [N] or [C, N] (channels averaged) float32 at the encoder's rate -> RTP packets that it completes."""
        sound = as_sound(wave).mean(0, keepdims=True)
        ready = self._resampler.push(sound)
        if self._denoiser:
            ready = self._denoiser.push(ready)
        self._waiting = np.concatenate([self._waiting, ready[0]])
        return list(self._ready())

    def flush(self) -> list[bytes]:
        """The packets of what is left, padded so that the decoder's delay brings out the last sample."""
        config = self.model.config
        rest = self._resampler.flush()
        if self._denoiser:
            rest = np.concatenate([self._denoiser.push(rest), self._denoiser.flush()], 1)
        tail = [self._waiting, rest[0], np.full(config.delay_samples, self._offset.offset, np.float32)]
        self._waiting = pad(np.concatenate(tail), self.settings.frames * config.hop_samples)
        return list(self._ready())

    def report(self, loss: float, burst: int = 1) -> None:
        """Note what the receiver reports: the share of packets lost, and its longest run. Keys and copies follow."""
        before = self._overhead()
        self.settings = replace(self.settings, loss=min(1.0, max(0.0, loss)))
        self._plan.activity *= self._overhead() / before
        if self.settings.reach_ms is None:
            self._reach_ms = reach_of(burst, self.settings.frames)

    def _ready(self) -> Iterator[bytes]:
        size = self.settings.frames * self.model.config.hop_samples
        while len(self._waiting) >= size:
            wave, self._waiting = self._waiting[:size], self._waiting[size:]
            if (packet := self._packet(wave)) is not None:
                yield packet

    def _packet(self, wave: Array) -> bytes | None:
        """One packet of wave [frames * hop]; None in silence, where nothing need be sent."""
        config, frames, at = self.model.config, self.settings.frames, self._frames
        wave, self._offset = without_offset(self._offset, wave, config.hop_samples)
        self._still = self._still + frames if is_silent(wave, config.hop_samples) else 0
        silent = self._still > SILENT_FRAMES
        marker, self._quiet = self._quiet > 1 and not silent, self._quiet + 1 if silent else 0
        payload = self._payload(wave, silent)
        self._frames += frames
        if silent and self._quiet % QUIET_PACKETS != 1 and not payload.copies:
            return None
        data, self._context = self._coder.pack(payload, self._context)
        rtp = RtpPacket(self.packets, at * config.hop_samples, self.source, data, marker)
        self.packets += 1
        self.payload_bytes += len(data)
        self._account(len(data), at, frames)
        return pack_rtp(rtp)

    def _overhead(self) -> Array:
        """What packets are thought to cost over what files cost at each level [L], before any was written."""
        rates, loss = self._plan.rates_kbps, self.settings.loss
        packets = CHAINED if loss <= REFRESH[1][0] else KEYED
        copied = COPIED * rates[self._copy_level] if self._copying else 0.0
        return packets + copied / rates

    @property
    def _copying(self) -> bool:
        """Whether packets carry copies."""
        return self.settings.redundant and self.settings.loss >= COPIES_FROM

    @property
    def _copy_level(self) -> int:
        """The quality level of copies."""
        rates, target = self._plan.rates_kbps, self._plan.target_kbps or DEFAULT_KBPS
        if self.settings.copy_level is not None or self.settings.loss < RICH_FROM:
            return min(self.settings.copy_level or 0, len(rates) - 1)
        return max(0, int((COPIED * rates[: RICHEST + 1] <= RICH_SHARE * target).sum()) - 1)

    def _account(self, size_bytes: int, at: int, frames: int) -> None:
        """Once a second the level is chosen anew, so that the mean rate meets the target."""
        second = round(self.model.config.frame_rate_hz)
        self._second_bytes += size_bytes
        if (at + frames) // second > at // second:
            self._plan.record(self._second_bytes, 1.0)
            self._second_bytes, self._level = 0, self._plan.choose()

    def _payload(self, wave: Array, silent: bool) -> Payload:
        hop, copies = self.model.config.hop_samples, self._copies()
        code, self._loudness = choose_gain(self._loudness, wave, hop, RELEASE_DB * len(wave) / hop / 50)
        mode = self._mode(silent, code)
        level = self._context.level if mode in (Mode.CHAIN, Mode.CHANGE) and self._context else self._level
        symbols, residual = [], []
        for at in range(0, len(wave), hop):
            coded = self._frame(wave[at : at + hop], level, code, silent)
            if coded.symbols is not None:
                symbols.append(coded.symbols)
            if coded.residual is not None:
                residual.append(coded.residual)
        frames, reach = len(wave) // hop, reach_frames(self._reach_ms)
        held = (np.concatenate(symbols) if symbols else None), (np.concatenate(residual) if residual else None)
        return Payload(mode, frames, level, code, *held, reach if copies else 1, copies)

    def _frame(self, wave: Array, level: int, code: int, silent: bool) -> Frame:
        """One frame's symbols; its sound is kept for copies."""
        coded, self._primary = code_frames(
            self.model, self._primary, wave, level, Options(code_silence=not silent), code
        )
        if self._copying:
            self._uncopied.append((wave, code, silent))
            if len(self._uncopied) >= max(2, self.settings.frames):
                self._prepare_copies()
        return Frame(level, code, coded.symbols, coded.residual)

    def _prepare_copies(self) -> None:
        """Coarse symbols of the frames that still lack them, those of one gain in one step of the network."""
        level = self._copy_level
        for code, run in groupby(self._uncopied, lambda frame: frame[1]):
            waves, _, silent = zip(*run, strict=True)
            analysed, self._coarse = analyse_frames(self.model, self._coarse, np.concatenate(waves), level, code)
            symbols = self.model.symbols(analysed.latents, level)
            self._old += [Frame(level, code, None if mute else symbols[at : at + 1]) for at, mute in enumerate(silent)]
        self._uncopied = []

    def _mode(self, silent: bool, code: int) -> Mode:
        if silent:
            return Mode.SILENCE
        if self.packets in ANNOUNCED or self.packets % ANNOUNCE_PACKETS == 0:
            return Mode.ANNOUNCE
        every = next((count for share, count in REFRESH if self.settings.loss <= share), 1)
        if self._context is None or self.packets % every == 0 or self._level != self._context.level:
            return Mode.KEY
        return Mode.CHAIN if code == self._context.code else Mode.CHANGE

    def _copies(self) -> tuple[Frame, ...]:
        """Copies for the next packet: of two frames in every other packet of one frame, else of as many as it has."""
        if not self._copying:
            self._old.clear()
            self._uncopied = []
            return ()
        single = self.settings.frames == 1
        if single and self.packets % 2:
            return ()
        self._prepare_copies()
        newest = len(self._old) - reach_frames(self._reach_ms)
        if newest < 0:
            return ()
        count = max(2, self.settings.frames)
        old = list(self._old)[max(0, newest - count + 1) : newest + 1]
        old = [frame for frame in old if frame.level == old[-1].level]  # a payload names one
        return tuple(old) if any(frame.symbols is not None for frame in old) else ()
