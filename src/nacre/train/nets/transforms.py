"""The fixed transforms of nacre.dsp in torch, so that gradients pass. Parity is tested against numpy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.core.config import CodecConfig
from nacre.dsp.mel import COMPRESSION as MEL_COMPRESSION
from nacre.dsp.mel import LogMelAnalyser
from nacre.dsp.noise import CYCLE_STEPS, fades, noise_cycle
from nacre.dsp.stft import COMPRESSION, LARGEST_LOG, hann_root


class Analysis(nn.Module):
    """The fixed transforms of nacre.dsp.stft in torch, so that gradients pass. Parity is tested against numpy."""

    window: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        self.register_buffer("window", torch.from_numpy(hann_root(codec.window_samples)), persistent=False)
        self.noise = NoiseSubstitution(codec) if codec.noise else None

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N], N a multiple of the hop -> compressed spectra [B, T, steps * 2 * bins]."""
        c = self.codec
        wave = F.pad(wave, (c.window_samples - c.step_samples, 0))
        frames = frame(wave, c.window_samples, c.step_samples)
        spectrum = torch.fft.rfft(frames * self.window, norm="ortho")
        parts = torch.stack([spectrum.real, spectrum.imag], -2)  # [B, steps, 2, bins]
        magnitude = parts.square().sum(-2, keepdim=True).add(1e-24).sqrt() + 1e-6
        compressed = parts * (torch.log1p(COMPRESSION * magnitude) / magnitude)
        return compressed.reshape(wave.shape[0], -1, c.steps_per_frame * 2 * c.bins)

    def sound(self, spectra: Tensor) -> Tensor:
        """What a decoder gives [B, T * steps, X] -> wave [B, N - delay], in time with what went in."""
        return self.sounds(spectra, 1)[0]

    def sounds(self, spectra: Tensor, draws: int) -> list[Tensor]:
        """As `sound`, as often as asked, each with noise of its own where the codec has any."""
        predicted = self.expanded(spectra[..., : self.codec.step_width])
        summed = [predicted] * draws
        if self.noise:
            summed = self.noise(predicted, spectra[..., self.codec.step_width :], draws)
        return [self.wave(parts)[:, self.codec.delay_samples :] for parts in summed]

    def parts(self, spectra: Tensor) -> list[Tensor]:
        """Spectra [B, S, 2, bins] of what a decoder predicts, and of noise beside it where the codec has any."""
        predicted = self.expanded(spectra[..., : self.codec.step_width])
        if not self.noise:
            return [predicted]
        (noise,) = self.noise(torch.zeros_like(predicted), spectra[..., self.codec.step_width :], 1)
        return [predicted * self.noise.predicted_fade, noise]

    def target(self, wave: Tensor) -> Tensor:
        """What `sound` should be: wave [B, N] itself."""
        return wave

    def expanded(self, spectra: Tensor) -> Tensor:
        """Compressed spectra [B, S, 2 * bins] -> their real and imaginary parts as they are [B, S, 2, bins]."""
        parts = spectra.float().unflatten(2, (2, self.codec.bins))
        magnitude = parts.square().sum(-2, keepdim=True).add(1e-9).sqrt()
        return parts * (torch.expm1(magnitude.clamp(max=LARGEST_LOG)) / (COMPRESSION * magnitude))

    def wave(self, parts: Tensor) -> Tensor:
        """Real and imaginary parts [B, T * steps, 2, bins] -> wave [B, N], lagging by the codec's delay."""
        c = self.codec
        frames = torch.fft.irfft(torch.complex(parts[:, :, 0], parts[:, :, 1]), n=c.window_samples, norm="ortho")
        overlap = c.window_samples // c.step_samples
        pieces = (frames * (self.window * (2 / overlap))).unflatten(2, (overlap, c.step_samples))
        steps = pieces.shape[1]
        total = pieces[:, :, 0]
        for lag in range(1, overlap):
            total = total + F.pad(pieces[:, : steps - lag, lag], (0, 0, lag, 0))
        return total.flatten(1)


class LogMel(nn.Module):
    """nacre.dsp.mel.LogMelAnalyser in torch: what a codec of log-mel frames takes, gives, and is judged by."""

    bank: Tensor
    window: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        fixed = LogMelAnalyser(
            codec.rate_hz, codec.window_samples, codec.step_samples, codec.steps_per_frame, codec.mel_bands
        )
        self.register_buffer("bank", torch.from_numpy(fixed._bank), persistent=False)
        self.register_buffer("window", torch.from_numpy(fixed._window), persistent=False)

    def spectra(self, wave: Tensor) -> Tensor:
        """wave [B, N], N a multiple of the hop -> log-mel frames [B, T, steps * bands]."""
        c = self.codec
        frames = frame(F.pad(wave, (c.window_samples - c.step_samples, 0)), c.window_samples, c.step_samples)
        spectrum = torch.fft.rfft(frames * self.window, norm="ortho")
        power = (spectrum.real.square() + spectrum.imag.square()) @ self.bank
        values = torch.log1p(MEL_COMPRESSION * (power + 1e-12).sqrt())
        return values.reshape(wave.shape[0], -1, c.steps_per_frame * c.mel_bands)

    def sound(self, spectra: Tensor) -> Tensor:
        """Log-mel frames [B, T * steps, bands] as they are: sound is found from them outside training."""
        return spectra.float()

    def sounds(self, spectra: Tensor, draws: int) -> list[Tensor]:
        """As `sound`, as often as asked."""
        return [self.sound(spectra)] * draws

    def target(self, wave: Tensor) -> Tensor:
        """wave [B, N] -> the frames that `sound` should be."""
        return self.spectra(wave).unflatten(2, (self.codec.steps_per_frame, -1)).flatten(1, 2)


class NoiseSubstitution(nn.Module):
    """nacre.dsp.noise in torch, with noise that begins elsewhere in its cycle each time."""

    cycle: Tensor
    predicted_fade: Tensor
    noise_fade: Tensor

    def __init__(self, codec: CodecConfig):
        super().__init__()
        self.codec = codec
        for name, factors in zip(("predicted_fade", "noise_fade"), fades(codec), strict=True):
            self.register_buffer(name, torch.from_numpy(factors), persistent=False)
        cycle = noise_cycle(codec)
        parts = torch.from_numpy(np.stack([cycle.real, cycle.imag], 1))  # [CYCLE_STEPS, 2, bins]
        self.register_buffer("cycle", parts, persistent=False)

    def forward(self, predicted: Tensor, levels: Tensor, draws: int) -> list[Tensor]:
        """predicted [B, S, 2, bins], compressed levels [B, S, bins] -> spectra [B, S, 2, bins], one a draw."""
        size = torch.expm1(levels.float().clamp(max=LARGEST_LOG)) / COMPRESSION * self.noise_fade
        faded = predicted * self.predicted_fade
        return [faded + size.unsqueeze(2) * self.drawn(predicted) for _ in range(draws)]

    def drawn(self, like: Tensor) -> Tensor:
        """Noise [B, S, 2, bins] from anywhere in the cycle on, either way up."""
        first = torch.randint(CYCLE_STEPS, (like.shape[0], 1), device=like.device)
        sign = 1 - 2 * torch.randint(2, (like.shape[0], 1, 1, 1), device=like.device)
        return sign * self.cycle[(first + torch.arange(like.shape[1], device=like.device)) % CYCLE_STEPS]


def length_mask(lengths: Tensor, size: int, count: int) -> Tensor:
    """Which of `count` frames of `size` samples hold samples of items so long [B]: [B, T] of 0 and 1."""
    return (torch.arange(count, device=lengths.device) * size < lengths.unsqueeze(1)).float()


def frame(wave: Tensor, size: int, step: int) -> Tensor:
    """wave [B, N] -> overlapping frames [B, T, size]; joined slices keep the backward pass cheap."""
    overlap = size // step
    hops = wave[:, : wave.shape[1] // step * step].unflatten(1, (-1, step))
    count = hops.shape[1] - overlap + 1
    return torch.cat([hops[:, lag : lag + count] for lag in range(overlap)], 2)
