"""A model as an engine needs it: graphs, quantiser, priors and settings, loaded and checked once, never changed."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.core.config import CodecConfig, DenoiserConfig
from nacre.core.errors import BundleError, UsageError
from nacre.core.types import Array
from nacre.dsp.low_delay import LowDelay
from nacre.dsp.mel import LogMelAnalyser, LogMelSynthesiser
from nacre.dsp.noise import NoiseSynthesiser
from nacre.dsp.stft import Analyser, Synthesiser
from nacre.entropy.context_prior import ContextPrior
from nacre.entropy.residual import ResidualLayer
from nacre.entropy.static_prior import StaticPrior
from nacre.model import bundle as bundles
from nacre.model.bundle import Bundle
from nacre.model.runtime import Network
from nacre.quantise.base import Quantiser


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A graph that gives spectra complex masks, [T, 2 * bins] both, real parts first; its settings and windows."""

    net: Network
    config: DenoiserConfig
    frames: LowDelay


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that encodes or decodes, below the engines. Creation raises BundleError where parts do not fit.

    Its parts keep nothing between calls, so threads may share it.
    """

    bundle: Bundle
    encoder_net: Network
    decoder_net: Network
    analyser: Analyser | LogMelAnalyser
    synthesiser: Synthesiser | LogMelSynthesiser
    quantiser: Quantiser
    static_prior: StaticPrior
    context_prior: ContextPrior | None = None
    residual: ResidualLayer | None = None
    cleaning_span: tuple[float, float] | None = None
    denoiser: Denoiser | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        if self.context_prior:
            _check_context(self, self.context_prior)
        if self.residual:
            _check_residual(self, self.residual)
        try:
            self.quantiser.check_tables(self.static_prior.counts)
        except BundleError as error:
            raise BundleError(f"{self.bundle.folder}: {error}") from error

    @classmethod
    def load(cls, bundle: Bundle, threads: int = 1) -> Model:
        """Everything in a bundle but its graphs, which are opened when they are needed. Raises BundleError."""
        c, quantiser = bundle.config, bundle.quantiser()
        encoder_widths = c.steps_per_frame * c.step_width, quantiser.width_in
        if c.mel_bands > c.bins:  # sizes that nobody has memory for, too
            raise BundleError(f"{bundle.folder} has mel_bands {c.mel_bands}, more than the {c.bins} bins of a spectrum")
        try:
            analyser, synthesiser = analyser_of(c), synthesiser_of(c)
        except UsageError as error:
            raise BundleError(f"{bundle.folder}: {error}") from error
        return cls(
            bundle,
            Network(bundle.part("encoder.onnx"), threads, encoder_widths),
            Network(bundle.part("decoder.onnx"), threads, (c.latent_dims, c.decoder_width), c.steps_per_frame),
            analyser,
            synthesiser,
            quantiser,
            StaticPrior.load(bundle.part(bundles.PRIOR)),
            ContextPrior.load(bundle.part(bundles.CONTEXT)) if bundle.has_context else None,
            ResidualLayer.load(bundle.part(bundles.RESIDUAL)) if bundle.has_residual else None,
            bundle.facts.cleaning_span,
            denoiser_of(bundle, threads),
        )

    @property
    def config(self) -> CodecConfig:
        """Settings."""
        return self.bundle.config

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.bundle.name

    @property
    def denoises(self) -> bool:
        """Whether it can leave out noise: by a denoiser, or by its encoder's levels for it."""
        return self.denoiser is not None or self.config.cleans

    @property
    def plain_levels(self) -> int:
        """How many levels, the lowest, do without a residual layer."""
        return self.residual.first_level if self.residual else self.config.levels

    def symbols(self, latents: Array, level: int) -> Array:
        """latents [T, X] -> symbols [T, K] of the quantiser, within what the static tables have codes for."""
        return self.quantiser.symbols(latents, level, self.static_prior.limits(level), self.static_prior.costs(level))

    def latents(self, symbols: Array, level: int) -> Array:
        """symbols [T, K] -> latents [T, D] for the decoder graph."""
        return self.quantiser.latents(symbols, level)

    def level(self, level: int | None) -> int:
        """A quality level, by default the highest that has no residual layer. Raises UsageError."""
        if level is not None and not (0 <= level < self.config.levels and level == int(level)):
            raise UsageError(f"level must be 0 to {self.config.levels - 1}, not {level}")
        return self.plain_levels - 1 if level is None else int(level)

    def _check_sizes(self) -> None:
        """Check that tables have the sizes of the settings."""
        c, quantiser, tables = self.config, self.quantiser, self.static_prior.counts.shape[:2]
        sizes, needed = (quantiser.width_out, quantiser.levels, *tables), (c.latent_dims, c.levels, c.levels)
        if sizes != (*needed, quantiser.columns):
            given = f"{sizes}, not {(*needed, quantiser.columns)} as model.json says"
            raise BundleError(f"{self.bundle.folder} has tables of the sizes {given}; copy the model again")


def _check_context(model: Model, prior: ContextPrior) -> None:
    sizes = (model.config.levels, model.quantiser.columns)
    if (prior.sizes.levels, prior.sizes.dims) != sizes:
        given = f"{(prior.sizes.levels, prior.sizes.dims)} levels and dims, not {sizes}"
        raise BundleError(f"{model.bundle.folder} has a context prior of {given}; copy the model again")


def _check_residual(model: Model, layer: ResidualLayer) -> None:
    if model.config.mel_bands:
        raise BundleError(f"{model.bundle.folder} has a residual layer, which log-mel models cannot have")
    sizes = (len(layer.arrays["steps"]), layer.size * layer.per_frame)
    if sizes != (needed := (model.config.levels, model.config.hop_samples)):
        given = f"{sizes} levels and samples, not {needed}"
        raise BundleError(f"{model.bundle.folder} has a residual layer of {given}; copy the model again")


def denoiser_of(bundle: Bundle, threads: int = 1) -> Denoiser | None:
    """The denoiser of a bundle that has one."""
    if (config := bundle.denoiser) is None:
        return None
    widths = 2 * config.bins, 2 * config.bins
    net = Network(bundle.part(bundles.DENOISER), threads, widths, levels=False)
    return Denoiser(net, config, LowDelay(config.window_samples, config.step_samples))


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
    return NoiseSynthesiser(config) if config.noise else Synthesiser(config)
