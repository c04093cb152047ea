"""What a denoiser is trained by: how far the sound that its masks make is from clean speech.

    masks x noisy spectra --synthesis--> wave --compressed spectra, several windows--> distance to those of clean speech
                                          |---------- error over power, in tens of dB --^

The sound is put together first, so that what windows do to masks counts too. Compressed spectra follow Braun and
Tashev, "A consolidated view of loss functions for supervised deep learning-based speech enhancement" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import DenoiserConfig
from nacre.dsp.low_delay import windows
from nacre.train.denoise_net import QUARTER, compressed

CLOSE = 1e-3  # of the power of speech: an error that need not get smaller
FINE_HZ = 2000.0  # above it bins count less, as hearing tells them apart less


class DenoiseLoss(nn.Module):
    """Distance of denoised from clean sound.

    `magnitude` is the share of sizes in the distance of spectra, the rest is that of complex values. Sizes that are too
    small count `under` times: a mean of what may be speech and may be noise takes too much of both. `wave` is the
    weight of the error's level. `sizes` are those of the windows that look, in samples; `compression` is the power
    that they see sizes to: the smaller, the more faint sound counts.
    """

    analysis: Tensor
    synthesis: Tensor

    def __init__(
        self,
        denoiser: DenoiserConfig,
        rate_hz: int,
        magnitude: float,
        wave: float = 0.0,
        sizes: Sequence[int] = (512,),
        under: float = 1.0,
        compression: float = QUARTER,
    ):
        super().__init__()
        analysis, synthesis = map(torch.from_numpy, windows(denoiser.window_samples, denoiser.step_samples))
        scale = analysis.square().sum().sqrt()
        self.register_buffer("analysis", analysis / scale, False)
        self.register_buffer("synthesis", synthesis * scale, False)
        for size in sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.square().sum().sqrt(), False)
        self.denoiser, self.rate_hz, self.fall = denoiser, rate_hz, denoiser.fall(rate_hz)
        self.magnitude, self.wave, self.sizes, self.under = magnitude, wave, tuple(sizes), under
        self.compression = compression

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N] -> [B, T, 2, bins], as the network has them."""
        size, step = self.denoiser.window_samples, self.denoiser.step_samples
        spectra = torch.fft.rfft(F.pad(wave, (size - step, 0)).unfold(-1, size, step) * self.analysis)
        return torch.stack([spectra.real, spectra.imag], 2)

    def ready(self, spectra: Tensor) -> Tensor:
        """What the network is given [B, T, 2 * bins]: spectra over the loudest level so far, as it falls."""
        level = spectra.square().sum(2).mean(-1).clamp_min(1e-8).log().mul(0.5)  # [B, T]
        slope = torch.arange(level.shape[1], device=level.device) * -torch.tensor(self.fall).log()
        loudest = (level + slope).cummax(1).values - slope
        return (spectra * (-loudest).exp()[..., None, None]).flatten(2)

    def heard(self, masks: Tensor, noisy: Tensor) -> Tensor:
        """masks [B, T, 2 * bins], spectra [B, T, 2, bins] -> wave [B, N], a step behind."""
        mask = masks.unflatten(-1, (2, -1))
        product = torch.complex(mask[:, :, 0], mask[:, :, 1]) * torch.complex(noisy[:, :, 0], noisy[:, :, 1])
        frames = torch.fft.irfft(product, self.denoiser.window_samples)[..., -2 * self.denoiser.step_samples :]
        first, second = (frames * self.synthesis).chunk(2, -1)
        return (first + F.pad(second, (0, 0, 1, 0))[:, :-1]).flatten(1)

    def forward(self, masks: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
        """masks [B, T, 2 * bins], spectra [B, T, 2, bins], wave [B, N] -> [B]."""
        step = self.denoiser.step_samples
        ours, clean = self.heard(masks, noisy)[:, step:], clean[:, :-step]
        distance = torch.stack([self.distance(ours, clean, size) for size in self.sizes]).mean(0)
        if not self.wave:
            return distance
        power = clean.square().mean(-1)
        error = (ours - clean).square().mean(-1) / power.clamp_min(CLOSE)
        return distance + self.wave * torch.log10(1 + error / CLOSE) * (power > 0)

    def distance(self, ours: Tensor, clean: Tensor, size: int) -> Tensor:
        """Of two waves [B, N], by windows of this size: [B]."""
        hz = torch.arange(size // 2 + 1, device=ours.device) * (self.rate_hz / size)
        weight = 1 / (hz + FINE_HZ)
        away = self.seen(ours, size) - self.seen(clean, size)
        error, under = away.square(), torch.where(away[:, :, 2] < 0, self.under, 1.0)
        error = self.magnitude * under * error[:, :, 2] + (1 - self.magnitude) * error[:, :, :2].sum(2)
        return (error.mean(1) * (weight / weight.sum())).sum(-1)

    def seen(self, wave: Tensor, size: int) -> Tensor:
        """wave [B, N] -> compressed spectra [B, T, 3, bins]: real, imaginary part and size."""
        spectra = torch.fft.rfft(wave.unfold(-1, size, size // 4) * self.get_buffer(f"window_{size}"))
        return compressed(torch.stack([spectra.real, spectra.imag], -2), self.compression)
