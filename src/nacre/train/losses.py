"""Distortion: how far decoded sound lies from the original, per item of the batch.

Views of the same spectra at several resolutions: compressed magnitudes weighted like the mel scale (they carry
harmonics), log-mel bands (they carry weak sounds), compressed complex values (they carry phase), and, if asked for,
the power of wide bands over some frames (it carries how loud hiss is, which no single bin of noise can tell).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.train.checks import above_zero, check, not_negative
from nacre.train.nets.transforms import frame, length_mask

WIDE_HZ, WIDE_SAMPLES = 800, 512  # a band of the view of power, and how long it is averaged over


@dataclass(frozen=True)
class LossConfig:
    """Windows in samples, mel bands for each, and the weight of each view."""

    windows: tuple[int, ...] = (1024, 512, 256)
    mel_bands: tuple[int, ...] = (80, 64, 40)
    magnitude: float = 4.0
    log_mel: float = 1.0
    complex: float = 2.0
    power: float = 0.0
    exponent: float = 0.3

    def __post_init__(self) -> None:
        framed = "at least one window, each a multiple of 4 samples"
        check(self, "loss", framed, lambda sizes: sizes and all(n > 0 and n % 4 == 0 for n in sizes), "windows")
        bands = f"{len(self.windows)} numbers above 0, one a window"
        check(self, "loss", bands, lambda n: len(n) == len(self.windows) and min(n) > 0, "mel_bands")
        check(self, "loss", "0 or more", not_negative, "magnitude", "log_mel", "complex", "power")
        check(self, "loss", "above 0", above_zero, "exponent")


def hz_to_mel(hz: Tensor) -> Tensor:
    """HTK mel scale."""
    return 2595 * torch.log10(1 + hz / 700)


def mel_filters(bands: int, bins: int, rate_hz: int) -> Tensor:
    """Triangular filters [bins, bands] between 0 and half the rate, each of unit sum."""
    position = hz_to_mel(torch.linspace(0, rate_hz / 2, bins)).unsqueeze(1)
    edges = torch.linspace(0, float(hz_to_mel(torch.tensor(rate_hz / 2))), bands + 2)
    up = (position - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - position) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(up, down).clamp(min=0)
    nearest = (position - edges[1:-1]).abs().argmin(0)
    filters[nearest, torch.arange(bands)] += 1e-3  # narrow low bands may miss every bin
    return filters / filters.sum(0)


def wide_filters(bins: int, rate_hz: int) -> Tensor:
    """Bands of 800 Hz side by side from 0 Hz on, the last one narrower: [bins, bands], each of unit sum."""
    band = (torch.linspace(0, rate_hz / 2, bins) / WIDE_HZ).long().clamp(max=int(rate_hz / 2 / WIDE_HZ - 1e-3))
    filters = F.one_hot(band).float()
    return filters / filters.sum(0)


Features = tuple[Tensor, ...]  # one for each view: [B, T, bins], log-mel bands, compressed values, log of wide bands


@dataclass(frozen=True)
class Scales:
    """What the views of one window are weighted and summed by. `wide` is None where nobody asks for its view."""

    density: Tensor  # [bins]
    mel: Tensor  # [bins, bands]
    wide: Tensor | None  # [bins, bands]
    frames: int  # that wide bands are averaged over, odd
    exponent: float


def features(spectra: Tensor, scales: Scales) -> Features:
    """Spectra [2, B, T, bins] as the views look at them."""
    power = spectra.square().sum(0) + 1e-7
    log_power, exponent = power.log(), scales.exponent  # exp of a scaled log is far cheaper than pow
    unit = ((exponent / 2 - 0.5) * log_power).exp()
    views = [(exponent / 2 * log_power).exp(), torch.log(power @ scales.mel + 1e-6), spectra * unit]
    if scales.wide is not None:
        near, count = (power @ scales.wide).transpose(1, 2), scales.frames
        near = F.avg_pool1d(near, count, 1, count // 2, count_include_pad=False)
        views.append(torch.log(near.transpose(1, 2) + 1e-6))
    return tuple(views)


def apart(ours: Features, theirs: Features, density: Tensor, root: bool) -> dict[str, Tensor]:
    """Each view's distortion [B, T]; `root` takes the complex values' distance itself, in place of its square."""
    squared = (ours[2] - theirs[2]).square().sum(0)
    views = {
        "magnitude": ((ours[0] - theirs[0]).abs() * density).sum(2),
        "log_mel": 0.5 * (ours[1] - theirs[1]).abs().mean(2),
        "complex": (((squared + 1e-8).sqrt() if root else squared) * density).sum(2),
    }
    if len(ours) > 3:
        views["power"] = 0.5 * (ours[3] - theirs[3]).abs().mean(2)
    return views


def views(ours: Tensor, theirs: Tensor, scales: Scales) -> dict[str, Tensor]:
    """Spectra [2, B, T, bins] -> each view's distortion [B, T]; free of complex numbers, so that it can be compiled."""
    return apart(features(ours, scales), features(theirs, scales), scales.density, False)


def energy_views(ours: Tensor, other: Tensor, theirs: Tensor, scales: Scales) -> dict[str, Tensor]:
    """As `views`, of two draws of decoded sound: their distances to the recording less the distance between them.

    This is the energy distance (Gritsenko et al., 2020): least where draws are spread as recordings are, so that noise
    keeps its level, where a plain distance would shrink it to its mean.
    """
    first, second, true = (features(spectra, scales) for spectra in (ours, other, theirs))
    density = scales.density
    near, far, between = (apart(a, b, density, True) for a, b in ((first, true), (second, true), (first, second)))
    return {name: near[name] + far[name] - between[name] for name in near}


def planar_spectra(wave: Tensor, window: Tensor) -> Tensor:
    """wave [B, N] -> real and imaginary parts [2, B, T, bins] of frames a quarter of the window apart, centred."""
    size = len(window)
    frames = frame(F.pad(wave, (size // 2, size // 2)), size, size // 4)
    spectrum = torch.fft.rfft(frames * (window * math.sqrt(8 / 3 / size)))
    return torch.stack([spectrum.real, spectrum.imag])  # planar, so that compiled loops use vectors


class SpectralLoss(nn.Module):
    """Distortion [B] between wave [B, N] and its decoded copy, and its parts for the log."""

    def __init__(self, config: LossConfig, rate_hz: int, compile: bool = False):
        super().__init__()
        self.config = config
        self.views = torch.compile(views, dynamic=False) if compile else views
        self.energy_views = torch.compile(energy_views, dynamic=False) if compile else energy_views
        for size, bands in zip(config.windows, config.mel_bands, strict=True):
            bins = size // 2 + 1
            hz = torch.linspace(0, rate_hz / 2, bins)
            density = 1 / (700 + hz)
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)
            self.register_buffer(f"density{size}", density / density.sum(), persistent=False)
            self.register_buffer(f"mel{size}", mel_filters(bands, bins, rate_hz), persistent=False)
            self.register_buffer(f"wide{size}", wide_filters(bins, rate_hz) if config.power else None, persistent=False)

    def forward(
        self, decoded: Tensor, wave: Tensor, lengths: Tensor | None = None, other: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """decoded, wave [B, N], lengths [B] samples of each item (all where None); `other` [B, N] is a second draw.

        Returns (distortion [B], its weighted parts, each [B]); what lies beyond an item's length does not count. With
        a second draw the distortion is an energy distance.
        """
        c, waves = self.config, [decoded, wave] if other is None else [decoded, other, wave]
        if lengths is not None:
            inside = length_mask(lengths, 1, decoded.shape[1])
            waves = [each * inside for each in waves]
        total: dict[str, Tensor] = {}
        for size in c.windows:
            for name, value in self._view(size, waves).items():
                total[name] = total.get(name, 0) + mean_length_mask(value, lengths, size // 4) / len(c.windows)
        parts = {name: getattr(c, name) * value for name, value in total.items()}
        return torch.stack(list(parts.values())).sum(0), parts

    def _view(self, size: int, waves: list[Tensor]) -> dict[str, Tensor]:
        compare: Callable[..., dict[str, Tensor]] = self.views if len(waves) == 2 else self.energy_views
        spectra = [planar_spectra(wave, getattr(self, f"window{size}")) for wave in waves]
        density, mel, wide = (getattr(self, f"{name}{size}") for name in ("density", "mel", "wide"))
        frames = 2 * (WIDE_SAMPLES // (size // 4) // 2) + 1
        return compare(*spectra, Scales(density, mel, wide, frames, self.config.exponent))


def mean_length_mask(values: Tensor, lengths: Tensor | None, hop: int) -> Tensor:
    """Mean over frames of values [B, T], `hop` samples apart, that are centred inside lengths [B]; -> [B]."""
    if lengths is None:
        return values.mean(1)
    inside = length_mask(lengths + 1, hop, values.shape[1])
    return (values * inside).sum(1) / inside.sum(1)


class MelLoss(nn.Module):
    """Mean distance of log-mel frames, for codecs that give those instead of sound."""

    def __init__(self, step_samples: int):
        super().__init__()
        self.step_samples = step_samples

    def forward(
        self, decoded: Tensor, frames: Tensor, lengths: Tensor | None = None, other: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """decoded, frames [B, S, bands], lengths [B] in samples -> (distortion [B], its parts); `other` is None."""
        away = (decoded - frames).abs().mean(2)
        loss = away.mean(1)
        if lengths is not None:
            inside = length_mask(lengths, self.step_samples, away.shape[1])
            loss = (away * inside).sum(1) / inside.sum(1)
        return loss, {"log_mel": loss}
