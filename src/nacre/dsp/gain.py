"""How loud a group of sound is, and the gain at which the networks are given it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nacre.core.types import Array
from nacre.core.units import db_to_gain, power_to_db

TARGET_DB = -20.0  # active level at which the networks see speech
GAIN_STEP_DB = 3.0
GAIN_CODES = 32  # code 0 is -36 dB, code 31 is +57 dB
GAIN_ZERO = 12
SILENCE_DB = -88.0  # sound below is silence: the dither of 16-bit sound measures -96 to -90 dB
SILENCE_PEAK = 2.0**-12  # eight steps of 16-bit sound; a louder click is kept
RELEASE_DB = 3.0  # the level memory falls by this much a group
HYSTERESIS_DB = 3.0


def gain_of(code: int) -> float:
    """Amplitude factor that a gain code stands for."""
    return db_to_gain((code - GAIN_ZERO) * GAIN_STEP_DB)


def active_level_db(wave: Array, hop_samples: int) -> float:
    """Level of the loudest tenth of the frames (at least one) of wave [N], in dB re full scale."""
    whole = len(wave) // hop_samples * hop_samples
    if whole == 0:
        return power_to_db(float(np.mean(np.square(wave, dtype=np.float64)))) if len(wave) else -120.0
    power = np.mean(np.square(wave[:whole].reshape(-1, hop_samples), dtype=np.float64), axis=1)
    loudest = np.sort(power)[-max(1, len(power) // 10) :]
    return power_to_db(float(np.mean(loudest)))


def is_silent(wave: Array, hop_samples: int) -> bool:
    """Whether nothing in wave [N] stands out of the dither of 16-bit sound."""
    return bool(np.abs(wave).max(initial=0) < SILENCE_PEAK) and active_level_db(wave, hop_samples) < SILENCE_DB


@dataclass(frozen=True)
class LevelState:
    """Memory of the gain control: level held, code in use."""

    level_db: float = -120.0
    code: int | None = None


def choose_gain(
    state: LevelState, wave: Array, hop_samples: int, release_db: float = RELEASE_DB
) -> tuple[int, LevelState]:
    """Gain code for the group wave [N]; rises at once, falls by `release_db`, keeps its value inside a small band."""
    level_db, code = max(active_level_db(wave, hop_samples), state.level_db - release_db), state.code
    wanted_db = TARGET_DB - level_db
    if code is None or abs(wanted_db - (code - GAIN_ZERO) * GAIN_STEP_DB) > HYSTERESIS_DB:
        code = int(np.clip(round(wanted_db / GAIN_STEP_DB) + GAIN_ZERO, 0, GAIN_CODES - 1))
    return code, LevelState(level_db, code)


def gain_for(wave: Array, hop_samples: int) -> int:
    """The one gain code that suits wave [N]."""
    code, _ = choose_gain(LevelState(), wave, hop_samples)
    return code


def gain_curve(before: int | None, code: int, samples: int, ramp_samples: int) -> Array:
    """Factors [samples] float32 of one group: a short ramp from the last group's gain, then constant."""
    curve = np.full(samples, gain_of(code), np.float32)
    if before is not None and before != code:
        ramp = min(ramp_samples, samples)
        steps = np.arange(ramp, dtype=np.float64) / ramp_samples
        curve[:ramp] = gain_of(before) * (gain_of(code) / gain_of(before)) ** steps
    return curve
