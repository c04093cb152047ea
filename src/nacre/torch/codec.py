"""The codec of a model folder as an `nn.Module`: what the numpy codec does, for batches, with gradients, on any device.

wave [B, N] --encode--> latents [B, T, D], gains [B, G] --quantise--> tokens [B, T, K] --decode--> wave [B, N]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.codec.frames import SILENT
from nacre.codec.tokens import symbols_of
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.dsp.noise import CYCLE_STEPS
from nacre.model import bundle as bundles
from nacre.model.bundle import Bundle
from nacre.model.model import Model
from nacre.quantise.base import Quantiser
from nacre.torch import residual, weights
from nacre.torch.levelling import Levelled, levelled, sources, undone
from nacre.train.nets.transforms import Analysis, LogMel, NoiseSubstitution

Lengths = Tensor | Sequence[int] | None


@dataclass(frozen=True, eq=False)
class Encoded:
    """latents [B, T, D] as the decoder takes them, gain codes [B, G] int8, frame_mask [B, T] bool, lengths [B] samples.

    `raw` [B, T, X] is what the quantiser takes, `ready` [B, T * hop] the wave at its gains. Frames beyond an item's own
    are 0, as are those of silent groups.
    """

    latents: Tensor
    raw: Tensor
    ready: Tensor
    gains: Tensor
    frame_mask: Tensor
    lengths: Tensor
    level: int


@dataclass(frozen=True, eq=False)
class Quantised:
    """tokens [B, T, K] int64 from 0; latents [B, T, D] of them, whose gradient goes straight through the rounding.

    `fine` [B, T, hop] int16 are the symbols of the residual layer, at levels that have one.
    """

    tokens: Tensor
    latents: Tensor
    fine: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """wave [B, N] that came back, and what it was made of."""

    wave: Tensor
    encoded: Encoded
    quantised: Quantised


class CycledNoise(NoiseSubstitution):
    """Noise that begins where the decoder's does, so that sound is the same as in ONNX."""

    def drawn(self, like: Tensor) -> Tensor:
        """Spectra [1, S, 2, bins] from the beginning of the cycle on."""
        return self.cycle[torch.arange(like.shape[1], device=like.device) % CYCLE_STEPS].unsqueeze(0)


class NacreCodec(nn.Module):
    """Encoder, quantiser and decoder of a model. Sound is at the model's rate, `sampling_rate`, one channel an item."""

    def __init__(self, bundle: Bundle, networks: weights.Networks):
        super().__init__()
        self.model = Model.load(bundle)  # for its quantiser and tables; its graphs stay closed
        self.config, self.networks = bundle.config, networks
        self.analysis = LogMel(bundle.config) if bundle.config.mel_bands else Analysis(bundle.config)
        if bundle.config.noise:
            self.analysis.noise = CycledNoise(bundle.config)

    @classmethod
    def from_pretrained(cls, model: str | Path = DEFAULT_MODEL) -> NacreCodec:
        """A model by name or folder, on the CPU, evaluating. Raises UsageError, BundleError.

        Weights come from `weights.safetensors` in its folder, else out of its graphs; recurrent ones take some seconds
        and `nacre[train]`.
        """
        bundle = bundles.find(model)
        return cls(bundle, weights.networks_of(bundle)).eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """The model folder with weights beside the graphs, for `from_pretrained`. Raises UsageError.

        The graphs stay as they are: weights that were trained on are none of theirs, and belong in a `state_dict`.
        """
        weights.save(self.networks, self.model.bundle, Path(folder))

    @property
    def sampling_rate(self) -> int:
        """Of the sound that goes in and comes out, in Hz."""
        return self.config.rate_hz

    def forward(self, wave: Tensor, lengths: Lengths = None, level: int | None = None) -> Reconstruction:
        """wave [B, N] float32, lengths [B] in samples -> the wave [B, N] that comes back; see `encode`."""
        encoded = self.encode(wave, lengths, level)
        quantised = self.quantise(encoded)
        return Reconstruction(self.decode(encoded, quantised.latents, quantised.fine), encoded, quantised)

    def encode(self, wave: Tensor, lengths: Lengths = None, level: int | None = None) -> Encoded:
        """wave [B, N] float32, lengths [B] in samples, all of N by default -> latents. Raises UsageError.

        An item does not depend on the others or on what stands beyond its length. Gains are chosen outside autograd;
        gradients go through all else. `level` is by default the highest without a residual layer.
        """
        chosen, sizes = self.model.level(level), self._sizes(wave, lengths)
        host = wave.detach().float().cpu().numpy()
        items = [levelled(self.model, row[:size]) for row, size in zip(host, sizes, strict=True)]
        frames = [len(item.curve) // self.config.hop_samples for item in items]
        gains = _padded([item.gains for item in items], SILENT, np.int8)
        ready = self._ready(wave, sizes, items, max(frames))
        levels = torch.full((len(sizes),), chosen, device=wave.device)
        outputs, _ = self.networks.encoder(self.analysis.spectra(ready), levels)
        raw = self.networks.bottleneck.to_latent(outputs, levels)
        mask = np.arange(max(frames)) < np.array(frames)[:, None]
        sounding = mask & (np.repeat(gains, self.config.group_frames, 1)[:, : max(frames)] != SILENT)
        inside = torch.from_numpy(sounding).to(wave.device).unsqueeze(2)
        latents = self._unrounded(self.networks.bottleneck.bypass(outputs, levels), raw, chosen) * inside
        return Encoded(
            latents,
            raw * inside,
            ready,
            torch.from_numpy(gains).to(wave.device),
            torch.from_numpy(mask).to(wave.device),
            torch.tensor(sizes, device=wave.device),
            chosen,
        )

    def quantise(self, encoded: Encoded) -> Quantised:
        """Tokens by the very quantiser of files, and latents of them with gradients straight through."""
        model, level = self.model, encoded.level
        raw = encoded.raw.detach().float().cpu().numpy()
        symbols = model.symbols(raw.reshape(-1, raw.shape[2]), level)  # [B * T, K]
        sounding = self._sounding(encoded)
        symbols = symbols * sounding.reshape(-1, 1)
        lowest, _ = model.static_prior.ranges(level)
        used = model.quantiser.used(level)
        tokens = (symbols - lowest)[:, :used].reshape(*raw.shape[:2], used).astype(np.int64)
        tokens *= encoded.frame_mask.cpu().numpy()[:, :, None]
        values = model.latents(symbols, level).reshape(*raw.shape[:2], -1) * sounding[:, :, None]
        device = encoded.latents.device
        latents = straight(encoded.latents, torch.from_numpy(values).to(device))
        return Quantised(torch.from_numpy(tokens).to(device), latents, self._fine(encoded, latents))

    def latents_of(self, tokens: Tensor, level: int | None = None) -> Tensor:
        """tokens [B, T, K] of one level -> latents [B, T, D] for the decoder."""
        chosen, given = self.model.level(level), tokens.detach().cpu().numpy()
        symbols = symbols_of(self.model, given.reshape(-1, given.shape[2]), chosen)
        latents = self.model.latents(symbols, chosen).reshape(*given.shape[:2], -1)
        return torch.from_numpy(latents).to(tokens.device)

    def decode(self, encoded: Encoded, latents: Tensor | None = None, fine: Tensor | None = None) -> Tensor:
        """The wave [B, N] of what was encoded, or of other latents [B, T, D] with its gains; see `render`."""
        values = encoded.latents if latents is None else latents
        return self.render(values, encoded.gains, encoded.lengths, encoded.level, fine)

    def render(
        self, latents: Tensor, gains: Tensor, lengths: Lengths, level: int | None = None, fine: Tensor | None = None
    ) -> Tensor:
        """latents [B, T, D], gain codes [B, G], lengths [B] in samples -> wave [B, N], 0 beyond each length.

        `fine` [B, T, hop] adds the residual layer of a level that has one; gradients go through the networks alone.
        Raises UsageError where sizes do not fit, and for models of log-mel frames, whose sound is found outside torch.
        """
        chosen, c = self.model.level(level), self.config
        if c.mel_bands:
            advice = "use from_latents of nacre.load(...)"
            raise UsageError(f"model {self.model.name} is of log-mel frames, whose sound torch cannot make; {advice}")
        samples = self._counts(lengths, len(latents))
        frames = [c.frames_for(count) for count in samples]
        self._check(latents, gains, frames, fine)
        codes = self._codes(gains, frames)
        spectra = self._spectra(latents, codes, frames, chosen)
        wave = self.analysis.sound(spectra) if fine is None else self._refined(spectra, codes, frames, chosen, fine)
        factors = _padded([undone(c, *row) for row in zip(codes, frames, strict=True)], 0, np.float32)
        sound = torch.from_numpy(factors).to(latents.device)[:, c.delay_samples :] * wave
        return sound[:, : max(samples)] * _inside(samples, max(samples), latents.device)

    def _codes(self, gains: Tensor, frames: list[int]) -> list[Array]:
        """Gain codes [G] of the groups that each item has."""
        counts = [ceil_div(frame, self.config.group_frames) for frame in frames]
        return [code[:count] for code, count in zip(gains.cpu().numpy(), counts, strict=True)]

    def _spectra(self, latents: Tensor, codes: list[Array], frames: list[int], level: int) -> Tensor:
        """What the decoder gives for latents [B, T, D], [B, T * steps, X]."""
        places = _padded([sources(self.config, *row) for row in zip(codes, frames, strict=True)], -1, np.int64)
        ready = _gathered(latents[:, : max(frames)].float(), torch.from_numpy(places).to(latents.device))
        levels = torch.full((len(frames),), level, device=latents.device)
        spectra: Tensor = self.networks.decoder(self.networks.bottleneck.from_latent(ready, levels), levels)[0]
        return spectra

    def _waves(self, spectra: Tensor, frames: list[int]) -> list[tuple[Array, Array | None]]:
        """Of each item the sound [T * hop], lagging by the delay: what is predicted, and noise beside it, if any."""
        assert isinstance(self.analysis, Analysis)
        with torch.no_grad():
            parts = [self.analysis.wave(part).cpu().numpy() for part in self.analysis.parts(spectra)]
        sizes = [count * self.config.hop_samples for count in frames]
        return [
            (parts[0][index, :size], parts[1][index, :size] if len(parts) > 1 else None)
            for index, size in enumerate(sizes)
        ]

    def _fine(self, encoded: Encoded, latents: Tensor) -> Tensor | None:
        """Symbols of the residual layer [B, T, hop] beside these latents; None at levels without."""
        model, level = self.model, encoded.level
        if not model.residual or not model.residual.covers(level):
            return None
        frames = encoded.frame_mask.sum(1).tolist()
        codes = self._codes(encoded.gains, frames)
        with torch.no_grad():
            waves = self._waves(self._spectra(latents, codes, frames, level), frames)
        ready, made = (
            encoded.ready.detach().cpu().numpy(),
            np.zeros((*latents.shape[:2], self.config.hop_samples), np.int16),
        )
        for index, (predicted, noise) in enumerate(waves):
            row = ready[index, : len(predicted)]
            made[index, : frames[index]] = residual.symbols_of(model, row, predicted, noise, codes[index], level)
        return torch.from_numpy(made).to(latents.device)

    def _refined(self, spectra: Tensor, codes: list[Array], frames: list[int], level: int, fine: Tensor) -> Tensor:
        """The sound [B, T * hop - delay] with the residual layer on it."""
        symbols = fine.cpu().numpy()
        waves = [
            residual.enhanced(self.model, symbols[index], predicted, noise, codes[index], level)
            for index, (predicted, noise) in enumerate(self._waves(spectra, frames))
        ]
        refined = torch.from_numpy(_padded(waves, 0, np.float32)[:, self.config.delay_samples :])
        return straight(self.analysis.sound(spectra), refined.to(spectra.device))

    def _sizes(self, wave: Tensor, lengths: Lengths) -> list[int]:
        """Samples of each item."""
        if wave.ndim != 2 or 0 in wave.shape or not wave.is_floating_point():
            raise UsageError(f"wave is {wave.dtype} {list(wave.shape)}; it must be floats [B, N]")
        sizes = self._counts(lengths, len(wave)) if lengths is not None else [wave.shape[1]] * len(wave)
        if max(sizes) > wave.shape[1]:
            raise UsageError(f"lengths has {max(sizes)}, and the wave only {wave.shape[1]} samples")
        return sizes

    def _counts(self, lengths: Lengths, items: int) -> list[int]:
        counts = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths or [])
        if len(counts) != items or not all(isinstance(size, int) and size > 0 for size in counts):
            raise UsageError(f"lengths is {counts}; it must be {items} whole numbers above 0")
        return counts

    def _ready(self, wave: Tensor, sizes: list[int], items: list[Levelled], frames: int) -> Tensor:
        """wave [B, N] as the networks are given it, [B, frames * hop]."""
        samples = frames * self.config.hop_samples
        offset = _padded([item.offset for item in items], 0, np.float32)
        curve = _padded([item.curve for item in items], 0, np.float32)
        padded = F.pad(wave.float(), (0, max(0, samples - wave.shape[1])))[:, :samples]
        padded = torch.where(_inside(sizes, samples, wave.device), padded, 0.0)
        return (padded - torch.from_numpy(offset).to(wave.device)) * torch.from_numpy(curve).to(wave.device)

    def _unrounded(self, latents: Tensor, raw: Tensor, level: int) -> Tensor:
        """latents [B, T, D] where nothing is rounded, to the value that the codec's quantiser gives them."""
        if type(self.model.quantiser).unrounded is Quantiser.unrounded:
            return raw
        host = raw.detach().float().cpu().numpy()
        values = self.model.quantiser.unrounded(host.reshape(-1, host.shape[2]), level)
        return straight(latents, torch.from_numpy(values.reshape(*host.shape[:2], -1)).to(latents.device))

    def _sounding(self, encoded: Encoded) -> Array:
        """Which frames [B, T] are an item's own and not silent."""
        gains, frames = encoded.gains.cpu().numpy(), encoded.frame_mask.shape[1]
        audible = np.repeat(gains, self.config.group_frames, 1)[:, :frames] != SILENT
        sounding: Array = audible & encoded.frame_mask.cpu().numpy()
        return sounding

    def _check(self, latents: Tensor, gains: Tensor, frames: list[int], fine: Tensor | None) -> None:
        c, groups = self.config, [ceil_div(count, self.config.group_frames) for count in frames]
        if latents.ndim != 3 or latents.shape[2] != c.latent_dims or latents.shape[1] < max(frames):
            wanted = f"[{len(frames)}, {max(frames)}, {c.latent_dims}]"
            raise UsageError(f"latents is {list(latents.shape)}; it must be {wanted}, or have more frames")
        if gains.ndim != 2 or len(gains) != len(frames) or gains.shape[1] < max(groups) or gains.min() < SILENT:
            wanted = f"[{len(frames)}, {max(groups)}] of gain codes, {SILENT} for silence"
            raise UsageError(f"gains is {list(gains.shape)}; it must be {wanted}")
        if fine is not None and (fine.shape != (*latents.shape[:2], c.hop_samples) or not self.model.residual):
            wanted = f"{[*latents.shape[:2], c.hop_samples]}, of a model with a residual layer"
            raise UsageError(f"fine is {list(fine.shape)}; it must be {wanted}")


def straight(values: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `values` (straight-through estimator: Bengio, Leonard and Courville, 2013)."""
    return values + (rounded - values).detach()


def _inside(sizes: list[int], samples: int, device: torch.device) -> Tensor:
    """Which of so many samples [B, N] are an item's own."""
    return torch.arange(samples, device=device) < torch.tensor(sizes, device=device).unsqueeze(1)


def _gathered(latents: Tensor, places: Tensor) -> Tensor:
    """latents [B, T, D] at places [B, T], 0 where a place is -1."""
    index = places.clamp(min=0).unsqueeze(2).expand(-1, -1, latents.shape[2])
    return torch.where(places.unsqueeze(2) >= 0, latents.gather(1, index), 0.0)


def _padded(rows: list[Array], filler: int, dtype: type[np.generic]) -> Array:
    """rows [n] of different lengths -> [B, N]."""
    padded = np.full((len(rows), max(map(len, rows))), filler, dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: len(values)] = values
    return padded
