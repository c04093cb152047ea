"""What is made of a recording: a .nacre file, latents, tokens or features, as columns of a row."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nacre import __version__
from nacre.batch.coded import codec_of
from nacre.codec.codec import Codec
from nacre.codec.latents import Latents
from nacre.codec.tokens import NO_TOKEN, Tokens
from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array
from nacre.core.units import clock
from nacre.corpus.columns import Column, Row
from nacre.corpus.opening import Counted
from nacre.format.file import Writer
from nacre.io.audio import Resampler
from nacre.tools import features

FRAMES = Column("frames", "int32")  # of the T those that hold sound; what is behind them brings out the last of it


@dataclass(frozen=True)
class Making:
    """What to make, by which model and how: all that the rows of a corpus depend on beside its source.

    `options` of encode are those of `Codec.encode`; of latents and tokens `level`; of features `kind` and `pool`.
    `longest_s` bounds the memory of what needs a whole recording at once; a run may raise it.
    """

    what: str
    model: str
    options: dict[str, Any]
    longest_s: float = 3600.0

    def facts(self) -> dict[str, Any]:
        """How a destination names it. Raises UsageError, BundleError for options that cannot be meant."""
        facts: dict[str, Any] = {"nacre": __version__, "what": self.what}
        facts |= {name: value for name, value in self.options.items() if value is not None}
        if self.what == "features":
            features.check(self.options["kind"], self.options["pool"], None)
            return facts | {"frame_rate_hz": features.frame_rate_hz(self.options["kind"])}
        codec = codec_of(self.model)
        if self.what == "encode":
            codec.encoder(codec.config.rate_hz, **self.options)  # raises what is wrong with the options
        else:
            facts |= {"level": _plain_level(codec, self.options["level"])}
            facts |= {"frame_rate_hz": float(codec.config.frame_rate_hz), "group_frames": codec.config.group_frames}
        facts |= {"static_fingerprint": codec.bundle.static_fingerprint.hex()}
        facts |= {"model": codec.bundle.name, "fingerprint": codec.bundle.fingerprint.hex()}
        encoder = codec.bundle.facts.hashes["encoder.onnx"]  # on which the fingerprint does not depend
        return facts | {"encoder": encoder[:16]}


def _plain_level(codec: Codec, level: int | None) -> int:
    """A level without residual layer, of which rows have no columns. Raises UsageError."""
    chosen, plain = codec.model.level(level), codec.model.plain_levels
    if chosen >= plain:
        raise UsageError(f"level {chosen} has a residual layer, for which rows have no columns; give 0 to {plain - 1}")
    return chosen


@dataclass(frozen=True)
class Coder:
    """Columns, and the row that it makes of a sound."""

    columns: tuple[Column, ...]
    row: Callable[[Counted], Row]


def open_networks(making: Making) -> None:
    """Open what every shard needs; else it is opened when it is needed first."""
    if making.what != "features":
        model = codec_of(making.model).model
        model.encoder_net.open()
        if making.what == "encode" and model.residual:  # refined groups are decoded, too
            model.decoder_net.open()


def coder_of(making: Making) -> Coder:
    """A coder; its model is loaded."""
    if making.what == "encode":
        return Coder((Column("nacre", "bytes"),), lambda sound: {"nacre": _file(making, sound)})
    return _features(making) if making.what == "features" else _frames(making)


def _file(making: Making, sound: Counted) -> bytes:
    """The bytes of a `.nacre` file."""
    stream = codec_of(making.model).encoder(sound.rate_hz, sound.channels, **making.options)
    file = io.BytesIO()
    writer = Writer(file, stream.header)
    for block in sound.blocks(sound.rate_hz):
        for packet in stream.push(block):
            writer.add(packet)
    for packet in stream.flush():
        writer.add(packet)
    writer.finish(stream.samples)
    return file.getvalue()


def _features(making: Making) -> Coder:
    kind, pool = making.options["kind"], making.options["pool"]
    probe = features.extract(np.zeros(features.RATE_HZ // 10), features.RATE_HZ, kind, pool)  # [T, F] or [P]
    shape = (None, probe.shape[1]) if pool is None else (len(probe),)

    def row(sound: Counted) -> Row:
        return {kind: features.extract(_mono(sound, features.RATE_HZ, making), features.RATE_HZ, kind, pool)}

    return Coder((Column(kind, str(probe.dtype), shape),), row)


def _frames(making: Making) -> Coder:
    """Latents or tokens, with gains, levels and lengths: all that the sound comes back by."""
    codec, level = codec_of(making.model), making.options["level"]
    if making.what == "tokens":
        values = Column("tokens", "int16", (None, len(codec.token_format(level).alphabet)))
    else:
        values = Column("latents", "float32", (None, codec.config.latent_dims))

    def row(sound: Counted) -> Row:
        coded: Tokens | Latents
        if (held := sound.tokens(codec)) is not None:
            coded = held if making.what == "tokens" else codec.latents_of(held)
        else:
            made = codec.tokens if making.what == "tokens" else codec.latents
            coded = made(_mono(sound, sound.rate_hz, making), sound.rate_hz, level)
        return {
            values.name: _checked(coded, values),
            "gains": coded.gains,
            "levels": coded.levels,
            "frames": coded.frames,
        }

    return Coder((values, Column("gains", "int8", (None,)), Column("levels", "uint8", (None,)), FRAMES), row)


def _checked(coded: Tokens | Latents, values: Column) -> Array:
    """Rows [T, K] of the column. Raises AudioError for files whose levels have more than it holds."""
    rows, width = np.asarray(coded, values.dtype), values.shape[-1]
    assert width is not None
    if rows.shape[1] > width:
        raise AudioError(f"the file has {rows.shape[1]} tokens a frame, and rows {width}; ask for a higher --level")
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=NO_TOKEN)


def _mono(sound: Counted, rate_hz: int, making: Making) -> Array:
    """All of a sound, float32 [N] at another rate, channels averaged. Raises AudioError for what is too long."""
    resampler, pieces, samples = Resampler(sound.rate_hz, rate_hz, 1), [], 0
    for block in sound.blocks(sound.rate_hz):
        samples += block.shape[1]
        if samples > making.longest_s * sound.rate_hz:
            longest = clock(making.longest_s)
            raise AudioError(f"longer than {longest}; cut it into parts, or raise --longest and have the memory")
        pieces.append(resampler.push(block.mean(0, keepdims=True))[0])
    return np.concatenate([*pieces, resampler.flush()[0]])
