"""What should not arrive at a live decoder: counted, concealed, and never an exception."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_live import heard, on_time, sent

from nacre.codec import live_packets
from nacre.codec.live_packets import PayloadCoder
from nacre.codec.live_voice import Voice
from nacre.codec.packets import Group
from nacre.format import live as wire


def changed(packets: list[bytes], start: int, **fields: int) -> list[bytes]:
    """Packets whose heads are changed from one on: each field is added to."""
    found = [wire.unpack_rtp(data) for data in packets]
    moved = [replace(p, **{name: getattr(p, name) + by for name, by in fields.items()}) for p in found[start:]]
    return packets[:start] + [wire.pack_rtp(p) for p in moved]


def test_another_version_is_counted_and_not_played(both, speech, monkeypatch):
    monkeypatch.setattr(live_packets, "VERSION", 2)
    packets = sent(both, speech[16_000:24_000])
    monkeypatch.undo()
    decoder = both.live_decoder()
    assert not heard(decoder, on_time(packets), 0.6).any()
    assert decoder.stats.foreign == len(packets)


@pytest.mark.parametrize(
    "data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x80\xc8" + bytes(26), b"NR01" + bytes(12), bytes(1500)]
)
def test_what_others_send_is_counted_and_changes_nothing(both, speech, data):
    packets = on_time(sent(both, speech[16_000:32_000]))
    plain, decoder = heard(both.live_decoder(depth_ms=40), packets, 1.2), both.live_decoder(depth_ms=40)
    assert np.array_equal(heard(decoder, [*packets, (0.3, data)], 1.2), plain)
    assert (decoder.stats.foreign, decoder.stats.damaged) == (1, 0)


def test_truncated_packets_are_counted_and_concealed(both, speech):
    packets = sent(both, speech[16_000:48_000], loss=0.2)
    cut = [packet[: 12 + (len(packet) - 12) // 2] if at % 10 == 5 else packet for at, packet in enumerate(packets)]
    decoder = both.live_decoder(depth_ms=100)
    wave = heard(decoder, on_time(cut), 2.2)
    stats = decoder.stats
    assert stats.damaged == 10
    assert stats.concealed + stats.restored >= 10
    assert np.isfinite(wave).all()


def test_while_packets_are_damaged_one_frame_is_no_louder_than_those_before(both, speech):
    """Damage that was not noticed beside damage that was: symbols of noise at the gain of the call."""
    packet = sent(both, speech[16_000:24_000], loss=0.2)[8]
    found = PayloadCoder(both.model).unpack(wire.unpack_rtp(packet).payload, None)
    sizes = {}
    for wary in (False, True):
        voice = Voice(both.model)
        usual = Group(found.level, 1, found.symbols, found.code)
        before = [np.square(voice.play(usual, usual)).mean() for _ in range(12)]
        voice.wary = wary
        noise = Group(found.level, 1, found.symbols + 6, found.code)
        after = [np.square(voice.play(group, usual)).mean() for group in (noise, usual, usual)]
        sizes[wary] = max(after) / max(before)
    assert sizes[False] > 1.1
    assert sizes[True] <= 1.001


@pytest.mark.parametrize("jump_s", [-3000, -20, 20, 3000])
def test_timestamps_that_jump_are_followed(both, speech, jump_s):
    packets = changed(sent(both, speech[16_000:48_000], loss=0.2), 50, timestamp=16_000 * jump_s)
    decoder = both.live_decoder()
    wave = heard(decoder, on_time(packets), 2.4)
    assert decoder.stats.played >= len(packets) - 5
    assert len(wave) <= 2.4 * 16_000


@pytest.mark.parametrize("jump", [-20_000, 20_000])
def test_sequence_numbers_that_jump_are_followed(both, speech, jump):
    packets = changed(sent(both, speech[16_000:48_000], loss=0.2), 50, sequence=jump)
    decoder = both.live_decoder()
    heard(decoder, on_time(packets), 2.4)
    assert decoder.stats.played >= len(packets) - 5


def test_a_minute_of_nothing_is_outlasted(both, speech):
    """The line is dead for a minute; then the same sender goes on."""
    packets = sent(both, speech[16_000:48_000], loss=0.2)
    arrivals = [(time + 60 * (at >= 50), packet) for at, (time, packet) in enumerate(on_time(packets))]
    decoder, left, sizes = both.live_decoder(), list(arrivals), []
    for now in np.arange(0.0, 63.0):
        due = [left.pop(0) for _ in range(sum(time <= now for time, _ in left))]
        waves = [decoder.push(packet, time) for time, packet in due] + [decoder.push(None, now)]
        sizes.append(max(np.abs(wave).max(initial=0) for wave in waves))
    assert max(sizes[4:59]) <= max(sizes[:3])
    assert decoder.stats.played >= 90


def test_a_minute_of_silence_is_silent(both, speech):
    encoder = both.live_encoder(16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=7)
    decoder, quiet, sizes = both.live_decoder(), np.zeros(16_000, np.float32), []
    for second in range(63):
        packets = encoder.push(speech[16_000:32_000] if second in (0, 61) else quiet)
        waves = [decoder.push(packet, second + 1.0) for packet in [*packets, None]]
        sizes.append(max(np.abs(wave).max(initial=0) for wave in waves))
    assert min(sizes[1], sizes[62]) > 0
    assert not any(sizes[3:61])
    assert encoder.packets < 300


def test_packets_older_than_the_buffer_are_counted_and_change_nothing(both, speech):
    packets = sent(both, np.tile(speech, 2)[:112_000])
    usual = [item for at, item in enumerate(on_time(packets)) if at not in (20, 280)]
    old = [(6.2, packets[280]), (6.4, packets[20])]
    plain, decoder = heard(both.live_decoder(depth_ms=40), usual, 7.1), both.live_decoder(depth_ms=40)
    assert np.array_equal(heard(decoder, usual + old, 7.1), plain)
    assert (decoder.stats.late, decoder.stats.foreign) == (1, 1)
