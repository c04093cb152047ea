"""Any sound at all, with the model that is shipped: levels, rates, channels, near silence; and a model at 48 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import once

import nacre
from nacre.codec.codec import Codec
from nacre.core.config import CodecConfig
from nacre.core.units import db_to_gain, kbps
from nacre.dsp.gain import is_silent
from nacre.dsp.stft import Analyser, Synthesiser
from nacre.io import audio

MUSIC = Path(__file__).parents[1] / "recipes" / "music-48k.toml"
RATES_HZ = (8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000)


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return nacre.load("speech-16k")


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-20))


# levels


@pytest.mark.parametrize("rate_kbps", [3, 6])
@pytest.mark.parametrize("peak_db", [-60, -50, -36, -20, -6, 0])
def test_speech_comes_back_as_loud_as_it_was(shipped, speech, peak_db, rate_kbps):
    wave = speech / np.abs(speech).max() * np.float32(db_to_gain(peak_db))
    out, _ = shipped.decode(shipped.encode(wave, 16_000, bitrate_kbps=rate_kbps))
    assert level_db(out) == pytest.approx(level_db(wave), abs=1.0)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_rates_lengths_and_levels(shipped, speech, rate_hz):
    """Speech as if it had been recorded at that rate, of an odd length."""
    resampler = audio.Resampler(16_000, rate_hz, 1)
    wave = np.concatenate([resampler.push(speech[None, 20_000:44_000]), resampler.flush()], 1)[:, :-1]
    wave = wave[:, : wave.shape[1] - 1 + wave.shape[1] % 2]
    out, out_hz = shipped.decode(shipped.encode(wave, rate_hz, bitrate_kbps=6))
    assert wave.shape[1] % 2 == 1
    assert (out.shape, out_hz) == (wave.shape, rate_hz)
    assert level_db(out) == pytest.approx(level_db(wave), abs=1.0)


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_stay_apart(shipped, speech, channels):
    """Each at a level of its own, and in its own place."""
    steps_db = [-6 * channel for channel in range(channels)]
    wave = np.stack([np.roll(speech[:24_001], 3000 * n) * np.float32(db_to_gain(db)) for n, db in enumerate(steps_db)])
    out, rate_hz = shipped.decode(shipped.encode(wave, 11_025, quality=60))
    assert (out.shape, rate_hz) == (wave.shape, 11_025)
    for before, after in zip(wave, out, strict=True):
        assert level_db(after) == pytest.approx(level_db(before), abs=1.2)


# near silence


def test_dither_is_silence_and_what_is_louder_is_not():
    rng = np.random.default_rng(0)
    for steps in (rng.random(16_000) - rng.random(16_000), 2 * rng.random(16_000) - 1):
        assert is_silent((np.rint(steps) * 2**-15).astype(np.float32), 320)
    assert is_silent((rng.standard_normal(16_000) * db_to_gain(-90)).astype(np.float32), 320)
    assert not is_silent((rng.standard_normal(16_000) * db_to_gain(-86)).astype(np.float32), 320)
    click = np.zeros(16_000, np.float32)
    click[9000] = 2**-11  # one sample: weak on the whole, and heard
    assert not is_silent(click, 320)
    assert is_silent(np.zeros(0, np.float32), 320)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_silence_is_nearly_free(shipped, rate_hz, channels):
    """Below 0.3 kb/s with everything that is written, dither or not."""
    rng = np.random.default_rng(0)
    count = 10 * rate_hz + 1
    dither = np.rint(rng.random((channels, count)) - rng.random((channels, count))) * 2**-15
    for wave in (np.zeros((channels, count), np.float32), dither.astype(np.float32)):
        data = shipped.encode(wave, rate_hz)
        assert kbps(len(data), 10) < 0.05 * channels
        assert not shipped.decode(data)[0].any()


def test_quiet_sound_is_not_lost_beside_silence(shipped, speech):
    """A whisper at -60 dB peak after dither, and dither after it."""
    rng = np.random.default_rng(0)
    dither = (np.rint(rng.random(48_000) - rng.random(48_000)) * 2**-15).astype(np.float32)
    quiet = speech[16_000:64_000] / np.abs(speech).max() * np.float32(1e-3)
    out = shipped.decode(shipped.encode(np.concatenate([dither, quiet, dither]), 16_000))[0][0]
    assert not out[:47_000].any()
    assert level_db(out[48_000:96_000]) == pytest.approx(level_db(quiet), abs=1)
    assert not out[98_000:].any()


# a model at 48 kHz


def high_tone(seconds: float) -> np.ndarray:
    """Two low tones and one at 15 kHz, [N] at 48 kHz."""
    time_s = np.arange(round(48_000 * seconds)) / 48_000
    tones = [np.sin(2 * np.pi * hz * time_s) for hz in (220, 1234, 15_000)]
    return (0.1 * sum(tones)).astype(np.float32)


def above_8_khz_db(wave: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    return float(10 * np.log10(power[np.fft.rfftfreq(len(wave), 1 / 48_000) > 8000].sum()))


def test_frames_at_48_khz_hold_what_lies_above_8_khz(shipped):
    config = CodecConfig(48_000, 960, 1920, 480, 1920, 128)
    wave = high_tone(0.4)
    spectra = once(Analyser(config), wave)
    frames = spectra.reshape(-1, 2 * config.bins)
    back = once(Synthesiser(config), frames)
    assert np.allclose(back[1920 - 480 :], wave[: len(back) - 1440], atol=1e-3)
    assert above_8_khz_db(back[1440:]) == pytest.approx(above_8_khz_db(wave[: len(back) - 1440]), abs=0.1)
    speech_model = shipped.decode(shipped.encode(high_tone(1.0), 48_000, band_khz=8))[0][0]
    assert above_8_khz_db(speech_model) < above_8_khz_db(high_tone(1.0)) - 30  # what a model at 16 kHz keeps of it


@pytest.mark.slow
def test_music_recipe_trains_and_codes(tmp_path):
    pytest.importorskip("torch", exc_type=ImportError)
    from nacre.train.codec_trainer import train
    from nacre.train.export import export_run
    from nacre.train.recipe import load_recipe

    small = ("compile=false", "codec.latent_dims=8", "codec.levels=4", "codec.group_frames=10", "net.width=16")
    small += ("net.kernel=3", "net.expansion=2", "net.encoder_blocks=1", "net.decoder_blocks=1", "net.output_blocks=1")
    recipe = load_recipe(MUSIC, (*small, "data.batch=2", "data.excerpt_s=0.2", "stage.0.steps=4"))
    assert recipe.codec.rate_hz == 48_000
    (tmp_path / "data").mkdir()
    audio.write(tmp_path / "data" / "tone.wav", high_tone(3)[None], 48_000)
    train(recipe, tmp_path / "data", tmp_path / "run", quiet=True)
    export_run(tmp_path / "run", tmp_path / "model")
    codec = nacre.load(tmp_path / "model")
    wave = np.stack([high_tone(0.7), high_tone(0.7)[::-1]])
    contents = codec.parse(codec.encode(wave, 48_000))
    assert contents.header.rate_hz == codec.config.rate_hz == 48_000
    out, rate_hz = codec.decode(codec.encode(wave, 48_000))
    assert (out.shape, rate_hz) == (wave.shape, 48_000)
    assert np.isfinite(out).all()
