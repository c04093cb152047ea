"""What a caller may request of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.codec.band import KHZ, LEAST_KBPS, LEAST_RATE_HZ, NARROW, fits_core, widest
from nacre.codec.fixed_size import MAX_PACKET_BYTES, MIN_PACKET_BYTES
from nacre.codec.packets import CONTEXT, PRIORS
from nacre.codec.rate_control import RatePlan, fixed_plan, plan_rate
from nacre.core.errors import UsageError
from nacre.dsp.stereo import AUTO, MODES
from nacre.format.file import Band
from nacre.model.model import Model


@dataclass(frozen=True)
class Settings:
    """What a caller may request of an encoder; see `Codec.encode`."""

    bitrate_kbps: float | None = None
    quality: float | None = None
    stereo: str = AUTO
    prior: str = CONTEXT
    denoise: bool = False
    packet_bytes: int | None = None
    level: int | None = None
    band_khz: int | None = NARROW

    def check(self, model: Model) -> None:
        """Raise UsageError for what a model cannot do."""
        for name in ("bitrate_kbps", "quality", "packet_bytes"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if value is not None and not number:
                raise UsageError(f"{name} must be a number, not {repr(value)[:40]}")
        if self.stereo not in MODES:
            raise UsageError(f"stereo must be {' or '.join(MODES)}, not {self.stereo}")
        if self.prior not in PRIORS:
            raise UsageError(f"prior must be {' or '.join(PRIORS)}, not {self.prior}")
        if self.denoise and not model.denoises:
            raise UsageError(f"model {model.name} cannot denoise; choose a model that can denoise")
        if self.level is not None:
            self._check_level(model)

    def plan(self, model: Model, channels: int) -> RatePlan:
        """How levels are chosen. Raises UsageError."""
        if self.level is not None:
            return fixed_plan(model, channels, self.level, self.prior)
        plain = self.denoises_latents(model)  # residual levels would bring the noise back
        return plan_rate(model, channels, self.bitrate_kbps, self.quality, self.prior, plain)

    def denoises_latents(self, model: Model) -> bool:
        """Whether the encoder has to leave out the noise, since the model has no denoiser to do it before."""
        return self.denoise and model.denoiser is None

    def band(self, model: Model, rate_hz: int, channels: int) -> Band:
        """The band layer of a file: up to `band_khz` at most or, of None, where it suits. Raises UsageError."""
        if self.band_khz is not None and self.band_khz not in KHZ:
            raise UsageError(f"band must be 8, 12 or 20 kHz, not {self.band_khz}")
        without = "denoise" if self.denoise else "packet_bytes" if self.packet_bytes else ""
        if not fits_core(model):
            without = f"model {model.name}"
        if self.band_khz is None:
            sparse = self.bitrate_kbps is not None and self.bitrate_kbps < LEAST_KBPS * channels
            bare = without or sparse or self.level is not None or rate_hz < LEAST_RATE_HZ
            return Band.NONE if bare else widest(rate_hz)
        if without and self.band_khz != NARROW:
            raise UsageError(f"band must be {NARROW} kHz with {without}, not {self.band_khz} kHz")
        return min(widest(rate_hz), KHZ[self.band_khz])

    def _check_level(self, model: Model) -> None:
        others = [name for name in ("bitrate_kbps", "quality", "packet_bytes") if getattr(self, name) is not None]
        if others:
            raise UsageError(f"level and {others[0]} exclude each other; give one of them")
        if self.denoises_latents(model) and model.level(self.level) >= model.plain_levels:
            raise UsageError(f"level must be 0 to {model.plain_levels - 1} with denoise, not {self.level}")

    def check_size(self) -> None:
        """Raise UsageError for packets of one size that cannot be."""
        if self.packet_bytes is None:
            return
        if self.bitrate_kbps is not None or self.quality is not None:
            raise UsageError("packet_bytes does not go with a bitrate or quality; give one of them")
        if not MIN_PACKET_BYTES <= self.packet_bytes <= MAX_PACKET_BYTES:
            span = f"{MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}"
            raise UsageError(f"packet_bytes must be {span}, not {self.packet_bytes}")
