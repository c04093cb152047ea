"""Log-mel and MFCC against librosa's numbers; the streamed kind and its way back in any pieces.

tests/data/mel.npz was computed by librosa 0.11.0: `pip install librosa`, then `python tests/test_mel.py`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import in_turn, once

from nacre.core.errors import AudioError, UsageError
from nacre.dsp.mel import (
    LARGEST_LOG,
    LogMelAnalyser,
    LogMelSynthesiser,
    MelConfig,
    filters,
    hz_to_mel,
    log_mel,
    mel_power,
    mel_to_hz,
    mfcc,
    to_db,
)

GOLDEN = Path(__file__).parent / "data" / "mel.npz"
CASES = {
    "usual": MelConfig(),
    "high": MelConfig.at(48_000),
    "librosa": MelConfig(22_050, 2048, 512, 2048, 128),
    "odd": MelConfig(11_025, 301, 77, 640, 23, 120.0, 4000.0),
}
STREAMS = [(16_000, 640, 160, 2, 80), (16_000, 512, 256, 1, 40), (8000, 320, 40, 3, 30)]
LAG = 480


def sound() -> np.ndarray:
    """A quarter of a second at 16 kHz that has a pause, a glide and some noise, the same everywhere."""
    time = np.arange(4001) / 4001
    glide = 0.4 * np.sin(2 * np.pi * 900 * time * (1 + time)) * (time > 0.25)
    return (glide + 1e-3 * np.sin(1e4 * np.sin(np.arange(4001.0)))).astype(np.float32)


def by_librosa(config: MelConfig) -> dict[str, np.ndarray]:
    import librosa

    sizes = {"n_fft": config.fft_samples, "hop_length": config.hop_samples, "win_length": config.window_samples}
    band = {"n_mels": config.bands, "fmin": config.lowest_hz, "fmax": config.highest_hz}
    power = librosa.feature.melspectrogram(y=sound(), sr=config.rate_hz, **sizes, **band)
    cepstrum = librosa.feature.mfcc(y=sound(), sr=config.rate_hz, n_mfcc=13, **sizes, **band)
    return {"power": power.T, "db": librosa.power_to_db(power).T, "mfcc": cepstrum.T}


def ours(config: MelConfig) -> dict[str, np.ndarray]:
    return {
        "power": mel_power(sound(), config),
        "db": log_mel(sound(), config),
        "mfcc": mfcc(sound(), config, 13),
    }


def check(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, array in found.items():
        assert (array.dtype, array.shape) == (np.float32, wanted[name].shape), name
    loudest = wanted["power"].max()
    assert np.allclose(found["power"], wanted["power"], rtol=1e-4, atol=1e-6 * loudest)
    assert np.abs(found["db"] - wanted["db"]).max() < 0.02
    assert np.abs(found["mfcc"] - wanted["mfcc"]).max() < 0.02


@pytest.mark.parametrize("name", CASES)
def test_same_as_librosa_was(name):
    with np.load(GOLDEN) as golden:
        check(ours(CASES[name]), {key: golden[f"{name}_{key}"] for key in ("power", "db", "mfcc")})


@pytest.mark.parametrize("name", CASES)
def test_same_as_librosa_is(name):
    pytest.importorskip("librosa")
    check(ours(CASES[name]), by_librosa(CASES[name]))


def test_scale():
    assert hz_to_mel(1000.0) == pytest.approx(15)
    assert hz_to_mel(6400.0) == pytest.approx(42)
    assert mel_to_hz(3.0) == pytest.approx(200)
    hz = np.linspace(0, 24_000, 100)
    assert np.allclose(mel_to_hz(hz_to_mel(hz)), hz)


def test_long_sound_is_worked_in_blocks():
    wave = np.random.default_rng(0).normal(0, 0.1, 160 * 1300).astype(np.float32)
    whole = mel_power(wave)
    assert whole.shape == (1301, 80)
    start = 160 * 1000
    assert np.allclose(whole[1005:1200], mel_power(wave[start:])[5:200], rtol=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 400])
def test_shorter_than_a_window(samples):
    for values in (log_mel(np.ones(samples, np.float32)), mfcc(np.ones(samples, np.float32))):
        assert len(values) == 1 + samples // 160
        assert np.isfinite(values).all()


def test_silence_is_the_floor():
    assert np.allclose(log_mel(np.zeros(1600, np.float32)), -100)
    assert np.isfinite(mfcc(np.zeros(1600, np.float32))).all()
    assert to_db(np.float32([1, 1e-3, 1e-9])).tolist() == pytest.approx([0, -30, -80])
    assert to_db(np.float32([1, 1e-3, 1e-9]), None).tolist() == pytest.approx([0, -30, -90])


@pytest.mark.parametrize(
    "wave", [np.zeros((1, 100)), np.zeros(100, np.int16), np.zeros(0), np.float32([0, np.nan]), np.float32([np.inf])]
)
def test_wrong_waves(wave):
    with pytest.raises(AudioError, match=r"wave (must hold|holds)"):
        mel_power(wave)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bands": 0}, "bands"),
        ({"hop_samples": 0}, "hop_samples"),
        ({"window_samples": 513}, r"at most fft_samples \(512\)"),
        ({"lowest_hz": 4000.0, "highest_hz": 4000.0}, "lowest_hz"),
        ({"highest_hz": 8001.0}, "highest_hz"),
        ({"bands": 300}, "between two bins"),
    ],
)
def test_wrong_settings(settings, words):
    with pytest.raises(UsageError, match=words):
        filters(MelConfig(**settings))


def test_wrong_number_of_coefficients():
    with pytest.raises(UsageError, match="1 to 80"):
        mfcc(np.ones(400, np.float32), coefficients=81)


# the stream


@pytest.mark.parametrize("sizes", STREAMS)
def test_pieces_change_no_bit(speech, sizes):
    _, _, step, steps, bands = sizes
    frame = step * steps
    wave = speech[8000 : 8000 + 40 * frame]
    whole = once(LogMelAnalyser(*sizes), wave)
    assert (whole.shape, whole.dtype) == ((40, steps * bands), np.float32)
    back = once(LogMelSynthesiser(*sizes), whole.reshape(-1, bands))
    assert (back.shape, back.dtype) == (wave.shape, np.float32)
    edges = [0, 1, 2, 2, 9, 40]
    cuts = [wave[start * frame : stop * frame] for start, stop in pairwise(edges)]
    parts = in_turn(LogMelAnalyser(*sizes), cuts)
    assert np.array_equal(np.concatenate(parts), whole)
    pieces = in_turn(LogMelSynthesiser(*sizes), [part.reshape(-1, bands) for part in parts])
    assert np.array_equal(np.concatenate(pieces), back)


@pytest.mark.parametrize("sizes", STREAMS)
def test_lag_is_what_it_says(sizes):
    """A click comes out so many samples later, and nothing before it."""
    rate_hz, _, step, steps, bands = sizes
    synthesiser = LogMelSynthesiser(*sizes)
    wave = np.zeros(40 * step * steps, np.float32)
    at = 20 * step * steps
    wave[at : at + step] = np.sin(2 * np.pi * 1000 * np.arange(step) / rate_hz)
    back = once(synthesiser, once(LogMelAnalyser(*sizes), wave).reshape(-1, bands))
    assert synthesiser.lag_samples == sizes[1] - step
    assert not back[: at - step].any()
    middle = np.average(np.arange(len(back)), weights=back.astype(np.float64) ** 2)
    assert abs(middle - (at + step / 2 + synthesiser.lag_samples)) <= step
    assert np.abs(back[at + synthesiser.lag_samples + sizes[1] :]).max() < 0.01 * np.abs(back).max()


def test_bands_come_back(speech):
    """What is made has the bands that were asked for."""
    wave = speech[: 160 * 320]
    values = once(LogMelAnalyser(), wave).reshape(-1, 80)
    back = once(LogMelSynthesiser(), values)
    again = once(LogMelAnalyser(), back).reshape(-1, 80)  # 3 steps later
    assert np.abs(again[3:] - values[:-3]).mean() < 0.12
    assert np.mean(back**2) == pytest.approx(np.mean(wave**2), rel=0.1)


def test_speech_comes_back(speech):
    estoi = pytest.importorskip("pystoi").stoi
    wave = speech[: 200 * 320]
    back = once(LogMelSynthesiser(), once(LogMelAnalyser(), wave).reshape(-1, 80))
    assert estoi(wave[:-LAG], back[LAG:], 16_000, extended=True) > 0.9


def test_later_sound_changes_nothing_before(speech):
    values = once(LogMelAnalyser(), speech[: 60 * 320])
    other = values.copy()
    other[40:] = 0
    one, two = (once(LogMelSynthesiser(), rows.reshape(-1, 80)) for rows in (values, other))
    assert np.array_equal(one[: 40 * 320], two[: 40 * 320])
    changed = speech[: 60 * 320].copy()
    changed[40 * 320 :] = 0
    assert np.array_equal(once(LogMelAnalyser(), changed)[:40], values[:40])


def test_silence_stays_silence_and_madness_stays_finite():
    assert not once(LogMelAnalyser(), np.zeros(3200, np.float32)).any()
    assert not once(LogMelSynthesiser(), np.zeros((20, 80), np.float32)).any()
    for value in (1e30, -1e30, np.inf, LARGEST_LOG):
        assert np.isfinite(once(LogMelSynthesiser(), np.full((20, 80), value, np.float32))).all()
    loud = once(LogMelAnalyser(), np.full(3200, 30, np.float32))
    assert np.isfinite(loud).all()
    assert loud.max() < LARGEST_LOG


def test_wrong_shapes_and_sizes():
    for sizes in ((16_000, 640, 200, 2, 80), (16_000, 640, 640, 2, 80), (16_000, 640, 160, 0, 80)):
        with pytest.raises(UsageError, match="step"):
            LogMelAnalyser(*sizes)
    with pytest.raises(UsageError, match="between two bins"):
        LogMelSynthesiser(16_000, 320, 160, 2, 200)
    with pytest.raises(AudioError, match="a multiple of 320"):
        once(LogMelAnalyser(), np.zeros(300, np.float32))
    for shape in ((2, 79), (3, 80), (80,)):
        with pytest.raises(AudioError, match="log-mel values"):
            once(LogMelSynthesiser(), np.zeros(shape, np.float32))


if __name__ == "__main__":
    arrays = {f"{name}_{key}": array for name, case in CASES.items() for key, array in by_librosa(case).items()}
    np.savez_compressed(GOLDEN, **arrays)
