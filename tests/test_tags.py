"""Tags and dates there and back, and a chunk of them that nobody meant to write."""

from __future__ import annotations

import os

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from nacre.format.tags import MOST_BYTES, pack_tags, unpack_tags
from nacre.io import audio

TAGS = {"title": "Wind, 3 voices", "artist": "Ærø", "album": "Field", "date": "1971", "comment": "take [2]"}


def tagged(path, wave, **tags):
    with sf.SoundFile(path, "w", 16_000, 1) as sound:
        for name, text in tags.items():
            setattr(sound, name, text)
        sound.write(wave)
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
def test_tags_and_date_there_and_back(nacre, tiny_model, tmp_path, speech, suffix):
    tagged(f"{tmp_path}/a.{suffix}", speech[:16_000], **TAGS)
    assert nacre("encode", f"a.{suffix}", "-o", "a.nacre", "-m", tiny_model).rc == 0
    found = nacre("info", "a.nacre", "--json", "-m", tiny_model)
    assert b"Wind, 3 voices" in found.stdout
    assert b"2001-09-09 01:46:40 UTC" in found.stdout
    assert nacre("verify", "a.nacre", "-m", tiny_model).rc == 0
    os.utime("a.nacre")  # as after a download
    for target in ("b.wav", "b.flac"):
        assert nacre("decode", "a.nacre", "-o", target, "-m", tiny_model).rc == 0
        with audio.AudioReader(target) as reader:
            assert reader.tags.items() >= {"title": TAGS["title"], "artist": TAGS["artist"]}.items()
        assert os.stat(target).st_mtime == 1_000_000_000


def test_without_tags_the_file_is_the_library_s_and_has_the_date(nacre, tiny, tiny_model, tmp_path, speech):
    tagged(tmp_path / "a.wav", speech[:16_000])
    assert nacre("encode", "a.wav", "-o", "a.nacre", "--quality", 50, "-m", tiny_model).rc == 0
    wave, rate_hz = audio.read(tmp_path / "a.wav")
    assert (tmp_path / "a.nacre").read_bytes() == tiny.encode(wave, rate_hz, quality=50)
    assert nacre("decode", "a.nacre", "-o", "b.wav", "-m", tiny_model).rc == 0
    assert os.stat("a.nacre").st_mtime == os.stat("b.wav").st_mtime == 1_000_000_000


def test_the_library_passes_tags_over(tiny, speech):
    data = tiny.encode(speech[:16_000], 16_000, quality=50)
    with_tags = data + pack_tags(TAGS, 1.5)
    contents = tiny.parse(with_tags)
    assert (contents.tags, contents.modified_s, contents.skipped_bytes) == (TAGS, 1.5, 0)
    assert contents.size_bytes == len(with_tags)
    np.testing.assert_array_equal(tiny.decode(with_tags)[0], tiny.decode(data)[0])


def test_raw_samples_there_and_back(run, tiny_model, tmp_path, speech):
    data = np.rint(speech[:16_000] * 32767).astype("<i2").tobytes()
    coded = run("encode", "-", "--raw", "16000", "-o", "-", "-m", tiny_model, stdin=data)
    assert coded.rc == 0, coded.stderr
    back = run("decode", "-", "--raw", "-o", "-", "-m", tiny_model, stdin=coded.stdout)
    assert back.rc == 0, back.stderr
    assert len(back.stdout) == len(data)
    assert run("decode", "-", "--raw", "-o", "a.wav", "-m", tiny_model, stdin=coded.stdout).rc == 2
    assert run("encode", "-", "--raw", "fast", "-o", "-", "-m", tiny_model, stdin=data).rc == 2


def test_long_texts_are_cut():
    chunk = pack_tags({"title": "é" * MOST_BYTES, "artist": "b" * MOST_BYTES}, None)
    tags, modified_s, size = unpack_tags(b"sound" + chunk)
    assert size == len(chunk) <= MOST_BYTES + 10
    assert set(tags) == {"title", "artist"}
    assert modified_s is None


@given(st.binary(max_size=60), st.binary(max_size=40))
def test_anything_else_is_no_chunk_or_a_small_one(before, content):
    assert unpack_tags(before) == ({}, None, 0) or len(before) > 10
    from binascii import crc_hqx

    chunk = content + crc_hqx(content, 0).to_bytes(2, "little") + len(content).to_bytes(4, "little") + b"naTg"
    tags, _, size = unpack_tags(before + chunk)
    assert size in (0, len(chunk))
    assert all(isinstance(text, str) for text in tags.values())
