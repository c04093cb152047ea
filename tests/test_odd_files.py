"""Broken and unusual sound files: all that can be read is read in its place, and what is missing is told of."""

from __future__ import annotations

import os
import struct
import sys

import numpy as np
import pytest
import soundfile as sf
from odd import (
    aiff,
    chunk,
    encoded,
    flac_frames,
    form,
    granule,
    ogg_flac,
    page_of,
    pages,
    pcm,
    rf64,
    riff,
    save,
    sealed,
    voice,
    wave64,
)

from nacre.core.errors import AudioError, UsageError
from nacre.io import ogg
from nacre.io.audio import AudioReader, read_with_facts, write
from nacre.io.raw import FORMATS, Raw
from nacre.io.sniff import foreign

ONE = voice(1.0)
STEPS = np.frombuffer(pcm(ONE), "<i2") / np.float32(32768)


def whole(path, wanted=STEPS):
    """The file gives these very samples and lacks nothing."""
    found = read_with_facts(path)
    assert found.loss is None, found.loss
    np.testing.assert_array_equal(found.wave, np.atleast_2d(wanted))


def lossy(path, samples, *words):
    """The file gives so many samples, and says what is missing."""
    found = read_with_facts(path)
    assert found.wave.shape[1] == samples
    assert found.loss is not None
    for word in words:
        assert word in str(found.loss)
    return found.wave


# WAV and its kin

ID3 = b"ID3\3\0\0\0\0\1\0" + bytes(128)
TEXT = chunk(b"LIST", b"INFOISFT\4\0\0\0odd\0")
SIZES = [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFF024, 0xFFFFFF00]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("outer", [0, 0xFFFFFFFF, None])
def test_wav_without_sizes_is_read_to_its_end(tmp_path, size, outer):
    for before in (b"", TEXT, chunk(b"bext", bytes(602)), chunk(b"JUNK", bytes(28))):
        whole(save(tmp_path, "a.wav", riff(before, form(), chunk(b"data", pcm(ONE), size), size=outer)))


def test_wav_whose_sizes_were_written_too_early(tmp_path):
    """A recorder brings its sizes up to date now and then, and dies in between."""
    data = riff(form(), chunk(b"data", pcm(ONE), 8000), size=36 + 4000)
    whole(save(tmp_path, "a.wav", data))


def test_sizes_that_agree_with_each_other_and_not_with_the_file(tmp_path):
    """So long a tail is no tag: the recorder brought both sizes up to date, and went on."""
    for size in (8, 8000, 16_384):
        whole(save(tmp_path, "a.wav", riff(form(), chunk(b"data", pcm(ONE), size), size=36 + size)))
    for size in (4000, 16_000):
        whole(save(tmp_path, "a.aiff", aiff(pcm(ONE, ">"), size // 2, size + 8)))


def test_an_empty_data_chunk_before_another(tmp_path):
    whole(save(tmp_path, "a.wav", riff(form(), chunk(b"data", b""), chunk(b"data", pcm(ONE)))))


def test_another_container_behind_a_wav_is_told_of(tmp_path):
    for other in (encoded(ONE, "FLAC"), encoded(ONE, "OGG", "VORBIS"), encoded(ONE, "AIFF")):
        lossy(save(tmp_path, "a.wav", riff(form(), chunk(b"data", pcm(ONE))) + other), 16_000, "behind it")


@pytest.mark.parametrize("container", ["AU", "CAF"])
def test_au_and_caf_without_sizes_or_with_wrong_ones(tmp_path, container):
    data = encoded(ONE, container)
    at, width = (8, 4) if container == "AU" else (data.index(b"data") + 4, 8)
    wave = read_with_facts(save(tmp_path, "a.snd", data)).wave
    for stated in (b"\0" * width, b"\xff" * width, (6000).to_bytes(width, "big")):
        whole(save(tmp_path, "a.snd", data[:at] + stated + data[at + width :]), wave)
    lossy(save(tmp_path, "a.snd", data[:-8000]), 12_000, "cut off", "bytes of sound")
    if container == "CAF":
        whole(save(tmp_path, "a.snd", data + b"free" + (5000).to_bytes(8, "big") + bytes(5000)), wave)


def test_wav_that_is_larger_than_its_file_is_cut(tmp_path):
    data = riff(form(), chunk(b"data", pcm(ONE)))
    wave = lossy(
        save(tmp_path, "a.wav", data[: 44 + 2 * 7000 + 1]), 7000, "cut off after 0:00.4", "14001 of 32000 bytes"
    )
    np.testing.assert_array_equal(wave[0], STEPS[:7000])


def test_wav_with_an_empty_data_chunk_has_no_samples(tmp_path):
    for rest in (b"", TEXT, TEXT + chunk(b"id3 ", bytes(10))):
        with pytest.raises(AudioError, match="no samples"):
            read_with_facts(save(tmp_path, "a.wav", riff(form(), chunk(b"data", b""), rest)))


@pytest.mark.parametrize("even", [True, False])
def test_wav_with_chunks_around_it(tmp_path, even):
    odd = chunk(b"LIST", b"INFOIART\3\0\0\0abc", even=even), chunk(b"note", b"12345", even=even)
    data = pcm(ONE)
    for chunks in (
        (*odd, form(), chunk(b"data", data), *odd),
        (form(), *odd, chunk(b"fact", bytes(4)), chunk(b"data", data)),
        (chunk(b"data", data), form()),
    ):
        whole(save(tmp_path, "a.wav", riff(*chunks)))


@pytest.mark.parametrize("even", [True, False])
def test_odd_number_of_bytes_of_sound(tmp_path, even):
    eight = np.rint(127 * ONE[:8001] + 128).astype(np.uint8)
    data = riff(form(bits=8), chunk(b"data", eight.tobytes(), even=even), TEXT)
    whole(save(tmp_path, "a.wav", data), (eight - np.float32(128)) / 128)


def test_several_data_chunks_are_one_sound(tmp_path):
    data = pcm(ONE)
    for between in (b"", TEXT):
        chunks = chunk(b"data", data[:6000]), between, chunk(b"data", data[6000:20_000]), chunk(b"data", data[20_000:])
        whole(save(tmp_path, "a.wav", riff(form(), *chunks)))


def test_bytes_behind_that_are_no_chunk_are_no_sound(tmp_path):
    for junk in (b"\0", bytes(500), b"\xff\x03\x10" * 99, b"TAG" + bytes(125)):
        whole(save(tmp_path, "a.wav", riff(form(), chunk(b"data", pcm(ONE))) + junk))


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_rf64_and_bw64(tmp_path, name):
    data = pcm(ONE)
    for stated in (len(data), 0, (1 << 64) - 1):
        whole(save(tmp_path, "a.wav", rf64(data, stated, name)))
    whole(save(tmp_path, "a.wav", rf64(data, 0, name, len(data))))
    lossy(save(tmp_path, "a.wav", rf64(data, len(data) + 5000, name)), 16_000, "32000 of 37000 bytes")


def test_rf64_cut_anywhere_is_no_crash(tmp_path):
    data = rf64(pcm(ONE), 32_000)
    for size in range(1, 81):  # up to the first sample
        with pytest.raises(AudioError):
            read_with_facts(save(tmp_path, "a.wav", data[:size]))


def test_big_endian_wav(tmp_path):
    data = pcm(ONE, ">")
    for size in (None, 0, 0xFFFFFFFF):
        whole(save(tmp_path, "a.wav", riff(form(order=">"), chunk(b"data", data, size, ">"), name=b"RIFX")))


@pytest.mark.parametrize("stated", [24, 0, 0xFFFFFFFF + 24, (1 << 63) - 1, (1 << 64) - 1])
def test_wave64_without_sizes(tmp_path, stated):
    whole(save(tmp_path, "a.w64", wave64(pcm(ONE), stated)))
    whole(save(tmp_path, "a.w64", wave64(pcm(ONE), stated, (b"LIST", b"abc"))))


def test_wave64_whole_and_cut(tmp_path):
    data = wave64(pcm(ONE), 32_024)
    whole(save(tmp_path, "a.w64", data))
    lossy(save(tmp_path, "a.w64", data[:-8000]), 12_000, "24000 of 32000 bytes")


@pytest.mark.parametrize("kind", [b"AIFF", b"AIFC"])
def test_aiff(tmp_path, kind):
    data, name = pcm(ONE, ">"), chunk(b"NAME", b"abc", None, ">")
    for frames, stated in ((16_000, None), (0, 0), (0, 8), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0x7FFFFFFF), (0, None)):
        whole(save(tmp_path, "a.aiff", aiff(data, frames, stated, kind)))
        whole(save(tmp_path, "a.aiff", aiff(data, frames, stated, kind, name)))
    lossy(save(tmp_path, "a.aiff", aiff(data, 16_000, None, kind)[:-2000]), 15_000, "30000 of 32000 bytes")


def test_joined_files_are_read_one_after_the_other(tmp_path):
    two = voice(0.7, seed=1)
    for container, subtype in (("WAV", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16")):
        first, second = encoded(ONE, container, subtype), encoded(two, container, subtype)
        found = read_with_facts(save(tmp_path, "a.bin", first + second + first))
        parts = [sf.read(save(tmp_path, "b.bin", data), dtype="float32")[0] for data in (first, second, first)]
        np.testing.assert_array_equal(found.wave[0], np.concatenate(parts))
        assert found.loss is None


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_joined_files_of_two_kinds_are_not_passed_over(tmp_path, suffix):
    container = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF"}[suffix]
    first = encoded(ONE, container)
    for other in (encoded(voice(1.0, 2), container), encoded(voice(1.0, rate_hz=32_000), container, rate_hz=32_000)):
        found = read_with_facts(save(tmp_path, f"a.{suffix}", first + other))
        assert found.wave.shape[0] == 1
        assert abs(found.wave.shape[1] - 16_000) <= 1152
        assert "another recording" in str(found.loss)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_damaged_floats_are_silence_and_set_no_scale(tmp_path, value):
    wave = ONE.copy()
    wave[8000] = value
    data = riff(form(1, bits=32, tag=3), chunk(b"data", wave.astype("<f4").tobytes()))
    found = lossy(save(tmp_path, "a.wav", data), 16_000, "1 samples from 0:00.5 on that are no sound")
    wave[8000] = 0
    np.testing.assert_array_equal(found[0], wave)


# floats that are no floats


@pytest.mark.parametrize(("bits", "scale"), [(16, 32768), (24, 1 << 23), (32, 1 << 31)])
@pytest.mark.parametrize("container", ["WAV", "AIFF", "W64", "CAF"])
def test_floats_on_the_scale_of_integers_are_scaled(tmp_path, bits, scale, container):
    found = read_with_facts(save(tmp_path, "a.wav", encoded(ONE * scale, container, "FLOAT")))
    np.testing.assert_allclose(found.wave[0], ONE, rtol=1e-6)
    assert f"{bits}-bit numbers" in found.notes[0]


def test_quiet_whole_numbers_are_scaled_and_overshoots_are_not(tmp_path):
    found = read_with_facts(save(tmp_path, "a.wav", encoded(np.rint(ONE * 20), "WAV", "FLOAT")))
    assert np.abs(found.wave).max() < 1e-3
    loud = read_with_facts(save(tmp_path, "a.wav", encoded(ONE * 20, "WAV", "DOUBLE")))
    np.testing.assert_array_equal(loud.wave[0], ONE * 20)
    assert loud.notes == []


# Ogg


def edited(data: bytes, change) -> bytes:
    """The file after `change(pages)`, check values made right."""
    found = pages(data)
    change(found)
    return b"".join(sealed(page) for page in found)


OGGS = [("VORBIS", 0), ("OPUS", 312)]
LONG = voice(6.0, rate_hz=48_000)


def no_end(found):
    found[-1][5] &= ~ogg.END


@pytest.mark.parametrize(("subtype", "lead"), OGGS)
def test_ogg_without_end_flag_is_whole(tmp_path, subtype, lead):
    data = encoded(LONG, "OGG", subtype, 48_000)
    wanted = read_with_facts(save(tmp_path, "a.ogg", data)).wave
    assert wanted.shape == (1, 288_000)
    whole(save(tmp_path, "a.ogg", edited(data, no_end)), wanted)
    for change in (1, -200, 300):  # the position is anywhere in the last packet, or behind it

        def moved(found, change=change):
            no_end(found)
            found[-1][6:14] = (granule(found[-1]) - change).to_bytes(8, "little")

        found = read_with_facts(save(tmp_path, "a.ogg", edited(data, moved)))
        assert abs(found.wave.shape[1] - 288_000) <= 960
        assert found.loss is None


@pytest.mark.parametrize(("subtype", "lead"), OGGS)
def test_ogg_cut_anywhere_keeps_every_whole_page(tmp_path, subtype, lead):
    data = encoded(LONG, "OGG", subtype, 48_000)
    wanted, edges = read_with_facts(save(tmp_path, "a.ogg", data)).wave, np.cumsum([len(page) for page in pages(data)])
    ends = [granule(page) - lead for page in pages(data)]
    for cut in np.linspace(edges[2] + 1, len(data) - 1, 12).astype(int):
        last = int(np.searchsorted(edges, cut, "right")) - 1
        wave = lossy(save(tmp_path, "a.ogg", data[:cut]), ends[last], "cut off after")
        np.testing.assert_allclose(wave, wanted[:, : ends[last]], atol=1e-4)
    found = read_with_facts(save(tmp_path, "a.ogg", data[: edges[-2]]))  # between two pages nobody can tell
    assert found.wave.shape[1] == ends[-2]
    assert found.loss is None


def test_ogg_cut_inside_its_first_page_is_no_sound(tmp_path):
    data = encoded(voice(0.2), "OGG", "VORBIS")
    for cut in range(1, len(pages(data)[0]) + 1):
        with pytest.raises(AudioError, match="not a sound file"):
            read_with_facts(save(tmp_path, "a.ogg", data[:cut]))


@pytest.mark.parametrize(("subtype", "lead"), OGGS)
def test_a_bad_page_is_silence_in_its_place(tmp_path, subtype, lead):
    data = encoded(LONG, "OGG", subtype, 48_000)
    wanted, found = read_with_facts(save(tmp_path, "a.ogg", data)).wave, pages(data)
    for index in (3, 5, len(found) - 2):
        start, stop = granule(found[index - 1]) - lead, granule(found[index]) - lead
        at = sum(map(len, found[:index]))
        bad = data[: at + 300] + bytes([data[at + 300] ^ 1]) + data[at + 301 :]
        for hurt in (bad, data[:at] + data[at + len(found[index]) :]):
            wave = lossy(save(tmp_path, "a.ogg", hurt), 288_000, "lost in 1 place")
            np.testing.assert_allclose(wave[:, : start - 2000], wanted[:, : start - 2000], atol=1e-4)
            np.testing.assert_allclose(wave[:, stop + 9600 :], wanted[:, stop + 9600 :], atol=0.02)
    at = sum(map(len, found[:2]))
    late = read_with_facts(save(tmp_path, "a.ogg", data[:at] + data[at + len(found[2]) :]))
    assert "beginning" in str(late.loss)
    stop = granule(found[2]) - lead
    np.testing.assert_allclose(
        late.wave[:, 9600:], wanted[:, stop + 9600 :][:, -late.wave.shape[1] + 9600 :], atol=0.02
    )
    bad = bytearray(data)
    bad[40] ^= 1
    assert "damaged headers" in str(read_with_facts(save(tmp_path, "a.ogg", bytes(bad))).loss)
    junk = data[: len(found[0])] + b"junk" * 9 + data[len(found[0]) :]
    whole(save(tmp_path, "a.ogg", junk), wanted)


@pytest.mark.parametrize(("subtype", "lead"), OGGS)
def test_joined_ogg(tmp_path, subtype, lead):
    data = encoded(LONG, "OGG", subtype, 48_000)
    wanted = read_with_facts(save(tmp_path, "a.ogg", data)).wave
    for two in (data + data, edited(data, no_end) + data):
        whole(save(tmp_path, "a.ogg", two), np.concatenate([wanted, wanted], 1))
    bad = bytearray(data)
    bad[30] ^= 1
    found = read_with_facts(save(tmp_path, "a.ogg", bytes(bad) + data))
    np.testing.assert_array_equal(found.wave, wanted)
    assert "first page is damaged" in str(found.loss)


def test_opus_without_rate_is_opus_own(tmp_path):
    def no_rate(found):
        at = 27 + found[0][26] + 12
        found[0][at : at + 4] = bytes(4)

    data = edited(encoded(LONG, "OGG", "OPUS", 48_000), no_rate)
    with AudioReader(save(tmp_path, "a.opus", data)) as reader:
        assert reader.rate_hz == 48_000
        assert sum(block.shape[1] for block in reader.blocks(9999)) == 288_000


@pytest.mark.parametrize("rate_hz", [1, 7999, 192_001, 0xFFFFFFFF])
def test_opus_of_a_rate_that_cannot_be(tmp_path, rate_hz):
    def change(found):
        found[0][28 + 12 : 28 + 16] = rate_hz.to_bytes(4, "little")
        sealed(found[0])
        return found

    data = edited(encoded(voice(1.0, rate_hz=48_000), "OGG", "OPUS", 48_000), change)
    assert read_with_facts(save(tmp_path, "a.opus", data)).rate_hz == 48_000


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_behind_a_tag(tmp_path, subtype):
    data = encoded(voice(1.0, rate_hz=48_000), "OGG", subtype, 48_000)
    whole(save(tmp_path, "a.ogg", ID3 + data), read_with_facts(save(tmp_path, "b.ogg", data)).wave)


def test_sound_beside_other_streams(tmp_path):
    data = encoded(LONG, "OGG", "VORBIS", 48_000)
    wanted, found = read_with_facts(save(tmp_path, "a.ogg", data)).wave, pages(data)
    other = [page_of([b"fishead\0" + bytes(56)], 0, 0, ogg.BEGIN, 99), page_of([b"", b"x"], 1, 0, ogg.END, 99)]
    whole(save(tmp_path, "a.ogg", other[0] + b"".join([found[0], other[1], *found[1:]])), wanted)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_channels_keep_their_places_there_and_back(tmp_path, channels, suffix):
    """Tones of 200, 400, ... Hz; the fourth of six and more is the low-frequency one, which the coders filter."""
    wave = np.stack([0.2 * np.sin(2 * np.pi * 200 * (c + 1) * np.arange(48_000) / 48_000) for c in range(channels)])
    write(tmp_path / f"a.{suffix}", wave.astype(np.float32), 48_000)
    inside = [0, 2, 1] if channels in (3, 5, 6, 7, 8) else [0, 1, 2]  # left, centre, right in the file
    order = pitches(sf.read(tmp_path / f"a.{suffix}", dtype="float32")[0].T[:3])
    assert order == [200 * (c + 1) for c in inside]
    back = read_with_facts(tmp_path / f"a.{suffix}").wave
    heard = pitches(back)
    assert [hz for c, hz in enumerate(heard) if c != 3] == [200 * (c + 1) for c in range(channels) if c != 3]


def pitches(wave):
    return [round(np.abs(np.fft.rfft(row[:48_000] * np.hanning(48_000))).argmax() / 200) * 200 for row in wave]


@pytest.mark.parametrize("channels", [1, 2])
def test_flac_in_ogg(tmp_path, channels):
    data = encoded(voice(3.0, channels), "FLAC")
    wanted = read_with_facts(save(tmp_path, "a.flac", data)).wave
    packed = ogg_flac(data)
    whole(save(tmp_path, "a.oga", packed), wanted)
    whole(save(tmp_path, "a.oga", packed + packed), np.concatenate([wanted, wanted], 1))
    found = lossy(save(tmp_path, "a.oga", packed[: len(packed) // 2]), 5 * 4096, "cut off after")
    np.testing.assert_array_equal(found, wanted[:, : found.shape[1]])
    bad = bytearray(packed)
    bad[len(bad) // 2] ^= 1
    found = lossy(save(tmp_path, "a.oga", bad), wanted.shape[1], "lost in 1 place")
    assert (found != wanted).any(0).sum() <= 4096


# FLAC


@pytest.fixture(scope="module")
def flac():
    return encoded(voice(4.0, 2), "FLAC")


def test_flac_cut_anywhere_keeps_every_whole_frame(tmp_path, flac):
    wanted, edges = read_with_facts(save(tmp_path, "a.flac", flac)).wave, flac_frames(flac)
    for cut in [*np.linspace(edges[1] + 1, len(flac) - 1, 14).astype(int), edges[3], edges[3] + 1]:
        frames = sum(edge <= cut for edge in edges) - 1
        wave = lossy(save(tmp_path, "a.flac", flac[:cut]), 4096 * frames, "cut off after")
        np.testing.assert_array_equal(wave, wanted[:, : wave.shape[1]])


@pytest.mark.parametrize("seed", range(6))
def test_flac_with_bad_spots_keeps_the_other_frames_in_place(tmp_path, flac, seed):
    wanted, edges, rng = (
        read_with_facts(save(tmp_path, "a.flac", flac)).wave,
        flac_frames(flac),
        np.random.default_rng(seed),
    )
    bad, hurt = bytearray(flac), set()
    for at in rng.integers(edges[0], len(flac), 1 + seed % 3).tolist():
        for byte in range(at, min(len(bad), at + int(rng.integers(1, 9)))):
            bad[byte] ^= int(rng.integers(1, 256))
            hurt.add(int(np.searchsorted(edges, byte, "right")) - 1)
    found = read_with_facts(save(tmp_path, "a.flac", bytes(bad)))
    assert found.loss is not None
    kept = [frame for frame in range(len(edges) - 1) if frame not in hurt]
    assert found.wave.shape[1] >= min(64_000, 4096 * (max(kept) + 1))
    for frame in kept:
        place = slice(4096 * frame, 4096 * (frame + 1))
        np.testing.assert_array_equal(found.wave[:, place], wanted[:, place])


def test_flac_with_bytes_missing_or_added(tmp_path, flac):
    wanted, edges = read_with_facts(save(tmp_path, "a.flac", flac)).wave, flac_frames(flac)
    for change in (flac[: edges[5] + 50] + flac[edges[7] + 50 :], flac[: edges[6]] + b"junk" * 99 + flac[edges[6] :]):
        found = read_with_facts(save(tmp_path, "a.flac", change))
        assert found.wave.shape[1] == wanted.shape[1]
        np.testing.assert_array_equal(found.wave[:, : 5 * 4096], wanted[:, : 5 * 4096])
        np.testing.assert_array_equal(found.wave[:, 8 * 4096 :], wanted[:, 8 * 4096 :])


def total(data: bytes, samples: int) -> bytes:
    """A FLAC that states so many samples."""
    return data[:21] + bytes([data[21] & 0xF0]) + struct.pack(">I", samples) + data[26:]


def test_flac_that_states_too_little(tmp_path, flac):
    wave = read_with_facts(save(tmp_path, "a.flac", flac)).wave
    for stated in (0, 1, 4096, 16_000):
        whole(save(tmp_path, "a.flac", total(flac, stated)), wave)
        whole(save(tmp_path, "a.flac", 2 * total(flac, stated)), np.concatenate([wave, wave], 1))


def test_flac_that_states_nothing_and_is_cut(tmp_path, flac):
    edges = flac_frames(flac)
    lossy(save(tmp_path, "a.flac", total(flac, 0)[: edges[-2] + 200]), 4096 * (len(edges) - 2), "cut off")


def test_flac_frames_before_a_bad_end_are_kept(tmp_path, flac):
    edges = flac_frames(flac)
    data = flac[: edges[-2]] + bytes(edges[-1] - edges[-2])
    lossy(save(tmp_path, "a.flac", data), 4096 * (len(edges) - 2), "cut off")


def test_flac_frames_that_are_missing_whole_are_told_of(tmp_path, flac):
    edges = flac_frames(flac)
    for file in (flac[: edges[1]] + flac[edges[2] :], ogg_flac(flac)):
        lost = b"".join(map(bytes, [page for index, page in enumerate(pages(file)) if index != 4]))
        data = lost if file[:4] == b"OggS" else file
        assert "missing" in str(read_with_facts(save(tmp_path, "a.flac", data)).loss)


def test_flac_without_its_head(tmp_path, flac):
    wanted, edges = read_with_facts(save(tmp_path, "a.flac", flac)).wave, flac_frames(flac)
    for start in (30, edges[0], edges[3] + 9):
        wave = read_with_facts(save(tmp_path, "a.flac", flac[start:]))
        first = sum(edge < start for edge in edges)
        assert wave.loss is not None
        np.testing.assert_array_equal(wave.wave, wanted[:, 4096 * first :])
    bad = bytearray(flac)
    bad[10:26] = bytes(16)
    found = read_with_facts(save(tmp_path, "a.flac", bytes(bad)))
    np.testing.assert_array_equal(found.wave, wanted)
    assert "head is damaged" in str(found.loss)


def test_flac_between_tags(tmp_path, flac):
    wanted = read_with_facts(save(tmp_path, "a.flac", flac)).wave
    whole(save(tmp_path, "a.flac", b"ID3\4\0\0\0\0\1\0" + bytes(128) + flac + b"TAG" + bytes(125)), wanted)


# MP3


def untagged(data: bytes) -> bytes:
    """An MP3 without the frame that states its length."""
    first = next(i for i in range(4, len(data)) if data[i] == 0xFF and data[i + 1] & 0xE6 == data[1] & 0xE6)
    assert b"Xing" in data[:first] or b"Info" in data[:first]
    return data[first:]


def test_joined_mp3(tmp_path):
    one, two = (encoded(voice(seconds, seed=seed), "MP3") for seconds, seed in ((3.0, 0), (2.0, 1)))
    parts = [read_with_facts(save(tmp_path, "a.mp3", data)).wave for data in (one, two)]
    tag = b"TAG" + bytes(125)
    for data in (one + two, one + tag + two + tag, ID3 + one + two):
        whole(save(tmp_path, "a.mp3", data), np.concatenate(parts, 1))
    bare = [untagged(data) for data in (one, two)]
    for data in (one + bare[1], bare[0] + two, bare[0] + bare[1]):
        found = read_with_facts(save(tmp_path, "a.mp3", data))
        assert abs(found.wave.shape[1] - 80_000) <= 4 * 1152
        assert found.loss is None
    lossy_part = read_with_facts(save(tmp_path, "a.mp3", one + two[: len(two) // 2]))
    assert lossy_part.loss is not None


def test_mp3_that_states_too_little(tmp_path):
    data = bytearray(encoded(voice(5.0), "MP3"))
    mark = max(data.find(b"Xing"), data.find(b"Info"))
    data[mark + 8 : mark + 12] = (3).to_bytes(4, "big")
    found = read_with_facts(save(tmp_path, "a.mp3", bytes(data)))
    assert found.loss is None
    assert 0 <= found.wave.shape[1] - 80_000 <= 2 * 1152


def test_mp3_with_a_bad_spot_is_read_on_behind_it(tmp_path):
    data = encoded(voice(20.0), "MP3")
    for hurt in (data[:20_000] + data[20_700:], data[:20_000] + bytes(3000) + data[23_000:]):
        found = read_with_facts(save(tmp_path, "a.mp3", hurt))
        assert abs(found.wave.shape[1] - 320_000) < 32_000
        assert "bad bytes in 1 place" in str(found.loss)


def test_mp3_that_breaks_off_before_another_is_told_of(tmp_path):
    one, two = encoded(voice(3.0), "MP3"), encoded(voice(2.0, seed=1), "MP3")
    assert "frames of" in str(read_with_facts(save(tmp_path, "a.mp3", one[:-50] + two)).loss)


# what is none of these


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"404 not found\n" * 20, "text"),
        (bytes(5000), "zeros at its start"),
        (np.random.default_rng(0).bytes(5000), "bytes of an unknown kind"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "a 7-Zip archive"),
        (b"RIFF" + struct.pack("<I", 99) + b"WEBPVP8 " + bytes(90), "a WebP picture"),
        (b"FORM" + bytes(90), "a damaged head"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp3", "wav", "flac", "ogg"])
def test_no_sound_is_called_by_its_name(tmp_path, data, word, suffix):
    with pytest.raises(AudioError, match=f"is not a sound file .*{word}"):
        read_with_facts(save(tmp_path, f"a.{suffix}", data))


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "M4A"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "MP4"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA"),
        (b"\x1a\x45\xdf\xa3" + bytes(20), "WebM"),
        (b"#!AMR\n" + bytes(20), "AMR"),
        (b"\xff\xf1\x50\x80" + bytes(20), "AAC"),
        (page_of([b"Speex   1.2" + bytes(60)], 0, 0, ogg.BEGIN), "Speex"),
        (page_of([b"\x80theora" + bytes(60)], 0, 0, ogg.BEGIN), "Theora"),
        (b"RIFF" + struct.pack("<I", 90) + b"AVI LIST", "AVI"),
    ],
)
@pytest.mark.parametrize("suffix", ["mp3", "wav", "ogg"])
def test_other_kinds_are_called_by_their_names(tmp_path, monkeypatch, head, word, suffix):
    assert word in str(foreign(head))
    path = save(tmp_path, f"a.{suffix}", head + bytes(3000))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=word) as caught:
        read_with_facts(path)
    assert "needs ffmpeg; install it" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_other_kinds_are_read_through_ffmpeg(tmp_path, monkeypatch):
    """A stand-in, since not every machine has it: it gives the sound of any file, and complains if asked to."""
    save(tmp_path, "sound.wav", encoded(ONE, "WAV", "FLOAT"))
    (tmp_path / "bin").mkdir()
    script = f"""#!{sys.executable}
import os, shutil, sys
assert sys.argv[sys.argv.index("-i") + 1].startswith("file:")
shutil.copy({str(tmp_path / "sound.wav")!r}, sys.argv[-1][5:])
if b"cut" in open(sys.argv[sys.argv.index("-i") + 1][5:], "rb").read():
    print("[aac @ 0x1] x: Invalid data", file=sys.stderr)
"""
    (tmp_path / "bin/ffmpeg").write_text(script)
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    head = b"\0\0\0\x20ftypM4A \0\0\0\0"
    whole(save(tmp_path, "a.m4a", head), ONE)
    lossy(save(tmp_path, "a.m4a", head + b"cut"), 16_000, "Invalid data")


@pytest.mark.parametrize("name", FORMATS)
def test_samples_without_a_header(tmp_path, name):
    order, tag, bits = FORMATS[name]
    if tag == 3:
        data = ONE.astype(f"{order}f4").tobytes()
    elif tag == 1 and bits > 8:
        wide = np.rint(ONE * (2**31 - 1)).astype(f"{order}i4").tobytes()
        keep = range(bits // 8) if order == ">" else range(4 - bits // 8, 4)
        data = np.frombuffer(wide, np.uint8).reshape(-1, 4)[:, list(keep)].tobytes()
    else:
        subtype = {"u8": "PCM_U8", "alaw": "ALAW", "mulaw": "ULAW"}[name]
        data = encoded(ONE, "WAV", subtype)[-16_000:]
    with AudioReader(save(tmp_path, "a.raw", data), Raw(16_000, 1, name)) as reader:
        wave = np.concatenate(list(reader.blocks(3000)), 1)
    np.testing.assert_allclose(wave[0], ONE, atol=0.03 if bits == 8 else 1e-4)


def test_raw_is_said_in_words():
    assert Raw.parse("48000, 2") == Raw(48_000, 2)
    for text in ("", "fast", "16000,1,s12le", "100", "16000,9", "16000,1,u8,2"):
        with pytest.raises(UsageError):
            Raw.parse(text)
