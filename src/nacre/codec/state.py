"""What one channel remembers between two packets: plain data that is never changed in place, to be kept or copied.

encoder   windows | gain | network | denoiser | what the decoder makes of it | the prior's history
decoder   network, overlap-add | gains still to be undone | last latents | the prior's history
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.codec.packets import CONTEXT
from nacre.core.types import Array, State
from nacre.dsp.gain import LevelState
from nacre.entropy.context_prior import History
from nacre.model.model import Model


@dataclass(frozen=True, eq=False)
class SoundState:
    """Of the way from latents to sound: the decoder network's past, None before its first step; the synthesiser's.

    `last` are the latents [1, D] of the last frame.
    """

    past: Array | None
    synthesis: State
    last: Array


@dataclass(frozen=True, eq=False)
class LatentDenoiserState:
    """Of denoising: the encoder's past at its denoising levels, and how far denoised latents were from plain ones."""

    past: Array
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class Sent:
    """What a packet gave the decoder: symbols [T, K], None for silence, of so many frames at a level."""

    symbols: Array | None
    frames: int
    level: int


@dataclass(frozen=True, eq=False)
class ResidualState:
    """Of the decoder inside an encoder: sound [delay] that it has not come to, and groups that it has not decoded."""

    waiting: Array
    owed: tuple[Sent, ...]
    sound: SoundState


@dataclass(frozen=True, eq=False)
class EncoderState:
    """One channel's encoder between two packets. `sent` are the symbols of the last one, None for silence."""

    windows: State
    past: Array  # of the encoder network
    loudness: LevelState
    code: int | None = None  # gain of the last packet, as far as the decoder hears of it
    factor: float = 1.0  # that the decoder puts on this channel
    sent: Array | None = None
    denoiser: LatentDenoiserState | None = None  # None: noise stays
    residual: ResidualState | None = None  # None: no level with a residual layer will come
    history: History | None = None  # of the context prior; None: nothing came before


@dataclass(frozen=True, eq=False)
class DecoderState:
    """One channel's decoder between two packets."""

    sound: SoundState
    level: int
    curve: Array  # [delay] what is still to be put on sound that comes out late
    code: int | None = None
    factor: float = 1.0
    lost_samples: int = 0  # concealed without a break until now
    history: History | None = None


@dataclass(frozen=True)
class Options:
    """How packets are written and read. Both sides need the same `prior`, `independent` and `bands`."""

    prior: str = CONTEXT  # or STATIC
    independent: bool = True  # the context prior knows nothing of earlier packets, as in files
    code_silence: bool = False  # silence is written like sound
    silent_level: int | None = None  # of silent packets; None: the requested level
    share: float = 1.0  # of each symbol that is kept, for packets that would be too long
    bands: int = 0  # of a band layer


FILE = Options()


def start_sound(model: Model) -> SoundState:
    """Before the first latents."""
    return SoundState(None, model.synthesiser.start(), np.zeros((1, model.config.latent_dims), np.float32))


def start_encoder(model: Model, *, denoise: bool = False, residual: bool = False) -> EncoderState:
    """Before the first sample. `denoise`: leave out what is not speech. `residual`: residual levels may come."""
    past, delay = model.encoder_net.start(), model.config.delay_samples
    layer = None
    if residual and model.residual:
        layer = ResidualState(np.zeros(delay, np.float32), (), start_sound(model))
    denoiser = LatentDenoiserState(past) if denoise else None
    return EncoderState(model.analyser.start(), past, LevelState(), denoiser=denoiser, residual=layer)


def start_decoder(model: Model) -> DecoderState:
    """Before the first packet."""
    config = model.config
    silence = np.zeros(config.delay_samples, np.float32)  # nothing is heard before the first sample
    return DecoderState(start_sound(model), config.levels // 2, silence)
