"""Drawn by lot: the same seed gives the same sound, prompts are kept, lengths are exact, wrong wishes are named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import small_prior
from test_context import speechlike

import nacre
from nacre.core.errors import AudioError, UsageError
from nacre.dsp.gain import gain_for, gain_of
from nacre.io import audio
from nacre.tools.sample import HOTTEST, PEAK, PROMPT_S, draw, draw_symbols, limited, sample

RATE = 16_000


@pytest.fixture
def random():
    return np.random.default_rng(0)


# answers by lot


def test_answers_go_as_the_shares(random):
    shares = np.tile([0.0, 0.1, 0.5, 0.15, 0.25], (1, 20_000, 1))
    drawn = draw(shares, random, 1.0, 1.0)
    assert drawn.shape == (1, 20_000)
    assert drawn.dtype == np.int32
    wanted = np.array([0, 0.1, 0.5, 0.15, 0]) / 0.75  # the escape is never drawn
    np.testing.assert_allclose(np.bincount(drawn[0], minlength=5) / 20_000, wanted, atol=0.02)
    cold = np.bincount(draw(shares, random, 0.5, 1.0)[0], minlength=5) / 20_000
    np.testing.assert_allclose(cold, wanted**2 / (wanted**2).sum(), atol=0.02)
    assert set(draw(shares, random, 1.0, 0.67)[0]) == {2, 3}
    assert set(draw(shares, random, 1.0, 0.66)[0]) == {2}
    assert set(draw(shares, random, HOTTEST, 1.0)[0]) == {1, 2, 3}


def test_likeliest_answers(random):
    shares = random.dirichlet(np.full(30, 0.2), (2, 50))
    best = shares[..., :-1].argmax(-1)
    for temperature, top_p in ((0.0, 1.0), (1.0, 1e-9), (1e-6, 1.0), (0.0, 1e-300), (HOTTEST, 1e-300)):
        np.testing.assert_array_equal(draw(shares, random, temperature, top_p), best)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_escape_where_nothing_else_is_left(temperature, random):
    shares = np.array([[[0.0, 0.0, 1.0], [0.25, 0.0, 0.75]]])
    assert draw(shares, random, temperature, 0.9).tolist() == [[2, 0]]


# symbols


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [{}, {"used": 9}, {"blocks": 1}])
def test_prompts_stay_and_decide(seed, shape):
    prior, random = small_prior(seed, **shape), np.random.default_rng(seed)
    before = speechlike(prior, 12, random)  # far out as well: some escape
    found = draw_symbols(prior, 1, 20, random, before=before)
    np.testing.assert_array_equal(found[:12], before)
    np.testing.assert_array_equal(draw_symbols(prior, 1, 12, random, before=before), before)
    whole = draw_symbols(prior, 1, 40, random, temperature=0.0, before=before[:5])
    again = draw_symbols(prior, 1, 40, random, temperature=0.0, before=whole[:23])
    np.testing.assert_array_equal(again, whole)
    assert np.isfinite(prior.bits(whole, 1))


def test_symbols_of_no_frame(random):
    assert draw_symbols(small_prior(), 0, 0, random).shape == (0, 9)


# sound


def test_seeds(both):
    one, same, other = (sample(both, 0.5, seed=seed).wave for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    fresh = [sample(both, 0.5) for _ in range(2)]
    assert fresh[0].seed != fresh[1].seed
    np.testing.assert_array_equal(fresh[0].wave, sample(both, 0.5, seed=fresh[0].seed).wave)


def test_no_lot_at_temperature_0(both):
    cold = [sample(both, 0.3, temperature=0.0).wave for _ in range(2)]
    np.testing.assert_array_equal(*cold)
    np.testing.assert_array_equal(sample(both, 0.3, top_p=1e-9, temperature=1.0).wave, cold[0])


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.12345, 1.0, 2.5])
@pytest.mark.parametrize("level", [0, 3])
def test_durations_are_exact(seconds, level, both):
    made = sample(both, seconds, level=level, temperature=HOTTEST)
    assert made.wave.shape == (round(seconds * RATE),)
    assert made.wave.dtype == np.float32
    assert np.abs(made.wave).max() <= PEAK + 1e-6
    assert (made.prompt_samples, made.rate_hz, made.level) == (0, RATE, level)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "kept"), [(320, 16_000, 1), (33_000, 48_000, 34), (250_000, 16_000, 500)]
)
def test_prompts_come_first(samples, rate_hz, kept, both, speech):
    talk = np.tile(speech, 4)[-samples:]
    made = sample(both, 0.3, prompt=(np.stack([talk, talk]), rate_hz), seed=1, level=2)
    assert made.prompt_samples == kept * 320 <= PROMPT_S * RATE
    assert made.wave.shape == (kept * 320 + 4800,)
    other = sample(both, 0.3, prompt=(talk, rate_hz), seed=2, level=2).wave
    lead = made.prompt_samples - both.config.delay_samples - both.config.window_samples
    if lead > 0:
        np.testing.assert_allclose(made.wave[:lead], other[:lead], atol=1e-5)
    assert (made.wave[made.prompt_samples :] != other[made.prompt_samples :]).any()


def test_prompts_keep_their_level(speech):
    codec = nacre.load("speech-16k")
    if codec.model.context_prior is None:
        pytest.skip("the bundled model has no context prior")
    for factor in (1.0, 0.05):
        talk = factor * speech[:RATE]
        made = sample(codec, 0.1, prompt=(talk, RATE), seed=1, level=12)
        code = gain_for(talk, 320)
        wanted = codec.from_latents(codec.latents(talk, RATE, 12, gain_code=code).sounding, 12) / gain_of(code)
        np.testing.assert_allclose(np.std(made.wave[:14_000]), np.std(wanted[:14_000]), rtol=0.05)
        assert np.corrcoef(made.wave[:14_000], wanted[:14_000])[0, 1] > 0.98


def test_loud_sound_is_turned_down(random):
    wave = (0.1 * random.standard_normal(5000)).astype(np.float32)
    np.testing.assert_array_equal(limited(wave, 320), wave)
    wave[2000:2100] *= 1000
    found = limited(wave, 320)
    assert np.abs(found).max() <= PEAK + 1e-6
    np.testing.assert_array_equal(found[:900], wave[:900])


# wrong wishes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seconds": 0.01}, "0.02 to 600"),
        ({"seconds": 601}, "601 s cannot be sampled"),
        ({"seconds": float("nan")}, "seconds"),
        ({"temperature": -0.1}, "0 to 5"),
        ({"temperature": 5.1}, "temperature 5.1 is out of range"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "more than 0"),
        ({"top_p": 1.01}, "at most 1"),
        ({"level": 4}, "0 to 3"),
        ({"level": -1}, "0 to 3"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_out_of_range(options, words, both):
    with pytest.raises(UsageError, match=re.escape(words)):
        sample(both, **({"seconds": 1.0} | options))


def test_models_without_a_context_prior(tiny):
    with pytest.raises(UsageError, match="context prior"):
        sample(tiny, 1.0)


@pytest.mark.parametrize(
    ("samples", "words"), [(0, "only 0 samples"), (319, "at least 0.02 s"), (RATE, "silent"), (20 * RATE, "silent")]
)
def test_prompts_without_sound(samples, words, both, speech):
    prompt = np.zeros(samples, np.float32)
    prompt[: samples - 11 * RATE] = 0.1  # too long ago
    with pytest.raises(AudioError, match=words):
        sample(both, 1.0, prompt=(prompt, RATE))


# command


def test_generate_command(run, tmp_path, both_model, tiny_model, speech):
    audio.write(tmp_path / "in.wav", speech[None, :RATE], RATE)
    audio.write(tmp_path / "quiet.wav", np.zeros((1, RATE), np.float32), RATE)
    draws = ("generate", "-o", "out.wav", "-m", both_model, "--seconds", 0.5)
    done = run(*draws)
    assert done.rc == 0, done.stderr
    first, seed = audio.read(tmp_path / "out.wav")[0], re.search(r"--seed (\d+)", done.stderr)[1]
    assert first.shape == (1, 8000)
    assert run(*draws).rc == 1  # it is there
    done = run(*draws, "-f", "-q", "--seed", seed)
    assert (done.rc, done.stderr) == (0, "")
    np.testing.assert_array_equal(audio.read(tmp_path / "out.wav")[0], first)
    done = run(*draws, "-f", "--prompt", "in.wav", "--temperature", 0.7, "--top-p", 0.9, "--level", 1)
    assert done.rc == 0, done.stderr
    assert "the last 1.00 s of in.wav, as decoded, then 0.5 s sampled" in done.stderr
    assert "--level 1" in done.stderr
    assert audio.read(tmp_path / "out.wav")[0].shape == (1, RATE + 8000)
    assert run(*draws, "-f", "--prompt", "quiet.wav").rc == 1
    assert "are silent; cut the silence" in run(*draws, "-f", "--prompt", "quiet.wav").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--resynth", "in.wav", "--seconds", 1),
        ("--resynth", "in.wav", "--seed", 1),
        ("--seconds", 1, "--speed", 2),
        ("--seconds", 1, "--no-formants"),
        ("--seconds", 0),
        ("--seconds", 1, "--temperature", 9),
        ("--seconds", 1, "--top-p", 0),
    ],
)
def test_wrong_usage(arguments, run, tmp_path, both_model):
    done = run("generate", "-o", "out.wav", "-m", both_model, *arguments)
    assert (done.rc, "error:" in done.stderr.lower()) == (2, True), done.stderr
    assert not (tmp_path / "out.wav").exists()


def test_a_model_that_cannot(run, tiny_model):
    done = run("generate", "-o", "out.wav", "-m", tiny_model, "--seconds", 1)
    assert (done.rc, "has no context prior to sample from; add one" in done.stderr) == (2, True)
