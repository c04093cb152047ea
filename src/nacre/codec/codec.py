"""A model ready for use, in one object: files, live streams, latents and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nacre.codec import latents as continuous
from nacre.codec import stream as streams
from nacre.codec import tokens as discrete
from nacre.codec.file_decoder import Damage
from nacre.codec.frames import Batch, batch_of, each_of
from nacre.codec.latents import LatentDecoder, Latents
from nacre.codec.packets import CONTEXT
from nacre.codec.rate_control import RatePlan, plan_rate
from nacre.codec.settings import Settings
from nacre.codec.stream import StreamDecoder, StreamEncoder
from nacre.codec.tokens import TokenDecoder, TokenFormat, Tokens
from nacre.core.config import DEFAULT_MODEL, CodecConfig
from nacre.core.errors import StreamError, UsageError
from nacre.core.types import Array
from nacre.dsp.stereo import AUTO
from nacre.dsp.wave import as_sound
from nacre.format.file import Contents
from nacre.model import bundle as bundles
from nacre.model.bundle import Bundle
from nacre.model.model import Model

if TYPE_CHECKING:
    from nacre.codec.live import LiveEncoder, LiveSettings
    from nacre.codec.live_decoder import LiveDecoder  # imported where they are used: files need neither


class Codec:
    """A model ready to encode and decode. It keeps nothing between calls: threads may share it, but not its streams."""

    def __init__(self, model: Model):
        self.model = model

    @property
    def bundle(self) -> Bundle:
        """The model's folder: name, fingerprints, rates."""
        return self.model.bundle

    @property
    def config(self) -> CodecConfig:
        """The model's settings."""
        return self.model.config

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, and copied, as the folder of its model."""
        return load, (str(self.bundle.folder),)

    def encode(
        self,
        wave: Array,
        rate_hz: float,
        *,
        bitrate_kbps: float | None = None,
        quality: float | None = None,
        stereo: str = AUTO,
        prior: str = CONTEXT,
        denoise: bool = False,
        packet_bytes: int | None = None,
        level: int | None = None,
        band_khz: int | None = None,
    ) -> bytes:
        """A whole `.nacre` file from wave float32 [N] or [C, N]; raises AudioError, UsageError.

        Two dimensions are the channels of one sound, at most 8, and all come back; `encode_batch` takes several.

        `bitrate_kbps` is the rate of the file over all channels, reached on average over ten seconds or more;
        `quality` 0..100 keeps the quality constant instead. Without either, 6 kb/s a channel, or the
        model's rate nearest to it. `stereo` "auto" writes what is alike in two channels once, "left-right" never does.
        `prior` "static" writes larger files that take less time, as does a model that has no context prior. `denoise`
        leaves out what is not speech, for good; without a denoiser in the model also without residual levels, which
        would bring it back.
        `packet_bytes` gives every packet, one channel of one group, this very size instead of a rate, as some links
        need it. `level` writes all of them at this quality level, as `tokens` does.
        `band_khz` is how far up the file goes, 8, 12 or 20: what is above 8 kHz comes back as noise of the right level,
        for about 0.5 kb/s of the file's rate. None takes what sound of 24 kHz and more has, where 3 kb/s a channel or
        more are left for all, but not with `denoise`, `packet_bytes` or `level`.
        """
        wave = as_sound(wave)
        settings = Settings(bitrate_kbps, quality, stereo, prior, denoise, packet_bytes, level, band_khz)
        stream = StreamEncoder(self.model, rate_hz, len(wave), settings)
        return streams.file_of(stream, wave)

    def encode_batch(
        self,
        waves: Sequence[Array] | Array,
        rate_hz: float,
        lengths: Sequence[int] | None = None,
        *,
        threads: int = 1,
        **options: Any,
    ) -> list[bytes]:
        """`encode` of several waves, a list or [B, N] with their `lengths` [B] in samples; `options` as there.

        Each file is to the byte what it is alone. Raises AudioError, UsageError, which name the item.
        """
        return each_of(lambda wave: self.encode(wave, rate_hz, **options), waves, lengths, threads)

    def decode(self, data: bytes) -> tuple[Array, int]:
        """(wave [C, N] float32, rate_hz) of a whole file; lost groups are concealed. Raises StreamError."""
        stream = self.decoder(self.parse(data))
        return stream.whole(), stream.header.rate_hz

    def decode_batch(self, files: Sequence[bytes], *, threads: int = 1) -> list[tuple[Array, int]]:
        """`decode` of several files: each to the bit what it is alone. Raises StreamError, which names the item."""
        return each_of(self.decode, files, None, threads)

    def encoder(
        self,
        rate_hz: float,
        channels: int = 1,
        *,
        bitrate_kbps: float | None = None,
        quality: float | None = None,
        stereo: str = AUTO,
        prior: str = CONTEXT,
        denoise: bool = False,
        packet_bytes: int | None = None,
        level: int | None = None,
        band_khz: int | None = None,
    ) -> StreamEncoder:
        """A live encoder: push samples, get packets. Options as in `encode`."""
        settings = Settings(bitrate_kbps, quality, stereo, prior, denoise, packet_bytes, level, band_khz)
        return StreamEncoder(self.model, rate_hz, channels, settings)

    def decoder(self, contents: Contents, rate_hz: int | None = None) -> StreamDecoder:
        """A decoder over the packets of a file, at the file's rate or at `rate_hz`."""
        return StreamDecoder(self.model, contents, rate_hz)

    def live_encoder(
        self,
        rate_hz: float,
        *,
        bitrate_kbps: float | None = None,
        frames: int = 1,
        loss: float = 0.0,
        reach_ms: float | None = None,
        redundant: bool = True,
        denoise: bool = False,
        source: int | None = None,
    ) -> LiveEncoder:
        """Samples in, RTP packets of `frames` times 20 ms out, for lines that lose packets; see `LiveSettings`.

        `source` is the sender's number in the packets, by default drawn by lot. Raises AudioError, UsageError.
        """
        from nacre.codec.live import LiveSettings

        settings = LiveSettings(bitrate_kbps, frames, loss, reach_ms, redundant, denoise=denoise)
        return self.live_encoder_of(rate_hz, settings, source)

    def live_encoder_of(self, rate_hz: float, settings: LiveSettings, source: int | None = None) -> LiveEncoder:
        """The same by settings."""
        from nacre.codec.live import LiveEncoder

        return LiveEncoder(self.model, rate_hz, settings, source)

    def live_decoder(
        self, rate_hz: int | None = None, *, depth_ms: float | None = None, announced: bool = False
    ) -> LiveDecoder:
        """RTP packets in, sound out when it is due, by default at the model's rate; see `LiveDecoder`."""
        from nacre.codec.live_decoder import LiveDecoder

        return LiveDecoder(self.model, rate_hz, depth_ms, announced)

    def parse(self, data: bytes) -> Contents:
        """Packets of a file, checked to be for this model. Raises StreamError."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            kind = type(data).__name__
            raise StreamError(f"a file must be given as bytes, not {kind}; read it with open(name, 'rb').read()")
        return streams.parse(self.model, bytes(data))

    def verify(self, contents: Contents) -> list[Damage]:
        """The damaged groups of a file, found from the symbols alone, without rendering sound."""
        return streams.verify(self.model, contents)

    def rate_plan(
        self,
        channels: int,
        bitrate_kbps: float | None,
        quality: float | None,
        prior: str = CONTEXT,
        plain: bool = False,
    ) -> RatePlan:
        """The plan that the options request, of levels without residual layer if `plain`. Raises UsageError."""
        return plan_rate(self.model, channels, bitrate_kbps, quality, prior, plain)

    def latents(
        self,
        wave: Array,
        rate_hz: float,
        level: int | None = None,
        *,
        mono: bool | None = None,
        gain_code: int | None = None,
    ) -> Latents:
        """Continuous latents [T, D] float32 of wave [N] or [C, N], 50 frames a second, with their gains.

        What the decoder would be given if nothing were rounded, at quality level `level`, by default the highest that
        has no residual layer; of kind GAUSSIAN the means. Several channels might be meant as a batch, so `mono` has to
        be given for them: True averages them, False gives [C, T, D].
        `gain_code`: one gain for all groups, see `dsp.gain.gain_of`. Raises AudioError, UsageError.
        """
        return continuous.latents_of(self.model, wave, rate_hz, level, gain_code, mono)

    def tokens(self, wave: Array, rate_hz: float, level: int | None = None, *, mono: bool | None = None) -> Tokens:
        """Discrete tokens [T, K] int32, from 0, of wave [N] or [C, N], with their gains; see `token_format`.

        They are the symbols of the file that `encode` writes at this `level`, by default the highest that has no
        residual layer. `mono` has to be given for several channels: True averages them, False gives
        [C, T, K]. Raises AudioError, UsageError.
        """
        return discrete.tokens_of(self.model, wave, rate_hz, level, mono)

    def symbols(self, data: bytes) -> Tokens:
        """Tokens [T, K], of several channels [C, T, K], of a whole file, without decoding its sound.

        Groups that are damaged count as `lost`. Raises StreamError.
        """
        return self.tokens_in(self.parse(data))

    def tokens_in(self, contents: Contents) -> Tokens:
        """The same of packets that were parsed before."""
        return discrete.tokens_in(self.model, contents)

    def latents_of(self, tokens: Tokens) -> Latents:
        """Latents [T, D] that the decoder takes for these tokens, rounded. Raises UsageError."""
        return continuous.latents_in(self.model, tokens)

    def pack(self, tokens: Tokens, prior: str = CONTEXT) -> bytes:
        """The `.nacre` file that holds tokens: what `encode` writes at their level. Raises UsageError."""
        return discrete.file_of(self.model, tokens, prior)

    def token_format(self, level: int | None = None) -> TokenFormat:
        """What tokens of a quality level look like, by default of the highest that has no residual layer."""
        return discrete.token_format(self.model, level)

    def from_tokens(self, tokens: Tokens | Array, level: int | None = None, *, rate_hz: int | None = None) -> Array:
        """Sound of tokens, to the sample what the file that holds them decodes to. Raises UsageError.

        Of Tokens float32 [N], of several channels [C, N], at the rate that went in, or at `rate_hz`. Of an array
        [T, K] of one `level` [N] at the model's rate, N = T * hop, as loud as speech at the model's nominal level: it
        has no gains.
        """
        if not isinstance(tokens, Tokens):
            return continuous.tokens_to_sound(self.model, tokens, _alone(level, rate_hz))
        return _whole(self.decoder_of(tokens, rate_hz), level)

    def from_latents(self, latents: Latents | Array, level: int | None = None, *, rate_hz: int | None = None) -> Array:
        """Sound of latents, Latents or an array [T, D]; as `from_tokens`."""
        if not isinstance(latents, Latents):
            return continuous.latents_to_wave(self.model, latents, _alone(level, rate_hz))
        return _whole(self.decoder_of(latents, rate_hz), level)

    def decoder_of(self, frames: Tokens | Latents, rate_hz: int | None = None) -> StreamDecoder:
        """A decoder that gives the sound of tokens or latents block by block. Raises UsageError."""
        if isinstance(frames, Tokens):
            return TokenDecoder(self.model, frames, rate_hz)
        return LatentDecoder(self.model, frames, rate_hz)

    def tokens_batch(
        self,
        waves: Sequence[Array] | Array,
        rate_hz: float,
        lengths: Sequence[int] | None = None,
        level: int | None = None,
        *,
        threads: int = 1,
    ) -> Batch[Tokens]:
        """`tokens` of several waves, a list or [B, N] with their `lengths` [B] in samples; channels are averaged.

        Each item is to the bit what it is alone, whatever is beside it. Raises AudioError, UsageError, which name it.
        """
        return batch_of(lambda wave: self.tokens(wave, rate_hz, level, mono=True), waves, lengths, threads)

    def latents_batch(
        self,
        waves: Sequence[Array] | Array,
        rate_hz: float,
        lengths: Sequence[int] | None = None,
        level: int | None = None,
        *,
        threads: int = 1,
    ) -> Batch[Latents]:
        """`latents` of several waves, as `tokens_batch`."""
        return batch_of(lambda wave: self.latents(wave, rate_hz, level, mono=True), waves, lengths, threads)


def _alone(level: int | None, rate_hz: int | None) -> int | None:
    """The level of an array. Raises UsageError for a rate."""
    if rate_hz is not None:
        raise UsageError("rate_hz is for Tokens and Latents, which know theirs; leave it out for an array")
    return level


def _whole(stream: StreamDecoder, level: int | None) -> Array:
    """Sound [N] or [C, N]. Raises UsageError for a level."""
    if level is not None:
        raise UsageError("level is for arrays; leave it out, since Tokens and Latents hold theirs")
    wave = stream.whole()
    return wave[0] if len(wave) == 1 else wave


def load(model: str | Path = DEFAULT_MODEL, threads: int = 1) -> Codec:
    """A codec by the name of a model in the package or by a model folder. Raises UsageError, BundleError."""
    loaded = Model.load(bundles.find(model), threads)
    for network in (loaded.encoder_net, loaded.decoder_net):
        network.open()  # so that a bad one is reported here
    return Codec(loaded)
