"""The only decoder: packets of one channel to samples at the model's rate, lagging by the codec's delay.

packet -> symbols -> latents -> spectra -> samples [+ residual layer] -> 1 / gain -> wave
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nacre.codec.packets import Group, PacketCoder
from nacre.codec.state import FILE, DecoderState, Options, SoundState
from nacre.core.errors import StreamError
from nacre.core.types import Array
from nacre.core.units import ceil_div
from nacre.dsp.gain import gain_curve
from nacre.dsp.stereo import factors
from nacre.format.file import Packet
from nacre.model.model import Model

FADE_S = 0.1  # concealment falls to silence over a few of these


def decode_frames(
    model: Model,
    state: DecoderState,
    packet: Packet | Group | None,
    frames: int | None = None,
    options: Options = FILE,
    factor: float = 1.0,
) -> tuple[Array, DecoderState]:
    """A packet of so many frames, by default a group -> (wave [frames * hop] float32 times `factor`, state).

    None is a packet that was lost: the last sound goes on and fades. A Group is a packet that was read before.
    Raises StreamError where the packet is damaged; then go on with None.
    """
    frames = model.config.group_frames if frames is None else frames
    if packet is None:
        return _concealed(model, state, frames)
    group = packet if isinstance(packet, Group) else _read(model, state, packet, frames, options)
    if not options.independent:
        coder = PacketCoder.of(model, options.prior)
        state = replace(state, history=coder.after(group.symbols, group.level, state.history))
    before, samples, hop = state.factor, group.frames * model.config.hop_samples, model.config.hop_samples
    state = replace(state, lost_samples=0, factor=factor)
    latents = latents_of(model, state.sound, group.symbols, group.frames, group.level)
    if group.symbols is None:
        return render(model, state, latents, group.level, None)
    curve = factors(before, factor, samples, hop)
    return render(model, state, latents, group.level, group.code, curve, group.residual)


def render(
    model: Model,
    state: DecoderState,
    latents: Array,
    level: int,
    code: int | None,
    curve: Array | None = None,
    residual: Array | None = None,
) -> tuple[Array, DecoderState]:
    """latents [T, D] at a level -> (wave [T * hop], state).

    The group was coded with the gain `code`, None mutes it; `curve` [N] goes on its samples, `residual` goes on top.
    """
    hop, samples = model.config.hop_samples, len(latents) * model.config.hop_samples
    gains: Array = np.zeros(samples, np.float32)
    if code is not None:
        gains = (1 if curve is None else curve) / gain_curve(state.code, code, samples, hop)
    made, sound = latents_to_sound(model, state.sound, latents, level)
    wave = made.whole
    if residual is not None:
        assert model.residual
        wave = model.residual.enhanced(residual, made.predicted, made.noise, level)
    gains = np.concatenate([state.curve, gains])
    after = replace(
        state,
        sound=sound,
        level=level,
        curve=gains[samples:],
        code=state.code if code is None else code,
    )
    return wave * gains[:samples], after


@dataclass(frozen=True, eq=False)
class Made:
    """Sound [N] of the networks at the gain it was analysed with: what they predict, and noise beside it, if any."""

    predicted: Array
    noise: Array | None

    @property
    def whole(self) -> Array:
        """Both."""
        return self.predicted if self.noise is None else self.predicted + self.noise


def latents_of(model: Model, state: SoundState, symbols: Array | None, frames: int, level: int) -> Array:
    """Latents [frames, D] of symbols [T, K]; of silence, None, what the sound before it needs to end as it was.

    Sound comes out late, so that its end is made of frames of silence too: there it goes on as it was. The rest are 0.
    """
    if symbols is not None:
        return model.latents(symbols, level)
    latents = np.zeros((frames, model.config.latent_dims), np.float32)
    latents[: ceil_div(model.config.delay_samples, model.config.hop_samples)] = state.last
    return latents


def latents_to_sound(model: Model, state: SoundState, latents: Array, level: int) -> tuple[Made, SoundState]:
    """latents [T, D] at a level -> (sound, state)."""
    past = model.decoder_net.start() if state.past is None else state.past
    spectra, past = model.decoder_net.step(latents, level, past)
    wave, noise, synthesis = model.synthesiser.parts(spectra, state.synthesis)
    return Made(wave, noise), SoundState(past, synthesis, latents[-1:])


def _read(model: Model, state: DecoderState, packet: Packet, frames: int, options: Options) -> Group:
    histories = None if options.independent else [state.history]
    (held,) = PacketCoder.of(model, options.prior, options.bands).unpack([packet], [frames], histories)
    if isinstance(held, StreamError):
        raise held
    return held


def _concealed(model: Model, state: DecoderState, frames: int) -> tuple[Array, DecoderState]:
    """wave [frames * hop] in place of a lost packet: the last sound, fading."""
    fade = 0.8 ** np.arange(1, frames + 1, dtype=np.float32)[:, None]
    samples = frames * model.config.hop_samples
    seconds = (state.lost_samples + np.arange(samples)) / model.config.rate_hz
    falling = state.factor * np.exp(-seconds / FADE_S).astype(np.float32)
    state = replace(state, lost_samples=state.lost_samples + samples)  # a second one goes on where the first faded to
    return render(model, state, state.sound.last * fade, state.level, state.code, falling)
