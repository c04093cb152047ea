"""The only encoder: samples of one channel at the model's rate to packets.

wave -> gain -> spectra -> latents [-> denoised] -> symbols [-> residual layer] -> packet
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nacre.codec.band import band_symbols
from nacre.codec.latent_denoiser import denoise_latents
from nacre.codec.packets import PacketCoder
from nacre.codec.residual import encode_residual
from nacre.codec.state import FILE, EncoderState, Options
from nacre.core.types import Array
from nacre.dsp.gain import choose_gain, gain_curve, is_silent
from nacre.dsp.stereo import factors
from nacre.dsp.wave import pieces_of
from nacre.entropy.band import band_tables
from nacre.format.file import Packet
from nacre.model.model import Model


@dataclass(frozen=True, eq=False)
class Analysed:
    """A group on its way: latents [T, X] of the encoder graph, and its samples [N] as they were analysed."""

    latents: Array
    ready: Array
    silent: bool = False


@dataclass(frozen=True, eq=False)
class Coded:
    """What a packet is to hold: symbols [T, K], None for silence, at a level and gain code; `residual` goes on top."""

    symbols: Array | None
    level: int
    code: int
    residual: Array | None = None


def encode_frames(
    model: Model,
    state: EncoderState,
    wave: Array,
    level: int,
    options: Options = FILE,
    powers: Array | None = None,
) -> tuple[Packet, EncoderState]:
    """wave [N] float32, N a multiple of the hop and at most a group, at a quality level -> (packet, state).

    `powers` [T, STEPS, B] are of what is above, for files with a band layer; see `dsp.band`.
    """
    coded, after = code_frames(model, state, wave, level, options)
    if coded.symbols is None:
        return Packet(coded.level, b""), after
    coder = PacketCoder.of(model, options.prior, options.bands)
    band = None if powers is None else band_symbols(powers, coded.code, band_tables().quarters)
    history = None if options.independent else state.history
    packet = coder.pack(coded.symbols, level, coded.code, coded.residual, history, band)
    if options.independent:
        return packet, after
    return packet, replace(after, history=coder.after(coded.symbols, level, state.history))


def code_frames(
    model: Model, state: EncoderState, wave: Array, level: int, options: Options = FILE, code: int | None = None
) -> tuple[Coded, EncoderState]:
    """As `encode_frames`, before the symbols become bytes. The prior's history in the state stays as it is.

    `code` is the gain code, by default the one that suits a group.
    """
    analyse = analyse_frames if options.code_silence else analyse_audible
    analysed, after = analyse(model, state, wave, level, code)
    symbols: Array | None = None
    if not analysed.silent:
        symbols = model.symbols(analysed.latents, level)
        if options.share < 1:
            symbols = np.trunc(symbols * options.share).astype(symbols.dtype)
    elif options.silent_level is not None:
        level = options.silent_level
    residual, after = _with_residual(model, after, analysed.ready, symbols, level)
    return Coded(symbols, level, after.code or 0, residual), after


def follow_frames(
    model: Model, state: EncoderState, wave: Array, level: int, leader: EncoderState, factor: float
) -> EncoderState:
    """The state after wave [N] for which nothing is sent: its decoder takes another channel's packet, times `factor`.

    `leader` is the state of that channel behind this packet.
    """
    _, loudness = choose_gain(state.loudness, wave, model.config.hop_samples)
    state = replace(state, loudness=loudness)
    analysed, state = analyse_frames(model, state, wave, level, leader.code, factor)
    _, state = _with_residual(model, state, analysed.ready, leader.sent, level)
    return state


def analyse_frames(
    model: Model, state: EncoderState, wave: Array, level: int, code: int | None = None, factor: float = 1.0
) -> tuple[Analysed, EncoderState]:
    """wave [N], N a multiple of the hop and at most a group -> what the networks make of it, and the state.

    `code` is the gain code, by default the one that suits; `factor` is what the decoder will multiply this group by.
    """
    hop, loudness, denoiser = model.config.hop_samples, state.loudness, state.denoiser
    if code is None:
        code, loudness = choose_gain(loudness, wave, hop)
    ready = wave * gain_curve(state.code, code, len(wave), hop)
    ready /= factors(state.factor, factor, len(wave), hop)
    spectra, windows = model.analyser.step(ready, state.windows)
    latents, past = model.encoder_net.step(spectra, level, state.past)
    if denoiser:
        latents, denoiser = denoise_latents(model, denoiser, spectra, latents, level)
    after = replace(state, windows=windows, past=past, loudness=loudness, code=code, factor=factor, denoiser=denoiser)
    return Analysed(latents, ready), after


def analyse_audible(
    model: Model, state: EncoderState, wave: Array, level: int, code: int | None = None
) -> tuple[Analysed, EncoderState]:
    """As `analyse_frames`, but silence is recognised: its gain is never sent, so the next ramp starts from the last."""
    analysed, after = analyse_frames(model, state, wave, level, code)
    if not is_silent(wave, model.config.hop_samples):
        return analysed, after
    return replace(analysed, silent=True), replace(after, code=state.code)


def analysed_groups(
    model: Model, state: EncoderState, wave: Array, level: int, code: int | None = None
) -> Iterator[tuple[Analysed, EncoderState]]:
    """`analyse_frames` for group after group of wave [N], N a multiple of the hop."""
    for part in pieces_of(wave, model.config.group_samples):
        analysed, state = analyse_frames(model, state, part, level, code)
        yield analysed, state


def _with_residual(
    model: Model, state: EncoderState, ready: Array, symbols: Array | None, level: int
) -> tuple[Array | None, EncoderState]:
    """Symbols of the residual layer of a group, where its level has one, and the state after what was sent."""
    if state.residual is None:
        return None, replace(state, sent=symbols)
    residual, after = encode_residual(model, state.residual, ready, symbols, level)
    return residual, replace(state, sent=symbols, residual=after)
