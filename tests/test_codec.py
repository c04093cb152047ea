"""The whole codec on a tiny network: sizes, pieces, levels, rates, damage, models that lie."""

from __future__ import annotations

import io
import json
import shutil
import socket
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import once
from hypothesis import given, settings
from hypothesis import strategies as st

import nacre
from nacre.codec import decoder, encoder
from nacre.codec.file_decoder import packet_count
from nacre.codec.frames import SILENT
from nacre.codec.packets import Group
from nacre.core.errors import AudioError, BundleError, NacreError, StreamError, UsageError
from nacre.core.units import kbps, resampled_count
from nacre.dsp.gain import LevelState, choose_gain, gain_curve
from nacre.dsp.offset import OffsetState, without_offset
from nacre.dsp.stft import Analyser, Synthesiser
from nacre.format import file as container
from nacre.format.file import Contents, Packet
from nacre.model import bundle as bundles
from nacre.model.runtime import Network
from nacre.quantise.scalar import dequantise
from nacre.tools import features

DATA = Path(__file__).parent / "data"
HOP, GROUP, DELAY = 320, 3200, 640  # samples of the tiny model
RATES_HZ = (8000, 11025, 16_000, 22_050, 44_100, 48_000)
EDGES = (1, 2, HOP, 2 * HOP, 3 * HOP, GROUP - DELAY, GROUP, 2 * GROUP - DELAY)


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-20))


def symbols_of(codec: nacre.Codec, contents: Contents) -> list[np.ndarray | None]:
    """Symbols [T, D] of each packet; zeros for silence, None where lost or damaged."""
    found = []
    for _, _, groups in codec.decoder(contents).groups():
        for group in groups:
            symbols = group.symbols if isinstance(group, Group) else None
            silent = isinstance(group, Group) and symbols is None
            found.append(np.zeros((group.frames, codec.config.latent_dims), np.int32) if silent else symbols)
    return found


@pytest.fixture(scope="module")
def small(tiny, speech) -> bytes:
    """A file of 1.3 s in 7 groups, about 200 bytes."""
    return tiny.encode(speech[16_000:36_801], 16_000, bitrate_kbps=1.0)


# sizes


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_length_rate_and_channels_come_back(tiny, speech, rate_hz, channels):
    near = {resampled_count(edge, 16_000, rate_hz) + by for edge in EDGES for by in (-1, 0, 1)} | {77, 501, 733}
    for samples in sorted(near - {0}):
        wave = np.stack([speech[9000 * index :][:samples] for index in range(1, channels + 1)])
        data = tiny.encode(wave, rate_hz, quality=50)
        out, out_hz = tiny.decode(data)
        assert (out.shape, out_hz) == (wave.shape, rate_hz)
        assert out.dtype == np.float32
        contents = tiny.parse(data)
        assert (contents.lost, contents.skipped_bytes, contents.truncated) == (0, 0, False)


@pytest.mark.parametrize("samples", range(1, 3 * HOP, 83))
def test_few_samples(tiny, speech, samples):
    out, _ = tiny.decode(tiny.encode(speech[20_000 : 20_000 + samples], 16_000))
    assert out.shape == (1, samples)


def test_extreme_rates_and_many_channels(tiny, speech):
    for rate_hz, channels in ((192_000, 8), (8001, 8), (191_999, 1)):
        wave = np.stack([speech[:7001]] * channels)
        assert tiny.decode(tiny.encode(wave, rate_hz, quality=0))[0].shape == wave.shape


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 0), np.float32),
        np.zeros((0, 9), np.float32),
        np.zeros((9, 9), np.float32),
        np.zeros((1, 1, 99), np.float32),
        np.zeros(99, np.int16),
        np.zeros(99, np.complex64),
        np.array([0.1, np.nan]),
        np.array([[0.1], [-np.inf]]),
        np.array([1e300]),
        np.array(["a"]),
    ],
    ids=lambda wave: f"{wave.dtype}-{wave.shape}",
)
def test_what_is_not_sound_is_refused(tiny, wave):
    with pytest.raises(AudioError):
        tiny.encode(wave, 16_000, quality=50)
    with pytest.raises(AudioError):
        tiny.latents(wave, 16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_live_encoder_refuses_what_is_not_finite_and_goes_on(tiny, speech, value):
    stream, whole = tiny.encoder(16_000, quality=50), tiny.encoder(16_000, quality=50)
    packets = stream.push(speech[:5000])
    with pytest.raises(AudioError, match="infinite"):
        stream.push(np.full((1, 4000), value, np.float32))
    with pytest.raises(AudioError, match="channels"):
        stream.push(np.zeros((2, 4000), np.float32))
    packets += stream.push(speech[5000:9000]) + stream.flush()
    assert packets == whole.push(speech[:9000]) + whole.flush()


@pytest.mark.parametrize("rate_hz", [0, -1, 7999, 192_001, 16_000.5, float("nan"), float("inf")])
def test_rates_out_of_range(tiny, speech, rate_hz):
    for call in (tiny.encode, tiny.latents):
        with pytest.raises(AudioError, match="8000 to 192000"):
            call(speech[:999], rate_hz)
    with pytest.raises(UsageError, match="rate"):
        tiny.decoder(tiny.parse(tiny.encode(speech[:999], 16_000)), 0)


def test_whole_rates_of_other_types_are_fine(tiny, speech):
    data = tiny.encode(speech[:9999], 16_000)
    assert tiny.encode(speech[:9999], np.int64(16_000)) == tiny.encode(speech[:9999], 16_000.0) == data
    assert tiny.encode(speech[:9999].astype(np.float64), 16_000) == data


# pieces


@settings(max_examples=25, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    channels=st.integers(1, 2),
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
    target=st.sampled_from([None, 0.9]),
)
def test_pieces_change_nothing(tiny, speech, rate_hz, channels, cuts, target):
    wave = np.stack([speech[10_000 * index :][:20_000] for index in range(1, channels + 1)])
    plan = {"quality": 70} if target is None else {"bitrate_kbps": target * channels}
    stream = tiny.encoder(rate_hz, channels, **plan)
    edges = [0, *sorted(cuts), 20_000]
    packets = []
    for start, stop in pairwise(edges):
        packets += stream.push(wave[:, start:stop])
    packets += stream.flush()
    assert len(packets) == packet_count(tiny.config.layout, stream.header, 20_000)
    assert packets == tiny.parse(tiny.encode(wave, rate_hz, **plan)).packets


def test_single_samples_change_nothing(tiny, speech):
    stream = tiny.encoder(16_000, quality=100)
    packets = [packet for sample in speech[20_000:23_300] for packet in stream.push(sample[None])] + stream.flush()
    assert packets == tiny.parse(tiny.encode(speech[20_000:23_300], 16_000, quality=100)).packets


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_blocks_are_the_whole(tiny, speech, rate_hz):
    data = tiny.encode(speech[:30_001], 16_000)
    blocks = list(tiny.decoder(tiny.parse(data), rate_hz).blocks())
    whole = np.concatenate(blocks, 1)
    assert whole.shape == (1, resampled_count(30_001, 16_000, rate_hz))
    assert max(block.shape[1] for block in blocks) <= rate_hz  # memory does not grow with the file
    if rate_hz == 16_000:
        assert np.array_equal(whole, tiny.decode(data)[0])


def test_groups_leave_no_seam(tiny, speech):
    """Coded group by group or in one step of each network: the same latents, the same sound."""
    wave, c = speech[: 12 * GROUP], tiny.config
    state, before, curves = LevelState(), None, []
    ready, _ = without_offset(OffsetState(), wave, HOP)
    for at in range(0, len(wave), GROUP):
        code, state = choose_gain(state, ready[at : at + GROUP], HOP)
        curves.append(gain_curve(before, code, GROUP, HOP))
        before = code
    curve = np.concatenate(curves)
    spectra = once(Analyser(c), ready * curve)
    whole, _ = tiny.model.encoder_net.step(spectra, 3, tiny.model.encoder_net.start())
    latents = tiny.latents(wave, 16_000, level=3)
    heard = latents.frame_gains[: latents.frames] != SILENT
    assert np.allclose(latents.sounding[heard], whole[heard], atol=1e-3)

    data = tiny.encode(wave, 16_000, quality=100)
    symbols = symbols_of(tiny, tiny.parse(data))
    latents = dequantise(np.concatenate(symbols), tiny.model.quantiser.steps[3])
    for packet, at in zip(tiny.parse(data).packets, np.cumsum([0, *map(len, symbols)]), strict=False):
        if at and not packet.payload:  # sound before silence goes on until all of it has come out
            latents[at : at + DELAY // HOP] = latents[at - 1]
    rendered, _ = tiny.model.decoder_net.step(latents, 3, tiny.model.decoder_net.start())
    sound = once(Synthesiser(c), rendered)[DELAY : DELAY + len(wave)] / curve
    assert np.allclose(tiny.decode(data)[0][0], sound, atol=1e-4)


def test_encoders_and_decoders_do_not_share_state(tiny, speech):
    one, two = tiny.encoder(16_000, quality=50), tiny.encoder(16_000, quality=50)
    alone = tiny.parse(tiny.encode(speech[:9600], 16_000, quality=50)).packets
    mixed = []
    for at in range(0, 9600, 1600):
        mixed += one.push(speech[at : at + 1600])
        two.push(speech[40_000 - at : 41_600 - at])
    assert mixed + one.flush() == alone


# symbols come from integers alone


def test_golden_file(tiny):
    data, wanted = (DATA / "golden.nacre").read_bytes(), np.load(DATA / "golden.npy")
    contents = tiny.parse(data)
    assert np.array_equal(np.concatenate(symbols_of(tiny, contents)), wanted)  # never to change: a file is for ever
    file = io.BytesIO()
    writer = container.Writer(file, contents.header)
    for packet in contents.packets:
        writer.add(packet)
    writer.finish(contents.samples)
    assert file.getvalue() == data
    assert {packet.level for packet in contents.packets} >= {2, 3}
    assert any(not packet.payload for packet in contents.packets)
    assert tiny.decode(data)[0].shape == (1, 32_000)
    assert tiny.verify(contents) == []


def test_networks_take_no_part_in_symbols(tiny, monkeypatch):
    def step(*_: object) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr(Network, "step", step)
    contents = tiny.parse((DATA / "golden.nacre").read_bytes())
    assert np.array_equal(np.concatenate(symbols_of(tiny, contents)), np.load(DATA / "golden.npy"))
    assert tiny.verify(contents) == []
    with pytest.raises(AssertionError, match="a network ran"):  # as it does for sound: the trap is set right
        tiny.decode((DATA / "golden.nacre").read_bytes())


def test_threads_change_no_symbol(tiny, tiny_model, speech):
    two = nacre.load(tiny_model, threads=2)
    for data in (tiny.encode(speech, 16_000, quality=100), two.encode(speech, 16_000, quality=100)):
        here, there = symbols_of(tiny, tiny.parse(data)), symbols_of(two, two.parse(data))
        assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
        assert np.allclose(tiny.decode(data)[0], two.decode(data)[0], atol=1e-4)


# levels


def test_silence_is_nearly_free_and_exact(tiny):
    data = tiny.encode(np.zeros((2, 160_000), np.float32), 16_000)
    assert len(data) == 22 + 3 * packet_count(tiny.config.layout, tiny.parse(data).header, 160_000)
    assert not tiny.decode(data)[0].any()


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_silence_inside_sound_is_exact(tiny, speech, rate_hz):
    wave = speech[:48_000].copy()
    wave[16_000:32_000] = 0
    out = tiny.decode(tiny.encode(wave, rate_hz))[0][0]
    margin = 0 if rate_hz == 16_000 else 10_000  # these are whole groups; at 48 kHz less than that remains
    assert not out[16_000 + margin : 32_000 - margin].any()
    assert level_db(out[32_000:]) > -60
    if margin == 0:  # to the sample: what goes in comes out in its place
        assert out[15_990:16_000].all()
        assert out[32_000:32_010].all()


def test_both_sides_ramp_between_the_same_gains(tiny, speech, monkeypatch):
    """Through silence too, of which the decoder never learns the gain."""
    quiet, loud = speech[20_000:36_000] * np.float32(0.01), speech[20_000:36_000]
    wave = np.concatenate([np.zeros(9600), loud, np.zeros(32_000), quiet, np.zeros(64_000), loud, quiet])
    calls: list[tuple[int | None, int]] = []
    for side in (encoder, decoder):
        monkeypatch.setattr(side, "gain_curve", lambda *given: (calls.append(given[:2]), gain_curve(*given))[1])
    data = tiny.encode(wave, 16_000, quality=50)
    coded = [call for call, packet in zip(calls, tiny.parse(data).packets, strict=True) if packet.payload]
    calls.clear()
    tiny.decode(data)
    assert calls == coded
    assert len(set(calls)) > 5


@pytest.mark.parametrize(("gain_db", "tolerance_db"), [(12, 1), (-20, 1), (-40, 1), (-60, 2)])
def test_output_follows_the_level_of_the_input(tiny, speech, gain_db, tolerance_db):
    gain = np.float32(10 ** (gain_db / 20))
    offsets = [level_db(tiny.decode(tiny.encode(wave, 16_000))[0]) - level_db(wave) for wave in (speech, speech * gain)]
    assert abs(offsets[0] - offsets[1]) < tolerance_db


def test_tone_at_minus_80_db_is_kept(tiny):
    tone = np.sin(np.arange(48_000, dtype=np.float32) / 5)
    offsets = [
        level_db(tiny.decode(tiny.encode(tone * np.float32(gain), 16_000))[0]) - level_db(tone * np.float32(gain))
        for gain in (0.5, 1e-4)
    ]
    assert abs(offsets[0] - offsets[1]) < 6


def test_gain_ramp(tiny, speech):
    ramp = speech * (10 ** (np.linspace(-60, 0, len(speech)) / 20)).astype(np.float32)
    plain, ramped = (tiny.decode(tiny.encode(wave, 16_000, quality=100))[0][0] for wave in (speech, ramp))
    for at in range(0, len(speech) - 8000, 8000):
        part = slice(at, at + 8000)
        kept = level_db(ramped[part]) - level_db(ramp[part])
        assert abs(kept - (level_db(plain[part]) - level_db(speech[part]))) < 4


@pytest.mark.parametrize("peak", [1.0, 30.0, 32_768.0, 1e30])
def test_clipping_square_wave(tiny, peak):
    square = np.sign(np.sin(np.arange(32_000) / 9)).astype(np.float32) * np.float32(peak)
    out, _ = tiny.decode(tiny.encode(square, 16_000))
    assert np.isfinite(out).all()
    assert peak > 1 or np.abs(out).max() < 2


def test_noise_clicks_and_offset(tiny):
    rng = np.random.default_rng(0)
    click = np.zeros(20_000, np.float32)
    click[[0, 9999, 19_999]] = 1
    for wave in (rng.normal(0, 0.3, 20_000).astype(np.float32), click, np.full(20_000, 0.5, np.float32)):
        out, _ = tiny.decode(tiny.encode(wave, 16_000))
        assert np.isfinite(out).all()


# rate


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 1.2])
def test_bitrate_is_met(tiny, speech, share, channels):
    wave = np.stack([np.roll(np.tile(speech, 3), 20_000 * channel) for channel in range(channels)])
    data = tiny.encode(wave, 16_000, bitrate_kbps=share * channels)
    assert kbps(len(data), wave.shape[1] / 16_000) == pytest.approx(share * channels, rel=0.05)


def test_default_is_what_the_model_has_nearest(tiny, speech):
    assert len(tiny.encode(speech, 16_000)) == len(tiny.encode(speech, 16_000, bitrate_kbps=1.318))


def test_quality_costs_bytes(tiny, speech):
    sizes = [len(tiny.encode(speech, 16_000, quality=quality)) for quality in (0, 33, 67, 100)]
    assert sizes == sorted(set(sizes))
    levels = {packet.level for packet in tiny.parse(tiny.encode(speech, 16_000, quality=33)).packets}
    assert levels == {1}


@pytest.mark.parametrize(
    "plan",
    [
        {"bitrate_kbps": 1, "quality": 50},
        {"quality": -1},
        {"quality": 100.1},
        {"quality": float("nan")},
        {"bitrate_kbps": 0},
        {"bitrate_kbps": -1},
        {"bitrate_kbps": 9},
        {"bitrate_kbps": float("nan")},
        {"bitrate_kbps": float("inf")},
    ],
    ids=str,
)
def test_rates_that_cannot_be(tiny, speech, plan):
    with pytest.raises(UsageError, match=r"outside what model|0 to 100|give one of them"):
        tiny.encode(speech, 16_000, **plan)


# damage


def spans(contents: Contents) -> list[range]:
    """Byte offsets of every packet of an undamaged file."""
    edges = [22]
    for packet in contents.packets:
        edges.append(edges[-1] + len(container.pack_packet(packet)))
    return [range(start, stop) for start, stop in pairwise(edges)]


@pytest.mark.parametrize("count_known", [True, False])
def test_cut_at_every_byte(tiny, small, count_known):
    contents = tiny.parse(small)
    if not count_known:
        small = container.pack_header(replace(contents.header, samples=None)) + small[22:]
    ends = [span.stop for span in spans(contents)]
    whole, _ = tiny.decode(small) if count_known else (None, 0)
    for size in range(len(small)):
        if size < 22:
            with pytest.raises(StreamError):
                tiny.decode(small[:size])
            continue
        cut = tiny.parse(small[:size])
        groups = sum(end <= size for end in ends)
        out, _ = tiny.decode(small[:size])
        reached = max(0, groups * GROUP - DELAY)
        inside_last = count_known and ends[-2] < size  # then what is there of it is damage like any other
        assert cut.truncated != inside_last
        assert cut.lost == (7 - groups if count_known else 0)
        assert out.shape == (1, contents.samples if inside_last else reached)
        if whole is not None:
            assert np.array_equal(out[:, :reached], whole[:, :reached])


@pytest.mark.parametrize("flip", [0x01, 0x10, 0xFF])
def test_every_byte_changed(tiny, small, flip):
    contents = tiny.parse(small)
    wanted, packets, harmless = symbols_of(tiny, contents), spans(contents), 0
    for at in range(len(small)):
        damaged = bytearray(small)
        damaged[at] ^= flip
        if at < 22:
            with pytest.raises(StreamError):
                tiny.decode(bytes(damaged))
            continue
        hit = next(index for index, span in enumerate(packets) if at in span)
        stream = tiny.decoder(tiny.parse(bytes(damaged)))
        out = np.concatenate(list(stream.blocks()), 1)
        found = symbols_of(tiny, stream.contents)
        assert out.shape == (1, contents.samples)
        assert np.isfinite(out).all()
        same = [np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)]
        lost = [] if same[hit] else [hit]  # the last bits of a payload may stand for the same symbols
        assert [index for index, equal in enumerate(same) if not equal] == lost
        assert found[hit] is None or same[hit]
        assert [round(item.start_s / 0.2) for item in stream.damage] == lost
        assert tiny.verify(stream.contents) == stream.damage
        harmless += same[hit]
    assert harmless < 10


def test_lost_packet_is_concealed_and_fades(tiny, speech):
    contents = tiny.parse(tiny.encode(speech, 16_000, quality=100))
    packets = list(contents.packets)
    packets[8:18] = [None] * 10
    stream = tiny.decoder(replace(contents, packets=packets))
    out = np.concatenate(list(stream.blocks()), 1)[0]
    assert len(out) == len(speech)
    assert [item.reason for item in stream.damage] == ["the packet is lost"] * 10
    lost = [level_db(out[at : at + GROUP]) for at in range(8 * GROUP, 18 * GROUP, GROUP)]
    assert lost[0] > level_db(out) - 15
    assert all(after < before - 10 for before, after in pairwise(lost[:6]))
    assert level_db(out[18 * GROUP + DELAY :]) > lost[0] - 10


def test_level_the_model_lacks_is_damage(tiny, small):
    contents = tiny.parse(small)
    packets = [replace(contents.packets[0], level=4), Packet(15, b""), *contents.packets[2:]]
    stream = tiny.decoder(replace(contents, packets=packets))
    assert sum(block.shape[1] for block in stream.blocks()) == contents.samples
    assert ["the quality level must be below 4" in item.reason for item in stream.damage] == [True] * 2
    assert len(tiny.verify(stream.contents)) == 2


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_changes_end_in_sound_or_stream_error(tiny, small, data):
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        length = data.draw(st.integers(0, 40))
        damaged[at : at + length] = data.draw(st.binary(max_size=40))
    try:
        stream = tiny.decoder(tiny.parse(bytes(damaged)))
    except StreamError:
        assert bytes(damaged[:22]) != small[:22]
        return
    out = np.concatenate(list(stream.blocks()), 1)
    assert np.isfinite(out).all()
    assert out.shape == (stream.header.channels, stream.samples)
    assert bytes(damaged[:22]) != small[:22] or stream.samples <= 20_801


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=300), samples=st.none() | st.integers(0, (1 << 40) - 2), channels=st.integers(1, 8))
def test_random_packets_behind_a_true_header(tiny, body, samples, channels):
    header = replace(tiny.encoder(44_100, quality=0).header, samples=samples, channels=channels)
    out, rate_hz = tiny.decode(container.pack_header(header) + body)
    assert (rate_hz, out.shape[0]) == (44_100, channels)
    assert out.shape[1] <= (len(body) + 1) * GROUP * 44_100 // 16_000
    assert np.isfinite(out).all()


# latents


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_latents_are_fifty_a_second(tiny, speech, rate_hz):
    latents = tiny.latents(speech, rate_hz)
    assert latents.sounding.shape == (-(-resampled_count(len(speech), rate_hz, 16_000) // HOP), 8)
    assert latents.latents.dtype == np.float32
    assert np.array_equal(latents, tiny.latents(np.stack([speech, speech]), rate_hz, mono=True))


def test_latents_are_what_is_quantised(tiny, speech):
    latents = tiny.latents(speech, 16_000, level=3)
    symbols = symbols_of(tiny, tiny.parse(tiny.encode(speech, 16_000, quality=100)))
    coded = np.concatenate(symbols) * tiny.model.quantiser.steps[3]
    assert np.abs(coded - latents.latents).max() < 1.5 * tiny.model.quantiser.steps[3].max()
    assert not np.array_equal(latents, tiny.latents(speech, 16_000, level=0))


@pytest.mark.parametrize("level", [-1, 4])
def test_latents_of_a_level_that_is_not(tiny, speech, level):
    with pytest.raises(UsageError, match="0 to 3"):
        tiny.latents(speech, 16_000, level)


# models


def test_no_network_is_used(tiny_model, speech, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    codec = nacre.load(tiny_model)
    codec.decode(codec.encode(speech[:9999], 16_000))


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    """A copy of the tiny model to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def rewrite(folder: Path, **changes: object) -> Path:
    """Change model.json and, where it can still be made, its fingerprint: a lie, not an accident."""
    facts = json.loads((folder / "model.json").read_text()) | changes
    facts = {name: value for name, value in facts.items() if value is not ...}
    try:
        config = bundles.CodecConfig.from_dict(facts["codec"])
        mark = bundles.fingerprint(config, facts["kind"], facts["steps"], facts["sha256"])
        facts["fingerprint"] = changes.get("fingerprint", mark.hex())
    except (NacreError, LookupError, TypeError, AttributeError):
        pass
    (folder / "model.json").write_text(json.dumps(facts))
    return folder


def test_file_of_another_model_names_both(tiny, model, speech):
    steps = (tiny.model.quantiser.steps * 1.5).tolist()
    other = nacre.load(rewrite(model, steps=steps, name="other"))
    assert other.bundle.fingerprint != tiny.bundle.fingerprint
    with pytest.raises(StreamError) as caught:
        tiny.decode(other.encode(speech, 16_000))
    assert other.bundle.fingerprint.hex() in str(caught.value)
    assert tiny.bundle.fingerprint.hex() in str(caught.value)


def test_file_of_other_groups_is_refused(tiny, small):
    header = replace(container.unpack_header(small), group_frames=50)
    with pytest.raises(StreamError, match="groups of"):
        tiny.decode(container.pack_header(header) + small[22:])


def test_new_encoder_keeps_the_fingerprint(tiny, model):
    """Files depend on the decoder and the tables alone."""
    hashes = tiny.bundle.facts.hashes | {"encoder.onnx": "0" * 64}
    assert bundles.fingerprint(tiny.config, 1, tiny.bundle.facts.values["steps"], hashes) == tiny.bundle.fingerprint
    hashes["decoder.onnx"] = "0" * 64
    assert bundles.fingerprint(tiny.config, 1, tiny.bundle.facts.values["steps"], hashes) != tiny.bundle.fingerprint


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"holds no model, for it has no model\.json"):
        bundles.find(tmp_path)


@pytest.mark.parametrize("part", ["encoder.onnx", "decoder.onnx", "prior.npz"])
def test_changed_byte_in_a_part(model, part):
    data = bytearray((model / part).read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        changed = data.copy()
        changed[at] ^= 1
        (model / part).write_bytes(changed)
        with pytest.raises(BundleError, match=part):
            nacre.load(model)
    (model / part).unlink()
    with pytest.raises(BundleError, match=part):
        nacre.load(model)


def test_changed_byte_in_the_settings(tiny, model):
    """Found, or it was in a word that decodes nothing: then files are still readable."""
    text = (model / "model.json").read_bytes()
    found = 0
    for at in range(0, len(text), 7):
        (model / "model.json").write_bytes(text[:at] + bytes([text[at] ^ 4]) + text[at + 1 :])
        try:
            assert bundles.load(model).fingerprint == tiny.bundle.fingerprint
        except BundleError:
            found += 1
    assert found > 80


CODEC = json.loads((DATA / "tiny" / "model.json").read_text())["codec"]
NESTED = "[" * 100_000
LIES = {
    "kind": [0, 2, 7, None, "x", float("inf"), float("nan"), [1]],
    "codec": [
        None,
        [],
        {},
        CODEC | {"more": 1},
        *[
            CODEC | {name: value}
            for name in CODEC
            for value in (0, -1, None, "16", 1.5, 10**12, [320])
            if not (name == "levels" and value == 4)
        ],
        CODEC | {"hop_samples": 160},
        CODEC | {"window_samples": 320},
        CODEC | {"latent_dims": 9},
        CODEC | {"levels": 5},
        CODEC | {"rate_hz": 1},
    ],
    "steps": [
        ...,
        None,
        1,
        [],
        [[]],
        [[1.0] * 8] * 3,
        [[0.0] * 8] * 4,
        [[-1.0] * 8] * 4,
        [[1e999] * 8] * 4,
        "x",
        [[1], [1, 2]],
    ],
    "dead_zone": [..., None, 0.05, [0.05] * 2, [0.5] * 4, [-0.1] * 4, [float("nan")] * 4, ["x"] * 4, [[0.0] * 8] * 4],
    "rates_kbps": [..., None, 1.0, [1.0], [0.0] * 4, [-1.0] * 4, [float("nan")] * 4, [float("inf")] * 4, "abcd"],
    "sha256": [..., None, {}, [], "x", {"encoder.onnx": 1}],
    "fingerprint": ["00000000", None, 5],
    "name": [...],
    "format": [..., 0, 2, "1", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LIES.items() for value in values])
def test_lies_in_the_settings(model, name, value):
    with pytest.raises(BundleError):
        nacre.load(rewrite(model, **{name: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', NESTED, "{}", "\x00", '{"format": 1}'])
def test_settings_that_are_none(model, text):
    (model / "model.json").write_text(text)
    with pytest.raises(BundleError):
        nacre.load(model)


def test_huge_or_binary_settings(model):
    (model / "model.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(BundleError, match="larger than"):
        nacre.load(model)
    (model / "model.json").write_bytes(bytes(range(256)))
    with pytest.raises(BundleError, match="JSON"):
        nacre.load(model)


@pytest.mark.parametrize("part", ["encoder.onnx", "decoder.onnx", "prior.npz"])
def test_parts_that_match_their_hash_and_nothing_else(model, part):
    facts = json.loads((model / "model.json").read_text())
    for content in (b"", b"text", (model / "decoder.onnx").read_bytes()[:20_000]):
        (model / part).write_bytes(content)
        with pytest.raises(BundleError):
            nacre.load(rewrite(model, sha256=facts["sha256"] | {part: bundles._hash(model / part)}))


def test_swapped_graphs(model):
    facts = json.loads((model / "model.json").read_text())
    shutil.copy(model / "decoder.onnx", model / "encoder.onnx")
    with pytest.raises(BundleError, match="sizes"):
        nacre.load(rewrite(model, sha256=facts["sha256"] | {"encoder.onnx": facts["sha256"]["decoder.onnx"]}))


def test_unknown_models(tmp_path):
    for name in ("no-such-model", str(tmp_path), "", "../x", "a" * 300):
        with pytest.raises(UsageError, match=r"nacre (models|export)"):
            nacre.load(name)


# ---- several at once


def test_a_batch_is_what_each_wave_is_alone(tiny, speech):
    waves = [speech[:9000], np.stack([speech[:5000], speech[5000:10_000]])]
    alone = [tiny.encode(wave, 16_000, quality=40) for wave in waves]
    assert tiny.encode_batch(waves, 16_000, quality=40, threads=2) == alone
    padded = np.zeros((2, 9000), np.float32)
    padded[0], padded[1, :4000] = speech[:9000], speech[:4000]
    assert tiny.encode_batch(padded, 16_000, [9000, 4000], quality=40) == [
        alone[0],
        tiny.encode(speech[:4000], 16_000, quality=40),
    ]


def test_a_batch_is_not_taken_for_channels(tiny, speech):
    rows = np.stack([speech[:4000]] * 9)
    with pytest.raises(AudioError, match="9 channels"):
        tiny.encode(rows, 16_000)
    assert len(tiny.encode_batch(rows, 16_000)) == 9
    with pytest.raises(AudioError, match="item 1: wave holds NaN"):
        tiny.encode_batch([speech[:4000], speech[:4000] * np.nan], 16_000)
    with pytest.raises(UsageError, match="a length for each"):
        tiny.encode_batch(rows, 16_000, [4000])


@pytest.mark.parametrize("rows", [2, 8])
def test_several_rows_are_never_averaged_without_a_word(tiny, tiny_model, speech, rows):
    wave = np.stack([speech[:4000]] * rows)
    for work in (tiny.latents, tiny.tokens, partial(features.extract, model=tiny_model)):
        with pytest.raises(UsageError, match=f"{rows} channels.*mono=True averages them.*latents_batch"):
            work(wave, 16_000)
    assert features.extract(wave, 16_000, "mfcc", mono=True).shape == features.extract(wave[0], 16_000, "mfcc").shape
    assert len(tiny.latents_batch(wave, 16_000)) == rows


def test_files_are_decoded_side_by_side_as_alone(tiny, speech):
    files = [tiny.encode(speech[start : start + 5000], 8000 * (1 + start // 5000)) for start in (0, 5000)]
    for (wave, rate_hz), file in zip(tiny.decode_batch(files, threads=2), files, strict=True):
        np.testing.assert_array_equal(wave, tiny.decode(file)[0])
        assert rate_hz == tiny.decode(file)[1]
    with pytest.raises(StreamError, match="item 1: "):
        tiny.decode_batch([files[0], files[1][:9]])
    with pytest.raises(UsageError, match="one or more"):
        tiny.decode_batch([])
