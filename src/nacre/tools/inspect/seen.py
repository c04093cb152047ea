"""A `.nacre` file opened: for each packet its bits, latents, level and gain, and what is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nacre.codec import packets
from nacre.codec.codec import Codec
from nacre.codec.stream import StreamDecoder
from nacre.core.errors import StreamError, UsageError
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.dsp.gain import GAIN_STEP_DB, GAIN_ZERO
from nacre.format.file import Contents, Packet, pack_packet
from nacre.io import audio
from nacre.io.stdio import printable

MOST_COLUMNS = 1600  # of a heat map or line; frames beyond are averaged


@dataclass(frozen=True)
class Group:
    """One packet, opened: T frames, K symbols a frame, D latents. `level` is None where it is silent or lost."""

    level: int | None
    gain_db: float
    size_bytes: int
    bits: Array  # [T, K] float32
    residual_bits: Array  # [T] float32, of the residual layer
    band_bits: Array  # [T] float32, of the band layer
    latents: Array  # [T, D] float32


@dataclass(frozen=True)
class Seen:
    """One channel of a file, opened."""

    name: str
    metadata: dict[str, str]
    rate_hz: int
    original: Array | None  # [N], where the input was sound
    decoded: Array  # [N]
    groups: list[Group]
    lost: list[tuple[float, float]]  # seconds
    damaged: bool  # this channel or another, or the end
    levels: int  # that the model has
    frame_s: float
    group_s: float

    @property
    def duration_s(self) -> float:
        """Length of the sound."""
        return len(self.decoded) / self.rate_hz

    @property
    def bits(self) -> Array:
        """[T, K] float32; 0 where silent or lost."""
        return np.concatenate([group.bits for group in self.groups])

    @property
    def layer_bits(self) -> Array:
        """[T] float32 of residual layer and band layer; 0 where there is none, and where silent or lost."""
        return np.concatenate([group.residual_bits + group.band_bits for group in self.groups])

    @property
    def latents(self) -> Array:
        """[T, D] float32; 0 where silent or lost."""
        return np.concatenate([group.latents for group in self.groups])


def look_at_sound(codec: Codec, path: str | Path, channel: int = 0, **rate: Any) -> Seen:
    """Encode a sound file and look inside; `rate` is bitrate_kbps or quality, as for `codec.encode`."""
    wave, rate_hz = audio.read(path)
    _check_channel(channel, len(wave))
    contents = codec.parse(codec.encode(wave, rate_hz, **rate))
    return look(codec, contents, Path(path).name, channel, wave[channel])


def look(codec: Codec, contents: Contents, name: str, channel: int = 0, original: Array | None = None) -> Seen:
    """One channel of a parsed file; damaged groups stay empty. Raises UsageError for a channel that does not exist."""
    channels, config = contents.header.channels, codec.config
    _check_channel(channel, channels)
    stream = codec.decoder(contents)
    decoded = np.concatenate([np.zeros((channels, 0), np.float32), *stream.blocks()], 1)[channel]
    packets = contents.packets[channel::channels]
    if not packets:
        raise StreamError(f"{name} holds no group of sound to draw; see `nacre verify`")
    group_s = config.group_samples / config.rate_hz
    lost = [(item.start_s, item.stop_s) for item in stream.damage if item.channel == channel]
    if contents.truncated and contents.samples:  # the sound goes on where the file ends
        lost.append((len(packets) * group_s, contents.samples / contents.header.rate_hz))
    frames = [stream.group_frames(index) for index in range(len(packets))]
    read = stream.coder.unpack(packets, frames)
    groups = [_open(stream, *each) for each in zip(packets, frames, read, strict=True)]
    damaged = bool(stream.damage) or contents.truncated
    metadata = _metadata(codec, contents, decoded.shape[-1] / stream.rate_hz, groups, damaged)
    frame_s = config.hop_samples / config.rate_hz
    size = (config.levels, frame_s, group_s)
    return Seen(printable(name), metadata, stream.rate_hz, original, decoded, groups, lost, damaged, *size)


def _check_channel(channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise UsageError(f"channel {channel} does not exist; the sound has channels 0 to {channels - 1}")


def _open(stream: StreamDecoder, packet: Packet | None, frames: int, held: packets.Group | StreamError) -> Group:
    model, size_bytes = stream.model, len(pack_packet(packet)) if packet else 0
    if isinstance(held, StreamError) or held.symbols is None:
        bits, latents = (np.zeros((frames, n), np.float32) for n in (model.quantiser.columns, model.config.latent_dims))
        return Group(None, np.nan, size_bytes, bits, bits[:, 0], bits[:, 0], latents)
    bits = stream.coder.costs(held.symbols, held.level)
    residual = stream.coder.residual_costs(held.residual, frames)
    band = stream.coder.band_costs(held.band, frames)
    latents = model.quantiser.latents(held.symbols, held.level)
    return Group(held.level, (held.code - GAIN_ZERO) * GAIN_STEP_DB, size_bytes, bits, residual, band, latents)


def _metadata(
    codec: Codec, contents: Contents, duration_s: float, groups: list[Group], damaged: bool
) -> dict[str, str]:
    header, levels = contents.header, [group.level for group in groups if group.level is not None]
    residual = sum(float(group.residual_bits.sum()) for group in groups) / 8
    band = sum(float(group.band_bits.sum()) for group in groups) / 8
    paid = sum(float(group.bits.sum()) for group in groups) / 8 + residual + band
    silent = sum(group.level is None and group.size_bytes > 0 for group in groups)
    state = "cut short" if contents.truncated else "damaged" if damaged else "whole"
    return {
        "model": f"{codec.bundle.name} ({header.fingerprint.hex()})",
        "sound": f"{duration_s:.2f} s, {header.rate_hz} Hz, {header.channels} channel(s)",
        "file": f"{contents.size_bytes} bytes, {kbps(contents.size_bytes, duration_s):.2f} kb/s, {state}",
        "this channel": f"{kbps(paid, duration_s):.2f} kb/s by the prior, "
        f"{kbps(sum(group.size_bytes for group in groups), duration_s):.2f} kb/s in packets",
        **({"residual layer": f"{kbps(residual, duration_s):.2f} kb/s of these"} if residual else {}),
        **({"band layer": f"{kbps(band, duration_s):.2f} kb/s of these"} if header.band else {}),
        "groups": f"{len(groups)}, levels {min(levels)} to {max(levels)}" if levels else f"{len(groups)}, silent",
        "silent or joint-stereo groups": f"{silent}" if silent else "none",
    }


def order_of(seen: Seen) -> Array:
    """Dimensions by what they cost, dearest first."""
    return np.argsort(-seen.bits.mean(0), kind="stable")


def averaged(frames: Array, frame_s: float, most: int = MOST_COLUMNS) -> tuple[Array, Array]:
    """Frames [T, F] as at most `most` means [M, F], and the edges of their times in seconds [M + 1]."""
    columns = min(most, len(frames))
    edges = np.arange(columns + 1) * len(frames) // columns
    sums = np.add.reduceat(frames.astype(np.float64), edges[:-1], axis=0)
    return sums / np.diff(edges)[:, None], edges * frame_s
