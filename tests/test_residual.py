"""The residual layer: a transform that loses nothing, tables that are exact, files and streams of residual levels."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import damaged

import nacre
from nacre.codec.decoder import decode_frames
from nacre.codec.encoder import encode_frames
from nacre.codec.packets import PRIORS, Group, PacketCoder
from nacre.codec.rate_control import RatePlan
from nacre.codec.state import start_decoder, start_encoder
from nacre.core.errors import BundleError, StreamError
from nacre.dsp.mdct import Lapped
from nacre.dsp.tonality import is_tonal
from nacre.entropy import range_coder, residual
from nacre.entropy.residual import ResidualLayer
from nacre.entropy.symbols import LARGEST
from nacre.format import file as container
from nacre.format.file import Packet
from nacre.model import bundle as bundles

SIZE, PER_FRAME, LEVELS = 80, 4, 4


def small_layer(seed: int = 0, zones: int = 3, classes: int = 5, reach: int = 4, memory: int = 0) -> ResidualLayer:
    """Tables of random counts for the tiny model's upper two levels."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 2000, (zones, classes, 2 * reach + 2))
    counts[..., reach] += residual.TOTAL - counts.sum(2)
    return ResidualLayer(
        {
            "steps": np.array([0, 0, 4, 1], np.float32),
            "weights": np.geomspace(0.5, 2, SIZE).astype(np.float32),
            "exponent": np.array([0.7], np.float32),
            "per_frame": np.array([PER_FRAME], np.uint8),
            "memory": np.array([memory], np.uint8),
            "kernel": rng.integers(0, 90, (2, residual.TAPS)).astype(np.uint16),
            "edges": np.array([1, 30, 200, 2000][: classes - 1], np.uint32),
            "tables": counts.astype(np.uint16),
        }
    )


def drawn(steps: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    return np.round(np.random.default_rng(seed).laplace(0, spread, (steps, SIZE))).clip(-255, 255).astype(np.int32)


def decoded(station: ResidualLayer, payloads: list[bytes], steps: list[int]) -> list[np.ndarray]:
    return range_coder.serve(payloads, station.decoding(range(len(payloads)), steps))


@pytest.fixture(scope="module")
def residual_model(both_model, tmp_path_factory):
    """The tiny model with a context prior, its two upper levels with a residual layer."""
    folder = tmp_path_factory.mktemp("layered") / "layered"
    shutil.copytree(both_model, folder)
    small_layer().save(folder / bundles.RESIDUAL)
    found = bundles.load(both_model)
    facts = found.metadata
    bundles.save(folder, "layered", found.kind, found.config, facts)
    return folder


@pytest.fixture(scope="module")
def layered(residual_model):
    return nacre.load(residual_model)


@pytest.mark.parametrize("size", [2, 80, 160])
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_transform_is_orthogonal(size, blocks):
    wave = np.random.default_rng(0).standard_normal(size * blocks).astype(np.float32)
    coefficients = Lapped(size).forward(wave)
    assert coefficients.shape == (blocks, size)
    assert np.square(coefficients).sum() == pytest.approx(np.square(wave).sum(), rel=1e-5)
    np.testing.assert_allclose(Lapped(size).backward(coefficients), wave, atol=1e-5)


def test_transform_is_the_mdct_inside_a_group():
    """By its definition: windows of two blocks, half a sine, and the basis of Princen and Bradley, run backwards."""
    size, wave = 16, np.random.default_rng(1).standard_normal(16 * 6).astype(np.float32)
    at, k = np.arange(2 * size), np.arange(size)
    basis = np.cos(np.pi / size * np.outer(at + 0.5 + size / 2, k + 0.5))[::-1] * np.sqrt(2 / size)
    window = np.sin(np.pi / (2 * size) * (at + 0.5))
    found = Lapped(size).forward(wave)
    for block in range(1, 5):
        middle = block * size - size // 2
        wanted = (wave[middle : middle + 2 * size] * window) @ basis
        np.testing.assert_allclose(np.abs(found[block]), np.abs(wanted), atol=1e-4)


def test_a_tone_stays_in_few_coefficients():
    tone = np.cos(2 * np.pi * 1000.3 / 16000 * np.arange(160 * 12)).astype(np.float32)
    power = np.sort(np.square(Lapped(160).forward(tone))[1:-1], 1)[:, ::-1]
    assert (power[:, :4].sum(1) > 0.98 * power.sum(1)).all()


def test_finer_steps_come_nearer():
    rng, station = np.random.default_rng(2), small_layer()
    wave = rng.standard_normal(SIZE * 10).astype(np.float32) * 20
    before = wave + 40 * rng.standard_normal(len(wave)).astype(np.float32)
    away = []
    for level in (2, 3):
        symbols = station.symbols(wave, before, before, level)
        away.append(np.square(station.enhanced(symbols, before, None, level) - wave).sum())
    assert away[1] < away[0] / 4
    assert away[0] < np.square(before - wave).sum()


def test_the_networks_take_over_at_both_ends():
    rng, station = np.random.default_rng(2), small_layer()
    before, noise = rng.standard_normal((2, SIZE * 10)).astype(np.float32)
    found = station.enhanced(drawn(10), before, noise, 3)
    near, edge = before + noise, SIZE // 2
    away = np.abs(found - near)
    assert max(away[0], away[-1]) < 1e-2 * away.mean()
    assert away[:edge].mean() < 0.7 * away[edge:-edge].mean() > away[-edge:].mean()


def test_noise_is_no_larger_than_what_would_have_been_sent():
    rng, station = np.random.default_rng(2), small_layer()
    before = 20 * rng.standard_normal(SIZE * 10).astype(np.float32)
    noise, nothing = 50 * before[::-1], np.zeros((10, SIZE), np.int32)
    found = station.enhanced(nothing, before, noise, 3) - before
    most = residual.UNSENT * station._steps(before + noise, 3)
    inner = station._lapped.forward(found)[3:-3]
    assert (np.abs(inner) <= 1.01 * most[3:-3]).all()
    assert np.abs(inner).mean() > 0.8 * most[3:-3].mean()


def test_sizes_weigh_error_against_bits():
    station = small_layer()
    rng = np.random.default_rng(4)
    wave = rng.standard_normal(SIZE * 8).astype(np.float32) * 30
    before = np.zeros_like(wave)
    symbols = station.symbols(wave, before, before, 3)
    values = station._lapped.forward(wave) / station._steps(before, 3)
    guess = np.floor(np.minimum(np.abs(values), 255) + residual.ROUNDING).astype(np.int32)
    tables = station.arrays["tables"].reshape(-1, station.arrays["tables"].shape[2])
    for block, k in np.ndindex(symbols.shape):
        counts, size = tables[station.rows(guess)[block, k]], min(abs(values[block, k]), 255)

        def price(n, counts=counts, size=size):
            bits = -np.log2(counts[4 + n] / 65536) if n <= 4 else 9 - np.log2(counts[-1] / 65536)
            return (size - n) ** 2 + residual.BIT * bits

        near = max(round(float(size)), 1)
        best = min(near - 1, near, key=price)
        assert abs(symbols[block, k]) == best or price(abs(symbols[block, k])) == pytest.approx(price(best), abs=1e-3)
        assert symbols[block, k] * values[block, k] >= 0


def test_side_by_side_is_one_by_one():
    station, steps = small_layer(), [9, 4, 0, 12, 4]
    groups = [drawn(count, seed) for seed, count in enumerate(steps)]
    payloads = [range_coder.encode_symbols(station.encoding(group)) for group in groups]
    for found, group in zip(decoded(station, payloads, steps), groups, strict=True):
        np.testing.assert_array_equal(found, group)
    alone = decoded(station, payloads[3:4], steps[3:4])[0]
    np.testing.assert_array_equal(alone, groups[3])


@pytest.mark.parametrize("size", [0, 4, 5, LARGEST])
def test_every_symbol_has_a_code(size):
    station = small_layer()
    symbols = np.full((19, SIZE), size, np.int32) * np.sign(drawn(19) + 0.5).astype(np.int32)
    data = range_coder.encode_symbols(station.encoding(symbols))
    np.testing.assert_array_equal(decoded(station, [data], [19])[0], symbols)


def test_rows_by_integers_alone():
    """The document's rule in Python's own numbers."""
    station, symbols = small_layer(), drawn(6, 5)
    a = {name: value.tolist() for name, value in station.arrays.items()}
    zones, classes = len(a["tables"]), len(a["tables"][0])
    sizes = [[min(abs(value), 15) for value in row] for row in symbols.tolist()]
    for step, row in enumerate(station.rows(symbols)):
        for k, found in enumerate(row.tolist()):
            activity = 0
            for back, kernel in enumerate(a["kernel"], 1):
                for tap, weight in enumerate(kernel):
                    near = k + tap - 7
                    if step >= back and 0 <= near < SIZE:
                        activity += weight * sizes[step - back][near]
            chosen = sum(edge <= activity for edge in a["edges"])
            assert found == k * zones // SIZE * classes + chosen


def test_sums_may_be_taken_in_any_order(monkeypatch):
    station, symbols = small_layer(), drawn(20, 3, 20.0)
    rows = station.rows(symbols)
    turned = station._spread[::-1].astype(np.float64)
    sizes = np.pad(np.minimum(np.abs(symbols), 15), ((2, 0), (0, 0)))
    activity = np.concatenate([sizes[1:-1], sizes[:-2]], 1)[:, ::-1].astype(np.float64) @ turned
    np.testing.assert_array_equal(np.searchsorted(station.arrays["edges"], activity, "right") + station._zones, rows)


def test_golden_bytes():
    data = range_coder.encode_symbols(small_layer().encoding(drawn(9)))
    assert hashlib.sha256(data).hexdigest()[:16] == "adb521aeb28c759a"


def test_costs_are_what_is_paid():
    station, symbols = small_layer(), drawn(30, 7)
    costs = station.costs(symbols)
    paid = 8 * len(range_coder.encode_symbols(station.encoding(symbols)))
    assert costs.shape == (30,)
    assert costs.sum() - 1 <= paid <= costs.sum() * 1.001 + 16


def test_file_round_trip_and_damage(tmp_path):
    path = tmp_path / "r.safetensors"
    small_layer().save(path)
    again = ResidualLayer.load(path)
    np.testing.assert_array_equal(again.rows(drawn(5)), small_layer().rows(drawn(5)))
    refused = 0
    for data in damaged(path.read_bytes(), 200):
        path.write_bytes(data)
        try:
            ResidualLayer.load(path)
        except BundleError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", [0, 0, np.nan, 1]),
        ("steps", [0, 0, -1, 1]),
        ("steps", [0, 1, 0, 1]),
        ("steps", [1, 1, 1, 1]),
        ("steps", [0, 0, 1, 1e38]),
        ("steps", [0, 0, 1e-45, 1]),
        ("exponent", [-40]),
        ("exponent", [1e30]),
        ("weights", np.full(SIZE, 1e-45)),
        ("weights", np.zeros(SIZE)),
        ("weights", np.ones(81)),
        ("exponent", [1, 1]),
        ("kernel", np.full((2, 15), 65535)),
        ("kernel", np.ones((2, 14))),
        ("edges", [1, 30, 30, 2000]),
        ("edges", [1, 30]),
        ("tables", np.ones((3, 5, 10))),
        ("tables", np.ones((3, 5, 9))),
    ],
)
def test_contradictions_are_refused(name, value):
    arrays = small_layer().arrays
    with pytest.raises(BundleError, match="residual layer"):
        ResidualLayer(arrays | {name: np.asarray(value).astype(arrays[name].dtype)})


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("channels", [1, 2])
def test_files_of_refined_levels(layered, speech, prior, channels):
    wave = np.stack([speech[:30_000], np.roll(speech[:30_000], 700)][:channels])
    data = layered.encode(wave, 16_000, quality=100, prior=prior)
    assert layered.verify(layered.parse(data)) == []
    sound, rate_hz = layered.decode(data)
    assert sound.shape == wave.shape
    assert rate_hz == 16_000
    groups = [held for _, _, found in layered.decoder(layered.parse(data)).groups() for held in found]
    assert all(isinstance(held, Group) and held.residual.shape == (PER_FRAME * held.frames, SIZE) for held in groups)


def test_residual_sound_is_nearer(layered, speech):
    """The tiny networks give nothing like the sound, so that what is near it comes from the residual layer."""
    wave = speech[16_000:48_000]
    lower, higher = (layered.decode(layered.encode(wave, 16_000, quality=quality))[0][0] for quality in (66, 100))
    away = [float(np.square(sound - wave).mean() / np.square(wave).mean()) for sound in (lower, higher)]
    assert away[1] < away[0] < 1
    assert away[1] < 0.3


@pytest.mark.parametrize("memory", [0, 2])
def test_encoder_and_decoder_agree_on_the_decoded_sound(layered, speech, monkeypatch, memory):
    """Over silence, from residual levels to plain ones and back: what the encoder took for decoded is what is decoded.

    The tiny networks remember less than two groups.
    """
    model = replace(layered.model, residual=small_layer(memory=memory))
    size, told, heard = model.config.group_samples, [], []
    encoder, decoder = start_encoder(model, residual=True), start_decoder(model)
    monkeypatch.setattr(ResidualLayer, "symbols", noting(told, ResidualLayer.symbols))
    monkeypatch.setattr(ResidualLayer, "enhanced", noting(heard, ResidualLayer.enhanced))
    for turn, level in enumerate([3, 1, 3, 2, 0, 1, 0, 1, 3]):
        wave = speech[turn * size : (turn + 1) * size] * (turn != 2)
        packet, encoder = encode_frames(model, encoder, wave, level)
        _, decoder = decode_frames(model, decoder, packet)
    assert len(told) == 4  # of the silent group no symbols are sent
    assert len(heard) == 3
    np.testing.assert_allclose([told[0], *told[2:]], heard, atol=1e-5)


def noting(notes, method):
    """The method, with the predicted sound that it is given kept in `notes`."""

    def noted(station, first, predicted, *rest):
        notes.append(predicted)
        return method(station, first, predicted, *rest)

    return noted


@pytest.mark.parametrize("cuts", [[], [1, 700, 5000, 20_123]])
def test_pieces_change_nothing(layered, speech, cuts):
    live, packets = layered.encoder(16_000, bitrate_kbps=layered.bundle.rates_kbps[-1]), []
    for piece in np.split(speech[:30_000], cuts):
        packets += live.push(piece)
    packets += live.flush()
    whole = layered.parse(layered.encode(speech[:30_000], 16_000, bitrate_kbps=layered.bundle.rates_kbps[-1])).packets
    assert packets == whole


def test_joined_channels_share_a_residual_layer(layered, speech):
    wave = np.stack([speech[:40_000], 0.5 * speech[:40_000]])
    data = layered.encode(wave, 16_000, quality=100)
    assert layered.parse(data).intensity_groups > 0
    sound = layered.decode(data)[0]
    alone = layered.decode(layered.encode(wave[:1], 16_000, quality=100))[0]
    assert np.corrcoef(sound[0, 8000:], alone[0, 8000:])[0, 1] > 0.9
    assert np.corrcoef(sound[1, 8000:], wave[1, 8000:])[0, 1] > 0.5


@pytest.mark.parametrize("quality", [33, 100])
@pytest.mark.parametrize("gain_db", [-6, 6])
def test_channels_that_part_are_what_they_would_be_alone(layered, speech, gain_db, quality):
    """The second channel's end of a joined group is decoded from the group behind it, times the joined one's factor."""
    size, lag = layered.config.group_samples, layered.config.delay_samples
    wave = np.stack([speech[16_000:48_000], 10 ** (gain_db / 20) * speech[16_000:48_000]]) * 0.4
    half = 16_000 // size * size
    wave[1, half:] = speech[60_000 : 60_000 + len(wave[1]) - half]
    data = layered.encode(wave, 16_000, quality=quality)
    balances = [packet.level for packet in layered.parse(data).packets[1::2] if not packet.payload]
    assert 8 + gain_db in balances
    assert any(packet.payload for packet in layered.parse(data).packets[1::2])
    sounds = [
        layered.decode(data)[0][1],
        layered.decode(layered.encode(wave, 16_000, quality=quality, stereo="left-right"))[0][1],
    ]
    end = slice(half - lag + lag // 4, half)
    level = [float(np.square(sound[end]).mean()) for sound in sounds]
    assert 0.5 < level[0] / level[1] < 2


def test_encoder_and_decoder_run_the_same_networks(layered, speech, monkeypatch):
    """Whoever falls silent, parts or joins: latents and levels, group by group and channel by channel."""
    size, rng, run = layered.config.group_samples, np.random.default_rng(0), []
    step = layered.model.decoder_net.step
    monkeypatch.setattr(layered.model.decoder_net, "step", lambda *given: run.append(given[:2]) or step(*given))
    pieces = [speech[at : at + size] * 0.3 for at in range(16_000, 60_000, size)][:9]
    even, none = [np.stack([piece, 2 * piece]) for piece in pieces], np.zeros(size, np.float32)
    quiet = 4e-5 * np.stack(2 * [rng.standard_normal(size)]).astype(np.float32)  # the carrier alone is silence
    mute, other = np.stack([pieces[1], none]), np.stack([pieces[2], pieces[5]])
    wave = np.concatenate([even[0], mute, other, even[3], quiet * [[1], [0.3]], other, even[6], mute[::-1], other], 1)
    contents = layered.parse(layered.encode(wave.astype(np.float32), 16_000, quality=100))
    encoded, run[:] = list(run), []
    assert contents.intensity_groups >= 3
    list(layered.decoder(contents).blocks())
    assert [level for _, level in encoded] == [level for _, level in run]
    for (mine, _), (theirs, _) in zip(encoded, run, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_packets_of_one_size(layered, speech):
    data = layered.encode(speech[:40_000], 16_000, packet_bytes=400)
    packets = layered.parse(data).packets
    assert {len(packet.payload) for packet in packets} == {395}
    assert max(packet.level for packet in packets) >= layered.model.plain_levels
    assert layered.verify(layered.parse(data)) == []


def test_one_damaged_group_stays_alone(layered, speech):
    data = bytearray(layered.encode(speech[:30_000], 16_000, quality=100))
    data[len(data) // 2] ^= 16
    damage = layered.verify(layered.parse(bytes(data)))
    assert len(damage) == 1
    assert layered.decode(bytes(data))[0].shape == (1, 30_000)


@pytest.mark.parametrize("prior", PRIORS)
def test_any_payload_is_symbols_or_an_error(layered, prior):
    coding = PacketCoder.of(layered.model, prior)
    rng = np.random.default_rng(1)
    symbols, more = np.zeros((10, 8), np.int32), drawn(40)
    good = coding.pack(symbols, 3, 5, more)
    packets = [Packet(rng.integers(2, 4), rng.bytes(rng.integers(1, 900)), 7) for _ in range(40)]
    packets[4] = Packet(3, b"\1" * 16_382, 7)
    packets[20] = good
    found = coding.unpack(packets, [10] * 40)
    np.testing.assert_array_equal(found[20].residual, more)
    assert all(isinstance(held, StreamError) for index, held in enumerate(found) if index != 20)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_packet_never_grows_too_long(layered, prior):
    """Symbols that would not fit are halved until they do."""
    coding = PacketCoder.of(layered.model, prior)
    more = np.where(drawn(400) > 0, 200, -200).astype(np.int32)
    more[130:] = 0
    packet = coding.pack(np.zeros((100, 8), np.int32), 3, 5, more)
    held = coding.unpack([packet], [100])[0]
    assert 1000 < len(packet.payload) <= container.MOST_PAYLOAD_BYTES
    assert 0 < np.abs(held.residual).max() < 200


def test_static_pieces_are_the_static_bytes(layered):
    """The tables' own coder and the one that asks write the same."""
    symbols = np.random.default_rng(0).integers(-1, 2, (10, 8)).astype(np.int32)
    symbols = np.clip(symbols, -layered.model.static_prior.limits(3), layered.model.static_prior.limits(3))
    data = range_coder.encode_symbols(layered.model.static_prior.encoding(symbols, 3))
    assert data == range_coder.encode(symbols, layered.model.static_prior.tables(3))
    found = range_coder.serve([data], layered.model.static_prior.decoding([3], [10]))
    np.testing.assert_array_equal(found[0], symbols)


def test_levels_settle_on_sound_unlike_speech():
    """Noise costs what was expected at plain levels, and twice that at residual levels."""
    rates = np.geomspace(1, 20, 16)
    plan = RatePlan(rates, 14.0, 14, plain_levels=11)
    levels = []
    for _ in range(30):
        levels.append(plan.choose())
        plan.record(round(rates[levels[-1]] * 125 * (2.2 if levels[-1] >= 11 else 1.1)), 1.0)
    assert max(np.abs(np.diff(levels[8:]))) <= 1
    assert plan.spent_bytes / 125 / plan.duration_s == pytest.approx(14, rel=0.06)


def test_features_are_of_the_highest_plain_level(layered, speech):
    np.testing.assert_array_equal(layered.latents(speech, 16_000), layered.latents(speech, 16_000, 1))


def test_levels_must_fit_the_model(residual_model, tmp_path):
    shutil.copytree(residual_model, tmp_path / "m")
    arrays = small_layer().arrays
    ResidualLayer(arrays | {"per_frame": np.array([2], np.uint8)}).save(tmp_path / "m" / bundles.RESIDUAL)
    plain = bundles.load(residual_model)
    bundles.save(tmp_path / "m", "m", plain.kind, plain.config, plain.metadata)
    with pytest.raises(BundleError, match="residual layer"):
        nacre.load(tmp_path / "m")


# ---- which level a group takes


def keys(seconds: float) -> np.ndarray:
    """Two tones at a time, 80 ms on and 80 ms off, at 16 kHz."""
    at = np.arange(round(16_000 * seconds)) / 16_000
    tones = np.sin(2 * np.pi * 770 * at) + np.sin(2 * np.pi * 1477 * at)
    return (0.2 * tones * (at % 0.16 < 0.08)).astype(np.float32)


def test_tones_are_told_from_speech(speech):
    assert is_tonal(keys(1.0), 16_000)
    assert is_tonal(0.1 * np.sin(np.arange(16_000) * 0.4), 16_000)
    assert not any(is_tonal(speech[at : at + 16_000], 16_000) for at in range(0, 64_000, 16_000))
    assert not is_tonal(np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert not is_tonal(np.zeros(16_000, np.float32), 16_000)
    assert not is_tonal(np.zeros(3, np.float32), 16_000)


def test_tones_take_a_refined_level():
    shipped = nacre.load()
    contents = shipped.parse(shipped.encode(keys(3.0), 16_000))
    assert {packet.level for packet in contents.packets if packet.payload} == {shipped.model.plain_levels}
    low = shipped.parse(shipped.encode(keys(3.0), 16_000, bitrate_kbps=1.5))
    assert max(packet.level for packet in low.packets) < shipped.model.plain_levels  # there it would cost too much


def test_what_is_hardly_heard_takes_lower_levels():
    def plan():
        return RatePlan(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), 8.0, 3, reach=5)

    assert plan().choose(-60.0) == 3  # alone it is what there is to hear
    after = plan()
    assert after.choose(-20.0) == 3
    assert [after.choose(level_db) for level_db in (-39.0, -45.0, -80.0, -20.0)] == [3, 2, 0, 3]
