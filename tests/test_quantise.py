"""Quantiser: thresholds, limits and the round trip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nacre.core.errors import AudioError, BundleError, NacreError
from nacre.quantise.scalar import dequantise, quantise

ONE = np.ones(1, np.float32)


def row(values, step=1.0, dead_zone=0.0, limit=9):
    latents = np.array(values, np.float32)[:, None]  # [T, 1]
    return quantise(latents, step * ONE, np.float32(dead_zone) * ONE, np.array([limit], np.int32)).ravel().tolist()


def test_rounds_to_nearest_and_clips():
    assert row([0.4, 0.6, -0.6, 1.4, -2.6, 30.0, -1e30]) == [0, 1, -1, 1, -3, 9, -9]
    assert row([5.0, -5.0], limit=0) == [0, 0]
    assert row([1.0, -3.0, 0.9], step=2.0) == [1, -2, 0]


def test_dead_zone_moves_every_threshold_outwards():
    assert row([0.74, 0.76, 1.74, 1.76, -0.74, -1.76], dead_zone=0.25) == [0, 1, 1, 2, 0, -2]


@settings(deadline=None)
@given(
    npst.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 4)), elements=st.floats(-50, 50, width=32)),
    st.sampled_from([0.03125, 0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.1, 0.25, 0.45]),
)
def test_round_trip_stays_within_the_cell(latents, step, dead_zone):
    full = np.ones(latents.shape[1], np.float32)
    symbols = quantise(latents, step * full, np.float32(dead_zone) * full, (32767 * full).astype(np.int32))
    assert symbols.dtype == np.int32
    assert symbols.shape == latents.shape
    back = dequantise(symbols, np.float32(step) * full)
    assert back.dtype == np.float32
    assert (np.abs(back - latents) <= step * (0.5 + dead_zone) + 1e-4).all()
    assert (symbols * latents >= 0).all()  # never across 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_latents_are_named(bad):
    latents = np.zeros((4, 3), np.float32)
    latents[2, 1] = bad
    full = np.ones(3, np.float32)
    with pytest.raises(AudioError, match="frame 2, dim 1"):
        quantise(latents, full, 0 * full, full.astype(np.int32))


@pytest.mark.parametrize(
    "change",
    [
        {"step": 0.0},
        {"step": np.nan},
        {"dead_zone": 0.5},
        {"dead_zone": -0.1},
        {"limit": -1},
        {"limit": 1 << 20},
    ],
)
def test_settings_that_cannot_be_meant(change):
    with pytest.raises(BundleError):
        row([1.0], **change)


def test_shapes_are_checked():
    latents, two = np.zeros((4, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(NacreError, match=r"\[T, D\]"):
        quantise(latents, two, two, two.astype(np.int32))
    with pytest.raises(NacreError):
        dequantise(latents.astype(np.int32), two)
