"""Tokens: the symbols of a file as arrays, with all that the sound comes back by.

    wave --encoder, static tables--> packets -- tokens_in --> Tokens -- TokenDecoder --> wave
    file ---------------------------------------^

Tokens are what a file holds, whichever prior wrote it; so they are read from packets in any case, which the static
tables write and read in a tenth of the time that the networks take.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nacre.codec.frames import LOST, SILENT, Frames
from nacre.codec.packets import CONTEXT, PRIORS, STATIC, Group, PacketCoder
from nacre.codec.packets import LOST as NOT_THERE
from nacre.codec.settings import Settings
from nacre.codec.stream import StreamDecoder, StreamEncoder, balance_of
from nacre.core.errors import StreamError, UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div, resampled_count
from nacre.dsp.stereo import SEPARATE
from nacre.dsp.wave import as_sound, check_samples, check_shape, mixed
from nacre.entropy.static_prior import TOTAL
from nacre.format.file import Contents, Coupling, Header, Packet, Writer
from nacre.io.arrays import Members
from nacre.model.model import Model

NO_TOKEN = -1  # in columns that a group's level does not use
WRITTEN = b"\0"  # payload of packets that stand for symbols at hand


@dataclass(frozen=True)
class TokenFormat:
    """Tokens a second, size of each column's alphabet [K], bits a second of fixed-length codes and of the tables."""

    frame_rate_hz: float
    alphabet: Array
    fixed_bits_per_s: float
    coded_bits_per_s: float


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Tokens(Frames):
    """Tokens [T, K] int32 from 0, of several channels [C, T, K]; `np.asarray` gives them.

    Columns that a group's level does not use are -1; groups that are silent or lost hold the tokens of zeros.
    `balance` [G] uint8 is of two channels: where it is not 0 the first stands for both, see `dsp.stereo`. `fine`
    [T, hop] or [C, T, hop] int16 are the symbols of the residual layer, where a group's level has one.
    """

    tokens: Array
    balance: Array | None = None
    fine: Array | None = None

    VALUES: ClassVar[str] = "tokens"
    MEMBERS: ClassVar[Members] = {
        **Frames.MEMBERS,
        "tokens": ("<i4", 3),
        "balance": ("|u1", 1),
        "fine": ("<i2", 3),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance is not None and (self.channels != 2 or self.balance.shape != self.gains.shape[1:]):
            form = f"two channels and one number a group, shape {self.gains.shape[-1:]}"
            raise UsageError(f"balance needs {form}, not {self.balance.shape} for {self.channels} channels")
        if self.fine is not None and self.fine.shape[:-1] != self.tokens.shape[:-1]:
            raise UsageError(f"fine must have one row a frame, {self.tokens.shape[:-1]}, not {self.fine.shape}")

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays; see `Frames.arrays`. What is None is empty."""
        nothing = np.zeros((*self.shape[:-1], 0))
        fine = nothing if self.fine is None else self.fine
        return super().arrays() | {
            "tokens": self.tokens.reshape(self.channels, *self.shape[-2:]).astype(np.int32),
            "balance": np.zeros(0, np.uint8) if self.balance is None else self.balance.astype(np.uint8),
            "fine": fine.reshape(self.channels, self.length, -1).astype(np.int16),
        }

    @classmethod
    def _more(cls, arrays: dict[str, Array]) -> dict[str, Any]:
        fine, balance = arrays["fine"], arrays["balance"]
        if len(fine) == 1:
            fine = fine[0]
        return {"fine": fine if fine.shape[-1] else None, "balance": balance if len(balance) else None}


def tokens_of(model: Model, wave: Array, rate_hz: float, level: int | None = None, mono: bool | None = None) -> Tokens:
    """Tokens of wave [N] or [C, N]; see `Codec.tokens`."""
    sound = as_sound(wave)
    check_shape(rate_hz, len(sound))
    check_samples(sound)
    sound = mixed(sound, mono)
    stream = StreamEncoder(model, rate_hz, len(sound), Settings(prior=STATIC, level=model.level(level)))
    packets: list[Packet | None] = [*stream.push(sound), *stream.flush()]
    return tokens_in(model, Contents(stream.header, sound.shape[1], packets, 0, False, 0, 0, 0))


def tokens_in(model: Model, contents: Contents) -> Tokens:
    """Tokens of the packets of a file. Raises StreamError where there are none."""
    stream, channels = StreamDecoder(model, contents), contents.header.channels
    count = ceil_div(len(contents.packets), channels)
    if not count:
        raise StreamError("the file holds no groups of sound")
    sizes = [stream.group_frames(group) for group in range(count)]
    table = _Table(model, channels, sizes)
    balance, balances = SEPARATE, np.zeros(count, np.uint8)
    for group, packets, held in stream.groups():
        balance = balances[group] = balance_of(contents.header, packets, balance)
        for channel in range(channels):
            table.put(group, channel, held[0] if balance else held[channel])
            if packets[channel] is None:
                table.gains[channel, group] = LOST
    c, rate_hz = model.config, contents.header.rate_hz
    parts = {"tokens": table.columns(), "gains": table.gains, "levels": table.levels}
    frames = ceil_div(resampled_count(stream.samples, rate_hz, c.rate_hz), c.hop_samples)
    return Tokens(
        **(parts if channels > 1 else {name: part[0] for name, part in parts.items()}),
        fine=table.fine[0] if table.fine is not None and channels == 1 else table.fine,
        balance=balances if contents.header.coupling == Coupling.INTENSITY else None,
        rate_hz=rate_hz,
        samples=stream.samples,
        frames=frames,
        group_frames=c.group_frames,
        fingerprint=model.bundle.static_fingerprint.hex(),
    )


class _Table:
    """Groups as they are read, put into arrays of all channels."""

    def __init__(self, model: Model, channels: int, sizes: list[int]):
        self.model, self.starts = model, np.concatenate([[0], np.cumsum(sizes)])
        self.tokens = np.full((channels, self.starts[-1], model.quantiser.columns), NO_TOKEN, np.int32)
        self.gains = np.full((channels, len(sizes)), SILENT, np.int8)
        self.levels = np.zeros((channels, len(sizes)), np.uint8)
        self.fine: Array | None = None

    def put(self, group: int, channel: int, held: Group | StreamError) -> None:
        """One channel of a group. Raises StreamError for symbols that the tables have no code for."""
        rows, quantiser = slice(*self.starts[group : group + 2]), self.model.quantiser
        symbols = None if isinstance(held, StreamError) else held.symbols
        level = 0 if isinstance(held, StreamError) else held.level
        used = quantiser.used(level)
        lowest, highest = (edge[:used] for edge in self.model.static_prior.ranges(level))
        wanted: Array = np.zeros((1, used), np.int32) if symbols is None else symbols[:, :used]
        if ((wanted < lowest) | (wanted > highest)).any():
            raise StreamError(f"group {group} holds symbols beyond the model's tables, which have no token")
        self.tokens[channel, rows, :used] = wanted - lowest
        self.levels[channel, group] = level
        if isinstance(held, StreamError):
            self.gains[channel, group] = LOST
        elif held.symbols is not None:
            self.gains[channel, group] = held.code
            if held.residual is not None:
                self._put_fine(channel, rows, held.residual)

    def _put_fine(self, channel: int, rows: slice, fine: Array) -> None:
        hop = self.model.config.hop_samples
        if self.fine is None:
            self.fine = np.zeros((*self.tokens.shape[:2], hop), np.int16)
        self.fine[channel, rows] = fine.reshape(-1, hop)

    def columns(self) -> Array:
        """Tokens [C, T, K] without columns that no group uses."""
        used = max(self.model.quantiser.used(level) for level in np.unique(self.levels).tolist())
        return self.tokens[..., :used]


class TokenDecoder(StreamDecoder):
    """As a decoder of the file that holds these tokens. Raises UsageError for tokens that are none of the model's."""

    def __init__(self, model: Model, tokens: Tokens, rate_hz: int | None = None):
        tokens.check_model(model)
        self.tokens = tokens
        super().__init__(model, _contents(model, tokens), rate_hz)
        if self.frames != tokens.length:
            sound = f"{tokens.samples} samples at {tokens.rate_hz} Hz"
            raise UsageError(f"tokens of {sound} must have {self.frames} frames, not {tokens.length}")
        for group, channel in np.ndindex(ceil_div(tokens.length, tokens.group_frames), tokens.channels):
            self._held(group, channel)

    def groups(self) -> Iterator[tuple[int, list[Packet | None], list[Group | StreamError]]]:
        """(group, packets, what they hold); the packets say no more than what they stand for."""
        channels = self.tokens.channels
        for group in range(len(self.contents.packets) // channels):
            packets = self.contents.packets[group * channels : (group + 1) * channels]
            yield group, packets, [self._held(group, channel) for channel in range(channels)]

    def _held(self, group: int, channel: int) -> Group | StreamError:
        gain, level = (int(np.atleast_2d(row)[channel, group]) for row in (self.tokens.gains, self.tokens.levels))
        if gain == LOST:
            return StreamError(NOT_THERE)
        frames = self.group_frames(group)
        rows = slice(group * self.tokens.group_frames, group * self.tokens.group_frames + frames)
        if gain == SILENT:
            return Group(level, frames, None)
        tokens = self.tokens.tokens.reshape(self.tokens.channels, self.tokens.length, -1)[channel, rows]
        symbols = symbols_of(self.model, tokens, level, rows.start)
        return Group(level, frames, symbols, gain, self._fine(channel, rows, level))

    def _fine(self, channel: int, rows: slice, level: int) -> Array | None:
        layer = self.model.residual
        if layer is None or not layer.covers(level):
            return None
        hop, fine = self.model.config.hop_samples, self.tokens.fine
        if fine is None or fine.shape[-1] != hop:
            given = "none" if fine is None else f"{fine.shape[-1]} of them"
            raise UsageError(f"level {level} needs {hop} fine symbols a frame, not {given}")
        return fine.reshape(self.tokens.channels, -1, hop)[channel, rows].reshape(-1, layer.size).astype(np.int32)


def file_of(model: Model, tokens: Tokens, prior: str = CONTEXT) -> bytes:
    """The file that holds these tokens, written by one of PRIORS. Raises UsageError where groups are lost."""
    if tokens.lost:
        raise UsageError(f"tokens with lost groups ({tokens.lost}) make no file; take them from an undamaged one")
    if prior not in PRIORS:
        raise UsageError(f"prior must be {' or '.join(PRIORS)}, not {prior}")
    stream, coder, file = TokenDecoder(model, tokens), PacketCoder.of(model, prior), io.BytesIO()
    fingerprint = model.bundle.fingerprint if prior == CONTEXT else model.bundle.static_fingerprint
    writer = Writer(file, replace(stream.header, fingerprint=fingerprint))
    for _, packets, groups in stream.groups():
        for packet, held in zip(packets, groups, strict=True):
            assert packet is not None
            if packet.payload:
                assert isinstance(held, Group)
                assert held.symbols is not None
                packet = coder.pack(held.symbols, held.level, held.code, held.residual)
            writer.add(packet)
    writer.finish(tokens.samples)
    return file.getvalue()


def _contents(model: Model, tokens: Tokens) -> Contents:
    """Packets of what the tokens are, whose payloads say only that there is one."""
    gains, levels = np.atleast_2d(tokens.gains), np.atleast_2d(tokens.levels)
    balance = np.zeros(gains.shape[1], np.uint8) if tokens.balance is None else tokens.balance
    packets: list[Packet | None] = []
    for group, channel in np.ndindex(gains.shape[::-1]):
        silent, second = gains[channel, group] == SILENT, channel and tokens.balance is not None
        level = int(balance[group] if second and (silent or balance[group]) else levels[channel, group])
        packets.append(Packet(level, b"" if silent or (second and balance[group]) else WRITTEN))
    coupling = Coupling.SEPARATE if tokens.balance is None else Coupling.INTENSITY
    fingerprint, size = bytes.fromhex(tokens.fingerprint), tokens.group_frames
    header = Header(fingerprint, tokens.rate_hz, tokens.channels, tokens.samples, size, model.bundle.kind, coupling)
    return Contents(header, tokens.samples, packets, 0, False, 0, 0, 0)


def symbols_of(model: Model, tokens: Array, level: int, first_frame: int = 0) -> Array:
    """Tokens [T, K] of one level -> symbols [T, K] of all columns. Raises UsageError, naming the frame."""
    lowest, highest = model.static_prior.ranges(level)
    used = model.quantiser.used(level)
    if tokens.shape[1] < used or tokens.dtype.kind not in "iu":
        form = f"integers [T, {used}] at level {level}"
        raise UsageError(f"tokens must be {form}, not {tokens.dtype} of shape {tokens.shape}")
    given, alphabet = tokens[:, :used], (highest - lowest + 1)[:used]
    if (given < 0).any() or (given >= alphabet).any():
        frame, column = np.argwhere((given < 0) | (given >= alphabet))[0].tolist()
        place, span = f"frame {first_frame + frame}, column {column}", f"0 to {alphabet[column] - 1}"
        raise UsageError(f"the token of {place} must be {span}, not {given[frame, column]}")
    symbols = np.zeros((len(given), model.quantiser.columns), np.int32)
    symbols[:, :used] = given + lowest[:used]
    return symbols


def token_format(model: Model, level: int | None = None) -> TokenFormat:
    """What tokens of a quality level look like, by default of the highest that has no residual layer."""
    chosen = model.level(level)
    lowest, highest = model.static_prior.ranges(chosen)
    tables = model.static_prior.tables(chosen) / TOTAL  # [K, A]
    entropy_bits = float(-(tables * np.log2(np.where(tables > 0, tables, 1))).sum())
    alphabet = (highest - lowest + 1)[: model.quantiser.used(chosen)]
    rate_hz = float(model.config.frame_rate_hz)
    return TokenFormat(rate_hz, alphabet, rate_hz * float(np.log2(alphabet).sum()), rate_hz * entropy_bits)
