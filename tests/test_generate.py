"""Said again: exact lengths, the pitch that was asked for, levels kept, and steps that go from one sound to another."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.codec.codec import load
from nacre.core.errors import AudioError, UsageError
from nacre.dsp.gain import active_level_db
from nacre.io import audio
from nacre.tools import edit
from nacre.tools.edit import between, nearest, resynthesise, straight

RATE = 16_000


@pytest.fixture(scope="module")
def speech_codec():
    return load("speech-16k")


def period(wave: np.ndarray) -> float:
    """Samples at 16 kHz between peaks of the autocorrelation, 60 to 400 Hz, of the loudest quarter of a second."""
    pieces = np.lib.stride_tricks.sliding_window_view(wave, 4000)[::1000].astype(np.float64)
    piece = pieces[np.sum(pieces**2, 1).argmax()]
    likeness = np.fft.irfft(np.abs(np.fft.rfft(piece * np.hanning(4000), 8192)) ** 2)
    return 40 + float(likeness[40:266].argmax())


# reading latents


def test_reading_between_frames():
    latents = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(nearest(latents, np.array([-1, 0.4, 1.6, 9])), latents[[0, 0, 2, 2]])
    assert np.array_equal(straight(latents, np.arange(3)), latents)
    assert np.allclose(straight(latents, np.array([0.5, -3, 99])), [[1, 2], [0, 1], [4, 5]])
    assert np.array_equal(straight(latents[:1], np.array([0.0, 0.7])), latents[[0, 0]])


# resynthesis


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize(("speed", "semitones"), [(1.0, 0.0), (1.25, 0.0), (0.7, 2.0), (4.0, -12.0), (0.25, 12.0)])
def test_lengths_are_exact(rate_hz, speed, semitones, tiny):
    for samples in (1, 50, 7777):
        wave = (0.1 * np.random.default_rng(0).standard_normal((2, samples))).astype(np.float32)
        found = resynthesise(tiny, wave, rate_hz, speed=speed, semitones=semitones)
        assert found.shape == (2, max(1, round(samples / speed)))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    assert resynthesise(tiny, wave[0], rate_hz, speed=speed).shape == (max(1, round(samples / speed)),)


def test_speed_one_is_the_latents_alone(tiny, speech):
    found = resynthesise(tiny, speech, RATE, level=3)
    assert (
        np.corrcoef(found, tiny.from_latents(tiny.latents(speech, RATE, 3, gain_code=12).sounding, 3)[: len(speech)])[
            0, 1
        ]
        > 0.8
    )


@pytest.mark.parametrize(("speed", "semitones"), [(1.25, 0.0), (0.8, 0.0), (1.0, 2.0), (1.0, -3.0)])
@pytest.mark.parametrize("formants", [True, False])
def test_pitch_is_what_was_asked(speed, semitones, formants, speech_codec):
    at = np.arange(2 * RATE) / RATE
    hum = sum(np.sin(2 * np.pi * 150 * k * at) / k for k in range(1, 12)).astype(np.float32) * np.float32(0.1)
    found = resynthesise(speech_codec, hum, RATE, speed=speed, semitones=semitones, formants=formants)
    wanted = RATE / 150 / 2 ** (semitones / 12)
    assert period(found) == pytest.approx(wanted, rel=0.04)
    assert active_level_db(found, 320) == pytest.approx(active_level_db(hum, 320), abs=2)


def test_formants_stay_where_asked(speech_codec, speech):
    def slope(wave: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.hanning(512)
        level = np.log((np.abs(np.fft.rfft(frames)) ** 2).mean(0).reshape(-1)[1:].reshape(32, 8).mean(1))
        return level[:14] - level[:14].mean()  # to 3.5 kHz

    kept, moved = (resynthesise(speech_codec, speech, RATE, semitones=4, formants=way) for way in (True, False))
    assert np.abs(slope(kept) - slope(speech)).mean() < np.abs(slope(moved) - slope(speech)).mean()


@pytest.mark.parametrize("options", [{"speed": 0.0}, {"speed": 9.0}, {"speed": float("nan")}, {"semitones": 13.0}])
def test_options_out_of_range(options, tiny, speech):
    with pytest.raises(UsageError):
        resynthesise(tiny, speech, RATE, **options)


def test_no_sound(tiny):
    nothing = np.zeros(0, np.float32)
    with pytest.raises(AudioError):
        resynthesise(tiny, nothing, RATE)
    with pytest.raises(AudioError):
        between(tiny, (nothing, RATE), (nothing, RATE))


def test_silence_stays_silent(speech_codec):
    quiet = resynthesise(speech_codec, np.zeros(RATE, np.float32), RATE, speed=1.5, semitones=3)
    assert np.abs(quiet).max() < 1e-3


# between


def test_steps_go_from_one_to_the_other(speech_codec, speech):
    one, two = speech[:RATE], 0.1 * speech[RATE : 3 * RATE]
    waves = list(between(speech_codec, (one, RATE), (two, RATE), 5))
    assert np.allclose([len(wave) for wave in waves], np.linspace(16_000, 32_000, 5), atol=161)
    levels = [active_level_db(wave, 320) for wave in waves]
    ends = [active_level_db(wave, 320) for wave in (one, two)]
    assert np.allclose(levels, np.linspace(*ends, 5), atol=0.5)
    again = [resynthesise(speech_codec, wave, RATE) for wave in (one, two)]
    assert np.corrcoef(waves[0], again[0])[0, 1] > 0.99
    assert np.corrcoef(waves[-1], again[1])[0, 1] > 0.99


def test_rates_and_channels_may_differ(tiny, speech):
    stereo = np.stack([speech[:8000]] * 2)
    waves = list(between(tiny, (stereo, 48_000), (speech[:8000], 16_000), 2))
    assert [len(wave) // 320 for wave in waves] == [9, 25]


@pytest.mark.parametrize("steps", [0, 1, 2.5, 10_000])
def test_number_of_steps(steps, tiny, speech):
    with pytest.raises(UsageError):
        between(tiny, (speech, RATE), (speech, RATE), steps)


# commands


def test_generate_command(run, tmp_path, tiny_model, speech):
    audio.write(tmp_path / "in.wav", speech[None, :RATE], RATE)
    done = run("generate", "--resynth", "in.wav", "-o", "out.wav", "--speed", 1.25, "--pitch", "+2", "-m", tiny_model)
    assert done.rc == 0, done.stderr
    assert "0:01.0 resynthesised in 0:00.8" in done.stderr
    assert audio.read(tmp_path / "out.wav")[0].shape == (1, 12_800)
    done = run("generate", "--resynth", "in.wav", "-o", "out.wav", "--pitch", "-2", "-m", tiny_model, "-q", "-f")
    assert (done.rc, done.stderr) == (0, "")
    assert audio.read(tmp_path / "out.wav")[0].shape == (1, 16_000)
    for rc, *arguments in ((1,), (2, "--speed", "9", "-f"), (2, "--pitch", "99", "-f"), (2, "--seconds", "5")):
        done = run("generate", "--resynth", "in.wav", "-o", "out.wav", "-m", tiny_model, *arguments)
        assert done.rc == rc, done.stderr
    assert run("generate", "-o", "other.wav").rc == 2


def test_interpolate_command(run, tmp_path, tiny_model, speech):
    for name, part in (("a.wav", speech[:8000]), ("b.wav", speech[8000:24_000])):
        audio.write(tmp_path / name, part[None], RATE)
    done = run("interpolate", "a.wav", "b.wav", "-o", "steps", "--steps", 3, "-m", tiny_model)
    assert done.rc == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "steps").iterdir())
    assert names == ["step-1.wav", "step-2.wav", "step-3.wav"]
    sizes = [audio.read(tmp_path / "steps" / name)[0].shape[1] for name in names]
    assert (sizes[0], sizes[2]) == (8000, 16_000)
    done = run("interpolate", "a.wav", "b.wav", "-o", "all.wav", "--steps", 3, "-m", tiny_model, "-q")
    assert (done.rc, done.stderr) == (0, "")
    assert audio.read(tmp_path / "all.wav")[0].shape[1] == sum(sizes) + 2 * 4800
    again = run("interpolate", "a.wav", "b.wav", "-o", "steps", "--steps", 3, "-m", tiny_model)
    assert again.rc == 1
    assert "--force" in again.stderr
    assert run("interpolate", "a.wav", "no.wav", "-o", "x.wav", "-m", tiny_model).rc == 1
    assert run("interpolate", "a.wav", "b.wav", "-o", "x.wav", "--steps", "1", "-m", tiny_model).rc == 2
    assert edit.MOST_STEPS == 1000


def test_steps_are_written_all_or_none(run, tmp_path, tiny_model, speech):
    audio.write(tmp_path / "a.wav", speech[None, :RATE], RATE)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "step-3.wav").touch()
    audio.write(tmp_path / "b.wav", speech[None, :RATE], RATE)
    done = run("interpolate", "a.wav", "b.wav", "-o", "b.wav", "-f", "-m", tiny_model)
    assert (done.rc, "b.wav is both input and output" in done.stderr) == (2, True)
    done = run("interpolate", "a.wav", "a.wav", "-o", "steps/", "--steps", 3, "-m", tiny_model)
    assert done.rc == 1
    assert "step-3.wav exists already" in done.stderr
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["step-3.wav"]
    (tmp_path / "steps" / "step-3.wav").unlink()
    (tmp_path / "steps" / "step-3.wav").mkdir()
    done = run("interpolate", "a.wav", "a.wav", "-o", "steps/", "--steps", 3, "-f", "-m", tiny_model)
    assert done.rc == 1
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["step-3.wav"]
