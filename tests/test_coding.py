"""The two priors of one model in files: both decode to the same sound, each names itself, damage stays in its group."""

from __future__ import annotations

import hashlib
import shutil
from itertools import pairwise

import numpy as np
import pytest
from conftest import small_prior
from test_context import speechlike

import nacre
from nacre.codec.codec import Codec
from nacre.codec.fixed_size import MIN_PACKET_BYTES
from nacre.codec.packets import CONTEXT, PRIORS, SIDE_BY_SIDE, STATIC, Group, PacketCoder
from nacre.core.errors import BundleError, StreamError, UsageError
from nacre.format import file as container
from nacre.format.file import HEADER_BYTES, Packet
from nacre.io import audio
from nacre.model import bundle as bundles


def groups_of(codec: Codec, data: bytes) -> list[Group | StreamError]:
    return [held for _, _, groups in codec.decoder(codec.parse(data)).groups() for held in groups]


def test_both_priors_give_the_same_sound(both, tiny, speech):
    context, static = (both.encode(speech, 16_000, quality=60, prior=prior) for prior in PRIORS)
    assert context != static
    assert static == tiny.encode(speech, 16_000, quality=60)
    wanted, _ = tiny.decode(static)
    for data in (context, static):
        found, rate_hz = both.decode(data)
        assert rate_hz == 16_000
        np.testing.assert_array_equal(found, wanted)


def test_the_mark_of_a_file_names_its_prior(both, tiny, speech):
    context, static = (both.encode(speech[:4000], 16_000, quality=0, prior=prior) for prior in PRIORS)
    marks = [container.unpack_header(data).fingerprint for data in (context, static)]
    assert marks == [both.bundle.fingerprint, both.bundle.static_fingerprint]
    assert marks[1] == tiny.bundle.fingerprint != marks[0]
    with pytest.raises(StreamError, match="decode with the model"):
        tiny.decode(context)


def test_unknown_prior(both):
    with pytest.raises(UsageError, match="context or static"):
        both.encode(np.zeros(400, np.float32), 16_000, prior="oracle")


def test_a_changed_context_prior_is_another_model(both_model, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(both_model, folder)
    small_prior(1, levels=4, dims=8, used=6, blocks=2).save(folder / bundles.CONTEXT)
    with pytest.raises(BundleError, match=r"context\.safetensors"):
        bundles.load(folder)
    (folder / bundles.CONTEXT).unlink()
    with pytest.raises(BundleError, match=r"context\.safetensors"):
        bundles.load(folder)


@pytest.mark.parametrize("sizes", [{"levels": 3, "dims": 8}, {"levels": 4, "dims": 9}])
def test_a_context_prior_of_another_size(both_model, tmp_path, sizes):
    folder = tmp_path / "other"
    shutil.copytree(both_model, folder)
    small_prior(used=6, blocks=2, **sizes).save(folder / bundles.CONTEXT)
    plain = bundles.load(both_model)
    facts = plain.metadata
    bundles.save(folder, "other", plain.kind, plain.config, facts)
    with pytest.raises(BundleError, match="context prior"):
        nacre.load(folder)


def test_many_groups_of_several_channels_come_back_in_order(both, speech):
    wave = np.stack([speech[: 16_000 * 5], speech[::-1][: 16_000 * 5], 0.3 * speech[: 16_000 * 5]])
    wave[1, 20_000:40_000] = 0
    data = both.encode(wave, 16_000, quality=30)
    contents = both.parse(data)
    assert len(contents.packets) > SIDE_BY_SIDE
    alone = PacketCoder.of(both.model)
    stream = both.decoder(contents)
    for index, (packet, held) in enumerate(zip(contents.packets, groups_of(both, data), strict=True)):
        (one,) = alone.unpack([packet], [stream.group_frames(index // 3)])
        np.testing.assert_array_equal(one.symbols, held.symbols)
        assert (one.level, one.code) == (held.level, held.code)
    assert both.decode(data)[0].shape == wave.shape


def test_damage_stays_in_its_group(both, speech):
    data = bytearray(both.encode(speech[:32_000], 16_000, quality=100))
    good, rng = groups_of(both, bytes(data)), np.random.default_rng(0)
    edges = np.cumsum([HEADER_BYTES, *(len(container.pack_packet(p)) for p in both.parse(bytes(data)).packets)])
    for index, (start, stop) in enumerate(pairwise(edges.tolist())):
        if stop - start == container.HEAD_BYTES:
            continue  # silent
        hurt = data.copy()
        hurt[rng.integers(start + 6, stop)] ^= 1 << rng.integers(8)
        found = groups_of(both, bytes(hurt))
        assert isinstance(found[index], StreamError)
        for other in set(range(len(good))) - {index}:
            np.testing.assert_array_equal(found[other].symbols, good[other].symbols)
        assert len(both.verify(both.parse(bytes(hurt)))) == 1


def test_any_payload_is_symbols_or_an_error(both):
    coding, rng = PacketCoder.of(both.model), np.random.default_rng(1)
    symbols = speechlike(both.model.context_prior, 10, rng)
    good = coding.pack(symbols, 2, 5)
    packets = [Packet(rng.integers(4), rng.bytes(rng.integers(1, 300)), 7) for _ in range(80)]
    packets[3] = Packet(9, b"1234", 7)
    packets[4] = Packet(1, b"\1" * 5000, 7)
    packets[40] = good
    found = coding.unpack([*packets, None], [10] * 81)
    np.testing.assert_array_equal(found[40].symbols, symbols)
    assert all(isinstance(held, StreamError) for index, held in enumerate(found) if index != 40)
    assert "below 4" in str(found[3])
    assert "has at most" in str(found[4])


@pytest.mark.parametrize("prior", PRIORS)
def test_costs_are_what_is_paid(both, prior):
    coding, rng = PacketCoder.of(both.model, prior), np.random.default_rng(2)
    reach = 20 if prior == CONTEXT else 3
    symbols = np.clip(speechlike(both.model.context_prior, 30, rng, 1.0), -reach, reach)
    if prior == STATIC:
        symbols = np.minimum(np.abs(symbols), both.model.static_prior.limits(1))
    costs = coding.costs(symbols, 1)
    assert costs.shape == symbols.shape
    paid = 8 * (len(coding.pack(symbols, 1, 0).payload) - 1)
    assert costs.sum() - 1 <= paid <= costs.sum() * 1.01 + 32


def test_pieces_of_any_size_make_the_same_file(both, speech):
    live, packets = both.encoder(16_000, quality=60), []
    for piece in np.split(speech[:30_000], [1, 700, 5000, 20_123]):
        packets += live.push(piece)
    packets += live.flush()
    whole = both.parse(both.encode(speech[:30_000], 16_000, quality=60)).packets
    assert packets == whole


def test_golden_bytes_of_the_context_prior(both):
    packet = PacketCoder.of(both.model).pack(speechlike(both.model.context_prior, 10, np.random.default_rng(3)), 2, 7)
    assert hashlib.sha256(container.pack_packet(packet)).hexdigest()[:16] == "321be80c2f768ec4"


@pytest.mark.slow
def test_command_line(run, both_model, speech, tmp_path):
    audio.write(tmp_path / "talk.wav", speech[None, :40_000], 16_000)
    sizes = []
    for prior in PRIORS:
        done = run(
            "encode", "talk.wav", "-o", f"{prior}.nacre", "--model", both_model, "--quality", 50, "--prior", prior
        )
        assert done.rc == 0, done.stderr
        for command in (("info", f"{prior}.nacre"), ("verify", f"{prior}.nacre")):
            found = run(*command, "--model", both_model)
            assert found.rc == 0, found.stderr
        assert prior in run("info", f"{prior}.nacre", "--model", both_model).stdout.decode()
        assert run("decode", f"{prior}.nacre", "-o", f"{prior}.wav", "--model", both_model).rc == 0
        sizes.append((tmp_path / f"{prior}.wav").read_bytes())
    assert sizes[0] == sizes[1]
    wrong = run("encode", "talk.wav", "-o", "x.nacre", "--model", both_model, "--prior", "none")
    assert (wrong.rc, "context or static" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("size", [64, 80, 200])
def test_packets_of_one_size(both, speech, size):
    wave = np.stack([speech[:30_000], np.zeros(30_000, np.float32)])
    wave[0, 12_000:20_000] = 0
    data = both.encode(wave, 16_000, packet_bytes=size)
    contents = both.parse(data)
    sizes = {len(container.pack_packet(packet)) for packet in contents.packets}
    assert sizes == {size}
    assert len(data) == HEADER_BYTES + size * len(contents.packets)
    found, _ = both.decode(data)
    assert found.shape == wave.shape
    assert not both.verify(contents)
    levels = [packet.level for packet in contents.packets[::2]]
    assert max(levels) == 3 if size == 200 else min(levels) < 3
    live, packets = both.encoder(16_000, 2, packet_bytes=size), []
    for piece in np.split(wave, [77, 9000], axis=1):
        packets += live.push(piece)
    assert [*packets, *live.flush()] == contents.packets


def test_packets_of_one_size_keep_what_a_level_keeps(tiny, speech):
    """A size that always holds the highest level gives the sound of the highest level."""
    roomy, best = tiny.encode(speech, 16_000, packet_bytes=400), tiny.encode(speech, 16_000, quality=100)
    np.testing.assert_array_equal(tiny.decode(roomy)[0], tiny.decode(best)[0])


@pytest.mark.parametrize("settings", [{"packet_bytes": 63}, {"packet_bytes": 9000}, {"packet_bytes": 99, "quality": 3}])
def test_packets_of_an_impossible_size(both, settings):
    with pytest.raises(UsageError, match="packet_bytes"):
        both.encode(np.zeros(400, np.float32), 16_000, **settings)


@pytest.mark.parametrize("sound", ["noise", "signs", "tone"])
def test_the_smallest_size_holds_any_sound(sound):
    rng, codec = np.random.default_rng(0), nacre.load()
    waves = {
        "noise": 0.1 * rng.standard_normal(32_000),
        "signs": np.sign(rng.standard_normal(32_000)),
        "tone": np.sin(0.3 * np.arange(32_000)),
    }
    data = codec.encode(waves[sound], 16_000, packet_bytes=MIN_PACKET_BYTES)
    assert {len(packet.payload) for packet in codec.parse(data).packets} == {MIN_PACKET_BYTES - 5}
