"""Music: the transform, the symbols, files of every shape, damage, and the choice between the two models."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import damaged

import nacre
from nacre.core.errors import BundleError, NacreError, StreamError, UsageError
from nacre.dsp import blocks
from nacre.dsp.steadiness import MUSIC, steadiness
from nacre.format import file as container
from nacre.music import model as models
from nacre.music import shape
from nacre.music.decoder import read_packet
from nacre.music.symbols import tiers

DATA = Path(__file__).parent / "data"
RATE_HZ = 48_000


def tune(seconds: float, channels: int = 2, rate_hz: int = RATE_HZ, seed: int = 1) -> np.ndarray:
    """Struck strings: chords of decaying partials [C, N], each channel with a level of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = np.zeros((channels, len(t)))
    for at in np.arange(0, seconds, 0.4):
        since = t - at
        note = 220 * 2 ** (rng.integers(0, 24) / 12)
        for partial in range(1, 8):
            if note * partial < rate_hz / 2.2:
                sound = np.sin(2 * np.pi * note * partial * since) * np.exp(-4 * since) / partial
                wave += np.where(since >= 0, sound, 0) * rng.uniform(0.3, 1, (channels, 1))
    return (0.2 * wave).astype(np.float32)


def ratio_db(wanted: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


@pytest.fixture(scope="module")
def codec() -> nacre.MusicCodec:
    return nacre.load("music-48k")


def test_cosines_are_their_own_inverse() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)
    at = np.arange(256) + 0.5
    wanted = rows @ (np.cos(np.pi / 256 * np.outer(at, at)) * np.sqrt(2 / 256))
    assert np.allclose(blocks.cosines(rows), wanted, atol=1e-4)
    assert np.allclose(blocks.cosines(blocks.cosines(rows)), rows, atol=1e-5)


def test_any_splits_give_the_wave_back() -> None:
    rng = np.random.default_rng(1)
    splits = rng.integers(0, blocks.SPLITS, 12).tolist()
    wave = rng.standard_normal((2, 12 * blocks.FRAME)).astype(np.float32)
    turned = wave.copy()
    for place, lap in blocks.borders(splits, None, None):
        blocks.turn_border(turned, place, lap, 1)
    coefficients = blocks.to_frames(turned, splits)
    assert np.isclose(np.square(coefficients).sum(), np.square(wave).sum(), rtol=1e-5)
    back = blocks.from_frames(coefficients, splits)
    for place, lap in blocks.borders(splits, None, None):
        blocks.turn_border(back, place, lap, -1)
    assert np.allclose(back, wave, atol=1e-5)


def test_coefficients_of_a_split_frame_lie_by_frequency() -> None:
    t = np.arange(6 * blocks.FRAME) / RATE_HZ
    wave = np.sin(2 * np.pi * 6000 * t)[None].astype(np.float32)
    for split in range(blocks.SPLITS):
        power = np.square(blocks.uniform(wave, split)[0, 2])
        assert abs(int(power.argmax()) * RATE_HZ / 2 / blocks.FRAME - 6000) < 200


def test_every_frame_is_in_one_tier_and_expected_from_earlier_ones() -> None:
    for frames in (1, 2, 7, 8, 9, 23, 24):
        known: set[int] = set()
        for tier in tiers(frames):
            if tier.kind:
                assert {*tier.before, *tier.after} <= known
            known |= {*tier.frames}
        assert known == {*range(frames)}


def test_steps_are_whole_numbers_of_levels_alone() -> None:
    levels = np.zeros((2, 1, shape.BANDS), np.int32)
    levels[0, 0, 5], levels[1, 0, 5] = 30, 30
    shares = np.zeros((1, shape.PARTS), np.int32)
    steps, ratios = shape.steps_of(levels, shares, [0], 10)
    assert steps[0, 5] == 31 + shape.TILT[5] + 10  # two alike are one level louder
    assert ratios[0, 0, 5, 0] == 60 - steps[0, 5]
    assert (ratios[:, 0, 20] < shape.CODED).all()  # nothing there


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000, 96_000])
def test_what_comes_out_has_the_shape_of_what_went_in(codec, channels, rate_hz) -> None:
    wave = tune(1.3, channels, rate_hz)
    back, rate = codec.decode(codec.encode(wave, rate_hz))
    assert (back.shape, rate) == (wave.shape, rate_hz)
    assert ratio_db(wave, back) > 12


@pytest.mark.parametrize("samples", [1, 2, 1023, 1024, 1025, 2048, 49_151, 49_152, 53_249])
def test_odd_lengths(codec, samples) -> None:
    wave = tune(2)[:, :samples]
    back, _ = codec.decode(codec.encode(wave, RATE_HZ))
    assert back.shape == wave.shape


def test_bitrates_are_met_and_bring_quality(codec) -> None:
    wave, found = tune(12), []
    for kbps in (12, 20, 32):
        data = codec.encode(wave, RATE_HZ, bitrate_kbps=kbps)
        assert len(data) * 8 / 12 / 1000 == pytest.approx(kbps, rel=0.08)
        found.append(ratio_db(wave, codec.decode(data)[0]))
    assert found == sorted(found)
    assert found[1] > 20


def test_quality_is_no_matter_of_loudness(codec) -> None:
    wave = tune(4)
    loud, soft = (codec.encode(wave * gain, RATE_HZ, quality=60) for gain in (1, 0.1))
    assert len(soft) == pytest.approx(len(loud), rel=0.15)
    assert len(codec.encode(wave, RATE_HZ, quality=30)) < 0.7 * len(loud)


def test_silence_costs_heads_alone_and_stays_silent(codec) -> None:
    data = codec.encode(np.zeros((2, 5 * RATE_HZ), np.float32), RATE_HZ)
    assert len(data) < 60
    assert not codec.decode(data)[0].any()
    wave = tune(4)
    wave[:, RATE_HZ : 3 * RATE_HZ] = 0
    back, _ = codec.decode(codec.encode(wave, RATE_HZ))
    assert np.abs(back[:, int(1.2 * RATE_HZ) : int(1.9 * RATE_HZ)]).max() < 1e-3


def test_pieces_make_no_difference(codec) -> None:
    wave = tune(3.3)
    whole = codec.encode(wave, RATE_HZ, bitrate_kbps=24)
    stream = codec.encoder(RATE_HZ, 2, bitrate_kbps=24)
    packets, at = [], 0
    for size in (1, 700, 48_000, 99, 100_000, 10**6):
        packets += stream.push(wave[:, at : at + size])
        at += size
    packets += stream.flush()
    assert packets == codec.parse(whole).packets


def test_two_channels_alike_cost_as_one(codec) -> None:
    wave = tune(4, 1)
    one, two = (codec.encode(np.repeat(wave, count, 0), RATE_HZ, quality=50) for count in (1, 2))
    assert len(two) < 1.25 * len(one)
    back, _ = codec.decode(two)
    assert np.abs(back[0] - back[1]).max() < 0.02


def test_a_lost_packet_fades_and_harms_no_other(codec) -> None:
    wave = tune(6)
    contents = codec.parse(codec.encode(wave, RATE_HZ))
    whole = codec.decoder(contents).whole()
    contents.packets[4] = None
    stream = codec.decoder(contents)
    found = stream.whole()
    assert {item.channel for item in stream.damage} == {0, 1}
    assert len(stream.damage) == 2
    group, lap = 24 * blocks.FRAME, blocks.FRAME
    assert np.array_equal(found[:, : 2 * group - lap], whole[:, : 2 * group - lap])
    assert np.allclose(found[:, 3 * group + lap :], whole[:, 3 * group + lap :], atol=1e-6)
    lost = found[:, 2 * group + lap : 3 * group - lap]
    assert np.isfinite(lost).all()
    assert np.abs(lost).max() < 1
    assert np.square(lost[:, -4800:]).mean() < 1e-4 * np.square(whole).mean()


def test_verify_finds_what_decode_conceals(codec) -> None:
    data = bytearray(codec.encode(tune(4), RATE_HZ))
    data[3000] ^= 0x40
    contents = codec.parse(bytes(data))
    stream = codec.decoder(contents)
    stream.whole()
    assert [vars(item) for item in codec.verify(contents)] == [vars(item) for item in stream.damage] != []


def test_damage_ends_in_our_own_errors(codec) -> None:
    good = codec.encode(tune(1.5), RATE_HZ, bitrate_kbps=16)
    for data in damaged(good, 60):
        try:
            back, _ = codec.decode(data)
        except NacreError:
            continue
        assert np.isfinite(back).all()


def test_payloads_of_noise_are_told(codec) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        payload = bytes([rng.integers(64)]) + rng.bytes(int(rng.integers(1, 900)))
        held = read_packet(codec.model, container.Packet(3, payload, 7), 24, 2)
        assert isinstance(held, StreamError)


def test_golden_file(codec) -> None:
    """Symbols of a file written once: the meaning of its bytes must never change."""
    contents = codec.parse((DATA / "golden-music.nacre").read_bytes())
    wanted = np.load(DATA / "golden-music.npz")
    held = read_packet(codec.model, contents.packets[0], 24, 2)
    assert not isinstance(held, StreamError)
    assert held.symbols
    for name, symbols in held.symbols._asdict().items():
        assert np.array_equal(symbols, wanted[name]), name


@pytest.mark.parametrize("options", [{"bitrate_kbps": 3}, {"bitrate_kbps": 32, "quality": 5}, {"quality": 101}])
def test_what_cannot_be(codec, options) -> None:
    with pytest.raises(UsageError):
        codec.encode(tune(0.2), RATE_HZ, **options)


@pytest.mark.parametrize(
    "options", [{"denoise": True}, {"packet_bytes": 100}, {"level": 3}, {"band_khz": 12}, {"prior": "static"}]
)
def test_what_is_for_speech_alone(codec, options) -> None:
    with pytest.raises(UsageError, match="speech"):
        codec.encoder(RATE_HZ, 2, **options)


def test_files_of_one_model_are_not_read_by_the_other(codec, speech) -> None:
    with pytest.raises(StreamError, match="model"):
        nacre.load().parse(codec.encode(tune(0.3), RATE_HZ))
    with pytest.raises(StreamError, match="model"):
        codec.parse(nacre.load().encode(speech[:8000], 16_000))


def test_a_codec_is_pickled_as_its_folder(codec) -> None:
    wave = tune(0.5)
    assert pickle.loads(pickle.dumps(codec)).encode(wave, RATE_HZ) == codec.encode(wave, RATE_HZ)


def test_folders_that_are_no_model(tmp_path) -> None:
    source = models.find().folder
    for name, change in (("cut", b""), ("other", b"PK")):
        folder = tmp_path / name
        shutil.copytree(source, folder)
        (folder / models.TABLES).write_bytes(change)
        with pytest.raises(BundleError):
            models.MusicModel.load(folder)
    facts = json.loads((source / models.FACTS).read_text())
    (folder / models.FACTS).write_text(json.dumps(facts | {"format": 9}))
    with pytest.raises(BundleError, match="format"):
        models.MusicModel.load(folder)


def test_speech_glides_and_notes_stand(speech) -> None:
    assert steadiness(speech) < 0.2 < MUSIC < steadiness(tune(5, 1, 16_000)[0])
    assert steadiness(np.zeros(16_000, np.float32)) == 0


def test_the_command_line_takes_the_model_that_suits(run, tmp_path) -> None:
    import soundfile

    soundfile.write(tmp_path / "tune.wav", tune(3).T, RATE_HZ)
    made = run("encode", "tune.wav", "-o", "tune.nacre", "--model", "auto")
    assert made.rc == 0
    assert "music-48k" in made.stderr
    assert run("verify", "tune.nacre").rc == 0
    assert run("decode", "tune.nacre", "-o", "back.wav").rc == 0
    assert soundfile.info(tmp_path / "back.wav").frames == 3 * RATE_HZ
    facts = json.loads(run("info", "--json", "tune.nacre").stdout)
    assert facts["model"].startswith("music-48k")
    assert facts["kind"] == "MUSIC"
    assert "sounds like music" in run("encode", "tune.wav", "-o", "speech.nacre").stderr
    sparse = run("encode", "tune.wav", "-o", "sparse.nacre", "--model", "auto", "--bitrate", "6")
    assert "speech-16k" in sparse.stderr
    refused = run("tokens", "tune.nacre", "-o", "tokens.npz")
    assert refused.rc == 1
    assert "music" in refused.stderr
    assert "Traceback" not in refused.stderr
