"""What the sound has beyond what one channel's decoder makes of the symbols so far.

Groups are decoded only when one has a residual layer, and then no more of them than the networks remember.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nacre.codec.decoder import Made, latents_of, latents_to_sound
from nacre.codec.state import ResidualState, Sent, SoundState, start_sound
from nacre.core.types import Array
from nacre.model.model import Model


def encode_residual(
    model: Model, state: ResidualState, ready: Array, symbols: Array | None, level: int
) -> tuple[Array | None, ResidualState]:
    """(symbols [S, size] of a group's residual layer, None at a level that has none; state).

    `ready` [N] is the group as it was analysed, `symbols` [T, K] what is sent of it, None for silence.
    """
    layer = model.residual
    assert layer
    waiting = np.concatenate([state.waiting, ready])
    wanted, waiting = waiting[: len(ready)], waiting[len(ready) :]
    owed = (*state.owed, Sent(symbols, len(ready) // model.config.hop_samples, level))
    state = replace(state, waiting=waiting, owed=owed)
    if layer.memory and not layer.covers(level):
        if len(owed) > layer.memory:
            noise = model.synthesiser.restart(state.sound.synthesis, skipped_steps(model, owed[0]))
            past = replace(start_sound(model), synthesis=noise)
            state = replace(state, owed=owed[1:], sound=past)
        return None, state
    decoded, sound = decoded_groups(model, state.sound, owed)
    state = replace(state, owed=(), sound=sound)
    return (layer.symbols(wanted, decoded.predicted, decoded.whole, level) if layer.covers(level) else None), state


def skipped_steps(model: Model, group: Sent) -> int:
    """Spectra of a group that nobody decodes."""
    return group.frames * model.config.steps_per_frame


def decoded_groups(model: Model, state: SoundState, groups: tuple[Sent, ...]) -> tuple[Made, SoundState]:
    """Sound [N] of the last of these groups, at least one, and the state behind it; lags by the codec's delay."""
    for group in groups:
        latents = latents_of(model, state, group.symbols, group.frames, group.level)
        made, state = latents_to_sound(model, state, latents, group.level)
    return made, state
