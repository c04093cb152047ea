"""Samples to spectra and back, and the gain control: exact where exact is promised, the same in any pieces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import in_turn, once

from nacre.core.config import CodecConfig
from nacre.dsp.gain import (
    GAIN_CODES,
    GAIN_STEP_DB,
    GAIN_ZERO,
    HYSTERESIS_DB,
    RELEASE_DB,
    TARGET_DB,
    LevelState,
    active_level_db,
    choose_gain,
    gain_curve,
    gain_for,
    gain_of,
)
from nacre.dsp.stft import LARGEST_LOG, Analyser, Synthesiser, hann_root

CONFIG = CodecConfig()
LAG = CONFIG.window_samples - CONFIG.step_samples  # of analysis and overlap-add, without a network


def spectra_of(wave: np.ndarray, config: CodecConfig = CONFIG) -> np.ndarray:
    """[T * steps, 2 * bins]"""
    return once(Analyser(config), wave).reshape(-1, 2 * config.bins)


@pytest.mark.parametrize("config", [CONFIG, CodecConfig(window_samples=320), CodecConfig(window_samples=1280)])
@pytest.mark.parametrize(("amplitude", "share"), [(1e-4, 1e-2), (0.1, 1e-4), (30.0, 1e-4)])
def test_there_and_back(config, amplitude, share):
    wave = np.random.default_rng(0).normal(0, amplitude, 32 * 320).astype(np.float32)
    back = once(Synthesiser(config), spectra_of(wave, config))
    lag = config.window_samples - config.step_samples
    assert back.shape == wave.shape
    assert np.abs(back[:lag]).max() < amplitude * share
    assert np.abs(back[lag:] - wave[:-lag]).max() < amplitude * share


def test_pieces_change_nothing(speech):
    wave = speech[: 60 * 320]
    whole = once(Analyser(CONFIG), wave)
    edges = [0, 320, 960, 1280, 12_800, 60 * 320]
    parts = in_turn(Analyser(CONFIG), [wave[start:stop] for start, stop in pairwise(edges)])
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)
    back = np.concatenate(in_turn(Synthesiser(CONFIG), [part.reshape(-1, 2 * CONFIG.bins) for part in parts]))
    assert np.allclose(back, once(Synthesiser(CONFIG), whole.reshape(-1, 2 * CONFIG.bins)), atol=1e-6)


def test_shapes_and_types(speech):
    spectra = once(Analyser(CONFIG), speech[:640])
    assert (spectra.shape, spectra.dtype) == ((2, 2 * 2 * 321), np.float32)
    back = once(Synthesiser(CONFIG), spectra.reshape(4, -1))
    assert (back.shape, back.dtype) == ((640,), np.float32)
    assert hann_root(640).dtype == np.float32


def test_silence_stays_silence_and_madness_stays_finite():
    assert not spectra_of(np.zeros(3200, np.float32)).any()
    assert not once(Synthesiser(CONFIG), np.zeros((20, 642), np.float32)).any()
    mad = np.full((20, 642), 1e15, np.float32)
    assert np.isfinite(once(Synthesiser(CONFIG), mad)).all()
    assert np.isfinite(once(Synthesiser(CONFIG), -mad)).all()
    assert np.log1p(50 * 640 * 100) > LARGEST_LOG  # the cut lies far above full scale, not above everything


# gain


def test_active_level():
    tone = np.sin(np.arange(16_000, dtype=np.float32) / 5)
    assert active_level_db(tone, 320) == pytest.approx(-3, abs=0.2)
    speech_like = np.concatenate([tone[:3200], np.zeros(12_800, np.float32)])
    assert active_level_db(speech_like, 320) == pytest.approx(-3, abs=0.2)  # pauses do not count
    assert active_level_db(np.zeros(16_000, np.float32), 320) == -120
    assert active_level_db(np.zeros(0, np.float32), 320) == -120
    assert active_level_db(tone[:100], 320) == pytest.approx(-3, abs=0.3)


@pytest.mark.parametrize("level_db", [-60, -40, -20, 0])
def test_gain_brings_sound_to_the_target(level_db):
    tone = np.sqrt(2) * np.sin(np.arange(16_000, dtype=np.float32) / 5) * 10 ** (level_db / 20)
    code = gain_for(tone.astype(np.float32), 320)
    assert abs(level_db + 20 * np.log10(gain_of(code)) - TARGET_DB) <= GAIN_STEP_DB / 2 + 0.1


def test_gain_rises_at_once_falls_slowly_and_ignores_small_changes():
    tone = np.sin(np.arange(16_000, dtype=np.float32) / 5)
    loud, state = choose_gain(LevelState(), tone, 320)
    same, state = choose_gain(state, tone * np.float32(10 ** (-(HYSTERESIS_DB - 1.6) / 20)), 320)
    assert same == loud
    codes = []
    for _ in range(30):
        code, state = choose_gain(state, tone * np.float32(1e-3), 320)
        codes.append(code)
    steps = np.diff([loud, *codes])
    assert (steps >= 0).all()
    assert steps.max() <= RELEASE_DB / GAIN_STEP_DB + 1
    assert abs(codes[-1] - loud - 60 / GAIN_STEP_DB) <= 1
    assert choose_gain(state, tone, 320)[0] == loud


@pytest.mark.parametrize("amplitude", [0.0, 1e-9, 1e-4, 1.0, 1e4, 1e30])
def test_gain_codes_are_in_range(amplitude):
    code = gain_for(np.full(3200, amplitude, np.float32), 320)
    assert 0 <= code < GAIN_CODES
    assert isinstance(code, int)


def test_gain_curve():
    flat = gain_curve(None, 20, 3200, 320)
    assert np.array_equal(flat, gain_curve(20, 20, 3200, 320))
    assert np.allclose(flat, gain_of(20))
    ramp = gain_curve(4, 20, 3200, 320)
    assert ramp[0] == pytest.approx(gain_of(4))
    assert (np.diff(ramp[:321]) > 0).all()
    assert np.abs(np.diff(20 * np.log10(ramp))).max() < 0.2  # no step at its end
    assert np.allclose(ramp[320:], gain_of(20))
    assert np.array_equal(gain_curve(4, 20, 160, 320), ramp[:160])
    assert gain_of(GAIN_ZERO) == 1
