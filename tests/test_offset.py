"""A constant offset of a recorder neither costs bits nor moves gains."""

from __future__ import annotations

import numpy as np
import pytest

from nacre import load
from nacre.dsp.offset import OffsetState, without_offset

HOP = 320


def test_pieces_give_what_the_whole_gives():
    wave = np.random.default_rng(3).standard_normal(40 * HOP).astype(np.float32) + np.float32(0.2)
    whole, _ = without_offset(OffsetState(), wave, HOP)
    state, pieces = OffsetState(), []
    for start, stop in ((0, 1), (1, 17), (17, 40)):
        piece, state = without_offset(state, wave[start * HOP : stop * HOP], HOP)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_sound_without_an_offset_stays_as_it_is(speech):
    wave = speech[: 100 * HOP]
    found, _ = without_offset(OffsetState(), wave, HOP)
    assert np.square(found - wave).mean() < 1e-4 * np.square(wave).mean()


@pytest.mark.parametrize("offset", [0.01, -0.2])
def test_files_of_sound_with_an_offset_sound_alike(speech, offset):
    codec, wave = load(), speech[:48_000]
    plain, moved = (codec.encode(found, 16_000, quality=50) for found in (wave, wave + np.float32(offset)))
    assert len(moved) < 1.05 * len(plain)
    before, after = (codec.decode(data)[0][0] for data in (plain, moved))
    assert abs(after.mean()) < 1e-3
    assert np.corrcoef(before, after)[0, 1] > 0.9


@pytest.mark.parametrize("samples", [48_000, 777])
def test_an_offset_alone_is_silence(samples):
    codec = load()
    data = codec.encode(np.full(samples, 0.1, np.float32), 16_000)
    assert len(data) == len(codec.encode(np.zeros(samples, np.float32), 16_000))
    assert not codec.decode(data)[0].any()


def test_silence_after_sound_stays_silence(speech):
    wave = np.concatenate([speech[: 50 * HOP] + np.float32(0.01), np.zeros(50 * HOP, np.float32)])
    found, _ = without_offset(OffsetState(), wave, HOP)
    assert not found[50 * HOP :].any()


def test_an_offset_alone_is_silence_live():
    sizes = []
    for offset in (0.0, 0.1):
        encoder = load().live_encoder(16_000)
        sizes.append(sum(map(len, encoder.push(np.full(32_000, offset, np.float32)))))
    assert sizes[1] == sizes[0]
