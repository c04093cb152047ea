"""Tokens and latents that come back as the sound: of all kinds, levels, channels and rates, from files, in batches."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import damaged
from test_kind_contract import EXAMPLES
from test_residual import small_layer

from nacre.codec.codec import Codec
from nacre.codec.frames import LOST, SILENT, Frames
from nacre.codec.latents import Latents
from nacre.codec.packets import CONTEXT, STATIC
from nacre.codec.tokens import NO_TOKEN, Tokens
from nacre.core.errors import AudioError, StreamError, UsageError
from nacre.entropy.static_prior import StaticPrior, fit_indices
from nacre.quantise.fsq import FiniteScalar
from nacre.quantise.gaussian import GaussianQuantiser
from nacre.quantise.registry import KINDS
from nacre.quantise.rvq import ResidualVQ

GROUP, HOP = 3200, 320  # samples of the tiny model
RNG = np.random.default_rng(6)
INWARD = RNG.standard_normal((4, 8, 2)).astype(np.float32)
QUANTISERS = {
    "gaussian": lambda tiny: GaussianQuantiser(tiny.model.quantiser.steps, np.zeros(4, np.float32)),
    "rvq": lambda tiny: ResidualVQ(
        RNG.standard_normal((4, 9, 2)).astype(np.float32),
        INWARD,
        INWARD.transpose(0, 2, 1).copy(),
        np.uint8([1, 2, 3, 4]),
        np.float32([0.1]),
    ),
    "fsq": lambda tiny: FiniteScalar(3, 8, np.uint8([2, 4, 6, 8])),
}


def with_kind(tiny: Codec, kind: str) -> Codec:
    """The tiny model with a quantiser of this kind."""
    if kind == "scalar":
        return tiny
    quantiser = QUANTISERS[kind](tiny)
    if not quantiser.entries:
        return Codec(replace(tiny.model, quantiser=quantiser))
    row = np.zeros(2 * (quantiser.entries // 2) + 1, np.int64)
    counts = np.tile(fit_indices(row[: quantiser.entries]), (4, quantiser.columns, 1))
    return Codec(replace(tiny.model, quantiser=quantiser, static_prior=StaticPrior(counts)))


@pytest.fixture(scope="module")
def layered(both) -> Codec:
    """A model whose two highest levels have a residual layer."""
    return Codec(replace(both.model, residual=small_layer()))


@pytest.fixture(scope="module")
def paused(speech) -> np.ndarray:
    """Speech, digital silence, speech 40 dB down; the last group is not full."""
    return np.concatenate([speech[16_000:29_000], np.zeros(8000, np.float32), 0.01 * speech[20_000:36_345]])


def same(one: Frames, two: Frames) -> None:
    assert type(one) is type(two)
    assert one.arrays().keys() == two.arrays().keys()
    for name, values in one.arrays().items():
        np.testing.assert_array_equal(values, two.arrays()[name], err_msg=name)


def back(codec: Codec, tokens: Tokens, data: bytes) -> None:
    """Tokens give what the file gives."""
    wave = codec.decode(data)[0]
    np.testing.assert_array_equal(codec.from_tokens(tokens), wave[0] if len(wave) == 1 else wave)


# ---- tokens and files


@pytest.mark.parametrize("kind", list(KINDS))
def test_tokens_of_every_kind_come_back_as_the_file(tiny, paused, kind):
    codec = with_kind(tiny, kind)
    assert set(EXAMPLES) == {"scalar", *QUANTISERS}
    for level in range(4):
        tokens, data = codec.tokens(paused, 16_000, level), codec.encode(paused, 16_000, level=level)
        same(tokens, codec.symbols(data))
        back(codec, tokens, data)
        assert codec.pack(tokens) == data
        assert np.asarray(tokens) is tokens.tokens
        assert tokens.tokens.min() >= 0
        assert tokens.shape == (-(-(len(paused) + 640) // HOP), len(codec.token_format(level).alphabet))
        assert (tokens.tokens.max(0) < codec.token_format(level).alphabet).all()
        assert set(tokens.levels.tolist()) <= {level}
        assert (tokens.gains == SILENT).sum() == 2


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
@pytest.mark.parametrize("samples", [1, 319, 640, 2560, 2561, 3200, 9999])
def test_lengths_and_rates(tiny, speech, samples, rate_hz):
    wave = speech[16_000 : 16_000 + samples]
    tokens, data = tiny.tokens(wave, rate_hz), tiny.encode(wave, rate_hz, level=3)
    back(tiny, tokens, data)
    at_model = -(-samples * 16_000 // rate_hz)
    assert (tokens.samples, tokens.rate_hz, tokens.frames) == (samples, rate_hz, -(-at_model // HOP))
    assert tokens.sounding.shape[0] == tokens.frames
    assert codec_rate(tiny, tokens, 16_000) == at_model


def codec_rate(codec: Codec, tokens: Tokens, rate_hz: int) -> int:
    return codec.from_tokens(tokens, rate_hz=rate_hz).shape[-1]


def test_priors_hold_the_same_tokens(both, paused):
    files = [both.encode(paused, 16_000, level=2, prior=prior) for prior in (CONTEXT, STATIC)]
    assert files[0] != files[1]
    same(both.symbols(files[0]), both.symbols(files[1]))
    same(both.symbols(files[0]), both.tokens(paused, 16_000, 2))


@pytest.mark.parametrize("prior", [CONTEXT, STATIC])
def test_residual_levels_bring_their_symbols(layered, paused, prior):
    level = layered.config.levels - 1
    tokens = layered.tokens(paused, 16_000, level)
    data = layered.encode(paused, 16_000, level=level, prior=prior)
    assert tokens.fine.shape == (len(tokens), HOP)
    assert tokens.fine.any()
    same(tokens, layered.symbols(data))
    assert layered.pack(tokens, prior) == data
    back(layered, tokens, data)
    with pytest.raises(UsageError, match="level 3 needs 320 fine symbols a frame, not none"):
        layered.from_tokens(replace(tokens, fine=None))


@pytest.mark.parametrize("kind", list(KINDS))
def test_levels_that_change_from_group_to_group(tiny, speech, kind):
    codec = with_kind(tiny, kind)
    one, two = (codec.tokens(speech[: 3 * GROUP], 16_000, level) for level in (0, 3))
    wide = np.full_like(two.tokens, NO_TOKEN)
    wide[:, : one.shape[1]] = one.tokens
    mixed = replace(
        two,
        tokens=np.concatenate([wide[:10], two.tokens[10:]]),
        levels=np.concatenate([one.levels[:1], two.levels[1:]]),
        gains=np.concatenate([one.gains[:1], two.gains[1:]]),
    )
    file = codec.symbols(codec.pack(mixed))
    same(file, mixed)
    back(codec, file, codec.pack(mixed))


# ---- several channels


@pytest.fixture(scope="module")
def stereo(speech) -> np.ndarray:
    """[2, N]: alike, then apart, then the right one silent, then alike again."""
    left = speech[20_000:52_345]
    right = 0.8 * left
    right[8000:16_000] = speech[60_000:68_000]
    right[16_000:24_000] = 0
    return np.stack([left, right])


def test_channels_come_back_as_the_file(tiny, stereo):
    tokens, data = tiny.tokens(stereo, 16_000, 3, mono=False), tiny.encode(stereo, 16_000, level=3)
    assert tokens.shape[0] == tokens.channels == 2
    assert set(tokens.balance.tolist()) > {0}
    assert (tokens.gains[1] == SILENT).any()
    alike = np.repeat(tokens.balance > 0, tokens.group_frames)[: len(tokens)]
    np.testing.assert_array_equal(tokens.tokens[0, alike], tokens.tokens[1, alike])
    same(tokens, tiny.symbols(data))
    assert tiny.pack(tokens) == data
    back(tiny, tokens, data)
    apart = tiny.encode(stereo, 16_000, level=3, stereo="left-right")
    assert tiny.symbols(apart).balance is None
    back(tiny, tiny.symbols(apart), apart)


def test_channels_are_averaged_or_not(tiny, stereo):
    same(tiny.tokens(stereo, 16_000, mono=True), tiny.tokens(stereo.mean(0), 16_000))
    same(tiny.latents(stereo, 16_000, mono=True), tiny.latents(stereo.mean(0), 16_000))
    each = tiny.latents(stereo, 16_000, mono=False)
    assert each.shape[0] == 2
    np.testing.assert_array_equal(each.latents[1], tiny.latents(stereo[1], 16_000).latents)
    assert tiny.from_latents(each).shape == stereo.shape


def test_three_channels(tiny, speech):
    wave = np.stack([speech[:9000], speech[9000:18_000], 0 * speech[:9000]])
    tokens, data = tiny.tokens(wave, 22_050, mono=False), tiny.encode(wave, 22_050, level=3)
    same(tokens, tiny.symbols(data))
    back(tiny, tokens, data)


@pytest.mark.parametrize("channels", [1, 2])
def test_damaged_files_give_the_same_sound(tiny, stereo, channels):
    good, lost = tiny.encode(stereo[:channels], 16_000, level=3), 0
    for data in damaged(good, 120):
        try:
            tokens = tiny.symbols(data)
        except StreamError:
            continue
        back(tiny, tokens, data)
        if tokens.lost:
            with pytest.raises(UsageError, match="lost groups"):
                tiny.pack(tokens)
        assert (tokens.gains == LOST).sum() == tokens.lost
        lost += tokens.lost > 0
    assert lost > 30


# ---- latents


def test_a_quiet_pause_stays_quiet(tiny, speech):
    wave = speech[16_000:48_000].copy()
    wave[9600:22_400] *= 10 ** (-50 / 20)
    found = tiny.from_latents(tiny.latents(wave, 16_000))
    assert found.shape == wave.shape
    decoded = tiny.decode(tiny.encode(wave, 16_000, level=3))[0][0]
    for part in (slice(0, 9600), slice(16_000, 22_400), slice(26_000, 32_000)):
        assert level_db(found[part]) == pytest.approx(level_db(decoded[part]), abs=3)
    bare = tiny.from_latents(tiny.latents(wave, 16_000).sounding)
    assert level_db(bare[16_000:22_400]) > level_db(found[16_000:22_400]) + 6


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-12))


def test_rounded_latents_are_the_tokens(tiny, paused):
    """Latents are on the decoder's side of what is quantised: rounded, they sound as the file does."""
    latents, tokens = tiny.latents(paused, 16_000), tiny.tokens(paused, 16_000)
    np.testing.assert_array_equal(latents.gains, tokens.gains)
    model, heard = tiny.model, np.repeat(latents.gains, 10)[: len(latents)] != SILENT
    symbols = model.symbols(latents.latents, 3)
    np.testing.assert_array_equal((symbols - model.static_prior.ranges(3)[0])[heard], tokens.tokens[heard])
    rounded = replace(latents, latents=model.latents(symbols, 3))
    np.testing.assert_array_equal(tiny.from_latents(rounded), tiny.from_tokens(tokens))


def test_silence_is_silent(tiny):
    for found in (tiny.latents(np.zeros(16_000), 16_000), tiny.tokens(np.zeros(16_000), 16_000)):
        assert (found.gains == SILENT).all()
    assert not tiny.from_latents(tiny.latents(np.zeros(16_000), 16_000)).any()
    one = tiny.latents(np.zeros(16_000), 16_000, gain_code=12)
    assert (one.gains == 12).all()


# ---- batches


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["tokens", "latents"])
def test_a_batch_is_its_items(tiny, speech, kind, threads):
    lengths = [9600, 5001, 16_000, 700]
    waves = np.zeros((4, 16_000), np.float32)
    for row, length in zip(waves, lengths, strict=True):
        row[:length] = speech[16_000 : 16_000 + length]
    work, single = getattr(tiny, f"{kind}_batch"), getattr(tiny, kind)
    batch = work(waves, 16_000, lengths, threads=threads)
    listed = work([wave[:length] for wave, length in zip(waves, lengths, strict=True)], 16_000, threads=threads)
    assert len(batch) == 4
    assert batch.values.shape == (4, 52, 8)
    assert batch.mask.sum(1).tolist() == batch.lengths.tolist() == [32, 18, 52, 5]
    assert not batch.values[~batch.mask].any()
    assert batch.gains.shape == (4, 6)
    for index, (one, other) in enumerate(zip(batch, listed, strict=True)):
        alone = single(waves[index, : lengths[index]], 16_000)
        same(one, alone)
        same(other, alone)
        np.testing.assert_array_equal(batch.values[index, batch.mask[index]], np.asarray(alone))
        np.testing.assert_array_equal(batch.gains[index, : len(alone.gains)], alone.gains)


def test_batches_that_are_none(tiny, speech):
    with pytest.raises(UsageError, match="one or more waves"):
        tiny.tokens_batch([], 16_000)
    with pytest.raises(UsageError, match="a batch of 2 waves needs a length for each"):
        tiny.tokens_batch(np.zeros((2, 99), np.float32), 16_000, [1])
    with pytest.raises(UsageError, match="lengths must be"):
        tiny.tokens_batch(np.zeros((2, 99), np.float32), 16_000, [1, 100])
    with pytest.raises(AudioError, match="item 1: wave holds NaN"):
        tiny.latents_batch([speech[:900], np.full(900, np.nan)], 16_000)


# ---- files of arrays


@pytest.mark.parametrize("kind", ["plain", "fine", "stereo", "latents"])
def test_saved_and_loaded(tiny, layered, stereo, tmp_path, kind):
    found = {
        "plain": lambda: tiny.tokens(stereo, 16_000, mono=True),
        "fine": lambda: layered.tokens(stereo, 44_100, 3, mono=True),
        "stereo": lambda: tiny.tokens(stereo, 16_000, mono=False),
        "latents": lambda: tiny.latents(stereo, 16_000, mono=False),
    }[kind]()
    found.save(tmp_path / "a.npz")
    again = type(found).load(tmp_path / "a.npz")
    same(found, again)
    for field in fields(found):
        one, two = getattr(found, field.name), getattr(again, field.name)
        assert (one is None) == (two is None), field.name
    found.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with pytest.raises(AudioError, match="exists already"):
        found.save(tmp_path / "a.npz")
    other = Latents if isinstance(found, Tokens) else Tokens
    with pytest.raises(StreamError, match="as nacre saves them"):
        other.load(tmp_path / "a.npz")


def test_harmed_files_end_in_an_error(tiny, speech, tmp_path):
    tiny.tokens(speech[:9000], 16_000).save(tmp_path / "a.npz")
    good, path, read = (tmp_path / "a.npz").read_bytes(), tmp_path / "b.npz", 0
    for data in damaged(good, 200):
        path.write_bytes(data)
        try:
            tiny.from_tokens(Tokens.load(path))
            read += 1
        except (StreamError, UsageError):
            pass
    assert read > 10


# ---- what is wrong


def test_tokens_that_do_not_fit(tiny, speech):
    tokens = tiny.tokens(speech[:9600], 16_000)
    for change, message in [
        ({"tokens": tokens.tokens[0]}, "tokens must have shape"),
        ({"tokens": tokens.tokens[:, :0]}, "tokens must have shape"),
        ({"gains": tokens.gains[:-1]}, "gains and levels must have shape"),
        ({"gains": tokens.gains + 40}, "gains must be"),
        ({"rate_hz": 10}, "rate_hz, samples"),
        ({"frames": 0}, "rate_hz, samples"),
        ({"balance": np.zeros(3, np.uint8)}, "balance"),
        ({"fine": np.zeros((3, 5), np.int16)}, "fine"),
    ]:
        with pytest.raises(UsageError, match=message):
            replace(tokens, **change)
    for change, message in [
        ({"samples": 99_999}, "99999 samples at 16000 Hz must have .* frames, not 32"),
        ({"fingerprint": "00000000"}, "the tokens are of model 00000000"),
        ({"group_frames": 16, "gains": tokens.gains[:2], "levels": tokens.levels[:2]}, "group_frames must be"),
        ({"levels": tokens.levels + 4}, "level must be 0 to 3, not 7"),
        (
            {"tokens": tokens.tokens[:, :3]},
            r"integers \[T, 8\] at level .*, not int32 of shape \(\d+, 3\)",
        ),
        ({"tokens": tokens.tokens.astype(np.float32)}, "not float32 of shape"),
    ]:
        with pytest.raises(UsageError, match=message):
            tiny.from_tokens(replace(tokens, **change))
    wrong = tokens.tokens.copy()
    wrong[13, 2] = 999
    with pytest.raises(UsageError, match=r"token of frame 13, column 2 must be .*, not 999"):
        tiny.from_tokens(replace(tokens, tokens=wrong))
    with pytest.raises(UsageError, match="level is for arrays"):
        tiny.from_tokens(tokens, 2)
    with pytest.raises(UsageError, match="leave it out for an array"):
        tiny.from_tokens(tokens.tokens, rate_hz=8000)
    latents = tiny.latents(speech[:9600], 16_000)
    with pytest.raises(UsageError, match="finite"):
        tiny.from_latents(replace(latents, latents=latents.latents * np.nan))


def test_levels_of_a_file(tiny, speech):
    for level in range(4):
        contents = tiny.parse(tiny.encode(speech[:9600], 16_000, level=level))
        assert {packet.level for packet in contents.packets} == {level}
    with pytest.raises(UsageError, match="level and quality exclude each other"):
        tiny.encode(speech[:9600], 16_000, level=1, quality=50)
    with pytest.raises(UsageError, match="level must be 0 to 3, not 4"):
        tiny.encode(speech[:9600], 16_000, level=4)
    with pytest.raises(StreamError, match="no groups"):
        tiny.symbols(tiny.encode(speech[:9600], 16_000)[:22])


def test_the_example_of_the_documentation_runs():
    guide = (Path(__file__).parent.parent / "docs" / "latents.md").read_text()
    (example,) = re.findall(r"<!-- tested -->\n```python\n(.*?)```", guide, re.DOTALL)
    exec(example, {})


# ---- commands


def test_sound_to_tokens_and_back(nacre, tiny, tiny_model, stereo, tmp_path):
    soundfile.write(tmp_path / "a.wav", stereo.T, 16_000, "FLOAT")
    for options, mono in (((), True), (("--no-mono",), False)):
        done = nacre("tokens", "a.wav", "-o", "a.npz", "-f", "--level", 2, "-m", tiny_model, *options)
        assert done.rc == 0, done.stderr
        found = Tokens.load(tmp_path / "a.npz")
        same(found, tiny.tokens(stereo, 16_000, 2, mono=mono))
        assert nacre("from-tokens", "a.npz", "-o", "b.wav", "-f", "-m", tiny_model).rc == 0
        heard = soundfile.read(tmp_path / "b.wav", dtype="float32", always_2d=True)[0].T
        assert heard.shape == (1 if mono else 2, stereo.shape[1])
        assert np.abs(heard - np.atleast_2d(tiny.from_tokens(found))).max() < 1e-3  # 16 bits
    assert nacre("tokens", "a.wav", "-o", "l.npz", "--latents", "-m", tiny_model).rc == 0
    same(Latents.load(tmp_path / "l.npz"), tiny.latents(stereo, 16_000, mono=True))
    assert nacre("from-tokens", "l.npz", "-o", "l.wav", "--rate", 8000, "-m", tiny_model).rc == 0
    assert soundfile.info(tmp_path / "l.wav").samplerate == 8000


def test_tokens_of_coded_files(nacre, tiny, tiny_model, stereo, tmp_path):
    data = tiny.encode(stereo[:1], 16_000, quality=50)
    (tmp_path / "a.nacre").write_bytes(data)
    assert nacre("tokens", "a.nacre", "-o", "a.npz", "-m", tiny_model).rc == 0
    same(Tokens.load(tmp_path / "a.npz"), tiny.symbols(data))
    (tmp_path / "cut.nacre").write_bytes(data[: len(data) // 2])
    done = nacre("tokens", "cut.nacre", "-o", "cut.npz", "-m", tiny_model)
    assert (done.rc, "damaged" in done.stderr) == (1, True)
    same(Tokens.load(tmp_path / "cut.npz"), tiny.symbols(data[: len(data) // 2]))
    (tmp_path / "two.nacre").write_bytes(tiny.encode(stereo, 16_000, quality=50))
    assert nacre("tokens", "two.nacre", "-o", "two.npz", "--no-mono", "-m", tiny_model).rc == 0


def test_commands_refuse(nacre, tiny_model, speech, tiny, tmp_path):
    (tmp_path / "a.nacre").write_bytes(tiny.encode(speech[:9000], 16_000))
    tiny.tokens(speech[:9000], 16_000).save(tmp_path / "a.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    for line, code, words in [
        (("tokens", "a.nacre", "-o", "b.npz", "--latents", "-m", tiny_model), 2, "leave out --latents"),
        (("tokens", "none.wav", "-o", "b.npz", "-m", tiny_model), 1, "none.wav"),
        (("tokens", "a.nacre", "-o", "a.npz", "-m", tiny_model), 1, "--force"),
        (("from-tokens", "bad.npz", "-o", "b.wav"), 1, "is not an .npz file; give one that `nacre tokens` wrote"),
        (("from-tokens", "a.npz", "-o", "b.wav"), 1, "give the model's folder with --model"),
        (("from-tokens", "a.npz", "-o", "b.wav", "-m", "speech-16k"), 1, "the tokens are of model"),
        (("from-tokens", "-", "-o", "b.wav"), 2, "standard input"),
    ]:
        done = nacre(*line)
        assert (done.rc, words in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "b.npz").exists()
    assert not (tmp_path / "b.wav").exists()
