"""The band layer: its symbols by integers alone, its sound at every rate, what is left of it after damage."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.codec.band import band_powers, band_symbols
from nacre.codec.packets import STATIC, PacketCoder
from nacre.codec.settings import Settings
from nacre.codec.stream import StreamEncoder
from nacre.core.errors import StreamError, UsageError
from nacre.dsp import band as air
from nacre.entropy import range_coder
from nacre.entropy.band import LEVELS, SHAPES, band_tables
from nacre.format import file as container
from nacre.format.file import Band, Coupling, Packet
from nacre.io import audio

DATA = Path(__file__).parent / "data"
EDGES_HZ = (7600, 9600, 12_000, 15_600, 20_000)


@pytest.fixture(scope="module")
def wide(speech) -> np.ndarray:
    """Two seconds at 48 kHz: speech, and above it hiss that falls from band to band and bursts, [N]."""
    wave = audio.resampled(speech[20_000:52_000], 16_000, 48_000)
    rng = np.random.default_rng(3)
    hiss = np.fft.rfft(rng.standard_normal(len(wave)))
    hz = np.fft.rfftfreq(len(wave), 1 / 48_000)
    hiss *= np.select([hz < 7700, hz < 12_000, hz < 15_600, hz < 20_000], [0, 0.01, 0.003, 0.001], 0)
    bursts = 1 + 4 * (np.arange(len(wave)) // 12_000 % 2)
    return (wave + bursts * np.fft.irfft(hiss)).astype(np.float32)


def band_db(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Mean square of wave [N] in each band that its rate has, in dB."""
    power, hz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / rate_hz)
    edges = [edge for edge in EDGES_HZ if edge <= rate_hz / 2]
    found = [power[(hz >= low) & (hz < high)].sum() for low, high in pairwise(edges)]
    return 10 * np.log10(2 * np.array(found) / len(wave) ** 2 + 1e-20)


def some_symbols(frames: int, bands: int, seed: int) -> np.ndarray:
    """[T, B + 1] that wander, jump and fall to nothing."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-2, 3, (frames, bands)), 0) + 12 + 40 * (rng.random((frames, bands)) < 0.1)
    levels = np.clip(walk, 0, LEVELS - 1) * (rng.random((frames, 1)) > 0.2)
    shapes = np.where(levels.any(1), rng.integers(0, SHAPES, frames), 0)
    return np.concatenate([levels, shapes[:, None]], 1).astype(np.int32)


# symbols


def answers_in_plain_python(symbols: list[list[int]]) -> list[tuple[int, list[int]]]:
    """(answer, counts) one after another, as docs/format.md has it; escapes as (answer, [])."""
    tables, found = band_tables().arrays, []
    for t, frame in enumerate(symbols):
        for b, level in enumerate(frame[:-1]):
            if t == 0:
                expected, table = (frame[b - 1] if b else 12), 63
            else:
                expected, last = symbols[t - 1][b], symbols[t - 1]
                change = min(3, max(-3, frame[b - 1] - last[b - 1])) + 3
                height = min(7, max(0, (last[b] - last[b - 1] + 10) >> 1))
                table = last[0] >> 1 if b == 0 else 56 + change if last[b] == 0 else 8 * change + height
            distance, counts = level - expected, tables["levels"][b, table].tolist()
            escapes = abs(distance) > 12
            found.append((25 if escapes else distance + 12, counts))
            found += [(distance + 256, [])] if escapes else []
    for t, frame in enumerate(symbols):
        before = symbols[t - 1] if t else [*frame[:-1], 0]
        rise = min(6, max(-6, sum(frame[:-1]) - sum(before[:-1]))) + 6
        if any(frame[:-1]):
            found.append((frame[-1], tables["shapes"][rise, before[-1]].tolist()))
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.sampled_from([2, 4]), st.integers(0, 999))
def test_tables_are_chosen_as_the_format_says(frames, bands, seed):
    symbols = some_symbols(frames, bands, seed)
    wanted = answers_in_plain_python(symbols.tolist())
    given_ = [
        (int(answer), row)
        for answers, shares in band_tables().encoding(symbols)
        for answer, row in zip(answers, shares, strict=True)
    ]
    assert len(given_) == len(wanted)
    for (answer, row), (other, counts) in zip(given_, wanted, strict=True):
        assert answer == other
        assert (row * 65536).tolist() == counts if counts else np.allclose(row, 1 / 512)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.sampled_from([2, 4]), st.integers(0, 999))
def test_groups_side_by_side_return(frames, bands, seed):
    groups = [some_symbols(count, bands, seed + index) for index, count in enumerate(frames)]
    data = [range_coder.encode_symbols(band_tables().encoding(group)) for group in groups]
    found = range_coder.serve(data, band_tables().decoding(range(len(frames)), frames, bands))
    assert all(np.array_equal(one, other) for one, other in zip(groups, found, strict=True))


def test_tables_never_change():
    arrays = band_tables().arrays
    marks = {name: hashlib.sha256(arrays[name].tobytes()).hexdigest()[:12] for name in ("levels", "shapes")}
    assert marks == {"levels": "57f5388bb80c", "shapes": "fbcc1fef683b"}


def test_costs_are_those_of_the_bytes():
    symbols = some_symbols(50, 4, 5)
    bits = 8 * len(range_coder.encode_symbols(band_tables().encoding(symbols)))
    assert abs(band_tables().costs(symbols).sum() - bits) < 10


def test_golden_file(tiny):
    data, wanted = (DATA / "golden-band.nacre").read_bytes(), np.load(DATA / "golden-band.npy")
    contents = tiny.parse(data)
    assert (contents.header.band, data[4]) == (Band.TO_20_KHZ, 2)
    coder = PacketCoder.of(tiny.model, STATIC, 4)
    groups = coder.unpack(contents.packets, [10] * 4 + [7])
    assert np.array_equal(np.concatenate([group.band for group in groups]), wanted)  # a file is for ever
    file = io.BytesIO()
    writer = container.Writer(file, contents.header)
    for group in groups:
        writer.add(coder.pack(group.symbols, group.level, group.code, band=group.band))
    writer.finish(contents.samples)
    assert file.getvalue() == data


# sound


def test_noise_has_the_power_that_was_taken_and_does_not_repeat():
    rng = np.random.default_rng(2)
    wave = rng.standard_normal(48_000 + 2 * air.LAG).astype(np.float32)
    powers = air.frame_powers(wave, air.EDGES)
    assert np.allclose(powers.mean((0, 1)), np.diff(EDGES_HZ) / 24_000, rtol=0.05)
    made, _ = air.noise_of(powers.reshape(-1, 4), 0, np.zeros(air.STEP, np.float32))
    assert np.abs(band_db(made, 48_000) - band_db(wave, 48_000)).max() < 0.5
    later = made[960:] @ made[:-960] / (made @ made)
    assert abs(later) < 0.05


def test_noise_in_pieces_is_the_same():
    powers, nothing = np.random.default_rng(1).random((80, 2)).astype(np.float32), np.zeros(air.STEP, np.float32)
    whole, _ = air.noise_of(powers, 1590, nothing)
    first, tail = air.noise_of(powers[:28], 1590, nothing)
    second, _ = air.noise_of(powers[28:], 1618, tail)
    assert np.array_equal(whole, np.concatenate([first, second]))


def test_symbols_are_within_a_step_of_the_powers():
    powers = np.repeat(10 ** (np.linspace(-8, -2, 200).reshape(50, 1, 4)), 4, 1)
    symbols = band_symbols(powers, 14, band_tables().quarters)
    found = band_powers(symbols, 14)
    assert np.abs(10 * np.log10(found.mean(1) / powers.mean(1))).max() <= 3.001
    assert not symbols[:, -1].any()


@pytest.mark.parametrize("rate_hz", [24_000, 32_000, 44_100, 48_000, 96_000])
def test_levels_come_back_at_every_rate(tiny, wide, rate_hz):
    wave = audio.resampled(wide, 48_000, rate_hz)
    data = tiny.encode(wave, rate_hz)
    assert data[4] == 2
    assert container.unpack_header(data).band == (Band.TO_12_KHZ if rate_hz == 24_000 else Band.TO_20_KHZ)
    decoded, rate = tiny.decode(data)
    assert (decoded.shape, rate) == ((1, len(wave)), rate_hz)
    error_db = band_db(decoded[0], rate_hz) - band_db(wave, rate_hz)
    assert np.abs(error_db[1:]).max() < 1.5, error_db


def test_no_layer_is_loud_enough_to_clip(tiny):
    tone = (0.9 * np.sin(2 * np.pi * 12_000 / 48_000 * np.arange(48_000) + 0.4)).astype(np.float32)
    found, _ = tiny.decode(tiny.encode(tone, 48_000, level=3, band_khz=20))
    assert 0.5 < np.abs(found).max() < 1.2
    loudest = np.concatenate([np.full((4, 4), LEVELS - 1), np.zeros((4, 1), int)], 1).astype(np.int32)
    assert band_powers(loudest, 0).sum(-1).max() < 0.07


def test_bursts_come_back_in_their_places(tiny, wide):
    decoded = tiny.decode(tiny.encode(wide, 48_000))[0][0]
    for start in range(0, len(wide) - 12_000, 12_000):
        part = slice(start + 600, start + 11_400)
        assert np.abs(band_db(decoded[part], 48_000) - band_db(wide[part], 48_000))[1:3].max() < 2


def test_core_decodes_alone(tiny, wide):
    with_band, without = (tiny.encode(wide, 48_000, quality=50, band_khz=khz) for khz in (20, 8))
    assert without[4] == 1
    assert 0 < len(with_band) - len(without) < 8 * 2 * 1000 / 8
    alone, plain = (tiny.decoder(tiny.parse(data), 16_000).whole() for data in (with_band, without))
    assert np.array_equal(alone, plain)
    assert np.array_equal(tiny.decode(with_band)[0].shape, tiny.decode(without)[0].shape)
    tokens = [np.asarray(tiny.symbols(data)) for data in (with_band, without)]
    assert np.array_equal(*tokens)


@pytest.mark.parametrize("rate_hz", [24_000, 44_100, 48_000])
@pytest.mark.parametrize("samples", [1, 959, 30_001, 96_000])
def test_pieces_change_nothing(tiny, wide, rate_hz, samples):
    wave = audio.resampled(wide, 48_000, rate_hz)[:samples]
    whole = tiny.encode(wave, rate_hz)
    stream, file = tiny.encoder(rate_hz), io.BytesIO()
    writer = container.Writer(file, stream.header)
    cuts = sorted({0, len(wave), *(cut for cut in (1, 700, 7000, 9111) if cut < len(wave))})
    for start, stop in pairwise(cuts):
        for packet in stream.push(wave[start:stop]):
            writer.add(packet)
    for packet in stream.flush():
        writer.add(packet)
    writer.finish(len(wave))
    assert file.getvalue() == whole
    assert tiny.decode(whole)[0].shape == (1, len(wave))


def test_two_channels_joined_and_apart(tiny, wide):
    for right, coupling in ((0.5 * wide, Coupling.INTENSITY), (0.5 * wide[::-1].copy(), Coupling.INTENSITY)):
        wave = np.stack([wide, right])
        data = tiny.encode(wave, 48_000)
        assert container.unpack_header(data).coupling == coupling
        decoded = tiny.decode(data)[0]
        for one, other in zip(wave, decoded, strict=True):
            assert np.abs(band_db(other, 48_000) - band_db(one, 48_000))[1:].max() < 1.5
    contents = tiny.parse(tiny.encode(np.stack([wide, 0.5 * wide]), 48_000))
    assert contents.intensity_groups > 5


def test_channels_that_are_coded_apart_have_noise_of_their_own(tiny, wide):
    wave = np.stack([wide, 0.5 * wide[::-1]])
    apart, alike = (high_of(tiny.decode(tiny.encode(each, 48_000))[0]) for each in (wave, np.stack([wide, wide])))
    assert abs(np.corrcoef(apart)[0, 1]) < 0.2
    assert np.corrcoef(alike)[0, 1] > 0.9


def high_of(wave: np.ndarray) -> np.ndarray:
    """What is above 10 kHz of wave [C, N] at 48 kHz."""
    spectra = np.fft.rfft(wave)
    spectra[:, np.fft.rfftfreq(wave.shape[1], 1 / 48_000) < 10_000] = 0
    return np.fft.irfft(spectra)


# silence and damage


def test_silence_costs_nothing_and_air_alone_is_kept(tiny, wide):
    silence = tiny.parse(tiny.encode(np.zeros(96_000, np.float32), 48_000))
    assert silence.payload_bytes == 0
    high = np.fft.rfft(wide)
    high[np.fft.rfftfreq(len(wide), 1 / 48_000) < 9000] = 0
    wave = np.fft.irfft(high).astype(np.float32)
    decoded = tiny.decode(tiny.encode(wave, 48_000))[0][0]
    assert np.abs(band_db(decoded, 48_000) - band_db(wave, 48_000))[1:].max() < 1.5


def test_a_lost_packet_fades_and_the_rest_stays(tiny, wide):
    contents = tiny.parse(tiny.encode(wide, 48_000))
    good = tiny.decoder(contents).whole()[0]
    contents.packets[4] = None
    stream = tiny.decoder(contents)
    bad = stream.whole()[0]
    assert [(item.start_s, item.stop_s) for item in stream.damage] == [(0.8, 1.0)]
    high = [np.concatenate([x[start : start + 4800] for start in (0, 60_000)]) for x in (good, bad)]
    assert np.abs(band_db(high[1], 48_000) - band_db(high[0], 48_000)).max() < 1
    assert (band_db(bad[44_000:48_000], 48_000) < band_db(bad[38_500:40_500], 48_000) - 6).all()


def test_damage_is_seen_and_bounded(tiny, wide):
    good = tiny.encode(wide[:48_000], 48_000)
    for data in damaged(good, 120):
        try:
            contents = tiny.parse(data)
        except StreamError:
            continue
        stream = tiny.decoder(contents)
        wave = stream.whole()
        assert np.isfinite(wave).all()
        assert np.abs(wave).max(initial=0) < 4
        assert wave.shape[1] == stream.samples


def test_every_changed_byte_of_a_layer_is_found(tiny, wide):
    contents = tiny.parse(tiny.encode(wide[:30_000], 48_000))
    packet, coder = contents.packets[1], PacketCoder.of(tiny.model, STATIC, 4)
    for at in range(len(packet.payload) - 12, len(packet.payload)):
        payload = bytearray(packet.payload)
        payload[at] ^= 0x55
        (held,) = coder.unpack([Packet(packet.level, bytes(payload), packet.check)], [10])
        assert isinstance(held, StreamError)


# what is asked for


@pytest.mark.parametrize(
    ("rate_hz", "asked", "band"),
    [
        (16_000, None, Band.NONE),
        (16_000, 20, Band.NONE),
        (22_050, None, Band.NONE),
        (22_050, 20, Band.TO_12_KHZ),
        (24_000, None, Band.TO_12_KHZ),
        (48_000, 12, Band.TO_12_KHZ),
        (48_000, 8, Band.NONE),
        (48_000, {"packet_bytes": 100}, Band.NONE),
        (48_000, {"bitrate_kbps": 1.0}, Band.NONE),
        (48_000, {"level": 1}, Band.NONE),
        (48_000, {"level": 1, "band_khz": 20}, Band.TO_20_KHZ),
    ],
)
def test_which_layer_a_file_has(tiny, rate_hz, asked, band):
    options = asked if isinstance(asked, dict) else {"band_khz": asked}
    assert tiny.encoder(rate_hz, **options).header.band == band


def test_what_cannot_be_asked(tiny):
    for options, words in (
        ({"band_khz": 10}, "band must be 8, 12 or 20 kHz, not 10"),
        ({"band_khz": 20, "packet_bytes": 100}, "band must be 8 kHz with packet_bytes, not 20"),
    ):
        with pytest.raises(UsageError, match=words):
            tiny.encoder(48_000, **options)


def test_inner_encoders_have_no_layer(tiny):
    assert StreamEncoder(tiny.model, 48_000, 1, Settings()).header.band == Band.NONE


def test_commands_know_the_layer(run, tiny_model, tmp_path, wide):
    audio.write(tmp_path / "a.wav", wide[None, :48_000], 48_000)
    model = ("--model", tiny_model)
    for name, more in (("wide", ()), ("narrow", ("--band", "8"))):
        assert run("encode", "a.wav", "-o", f"{name}.nacre", "--quality", "50", *more, *model).rc == 0
    facts = [json.loads(run("info", f"{name}.nacre", "--json", *model).stdout) for name in ("wide", "narrow")]
    assert [each["band_khz"] for each in facts] == [20, 8]
    assert facts[0]["bytes"] > facts[1]["bytes"]
    assert run("verify", "wide.nacre", *model).rc == 0
    assert run("inspect", "wide.nacre", "-o", "wide.html", *model).rc == 0
    assert "band layer" in (tmp_path / "wide.html").read_text()
    assert run("decode", "wide.nacre", "-o", "b.wav", "--rate", "16000", *model).rc == 0
    assert audio.read(tmp_path / "b.wav")[0].shape == (1, 16_000)
    told = [run("tokens", f"{name}.nacre", "-o", f"{name}.npz", *model) for name in ("wide", "narrow")]
    assert [(done.rc, "band layer" in done.stderr) for done in told] == [(0, True), (0, False)]
    done = run("encode", "a.wav", "-o", "c.nacre", "--band", "9", *model)
    assert (done.rc, "must be 8, 12 or 20 kHz" in done.stderr) == (2, True)
