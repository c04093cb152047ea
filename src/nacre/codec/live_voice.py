"""Frames to sound, one by one, also those that are missing: guessed from the past, faded, then noise."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from nacre.codec.decoder import decode_frames, render
from nacre.codec.packets import Group
from nacre.codec.state import DecoderState, start_decoder
from nacre.core.types import Array
from nacre.core.units import db_to_gain, power_to_db
from nacre.dsp.gain import GAIN_STEP_DB, TARGET_DB, gain_of
from nacre.dsp.stereo import factors
from nacre.model.model import Model

BRIDGED_FRAMES = 4  # the longest gap whose latents go straight from its start to its end
HOLD_FRAMES = 1  # guessed at full strength
FILLED_SHARE, FILLED_STEPS = 0.6, 0.4  # of what is beside a copy, and the most of its steps that this may be
FADE = 0.75  # of each guessed frame after that
LATENT_FADE = 0.95  # of its latents
BLEND_FRAMES = 5  # from the last sound to background noise
NOISE_SHARE = 0.7  # of the background's amplitude
QUIET_DB = 6.0  # frames this near to the quietest of late are background
RISE_DB = 0.02  # a frame: how fast the quietest is forgotten
STEADY_FRAMES = 5  # of background before its latents are learnt
SUSPECT_DB = 6.0  # a rise in loudness that the next packet must confirm
LOUDEST_DB = TARGET_DB + 4.5  # of a frame, at the gain of its packet: the encoder lets none be louder
FORGET = db_to_gain(-0.02)  # of the loudest sound of late, a frame
CREEP = db_to_gain(1.0)  # by which it may still grow near a guess
WARY_FRAMES = 4  # in a row that must be louder than all of late before they are believed while packets are damaged
UNSURE_FRAMES = 4  # behind a guess, which is part of their sound
LAG_FRAMES = 4  # for which a gain still counts: the sound comes out later


class Voice:
    """The decoder of one sender, a frame a call."""

    def __init__(self, model: Model):
        self.model, self.missed = model, 0
        self.state: DecoderState = start_decoder(model)
        self._since, self._loudest = UNSURE_FRAMES, 0.0  # frames since a guess; amplitude of the loudest of late
        self.wary = False  # packets were damaged of late, so that more may be than was noticed
        self._louder = 0  # frames in a row that were louder than all of late
        self._shown = 1.0  # the factor on the last guessed frame
        self._silent = True
        self._level_db, self._floor_db, self._steady = -120.0, 0.0, 0
        self._noise: tuple[Array, float] | None = None  # latents [1, D] of background, and the gain they came with
        self._sent_code: int | None = None  # gain code of the frame before, as it was sent
        self._codes: deque[int] = deque(maxlen=LAG_FRAMES)  # gain codes that are believed

    @property
    def pause(self) -> bool:
        """Whether nobody is speaking, as far as one can tell: where a frame more or less is not heard."""
        return self._silent or self.missed > BLEND_FRAMES or self._level_db < self._floor_db + QUIET_DB

    def play(self, group: Group, after: Group | None, coarse: bool = False) -> Array:
        """wave [hop] float32 of a frame that is there; `after` is the next one where that is in hand.

        A `coarse` one is a copy, which does not show what the background is like.
        """
        silent = replace(group, level=self.state.level)  # silence names no level
        group = silent if group.symbols is None else self._believed(group, after)
        if self.missed:
            self.state = replace(self.state, factor=self._shown)
        if group.symbols is None and self._silent:
            return self._mute()
        wave, self.state = self._rendered(group, after, coarse)
        self.missed, self._since, self._shown, self._silent = 0, self._since + 1, 1.0, group.symbols is None
        wave = self._limited(wave)
        self._level_db = power_to_db(float(np.mean(np.square(wave))))
        if not coarse and group.symbols is not None:
            self._learn(group.code)
        return wave

    def _rendered(self, group: Group, after: Group | None, coarse: bool) -> tuple[Array, DecoderState]:
        """(wave [hop], state). What a copy rounds to 0 follows the frames beside it, as far as its steps allow."""
        scales, state, hop = self.model.quantiser.scales, self.state, self.model.config.hop_samples
        if not coarse or group.symbols is None or scales is None:
            return decode_frames(self.model, state, group, 1)
        latents, beside = self.model.latents(group.symbols, group.level), state.sound.last
        if after is not None and after.symbols is not None:
            beside = (beside + self.model.latents(after.symbols, after.level)) / 2
        most = FILLED_STEPS * scales[group.level]
        filled = np.where(latents == 0, FILLED_SHARE * np.clip(beside, -most, most), latents).astype(np.float32)
        curve = factors(state.factor, 1.0, hop, hop)
        return render(self.model, replace(state, factor=1.0), filled, group.level, group.code, curve)

    def guess(self, after: Group | None, ahead: int = 1) -> Array:
        """wave [hop] float32 of a frame that is missing; `after` is the next in hand, so many frames later, if any."""
        state, self.missed, self._since = self.state, self.missed + 1, 0
        if self._silent or state.code is None:
            return self._mute()
        before, latents = self._shown, state.sound.last
        if after is not None and after.symbols is not None and self.missed + ahead - 1 <= BRIDGED_FRAMES:
            latents = latents + (self.model.latents(after.symbols, after.level) - latents) / np.float32(ahead + 1)
            return self._guessed(before, latents)
        latents = latents * np.float32(LATENT_FADE)
        self._shown *= 1.0 if self.missed <= HOLD_FRAMES else FADE
        if self._noise and self.missed > HOLD_FRAMES:
            share = min(1.0, (self.missed - HOLD_FRAMES) / BLEND_FRAMES)
            latents = ((1 - share) * latents + share * self._noise[0]).astype(np.float32)
            noise = NOISE_SHARE * min(1.0, gain_of(state.code) / self._noise[1])
            self._shown = max(self._shown, share * noise)
        return self._guessed(before, latents)

    def _guessed(self, before: float, latents: Array) -> Array:
        """wave [hop] of latents [1, D] that were guessed; its factor goes from `before` to what is shown now."""
        state = self.state
        curve = np.linspace(before, self._shown, self.model.config.hop_samples, dtype=np.float32)
        wave, self.state = render(self.model, state, latents, state.level, state.code, curve)
        return self._limited(wave)

    def _mute(self) -> Array:
        """wave [hop] of a frame of silence behind another."""
        state = self.state
        wave, self.state = render(self.model, state, np.zeros_like(state.sound.last), state.level, None)
        return wave

    def _believed(self, group: Group, after: Group | None) -> Group:
        """The group at a gain to be believed: a sudden rise in loudness counts once a second packet says so too."""
        sent_code, self._sent_code = self._sent_code, group.code
        confirmed = sent_code == group.code or (after is not None and after.code == group.code)
        if confirmed or not self._codes:
            self._codes.append(group.code)
            return group
        usual = self._codes[-1]
        self._codes.append(max(usual, group.code))
        return replace(group, code=usual) if (usual - group.code) * GAIN_STEP_DB > SUSPECT_DB else group

    def _limited(self, wave: Array) -> Array:
        """wave [hop] no louder than sound at the gains of late can be; near guesses and damage, than it has been."""
        if not self._codes:
            return wave
        most = db_to_gain(LOUDEST_DB) / min(gain_of(code) for code in self._codes)
        size = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
        self._loudest *= FORGET
        if (self.wary or self._since < UNSURE_FRAMES) and self._loudest:
            most, before = min(most, self._loudest), self._loudest
            self._louder = self._louder + 1 if size > before else 0
            if not self.wary or self._louder > WARY_FRAMES:
                self._loudest = min(max(before, size), before * CREEP)
        else:
            self._loudest = max(self._loudest, min(size, most))
        return wave if size <= most else wave * np.float32(most / size)

    def _learn(self, code: int) -> None:
        """What the background is like, from steady quiet frames."""
        self._floor_db = min(self._floor_db + RISE_DB, max(self._level_db, -90.0))
        self._steady = self._steady + 1 if self._level_db < self._floor_db + QUIET_DB else 0
        if self._steady < STEADY_FRAMES:
            return
        latents, gain = self.state.sound.last, gain_of(code)
        if self._noise:
            latents = np.float32(0.9) * self._noise[0] + np.float32(0.1) * latents
        self._noise = latents, gain
