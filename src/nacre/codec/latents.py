"""Latents as arrays, and sound made of them: what other programs take from a model and give to it.

wave -- gain --> encoder --> Latents -- decoder --> 1 / gain --> wave
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from nacre.codec.decoder import latents_of as latents_in_silence
from nacre.codec.decoder import latents_to_sound, render
from nacre.codec.encoder import analyse_audible, analyse_frames
from nacre.codec.frames import SILENT, Frames
from nacre.codec.settings import Settings
from nacre.codec.state import DecoderState, start_decoder, start_sound
from nacre.codec.stream import StreamDecoder, StreamEncoder
from nacre.codec.tokens import Tokens, symbols_of, token_format
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div, resampled_count
from nacre.dsp.stereo import LEFT_RIGHT
from nacre.dsp.wave import as_sound, check_samples, check_shape, mixed, pieces_of
from nacre.format.file import Contents, Header, Packet
from nacre.io.arrays import Members
from nacre.model.model import Model


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Latents(Frames):
    """Latents [T, D] float32, of several channels [C, T, D], as the decoder takes them; `np.asarray` gives them."""

    latents: Array

    VALUES: ClassVar[str] = "latents"
    MEMBERS: ClassVar[Members] = {**Frames.MEMBERS, "latents": ("<f4", 3)}


def latents_of(
    model: Model,
    wave: Array,
    rate_hz: float,
    level: int | None = None,
    code: int | None = None,
    mono: bool | None = None,
) -> Latents:
    """Latents of wave [N] or [C, N], before rounding; see `Codec.latents`."""
    c, sound = model.config, as_sound(wave)
    check_shape(rate_hz, len(sound))
    check_samples(sound)
    sound = mixed(sound, mono)
    stream = _LatentEncoder(model, rate_hz, sound, model.level(level), code)
    latents, gains = np.stack([np.concatenate(rows) for rows in stream.rows]), np.array(stream.gains, np.int8)
    if len(latents) == 1:
        latents, gains = latents[0], gains[0]
    rate = stream.header.rate_hz
    return Latents(
        latents=latents,
        gains=gains,
        levels=np.full_like(gains, stream.plan.level, np.uint8),
        rate_hz=rate,
        samples=sound.shape[1],
        frames=ceil_div(resampled_count(sound.shape[1], rate, c.rate_hz), c.hop_samples),
        group_frames=c.group_frames,
        fingerprint=model.bundle.static_fingerprint.hex(),
    )


def latents_in(model: Model, tokens: Tokens) -> Latents:
    """Latents of tokens, rounded; see `Codec.latents_of`."""
    tokens.check_model(model)
    if tokens.fine is not None or (tokens.balance is not None and tokens.balance.any()):
        raise UsageError("these tokens have a residual layer or joined channels, which latents cannot hold; use tokens")
    sounding, levels = tokens.frame_gains >= 0, np.repeat(tokens.levels, tokens.group_frames, -1)[..., : tokens.length]
    latents = np.zeros((*tokens.shape[:-1], model.config.latent_dims), np.float32)
    for level in np.unique(levels[sounding]).tolist():
        rows = sounding & (levels == level)
        latents[rows] = model.latents(symbols_of(model, tokens.tokens[rows], level), level)
    shared = {field.name: getattr(tokens, field.name) for field in fields(Frames)}
    return Latents(latents=latents, **shared)


class _LatentEncoder(StreamEncoder):
    """All of a wave [C, N] as it would be given to the quantiser: `rows` of latents and `gains` by channel.

    With a gain `code` given nothing is silent.
    """

    def __init__(self, model: Model, rate_hz: float, wave: Array, level: int, code: int | None):
        super().__init__(model, rate_hz, len(wave), Settings(stereo=LEFT_RIGHT, level=level))
        self.rows: list[list[Array]] = [[] for _ in wave]
        self.gains: list[list[int]] = [[] for _ in wave]
        self._code_given = code
        self.push(wave)
        self.flush()

    def channel_packet(self, channel: int, wave: Array, level: int) -> Packet:
        """Keep the latents of one channel of a group; the packet says nothing."""
        analyse = analyse_audible if self._code_given is None else analyse_frames
        analysed, state = analyse(self.model, self.states[channel], wave, level, self._code_given)
        latents = self.model.quantiser.unrounded(analysed.latents, level)
        self.rows[channel].append(np.zeros_like(latents) if analysed.silent else latents)
        self.gains[channel].append(SILENT if analysed.silent else state.code or 0)
        self.states[channel] = state
        return Packet(level, b"")


class LatentDecoder(StreamDecoder):
    """As a decoder of a file that holds these latents unrounded. Raises UsageError for what is none of the model's."""

    def __init__(self, model: Model, latents: Latents, rate_hz: int | None = None):
        latents.check_model(model)
        self.latents = latents
        channels, size = latents.channels, latents.group_frames
        header = Header(
            bytes.fromhex(latents.fingerprint), latents.rate_hz, channels, latents.samples, size, model.bundle.kind
        )
        packets: list[Packet | None] = [None] * latents.gains.size
        super().__init__(model, Contents(header, latents.samples, packets, 0, False, 0, 0, 0), rate_hz)
        self._values = _checked(model, latents.latents.reshape(-1, latents.shape[-1]))
        if self.frames != latents.length:
            sound = f"{latents.samples} samples at {latents.rate_hz} Hz"
            raise UsageError(f"latents of {sound} must have {self.frames} frames, not {latents.length}")

    def waves(self) -> Iterator[Array]:
        """Groups of samples [C, N] at the model's rate, lagging by the codec's delay."""
        given, channels = self.latents, self.latents.channels
        values = self._values.reshape(channels, given.length, -1)
        gains, levels = given.gains.reshape(channels, -1), given.levels.reshape(channels, -1)
        states = channels * [start_decoder(self.model)]
        for group in range(gains.shape[1]):
            rows = slice(group * given.group_frames, (group + 1) * given.group_frames)
            waves = []
            for channel, latents in enumerate(values[:, rows]):
                gain, level = int(gains[channel, group]), int(levels[channel, group])
                wave, states[channel] = self._rendered(states[channel], latents, gain, level)
                waves.append(wave)
            yield np.stack(waves)

    def _rendered(self, state: DecoderState, latents: Array, gain: int, level: int) -> tuple[Array, DecoderState]:
        if gain >= 0:
            return render(self.model, replace(state, lost_samples=0), latents, level, gain)
        return render(
            self.model, state, latents_in_silence(self.model, state.sound, None, len(latents), level), level, None
        )


def tokens_to_sound(model: Model, tokens: Array, level: int | None = None) -> Array:
    """Sound [N] float32 at the model's rate, N = T * hop, of tokens [T, K] without gains. Raises UsageError."""
    chosen, count = model.level(level), len(token_format(model, level).alphabet)
    given = np.asarray(tokens)
    if given.ndim != 2 or given.shape[1] != count or given.dtype.kind not in "iu" or not len(given):
        form = f"integers [T, {count}] at level {chosen}, T above 0"
        raise UsageError(f"tokens must be {form}, not {given.dtype} of shape {given.shape}")
    return latents_to_wave(model, model.quantiser.latents(symbols_of(model, given, chosen), chosen), chosen)


def latents_to_wave(model: Model, latents: Array, level: int | None = None) -> Array:
    """Sound [N] float32 at the model's rate, N = T * hop, of latents [T, D] without gains; raises UsageError."""
    c, given = model.config, _checked(model, latents)
    chosen, state, waves = model.level(level), start_sound(model), []
    tail = np.zeros((ceil_div(c.delay_samples, c.hop_samples), c.latent_dims), np.float32)
    for group in pieces_of(np.concatenate([given, tail]), c.group_frames):
        made, state = latents_to_sound(model, state, group, chosen)
        waves.append(made.whole)
    return np.concatenate(waves)[c.delay_samples :][: len(given) * c.hop_samples]


def _checked(model: Model, latents: Array) -> Array:
    """latents [T, D] as float32. Raises UsageError."""
    dims, given = model.config.latent_dims, np.asarray(latents)
    if given.ndim != 2 or given.shape[1] != dims or not len(given) or given.dtype.kind not in "fiu":
        form = f"numbers [T, {dims}], T above 0"
        raise UsageError(f"latents must be {form}, not {given.dtype} of shape {given.shape}")
    with np.errstate(over="ignore"):
        given = given.astype(np.float32)
    if not np.isfinite(given).all():
        raise UsageError("latents hold NaN or infinite numbers; make all of them finite")
    return given
