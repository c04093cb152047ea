"""Files of released models stay readable: by name of the model that wrote them, with all groups whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nacre import load
from nacre.format.file import unpack_header
from nacre.io import audio

DATA = Path(__file__).parent / "data"
CLIPS = Path(__file__).parents[1] / "src" / "nacre" / "clips"
RELEASED = [f"{mark}{kind}" for mark in ("caa2386e", "88cef50d", "9a1dc1e1") for kind in ("", "-refined", "-static")]


@pytest.mark.parametrize("name", RELEASED)
def test_files_of_earlier_releases_are_read(name):
    data, codec = (DATA / f"{name}.nacre").read_bytes(), load()
    assert unpack_header(data).fingerprint in codec.bundle.fingerprints
    assert codec.verify(codec.parse(data)) == []
    wave, rate_hz = codec.decode(data)
    clip, clip_hz = audio.read(CLIPS / "english.flac")
    wanted = clip[0, : 2 * clip_hz + 777]
    assert (rate_hz, wave.shape) == (clip_hz, (1, len(wanted)))
    found = wave[0]
    assert np.corrcoef(found, wanted)[0, 1] > 0.7  # the low band, which has most of the power, keeps its waveform
    assert 0.5 < found.std() / wanted.std() < 1.5


def test_refined_files_of_earlier_releases_come_nearer():
    codec, clip = load(), audio.read(CLIPS / "english.flac")[0]
    near = []
    for name in ("caa2386e", "caa2386e-refined"):
        wave = codec.decode((DATA / f"{name}.nacre").read_bytes())[0][0]
        near.append(np.corrcoef(wave, clip[0, : len(wave)])[0, 1])
    assert near[1] > near[0]
