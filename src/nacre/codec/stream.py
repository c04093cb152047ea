"""Sound of several channels at any rate to the packets of a file and back, a group at a time, in pieces of any size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from nacre.codec.band import BANDS, KBPS, BandDecoder, BandEncoder, fits_core, is_audible
from nacre.codec.decoder import decode_frames
from nacre.codec.denoiser import StreamDenoiser
from nacre.codec.encoder import encode_frames, follow_frames
from nacre.codec.file_decoder import Damage, FileDecoder, packet_count
from nacre.codec.fixed_size import encode_sized
from nacre.codec.packets import CONTEXT, LOST, SIDE_BY_SIDE, STATIC, Group, PacketCoder
from nacre.codec.settings import Settings
from nacre.codec.state import Options, start_decoder, start_encoder
from nacre.core.errors import AudioError, StreamError
from nacre.core.types import Array
from nacre.dsp.band import EDGES
from nacre.dsp.gain import active_level_db, is_silent
from nacre.dsp.offset import OffsetState, without_offset
from nacre.dsp.stereo import AUTO, SEPARATE, IntensityStereo, downmix, factor_of
from nacre.dsp.tonality import is_tonal
from nacre.dsp.wave import as_sound, check_samples, check_shape
from nacre.format import file as container
from nacre.format.file import Band, Contents, Coupling, Header, Packet
from nacre.io.audio import Resampler
from nacre.model.model import Model

INTENSITY_REACH = 3  # more levels to choose from, since a group written once has twice the bits


class StreamEncoder:
    """Samples in, packets out, in pieces of any size; the packets do not depend on the pieces.

    Raises AudioError, UsageError.
    """

    def __init__(self, model: Model, rate_hz: float, channels: int, settings: Settings):
        rate_hz = check_shape(rate_hz, channels)
        settings.check(model)
        plan = settings.plan(model, channels)
        settings.check_size()
        intensity = channels == 2 and settings.stereo == AUTO and settings.packet_bytes is None
        if intensity:
            plan.reach += INTENSITY_REACH
        band = settings.band(model, rate_hz, channels)
        self.model, self.plan = model, plan
        self.header = _header(model, rate_hz, channels, settings.prior, intensity, band)
        self.samples, self._settings = 0, settings
        self._options = Options(settings.prior, bands=BANDS[band])
        self._band = BandEncoder(rate_hz, channels, EDGES[: BANDS[band] + 1]) if band else None
        self._powers: list[Array | None] = [None] * channels  # of the group at work, above the core
        plan.expect(KBPS[band] * channels)
        in_latents = settings.denoises_latents(model)
        residual = not in_latents if settings.packet_bytes else plan.highest >= model.plain_levels or plan.lifts_tones
        start = start_encoder(model, denoise=in_latents, residual=residual)
        self.states, self._levels = channels * [start], channels * [plan.level]
        self._offsets = channels * [OffsetState()]
        self._resampler = Resampler(rate_hz, model.config.rate_hz, channels)
        block, before = model.config.group_samples, settings.denoise and not in_latents
        self._denoiser = StreamDenoiser(model, channels, block_samples=block) if before else None
        self._intensity = IntensityStereo() if intensity else None
        self._waiting = np.zeros((channels, 0), np.float32)

    def push(self, wave: Array) -> list[Packet]:
        """wave [C, N] (or [N]) float32 at the stream's rate -> packets of the groups it completes."""
        wave = as_sound(wave)
        if len(wave) != self.header.channels:
            raise AudioError(f"wave has {len(wave)} channels, but the stream has {self.header.channels}")
        packets = []
        block = self.model.config.group_samples
        for at in range(0, wave.shape[1], block):
            piece = wave[:, at : at + block]
            self.samples += piece.shape[1]
            if self._band:
                self._band.push(piece)
            ready = self._resampler.push(piece)
            if self._denoiser:
                ready = self._denoiser.push(ready)
            self._waiting = np.concatenate([self._waiting, ready], 1)
            packets += self._groups()
        return packets

    def flush(self) -> list[Packet]:
        """The packets of what is left; the stream is at its end."""
        rest = [self._resampler.flush()]
        if self._band:
            self._band.flush()
        if self._denoiser:
            rest = [self._denoiser.push(rest[0]), self._denoiser.flush()]
        self._waiting = np.concatenate([self._waiting, *rest], 1)
        packets = self._groups()
        if self.samples:
            delay, hop = self.model.config.delay_samples, self.model.config.hop_samples
            missing = delay + -(self._waiting.shape[1] + delay) % hop
            ends = [s.offset if s.hops else w.mean() for s, w in zip(self._offsets, self._waiting, strict=True)]
            tail = np.repeat(np.array(ends, np.float32)[:, None], missing, 1)  # silence, once the offset is out
            self._waiting = np.concatenate([self._waiting, tail], 1)
            packets += self._groups()
            if self._waiting.shape[1]:
                packets += self._code(self._waiting)
        return packets

    def _groups(self) -> list[Packet]:
        size, frames = self.model.config.group_samples, self.model.config.group_frames
        packets = []
        while self._waiting.shape[1] >= size and (self._band is None or self._band.ready(frames)):
            packets += self._code(self._waiting[:, :size])
            self._waiting = self._waiting[:, size:]
        return packets

    def _code(self, waves: Array) -> list[Packet]:
        hop, coded = self.model.config.hop_samples, []
        for channel, wave in enumerate(waves):
            ready, self._offsets[channel] = without_offset(self._offsets[channel], wave, hop)
            coded.append(ready)
        waves = np.stack(coded)
        if self._band:
            self._powers = list(self._band.take(waves.shape[1] // hop))
        level, balance = self._level(waves), self._balance(waves)
        if balance == SEPARATE:
            packets = [self.channel_packet(index, wave, level) for index, wave in enumerate(waves)]
        else:
            packets = self._once(waves, level, balance)
        size = sum(len(container.pack_packet(packet)) for packet in packets)
        self.plan.record(size, waves.shape[1] / self.model.config.rate_hz)
        return packets

    def _level(self, waves: Array) -> int:
        """Quality level of a group waves [C, N]."""
        config = self.model.config
        loudness_db = max(active_level_db(wave, config.hop_samples) for wave in waves)
        tonal = self.plan.lifts_tones and any(is_tonal(wave, config.rate_hz) for wave in waves)
        return self.plan.choose(loudness_db, tonal)

    def channel_packet(self, channel: int, wave: Array, level: int) -> Packet:
        """The packet of one channel of a group wave [N] at the model's rate."""
        state, size_bytes = self.states[channel], self._settings.packet_bytes
        if size_bytes is not None:
            sized = encode_sized(self.model, state, wave, self._levels[channel], size_bytes, self._options)
            packet, self.states[channel] = sized
            self._levels[channel] = packet.level
            return packet
        mute = SEPARATE if self._intensity and channel else None  # silent, not a copy
        powers = self._powers[channel]
        options = replace(self._options, silent_level=mute, code_silence=powers is not None and is_audible(powers))
        packet, self.states[channel] = encode_frames(self.model, state, wave, level, options, powers)
        return packet

    def _balance(self, waves: Array) -> int:
        """Of a group waves [C, N]: SEPARATE, or the balance at which one packet does for both channels."""
        if self._intensity is None:
            return SEPARATE
        balance = self._intensity.balance(waves)
        return SEPARATE if any(is_silent(wave, self.model.config.hop_samples) for wave in waves) else balance

    def _once(self, waves: Array, level: int, balance: int) -> list[Packet]:
        """Packets of a group waves [2, N] that are alike."""
        first, second = self.states
        second = replace(second, code=first.code)  # from which the decoder sets out
        factor, (one, two) = factor_of(balance), self._powers
        powers = None if one is None or two is None else (one + two) / (1 + factor**2)
        packet, first = encode_frames(self.model, first, downmix(waves, balance), level, self._options, powers)
        second = follow_frames(self.model, second, waves[1], level, first, factor)  # for when the two part
        self.states = [first, second]
        return [packet, Packet(balance, b"")]


class Packets(Protocol):
    """An encoder of a stream: samples in, packets out."""

    header: Header

    def push(self, wave: Array) -> list[Packet]:
        """wave [C, N] -> packets of the groups it completes."""

    def flush(self) -> list[Packet]:
        """The packets of what is left."""


def file_of(stream: Packets, wave: Array) -> bytes:
    """A whole file of wave [C, N] by an encoder that has had nothing yet. Raises AudioError."""
    check_samples(wave)
    file = io.BytesIO()
    writer = container.Writer(file, stream.header)
    for packet in [*stream.push(wave), *stream.flush()]:
        writer.add(packet)
    writer.finish(wave.shape[1])
    return file.getvalue()


def _header(model: Model, rate_hz: int, channels: int, prior: str, intensity: bool, band: Band) -> Header:
    fingerprint = model.bundle.fingerprint if prior == CONTEXT else model.bundle.static_fingerprint
    coupling = Coupling.INTENSITY if intensity else Coupling.SEPARATE
    return Header(fingerprint, rate_hz, channels, None, model.config.group_frames, model.bundle.kind, coupling, band)


class StreamDecoder(FileDecoder):
    """The packets of a file to blocks of samples at its own rate; `damage` fills up on the way."""

    def __init__(self, model: Model, contents: Contents, rate_hz: int | None = None):
        super().__init__(model.config.layout, contents, rate_hz)
        self.model = model
        self.coder = PacketCoder.of(model, prior_of(model, contents.header), BANDS[self.header.band])
        self.states = contents.header.channels * [start_decoder(model)]
        self._balance = SEPARATE
        channels, band = self.header.channels, self.header.band
        self._band = BandDecoder(self.rate_hz, channels, band) if band and self.rate_hz > model.config.rate_hz else None
        self._resampler = self._band or Resampler(model.config.rate_hz, self.rate_hz, channels)

    def groups(self) -> Iterator[tuple[int, list[Packet | None], list[Group | StreamError]]]:
        """(group, packets, what they hold) group after group; many are read side by side."""
        channels, most = self.header.channels, max(1, SIDE_BY_SIDE // self.header.channels)
        for first in range(0, self._groups(), most):
            packets = self.contents.packets[first * channels : (first + most) * channels]
            packets = packets + [None] * (-len(packets) % channels)
            places = [first + index // channels for index in range(len(packets))]
            held = self.coder.unpack(packets, [self.group_frames(group) for group in places])
            for at in range(0, len(packets), channels):
                yield places[at], packets[at : at + channels], held[at : at + channels]

    def waves(self) -> Iterator[Array]:
        """Groups of samples [C, N] at the model's rate, lagging by the codec's delay."""
        for group, packets, decoded in self.groups():
            self._balance = balance_of(self.header, packets, self._balance)
            if self._balance == SEPARATE:
                waves = [self._wave(index, group, held) for index, held in enumerate(decoded)]
            else:
                waves = self._both(group, packets, decoded[0])
            yield np.stack(waves)

    def _both(self, group: int, packets: list[Packet | None], held: Group | StreamError) -> list[Array]:
        """Two waves [N] from the first packet; where that is lost each channel is concealed by its own past."""
        code = self.states[0].code  # from which the encoder set out
        first = self._wave(0, group, held)
        if packets[1] is None:
            self.note_damage(1, group, LOST)
        if isinstance(held, StreamError):  # noted with the first channel
            return [first, self._decoded(1, group, None)]
        self.states[1] = replace(self.states[1], code=code)
        return [first, self._decoded(1, group, held, factor_of(self._balance))]

    def _wave(self, channel: int, group: int, held: Group | StreamError) -> Array:
        if isinstance(held, Group):
            return self._decoded(channel, group, held)
        self.note_damage(channel, group, str(held))
        return self._decoded(channel, group, None)

    def _decoded(self, channel: int, group: int, held: Group | None, factor: float = 1.0) -> Array:
        state, frames = self.states[channel], self.group_frames(group)
        if self._band:
            self._band.add(channel, held, frames, factor, own_noise=self._balance == SEPARATE)
        wave, self.states[channel] = decode_frames(self.model, state, held, frames, factor=factor)
        return wave


def balance_of(header: Header, packets: list[Packet | None], before: int) -> int:
    """Whether and how the first packet of a group stands for the second channel too; `before`: in the last group."""
    if header.coupling != Coupling.INTENSITY:
        return SEPARATE
    second = packets[1]
    if second is None:  # lost, and more likely than not what the one before was
        return before
    return SEPARATE if second.payload else second.level


def prior_of(model: Model, header: Header) -> str:
    """Which prior wrote a file of this model."""
    written = model.bundle.reads.get(CONTEXT, []) if model.context_prior else []
    return CONTEXT if header.fingerprint.hex() in written else STATIC


def parse(model: Model, data: bytes) -> Contents:
    """Packets of a file, checked to be for this model. Raises StreamError."""
    contents = container.unpack(data, partial(packet_count, model.config.layout))
    check_model(model, contents.header)
    missing = contents.missing
    if 0 < missing <= contents.header.channels and contents.skipped_bytes:  # the last group is there, in ruins
        contents = replace(contents, packets=[*contents.packets, *missing * [None]], missing=0, truncated=False)
    return contents


def check_model(model: Model, header: Header) -> None:
    """Raise StreamError unless the file was written for this very model."""
    bundle = model.bundle
    if header.fingerprint not in bundle.fingerprints or header.kind != bundle.kind:
        models = f"{header.fingerprint.hex()}, not for {bundle.fingerprint.hex()} ({bundle.name})"
        raise StreamError(f"the file is for model {models}; decode with the model that wrote it, --model FOLDER")
    if header.band and not fits_core(model):
        raise StreamError(f"the file has a band layer, for which model {model.name} lacks frames of 20 ms at 16 kHz")
    if header.group_frames != model.config.group_frames:
        own = f"model {model.name} has {model.config.group_frames}"
        raise StreamError(f"the file has groups of {header.group_frames} frames, but {own}")


def verify(model: Model, contents: Contents) -> list[Damage]:
    """The damaged groups of a file, found from the symbols alone, without rendering sound."""
    stream = StreamDecoder(model, contents)
    channels, intensity = contents.header.channels, contents.header.coupling == Coupling.INTENSITY
    for group, packets, decoded in stream.groups():
        written = len(contents.packets) - group * channels  # a cut file may end inside a group
        for channel, (packet, held) in enumerate(zip(packets[:written], decoded[:written], strict=True)):
            copy = intensity and channel and packet is not None and not packet.payload
            if isinstance(held, StreamError) and not copy:
                stream.note_damage(channel, group, str(held))
    return stream.damage
