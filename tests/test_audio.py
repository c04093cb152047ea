"""Every format there and back, every bad input by name, exact resampling, and no half-written file."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.core.errors import AudioError, UsageError
from nacre.core.units import resampled_count
from nacre.io import audio
from nacre.io.audio import AudioReader, AudioWriter, Resampler, output_file, read, read_with_facts, write

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000]
LENGTHS = [0, 1, 2, 159, 160, 161, 1000, 12_345]
LOSSLESS = [("wav", "PCM_U8", 8), ("wav", "PCM_16", 16), ("wav", "PCM_24", 24), ("flac", "PCM_S8", 8)]
LOSSLESS += [("flac", "PCM_16", 16), ("flac", "PCM_24", 24), ("wav", "FLOAT", 24), ("wav", "DOUBLE", 24)]
LOSSLESS += [("wav", "PCM_32", 24)]


def noise(channels: int, samples: int, bits: int = 16, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (channels, samples))
    return (steps / 2.0 ** (bits - 1)).astype(np.float32)  # [C, N]


def tone(rate_hz: int, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    times_s = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.tile(0.5 * np.sin(2 * np.pi * 440 * times_s), (channels, 1)).astype(np.float32)  # [C, N]


def wav_bytes(data: bytes, rate_hz: int = 16_000, channels: int = 1, data_bytes: int | None = None) -> bytes:
    size = len(data) if data_bytes is None else data_bytes
    form = (16, 1, channels, rate_hz, rate_hz * channels * 2 % 2**32, channels * 2, 16)
    riff = struct.pack("<4sI8sIHHIIHH", b"RIFF", min(size + 36, 2**32 - 1), b"WAVEfmt ", *form)
    return riff + struct.pack("<4sI", b"data", size) + data


def refused(path: Path, *words: str) -> None:
    with pytest.raises(AudioError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert ";" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("suffix", "subtype", "bits"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_lossless_round_trip(tmp_path, suffix, subtype, bits, channels):
    wave = noise(channels, 20_011, bits)
    path = tmp_path / f"a.{suffix}"
    with AudioWriter(path, 44_100, channels, subtype=subtype) as writer:
        for part in np.array_split(wave, 7, axis=1):
            writer.write(part)
    assert sf.info(path).subtype == subtype
    back, rate_hz = read(path)
    assert rate_hz == 44_100
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, wave)


@pytest.mark.parametrize("suffix", ["ogg", "opus", "mp3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_round_trip_keeps_length_and_sound(tmp_path, suffix, channels):
    wave = tone(48_000, 1.5001, channels)
    write(tmp_path / f"a.{suffix}", wave, 48_000)
    back, rate_hz = read(tmp_path / f"a.{suffix}")
    assert rate_hz == 48_000
    assert back.shape == wave.shape
    assert np.mean((back - wave) ** 2) < 0.01 * np.mean(wave**2)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_block_size_changes_nothing(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write(path, 0.5 * noise(2, 30_000), 48_000)
    whole, _ = read(path)
    for block_samples in (1000, 4096, 10**6):
        with AudioReader(path) as reader:
            blocks = list(reader.blocks(block_samples))
            assert reader.samples == reader.samples_read == 30_000
        assert max(block.shape[1] for block in blocks) <= block_samples
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


def test_second_call_of_blocks_goes_on(tmp_path):
    write(tmp_path / "a.wav", noise(1, 100), 16_000)
    with AudioReader(tmp_path / "a.wav") as reader:
        first = next(reader.blocks(60))
        assert first.shape == (1, 60)
        assert [block.shape for block in reader.blocks(60)] == [(1, 40)]
        assert list(reader.blocks(60)) == []


def test_writing_rounds_to_nearest_and_clips(tmp_path):
    wave = np.array([[-1.4, -0.6, -0.4, 0.4, 0.6, 1.4, 40_000, -40_000]], np.float32) / 32_768
    write(tmp_path / "a.wav", wave, 16_000)
    steps = read(tmp_path / "a.wav")[0] * 32_768
    assert steps.tolist() == [[-1, -1, 0, 0, 1, 1, 32_767, -32_768]]


def test_float_file_keeps_what_is_beyond_full_scale_and_writer_clips(tmp_path):
    sf.write(tmp_path / "loud.wav", np.array([0.0, 3.5, -2.0]), 16_000, subtype="FLOAT")
    wave, _ = read(tmp_path / "loud.wav")
    assert wave.tolist() == [[0.0, 3.5, -2.0]]
    with AudioWriter(tmp_path / "b.wav", 16_000, 1, subtype="FLOAT") as writer:
        writer.write(wave)
    assert read(tmp_path / "b.wav")[0].tolist() == [[0.0, 1.0, -1.0]]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("samples", [160, 16_000])
def test_short_and_silent_sounds_are_fine(tmp_path, suffix, samples):
    write(tmp_path / f"a.{suffix}", np.zeros((1, samples), np.float32), 16_000)
    wave, rate_hz = read(tmp_path / f"a.{suffix}")
    assert rate_hz == 16_000
    assert wave.shape == (1, samples)
    assert np.abs(wave).max() < 1e-3


@pytest.fixture(scope="module")
def untagged_mp3(tmp_path_factory) -> bytes:
    """A quiet first half and a noisy second, at a variable rate, without the frame that states the length."""
    path = tmp_path_factory.mktemp("mp3") / "a.mp3"
    wave = np.concatenate([noise(1, 48_000) / 2, np.zeros((1, 480_000), np.float32)], axis=1)
    sound = sf.SoundFile(path, "w", 48_000, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.2)
    with sound:
        sound.write(wave.T)
    data = path.read_bytes()
    first = next(i for i in range(4, len(data)) if data[i] == 0xFF and data[i + 1] & 0xE6 == data[1] & 0xE6)
    assert b"Xing" in data[:first] or b"Info" in data[:first]
    return data[first:]


@pytest.mark.parametrize("tag_bytes", [0, 300_000])
def test_mp3_without_length_is_read_to_its_end(tmp_path, untagged_mp3, tag_bytes):
    size = bytes((tag_bytes >> shift) & 127 for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\0\0" + size + bytes(tag_bytes) if tag_bytes else b""
    (tmp_path / "a.mp3").write_bytes(tag + untagged_mp3)
    with AudioReader(tmp_path / "a.mp3") as reader:
        samples = sum(block.shape[1] for block in reader.blocks(4096))
        assert tag_bytes or 0 < reader.samples < 500_000  # libsndfile would stop at its guess
    assert 528_000 <= samples < 528_000 + 4 * 1152


def test_mp3_cut_inside_a_frame_gives_what_is_there(tmp_path, untagged_mp3):
    (tmp_path / "a.mp3").write_bytes(untagged_mp3[: len(untagged_mp3) // 3 * 2 + 5])
    wave, _ = read(tmp_path / "a.mp3")
    assert 48_000 < wave.shape[1] < 528_000


def test_missing_folder_and_empty(tmp_path):
    refused(tmp_path / "none.wav", "No such file")
    with pytest.raises(AudioError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "is empty")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "au", "vox", "raw", "txt"])
def test_text_is_not_sound(tmp_path, suffix):
    path = tmp_path / f"text.{suffix}"
    path.write_text("hello world\n" * 200)
    refused(path, "not a sound file", ".flac")


def test_no_samples(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(b""))
    refused(tmp_path / "a.wav", "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_placed(tmp_path, value):
    wave = np.zeros((210_000, 2))
    wave[16_000 * 12 + 8000, 1] = value
    sf.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    found = read_with_facts(tmp_path / "a.wav")
    assert found.wave.shape == (2, 210_000)
    assert not found.wave.any()
    assert "1 samples from 0:12.5 on that are no sound" in str(found.loss)
    with pytest.raises(AudioError, match=r"0:12\.5"):
        write(tmp_path / "b.wav", wave.T.astype(np.float32), 16_000)
    assert sorted(os.listdir(tmp_path)) == ["a.wav"]


@pytest.mark.parametrize("rate_hz", [1, 7999, 192_001, 2**31 - 1])
def test_rate_out_of_range(tmp_path, rate_hz):
    (tmp_path / "a.wav").write_bytes(wav_bytes(bytes(2000), rate_hz))
    refused(tmp_path / "a.wav", str(rate_hz), "8000 to 192000")
    with pytest.raises(AudioError, match=str(rate_hz)):
        AudioWriter(tmp_path / "b.wav", rate_hz, 1)


def test_too_many_channels(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(bytes(1800), channels=9))
    refused(tmp_path / "a.wav", "9 channels", "1 to 8")
    (tmp_path / "b.wav").write_bytes(wav_bytes(bytes(1800), channels=0))
    refused(tmp_path / "b.wav", "Channel count is zero")
    with pytest.raises(AudioError, match="9 channels"):
        AudioWriter(tmp_path / "c.wav", 16_000, 9)


@pytest.mark.parametrize("data_bytes", [2**32 - 1, 2**32 - 16, 2**31 - 1, 4000, 3999])
def test_wav_header_is_not_believed(tmp_path, data_bytes):
    (tmp_path / "a.wav").write_bytes(wav_bytes(b"\1\0" * 1000, data_bytes=data_bytes))
    assert read(tmp_path / "a.wav")[0].shape == (1, 1000)


@pytest.mark.slow
def test_wav_over_four_gigabytes_is_read_to_its_end(tmp_path):
    for stated in (2**32 - 1, 10_000 - 44):  # unknown, and what is left of a size in 32 bits
        (tmp_path / "a.wav").write_bytes(wav_bytes(b"\1\0" * 1000, data_bytes=stated))
        os.truncate(tmp_path / "a.wav", 2**32 + 10_000)
        with AudioReader(tmp_path / "a.wav") as reader:
            assert reader.samples == (2**32 + 10_000 - 44) // 2


def test_writer_stops_before_wav_overflows(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "WAV_MAX_BYTES", 200_000)
    write(tmp_path / "a.flac", noise(1, 120_000), 16_000)
    with pytest.raises(AudioError, match="too long"):
        write(tmp_path / "a.wav", noise(1, 120_000), 16_000)
    assert os.listdir(tmp_path) == ["a.flac"]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("share", [0.0005, 0.003, 0.1, 0.5, 0.99])
def test_cut_file_gives_its_beginning_or_an_error(tmp_path, suffix, share):
    write(tmp_path / f"a.{suffix}", tone(48_000, 2.0), 48_000)
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(whole[: int(len(whole) * share)])
    if suffix == "wav":
        assert read(tmp_path / "a.wav")[0].shape == (1, (int(len(whole) * share) - 44) // 2)
        return
    with suppress(AudioError):
        assert 0 < read(tmp_path / f"a.{suffix}")[0].shape[1] <= 96_000


def test_damaged_flac_keeps_the_rest_and_says_what_is_lost(tmp_path):
    write(tmp_path / "a.flac", noise(1, 160_000), 16_000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "a.flac").write_bytes(data)
    found = audio.read_with_facts(tmp_path / "a.flac")
    assert found.wave.shape == (1, 160_000)
    assert (found.wave == noise(1, 160_000)).mean() > 0.9
    assert "0.26 s lost in 1 place, silent there" in str(found.loss)


@given(st.binary(max_size=300), st.sampled_from(["wav", "flac", "ogg", "mp3"]))
@settings(max_examples=60, deadline=None)
def test_random_bytes_end_in_audio_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("random") / f"a.{suffix}"
    path.write_bytes(data)
    with pytest.raises(AudioError):
        read(path)
    shutil.rmtree(path.parent)


def test_unknown_suffix_and_subtype_list_the_known(tmp_path):
    with pytest.raises(UsageError, match=r"\.wav, \.flac"):
        AudioWriter(tmp_path / "a.m4a", 16_000, 1)
    with pytest.raises(UsageError, match="PCM_16"):
        AudioWriter(tmp_path / "a.flac", 16_000, 1, subtype="FLOAT")
    with pytest.raises(UsageError, match="PCM_16"):
        AudioWriter("-", 16_000, 1, subtype="FLOAT")


def test_rate_that_the_format_lacks(tmp_path):
    with pytest.raises(AudioError, match=r"44100 Hz.*48000"):
        write(tmp_path / "a.opus", noise(1, 100), 44_100)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, AudioError("x")])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_nothing_is_left_after_an_exception(tmp_path, suffix, error):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    writer = AudioWriter(path, 16_000, 1, overwrite=True)
    with pytest.raises(error if isinstance(error, type) else AudioError):
        write_and_raise(writer, error)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"


def write_and_raise(writer: AudioWriter, error: BaseException) -> None:
    with writer:
        writer.write(noise(1, 50_000))
        assert len(os.listdir(Path(writer.name).parent)) == 2
        assert Path(writer.name).read_bytes() == b"old"
        raise error


def test_existing_file_needs_force(tmp_path):
    path = tmp_path / "a.wav"
    write(path, noise(1, 100), 16_000)
    with pytest.raises(AudioError, match="--force"):
        write(path, noise(1, 200), 16_000)
    write(path, noise(1, 200), 16_000, overwrite=True)
    assert read(path)[0].shape == (1, 200)
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_file_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(AudioError, match="--force"), output_file(tmp_path / "a.nacre"):
        (tmp_path / "a.nacre").write_bytes(b"theirs")
    assert os.listdir(tmp_path) == ["a.nacre"]
    assert (tmp_path / "a.nacre").read_bytes() == b"theirs"


def test_output_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real.nacre").write_bytes(b"old")
    (tmp_path / "link.nacre").symlink_to("real.nacre")
    with output_file(tmp_path / "link.nacre", overwrite=True) as file:
        file.write(b"new")
    assert (tmp_path / "link.nacre").is_symlink()
    assert (tmp_path / "real.nacre").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("place", "word"), [("none/a.wav", "No such file"), (".", "a folder"), ("f/a.wav", "Not a dir")]
)
def test_bad_places(tmp_path, place, word):
    (tmp_path / "f").touch()
    with pytest.raises(AudioError, match=word), output_file(tmp_path / place) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == ["f"]


def test_errors_of_other_files_are_not_renamed(tmp_path):
    with pytest.raises(FileNotFoundError), output_file(tmp_path / "a.nacre"):
        open(tmp_path / "other")  # noqa: SIM115
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_full_disk(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").symlink_to("/dev/full")
    with pytest.raises(AudioError, match="No space left"):
        write(tmp_path / f"a.{suffix}", noise(1, 30_000), 48_000)
    with pytest.raises(AudioError, match="No space left"), output_file("/dev/full") as file:
        file.write(b"x")
    assert Path("/dev/full").is_char_device()


LIMITED = """
import os, resource, sys, numpy as np
from nacre.io.audio import write
from nacre.core.errors import AudioError
folder, wave = sys.argv[1], np.random.default_rng(0).standard_normal((1, 20000)).astype(np.float32) / 8
for suffix in ("wav", "flac", "ogg", "opus", "mp3"):
    write(f"{folder}/a.{suffix}", wave, 48000)
    size = os.path.getsize(f"{folder}/a.{suffix}")
    os.remove(f"{folder}/a.{suffix}")
    for limit in (0, 1000, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(f"{folder}/a.{suffix}", wave, 48000)
        except AudioError as error:
            assert "File too large" in str(error), error
        else:
            raise AssertionError((suffix, limit, size))
        assert os.listdir(folder) == [], (suffix, limit)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("ok")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file size")
def test_disk_that_fills_up_midway_leaves_no_file(tmp_path):
    assert run_python(LIMITED, str(tmp_path)) == b"ok\n"


def run_python(code: str, *args: str, feed: bytes = b"") -> bytes:
    env = os.environ | {"PYTHONPATH": str(Path(audio.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, *args], input=feed, env=env, check=True, stdout=subprocess.PIPE
    ).stdout


COPY = """
import sys
from nacre.io.audio import AudioReader, AudioWriter
with AudioReader(sys.argv[1]) as reader, AudioWriter("-", reader.rate_hz, reader.channels) as writer:
    for block in reader.blocks(1000):
        writer.write(block)
"""


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_standard_input_and_output(tmp_path, suffix):
    write(tmp_path / f"a.{suffix}", noise(2, 12_345), 44_100)
    data = run_python(COPY, "-", feed=(tmp_path / f"a.{suffix}").read_bytes())
    (tmp_path / "b.wav").write_bytes(data)
    back, rate_hz = read(tmp_path / "b.wav")
    assert rate_hz == 44_100
    np.testing.assert_array_equal(back, noise(2, 12_345))
    assert run_python(COPY, "-", feed=data) == data  # our own header of unknown length is read back


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_read(tmp_path):
    write(tmp_path / "a.wav", noise(1, 70_000), 16_000)
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(f"cat {tmp_path}/a.wav > {tmp_path}/pipe", shell=True):
        np.testing.assert_array_equal(read(tmp_path / "pipe")[0], noise(1, 70_000))


def resample(wave: np.ndarray, from_hz: int, to_hz: int, sizes: list[int]) -> np.ndarray:
    resampler, parts, start = Resampler(from_hz, to_hz, len(wave)), [], 0
    for size in itertools.cycle(sizes):
        parts.append(resampler.push(wave[:, start : start + size]))
        start += size
        if start >= wave.shape[1]:
            return np.concatenate([*parts, resampler.flush()], axis=1)
    raise AssertionError


@pytest.mark.parametrize(("from_hz", "to_hz"), list(itertools.product(RATES_HZ, RATES_HZ)))
def test_resampled_counts_and_cuts(from_hz, to_hz):
    for samples in LENGTHS:
        wave = noise(2, samples)
        whole = resample(wave, from_hz, to_hz, [10**6])
        assert whole.shape == (2, resampled_count(samples, from_hz, to_hz))
        assert whole.dtype == np.float32
        for sizes in ([480], [7, 0, 333]):
            np.testing.assert_array_equal(resample(wave, from_hz, to_hz, sizes), whole)
        if from_hz == to_hz:
            np.testing.assert_array_equal(whole, wave)


@given(
    st.integers(8_000, 192_000),
    st.integers(8_000, 192_000),
    st.integers(0, 5000),
    st.lists(st.integers(1, 999), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_any_rates_and_cuts(from_hz, to_hz, samples, sizes):
    wave = noise(1, samples)
    whole = resample(wave, from_hz, to_hz, [10**6])
    assert whole.shape == (1, resampled_count(samples, from_hz, to_hz))
    np.testing.assert_array_equal(resample(wave, from_hz, to_hz, sizes), whole)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48_000, 16_000), (16_000, 48_000), (44_100, 16_000), (8000, 16_000)])
def test_resampling_keeps_a_tone_in_place(from_hz, to_hz):
    found, wanted = resample(tone(from_hz), from_hz, to_hz, [1000]), tone(to_hz)
    middle = slice(to_hz // 10, -to_hz // 10)
    assert np.abs(found[:, middle] - wanted[:, middle]).max() < 1e-4


def test_last_sample_is_sound_not_padding():
    for samples in range(1000, 1050):
        found = resample(np.full((1, samples), 0.5, np.float32), 44_100, 48_000, [999])
        assert found[0, -1] != 0


def test_resampler_starts_anew_after_flush():
    resampler, wave = Resampler(44_100, 16_000, 2), noise(2, 5000)
    first = np.concatenate([resampler.push(wave), resampler.flush()], axis=1)
    again = np.concatenate([resampler.push(wave), resampler.flush()], axis=1)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("to_hz", [16_000, 44_100])
def test_flush_alone_gives_nothing(to_hz):
    assert Resampler(16_000, to_hz, 2).flush().shape == (2, 0)
