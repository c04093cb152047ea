"""The one place where stations meet: samples to packets and back, a group at a time, with explicit state.

    encode   samples -> [Resampler] -> group of 50 frames -> gain -> spectra -> latents -> symbols -> bytes -> Packet
    decode   Packet -> bytes -> symbols -> latents -> spectra -> samples -> 1 / gain -> [Resampler] -> samples

The highest levels of a model that refines them send, behind the symbols, what the samples so decoded lack; for that the
encoder decodes too.

Files, pipes and live use all run `ChannelEncoder.group` and `ChannelDecoder.group`; a whole file is a loop over them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nacre import bundle as bundles
from nacre import container
from nacre.analysis import Analyser, LevelState, Synthesiser, choose_gain, gain_curve, is_silent
from nacre.audio import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, Resampler, resampled
from nacre.bundle import Bundle
from nacre.coding import LOST, SIDE_BY_SIDE, Coding, Group
from nacre.config import CodecConfig
from nacre.container import Contents, Coupling, Header, Kind, Packet
from nacre.context import ContextPrior
from nacre.errors import AudioError, BundleError, StreamError, UsageError
from nacre.mel import LogMelAnalyser, LogMelSynthesiser
from nacre.model import Network
from nacre.priors import TOTAL, StaticPrior
from nacre.quantise import FiniteQuantiser, PosteriorQuantiser, Quantiser, ResidualQuantiser, UniformQuantiser
from nacre.rate import RatePlan
from nacre.refine import Refinement
from nacre.stereo import APART, AUTO, WAYS, Likeness, carrier, factor_of, factors
from nacre.units import ceil_div, resampled_count

Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT_KBPS = 6.0  # a channel
MIN_PACKET_BYTES, MAX_PACKET_BYTES = 40, 8192  # of packets of one size
JOINED_REACH = 3  # more levels to choose from, since a group written once has twice the bits
CONTEXT, STATIC = "context", "static"
PRIORS = (CONTEXT, STATIC)
FADE_S = 0.1  # concealment falls to silence over a few of these


class Codec:
    """A model ready to encode and decode. Safe to share between threads only if each makes its own streams."""

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.bundle, self.config = bundle, bundle.config
        self.encoder_net = Network(bundle.part("encoder.onnx"), threads)
        self._threads = threads
        self.prior = StaticPrior.load(bundle.part("prior.npz"))
        self.quantiser = quantiser_of(bundle)
        self.context = ContextPrior.load(bundle.part(bundles.CONTEXT)) if bundle.has_context else None
        self.refinement = Refinement.load(bundle.part(bundles.REFINEMENT)) if bundle.has_refinement else None
        self._check_parts()

    def encode(
        self,
        wave: Array,
        rate_hz: int,
        *,
        bitrate_kbps: float | None = None,
        quality: float | None = None,
        stereo: str = AUTO,
        prior: str = CONTEXT,
        denoise: bool = False,
        packet_bytes: int | None = None,
    ) -> bytes:
        """A whole `.nacre` file from wave float32 [N] or [C, N]; raises AudioError, UsageError.

        `bitrate_kbps` is the rate of the file over all channels, reached on average over ten seconds or more;
        `quality` 0..100 keeps the quality constant instead. Without either, 6 kb/s a channel, or the
        model's rate nearest to it. `stereo` "auto" writes what is alike in two channels once, "left-right" never does.
        `prior` "static" writes larger files that take less time, as does a model that has no context prior. `denoise`
        leaves out what is not speech, for good, and does without refined levels, which would bring it back.
        `packet_bytes` gives every packet, one channel of one group, this very size instead of a rate, as some links
        need it.
        """
        wave = as_sound(wave)
        rate: dict[str, Any] = {"bitrate_kbps": bitrate_kbps, "quality": quality, "packet_bytes": packet_bytes}
        stream = self.encoder(rate_hz, len(wave), **rate, stereo=stereo, prior=prior, denoise=denoise)
        if wave.shape[1] == 0:
            raise AudioError("wave", found="no samples", wanted="at least one")
        file = io.BytesIO()
        writer = container.Writer(file, stream.header)
        for packet in [*stream.push(wave), *stream.flush()]:
            writer.add(packet)
        writer.finish(wave.shape[1])
        return file.getvalue()

    def decode(self, data: bytes) -> tuple[Array, int]:
        """(wave [C, N] float32, rate_hz) of a whole file; lost groups are concealed. Raises StreamError."""
        stream = self.decoder(self.parse(data))
        return np.concatenate(list(stream.blocks()), 1), stream.header.rate_hz

    def encoder(
        self,
        rate_hz: int,
        channels: int = 1,
        *,
        bitrate_kbps: float | None = None,
        quality: float | None = None,
        stereo: str = AUTO,
        prior: str = CONTEXT,
        denoise: bool = False,
        packet_bytes: int | None = None,
    ) -> StreamEncoder:
        """A live encoder: push samples, get packets. Options as in `encode`."""
        rate_hz = check_shape(rate_hz, channels)
        if stereo not in WAYS:
            raise UsageError("stereo", found=stereo, wanted=" or ".join(WAYS))
        if prior not in PRIORS:
            raise UsageError("prior", found=prior, wanted=" or ".join(PRIORS))
        if denoise and not self.config.cleans:
            raise UsageError("denoise", found=f"model {self.bundle.name}", wanted="a model that was taught to clean")
        plan = self.rate_plan(channels, bitrate_kbps, quality, prior, plain=denoise)  # or noise would come back
        if packet_bytes is not None:
            if bitrate_kbps is not None or quality is not None:
                raise UsageError("packet_bytes", found="a bitrate or quality too", wanted="one of them")
            if not MIN_PACKET_BYTES <= packet_bytes <= MAX_PACKET_BYTES:
                raise UsageError("packet_bytes", found=packet_bytes, wanted=f"{MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}")
        alike = channels == 2 and stereo == AUTO and packet_bytes is None
        coupling = Coupling.JOINED if alike else Coupling.APART
        if coupling == Coupling.JOINED:
            plan.reach += JOINED_REACH
        mark = self.bundle.fingerprint if prior == CONTEXT else self.bundle.static_fingerprint
        kind, size = Kind(self.bundle.kind), self.config.group_frames
        header = Header(mark, rate_hz, channels, None, size, kind, coupling)
        return StreamEncoder(self, header, plan, denoise, packet_bytes)

    def decoder(self, contents: Contents, rate_hz: int | None = None) -> StreamDecoder:
        """A decoder over the packets of a file, at the file's rate or at `rate_hz`."""
        return StreamDecoder(self, contents, rate_hz)

    def parse(self, data: bytes) -> Contents:
        """Packets of a file, checked to be for this model."""
        contents = container.unpack(data, lambda header, samples: packet_count(self.bundle, header, samples))
        self.check_model(contents.header)
        missing = contents.missing
        if 0 < missing <= contents.header.channels and contents.skipped_bytes:  # the last group is there, in ruins
            contents = replace(contents, packets=[*contents.packets, *missing * [None]], missing=0, truncated=False)
        return contents

    def check_model(self, header: Header) -> None:
        """Raise StreamError unless the file was written for this very model."""
        if header.fingerprint not in self.bundle.marks or header.kind != self.bundle.kind:
            raise StreamError(
                "model",
                found=f"a file for {header.fingerprint.hex()}",
                wanted=f"{self.bundle.fingerprint.hex()} ({self.bundle.name})",
                next="decode with the model that wrote it: --model FOLDER",
            )
        if header.group_frames != self.config.group_frames:
            raise StreamError("group_frames", found=header.group_frames, wanted=self.config.group_frames)

    def coding(self, header: Header) -> Coding:
        """How the symbols of a file are written."""
        context = self.context if header.fingerprint == self.bundle.fingerprint else None
        return Coding(self.prior, context, self.refinement)

    @cached_property
    def decoder_net(self) -> Network:
        """Opened when it is needed first, which for most encoding is never. Raises BundleError."""
        net, c = Network(self.bundle.part("decoder.onnx"), self._threads), self.config
        found, wanted = (net.width_in, net.width_out), (c.latent_dims, c.step_width)
        if found != wanted:
            raise BundleError(f"{self.bundle.folder}: widths of decoder.onnx", found=found, wanted=wanted)
        return net

    @property
    def plain_levels(self) -> int:
        """How many levels, the lowest, do without a refinement."""
        return self.refinement.first_level if self.refinement else self.config.levels

    def _check_parts(self) -> None:
        """Raise BundleError unless graphs and tables have the sizes the settings ask for."""
        c, encoder, quantiser = self.config, self.encoder_net, self.quantiser
        found = (encoder.width_in, encoder.width_out, self.prior.counts.shape[:2])
        wanted = (c.steps_per_frame * c.step_width, quantiser.width_in, (c.levels, quantiser.columns))
        if found != wanted or (quantiser.width_out, quantiser.levels) != (c.latent_dims, c.levels):
            raise BundleError(f"{self.bundle.folder}: sizes of graphs and tables", found=found, wanted=wanted)
        if self.context and (self.context.sizes.levels, self.context.sizes.dims) != (c.levels, quantiser.columns):
            found_sizes, sizes = self.context.sizes, (c.levels, quantiser.columns)
            raise BundleError(f"{self.bundle.folder}: context prior", found=found_sizes, wanted=f"levels, dims {sizes}")
        if r := self.refinement:
            fine, both = (len(r.arrays["steps"]), r.size * r.per_frame), (c.levels, c.hop_samples)
            if fine != both or c.mel_bands:
                raise BundleError(f"{self.bundle.folder}: refinement", found=fine, wanted=f"levels, samples {both}")
        if isinstance(quantiser, ResidualQuantiser):
            entries, counts = quantiser.codes.shape[1], self.prior.counts
            used = [counts[level, : quantiser.used(level), :entries] for level in range(c.levels)]
            outside = counts.shape[2] != 2 * (entries // 2) + 1 or counts[..., entries:].any()
            if outside or not all((table > 0).all() for table in used):
                raise BundleError(f"{self.bundle.folder}: tables", wanted=f"codes for indices of {entries} entries")
        try:
            analyser_of(c), synthesiser_of(c)
        except UsageError as error:
            raise BundleError(f"{self.bundle.folder}: {error}") from error

    def latents(self, wave: Array, rate_hz: int, level: int | None = None, *, gain_code: int | None = None) -> Array:
        """Continuous latents [T, D] float32 of wave [N] or [C, N] (channels averaged), 50 frames a second.

        What the decoder would be given if nothing were rounded, at quality level `level`, by default the highest that
        has no refinement; of kind GAUSSIAN the means. `gain_code`: one gain for all groups, see `analysis.gain_of`.
        """
        chosen = self._level(level)
        groups = self._analysed(wave, rate_hz, chosen, gain_code)
        return np.concatenate([self.quantiser.unrounded(found, chosen) for found, _ in groups])

    def tokens(self, wave: Array, rate_hz: int, level: int | None = None) -> Array:
        """Discrete tokens [T, K] int32, from 0, of wave [N] or [C, N] (channels averaged); see `token_format`."""
        lowest, _ = self.prior.ranges(self._level(level))
        return np.concatenate([symbols - lowest for _, symbols in self._analysed(wave, rate_hz, level)])[
            :, : self._used(level)
        ]

    def token_format(self, level: int | None = None) -> TokenFormat:
        """What tokens of a quality level look like, by default of the highest that has no refinement."""
        lowest, highest = self.prior.ranges(self._level(level))
        tables = self.prior.tables(self._level(level)) / TOTAL  # [K, A]
        entropy_bits = float(-(tables * np.log2(np.where(tables > 0, tables, 1))).sum())
        alphabet = (highest - lowest + 1)[: self._used(level)]
        rate_hz = float(self.config.frame_rate_hz)
        return TokenFormat(rate_hz, alphabet, rate_hz * float(np.log2(alphabet).sum()), rate_hz * entropy_bits)

    def from_tokens(self, tokens: Array, level: int | None = None) -> Array:
        """Sound [N] float32 at the model's rate, N = T * hop, of tokens [T, K]. Raises UsageError.

        The loudness is that of speech at the model's nominal level: gains are not part of tokens.
        """
        chosen, alphabet = self._level(level), self.token_format(level).alphabet
        given = np.asarray(tokens)
        if given.ndim != 2 or given.shape[1] != len(alphabet) or given.dtype.kind not in "iu" or not len(given):
            wanted = f"integers [T, {len(alphabet)}] at level {chosen}, T above 0"
            raise UsageError("tokens", found=f"{given.dtype} {given.shape}", wanted=wanted)
        if (given < 0).any() or (given >= alphabet).any():
            frame, column = np.argwhere((given < 0) | (given >= alphabet))[0].tolist()
            wanted = f"0 to {alphabet[column] - 1}"
            raise UsageError(f"token of frame {frame}, column {column}", found=given[frame, column], wanted=wanted)
        symbols = np.zeros((len(given), self.quantiser.columns), np.int32)
        symbols[:, : len(alphabet)] = given + self.prior.ranges(chosen)[0][: len(alphabet)]
        return self.from_latents(self.quantiser.latents(symbols, chosen), chosen)

    def from_latents(self, latents: Array, level: int | None = None) -> Array:
        """Sound [N] float32 at the model's rate, N = T * hop, of latents [T, D]; raises UsageError."""
        given = np.asarray(latents)
        fits = given.ndim == 2 and given.shape[1] == self.config.latent_dims and len(given)
        if not fits or given.dtype.kind not in "fiu":
            wanted = f"numbers [T, {self.config.latent_dims}], T above 0"
            raise UsageError("latents", found=f"{given.dtype} {given.shape}", wanted=wanted)
        with np.errstate(over="ignore"):
            given = given.astype(np.float32)
        if not np.isfinite(given).all():
            raise UsageError("latents", found="NaN or infinite numbers", wanted="finite numbers")
        c = self.config
        tail = np.zeros((ceil_div(c.delay_samples, c.hop_samples), c.latent_dims), np.float32)
        given = np.concatenate([given, tail])
        past, synthesiser, pieces = self.decoder_net.start(), synthesiser_of(c), []
        for at in range(0, len(given), c.group_frames):
            spectra, past = self.decoder_net.step(given[at : at + c.group_frames], self._level(level), past)
            pieces.append(synthesiser.push(spectra))
        wave = np.concatenate(pieces)[c.delay_samples :]
        return wave[: (len(given) - len(tail)) * c.hop_samples]

    def _level(self, level: int | None) -> int:
        if level is not None and not (0 <= level < self.config.levels and level == int(level)):
            raise UsageError("level", found=level, wanted=f"0 to {self.config.levels - 1}")
        return self.plain_levels - 1 if level is None else int(level)

    def _used(self, level: int | None) -> int:
        return self.quantiser.used(self._level(level))

    def _analysed(
        self, wave: Array, rate_hz: int, level: int | None, gain_code: int | None = None
    ) -> Iterator[tuple[Array, Array]]:
        """(latents [T, X], symbols [T, K]) of group after group, without the frames that flush the delay."""
        sound, chosen = as_sound(wave), self._level(level)
        rate_hz = check_shape(rate_hz, len(sound))
        if sound.shape[1] == 0:
            raise AudioError("wave", found="no samples", wanted="at least one")
        ready = pad(resampled(sound.mean(0), rate_hz, self.config.rate_hz), self.config.hop_samples)
        channel, size = ChannelEncoder(self), self.config.group_samples
        for at in range(0, len(ready), size):
            latents = channel.latents(ready[at : at + size], chosen, gain_code)
            yield latents, channel.symbols(latents, chosen)

    def rate_plan(
        self,
        channels: int,
        bitrate_kbps: float | None,
        quality: float | None,
        prior: str = CONTEXT,
        plain: bool = False,
    ) -> RatePlan:
        """What the options ask for, of levels without refinement if `plain`; raises UsageError for what cannot be."""
        if bitrate_kbps is not None and quality is not None:
            raise UsageError("bitrate and quality", found="both", wanted="one of them")
        rates = (self.bundle.rates_kbps if prior == CONTEXT else self.bundle.static_rates_kbps) * channels
        if plain:
            rates = rates[: self.plain_levels]
        if quality is not None:
            if not 0 <= quality <= 100:
                raise UsageError("quality", found=quality, wanted="0 to 100")
            level = round(quality / 100 * (len(rates) - 1))
            return RatePlan(rates, None, level, container.HEADER_BYTES, plain_levels=self.plain_levels)
        usual = float(np.clip(DEFAULT_KBPS * channels, rates[0], rates[-1]))
        wanted = usual if bitrate_kbps is None else bitrate_kbps
        if not rates[0] * 0.97 <= wanted <= rates[-1] * 1.03:
            span = f"{rates[0]:.1f} to {rates[-1]:.1f} kb/s for {channels} channel(s){', not refined' if plain else ''}"
            raise UsageError("bitrate", found=f"{wanted:g} kb/s", wanted=span, next=f"model {self.bundle.name}")
        level = int(np.abs(np.log(rates / wanted)).argmin())
        return RatePlan(rates, wanted, level, container.HEADER_BYTES, plain_levels=self.plain_levels)


@dataclass(frozen=True)
class TokenFormat:
    """Tokens a second, size of each column's alphabet [K], bits a second of fixed-length codes and of the tables."""

    frame_rate_hz: float
    alphabet: Array
    fixed_bits_per_s: float
    coded_bits_per_s: float


def quantiser_of(bundle: Bundle) -> Quantiser:
    """The quantiser of a bundle's kind; raises BundleError."""
    if bundle.kind == Kind.SCALAR:
        return UniformQuantiser(bundle.steps, bundle.dead_zone)
    path = bundle.part(bundles.QUANTISER)
    if bundle.kind == Kind.GAUSSIAN:
        return PosteriorQuantiser.load(path)
    return ResidualQuantiser.load(path) if bundle.kind == Kind.RVQ else FiniteQuantiser.load(path)


def analyser_of(config: CodecConfig) -> Analyser | LogMelAnalyser:
    """Samples to what the encoder graph takes."""
    if config.mel_bands:
        c = config
        return LogMelAnalyser(c.rate_hz, c.window_samples, c.step_samples, c.steps_per_frame, c.mel_bands)
    return Analyser(config)


def synthesiser_of(config: CodecConfig) -> Synthesiser | LogMelSynthesiser:
    """What the decoder graph gives to samples."""
    if config.mel_bands:
        c = config
        return LogMelSynthesiser(c.rate_hz, c.window_samples, c.step_samples, c.steps_per_frame, c.mel_bands)
    return Synthesiser(config)


def packet_count(bundle: Bundle, header: Header, samples: int) -> int:
    """Packets that `samples` per channel make: groups times channels."""
    config = bundle.config
    frames = config.frames_for(resampled_count(samples, header.rate_hz, config.rate_hz))
    return ceil_div(frames, config.group_frames) * header.channels


def load(model: str | Path = "speech-16k", threads: int = 1) -> Codec:
    """A codec by the name of a model in the package or by a model folder. Raises UsageError, BundleError."""
    codec = Codec(bundles.find(model), threads)
    codec.decoder_net  # noqa: B018 - a bad one is told of here; commands that only encode need not wait for it
    return codec


def as_sound(wave: Array) -> Array:
    """wave [N] or [C, N] of floats as float32 [C, N]; raises AudioError for anything else."""
    given = np.asarray(wave)
    if given.dtype.kind != "f":
        advice = "divide 16-bit samples by 32768"
        raise AudioError("wave", found=given.dtype, wanted="floats from -1 to 1", next=advice)
    with np.errstate(over="ignore"):
        sound: Array = np.atleast_2d(given.astype(np.float32, copy=False))
    if sound.ndim != 2:
        raise AudioError("wave", found=f"shape {sound.shape}", wanted="[N] or [C, N]")
    if not np.isfinite(sound).all():
        raise AudioError("wave", found="NaN or infinite samples", wanted="finite numbers")
    return sound


def check_shape(rate_hz: float, channels: int) -> int:
    """The rate as a whole number; raises AudioError where rate or channels cannot be coded."""
    fits = MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ and rate_hz == int(rate_hz)
    if not fits or not 1 <= channels <= MAX_CHANNELS:
        wanted = f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, 1 to {MAX_CHANNELS} channels"
        raise AudioError("sound", found=f"{rate_hz} Hz, {channels} channels", wanted=wanted)
    return int(rate_hz)


def pad(wave: Array, multiple: int) -> Array:
    """wave [..., N] with zeros up to a multiple of this many samples."""
    missing = -wave.shape[-1] % multiple
    return np.pad(wave, [(0, 0)] * (wave.ndim - 1) + [(0, missing)])


class Cleaner:
    """Latents of the speech alone, by the encoder's levels for cleaning, as far as there is something to clean.

    Sound without noise would lose by it. It is known by the two latents, cleaned and plain, being as much alike as in
    clean speech: `span` says at what distance cleaning sets in, and at what distance it is complete.
    """

    def __init__(self, codec: Codec):
        self.codec, self.span = codec, codec.bundle.cleaning_span
        self.past = codec.encoder_net.start()
        self.unlike: float | None = None

    def cleaned(self, spectra: Array, plain: Array, level: int) -> Array:
        """spectra of a group, and what the plain level makes of them [T, X] -> [T, X]."""
        clean, self.past = self.codec.encoder_net.step(spectra, level + self.codec.config.levels, self.past)
        found = distance(clean, plain)
        self.unlike = found if self.unlike is None else 0.5 * (self.unlike + found)
        low, high = self.span
        share = np.float32(np.clip((self.unlike - low) / (high - low), 0, 1))
        mixed: Array = plain + share * (clean - plain)
        return mixed


def distance(clean: Array, plain: Array) -> float:
    """Size of the difference of latents [T, X] over the size of the second."""
    return float(np.sqrt(np.square(clean - plain).sum() / (np.square(plain).sum() + 1e-9)))


class Refiner:
    """What one channel's decoder makes of the symbols so far, and what the sound has beyond that.

    Groups are decoded only when one is refined, and then no more of them than the networks remember.
    """

    def __init__(self, codec: Codec, refinement: Refinement):
        self.codec, self.refinement = codec, refinement
        self.waiting = np.zeros(codec.config.delay_samples, np.float32)
        self.owed: list[tuple[Array | None, int, int]] = []
        self._forget()

    def _forget(self) -> None:
        self.past: Array | None = None
        self.synthesiser = synthesiser_of(self.codec.config)

    def decoded(self, symbols: Array | None, frames: int, level: int) -> Array:
        """Sound [frames * hop] of the next group's symbols [T, K], None for silence; lags by the codec's delay."""
        latents = np.zeros((frames, self.codec.config.latent_dims), np.float32)
        if symbols is not None:
            latents = self.codec.quantiser.latents(symbols, level)
        past = self.codec.decoder_net.start() if self.past is None else self.past
        spectra, self.past = self.codec.decoder_net.step(latents, level, past)
        return self.synthesiser.push(spectra)

    def symbols(self, ready: Array, symbols: Array | None, level: int) -> Array | None:
        """Symbols [S, size] of the refinement of a group, at a level that has one; `ready` [N] is what was analysed."""
        self.waiting = np.concatenate([self.waiting, ready])
        wanted, self.waiting = self.waiting[: len(ready)], self.waiting[len(ready) :]
        self.owed = [*self.owed, (symbols, len(ready) // self.codec.config.hop_samples, level)]
        if self.refinement.memory and not self.refinement.refines(level):
            if len(self.owed) > self.refinement.memory:
                self.owed = self.owed[1:]
                self._forget()
            return None
        decoded = [self.decoded(*group) for group in self.owed][-1]
        self.owed = []
        return self.refinement.symbols(wanted, decoded, level) if self.refinement.refines(level) else None

    def copy(self) -> Refiner:
        """One that goes its own way from here."""
        found = copy(self)
        found.synthesiser = deepcopy(self.synthesiser)
        return found


Memory = tuple[Analyser | LogMelAnalyser, LevelState, Cleaner | None, Refiner | None, Array, int | None]


class ChannelEncoder:
    """Groups of one channel at the model's rate to packets. All memory between groups is in its attributes.

    `refine`: groups may be of a level that has a refinement.
    """

    def __init__(self, codec: Codec, coding: Coding | None = None, denoise: bool = False, refine: bool = False):
        self.codec, self.coding = codec, coding or Coding(codec.prior, codec.context, codec.refinement)
        self.cleaner = Cleaner(codec) if denoise else None
        self.refiner = Refiner(codec, codec.refinement) if refine and codec.refinement else None
        self.ready: Array = np.zeros(0, np.float32)  # the last group as it was analysed
        self.sent: Array | None = None  # its symbols, None for silence
        self.factor = 1.0  # that the decoder puts on this channel
        self.analyser = analyser_of(codec.config)
        self.level_state = LevelState()
        self.past = codec.encoder_net.start()
        self.code: int | None = None

    def gain(self, wave: Array) -> int:
        """The gain code that suits the next group, wave [N]."""
        return choose_gain(self.level_state, wave, self.codec.config.hop_samples)

    def latents(self, wave: Array, level: int, code: int | None = None, factor: float = 1.0) -> Array:
        """wave [N], N a multiple of the hop and at most a group -> latents [T, X], after a gain: `code`, or its own.

        `factor` is what the decoder will multiply this group by.
        """
        hop = self.codec.config.hop_samples
        before, self.code = self.code, self.gain(wave) if code is None else code
        self.ready = wave * gain_curve(before, self.code, len(wave), hop)
        self.ready /= factors(self.factor, factor, len(wave), hop)
        self.factor = factor
        spectra = self.analyser.push(self.ready)
        latents, self.past = self.codec.encoder_net.step(spectra, level, self.past)
        return self.cleaner.cleaned(spectra, latents, level) if self.cleaner else latents

    def symbols(self, latents: Array, level: int) -> Array:
        """latents [T, X] -> symbols [T, K]."""
        prior = self.codec.prior
        return self.codec.quantiser.symbols(latents, level, prior.limits(level), prior.costs(level))

    def group(self, wave: Array, level: int, mute: int | None = None) -> Packet:
        """wave [N], N a multiple of the hop and at most a group -> packet; that of silence has the level `mute`."""
        latents = self.heard(wave, level)
        if latents is None:
            self.sent, mute = None, level if mute is None else mute
            self.fine(None, mute)
            return Packet(mute, b"")
        self.sent = symbols = self.symbols(latents, level)
        return self.packet(symbols, level)

    def heard(self, wave: Array, level: int) -> Array | None:
        """As `latents`, None where wave [N] is silent."""
        before = self.code
        latents = self.latents(wave, level)
        if not is_silent(wave, self.codec.config.hop_samples):
            return latents
        self.code = before  # the decoder does not hear of this group's gain: the next ramp starts from the last
        return None

    def fine(self, symbols: Array | None, level: int) -> Array | None:
        """Symbols of the refinement of the group that was analysed last, where its level has one."""
        return self.refiner.symbols(self.ready, symbols, level) if self.refiner else None

    def packet(self, symbols: Array, level: int) -> Packet:
        """symbols [T, K] of the group that was analysed last -> packet."""
        assert self.code is not None
        return self.coding.pack(symbols, level, self.code, self.fine(symbols, level))


class SizedEncoder(ChannelEncoder):
    """Packets of exactly `size_bytes`, silence among them: each group takes the highest level that fits, then zeros.

    Where not even the lowest level fits, its symbols are drawn towards 0 until it does.
    """

    def __init__(self, codec: Codec, coding: Coding, denoise: bool, size_bytes: int):
        super().__init__(codec, coding, denoise, not denoise)
        self.most = size_bytes - container.HEAD_BYTES - container.CHECK_BYTES
        self.level: int | None = None

    def group(self, wave: Array, level: int, mute: int | None = None) -> Packet:
        """wave [N] -> packet; `level` is where the first group begins to look."""
        memory, top = self._memory(), (self.codec.config.levels if self.refiner else self.codec.plain_levels) - 1
        self.level = level if self.level is None else self.level
        packet, after = self._tried(wave, self.level, memory)
        while self._fits(packet) and self.level < top:
            more, later = self._tried(wave, self.level + 1, memory)
            if not self._fits(more):
                break
            self.level, packet, after = self.level + 1, more, later
        while not self._fits(packet) and self.level > 0:
            self.level -= 1
            packet, after = self._tried(wave, self.level, memory)
        for share in (0.8, 0.6, 0.4, 0.2, 0.0):
            if not self._fits(packet):
                packet, after = self._tried(wave, 0, memory, share)
        self._remember(after)
        if not self._fits(packet):
            raise UsageError("packet_bytes", found=self.most, wanted=f"{len(packet.payload)} payload bytes or more")
        return replace(packet, payload=packet.payload.ljust(self.most, b"\0"))

    def _fits(self, packet: Packet) -> bool:
        return len(packet.payload) <= self.most

    def _tried(self, wave: Array, level: int, memory: Memory, share: float = 1.0) -> tuple[Packet, Memory]:
        """The packet of a level, its symbols times `share`, and the memory after it."""
        self._remember(memory)
        symbols = self.symbols(self.latents(wave, level), level)
        if share < 1:
            symbols = np.trunc(symbols * share).astype(symbols.dtype)
        return self.packet(symbols, level), self._memory()

    def _memory(self) -> Memory:
        refiner = self.refiner.copy() if self.refiner else None
        return deepcopy(self.analyser), replace(self.level_state), copy(self.cleaner), refiner, self.past, self.code

    def _remember(self, memory: Memory) -> None:
        self.analyser, self.level_state, self.cleaner = deepcopy(memory[0]), replace(memory[1]), copy(memory[2])
        self.refiner = memory[3].copy() if memory[3] else None
        self.past, self.code = memory[4:]


class StreamEncoder:
    """Samples in, packets out, in pieces of any size; the packets do not depend on the pieces."""

    def __init__(
        self, codec: Codec, header: Header, plan: RatePlan, denoise: bool = False, packet_bytes: int | None = None
    ):
        self.codec, self.header, self.plan = codec, header, plan
        self.samples, channels, coding = 0, header.channels, codec.coding(header)
        self._resampler = Resampler(header.rate_hz, codec.config.rate_hz, channels)
        self._channels = [
            SizedEncoder(codec, coding, denoise, packet_bytes)
            if packet_bytes is not None
            else ChannelEncoder(codec, coding, denoise, plan.highest >= codec.plain_levels)
            for _ in range(channels)
        ]
        self._alike = Likeness() if header.coupling == Coupling.JOINED else None
        self._waiting = np.zeros((channels, 0), np.float32)

    def push(self, wave: Array) -> list[Packet]:
        """wave [C, N] (or [N]) float32 at the stream's rate -> packets of the groups it completes."""
        wave = as_sound(wave)
        if len(wave) != self.header.channels:
            raise AudioError("wave", found=f"{len(wave)} channels", wanted=self.header.channels)
        packets = []
        block = self.codec.config.group_samples
        for at in range(0, wave.shape[1], block):
            piece = wave[:, at : at + block]
            self.samples += piece.shape[1]
            self._waiting = np.concatenate([self._waiting, self._resampler.push(piece)], 1)
            packets += self._groups()
        return packets

    def flush(self) -> list[Packet]:
        """The packets of what is left; the stream is at its end."""
        self._waiting = np.concatenate([self._waiting, self._resampler.flush()], 1)
        packets = self._groups()
        if self.samples:
            tail = np.zeros((len(self._channels), self.codec.config.delay_samples), np.float32)
            self._waiting = pad(np.concatenate([self._waiting, tail], 1), self.codec.config.hop_samples)
            packets += self._groups()
            if self._waiting.shape[1]:
                packets += self._code(self._waiting)
        return packets

    def _groups(self) -> list[Packet]:
        size = self.codec.config.group_samples
        packets = []
        while self._waiting.shape[1] >= size:
            packets += self._code(self._waiting[:, :size])
            self._waiting = self._waiting[:, size:]
        return packets

    def _code(self, waves: Array) -> list[Packet]:
        level = self.plan.choose()
        balance = self._balance(waves)
        if balance == APART:
            mutes = (None, APART) if self._alike else len(waves) * (None,)
            turns = zip(self._channels, waves, mutes, strict=True)
            packets = [channel.group(wave, level, mute) for channel, wave, mute in turns]
        else:
            packets = self._once(waves, level, balance)
        size = sum(len(container.pack_packet(packet)) for packet in packets)
        self.plan.record(size, waves.shape[1] / self.codec.config.rate_hz)
        return packets

    def _balance(self, waves: Array) -> int:
        """Of a group waves [C, N]: APART, or the balance at which one packet does for both channels."""
        if self._alike is None:
            return APART
        found = self._alike.balance(waves)
        return APART if any(is_silent(wave, self.codec.config.hop_samples) for wave in waves) else found

    def _once(self, waves: Array, level: int, balance: int) -> list[Packet]:
        """Packets of a group waves [2, N] that are alike."""
        first, second = self._channels
        second.code = first.code  # from which the decoder sets out
        packet = first.group(carrier(waves, balance), level)
        second.gain(waves[1])
        second.latents(waves[1], level, first.code, factor_of(balance))  # so that it knows the past when the two part
        second.fine(first.sent, level)
        return [packet, Packet(balance, b"")]


@dataclass
class Damage:
    """One lost group: which channel, and its place in seconds."""

    channel: int
    start_s: float
    stop_s: float
    reason: str


class ChannelDecoder:
    """Packets of one channel to samples at the model's rate, lagging by the codec's delay."""

    def __init__(self, codec: Codec):
        self.codec = codec
        self.synthesiser = synthesiser_of(codec.config)
        self.past = codec.decoder_net.start()
        self.code: int | None = None
        self.latents = np.zeros((1, codec.config.latent_dims), np.float32)
        self.level = codec.config.levels // 2
        self.factor = 1.0
        self._lost_samples = 0
        self._curve = np.zeros(codec.config.delay_samples, np.float32)  # nothing is heard before the first sample

    def group(self, group: Group, factor: float = 1.0) -> Array:
        """Group -> wave [frames * hop], times `factor`."""
        self._lost_samples, hop, frames = 0, self.codec.config.hop_samples, group.frames
        before, self.factor = self.factor, factor
        if group.symbols is None:
            return self.render(np.zeros((frames, self.codec.config.latent_dims), np.float32), group.level, None)
        latents = self.codec.quantiser.latents(group.symbols, group.level)
        curve = factors(before, factor, frames * hop, hop)
        return self.render(latents, group.level, group.code, curve, group.fine)

    def conceal(self, frames: int) -> Array:
        """wave [frames * hop] in place of a lost packet: the last sound, fading."""
        fade = 0.8 ** np.arange(1, frames + 1, dtype=np.float32)[:, None]
        samples, config = frames * self.codec.config.hop_samples, self.codec.config
        seconds = (self._lost_samples + np.arange(samples)) / config.rate_hz
        self._lost_samples += samples  # a second lost group goes on where the first one faded to
        falling = self.factor * np.exp(-seconds / FADE_S).astype(np.float32)
        return self.render(self.latents * fade, self.level, self.code, falling)

    def render(
        self, latents: Array, level: int, code: int | None, factors: Array | None = None, fine: Array | None = None
    ) -> Array:
        """latents [T, D] at a level -> wave [T * hop].

        The group was coded with the gain `code`, None mutes it; `factors` [N] go on its samples, `fine` refines them.
        """
        hop, samples = self.codec.config.hop_samples, len(latents) * self.codec.config.hop_samples
        curve: Array = np.zeros(samples, np.float32)
        if code is not None:
            curve = (1 if factors is None else factors) / gain_curve(self.code, code, samples, hop)
            self.code = code
        spectra, self.past = self.codec.decoder_net.step(latents, level, self.past)
        self.latents, self.level = latents[-1:], level
        self._curve = np.concatenate([self._curve, curve])
        wave = self.synthesiser.push(spectra)
        if fine is not None:
            assert self.codec.refinement
            wave = wave + self.codec.refinement.wave(fine, wave, level)
        wave = wave * self._curve[:samples]
        self._curve = self._curve[samples:]
        return wave


class StreamDecoder:
    """The packets of a file to blocks of samples at its own rate; `damage` fills up on the way."""

    def __init__(self, codec: Codec, contents: Contents, rate_hz: int | None = None):
        self.codec, self.contents, self.header = codec, contents, contents.header
        self.rate_hz = contents.header.rate_hz if rate_hz is None else rate_hz
        if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError("rate", found=f"{rate_hz} Hz", wanted=f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        self.damage: list[Damage] = []
        self.coding = codec.coding(contents.header)
        self._channels = [ChannelDecoder(codec) for _ in range(contents.header.channels)]
        self._balance = APART
        self._resampler = Resampler(codec.config.rate_hz, self.rate_hz, contents.header.channels)

    @property
    def frames(self) -> int | None:
        """Latent frames in all, or None where the file was cut before its end packet."""
        if self.contents.samples is None:
            return None
        config = self.codec.config
        return config.frames_for(resampled_count(self.contents.samples, self.header.rate_hz, config.rate_hz))

    def group_frames(self, group: int) -> int:
        """Frames of this group: full but for the last."""
        size = self.codec.config.group_frames
        return size if self.frames is None else min(size, self.frames - group * size)

    @property
    def samples(self) -> int:
        """Samples per channel that come out: all that went in, or what the packets of a cut file stand for."""
        config, header, whole = self.codec.config, self.header, self.contents.samples
        reached = max(0, self._groups() * config.group_samples - config.delay_samples)
        at_file_rate = reached * header.rate_hz // config.rate_hz
        if whole is not None and (self.contents.missing == 0 or whole < at_file_rate):
            at_file_rate = whole
        return resampled_count(at_file_rate, header.rate_hz, self.rate_hz)

    def blocks(self) -> Iterator[Array]:
        """wave [C, N] float32, about a second each; `samples` in all."""
        left, skip = self.samples, self.codec.config.delay_samples
        for wave in self._waves():
            ready = self._resampler.push(wave[:, skip:])
            skip = max(0, skip - wave.shape[1])
            if left and ready.shape[1]:
                yield ready[:, :left]
                left -= min(left, ready.shape[1])
        tail = self._resampler.flush()[:, :left]
        yield np.pad(tail, ((0, 0), (0, left - tail.shape[1])))

    def _groups(self) -> int:
        return ceil_div(len(self.contents.packets), self.header.channels)

    def groups(self) -> Iterator[tuple[int, list[Packet | None], list[Group | StreamError]]]:
        """(group, packets, what they hold) group after group; many are read side by side."""
        channels, most = self.header.channels, max(1, SIDE_BY_SIDE // self.header.channels)
        for first in range(0, self._groups(), most):
            packets = self.contents.packets[first * channels : (first + most) * channels]
            packets = packets + [None] * (-len(packets) % channels)
            places = [first + index // channels for index in range(len(packets))]
            found = self.coding.unpack(packets, [self.group_frames(group) for group in places])
            for at in range(0, len(packets), channels):
                yield places[at], packets[at : at + channels], found[at : at + channels]

    def _waves(self) -> Iterator[Array]:
        for group, packets, found in self.groups():
            self._balance = self._balance_of(packets)
            if self._balance == APART:
                waves = [self._wave(index, group, held) for index, held in enumerate(found)]
            else:
                waves = self._both(group, packets, found[0])
            yield np.stack(waves)

    def _balance_of(self, packets: list[Packet | None]) -> int:
        """Whether and how the first packet of a group stands for the second channel too."""
        if self.header.coupling != Coupling.JOINED:
            return APART
        second = packets[1]
        if second is None:  # lost, and more likely than not what the one before was
            return self._balance
        return APART if second.payload else second.level

    def _both(self, group: int, packets: list[Packet | None], held: Group | StreamError) -> list[Array]:
        """Two waves [N] from the first packet; where that is lost each channel is concealed by its own past."""
        (first, second), frames = self._channels, self.group_frames(group)
        gain = first.code  # from which the encoder set out
        waves = [self._wave(0, group, held)]
        if packets[1] is None:
            self.note_damage(1, group, LOST)
        if isinstance(held, StreamError):  # noted with the first channel
            return [*waves, second.conceal(frames)]
        second.code = gain
        return [*waves, second.group(held, factor_of(self._balance))]

    def _wave(self, channel: int, group: int, held: Group | StreamError) -> Array:
        if isinstance(held, Group):
            return self._channels[channel].group(held)
        self.note_damage(channel, group, str(held))
        return self._channels[channel].conceal(self.group_frames(group))

    def note_damage(self, channel: int, group: int, reason: str) -> None:
        """Add a lost group to `damage`, with its place in time."""
        config = self.codec.config
        start_s = group * config.group_samples / config.rate_hz
        stop_s = start_s + self.group_frames(group) * config.hop_samples / config.rate_hz
        self.damage.append(Damage(channel, start_s, stop_s, reason))


def verify(codec: Codec, contents: Contents) -> list[Damage]:
    """The damaged groups of a file, found from the symbols alone, without rendering sound."""
    stream = StreamDecoder(codec, contents)
    channels, joined = contents.header.channels, contents.header.coupling == Coupling.JOINED
    for group, packets, found in stream.groups():
        written = len(contents.packets) - group * channels  # a cut file may end inside a group
        for channel, (packet, held) in enumerate(zip(packets[:written], found[:written], strict=True)):
            copy = joined and channel and packet is not None and not packet.payload
            if isinstance(held, StreamError) and not copy:
                stream.note_damage(channel, group, str(held))
    return stream.damage
