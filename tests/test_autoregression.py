"""Gaps fitted to both sides: nearer than repetition, smooth at the edges, and never more than was lost."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.dsp.autoregression import _solved, extended, interpolated
from nacre.dsp.extrapolate import extrapolated, filled_from_both

RATE = 16_000


def voice(rate_hz: int = RATE, seconds: float = 0.5) -> np.ndarray:
    """A gliding voice with two resonances and some breath."""
    random, at = np.random.default_rng(0), np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(110 + 40 * at) / rate_hz
    wave = sum(np.cos(k * phase + k * k) / (1 + abs(k - 5) + 2 * abs(k - 16) / 3) for k in range(1, 30))
    return (0.1 * wave + 0.002 * random.standard_normal(len(at))).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_gaps_of_a_voice_are_nearer_than_repetition(rate_hz):
    wave, size = voice(rate_hz), round(0.02 * rate_hz)
    lost = [(start, start + size) for start in (5 * size, 9 * size, 16 * size)]
    guess = filled_from_both(wave, lost, rate_hz)
    fitted = interpolated(guess, lost, rate_hz)
    gone = np.zeros(len(wave), bool)
    for start, stop in lost:
        gone[start:stop] = True
    assert np.array_equal(fitted[~gone], wave[~gone])
    assert fitted.dtype == np.float32
    assert np.sum((fitted - wave)[gone] ** 2) < 0.5 * np.sum((guess - wave)[gone] ** 2)


def test_edges_cannot_be_heard():
    wave, lost = voice(), [(3200, 3520), (5000, 5960)]
    fitted = interpolated(filled_from_both(wave, lost, RATE), lost, RATE)
    steepest = np.abs(np.diff(wave)).max()
    for edge in (edge for gap in lost for edge in gap):
        assert abs(fitted[edge] - fitted[edge - 1]) < steepest


@pytest.mark.parametrize("gap", [(0, 2), (1, 2), (1, 5), (9, 10)])
def test_little_sound_is_enough(gap):
    wave = np.linspace(0.1, 0.2, 10, dtype=np.float32)
    fitted = interpolated(wave, [gap], RATE)
    assert np.isfinite(fitted).all()
    assert np.array_equal(np.delete(fitted, range(*gap)), np.delete(wave, range(*gap)))


def test_silence_stays_silence():
    assert not interpolated(np.zeros(2000, np.float32), [(800, 1120)], RATE).any()


def test_equations_are_solved():
    random = np.random.default_rng(1)
    column = 0.9 ** np.arange(40) + (np.arange(40) == 0)
    right = random.standard_normal(40)
    whole = column[np.abs(np.subtract.outer(np.arange(40), np.arange(40)))]
    assert np.allclose(_solved(column, right), np.linalg.solve(whole, right))
    assert np.allclose(_solved(column[:1], right[:1]), right[:1] / 2)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_tones_go_on_that_no_period_fits(rate_hz):
    at, size = np.arange(round(0.12 * rate_hz)) / rate_hz, round(0.02 * rate_hz)
    wave = sum(np.sin(2 * np.pi * hz * at) for hz in (210, 577, 1303)).astype(np.float32)
    past, coming = wave[:-size], wave[-size:]
    found = extended(past, size, rate_hz)
    assert found.dtype == np.float32
    assert np.sum((found - coming) ** 2) < 0.2 * np.sum((extrapolated(past, size, rate_hz) - coming) ** 2)


def test_a_voice_goes_on_without_a_click():
    wave = voice()
    steepest = np.abs(np.diff(wave)).max()
    for start in range(1000, 8000, 500):
        assert abs(extended(wave[:start], 1, RATE)[0] - wave[start - 1]) < steepest


def test_what_is_foretold_does_not_grow():
    random = np.random.default_rng(2)
    for past in (random.standard_normal(900), np.ones(900), np.eye(1, 900, 880)[0], np.geomspace(1e-3, 1, 900)):
        found = extended(past.astype(np.float32), 16_000, RATE)
        assert np.abs(found).max() < 3 * np.abs(past).max()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 30])
def test_little_past_can_be_extended(size):
    found = extended(np.linspace(0.1, 0.2, size, dtype=np.float32), 50, RATE)
    assert found.shape == (50,)
    assert np.isfinite(found).all()
    assert not extended(np.zeros(size, np.float32), 50, RATE).any()
