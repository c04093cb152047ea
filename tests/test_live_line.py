"""Lines that are made up, pipes, and a call over UDP."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from itertools import islice

import numpy as np
import pytest
import soundfile as sf

from nacre.codec.live import LiveSettings
from nacre.codec.playout import Clock
from nacre.core.errors import AudioError, StreamError, UsageError
from nacre.link import network
from nacre.link.line import Line, arrivals, call
from nacre.link.pipes import PcmReader, decode_pipe, encode_pipe


def kbps(codec) -> float:
    return float(codec.bundle.rates_kbps[1])


@pytest.mark.parametrize(("loss", "burst"), [(0.0, 1), (0.1, 1), (0.3, 1), (0.2, 3), (0.1, 5)])
def test_a_line_loses_its_share(loss, burst):
    lost = np.array([delay is None for delay in islice(arrivals(Line(loss, burst, seed=1)), 40_000)])
    assert abs(lost.mean() - loss) < 0.02
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], lost, [0]]))))[::2]
    if burst > 1:
        assert abs(runs.mean() - burst) < 0.3


@pytest.mark.parametrize("options", [{"loss": 2}, {"burst": 0}, {"delay_ms": -1}, {"loss": 0.9, "burst": 2}])
def test_lines_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        Line(**options)


def test_a_call_is_as_long_as_what_was_said_and_the_same_again(both, speech):
    wave = speech[16_000:48_000]
    line, settings = Line(0.2, 2, jitter_ms=20, drift_ppm=200, seed=4), LiveSettings(kbps(both), loss=0.2)
    first, again = (call(both, wave, 16_000, settings, line) for _ in range(2))
    assert first.wave.shape == wave.shape
    assert np.array_equal(first.wave, again.wave)
    assert 0 < first.stats.lost <= first.sent - first.arrived  # those at the end are never missed
    assert first.stats.restored > 0


def test_a_clean_call_sounds_like_the_file(nacre_model, speech):
    """Same symbols, same sound: with one frame a packet it differs by where the gain may change, so not in samples."""
    wave = speech[:48_000]
    found = call(nacre_model, wave, 16_000, LiveSettings(6.0), Line(), depth_ms=0.0)
    (whole,), _ = nacre_model.decode(nacre_model.encode(wave, 16_000, bitrate_kbps=6.0))
    error, before = np.square(found.wave - whole).mean(), np.square(whole).mean()
    assert error < before
    assert found.latency_ms == 50 + 60


@pytest.fixture(scope="module")
def nacre_model():
    import nacre

    return nacre.load()


@pytest.mark.parametrize("wav", [False, True])
def test_pipes_give_back_what_they_were_given(both, speech, wav):
    wave, source = speech[16_000:32_000], io.BytesIO()
    if wav:
        sf.write(source, wave, 16_000, format="WAV", subtype="PCM_16")
    else:
        source.write((wave * 32768).astype("<i2").tobytes())
    source.seek(0)
    packets, out = io.BytesIO(), io.BytesIO()
    assert encode_pipe(both, source, packets, 16_000, LiveSettings(kbps(both))) > 0
    packets.seek(0)
    stats = decode_pipe(both, packets, out, 16_000, wav=wav)
    assert stats.lost == stats.concealed == 0
    out.seek(0)
    if wav:
        assert out.read(44)[:4] == b"RIFF"
    samples = np.frombuffer(out.read(), "<i2")
    assert len(wave) <= len(samples) < len(wave) + 960
    assert samples.any()


def test_first_packet_comes_while_the_pipe_is_open(both, speech):
    class Open(io.RawIOBase):
        """Twenty pieces; whoever asks for the last must have written before."""

        left, target = 20, io.BytesIO()

        def read(self, size=-1):
            if size == 4:
                return b"\0\0\0\0"
            self.left -= 1
            assert self.left > 1 or self.target.getvalue()
            return b"\1\2" * 320 if self.left else b""

    source = Open()
    encode_pipe(both, source, source.target, 16_000, LiveSettings(kbps(both)))


@pytest.mark.parametrize("data", [b"RIFF", b"RIFF\0\0\0\0WAVEdata", b"RIFF\0\0\0\0WAVEfmt \2\0\0\0ab"])
def test_wavs_that_are_none_end_in_an_error_or_nothing(data):
    with contextlib.suppress(AudioError):
        assert list(PcmReader(io.BytesIO(data), 16_000).pieces()) == []


def test_a_pipe_that_ends_inside_a_packet_says_so(both):
    with pytest.raises(StreamError):
        decode_pipe(both, io.BytesIO(b"\0\5abc"), io.BytesIO(), 16_000)


@pytest.mark.parametrize("text", ["here:", "here:0", "a:b", "here:70000"])
def test_addresses_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        network.address_of(text)


def test_two_ends_talk_over_udp(both, speech):
    """A second of speech, at its pace, over a port that is free."""
    said, heard, lines = speech[16_000:28_000], [], []
    quick = LiveSettings(kbps(both))

    async def talk() -> object:
        loop = asyncio.get_running_loop()
        probe, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        port = probe.get_extra_info("sockname")[1]
        probe.close()
        await asyncio.sleep(0)
        at = ("127.0.0.1", port)
        listening = asyncio.create_task(
            network.receive(both, at, 16_000, heard.append, lines.append, idle_s=0.5, seconds=20)
        )
        await asyncio.sleep(0.1)
        await network.send(both, iter([said]), 16_000, at, quick, Line(delay_ms=0), lines.append)
        return await listening

    decoder = asyncio.run(talk())
    assert decoder.stats.received > 30
    assert sum(map(len, heard)) >= 8000
    assert any("kb/s" in line for line in lines)


def test_a_receiver_that_is_stopped_keeps_what_it_heard(both, speech):
    """Packets that all wait at once, some seconds of nothing, and Ctrl-C."""
    packets, written, lines = both.live_encoder(16_000, bitrate_kbps=kbps(both)).push(speech[16_000:32_000]), [], []

    async def stop() -> object:
        loop = asyncio.get_running_loop()
        probe, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        port = probe.get_extra_info("sockname")[1]
        probe.close()
        await asyncio.sleep(0)
        listening = asyncio.create_task(
            network.receive(both, ("127.0.0.1", port), 16_000, written.append, lines.append)
        )
        await asyncio.sleep(0.1)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port))
        for packet in packets:
            transport.sendto(packet)
        while not written:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        listening.cancel()
        transport.close()
        return await listening

    decoder = asyncio.run(stop())
    assert lines[0].startswith("listening at 127.0.0.1:")
    assert lines[-1] == "stopped"
    assert decoder.stats.received == len(packets)


def test_sound_made_up_after_the_last_packet_is_not_written():
    written = []
    idle = network._Idle(written.append)
    for number, quiet in enumerate([False, True, True, False, True]):
        idle.take(np.full(2, number), quiet)
    assert [wave[0] for wave in written] == [0, 1, 2, 3]


def test_the_wait_is_told_from_the_fastest_packets():
    """Also where the first packet was slow, so that the clock began late."""
    clock = Clock()
    clock.start(0, 0.5)
    for frame in range(1, 40):
        clock.arrived(frame, 0.02 * frame)
        clock.move(0.0, True, False)
    assert clock.depth_s < 0
    assert 0 <= clock.wait_s <= 0.5


def test_the_wait_goes_down_again_though_nobody_pauses():
    clock = Clock()
    clock.start(0, 0.0)
    for frame in range(8000):
        clock.arrived(frame, 0.02 * frame + (0.2 if frame < 1000 and frame % 10 == 0 else 0))
        clock.move(0.0, pause=False, late=False)
        assert frame < 900 or clock.depth_s < 0.25
        assert not 500 < frame < 1000 or clock.depth_s > 0.15
    assert clock.depth_s < 0.05


def test_commands_of_a_live_pipe(run, both_model, speech):
    rate = ["--bitrate", "1", "--model", both_model]
    done = run("stream", "encode", *rate, stdin=(speech[16_000:32_000] * 32768).astype("<i2").tobytes())
    assert done.rc == 0, done.stderr
    back = run("stream", "decode", "--model", both_model, stdin=done.stdout)
    assert back.rc == 0, back.stderr
    assert len(back.stdout) >= 32_000


def test_simulate_writes_what_is_heard(nacre, both_model, speech, tmp_path):
    sf.write(tmp_path / "in.wav", speech[16_000:48_000], 16_000)
    options = ["--loss", "20", "--burst", "3", "--jitter", "10", "--bitrate", "1", "--model", both_model]
    done = nacre("simulate", "in.wav", "-o", "out.wav", *options)
    assert done.rc == 0, done.stderr
    assert "restored" in done.stderr
    assert sf.info(tmp_path / "out.wav").frames == 32_000
    assert nacre("simulate", "in.wav", "-o", "out.wav", *options).rc != 0
    assert nacre("simulate", "in.wav", "-o", "b.wav", "--loss", "200", "--model", both_model).rc == 2


def test_evaluate_tells_quality_over_loss(nacre, both_model, speech, tmp_path):
    (tmp_path / "speech").mkdir()
    sf.write(tmp_path / "speech" / "a.wav", speech[16_000:48_000], 16_000)
    options = ["--loss", "0,20", "--burst", "3", "--metrics", "logmel_db", "--model", both_model, "--json", "out.json"]
    assert nacre("evaluate", "speech", *options).rc == 2  # several bitrates
    done = nacre("evaluate", "speech", *options, "--bitrates", "1")
    assert done.rc == 0, done.stderr
    points = json.loads((tmp_path / "out.json").read_text())
    assert {(point["loss"], point["burst"]) for point in points} == {(0.0, 1.0), (0.2, 3.0)}
    assert {point["system"] for point in points} >= {"nacre", "nacre, no copies", "nacre, silence for lost frames"}
    found = {(point["system"], point["loss"]): point["figures"]["logmel_db"] for point in points}
    assert found["nacre", 0.0] == pytest.approx(found["nacre, silence for lost frames", 0.0], rel=0.01)
    assert found["nacre", 0.2] < found["nacre, silence for lost frames", 0.2]
