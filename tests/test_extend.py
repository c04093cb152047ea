"""Blind extension: what lacks a high band gets one, what has one keeps it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nacre.core.errors import AudioError
from nacre.io import audio
from nacre.tools.extend import extend, extended, rate_out


def high_db(wave: np.ndarray, rate_hz: int = 48_000) -> float:
    """Mean square from 8 to 20 kHz in dB."""
    power, hz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / rate_hz)
    return float(10 * np.log10(2 * power[(hz > 8000) & (hz < 20_000)].sum() / len(wave) ** 2 + 1e-20))


def test_speech_gets_a_band_and_keeps_the_rest(speech):
    wave = speech[16_000:64_000]
    made, rate_hz = extend(wave, 16_000)
    plain = audio.resampled(wave, 16_000, 48_000)
    assert (rate_hz, made.shape) == (48_000, plain.shape)
    assert high_db(plain) < high_db(made) - 15
    assert high_db(made) < 10 * np.log10(np.mean(np.square(wave)))
    low = [np.fft.rfft(each)[: 7500 * 3] for each in (made, plain)]
    assert np.allclose(*low, atol=0.01 * np.abs(low[1]).max())


def test_loudness_does_not_matter(speech):
    one, other = (extend(speech[16_000:48_000] * np.float32(gain), 16_000)[0] for gain in (1, 0.1))
    assert high_db(other) == pytest.approx(high_db(one) - 20, abs=1)


def test_sound_with_a_band_keeps_it():
    noise = np.random.default_rng(5).standard_normal(96_000).astype(np.float32) * 0.1
    made, rate_hz = extend(noise, 48_000)
    assert rate_hz == 48_000
    assert np.allclose(made, noise, atol=1e-6)


def test_no_band_is_louder_than_all_below_it():
    tone = (0.5 * np.sin(2 * np.pi * 7000 * np.arange(32_000) / 16_000)).astype(np.float32)
    made, _ = extend(tone, 16_000)
    assert high_db(made) < 10 * np.log10(3 * np.mean(np.square(tone)))


def test_silence_stays():
    assert not extend(np.zeros(9000, np.float32), 16_000)[0].any()
    with pytest.raises(AudioError, match="wave is empty"):
        extend(np.zeros(0, np.float32), 16_000)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
@pytest.mark.parametrize("samples", [1, 500, 33_333])
def test_pieces_change_nothing(speech, rate_hz, samples):
    wave = np.stack([speech[:samples], speech[-samples:]])
    whole, rate = extend(wave, rate_hz)
    cuts = [0, *(cut for cut in (100, 16_700) if cut < samples), samples]
    blocks = [wave[:, start:stop] for start, stop in pairwise(cuts)]
    pieces = np.concatenate(list(extended(blocks, rate_hz, 2)), 1)
    assert rate == rate_out(rate_hz) == (44_100 if rate_hz == 44_100 else 48_000)
    assert whole.shape[1] == -(-samples * rate // rate_hz)
    assert np.allclose(pieces, whole, atol=1e-6)


def test_command(run, tiny_model, tmp_path, speech):
    audio.write(tmp_path / "a.wav", speech[None, :16_000], 16_000)
    model = ("--model", tiny_model)
    assert run("encode", "a.wav", "-o", "a.nacre", *model).rc == 0
    assert run("extend", "a.wav", "-o", "b.wav").rc == 0
    assert run("extend", "a.nacre", "-o", "c.wav", *model).rc == 0
    for name in ("b.wav", "c.wav"):
        wave, rate_hz = audio.read(tmp_path / name)
        assert (wave.shape, rate_hz) == ((1, 48_000), 48_000)
    audio.write(tmp_path / "d.wav", np.zeros((1, 48_000), np.float32), 48_000)
    assert run("encode", "d.wav", "-o", "d.nacre", *model).rc == 0
    done = run("extend", "d.nacre", "-o", "e.wav", *model)
    assert (done.rc, "band layer" in done.stderr) == (1, True)
    assert not (tmp_path / "e.wav").exists()
