"""Live packets: bytes there and back, contexts after a loss, and a decoder that nothing brings down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import damaged

import nacre
from nacre.codec.live import LiveSettings
from nacre.codec.live_inbox import unwrapped
from nacre.codec.live_packets import Frame, Mode, Payload, PayloadCoder
from nacre.codec.live_voice import Voice
from nacre.codec.packets import Group
from nacre.core.errors import StreamError, UsageError
from nacre.format import live as wire
from nacre.format.live import FramedReader, Report, RtpPacket

HOP = 320


def sent(codec, wave, **options) -> list[bytes]:
    """RTP packets of wave [N]."""
    encoder = codec.live_encoder(16_000, bitrate_kbps=float(codec.bundle.rates_kbps[1]), source=7, **options)
    return encoder.push(wave) + encoder.flush()


def heard(decoder, arrivals, until_s: float) -> np.ndarray:
    """Sound of packets that arrive at (time, bytes), the clock asked each 20 ms."""
    waves, left = [], sorted(arrivals, key=lambda item: item[0])
    for now in np.arange(0, until_s, 0.02):
        while left and left[0][0] <= now + 1e-9:
            waves.append(decoder.push(left[0][1], left.pop(0)[0]))
        waves.append(decoder.push(None, float(now)))
    return np.concatenate(waves)


def on_time(packets, frames=1):
    return [(0.02 * frames * at, packet) for at, packet in enumerate(packets)]


@pytest.mark.parametrize("sequence", [0, 65_535])
@pytest.mark.parametrize("marker", [False, True])
def test_rtp_heads_go_there_and_back(sequence, marker):
    packet = RtpPacket(sequence, 2**32 - 1, 12, b"payload", marker, 97)
    assert wire.unpack_rtp(wire.pack_rtp(packet)) == packet


def test_rtp_extension_sources_and_padding_are_skipped():
    plain = wire.pack_rtp(RtpPacket(1, 2, 3, b""))
    more = bytes([0xB1]) + plain[1:] + b"srce" + b"\0\0\0\1extn" + b"payload" + b"\0\0\3"
    assert wire.unpack_rtp(more).payload == b"payload"


@pytest.mark.parametrize("data", [b"", b"\x80", b"\0" * 20, b"\x9f" + b"\xff" * 30, b"\xa0" + b"\xff" * 11])
def test_what_is_no_rtp_is_refused(data):
    with pytest.raises(StreamError):
        wire.unpack_rtp(data)


def test_reports_and_frames_of_pipes_go_there_and_back():
    report = Report(9, 0.25, 3, 65_535)
    assert wire.unpack_report(wire.pack_report(report)) == report
    packets, reader, found = [b"", b"one", b"x" * 300], FramedReader(), []
    for octet in b"".join(map(wire.pack_framed, packets)) + b"\0":
        found += reader.push(bytes([octet]))
    assert found == packets
    assert reader.left_bytes == 1


def test_numbers_are_unwrapped_to_the_nearest():
    assert [unwrapped(at & 0xFFFF, at - 5, 16) for at in (65_530, 65_540, 131_080)] == [65_530, 65_540, 131_080]


@pytest.mark.parametrize("name", ["tiny", "both"])
def test_payloads_go_there_and_back(request, name):
    """Every mode, with and without copies, by both priors."""
    codec = request.getfixturevalue(name)
    coder, rng, context, heard_context = PayloadCoder(codec.model), np.random.default_rng(5), None, None
    columns = codec.model.quantiser.columns
    for mode in [Mode.ANNOUNCE, Mode.CHAIN, Mode.CHANGE, Mode.SILENCE, Mode.CHAIN, Mode.KEY, Mode.CHAIN]:
        symbols = None if mode == Mode.SILENCE else rng.integers(-1, 2, (2, columns)).astype(np.int32)
        kept = context and mode in (Mode.CHAIN, Mode.SILENCE)
        level, code = (context.level, context.code) if kept else (int(rng.integers(4)), int(rng.integers(32)))
        copies = tuple(
            Frame(1, 5, rng.integers(-1, 2, (1, columns)).astype(np.int32) if at != 1 else None) for at in range(3)
        )
        for given in ((), copies):
            payload = Payload(mode, 2, level, code, symbols, reach=4 if given else 1, copies=given)
            data, after = coder.pack(payload, context)
            read = coder.unpack(data, heard_context)
            assert (read.mode, read.frames, read.level, read.code, read.reach) == (mode, 2, level, code, payload.reach)
            assert np.array_equal(read.symbols, symbols) if symbols is not None else read.symbols is None
            for copy, back in zip(given, read.copies, strict=True):
                assert (copy.symbols is None) == (back.symbols is None)
                assert copy.symbols is None or (copy.code, copy.symbols.tolist()) == (back.code, back.symbols.tolist())
        if given and mode == Mode.CHAIN:
            blind = coder.unpack(data, None)
            assert not blind.known
            assert blind.symbols is None
            assert np.array_equal(blind.copies[0].symbols, copies[0].symbols)
        context, heard_context = after, read.context


def test_a_payload_has_the_length_that_its_symbols_cost(both, speech):
    coder, longest = PayloadCoder(both.model), 0
    for packet in sent(both, speech[16_000:48_000], loss=0.2):
        data = wire.unpack_rtp(packet).payload
        assert coder.unpack(data, None).known
        with pytest.raises(StreamError):
            coder.unpack(data + b"\0\0", None)
        longest = max(longest, len(data))
    assert longest > 4


def test_one_packet_of_numbers_from_elsewhere_is_as_one_that_was_lost(both, speech):
    packets = on_time(sent(both, speech[16_000:48_000], loss=0.2))
    for change in ({"sequence": 3000}, {"sequence": 170}, {"timestamp": 1 << 30}):
        decoder, odd = both.live_decoder(depth_ms=100), list(packets)
        odd[40] = odd[40][0], wire.pack_rtp(replace(wire.unpack_rtp(odd[40][1]), **change))
        wave = heard(decoder, odd, 2.1)
        assert (decoder.stats.restarts, decoder.stats.foreign) == (0, 1)
        assert np.array_equal(wave, heard(both.live_decoder(depth_ms=100), packets[:40] + packets[41:], 2.1))


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clean_line_gives_every_frame_as_sent(both, speech, frames):
    packets = sent(both, speech[16_000:32_000], frames=frames)
    decoder = both.live_decoder()
    wave = heard(decoder, on_time(packets, frames), 1.2)
    assert decoder.stats.lost == decoder.stats.damaged == decoder.stats.foreign == 0
    assert decoder.stats.played >= 50
    assert np.abs(wave).max() > 0


def test_packets_do_not_depend_on_pieces(both, speech):
    encoder, wave = both.live_encoder(16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=7), speech[:16_000]
    pieces = [packet for at in range(0, 16_000, 777) for packet in encoder.push(wave[at : at + 777])]
    assert pieces + encoder.flush() == sent(both, wave)


def test_order_and_repeats_do_not_matter_in_time(both, speech):
    packets = sent(both, speech[16_000:32_000])
    plain = heard(both.live_decoder(depth_ms=140), on_time(packets), 1.3)
    mixed = [(time + 0.02 * (3 if at % 4 == 1 else 0), packet) for at, (time, packet) in enumerate(on_time(packets))]
    decoder = both.live_decoder(depth_ms=140)
    assert np.array_equal(heard(decoder, mixed + mixed[5:9], 1.3), plain)
    assert decoder.stats.duplicate == 4
    assert decoder.stats.lost == 0


def test_a_lost_packet_breaks_its_chain_until_the_next_key(both, speech):
    packets = sent(both, speech[16_000:48_000], redundant=False)
    decoder = both.live_decoder(depth_ms=0)
    heard(decoder, [item for at, item in enumerate(on_time(packets)) if at != 20], 2.0)
    assert decoder.stats.lost == 1
    assert decoder.stats.concealed == 30  # from packet 20 to the key at 50


def test_copies_restore_bursts_of_three(both, speech):
    packets = sent(both, speech[16_000:48_000], loss=0.2)
    decoder = both.live_decoder(depth_ms=100)
    heard(decoder, [item for at, item in enumerate(on_time(packets)) if at % 20 not in (11, 12, 13)], 2.1)
    assert decoder.stats.lost == 15
    assert decoder.stats.restored == 15
    assert decoder.stats.concealed == 0


def test_a_gap_whose_end_is_in_hand_is_bridged(both, speech):
    packet = sent(both, speech[16_000:24_000], loss=0.2)[8]
    found = PayloadCoder(both.model).unpack(wire.unpack_rtp(packet).payload, None)
    start, stop = (Group(found.level, 1, symbols, found.code) for symbols in (found.symbols, found.symbols + 1))
    voice = Voice(both.model)
    voice.play(start, None)
    first, last = both.model.latents(start.symbols, start.level), both.model.latents(stop.symbols, stop.level)
    for at in (1, 2, 3):
        voice.guess(stop, ahead=4 - at)
        np.testing.assert_allclose(voice.state.sound.last, first + (last - first) * at / 4, atol=1e-5)


def test_what_a_copy_leaves_out_follows_the_frame_before(both, speech):
    packet = sent(both, speech[16_000:24_000], loss=0.2)[8]
    found = PayloadCoder(both.model).unpack(wire.unpack_rtp(packet).payload, None)
    voice, steps = Voice(both.model), both.model.quantiser.scales[0]
    voice.play(Group(found.level, 1, found.symbols, found.code), None)
    before, copy = voice.state.sound.last, np.zeros_like(found.symbols)
    copy[0, 0] = 1
    voice.play(Group(0, 1, copy, found.code), None, coarse=True)
    wanted = 0.6 * np.clip(before[0], -0.4 * steps, 0.4 * steps)
    wanted[0] = steps[0]
    assert wanted[1:].any()
    np.testing.assert_allclose(voice.state.sound.last[0], wanted, rtol=1e-5)


def test_another_model_is_counted_and_not_played(tiny, both, speech):
    decoder = both.live_decoder()
    assert not heard(decoder, on_time(sent(tiny, speech[:8000])), 0.6).any()
    assert decoder.stats.foreign > 20


def test_a_sender_that_starts_again_is_followed(both, speech):
    decoder, packets = both.live_decoder(), sent(both, speech[16_000:32_000])
    again = both.live_encoder(16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=8)
    later = [(1.2 + time, packet) for time, packet in on_time(again.push(speech[16_000:32_000]))]
    heard(decoder, on_time(packets) + later, 2.4)
    assert decoder.stats.restarts == 1
    assert decoder.stats.played >= 98


def test_numbers_that_wrap_are_followed(both, speech):
    packets = [wire.unpack_rtp(data) for data in sent(both, speech[16_000:32_000])]
    moved = [replace(p, sequence=p.sequence + 65_520, timestamp=p.timestamp + 2**32 - 16_000) for p in packets]
    moved = [wire.pack_rtp(p) for p in moved]
    decoder = both.live_decoder()
    heard(decoder, on_time(moved), 1.2)
    assert (decoder.stats.lost, decoder.stats.restarts) == (0, 0)
    assert decoder.stats.played >= 50


def test_silence_sends_little_and_is_silent(both, speech):
    wave = np.concatenate([speech[16_000:24_000], np.zeros(48_000, np.float32), speech[16_000:24_000]])
    encoder = both.live_encoder(16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=7)
    arrivals = []
    for at in range(0, len(wave), HOP):
        arrivals += [(at / 16_000, packet) for packet in encoder.push(wave[at : at + HOP])]
    assert len(arrivals) < 70
    decoder = both.live_decoder(depth_ms=40)
    out = heard(decoder, arrivals, 4.2)
    assert not out[16_000:40_000].any()
    assert decoder.stats.lost == 0


@pytest.mark.parametrize("jump_s", [30.0, 4000.0])
def test_jumps_of_clocks_do_not_stop_it(both, speech, jump_s):
    packets = sent(both, speech[16_000:32_000])
    decoder = both.live_decoder()
    for at, packet in enumerate(packets[:25]):
        decoder.push(packet, 0.02 * at)
    assert len(decoder.push(None, jump_s)) <= 2.1 * 16_000
    for at, packet in enumerate(packets[25:]):
        decoder.push(packet, jump_s + 0.02 * at)
    assert len(decoder.push(None, jump_s + 1)) <= 2.1 * 16_000


def test_damaged_packets_raise_nothing_and_are_not_loud(both, speech):
    packets = sent(both, speech[16_000:32_000], loss=0.2)
    loudest = np.abs(heard(both.live_decoder(depth_ms=40), on_time(packets), 1.2)).max()
    decoder, rng, clock, peak = both.live_decoder(depth_ms=40, announced=True), np.random.default_rng(3), 0.0, 0.0
    for data in damaged(packets[30], 200):
        clock += 0.02
        peak = max(peak, np.abs(decoder.push(data, clock)).max(initial=0))
    for packet in packets:
        head, body = packet[:12], bytearray(packet[12:])
        body[rng.integers(len(body))] = rng.integers(256)
        clock += 0.02
        peak = max(peak, np.abs(decoder.push(head + bytes(body), clock)).max(initial=0))
    assert np.isfinite(peak)
    assert peak <= max(1.0, loudest)


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"frames": 4}, {"loss": -1}, {"reach_ms": 10}, {"frames": 1.5}, {"copy_level": 9}]
)
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        LiveSettings(**options)


def test_a_report_of_loss_brings_keys_and_copies(both, speech):
    encoder = both.live_encoder(16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=7)
    calm = encoder.push(speech[16_000:32_000])
    encoder.report(0.2, 3)
    rough = encoder.push(speech[16_000:32_000])
    coder = PayloadCoder(both.model)
    modes = [coder.unpack(wire.unpack_rtp(packet).payload, None) for packet in rough]
    assert all(found.mode.alone for found in modes)
    assert sum(bool(found.copies) for found in modes) >= 20
    assert len(calm) == len(rough)


def test_reports_forget_old_bursts(both, speech):
    packets = sent(both, np.tile(speech, 2)[:112_000])
    decoder = both.live_decoder(depth_ms=0)
    lost = [at for at in range(len(packets)) if at in (45, 46, 47, 48, 60)]
    reports = []
    for at, packet in enumerate(packets):
        decoder.push(None if at in lost else packet, 0.02 * at)
        reports.append(decoder.report())
    assert reports[46].burst == 0  # they may still come
    assert (reports[80].burst, reports[80].lost_share) == (4, 5 / 71)
    assert (reports[-1].burst, reports[-1].lost_share) == (0, 0)


def test_packets_out_of_order_are_not_reported_as_lost(both, speech):
    packets = on_time(sent(both, speech[:32_000]))
    mixed = [(time + 0.02 * (4 if at % 5 == 1 else 0), packet) for at, (time, packet) in enumerate(packets)]
    decoder = both.live_decoder()
    heard(decoder, mixed, 2.2)
    assert (decoder.report().burst, decoder.report().lost_share) == (0, 0)


def test_copies_follow_reports_up_and_down_again(speech):
    codec = nacre.load()
    encoder, coder = codec.live_encoder(16_000, bitrate_kbps=6.0, source=7), PayloadCoder(codec.model)

    def copied() -> set[tuple[int, int]]:
        """Reach and level of the copies that half a second gets."""
        read = [coder.unpack(wire.unpack_rtp(packet).payload, None) for packet in encoder.push(speech[16_000:24_000])]
        return {(found.reach, found.copies[-1].level) for found in read[16:] if found.copies}

    encoder.report(0.1, 7)
    assert copied() == {(6, 2)}
    encoder.report(0.02, 1)
    assert copied() == {(1, 0)}
    encoder.report(0.0, 0)
    assert not copied()


def test_no_one_waits_for_copies_that_come_no_more(both, speech):
    encoder = both.live_encoder(
        16_000, bitrate_kbps=float(both.bundle.rates_kbps[1]), source=7, loss=0.02, reach_ms=260
    )
    packets = encoder.push(speech[:64_000])
    encoder.report(0.0, 0)
    packets += encoder.push(speech[:64_000])
    decoder, depths = both.live_decoder(), []
    for at, packet in enumerate(packets):
        decoder.push(None if at in (40, 380) else packet, 0.02 * at)
        depths.append(decoder.depth_ms)
    assert depths[180] > depths[40] + 100
    assert max(depths[380:]) <= depths[379]


def test_a_line_that_becomes_slow_is_followed(both, speech):
    """A second later from one packet to the next: after some that come too late the rest is heard."""
    packets = sent(both, speech[16_000:64_000])
    arrivals = [(time + (1.5 if at >= 40 else 0), packet) for at, (time, packet) in enumerate(on_time(packets))]
    decoder = both.live_decoder(depth_ms=40)
    heard(decoder, arrivals, 5.0)
    assert decoder.stats.played >= len(packets) - 20
