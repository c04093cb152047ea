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
                raise UsageError(name, found=repr(value)[:40], wanted="a number")
        if self.stereo not in MODES:
            raise UsageError("stereo", found=self.stereo, wanted=" or ".join(MODES))
        if self.prior not in PRIORS:
            raise UsageError("prior", found=self.prior, wanted=" or ".join(PRIORS))
        if self.denoise and not model.denoises:
            raise UsageError("denoise", found=f"model {model.name}", wanted="a model that can denoise")
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
            raise UsageError("band", found=self.band_khz, wanted="8, 12 or 20 kHz")
        without = "denoise" if self.denoise else "packet_bytes" if self.packet_bytes else ""
        if not fits_core(model):
            without = f"model {model.name}"
        if self.band_khz is None:
            sparse = self.bitrate_kbps is not None and self.bitrate_kbps < LEAST_KBPS * channels
            bare = without or sparse or self.level is not None or rate_hz < LEAST_RATE_HZ
            return Band.NONE if bare else widest(rate_hz)
        if without and self.band_khz != NARROW:
            raise UsageError("band", found=f"{self.band_khz} kHz with {without}", wanted=f"{NARROW} kHz")
        return min(widest(rate_hz), KHZ[self.band_khz])

    def _check_level(self, model: Model) -> None:
        others = [name for name in ("bitrate_kbps", "quality", "packet_bytes") if getattr(self, name) is not None]
        if others:
            raise UsageError("level", found=f"{others[0]} too", wanted="one of them")
        if self.denoises_latents(model) and model.level(self.level) >= model.plain_levels:
            wanted = f"0 to {model.plain_levels - 1}"
            raise UsageError("level", found=f"{self.level}, with denoise", wanted=wanted)

    def check_size(self) -> None:
        """Raise UsageError for packets of one size that cannot be."""
        if self.packet_bytes is None:
            return
        if self.bitrate_kbps is not None or self.quality is not None:
            raise UsageError("packet_bytes", found="a bitrate or quality too", wanted="one of them")
        if not MIN_PACKET_BYTES <= self.packet_bytes <= MAX_PACKET_BYTES:
            wanted = f"{MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}"
            raise UsageError("packet_bytes", found=self.packet_bytes, wanted=wanted)
