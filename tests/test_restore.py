"""Gaps are filled, nothing else is touched, and no list of stretches does anything but what it says."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from nacre.codec.codec import load
from nacre.core.errors import UsageError
from nacre.dsp import extrapolate
from nacre.io import audio
from nacre.tools import restore
from nacre.tools.restore import conceal, spans, stretches

RATE = 16_000


@pytest.fixture(scope="module")
def speech_codec():
    return load("speech-16k")


def tone(seconds: float, rate_hz: int, hz: float = 200.0) -> np.ndarray:
    at = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.2 * np.sin(2 * np.pi * hz * at) + 0.1 * np.sin(4 * np.pi * hz * at + 1)).astype(np.float32)


# which stretches


def test_stretches_are_read():
    assert stretches("1.20-1.28, 3.4-3.5") == [(1.2, 1.28), (3.4, 3.5)]
    assert stretches("0-1e-1") == [(0.0, 0.1)]


@pytest.mark.parametrize("text", ["", "1", "1-", "a-b", "1-2,", "-1-2", "1-2-3", "1:2"])
def test_what_is_no_stretch_is_refused(text):
    with pytest.raises(UsageError):
        stretches(text)


def test_spans_are_put_in_order_and_joined():
    assert spans([(0.5, 0.6), (0.1, 0.2), (0.15, 0.3), (0.3, 0.4)], 1000, 1000) == [(100, 400), (500, 600)]
    assert spans([(0.9, 7.0)], 1000, 1000) == [(900, 1000)]
    assert spans([(0.0, 0.1)], 1000, 1000) == [(0, 100)]
    assert spans([(0.5, 0.5001)], 1000, 1000) == [(500, 501)]
    assert spans([], 1000, 1000) == []


@pytest.mark.parametrize(
    "lost",
    [
        [(0.5, 0.4)],
        [(0.5, 0.5)],
        [(-0.1, 0.5)],
        [(1.0, 1.5)],
        [(2.0, 3.0)],
        [(0.0, 1.0)],
        [(0.0, 0.6), (0.5, 2.0)],
        [(float("nan"), 1.0)],
        [(0.1, float("inf"))],
    ],
)
def test_spans_that_cannot_be_are_refused(lost):
    with pytest.raises(UsageError):
        spans(lost, 1000, 1000)


# continuation


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_period_is_found(rate_hz):
    period = rate_hz / 200
    found = extrapolate.period_samples(tone(0.2, rate_hz), rate_hz)
    assert abs(found / period - round(found / period)) < 0.03
    assert found <= 0.016 * rate_hz + 1


@pytest.mark.parametrize("fill", [extrapolate.filled, extrapolate.filled_from_both])
def test_a_tone_goes_on(fill):
    wave = tone(0.5, RATE)
    gaps = [(3000, 3400), (6000, 6320)]
    holed = wave.copy()
    for start, stop in gaps:
        holed[start:stop] = 0
    result = fill(holed, gaps, RATE)
    for start, stop in gaps:
        before, behind = result[start:stop], wave[start:stop]
        assert np.corrcoef(before, behind)[0, 1] > 0.95
    kept = holed != 0
    assert np.array_equal(result[kept], holed[kept])


@pytest.mark.parametrize("size", [0, 1, 2, 30, 100, 700])
def test_little_past_is_enough(size):
    past = np.linspace(0.1, 0.2, size, dtype=np.float32)
    found = extrapolate.extrapolated(past, 50, RATE)
    assert found.shape == (50,)
    assert np.isin(found, past).all() if size else not found.any()


# conceal


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_only_lost_samples_change(rate_hz, causal, tiny):
    random = np.random.default_rng(0)
    wave = (0.1 * random.standard_normal((2, 3 * rate_hz))).astype(np.float32)
    lost = [(0.0, 0.03), (0.5, 0.55), (0.57, 0.6), (1.0, 1.3), (2.9, 3.0)]
    given = wave.copy()
    result = conceal(tiny, wave, rate_hz, lost, causal=causal)
    gone = np.zeros(wave.shape[1], bool)
    for start, stop in lost:
        gone[round(start * rate_hz) : round(stop * rate_hz)] = True
    assert np.array_equal(wave, given)
    assert result.shape == wave.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert np.array_equal(result[:, ~gone], wave[:, ~gone])
    for start, stop in lost[1:]:
        assert result[:, round(start * rate_hz) : round(stop * rate_hz)].any()


def test_what_stood_in_a_gap_is_not_looked_at(tiny, speech):
    other = speech.copy()
    other[8000:9000] = np.random.default_rng(1).standard_normal(1000)
    lost = [(0.5, 0.5625)]
    assert np.array_equal(conceal(tiny, speech, RATE, lost), conceal(tiny, other, RATE, lost))
    assert not np.array_equal(conceal(tiny, speech, RATE, lost), speech)


def test_nothing_lost_changes_nothing(tiny, speech):
    assert np.array_equal(conceal(tiny, speech, RATE, []), speech)


def test_causal_does_not_look_ahead(tiny, speech):
    other = speech.copy()
    other[16_000:] = 0
    results = [conceal(tiny, wave, RATE, [(0.9, 1.0)], causal=True)[:16_000] for wave in (speech, other)]
    assert np.array_equal(*results)
    results = [conceal(tiny, wave, RATE, [(0.9, 1.0)])[:16_000] for wave in (speech, other)]
    assert not np.array_equal(*results)


def test_long_gaps_fall_silent_in_the_middle(speech_codec, speech):
    result = conceal(speech_codec, speech, RATE, [(1.0, 4.0)])
    assert np.abs(result[2 * RATE : 3 * RATE]).max() < 1e-3
    assert np.abs(result[RATE : RATE + 1000]).max() > 1e-3


@pytest.mark.parametrize("lost", [[(0.0, 3.0)], [(2.0, 9.0)]])
def test_long_gaps_at_an_end_fall_silent_away_from_sound(speech_codec, speech, lost):
    result = conceal(speech_codec, speech, RATE, lost)
    (start, stop) = (round(at * RATE) for at in lost[0])
    quiet = slice(-RATE, None) if start else slice(0, RATE)
    assert np.abs(result[quiet]).max() < 1e-3
    assert result[start:stop].any()


def test_gaps_apart_do_not_matter_to_each_other(tiny, speech):
    wave = np.concatenate([speech] * 6)
    one, two = [(1.0, 1.06)], [(25.0, 25.06)]
    both, alone = conceal(tiny, wave, RATE, one + two), conceal(tiny, wave, RATE, two)
    assert np.array_equal(both[10 * RATE :], alone[10 * RATE :])


def test_sections_change_little(speech_codec, speech, monkeypatch):
    lost = [(at / 4, at / 4 + 0.05) for at in range(1, 18)]
    whole = conceal(speech_codec, speech, RATE, lost)
    monkeypatch.setattr(restore, "SECTION_S", 1.0)
    parts = conceal(speech_codec, speech, RATE, lost)
    assert not np.array_equal(whole, parts)
    assert np.mean((whole - parts) ** 2) < 0.05 * np.mean((whole - speech) ** 2) + 1e-6


def test_it_is_nearer_than_silence_and_repetition(speech_codec, speech):
    random = np.random.default_rng(2)
    starts = np.flatnonzero(random.random(80) < 0.15) * 0.06 + 0.06
    lost = [(float(at), float(at) + 0.06) for at in starts]

    def distance(wave: np.ndarray) -> float:
        frames = [np.lib.stride_tricks.sliding_window_view(x, 512)[::128] * np.hanning(512) for x in (wave, speech)]
        levels = [np.log(np.abs(np.fft.rfft(x)) + 1e-2) for x in frames]
        return float(np.abs(levels[0] - levels[1]).mean())

    silent = speech.copy()
    repeated = speech.copy()
    for start, stop in spans(lost, len(speech), RATE):
        silent[start:stop] = 0
        repeated[start:stop] = repeated[2 * start - stop : start]
    found = distance(conceal(speech_codec, speech, RATE, lost))
    assert found < 0.75 * distance(silent)
    assert found < distance(repeated)


# command


@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "PCM_16"), (".wav", "PCM_24"), (".flac", "PCM_24")])
def test_command_keeps_every_other_sample(run, tmp_path, tiny_model, suffix, subtype):
    random = np.random.default_rng(3)
    wave = 0.1 * random.standard_normal((20_000, 2))
    soundfile.write(tmp_path / f"in{suffix}", wave, 44_100, subtype)
    done = run("conceal", f"in{suffix}", "-o", f"out{suffix}", "--lost", "0.1-0.15,0.3-0.31", "-m", tiny_model)
    assert done.rc == 0, done.stderr
    assert "2 stretches, 0.060 s" in done.stderr
    before, after = (soundfile.read(tmp_path / name, dtype="int32")[0] for name in (f"in{suffix}", f"out{suffix}"))
    assert soundfile.info(tmp_path / f"out{suffix}").subtype == subtype
    differs = np.flatnonzero((before != after).any(1)) / 44_100
    assert ((differs >= 0.1 - 1e-9) & (differs < 0.15) | (differs >= 0.3 - 1e-9) & (differs < 0.31)).all()
    assert len(differs) > 2000


def test_command_takes_nacre_files(run, tmp_path, tiny, tiny_model, speech):
    (tmp_path / "a.nacre").write_bytes(tiny.encode(speech[:RATE], RATE))
    plain, _ = tiny.decode((tmp_path / "a.nacre").read_bytes())
    done = run("conceal", "a.nacre", "-o", "a.wav", "--lost", "0.5-0.6", "-m", tiny_model, "--quiet")
    assert (done.rc, done.stderr) == (0, "")
    found, _ = audio.read(tmp_path / "a.wav")
    assert np.abs(found - plain)[:, :8000].max() <= 2**-15
    assert np.abs(found - plain)[:, 8000:9600].max() > 2**-15


def test_command_counts_damage_and_tells_of_a_missing_end(run, tmp_path, tiny, tiny_model, speech):
    data = bytearray(tiny.encode(speech[: 2 * RATE], RATE))
    (tmp_path / "cut.nacre").write_bytes(data[: len(data) // 2])
    done = run("conceal", "cut.nacre", "-o", "cut.wav", "-m", tiny_model)
    assert done.rc == 1
    assert "groups are missing; get the whole file" in done.stderr
    assert (tmp_path / "cut.wav").exists()
    data[len(data) // 2] ^= 255
    (tmp_path / "hurt.nacre").write_bytes(data)
    done = run("conceal", "hurt.nacre", "-o", "hurt.wav", "-m", tiny_model)
    assert done.rc == 0
    assert "concealed 0 stretches, 0.000 s, and 1 damaged groups" in done.stderr


def test_commands_tell_of_a_recording_that_is_cut(run, tmp_path, tiny_model, speech):
    audio.write(tmp_path / "cut.wav", speech[None, :RATE], RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:20_000])
    done = run("conceal", "cut.wav", "-o", "out.wav", "--lost", "0.1-0.2", "-m", tiny_model)
    assert (done.rc, (tmp_path / "out.wav").exists()) == (1, True)
    assert "cut.wav is cut off after 0:00.6, less than it states" in done.stderr


def test_command_takes_sound_and_nacre_from_a_pipe(run, tmp_path, tiny, tiny_model, speech):
    audio.write(tmp_path / "in.wav", speech[None, :RATE], RATE)
    for number, data in enumerate(((tmp_path / "in.wav").read_bytes(), tiny.encode(speech[:RATE], RATE))):
        done = run("conceal", "-", "-o", f"{number}.wav", "--lost", "0.5-0.6", "-m", tiny_model, stdin=data)
        assert done.rc == 0, done.stderr
        assert audio.read(tmp_path / f"{number}.wav")[0].shape == (1, RATE)


def test_command_names_what_is_wrong(run, tmp_path, tiny_model, speech):
    audio.write(tmp_path / "in.wav", speech[None, :RATE], RATE)
    for rc, *arguments in (
        (2, "--lost", "0.5-0.4"),
        (2, "--lost", "7-8"),
        (2, "--lost", "0-9"),
        (2, "--lost", "soon"),
        (2,),
    ):
        done = run("conceal", "in.wav", "-o", "out.wav", "-m", tiny_model, *arguments)
        assert done.rc == rc, done.stderr
        assert "lost" in done.stderr
        assert not (tmp_path / "out.wav").exists()
    assert run("conceal", "no.wav", "-o", "out.wav", "--lost", "0-0.1", "-m", tiny_model).rc == 1
    done = run("conceal", "in.wav", "-o", "in.wav", "--lost", "0-0.1", "-m", tiny_model)
    assert done.rc == 2
    assert "in.wav is both input and output" in done.stderr
    audio.write(tmp_path / "there.wav", speech[None, :RATE], RATE)
    done = run("conceal", "in.wav", "-o", "there.wav", "--lost", "0-0.1", "-m", tiny_model)
    assert done.rc == 1
    assert "--force" in done.stderr
