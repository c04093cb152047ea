"""The command line as people meet it: good files, bad files, pipes, full disks, Ctrl-C; never a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import wave as wavefile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import HUNG_S, PACKAGE, Ran

from nacre.cli import codec as cli
from nacre.format import file as container
from nacre.io import audio
from nacre.model import bundle

ENGLISH = PACKAGE / "clips" / "english.flac"
linux = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@pytest.fixture
def coded(tmp_path, tiny, speech) -> Path:
    """A file of 5.1 s in groups of 0.2 s."""
    path = tmp_path / "talk.nacre"
    path.write_bytes(tiny.encode(speech, 16_000, quality=50))
    return path


def left(folder: Path) -> list[str]:
    """Names of all files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def damage(path: Path, *groups: int) -> None:
    """Change the last-but-one byte of these groups."""
    data = bytearray(path.read_bytes())
    contents = container.unpack(bytes(data), lambda header, samples: -(-(samples + 640) // 3200))
    at = 22
    for group, packet in enumerate(contents.packets):
        at += len(container.pack_packet(packet))
        if group in groups:
            data[at - 2] ^= 0x55
    path.write_bytes(data)


# what works


def test_help_lists_commands_and_opens_no_model(nacre, monkeypatch):
    monkeypatch.setattr(bundle, "load", None)
    found = nacre("--help")
    assert found.rc == 0
    for command in ("demo", "encode", "decode", "info", "verify", "models", "train", "export", "features", "inspect"):
        assert command.encode() in found.stdout
        assert nacre(command, "--help").rc == 0


def test_there_and_back(nacre, tiny_model, tmp_path, speech):
    found = nacre("encode", ENGLISH, "-o", "a.nacre", "-m", tiny_model, "--bitrate", 1)
    size = (tmp_path / "a.nacre").stat().st_size
    assert (found.rc, found.stdout) == (0, b"")
    assert f"0:05.1  {size} bytes  {8 * size / len(speech) * 16:.2f} kb/s" in found.stderr
    assert "x real time" in found.stderr
    found = nacre("decode", "a.nacre", "-o", "a.wav", "-m", tiny_model)
    assert (found.rc, found.stdout) == (0, b"")
    wave, rate_hz = audio.read(tmp_path / "a.wav")
    assert (wave.shape, rate_hz) == ((1, len(speech)), 16_000)
    assert left(tmp_path) == ["a.nacre", "a.wav"]


def test_same_bytes_as_the_library(nacre, tiny, tiny_model, tmp_path, speech):
    nacre("encode", ENGLISH, "-o", "a.nacre", "-m", tiny_model, "--quality", 100)
    assert (tmp_path / "a.nacre").read_bytes() == tiny.encode(speech, 16_000, quality=100)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_stereo_and_other_formats(nacre, tiny_model, tmp_path, speech, suffix):
    audio.write(tmp_path / "in.wav", np.stack([speech, speech[::-1]]), 44_100)
    assert nacre("encode", "in.wav", "-o", "a.nacre", "-m", tiny_model, "-q").rc == 0
    found = nacre("decode", "a.nacre", "-o", f"out.{suffix}", "-m", tiny_model, "--quiet")
    assert (found.rc, found.stderr) == (0, "")
    wave, rate_hz = audio.read(tmp_path / f"out.{suffix}")
    assert (wave.shape, rate_hz) == ((2, len(speech)), 44_100)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 48_000])
def test_other_output_rate(nacre, tiny_model, tmp_path, coded, speech, rate_hz):
    assert nacre("decode", coded, "-o", "out.wav", "-m", tiny_model, "--rate", rate_hz).rc == 0
    wave, found_hz = audio.read(tmp_path / "out.wav")
    assert (wave.shape[1], found_hz) == (-(-len(speech) * rate_hz // 16_000), rate_hz)


def test_plain_wav_header(nacre, tiny_model, tmp_path, coded, speech):
    """Readable without any library of sound."""
    nacre("decode", coded, "-o", "out.wav", "-m", tiny_model)
    with wavefile.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnframes(), file.getframerate(), file.getsampwidth()) == (len(speech), 16_000, 2)


def test_pipes(run, tiny, tiny_model, speech):
    coded = run("encode", "-", "-o", "-", "-m", tiny_model, "--bitrate", 1, stdin=ENGLISH.read_bytes())
    assert coded.rc == 0, coded.stderr
    contents = tiny.parse(coded.stdout)
    assert (contents.samples, contents.header.samples, contents.truncated) == (len(speech), None, False)
    assert f"{len(coded.stdout)} bytes" in coded.stderr
    sound = run("decode", "-", "-o", "-", "-m", tiny_model, stdin=coded.stdout)
    assert sound.rc == 0, sound.stderr
    assert len(sound.stdout) == 44 + 2 * len(speech)
    assert run("info", "-", "-m", tiny_model, stdin=coded.stdout).rc == 0


def test_force_and_existing_output(nacre, tiny_model, tmp_path, coded):
    for command, source, target in (("encode", ENGLISH, "a.nacre"), ("decode", coded, "a.wav")):
        (tmp_path / target).write_bytes(b"precious")
        found = nacre(command, source, "-o", target, "-m", tiny_model)
        assert found.rc == 1
        assert "--force" in found.stderr
        assert (tmp_path / target).read_bytes() == b"precious"
        assert nacre(command, source, "-o", target, "-m", tiny_model, "--force").rc == 0
        assert (tmp_path / target).read_bytes() != b"precious"


# many files


@pytest.fixture
def many(tmp_path, speech) -> list[str]:
    """Two good files around three bad ones."""
    audio.write(tmp_path / "one.wav", speech[None, :9000], 16_000)
    audio.write(tmp_path / "two.flac", speech[None, 9000:20_000], 16_000)
    (tmp_path / "text.wav").write_text("no sound at all\n" * 99)
    (tmp_path / "empty.wav").write_bytes(b"")
    return ["one.wav", "text.wav", "missing.wav", "empty.wav", "two.flac"]


def check_many(found: Ran, folder: Path) -> None:
    assert found.rc == 1
    assert [line.split()[1] for line in found.stderr.splitlines() if line.startswith("error")] == [
        "text.wav",
        "missing.wav",
        "empty.wav",
    ]
    assert "3 of 5 files have errors" in found.stderr
    assert "Traceback" not in found.stderr
    assert left(folder) == ["one.nacre", "two.nacre"]


def test_bad_files_are_named_and_the_others_done(nacre, tiny_model, tmp_path, many):
    check_many(nacre("encode", *many, "-o", "out", "-m", tiny_model), tmp_path / "out")
    found = nacre("decode", "out/one.nacre", "out/two.nacre", "-o", "back/", "-m", tiny_model)
    assert found.rc == 0
    assert left(tmp_path / "back") == ["one.wav", "two.wav"]


def test_jobs(run, tiny_model, tmp_path, many):
    check_many(run("encode", *many, "-o", "out", "-m", tiny_model, "--jobs", 2), tmp_path / "out")


def test_one_file_into_a_folder(nacre, tiny_model, tmp_path, coded):
    (tmp_path / "there").mkdir()
    assert nacre("decode", coded, "-o", "there", "-m", tiny_model).rc == 0
    assert nacre("decode", coded, "-o", "new/", "-m", tiny_model).rc == 0
    assert left(tmp_path / "there") == left(tmp_path / "new") == ["talk.wav"]


def test_names_depend_on_the_folder_and_not_on_the_batch(nacre, tiny_model, tmp_path, speech):
    (tmp_path / "b").mkdir()
    for name in ("a.wav", "a.flac", "b/a.wav", "c.wav"):
        audio.write(tmp_path / name, speech[None, :8000], 16_000)
    assert nacre("encode", "a.wav", "a.flac", "c.wav", "-o", "out", "-m", tiny_model).rc == 0
    assert left(tmp_path / "out") == ["a.flac.nacre", "a.wav.nacre", "c.nacre"]
    assert nacre("encode", "a.wav", "-o", "alone/", "-m", tiny_model).rc == 0
    assert left(tmp_path / "alone") == ["a.wav.nacre"]
    found = nacre("encode", "c.wav", "b/a.wav", "b/../c.wav", "-o", "more", "-m", tiny_model)
    assert found.rc == 0
    assert left(tmp_path / "more") == ["a.nacre", "c.nacre"]
    (tmp_path / "d").mkdir()
    audio.write(tmp_path / "d/a.wav", speech[None, :8000], 16_000)
    found = nacre("encode", "b/a.wav", "d/a.wav", "-o", "none", "-m", tiny_model)
    assert found.rc == 2
    assert "b/a.wav and d/a.wav would both become none/a.nacre" in found.stderr
    assert not (tmp_path / "none").exists()


def test_verify_tells_of_bytes_that_are_no_group(nacre, tiny_model, coded):
    coded.write_bytes(coded.read_bytes() + b"and more")
    found = nacre("verify", coded, "-m", tiny_model)
    assert found.rc == 1
    assert "8 bytes belong to no group" in found.stderr


def test_the_same_file_twice_is_one(nacre, tiny_model, tmp_path, speech):
    audio.write(tmp_path / "a.wav", speech[None, :8000], 16_000)
    (tmp_path / "link.wav").symlink_to("a.wav")
    found = nacre("encode", "a.wav", "./a.wav", "link.wav", "-o", "out/", "-m", tiny_model)
    assert found.rc == 0
    assert left(tmp_path / "out") == ["a.nacre"]


def test_input_is_never_its_own_output(nacre, tiny_model, tmp_path, coded):
    before = coded.read_bytes()
    (tmp_path / "link.nacre").symlink_to(coded)
    for target in (coded, "link.nacre"):
        found = nacre("encode", coded, "-o", target, "-f", "-m", tiny_model)
        assert found.rc == 2
        assert "is both input and output; choose another --output" in found.stderr
    assert coded.read_bytes() == before


def test_encode_writes_no_file_that_claims_to_be_sound(nacre, tiny_model, tmp_path):
    found = nacre("encode", ENGLISH, "-o", "a.WAV", "-m", tiny_model)
    assert found.rc == 2
    assert "a.WAV ends in .wav, but `nacre encode` writes .nacre files; rename the output" in found.stderr
    assert left(tmp_path) == []


@linux
def test_names_that_are_not_utf_8(nacre, tiny_model, tmp_path, speech):
    odd = os.fsdecode(b"bad\xff.wav")
    for name in (odd, "good.wav"):
        audio.write(tmp_path / "x.wav", speech[None, :8000], 16_000)
        (tmp_path / "x.wav").rename(tmp_path / name)
    found = nacre("encode", odd, "good.wav", "-o", "out", "-m", tiny_model)
    assert found.rc == 0, found.stderr
    assert len(left(tmp_path / "out")) == 2
    inside = tmp_path / "out" / os.fsdecode(b"bad\xff.nacre")
    for command in ("info", "verify"):
        assert nacre(command, inside, "-m", tiny_model).rc == 0
    assert nacre("decode", inside, "-o", os.fsdecode(b"back\xff.wav"), "-m", tiny_model).rc == 0
    assert nacre("features", odd, "good.wav", "-o", "all.npz", "-m", tiny_model).rc == 0
    with np.load(tmp_path / "all.npz") as arrays:
        assert sorted(arrays) == ["bad\N{REPLACEMENT CHARACTER}", "good"]
    found = nacre("inspect", inside, "-o", "seen.html", "-m", tiny_model)
    assert found.rc == 0, found.stderr


def test_cut_sound_is_encoded_and_told_of(nacre, tiny_model, tmp_path, speech):
    for suffix in ("wav", "aiff", "mp3", "ogg"):
        path = tmp_path / f"cut.{suffix}"
        sf.write(path, speech[:48_000], 16_000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = nacre("encode", path, "-o", f"{suffix}.nacre", "-m", tiny_model)
        assert found.rc == 1
        assert f"cut.{suffix} is cut off after 0:0" in found.stderr
        assert nacre("verify", f"{suffix}.nacre", "-m", tiny_model).rc == 0


@linux
def test_closed_standard_output(tiny_model, tmp_path, environment):
    shell = f'"$@" encode {ENGLISH} -o a.nacre -m {tiny_model} >&-'
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "nacre"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert left(tmp_path) == ["a.nacre"]


def test_nobody_is_told(tiny_model, tmp_path, environment):
    home = {**environment, "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    home.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-m", "nacre", "encode", str(ENGLISH), "-o", "a.nacre", "-m", str(tiny_model)]
    subprocess.run(command, capture_output=True, cwd=tmp_path, env=home, check=True)
    assert left(tmp_path / "home") == []


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_ogg_that_ends_early_and_two_joined(nacre, tiny_model, tmp_path, speech, suffix):
    path = tmp_path / f"a.{suffix}"
    audio.write(path, speech[None, :48_000], 16_000)
    whole = path.read_bytes()
    assert nacre("encode", path, "-o", "whole.nacre", "-m", tiny_model).rc == 0
    path.write_bytes(whole[:-20])
    assert "cut off" in nacre("encode", path, "-o", "cut.nacre", "-m", tiny_model).stderr
    audio.write(tmp_path / f"b.{suffix}", speech[None, 48_000:], 16_000)
    path.write_bytes(whole + (tmp_path / f"b.{suffix}").read_bytes())
    found = nacre("encode", path, "-o", "two.nacre", "-m", tiny_model)
    assert found.rc == 0
    assert "0:05.1" in found.stderr  # both


@linux
def test_closed_standard_input_and_output(tiny_model, tmp_path, environment, coded):
    for line in (f"encode {ENGLISH} -o - >&-", "decode - -o a.wav <&-", "features - -o a.npy <&-", "encode - -o a <&-"):
        command = ["sh", "-c", f'"$@" {line} -m {tiny_model}', "sh", sys.executable, "-m", "nacre"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 1, line
        assert "closed" in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert left(tmp_path) == ["talk.nacre"]


@linux
def test_sound_from_a_named_pipe(tiny_model, tmp_path, environment):
    shell = f"mkfifo pipe; cat {ENGLISH} > pipe & {sys.executable} -m nacre features pipe -o a.npy -m {tiny_model}"
    done = subprocess.run(
        ["sh", "-c", shell], capture_output=True, cwd=tmp_path, env=environment, timeout=HUNG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "a.npy").shape == (257, 8)


def test_standard_input_in_a_batch(run, tiny_model, tmp_path, speech):
    for name in ("a.wav", "-"):  # a file of that name is not meant
        audio.write(tmp_path / "x.wav", speech[None, :8000], 16_000)
        (tmp_path / "x.wav").rename(tmp_path / name)
    data = (tmp_path / "a.wav").read_bytes()
    done = run("encode", "-", "a.wav", "-o", "out", "--jobs", 2, "-m", tiny_model, stdin=data)
    assert done.rc == 0, done.stderr
    assert left(tmp_path / "out") == ["-.nacre", "a.nacre"]


def test_version(nacre):
    found = nacre("--version")
    assert found.rc == 0
    assert re.fullmatch(rb"nacre \d+\.\d+\.\d+\n", found.stdout)


def test_many_files_need_a_folder(nacre, tiny_model, tmp_path, many):
    assert nacre("encode", *many, "-o", "-", "-m", tiny_model).rc == 2
    found = nacre("encode", *many, "-o", "one.wav", "-m", tiny_model)
    assert found.rc == 1
    assert "several outputs need a folder" in found.stderr


# what cannot work: one line, the right code, nothing written


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bitrate", "1", "--quality", "50"],
        ["--bitrate", "900"],
        ["--bitrate", "0"],
        ["--bitrate", "-3"],
        ["--bitrate", "nan"],
        ["--bitrate", "fast"],
        ["--quality", "101"],
        ["--jobs", "0"],
        ["--model", "no-such-model"],
        ["--model", "."],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_options(nacre, tiny_model, tmp_path, arguments):
    found = nacre("encode", ENGLISH, "-o", "a.nacre", "-m", tiny_model, *arguments)
    assert (found.rc, found.stdout) == (2, b"")
    assert found.stderr
    assert left(tmp_path) == []


@pytest.mark.parametrize("arguments", [["encode"], ["decode", "-o", "x.wav"], ["sing"], ["info"]])
def test_missing_arguments(nacre, arguments):
    assert nacre(*arguments).rc == 2


@pytest.mark.parametrize("rate", ["0", "-1", "7999", "1000000"])
def test_wrong_output_rate(nacre, tiny_model, tmp_path, coded, rate):
    found = nacre("decode", coded, "-o", "a.wav", "-m", tiny_model, "--rate", rate)
    assert found.rc == 2
    assert "8000 to 192000" in found.stderr
    assert left(tmp_path) == ["talk.nacre"]


@pytest.mark.parametrize("command", ["encode", "decode"])
@pytest.mark.parametrize("source", ["missing", "folder", "empty", "text", "film", "half"])
def test_wrong_inputs(nacre, tiny_model, tmp_path, command, source):
    name = f"{source}.wav" if command == "encode" else f"{source}.nacre"
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if source == "folder":
        path.mkdir()
    elif source != "missing":
        film = b"\0\0\0\x20ftypisom" + np.random.default_rng(1).bytes(200_000)
        half = {"encode": b"RIFF\xff\xff\0\0WAVEfmt ", "decode": b"NACR\x01\x01abcd"}[command]
        path.write_bytes({"empty": b"", "text": b"some words\n" * 50, "film": film, "half": half}[source])
    output = tmp_path / ("out.nacre" if command == "encode" else "out.wav")
    found = nacre(command, path, "-o", output, "-m", tiny_model)
    assert (found.rc, found.stdout) == (1, b"")
    assert found.stderr.startswith("error: ")
    assert name in found.stderr
    assert found.stderr.count("\n") == 1
    assert not output.exists()
    if command == "decode":
        for other in ("info", "verify"):
            found = nacre(other, path, "-m", tiny_model)
            assert (found.rc, found.stdout) == (1, b"")
            assert name in found.stderr


@pytest.mark.parametrize("target", ["talk.nacre/b/a", "talk.nacre/a", "/proc/a", "folder/"])
def test_wrong_places(nacre, tiny_model, tmp_path, coded, target):
    before = left(tmp_path)
    if target == "folder/":
        (tmp_path / "folder").write_text("in the way")
        before = left(tmp_path)
    for command, source, suffix in (("encode", ENGLISH, ".nacre"), ("decode", coded, ".wav")):
        found = nacre(command, source, "-o", target if target.endswith("/") else target + suffix, "-m", tiny_model)
        assert found.rc == 1
        assert found.stderr.startswith("error: ")
    assert left(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root")
def test_closed_folder(nacre, tiny_model, tmp_path, coded):
    (tmp_path / "closed").mkdir(mode=0o500)
    found = nacre("decode", coded, "-o", "closed/a.wav", "-m", tiny_model)
    assert found.rc == 1
    assert "Permission" in found.stderr


def test_unknown_suffix(nacre, tiny_model, coded):
    found = nacre("decode", coded, "-o", "a.xyz", "-m", tiny_model)
    assert found.rc == 2
    assert ".flac" in found.stderr


def test_file_of_a_model_that_is_not_here(nacre, tiny, coded):
    found = nacre("decode", coded, "-o", "a.wav")
    assert found.rc == 1
    assert tiny.bundle.fingerprint.hex() in found.stderr
    assert "--model" in found.stderr


# facts


def test_info(nacre, tiny_model, coded, speech):
    facts = json.loads(nacre("info", coded, "-m", tiny_model, "--json").stdout)
    size = coded.stat().st_size
    assert facts["bytes"] == size == facts["bytes_payload"] + facts["bytes_heads"] + facts["bytes_skipped"]
    assert facts["kbps"] == pytest.approx(8 * size / len(speech) * 16, abs=0.001)
    assert facts["kbps_payload"] + facts["kbps_heads"] == pytest.approx(facts["kbps"], abs=0.002)
    wanted = {"samples": len(speech), "rate_hz": 16_000, "channels": 1, "groups": 26, "kind": "scalar"}
    wanted |= {"lost_groups": 0, "silent_groups": 0, "joined_groups": 0, "truncated": False, "levels": "2 to 2"}
    assert facts.items() >= wanted.items()
    assert facts["model"].startswith("tiny (")
    text = nacre("info", coded, "-m", tiny_model).stdout.decode()
    assert str(size) in text
    assert "scalar" in text


def test_names_with_brackets_and_colons(nacre, tiny_model, tmp_path, coded):
    """Signs that a terminal library could take for its own."""
    (tmp_path / "d[").mkdir()
    for name in ("[bold]x:smile:.nacre", "d[/red].nacre", "é 音.nacre"):
        (tmp_path / name).write_bytes(coded.read_bytes())
        assert name in nacre("info", name, "-m", tiny_model).stdout.decode()
        assert name in nacre("verify", name, "-m", tiny_model).stdout.decode()
        assert name in nacre("decode", name, "-o", "a.wav", "-f", "-m", tiny_model).stderr


def test_models(nacre, monkeypatch, tiny_model):
    monkeypatch.setattr(bundle, "MODELS", tiny_model.parent)
    found = nacre("models")
    assert found.rc == 0
    for word in ("tiny", "0.5 to 1.3", "CC0-1.0", "6759fcf5"):
        assert word in found.stdout.decode()


def test_model_of_the_package_is_found_by_its_mark(nacre, monkeypatch, tiny_model, coded, tmp_path):
    monkeypatch.setattr(bundle, "MODELS", tiny_model.parent)
    assert nacre("decode", coded, "-o", "a.wav").rc == 0
    assert left(tmp_path) == ["a.wav", "talk.nacre"]


# damage


def test_verify_names_the_place(nacre, tiny_model, coded):
    found = nacre("verify", coded, "-m", tiny_model)
    assert found.rc == 0
    assert b"26 groups, all good" in found.stdout
    damage(coded, 3, 20)
    found = nacre("verify", coded, "-m", tiny_model)
    assert (found.rc, found.stdout) == (1, b"")
    assert "0:00.6 to 0:00.8, channel 0: the symbol check failed" in found.stderr
    assert "0:04.0 to 0:04.2, channel 0: the symbol check failed" in found.stderr
    assert found.stderr.count("check failed") == 2


def test_a_cut_file_has_lost_no_more_than_it_had(nacre, tiny_model, coded):
    coded.write_bytes(coded.read_bytes()[:40])
    for words in (("decode", coded, "-o", "a.wav"), ("verify", coded)):
        found = nacre(*words, "-m", tiny_model)
        assert found.rc == 1
        assert "26 of 26 groups are lost" in found.stderr


def test_damaged_file_is_decoded_and_reported(nacre, tiny_model, tmp_path, coded, speech):
    damage(coded, 10)
    found = nacre("decode", coded, "-o", "a.wav", "-m", tiny_model)
    assert found.rc == 1
    assert "0:02.0 to 0:02.2" in found.stderr
    assert "1 of 26 groups are lost" in found.stderr
    assert audio.read(tmp_path / "a.wav")[0].shape == (1, len(speech))
    assert left(tmp_path) == ["a.wav", "talk.nacre"]


def test_cut_file_is_decoded_up_to_the_cut(nacre, tiny_model, tmp_path, coded):
    coded.write_bytes(coded.read_bytes()[:300])
    found = nacre("decode", coded, "-o", "a.wav", "-m", tiny_model)
    assert found.rc == 1
    assert "cut short" in found.stderr
    groups = json.loads(nacre("info", coded, "-m", tiny_model, "--json").stdout)
    assert groups["truncated"]
    assert audio.read(tmp_path / "a.wav")[0].shape == (1, groups["groups"] * 3200 - 640)
    found = nacre("verify", coded, "-m", tiny_model)
    assert found.rc == 1
    assert f"{groups['lost_groups']} groups are missing" in found.stderr


# rough handling


@linux
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_full_disk(nacre, tiny_model, tmp_path, coded, command):
    full = "full.nacre" if command == "encode" else "full.wav"
    (tmp_path / full).symlink_to("/dev/full")
    found = nacre(command, ENGLISH if command == "encode" else coded, "-o", full, "-m", tiny_model)
    assert found.rc == 1
    assert "No space left" in found.stderr
    assert left(tmp_path) == ["talk.nacre"]


@linux
@pytest.mark.parametrize(
    "arguments", [["encode", ENGLISH, "-o", "-"], ["info", "talk.nacre"], ["verify", "talk.nacre"]], ids=str
)
def test_full_standard_output(tiny_model, tmp_path, coded, environment, arguments):
    command = [sys.executable, "-m", "nacre", *map(str, arguments), "-m", str(tiny_model)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, check=False
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_reader_that_goes_away(tiny_model, tmp_path, environment, speech):
    audio.write(tmp_path / "long.wav", np.tile(speech, 12)[None], 16_000)
    command = [sys.executable, "-m", "nacre", "encode", "long.wav", "-o", "-", "-m", str(tiny_model)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 1
    assert "Traceback" not in error
    assert "Exception ignored" not in error


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="another Ctrl-C there")
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("everybody", [True, False])
def test_ctrl_c(tiny_model, tmp_path, environment, jobs, number, everybody):
    """The long files are given up without a trace; a short one that was done stays; idle workers are silent."""
    rng = np.random.default_rng(0)
    for name in ("long.wav", "longer.wav"):
        with audio.AudioWriter(tmp_path / name, 16_000, 1) as file:
            noise = rng.normal(0, 0.1, (1, 160_000)).astype(np.float32)
            for _ in range(90):
                file.write(noise)
    audio.write(tmp_path / "short.wav", noise, 16_000)
    command = [sys.executable, "-m", "nacre", "encode", "short.wav", "long.wav", "longer.wav", "-o", "out"]
    process = subprocess.Popen(
        [*command, "-m", str(tiny_model), "--jobs", str(jobs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + HUNG_S
    out = tmp_path / "out"
    while time.monotonic() < deadline and not ((out / "short.nacre").exists() and list(out.glob(".nacre-*"))):
        time.sleep(0.02)
    os.killpg(process.pid, number) if everybody else process.send_signal(number)
    printed, error = process.communicate(timeout=HUNG_S)
    assert process.returncode == 128 + number
    assert printed == ""
    assert "Traceback" not in error
    assert left(out) == ["short.nacre"]


@pytest.mark.skipif(sys.platform == "win32", reason="another Ctrl-C there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_a_library_makes_another_error_of_is_one_still(nacre, monkeypatch, number):
    def imports(*_):
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(number, signal.default_int_handler)
    monkeypatch.setattr("nacre.cli.codec.metadata_of", imports)
    found = nacre("info", "a.nacre")
    for each, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(each, handler)
    assert (found.rc, found.stderr) == (128 + number, "stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="another Ctrl-C there")
@pytest.mark.parametrize("module", ["typer", "numpy", "nacre.cli.codec"])
def test_a_stop_while_modules_are_imported(environment, module):
    start = f"""import signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Stop())
from nacre.__main__ import main
sys.argv = ["nacre", "encode", "a.wav"]
main()"""
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_files_joined_to_one_are_decoded_and_verified(nacre, tiny_model, tmp_path, coded, speech):
    whole = coded.read_bytes()
    nacre("encode", ENGLISH, "-o", "static.nacre", "--prior", "static", "-m", tiny_model)
    other = (tmp_path / "static.nacre").read_bytes()
    (tmp_path / "joined.nacre").write_bytes(whole + other + whole)
    found = nacre("decode", "joined.nacre", "-o", "joined.wav", "-m", tiny_model)
    assert found.rc == 0, found.stderr
    for name in ("talk", "static"):
        nacre("decode", f"{name}.nacre", "-o", f"{name}.wav", "-m", tiny_model)
    one, two = (audio.read(tmp_path / f"{name}.wav")[0] for name in ("talk", "static"))
    np.testing.assert_array_equal(audio.read(tmp_path / "joined.wav")[0], np.concatenate([one, two, one], 1))
    assert b"in 3 joined files" in nacre("verify", "joined.nacre", "-m", tiny_model).stdout
    for command in (("info", "joined.nacre"), ("inspect", "joined.nacre", "-o", "a.html")):
        found = nacre(*command, "-m", tiny_model)
        assert found.rc == 1
        assert "holds 3 joined .nacre files" in found.stderr
    damage(tmp_path / "talk.nacre", 4)
    (tmp_path / "joined.nacre").write_bytes(whole + coded.read_bytes()[:-30])
    found = nacre("decode", "joined.nacre", "-o", "joined.wav", "-f", "-m", tiny_model)
    assert found.rc == 1
    assert "0:05.9 to 0:06.1" in found.stderr
    stereo = container.pack_header(container.Header(whole[6:10], 16_000, 2, 0, 10))
    (tmp_path / "joined.nacre").write_bytes(whole + stereo)
    found = nacre("decode", "joined.nacre", "-o", "joined.wav", "-f", "-m", tiny_model)
    assert found.rc == 1
    assert "different rates or channels" in found.stderr
    np.testing.assert_array_equal(audio.read(tmp_path / "joined.wav")[0], one)


def test_trouble_with_a_file_nobody_named(nacre, monkeypatch, tiny_model, tmp_path, many):
    """The folder of passing files is full: that input fails, the others go on."""
    work = cli.encode_file

    def full_once(source: str, target: str, **options: object) -> str:
        if source == "one.wav":
            raise OSError(28, "No space left on device", "/tmp/spool")
        return work(source, target, **options)

    monkeypatch.setattr(cli, "encode_file", full_once)
    found = nacre("encode", "one.wav", "two.flac", "-o", "out", "-m", tiny_model)
    assert found.rc == 1
    assert "error: one.wav failed: /tmp/spool: No space left on device; check the disk" in found.stderr
    assert left(tmp_path / "out") == ["two.nacre"]
