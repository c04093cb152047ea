"""Two channels that are alike are written once: when, how loud, and what is left after a loss."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.codec import decoder, encoder
from nacre.core.errors import StreamError, UsageError
from nacre.dsp.gain import gain_curve
from nacre.dsp.stereo import ALIKE_DB, EVEN, MOST_DB, SEPARATE, IntensityStereo, downmix, factor_of
from nacre.format import file as container
from nacre.format.file import Coupling, Packet

GROUP = 3200  # samples of the tiny model


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)) + 1e-20))


def panned(wave: np.ndarray, right_db: float) -> np.ndarray:
    return np.stack([wave, wave * np.float32(10 ** (right_db / 20))])


@pytest.fixture(scope="module")
def loud(speech) -> np.ndarray:
    """Two seconds without a pause, [N]."""
    return speech[20_000:52_000]


@pytest.fixture(scope="module")
def mixed(speech) -> np.ndarray:
    """[2, N] in groups: 5 alike, 5 apart, 5 alike but the right one louder, 3 with a silent right, 4 alike."""
    wave = np.stack([np.concatenate([speech[20_000:66_000], speech[20_000:44_400]])] * 2)
    wave[1, 5 * GROUP : 10 * GROUP] = speech[40_000 : 40_000 + 5 * GROUP][::-1]
    wave[1, 10 * GROUP : 15 * GROUP] *= np.float32(10 ** (4 / 20))
    wave[1, 15 * GROUP : 18 * GROUP] = 0
    return wave


# when


@pytest.mark.parametrize("right_db", [-7.4, -6.5, -3, -0.4, 0, 0.5, 1, 2.5, 7, 7.4])
def test_one_sound_at_two_levels_is_alike(loud, right_db):
    wave = panned(loud, right_db)
    balance = IntensityStereo().balance(wave)
    assert abs(balance - EVEN - right_db) <= 0.5
    back = np.stack([downmix(wave, balance), downmix(wave, balance) * factor_of(balance)])
    assert level_db(back - wave) < level_db(wave) + ALIKE_DB
    assert abs(level_db(back[0]) - level_db(wave[0])) < 0.5
    assert abs(level_db(back[1]) - level_db(wave[1])) < 0.5


@pytest.mark.parametrize("right_db", [-MOST_DB - 0.6, MOST_DB + 0.6, 20, -200])
def test_one_sound_at_far_levels_is_not(loud, right_db):
    assert IntensityStereo().balance(panned(loud, right_db)) == SEPARATE


def test_what_is_not_alike(loud, speech):
    for right in (-loud, loud[::-1], np.zeros_like(loud), np.roll(loud, 8)):
        assert IntensityStereo().balance(np.stack([loud, right])) == SEPARATE
    assert IntensityStereo().balance(np.zeros((2, 999), np.float32)) == SEPARATE


@pytest.mark.parametrize(("noise_db", "alike"), [(-50, True), (-35, True), (-25, False), (-10, False)])
def test_noise_of_their_own(loud, noise_db, alike):
    noise = np.random.default_rng(1).standard_normal((2, len(loud))) * 10 ** ((level_db(loud) + noise_db) / 20)
    assert IntensityStereo().balance((loud + noise).astype(np.float32)) == (EVEN if alike else SEPARATE)


def test_noise_of_a_pause_decides_nothing(loud):
    likeness, rng = IntensityStereo(), np.random.default_rng(1)
    pause = rng.standard_normal((2, len(loud))) * 10 ** ((level_db(loud) - 40) / 20)
    assert likeness.balance(panned(loud, 3)) == EVEN + 3
    found = [likeness.balance(pause) for _ in range(12)]
    assert found[:3] == [EVEN + 3] * 3
    assert found[-3:] == [SEPARATE] * 3  # in a long one it has become the sound


def test_balance_does_not_flutter(loud):
    likeness = IntensityStereo()
    assert {likeness.balance(panned(loud, 0.5 + 0.01 * (-1) ** turn)) for turn in range(6)} == {EVEN + 1}


# what is written


def test_half_the_bytes(tiny, speech):
    both = panned(speech, 0)
    sizes = [len(tiny.encode(both, 16_000, quality=70, stereo=way)) for way in ("auto", "left-right")]
    assert sizes[0] < 0.6 * sizes[1]
    contents = tiny.parse(tiny.encode(both, 16_000, quality=70))
    assert contents.header.coupling == Coupling.INTENSITY
    assert contents.packets[1::2] == [Packet(EVEN, b"")] * (len(contents.packets) // 2)
    assert contents.packets[::2] == tiny.parse(tiny.encode(speech, 16_000, quality=70)).packets
    assert contents.intensity_groups == len(contents.packets) // 2
    left, right = tiny.decode(tiny.encode(both, 16_000, quality=70))[0]
    assert np.array_equal(left, right)
    assert np.array_equal(left, tiny.decode(tiny.encode(speech, 16_000, quality=70))[0][0])


@pytest.mark.parametrize("right_db", [-6, 3])
def test_balance_comes_back(tiny, loud, right_db):
    left, right = tiny.decode(tiny.encode(panned(loud, right_db), 48_000, quality=70))[0]
    assert level_db(right) - level_db(left) == pytest.approx(right_db, abs=0.2)


def test_group_by_group(tiny, mixed):
    contents = tiny.parse(tiny.encode(mixed, 16_000, quality=70))
    found = [SEPARATE if packet.payload else packet.level for packet in contents.packets[1::2]]
    assert found == [EVEN] * 5 + [SEPARATE] * 5 + [EVEN + 4] * 5 + [SEPARATE] * 3 + [EVEN] * 4 + [SEPARATE]
    assert contents.packets[2 * 16 + 1] == Packet(0, b"")  # silence, whatever the level of its group
    assert [not packet.payload for packet in contents.packets[1::2]][15:18] == [True] * 3
    assert tiny.verify(contents) == []
    out = tiny.decode(tiny.encode(mixed, 16_000, quality=70))[0]
    assert not out[1, 15 * GROUP : 18 * GROUP].any()
    assert out[0, 15 * GROUP : 18 * GROUP].any()


def test_levels_through_changes(tiny, mixed):
    """Each channel is as loud, stretch by stretch, as without joining."""
    ways = [tiny.decode(tiny.encode(mixed, 16_000, quality=100, stereo=way))[0] for way in ("auto", "left-right")]
    for start, stop in pairwise([0, 5, 10, 15]):
        for channel in (0, 1):
            joined, apart = (level_db(wave[channel, start * GROUP : stop * GROUP]) for wave in ways)
            assert joined == pytest.approx(apart, abs=1.5)


def test_both_sides_ramp_between_the_same_gains(tiny, mixed, monkeypatch):
    mixed = mixed.copy()
    mixed[:, 7 * GROUP :] *= np.float32(0.02)
    mixed[1, : 10 * GROUP] *= np.float32(0.5)
    calls: list[tuple[int | None, int]] = []
    for side in (encoder, decoder):
        monkeypatch.setattr(side, "gain_curve", lambda *given: (calls.append(given[:2]), gain_curve(*given))[1])
    data = tiny.encode(mixed, 16_000, quality=50)
    packets, ours = tiny.parse(data).packets, list(calls)
    calls.clear()
    tiny.decode(data)
    wanted = []
    for at in range(0, len(packets), 2):
        joined = not packets[at + 1].payload and packets[at + 1].level > 0
        if packets[at].payload:
            wanted.append(ours[at])
        if joined or packets[at + 1].payload:
            wanted.append(ours[at] if joined else ours[at + 1])
    assert calls == wanted
    assert len(set(calls)) > 4


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 22 * GROUP), max_size=9), rate_hz=st.sampled_from([16_000, 22_050]))
def test_pieces_change_nothing(tiny, mixed, cuts, rate_hz):
    stream = tiny.encoder(rate_hz, 2, quality=70)
    packets = []
    for start, stop in pairwise([0, *sorted(cuts), mixed.shape[1]]):
        packets += stream.push(mixed[:, start:stop])
    assert packets + stream.flush() == tiny.parse(tiny.encode(mixed, rate_hz, quality=70)).packets


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_only_pairs_are_joined(tiny, loud, channels):
    contents = tiny.parse(tiny.encode(np.stack([loud] * channels), 16_000))
    assert (contents.header.coupling, contents.intensity_groups) == (Coupling.SEPARATE, 0)


def test_left_right_never_joins(tiny, loud):
    contents = tiny.parse(tiny.encode(panned(loud, 0), 16_000, stereo="left-right"))
    assert contents.header.coupling == Coupling.SEPARATE
    assert all(packet.payload for packet in contents.packets[:-2])
    with pytest.raises(UsageError, match="auto or left-right"):
        tiny.encode(panned(loud, 0), 16_000, stereo="mid-side")


def test_bitrate_is_met_by_one_packet_for_both(tiny, speech):
    wave = panned(np.tile(speech, 3), 0)
    data = tiny.encode(wave, 16_000, bitrate_kbps=1.2)
    assert 8 * len(data) / wave.shape[1] * 16 == pytest.approx(1.2, rel=0.05)


# losses


def decoded(codec, contents, lost: list[int]):
    packets = [None if index in lost else packet for index, packet in enumerate(contents.packets)]
    stream = codec.decoder(replace(contents, packets=packets))
    wave = np.concatenate(list(stream.blocks()), 1)
    assert codec.verify(stream.contents) == stream.damage
    return wave, [(round(item.start_s / 0.2), item.channel) for item in stream.damage]


def test_lost_second_packet_of_a_joined_group_costs_nothing(tiny, mixed):
    contents = tiny.parse(tiny.encode(mixed, 16_000, quality=70))
    whole, damage = decoded(tiny, contents, [])
    assert damage == []
    out, damage = decoded(tiny, contents, [2 * 3 + 1, 2 * 12 + 1])
    assert damage == [(3, 1), (12, 1)]
    assert np.array_equal(out, whole)


def test_lost_packet_of_channels_apart_costs_its_channel(tiny, mixed):
    contents = tiny.parse(tiny.encode(mixed, 16_000, quality=70))
    whole, _ = decoded(tiny, contents, [])
    for lost, channel in ((2 * 7, 0), (2 * 7 + 1, 1)):
        out, damage = decoded(tiny, contents, [lost])
        assert damage == [(7, channel)]
        assert np.array_equal(out[1 - channel, : 10 * GROUP], whole[1 - channel, : 10 * GROUP])
        assert not np.array_equal(out[channel], whole[channel])


def test_lost_first_packet_of_a_joined_group_is_concealed_in_both(tiny, mixed):
    contents = tiny.parse(tiny.encode(mixed, 16_000, quality=70))
    whole, _ = decoded(tiny, contents, [])
    out, damage = decoded(tiny, contents, [2 * 12])
    assert damage == [(12, 0)]
    start = 12 * GROUP - 640
    assert np.array_equal(out[:, :start], whole[:, :start])
    for channel in (0, 1):
        concealed = level_db(out[channel, 12 * GROUP : 12 * GROUP + 800])
        assert level_db(whole[channel, 12 * GROUP - 800 : 12 * GROUP]) - 20 < concealed
    assert np.allclose(out[1, start : 13 * GROUP], out[0, start : 13 * GROUP] * factor_of(EVEN + 4), atol=1e-5)


def test_first_joined_group_lost(tiny, mixed):
    """The right channel goes on with its own past and its own gain, and both are back with the next group."""
    contents = tiny.parse(tiny.encode(mixed, 16_000, quality=70))
    whole, _ = decoded(tiny, contents, [])
    out, damage = decoded(tiny, contents, [2 * 10])
    assert damage == [(10, 0)]
    assert level_db(out[1]) == pytest.approx(level_db(whole[1]), abs=2)
    assert np.isfinite(out).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_changes_end_in_sound_or_stream_error(tiny, mixed, data):
    whole = tiny.encode(mixed[:, : 12 * GROUP], 16_000, quality=0)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(22, len(damaged)))
        length = data.draw(st.integers(0, 30))
        damaged[at : at + length] = data.draw(st.binary(max_size=30))
    stream = tiny.decoder(tiny.parse(bytes(damaged)))
    out = np.concatenate(list(stream.blocks()), 1)
    assert out.shape == (2, stream.samples)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("size", range(30, 300, 27))
def test_cut_files_decode_up_to_the_cut(tiny, mixed, size):
    data = tiny.encode(mixed, 16_000, quality=0)[:size]
    contents = tiny.parse(data)
    out, _ = tiny.decode(data)
    assert contents.truncated
    assert out.shape == (2, max(0, -(-len(contents.packets) // 2) * GROUP - 640))


def test_joined_file_of_one_channel_is_refused(tiny, loud):
    data = bytearray(tiny.encode(loud, 16_000))
    data[5] |= 16
    data[20:22] = container.crc_hqx(bytes(data[:20]), 0).to_bytes(2, "little")
    with pytest.raises(StreamError, match="intensity stereo"):
        tiny.decode(bytes(data))
