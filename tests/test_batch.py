"""Folders and long lists: trees kept, names that never change, batches that are stopped and go on, reports."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HUNG_S, Ran

from nacre.batch import report, sources
from nacre.batch.sources import CODED, find, targets
from nacre.core.errors import AudioError, UsageError
from nacre.evaluate.choice import find_clips
from nacre.io import audio, files
from nacre.io.folders import ANY_SOUND, inside

TREE = ["one.wav", "two.flac", "sub/one.wav", "sub/deep/three.ogg", "sub/deep/four.mp3", "other/two.wav"]


@pytest.fixture
def tree(tmp_path, speech) -> Path:
    """Recordings in folders, with other things between them."""
    for index, name in enumerate(TREE):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, speech[None, 8000 * index : 8000 * index + 8000], 16_000)
    (tmp_path / "in/notes.txt").write_text("words")
    (tmp_path / "in/.hidden.wav").write_text("words")
    (tmp_path / "in/sub/cover.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "in"


def good(ran: Ran) -> Ran:
    """What a command left that ended well; else a test that fails tells what it said."""
    assert ran.rc == 0, f"exit code {ran.rc}\n{ran.stdout.decode(errors='replace')}\n{ran.stderr}"
    return ran


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def coded(names: list[str], suffix: str = ".nacre") -> list[str]:
    return sorted(str(Path(name).with_suffix(suffix)) for name in names)


@pytest.mark.parametrize("jobs", [1, 2])
def test_tree_there_and_back(run, tiny_model, tmp_path, tree, jobs):
    found = good(run("encode", "-r", "in", "-o", "coded", "-m", tiny_model, "--jobs", jobs))
    assert below(tmp_path / "coded") == coded(TREE)
    assert "6 files: 6 done" in found.stderr
    assert " : 1)" in found.stderr
    found = good(run("decode", "--recursive", "coded", "-o", "back", "-m", tiny_model, "--jobs", jobs))
    assert below(tmp_path / "back") == coded(TREE, ".wav")
    found = good(run("verify", "-r", "coded", "-m", tiny_model))
    assert found.stdout.count(b"all good") == 6


def test_folder_needs_recursive(nacre, tiny_model, tree):
    found = nacre("encode", "in", "in/one.wav", "-o", "out/", "-m", tiny_model)
    assert found.rc == 1
    assert "error: in is a folder; give a file, or use --recursive" in found.stderr
    assert os.listdir("out") == ["one.nacre"]


def test_a_folder_of_one_file_is_a_folder(nacre, tiny_model, tmp_path, speech):
    (tmp_path / "in").mkdir()
    audio.write(tmp_path / "in/a.wav", speech[None, :8000], 16_000)
    good(nacre("encode", "-r", "in", "-o", "out", "-m", tiny_model))
    assert below(tmp_path / "out") == ["a.nacre"]
    (tmp_path / "list").write_text("in/a.wav\n")
    good(nacre("encode", "--files-from", "list", "-o", "out", "-m", tiny_model))
    assert below(tmp_path / "out") == ["a.nacre", "in/a.nacre"]


def test_output_is_beside_by_default_and_parents_are_made(nacre, tiny_model, tmp_path, tree):
    good(nacre("encode", "in/one.wav", "in/sub/one.wav", "-m", tiny_model))
    assert {"one.nacre", "sub/one.nacre"} <= set(below(tree))
    good(nacre("encode", "in/one.wav", "-o", "new/folders/x.nacre", "-m", tiny_model))
    good(nacre("decode", "new/folders/x.nacre", "-m", tiny_model))
    assert below(tmp_path / "new") == ["folders/x.nacre", "folders/x.wav"]
    good(nacre("features", "in/two.flac", "-k", "logmel"))
    assert np.load(tree / "two.npy").shape[1] == 80


def test_what_is_there_is_left_out_and_counted(nacre, tiny_model, tmp_path, tree):
    arguments = "encode", "-r", "in", "-o", "out", "-m", tiny_model
    good(nacre(*arguments))
    assert nacre(*arguments).rc == 1  # without --skip-existing
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in coded(TREE)}
    (tmp_path / "out/sub/one.nacre").unlink()
    found = good(nacre(*arguments, "--skip-existing"))
    assert "6 files: 1 done, 5 skipped" in found.stderr
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in coded(TREE)}
    assert {name for name in before if before[name] == after[name]} >= set(coded(TREE)) - {"sub/one.nacre"}
    found = good(nacre(*arguments, "--skip-existing"))
    assert "6 skipped" in found.stderr


@pytest.mark.parametrize("between", ["\n", "\0"])
def test_inputs_from_a_list(run, tiny_model, tmp_path, tree, between):
    names = ["in/one.wav", "in/sub/../sub/one.wav", str(tree / "two.flac"), "in/one.wav"]
    (tmp_path / "list").write_text(between.join(names) + between)
    for listed, stdin in (("list", b""), ("-", (tmp_path / "list").read_bytes())):
        found = good(run("encode", "--files-from", listed, "-o", f"out{listed}", "-m", tiny_model, stdin=stdin))
        place = tree.relative_to(tree.anchor) / "two.nacre"
        assert below(tmp_path / f"out{listed}") == sorted(["in/one.nacre", "in/sub/one.nacre", str(place)])
    found = run("encode", "--files-from", "no-list", "-o", "out", "-m", tiny_model)
    assert found.rc == 2


def test_names_that_cannot_be_meant(nacre, tiny_model, tree):
    for arguments, word in (
        (("", "-o", "out"), "name of an input is empty"),
        (("--files-from", "in/one.wav", "-o", "out"), "is sound, not a list of names; pass it as an input"),
        (("--files-from", "in/two.flac", "-o", "out"), "is sound, not a list of names"),
    ):
        found = nacre("encode", *arguments, "-m", tiny_model)
        assert (found.rc, found.stderr.count("\n")) == (2, 1)
        assert word in found.stderr
    for command in (("inspect", "in", "-o", "a.html"), ("interpolate", "in", "in/one.wav", "-o", "a.wav")):
        found = nacre(*command, "-m", tiny_model)
        assert (found.rc, found.stderr) == (1, "error: in is a folder; give a file\n")
    found = nacre("from-tokens", "gone.npz", "-m", tiny_model)
    assert "gone.npz cannot be read (No such file or directory); check its name" in found.stderr


def test_an_empty_list_is_no_error(run, tiny_model, tmp_path):
    (tmp_path / "list").touch()
    found = good(run("encode", "--files-from", "list", "-o", "out", "--report", "report.csv", "-m", tiny_model))
    assert "nothing to do" in found.stderr
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1
    assert run("encode", "-o", "out", "-m", tiny_model).rc == 2


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_report_has_a_row_for_each_file(nacre, tiny_model, tmp_path, tree, suffix):
    (tree / "bad.wav").write_text("no sound")
    whole = (tree / "other/two.wav").read_bytes()
    (tree / "cut.wav").write_bytes(whole[:9000])
    arguments = "encode", "-r", "in", "-o", "out", "-m", tiny_model, "--skip-existing", "--report", f"r.{suffix}"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/one.nacre").write_bytes(b"there")
    found = nacre(*arguments)
    assert found.rc == 1
    text = (tmp_path / f"r.{suffix}").read_text()
    rows = json.loads(text) if suffix == "json" else list(csv.DictReader(text.splitlines()))
    known = {row["source"]: row for row in rows}
    assert len(rows) == 8
    assert known["in/one.wav"]["status"] == "skipped"
    assert known["in/bad.wav"]["status"] == "failed"
    assert "bad.wav" in known["in/bad.wav"]["error"]
    assert known["in/cut.wav"]["status"] == "incomplete"
    good = known["in/sub/one.wav"]
    assert (good["status"], float(good["seconds"]), int(good["bytes_in"])) == ("done", 0.5, 16_044)
    assert int(good["bytes_out"]) == (tmp_path / "out/sub/one.nacre").stat().st_size
    lines = found.stderr.splitlines()
    assert lines[-3] == "2 of 8 files have errors:"
    assert {line.split(" is ")[0].strip() for line in lines[-2:]} == {"in/bad.wav", "in/cut.wav"}
    assert nacre(*arguments[:-1], "r.txt").rc == 2


def test_info_and_features_and_denoise_of_folders(run, tiny_model, tmp_path, tree):
    good(run("encode", "-r", "in", "-o", "coded", "-m", tiny_model))
    found = run("info", "-r", "coded", "--json", "-m", tiny_model)
    assert [facts["file"] for facts in json.loads(found.stdout)] == [f"coded/{name}" for name in found_order()]
    good(run("features", "-r", "in", "-o", "arrays", "-k", "logmel"))
    assert below(tmp_path / "arrays") == coded(TREE, ".npy")
    (tree / "cut.wav").write_bytes((tree / "one.wav").read_bytes()[:9000])
    found = run("features", "-r", "in", "-o", "all.npz", "-k", "logmel", "--pool", "mean")
    assert found.rc == 1
    assert "cut.wav is cut off after" in found.stderr
    with np.load(tmp_path / "all.npz") as arrays:
        assert sorted(arrays) == coded([*TREE, "cut.wav"], "")


def found_order() -> list[str]:
    return ["one.nacre", "two.nacre", "other/two.nacre", "sub/one.nacre", "sub/deep/four.nacre", "sub/deep/three.nacre"]


def test_links_and_loops(tmp_path, tree):
    (tree / "loop").symlink_to(tree)
    (tree / "again.wav").symlink_to("one.wav")
    (tree / "gone.wav").symlink_to("nowhere.wav")
    found = [str(source.place) for source in find([str(tree)], ANY_SOUND, recursive=True)]
    assert sorted(found) == sorted([*TREE[1:], "again.wav"])  # one of two names of the same file


def test_training_and_evaluation_find_what_a_batch_finds(tmp_path):
    names = ["a.m4a", "b.AIFF", "deep/c.webm", "d.wav"]
    for name in [*names, "notes.txt", ".hidden.wav"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_clips(tmp_path, None) == sorted(names)
    found = find([str(tmp_path)], ANY_SOUND, recursive=True)
    assert sorted(source.place.as_posix() for source in found) == sorted(names)
    assert sorted(inside(tmp_path)) == sorted(str(tmp_path / name) for name in names)


def test_places_of_outputs(tmp_path):
    for name in ("a.wav", "b.wav", "b.mp3"):
        (tmp_path / name).touch()
    found = find([str(tmp_path)], ANY_SOUND, recursive=True)
    assert [pair.target for pair in targets(found, "o", ".nacre")] == ["o/a.nacre", "o/b.mp3.nacre", "o/b.wav.nacre"]
    back = [sources.Source(f"o/{name}", Path(name), below=True) for name in ("a.nacre", "b.mp3.nacre", "b.wav.nacre")]
    assert [pair.target for pair in targets(back, "w", ".wav")] == ["w/a.wav", "w/b.mp3.wav", "w/b.wav"]
    beside = targets(find([str(tmp_path / "a.wav")], ANY_SOUND), None, ".wav", "-denoised")
    assert beside[0].target == str(tmp_path / "a-denoised.wav")
    with pytest.raises(UsageError, match=r"holds no \.nacre files"):
        find([str(tmp_path)], CODED, recursive=True)
    with pytest.raises(AudioError, match="several outputs need a folder"):
        targets(found, str(tmp_path / "a.wav"), ".nacre")
    with pytest.raises(UsageError, match="names one file for"):
        targets(found, "all.nacre", ".nacre")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="another kill there")
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_batch_goes_on(tiny_model, tmp_path, environment, jobs):
    """Killed without a chance to clean up: workers end, nothing half has a final name, the next run does the rest."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for index in range(12):
        seconds = 60 if index % 4 == 3 else 1
        noise = rng.normal(0, 0.1, (1, 16_000 * seconds)).astype(np.float32)
        audio.write(tmp_path / f"in/{index:02d}.wav", noise, 16_000)
    command = [sys.executable, "-m", "nacre", "encode", "-r", "in", "-o", "out", "-m", str(tiny_model), "-q"]
    command += ["--skip-existing", "--jobs", str(jobs)]
    for wanted in (2, 6):
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
        deadline = time.monotonic() + HUNG_S
        while time.monotonic() < deadline and len(list((tmp_path / "out").glob("*.nacre"))) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        while time.monotonic() < deadline and group_lives(process.pid):
            time.sleep(0.05)
        assert not group_lives(process.pid)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nacre")}
    assert len(done) >= 6
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    assert below(tmp_path / "out") == [f"{index:02d}.nacre" for index in range(12)]
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    verify = [sys.executable, "-m", "nacre", "verify", "-r", "out", "-m", str(tiny_model)]
    assert subprocess.run(verify, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_file_that_is_swept_away_before_it_is_marked_is_made_again(tmp_path, monkeypatch):
    import fcntl

    swept = []

    def opened(path, mode):
        file = open(path, mode)  # noqa: SIM115
        if mode == "xb" and not swept:
            other = open(path, "rb")  # noqa: SIM115
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another process is quicker
            threading.Timer(0.05, lambda: (os.unlink(path), other.close())).start()
            swept.append(path)
        return file

    monkeypatch.setattr(files, "open", opened, raising=False)
    with files.output_file(tmp_path / "a.txt") as file:
        time.sleep(0.1)
        file.write(b"whole")
    assert ((tmp_path / "a.txt").read_bytes(), len(swept)) == (b"whole", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_whole_file_is_not_swept_away_before_it_has_its_name(tmp_path, monkeypatch):
    def renamed(part, path, rename=os.replace):
        files._swept.clear()  # as in another process, which begins just now
        files._sweep(tmp_path)
        rename(part, path)

    monkeypatch.setattr(files.os, "replace", renamed)
    with files.output_file(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"whole")]


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_numbers_as_people_read_them():
    assert report.duration(3725.4) == "1:02:05"
    assert [report.size(n) for n in (12, 1234, 5_000_000, 7e12)] == ["12 bytes", "1.2 kB", "5.0 MB", "7000.0 GB"]
