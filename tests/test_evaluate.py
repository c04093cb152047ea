"""Evaluation: figures against known values, peers that misbehave, runs that are killed and go on."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import shlex
import shutil
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from rich.console import Console

import nacre
from nacre.core.errors import NacreError, UsageError
from nacre.evaluate import (
    choice,
    enhanced,
    hiss,
    journal,
    judges,
    loss,
    measures,
    metrics,
    opus_encode,
    payload,
    peers,
    programs,
    run,
    stats,
    tables,
    work,
)
from nacre.evaluate.measures import Sound
from nacre.evaluate.metrics import METRICS
from nacre.evaluate.peer import fill
from nacre.evaluate.programs import PeerError
from nacre.evaluate.results import Memory, Run, Score
from nacre.io import audio
from nacre.link.line import Line, arrivals
from nacre.model import bundle as bundles

RATE_HZ = 16_000
QUICK = "si_sdr_db,logmel_db"  # metrics that need no further package
FAKE = """
import sys, time, wave
verb, source, target = sys.argv[1:4]
data = open(source, "rb").read()
if verb == "crash":
    sys.exit("out of cheese")
if verb == "nothing":
    sys.exit(0)
if verb == "slow":
    time.sleep(0.2)
if verb == "short":
    with wave.open(source) as file, wave.open(target, "wb") as out:
        out.setparams(file.getparams())
        out.writeframes(file.readframes(file.getnframes() - 100))
elif verb == "late":
    with wave.open(source) as file, wave.open(target, "wb") as out:
        out.setparams(file.getparams())
        out.writeframes(bytes(640) + file.readframes(file.getnframes() - 320))
else:
    open(target, "wb").write(data)
"""


@pytest.fixture
def clips(tmp_path, speech) -> Path:
    """Three clips of a second or so, in a tree."""
    folder = tmp_path / "clips"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("a.wav", "deep/b.flac", "c.wav")):
        start = 9000 * index
        audio.write(folder / name, speech[None, start : start + 16_000 + 500 * index], RATE_HZ)
    return folder


@pytest.fixture
def fake(tmp_path):
    """`fake("copy", "short")` gives the commands of a codec made of these two verbs."""
    script = tmp_path / "fake codec.py"
    script.write_text(FAKE)

    def commands(name: str, encode: str = "copy", decode: str = "copy", delay: str = "") -> str:
        parts = [
            f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {verb} {{in}} {{out}}"
            for verb in (encode, decode)
        ]
        return f"{name}=" + " ::: ".join(parts) + delay

    return commands


def options(folder: Path, model: Path, **more) -> choice.Options:
    plain = {"bitrates_kbps": (1.0,), "peers": (), "metrics": QUICK, "jobs": 1, "quiet": True, "examples": 0}
    return choice.Options(folder, models=(str(model),), **plain | more)


def evaluate(chosen: choice.Options) -> tuple[bool, str]:
    """Whether all went well, and the messages."""
    say = Console(record=True, stderr=True, width=200)
    return run.evaluate(chosen, say), say.export_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same_each_time(path: Path) -> list[dict[str, str]]:
    measured = "code_s", "peak_mb"
    return [{name: value for name, value in row.items() if not name.endswith(measured)} for row in rows(path)]


# ---------------------------------------------------------------- statistics


def curve(factor: float = 1.0, points: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rates = np.geomspace(1, 16, points)
    return rates * factor, 1 + np.log2(1 + rates)


def test_bd_rate_against_itself_is_nothing():
    assert stats.bd_rate(*curve(), *curve()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("factor", "percent"), [(0.5, -50), (2, 100), (0.9, -10)])
def test_bd_rate_of_a_curve_at_another_rate(factor, percent):
    assert stats.bd_rate(*curve(factor), *curve()) == pytest.approx(percent, abs=1e-6)


def test_bd_rate_does_not_depend_on_order_or_on_points_that_cost_more_for_less():
    rates, quality = curve()
    shuffled = [3, 0, 4, 1, 2]
    more = np.append(rates[shuffled], 20.0), np.append(quality[shuffled], 1.5)
    assert stats.bd_rate(*more, *curve(2)) == pytest.approx(-50, abs=1e-6)


def test_bd_rate_says_what_is_shared():
    rates, quality = curve()
    found = stats.log_ratio(rates, quality, rates, quality + 1)
    assert found is not None
    assert found.low == pytest.approx(quality[0] + 1)
    assert found.share == pytest.approx((quality[-1] - quality[0] - 1) / (quality[-1] - quality[0]))
    assert stats.bd_rate(rates, quality, rates, quality + 9) is None
    assert stats.bd_rate(rates[:1], quality[:1], rates, quality) is None


def test_interval_holds_the_mean_and_repeats():
    values = np.random.default_rng(1).normal(3, 1, 400)
    found = stats.interval(values)
    assert found == stats.interval(list(values))
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(found.mean - half, abs=0.02)
    assert found.high == pytest.approx(found.mean + half, abs=0.02)
    assert stats.interval([2.0]) == stats.Interval(2.0, 2.0, 2.0, 1)


def made_up(system: str, factor: float, clip_count: int = 6) -> list[Score]:
    """Rows whose distance falls as the rate rises; `factor` on the bytes."""
    found = []
    for clip in range(clip_count):
        for kbps in (1.0, 2.0, 4.0, 8.0):
            size = round(1000 * kbps * factor)
            figures = {"logmel_db": 10 - math.log2(kbps) + 0.1 * clip, "si_sdr_db": math.log2(kbps) + 0.2 * clip}
            found.append(Score(f"{clip}.wav", system, kbps, 4.0, size + 50, size, 0.04, 0.02, figures))
    return found


def test_points_are_over_common_clips():
    scores = made_up("nacre a", 1) + made_up("opus", 2)
    scores = [s for s in scores if (s.clip, s.system, s.target_kbps) != ("0.wav", "opus", 2.0)]
    scores.append(Score("0.wav", "opus", 2.0, 4.0, failure="codec: crashed"))
    scores += [Score(f"{clip}.wav", "broken", 1.0, 4.0, failure="codec: crashed") for clip in range(6)]
    points = {(point.system, point.target_kbps): point for point in stats.points(scores)}
    assert all(point.metrics["logmel_db"].count == 5 for key, point in points.items() if key[0] != "broken")
    assert points["opus", 2.0].failed == 1
    assert points["broken", 1.0].metrics == {}
    point = points["nacre a", 4.0]
    assert point.rate_kbps == pytest.approx(8 * 4000 / 4 / 1000)
    assert point.file_kbps == pytest.approx(8 * 4050 / 4 / 1000)
    assert (point.encode_x, point.decode_x) == (pytest.approx(100), pytest.approx(200))


def test_bd_rates_know_which_way_is_better():
    found = stats.bd_rates(made_up("nacre a", 1) + made_up("opus", 2))
    assert {(bd.system, bd.peer, bd.metric) for bd in found} == {
        ("nacre a", "opus", "si_sdr_db"),
        ("nacre a", "opus", "logmel_db"),
    }
    for bd in found:
        assert bd.percent == pytest.approx(-50, abs=1e-6)
        assert bd.low <= bd.percent + 1e-6
        assert bd.high >= bd.percent - 1e-6
        assert bd.from_quality < bd.to_quality


def test_differences_pair_clips_at_the_nearest_rate():
    scores = made_up("nacre a", 1) + made_up("opus", 1.1)
    found = [d for d in stats.differences(scores) if d.metric == "si_sdr_db" and d.target_kbps == 4.0]
    assert len(found) == 1
    assert found[0].difference == stats.Interval(0, 0, 0, 6)
    assert not stats.differences(made_up("nacre a", 1) + made_up("opus", 1.4))


def test_worst_lists_each_clip_once():
    scores = made_up("nacre a", 1) + made_up("opus", 1)
    assert [score.clip for score in stats.worst(scores, "si_sdr_db", 3)] == ["0.wav", "1.wav", "2.wav"]
    assert [score.clip for score in stats.worst(scores, "logmel_db", 2)] == ["5.wav", "4.wav"]


def test_history_grows_and_keeps_what_it_has(tmp_path, environment):
    pytest.importorskip("typer")
    table, whole = tmp_path / "history.csv", tmp_path / "out.json"
    table.write_text("date,model,kbps\n2026-01-02,a,1.000\n")
    facts = {"date": "2026-03-04 05:06 UTC", "model a": "fingerprint 0123abcd, 1.0 MB"}
    memory = [Memory("nacre a", 8.0, 4.0, 120.4, 130.6)]
    tables.write_json(whole, Run(made_up("nacre a", 1) + made_up("opus", 2), facts, [], [], memory), force=False)
    script = Path(__file__).parent.parent / "bench" / "history.py"
    command = [sys.executable, str(script), str(whole), "--history", str(table)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    first, *added = rows(table)
    assert (first["date"], first["kbps"], first["fingerprint"], first["pesq_wb"]) == ("2026-01-02", "1.000", "", "")
    assert [row["kbps"] for row in added] == ["2.000", "4.000", "8.000", "16.000"]
    assert {(row["date"], row["model"], row["fingerprint"]) for row in added} == {("2026-03-04", "a", "0123abcd")}
    assert {(row["encode_x"], row["encode_mb"], row["decode_mb"]) for row in added} == {("100", "120", "131")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert len(rows(table)) == 9


# ---------------------------------------------------------------- metrics


def test_every_metric_says_what_it_cannot_see():
    assert all(metric.blind and metric.meaning and metric.better in (1, -1) for metric in METRICS.values())


@pytest.mark.parametrize(
    "name", [name for name in METRICS if name not in ("dnsmos", "plcmos", "wer") and "hiss" not in name]
)
def test_metric_prefers_the_same_to_a_little_noise_to_much(name, speech):
    need(name)
    clip = speech[:40_000]
    noise = np.random.default_rng(0).normal(0, 1, len(clip)).astype(np.float32)
    original = metrics.pieces(clip)
    figures = []
    for amount in (0, 0.003, 0.05):
        found, failures = metrics.score(original, clip + amount * noise, [name])
        assert not failures
        figures.append(METRICS[name].merit(found[name]))
    assert figures[0] > figures[1] > figures[2]


def test_estoi_repeats_to_the_last_digit(speech):
    pytest.importorskip("pystoi")
    noisy = speech + np.random.default_rng(0).normal(0, 0.01, len(speech)).astype(np.float32)
    first, second = (measures.intelligibility(Sound(speech), Sound(noisy), extended=True) for _ in range(2))
    assert first == second


def test_copies_score_as_copies(speech):
    found, _ = metrics.score(metrics.pieces(speech), speech, QUICK.split(",") + ["f0_cents", "voicing_percent"])
    assert found == {"si_sdr_db": 100.0, "logmel_db": 0.0, "f0_cents": 0.0, "voicing_percent": 0.0}
    assert measures.si_sdr_db(Sound(speech), Sound(0.5 * speech)) > 90


def test_long_sound_is_scored_in_pieces(speech):
    wave = np.tile(speech, 5)[: 21 * RATE_HZ]
    parts = metrics.pieces(wave)
    assert [len(part.wave) for part in parts] == [168_000, 168_000]
    quiet = wave.copy()
    quiet[168_000:] = 0  # one piece cannot be measured
    found, failures = metrics.score(metrics.pieces(quiet), wave, ["f0_cents"])
    assert found
    assert not failures


@pytest.mark.parametrize("hz", [70, 133.3, 220, 390])
def test_pitch_of_a_tone(hz):
    at_s = np.arange(16_000) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * hz * at_s) + 0.1 * np.sin(4 * np.pi * hz * at_s + 1)
    pitch = measures.pitch_hz(tone.astype(np.float32))[5:-10]
    assert np.abs(1200 * np.log2(pitch / hz)).max() < 5


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert np.mean(measures.pitch_hz(noise) > 0) < 0.05


def test_what_cannot_be_measured_is_said(speech):
    original = metrics.pieces(speech[:16_000])
    found, failures = metrics.score(original, np.zeros(16_000, np.float32), ["f0_cents", "si_sdr_db"])
    assert found == {"si_sdr_db": -100.0}
    assert failures == ["f0_cents: only 0 frames are voiced in both sounds; the metric needs 10"]


def test_silence_has_no_pesq(speech):
    pytest.importorskip("pesq")
    found, failures = metrics.score(metrics.pieces(speech), np.zeros_like(speech), ["pesq_wb"])
    assert not found
    assert "silence" in failures[0]


def test_dnsmos_hears_noise(speech):
    pytest.importorskip("speechmos")
    noise = np.random.default_rng(0).normal(0, 0.02, 40_000).astype(np.float32)
    clean, noisy = (
        measures.dnsmos(Sound(speech), Sound(sound)) for sound in (speech[:40_000], speech[:40_000] + noise)
    )
    assert 1 < noisy < clean - 0.3 < 5


def test_recogniser_hears_the_same_whatever_came_before(speech):
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    first = measures.transcript(speech[:20_000])
    assert first
    measures.transcript(speech[40_000:56_000])
    assert measures.word_error(Sound(speech[:20_000]), Sound(speech[:20_000])) == 0


def test_metrics_by_name():
    assert metrics.choose(QUICK, asr=False) == ["si_sdr_db", "logmel_db"]
    for wrong in ("pesq", ""):
        with pytest.raises(UsageError, match="metrics"):
            metrics.choose(wrong, asr=False)
    with pytest.raises(NacreError, match=r"pip install 'nacre\[evaluate\]'"):
        metrics.require(["numpy", "no_such_package"])
    judged = {"distillmos", "visqol", "hiss_repeat", "hiss_level_db", "hiss_flicker"}
    assert judged <= set(metrics.choose(None, asr=False)) == set(METRICS) - {"dnsmos", "plcmos", "wer"}
    assert set(metrics.choose("all", asr=False)) == set(METRICS) - {"wer"}


@pytest.fixture
def absent(monkeypatch):
    """`absent("pesq")` hides packages from the search for modules."""

    def hide(*packages: str) -> None:
        find = metrics.importlib.util.find_spec
        monkeypatch.setattr(
            metrics.importlib.util, "find_spec", lambda name, *more: None if name in packages else find(name, *more)
        )

    return hide


def test_metrics_without_their_package_are_left_out_with_the_command(absent):
    absent("pesq", "visqol", "xls_r_sqa")
    notes: list[str] = []
    wanted = ["distillmos", "visqol", "pesq_wb", "si_sdr_db"]
    assert metrics.available(wanted, notes) == ["si_sdr_db"]
    assert [note.split()[0] for note in notes] == wanted[:3]
    for note, command in zip(
        notes,
        (
            "pip install --no-deps distillmos xls-r-sqa",
            "pip install --no-deps visqol-python",
            "pip install 'nacre[pesq]'",
        ),
        strict=True,
    ):
        assert command in note
    with pytest.raises(NacreError, match=r"nacre\[pesq\]"):
        metrics.available(["pesq_wb"], [])


def test_run_goes_on_without_a_metric(clips, tiny_model, tmp_path, absent):
    absent("pesq")
    table = tmp_path / "out.csv"
    good, said = evaluate(options(clips, tiny_model, metrics="pesq_wb,si_sdr_db", csv=table))
    assert not good  # it was asked for by name
    assert "pesq_wb is left out: it needs pesq; run pip install 'nacre[pesq]'" in said
    assert all(row["si_sdr_db"] and "pesq_wb" not in row for row in rows(table))


def hisses(seconds: float = 2.0) -> np.ndarray:
    """White noise at 16 kHz [N], which hisses throughout."""
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)


HISS = ["hiss_repeat", "hiss_level_db", "hiss_flicker"]


def test_hiss_as_in_life_scores_so():
    found, failures = metrics.score(metrics.pieces(hisses()), hisses(), HISS)
    assert not failures
    assert abs(found["hiss_repeat"]) < 0.05
    assert (found["hiss_level_db"], found["hiss_flicker"]) == (0, 1)


@pytest.mark.parametrize("gain_db", [-6.0, 3.0])
def test_level_of_hiss_is_that_of_the_decoded(gain_db):
    found, _ = metrics.score(metrics.pieces(hisses()), hisses() * np.float32(10 ** (gain_db / 20)), HISS)
    assert found["hiss_level_db"] == pytest.approx(gain_db, abs=1e-3)


def test_hiss_that_comes_again_is_found():
    wave = hisses()
    buzz, near, later = (np.tile(wave[:period], 100)[:32_000] for period in (320, 360, 640))
    for again, least, most in ((buzz, 0.99, 1.01), (near, -0.2, 0.2), (later, -0.2, 0.2)):
        assert least < metrics.score(metrics.pieces(wave[: len(buzz)]), again, HISS)[0]["hiss_repeat"] < most
    still = np.tile(wave[: hiss.WINDOW], len(wave) // hiss.WINDOW)
    assert metrics.score(metrics.pieces(wave[: len(still)]), still, HISS)[0]["hiss_flicker"] < 0.01


def test_clip_without_hiss_has_no_figure_and_no_failure(speech):
    tone = 0.3 * np.sin(np.arange(32_000, dtype=np.float32) / 3)
    assert metrics.score(metrics.pieces(tone), tone, HISS) == ({}, [])
    assert hiss.hissing(hiss.band_db(np.zeros(0, np.float32))).shape == (0,)


def test_metrics_with_an_aim_are_judged_by_their_distance_to_it():
    level = METRICS["hiss_level_db"]
    assert level.merit(0.5) == level.merit(-0.5) > level.merit(1)
    assert METRICS["hiss_flicker"].merit(1) == 0
    assert all(0 not in (METRICS[name].merit(value) for value in (-3.0, 3.0)) for name in HISS)
    rows = [
        Score(f"{at}.wav", "nacre a", 1.0, 4.0, 99, 99, metrics={"hiss_level_db": value})
        for at, value in enumerate((0.1, -4.0, 2.0))
    ]
    assert [score.clip for score in stats.worst(rows, "hiss_level_db", 2)] == ["1.wav", "2.wav"]
    peers_rows = [replace(row, system="opus", target_kbps=kbps) for row in rows for kbps in (1.0, 2.0)]
    assert stats.bd_rates(rows + [replace(row, target_kbps=2.0) for row in rows] + peers_rows) == []


def test_sparse_metric_keeps_its_means():
    scores = made_up("nacre a", 1) + made_up("opus", 2)
    few = [replace(s, metrics={"hiss_repeat": 0.5} if s.clip in ("0.wav", "1.wav") else {}) for s in scores]
    assert {point.metrics["hiss_repeat"].count for point in stats.points(few)} == {2}


# ---------------------------------------------------------------- judges


def need(name: str) -> None:
    """Skip where the metric's packages are not there."""
    if METRICS[name].missing():
        pytest.skip(METRICS[name].install)


def test_distillmos_hears_noise_and_needs_no_torchaudio(speech):
    need("distillmos")
    noisy = speech + 0.3 * hisses(9)[: len(speech)]
    clean, worse = (judges.distillmos(Sound(speech), Sound(sound)) for sound in (speech, noisy))
    assert 1 < worse + 0.5 < clean < 5
    assert "torchaudio" not in sys.modules


def test_stand_in_for_torchaudio_leaves_what_was_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", real := object())
    with judges.without_torchaudio():
        assert sys.modules["torchaudio"] is not real
    assert sys.modules["torchaudio"] is real


def test_visqol_of_a_copy_is_high_and_quiet(speech, capfd):
    need("visqol")
    judges._visqol.cache_clear()  # the network announces itself when it is loaded
    clip = speech[:32_000]
    assert 4.2 < judges.visqol(Sound(clip), Sound(clip)) < 4.9  # the mapping without its network would say 5
    assert capfd.readouterr().err == ""


def test_plcmos_hears_gaps_and_repeats(speech):
    need("plcmos")
    gaps = speech[:48_000].copy()
    for start in range(4_000, 44_000, 4_000):
        gaps[start : start + 960] = 0
    whole, broken = (judges.plcmos(Sound(speech), Sound(sound)) for sound in (speech[:48_000], gaps))
    assert 1 < broken + 0.5 < whole < 5
    assert judges.plcmos(Sound(speech), Sound(gaps)) == broken
    with pytest.raises(ValueError, match="silence"):
        judges.plcmos(Sound(speech), Sound(np.zeros(16_000, np.float32)))


def test_no_judge_is_a_training_loss():
    """What is trained on stops being a judge; a run of the trainer may not even load one."""
    pytest.importorskip("torch")
    folder = Path(run.__file__).parent.parent / "train"
    modules = sorted(f"nacre.train.{path.stem}" for path in folder.glob("*.py"))
    assert len(modules) > 5
    judged = {package for metric in METRICS.values() for package in metric.packages} - {"torch", "scipy"} | {"pesq"}
    code = f"import sys, importlib; [importlib.import_module(name) for name in {modules}]; print(sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "nacre.train.losses" in told
    for name in (*judged, "nacre.evaluate"):
        assert f"'{name}'" not in told
        assert not [path.name for path in folder.rglob("*.py") if name in path.read_text(encoding="utf-8")]


def test_lag(speech):
    late = np.pad(speech, (7, 0))[: len(speech)]
    assert measures.lag_samples(speech, late) == 7
    assert measures.lag_samples(late, speech) == -7
    noise = np.random.default_rng(0).normal(0, 0.1, len(speech)).astype(np.float32)
    assert measures.lag_samples(speech, noise) is None
    assert measures.lag_samples(speech, np.zeros_like(speech)) is None


@pytest.mark.parametrize(("window", "bands"), measures.MEL_BANDS.items())
def test_mel_bands_are_those_of_the_training_loss(window, bands):
    pytest.importorskip("torch")
    from nacre.train import losses

    ours = measures.mel_filters(window, bands)  # [bins, bands]; straight slopes in Hz, there on the mel scale
    theirs = losses.mel_filters(bands, window // 2 + 1, RATE_HZ).numpy()
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).sum(0).max() < 0.03  # of 2, for bands that share nothing


# ---------------------------------------------------------------- peers


def ogg_page(packets: list[bytes], open_end: bool = False) -> bytes:
    lacing = b""
    for packet in packets:
        lacing += bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    if open_end:
        lacing = lacing[:-1]
    head = struct.pack("<4sBBQIIIB", b"OggS", 0, 0, 0, 1, 0, 0, len(lacing))
    return head + lacing + b"".join(packets)


@pytest.mark.parametrize("sizes", [[1], [254, 255, 256], [0, 3, 510], [1000]])
def test_ogg_payload_leaves_pages_and_headers_out(sizes):
    packets = [bytes(size) for size in sizes]
    stream = ogg_page([b"head"]) + ogg_page([b"tags" * 90]) + ogg_page(packets) + ogg_page(packets)
    assert payload.ogg_payload_bytes(stream) == 2 * sum(sizes)


def test_ogg_packet_over_two_pages_counts_once():
    stream = ogg_page([b"h", b"t"]) + ogg_page([bytes(510)], open_end=True) + ogg_page([bytes(7), bytes(5)])
    assert payload.ogg_payload_bytes(stream) == 510 + 7 + 5
    split = ogg_page([b"h"]) + ogg_page([bytes(255)], open_end=True) + ogg_page([b"t", b"ab"])
    assert payload.ogg_payload_bytes(split) == 2  # the header went on over the page


def test_ogg_damage_is_said():
    with pytest.raises(PeerError, match="no page at byte"):
        payload.ogg_payload_bytes(ogg_page([b"h"]) + b"junk")


def test_mp3_payload_leaves_tags_out():
    frame = bytes.fromhex("fff348c4") + bytes(140)  # MPEG 2, 32 kb/s at 16 kHz: 144 bytes
    info = frame[:13] + b"Info" + frame[17:]
    tag = b"ID3\x04\0\0\0\0\0\x05" + bytes(5)
    assert payload.mp3_payload_bytes(tag + info + 3 * frame) == 3 * 144
    assert payload.mp3_payload_bytes(2 * frame + b"TAG" + bytes(125)) == 2 * 144
    with pytest.raises(PeerError, match="MP3"):
        payload.mp3_payload_bytes(b"RIFF" + bytes(200))


def test_amr_wb_payload_leaves_magic_and_frame_heads_out():
    speech, noise = bytes([2 << 3 | 4]) + bytes(32), bytes([9 << 3 | 4]) + bytes(5)  # 12.65 kb/s, comfort noise
    stream = b"#!AMR-WB\n" + 3 * speech + noise + bytes([15 << 3 | 4])
    assert payload.amr_wb_payload_bytes(stream) == 3 * 32 + 5
    for damaged in (stream[2:], stream + speech[:-1], stream + bytes([12 << 3])):
        with pytest.raises(PeerError, match="AMR-WB"):
            payload.amr_wb_payload_bytes(damaged)


def test_modes_are_the_nearest_to_the_asked():
    codec2, opus = peers.builtin()["codec2"], peers.builtin()["opus"]
    assert codec2.settings([1.5, 1.55, 3, 6, 9, 12]) == [1.6, 3.2]
    assert opus.settings([1.5, 3, 6, 9]) == [6, 9]
    assert opus.settings(None) == [6, 8, 10, 12, 16]
    assert codec2.mode(0.7).delay_samples == 480


@pytest.mark.parametrize("name", ["opus", "codec2", "speex", "amr-wb", "mp3"])
def test_builtin_peer_is_aligned_at_every_length(name, speech):
    peer = peers.builtin()[name]
    if peer.missing():
        pytest.skip(peer.missing())
    kbps = peer.usual_kbps[-1]
    for samples in (16_001, 45_360, 80_000):
        coded = peer.code(speech[:samples], kbps)
        assert len(coded.wave) == samples
        assert 0 < coded.payload_bytes <= coded.file_bytes
        assert coded.encode_s > 0
        lag = measures.lag_samples(speech[:samples], coded.wave)
        assert lag is None if name == "codec2" else abs(lag) <= 4


@pytest.mark.parametrize("name", ["opus-lace", "opus-nolace"])
def test_enhanced_opus_is_aligned_at_every_length(name, speech):
    peer = peers.builtin()[name]
    if peer.missing():
        pytest.skip(peer.missing())
    assert "libopus 1." in peer.version()
    for samples in (16_001, 45_360):
        coded = peer.code(speech[:samples], 12)
        assert len(coded.wave) == samples
        assert 0 < coded.payload_bytes < coded.file_bytes
        assert measures.lag_samples(speech[:samples], coded.wave) in range(-4, 5)


def test_enhancers_differ_and_packets_are_of_wide_band(speech, tmp_path):
    lace, nolace = (peers.builtin()[name] for name in ("opus-lace", "opus-nolace"))
    if lace.missing():
        pytest.skip(lace.missing())
    one, other = (peer.code(speech[:32_000], 6) for peer in (lace, nolace))
    assert one.payload_bytes == other.payload_bytes
    assert np.abs(one.wave - other.wave).max() > 0.01
    samples = np.rint(speech[:32_000] * 32767).astype("<i2").tobytes()
    packets = list(opus_encode.encode(samples, 6, enhanced.libopus()))
    assert len(packets) == 100
    assert {packet[0] >> 3 for packet in packets} == {9}  # SILK, wide band, 20 ms


def test_deep_concealment_fills_lost_packets_and_keeps_the_others(speech):
    if not enhanced.ready():
        pytest.skip(enhanced.lacks() or "node is not installed")
    wave = speech[:32_000]
    whole, sent_kbps = enhanced.call(wave, 9, Line())
    holed, _ = enhanced.call(wave, 9, Line(0.2, 1, seed=1))
    frames = [delay_s is None for delay_s in itertools.islice(arrivals(Line(0.2, 1, seed=1)), 100)]
    assert len(whole) == len(holed) == len(wave)
    assert 7 < sent_kbps < 12
    assert measures.lag_samples(wave, whole) in range(-4, 5)
    before = 320 * frames.index(True) - 240
    assert np.abs(holed[:before] - whole[:before]).max() < 0.05
    lost = np.repeat(frames, 320)
    loud = lost & (np.repeat(np.square(wave).reshape(100, 320).mean(1), 320) > 1e-4)
    assert np.square(holed[loud]).mean() > 0.1 * np.square(whole[loud]).mean()  # spoken on, not silent


def test_enhanced_opus_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(enhanced, "libopus", lambda: "/lib/libopus.so")
    monkeypatch.setenv("NODE_PATH", "")
    monkeypatch.chdir(tmp_path)
    peer = peers.builtin()["opus-lace"]
    assert "npm install @wasm-audio-decoders/opus-ml" in peer.missing()
    for place, path in (("node_modules", ""), ("far", str(tmp_path / "far"))):
        package = tmp_path / place / enhanced.DECODER / "package.json"
        package.parent.mkdir(parents=True)
        package.write_text("{}")
        monkeypatch.setenv("NODE_PATH", path)
        assert enhanced.node_modules() == str(tmp_path / place)
    assert peer.missing() == ""
    monkeypatch.setattr(enhanced, "libopus", lambda: "")
    assert "pip install 'nacre[opus]'" in peer.missing()
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert peer.missing() == "program node, Debian package nodejs"


@pytest.mark.parametrize(("place", "name"), [("av.libs", "libopus-1a2b.so.0.11.1"), ("av/.dylibs", "libopus.0.dylib")])
def test_libopus_is_found_in_the_wheel(place, name, monkeypatch, tmp_path):
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").touch()
    library = tmp_path / place / name
    library.parent.mkdir(exist_ok=True)
    (library.parent / "libopencore-amrnb.so.0").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "av", raising=False)
    assert enhanced.libopus() == ""
    library.touch()
    assert enhanced.libopus() == str(library)


def test_opus_packets_without_their_lengths():
    packets = [b"", bytes(3), bytes(300)]
    data = bytes(4) + b"".join(struct.pack("<H", len(packet)) + packet for packet in packets)
    assert enhanced.packet_bytes(data) == 303
    for damaged in (data[:-1], data + b"x"):
        with pytest.raises(PeerError, match="file of Opus packets has"):
            enhanced.packet_bytes(damaged)


def test_encoder_refuses_other_sound_in_one_line(tmp_path):
    audio.write(tmp_path / "a.wav", np.zeros((1, 800), np.float32), 8_000)
    command = [
        sys.executable,
        opus_encode.__file__,
        str(tmp_path / "a.wav"),
        str(tmp_path / "out"),
        "6",
        "/no/libopus.so",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "give 16 kHz" in done.stderr
    assert not (tmp_path / "out").exists()


def test_ffmpeg_without_an_encoder_names_the_package(monkeypatch):
    monkeypatch.setattr("nacre.evaluate.peer._ffmpeg_encoders", lambda: {"libspeex"})
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    found = peers.builtin()
    assert found["amr-wb"].missing() == "an ffmpeg with libvo_amrwbenc, as in Debian package libavcodec-extra"
    assert found["speex"].missing() == ""


def test_custom_peer_fills_in_names_with_spaces():
    peer = peers.custom("x=my\\ enc -b {kbps} -r {bps} {in} {out} ::: dec {in} {out} ::: 320")
    words = fill(peer.encode, Path("a b.wav"), Path("c"), peer.mode(6.5), RATE_HZ)
    assert words == ["my enc", "-b", "6.5", "-r", "6500", "a b.wav", "c"]
    assert peer.mode(6.5).delay_samples == 320


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "=a {in} {out} ::: b {in} {out}",
        "x=a {in} {out}",
        "x=a {in} ::: b {in} {out}",
        "x=a '{in} {out} ::: b {in} {out}",
    ],
)
def test_commands_that_cannot_be_meant(text):
    with pytest.raises(UsageError, match="peer-cmd"):
        peers.custom(text)


def test_names_are_taken_once(fake):
    for names, commands in (["opus"], [fake("opus")]), ([], [fake("x"), fake("x")]), ([], [fake("nacre y")]):
        with pytest.raises(UsageError, match="a name of its own"):
            peers.choose(names, commands)
    with pytest.raises(UsageError, match="flac"):
        peers.choose(["flac"], [])


def test_known_delay_is_taken_off(fake, speech):
    peer = peers.custom(fake("late", decode="late", delay=" ::: 320"))
    coded = peer.code(speech[:20_000], 6)
    assert np.abs(coded.wave - speech[:20_000]).max() < 1e-4
    assert coded.file_bytes == coded.payload_bytes == 44 + 2 * 20_320


@pytest.mark.parametrize(
    ("verbs", "message"),
    [
        (("crash", "copy"), "exit code 1: out of cheese"),
        (("nothing", "copy"), "ended without writing"),
        (("copy", "short"), "bad decoded 19900 samples instead of 20000"),
    ],
)
def test_peer_that_misbehaves(fake, speech, verbs, message):
    with pytest.raises(PeerError, match=message):
        peers.custom(fake("bad", *verbs)).code(speech[:20_000], 6)


def test_peer_that_never_ends_is_stopped(tmp_path):
    with pytest.raises(PeerError, match="had not ended after"):
        programs.run_command([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path / "out", 0.2)


HOLD = "import sys; held = bytearray(int(sys.argv[1]) * 10**6); open(sys.argv[2], 'wb').write(b'x')"
HAND_ON = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
TOLD = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell memory")


@TOLD
@pytest.mark.parametrize("wrapper", [[], ["-c", HAND_ON]], ids=["itself", "by a wrapper"])
def test_peak_memory_is_that_of_the_program(tmp_path, wrapper):
    ours = bytearray(300 * 10**6)  # of this process, which must not count
    command = [sys.executable, *wrapper, "-c", HOLD]
    little, more = (programs.peak_mb([*command, mb, str(tmp_path / "x")], tmp_path / "x", 60) for mb in ("0", "200"))
    assert 2 < little < 100 < len(ours)
    assert more - little == pytest.approx(200, abs=10)


def test_memory_of_a_program_that_fails_is_no_figure(tmp_path):
    for code in ("raise SystemExit(3)", "pass"):
        with pytest.raises(PeerError, match="exit code"):
            programs.peak_mb([sys.executable, "-c", code], tmp_path / "out", 60)
    with pytest.raises(PeerError, match="exit code -9"):
        programs.peak_mb([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path / "out", 0.2)


# ---------------------------------------------------------------- runs


def test_a_run_from_folder_to_tables(clips, tiny_model, fake, tmp_path):
    audio.write(clips / "silent.wav", np.zeros((1, 16_000), np.float32), RATE_HZ)
    audio.write(clips / "short.wav", np.full((1, 4_000), 0.1, np.float32), RATE_HZ)
    (clips / "text.wav").write_text("not sound")
    (clips / "notes.txt").write_text("not looked at")
    table, whole = tmp_path / "out.csv", tmp_path / "out.json"
    commands = (fake("good"), fake("bad", "crash"), fake("cut", "copy", "short"))
    chosen = options(clips, tiny_model, peer_commands=commands, peer_bitrates_kbps=(6, 9), csv=table, json=whole)
    good, said = evaluate(chosen)
    assert not good
    assert "bad: codec failed on 6 of 6 rows" in said
    assert "out of cheese" in said

    found = json.loads(whole.read_text())
    skipped = dict(text.split(" ", 1) for text in found["skipped"])
    assert set(skipped) == {"silent.wav", "short.wav", "text.wav"}
    assert "0.25 s" in skipped["short.wav"]
    assert "is silent" in skipped["silent.wav"]
    assert "not a sound file" in skipped["text.wav"]

    lines = rows(table)
    assert len(lines) == 3 * (1 + 2 + 2 + 2)
    failures = {(line["system"], line["failure"].partition(":")[0]) for line in lines}
    assert failures == {("nacre tiny", ""), ("good", ""), ("bad", "codec"), ("cut", "codec")}
    best = [line for line in lines if line["system"] == "good"]
    assert all(float(line["si_sdr_db"]) == 100 and int(line["lag_samples"]) == 0 for line in best)
    assert {point["failed"] for point in found["points"] if point["system"] == "bad"} == {3}
    assert found["facts"]["model tiny"].startswith("fingerprint ")
    if TOLD.args[0]:
        return
    peaks = {peak["system"]: (peak["encode_mb"], peak["decode_mb"]) for peak in found["memory"]}
    assert set(peaks) == {"nacre tiny", "good"}
    assert all(3 < mb < peaks["nacre tiny"][at] < 1000 for at, mb in enumerate(peaks["good"]))
    assert {line["encode_peak_mb"] for line in best} == {f"{peaks['good'][0]:.1f}"}
    assert {line["decode_peak_mb"] for line in lines if line["system"] == "bad"} == {""}
    assert not (tmp_path / "out.journal.jsonl").exists()


@pytest.mark.slow
def test_two_runs_give_the_same_figures(clips, tiny_model, tmp_path):
    tables = [tmp_path / name for name in ("one.csv", "two.csv")]
    for table, jobs in zip(tables, (1, 2), strict=True):
        assert evaluate(options(clips, tiny_model, csv=table, jobs=jobs))[0]
    assert same_each_time(tables[0]) == same_each_time(tables[1])
    assert [row["clip"] for row in rows(tables[0])] == ["a.wav", "c.wav", "deep/b.flac"]


@pytest.mark.slow
def test_killed_run_goes_on_where_it_stood(clips, tiny_model, fake, tmp_path, environment):
    for index in range(4):
        shutil.copy(clips / "a.wav", clips / f"more{index}.wav")
    table, kept, slow = tmp_path / "out.csv", tmp_path / "out.journal.jsonl", fake("slow", "slow")
    asked = {"--model": tiny_model, "--peers": "", "--peer-cmd": slow, "--peer-bitrates": 6, "--bitrates": 1}
    asked |= {"--metrics": QUICK, "--jobs": 1, "--csv": table}
    words = [str(word) for pair in asked.items() for word in pair]
    command = [sys.executable, "-m", "nacre", "evaluate", str(clips), *words]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not kept.exists() or kept.read_bytes().count(b"\n") < 3:
        assert started.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    started.kill()  # its worker ends by itself
    started.wait()
    before = kept.read_bytes().splitlines()[1]
    marked = json.loads(before)
    marked["scores"][0]["metrics"]["si_sdr_db"] = 55.5  # to see that it is not measured again
    torn = b'{"clip": "more'
    kept.write_bytes(kept.read_bytes().replace(before, json.dumps(marked).encode()) + torn)

    again = options(clips, tiny_model, csv=table, peer_commands=(slow,), peer_bitrates_kbps=(6,))
    with pytest.raises(NacreError, match="--resume"):
        evaluate(again)
    with pytest.raises(UsageError, match="nacre tiny"):
        evaluate(replace(again, bitrates_kbps=(0.8, 1.0), resume=True))
    assert evaluate(replace(again, resume=True))[0]
    assert len(rows(table)) == 7 * 2
    assert [row["clip"] for row in rows(table) if row["si_sdr_db"] == "55.5"] == [marked["clip"]]
    assert not kept.exists()


def test_changed_clip_is_measured_again(clips, tiny_model, tmp_path, speech):
    plan = work.Plan(clips, (work.System("nacre tiny", (1.0,), str(tiny_model)),), ("si_sdr_db",))
    before = journal.Journal(tmp_path / "x.jsonl", choice.plan_facts(plan))
    before.start(resume=False, force=False)
    first = work.measure_clip("a.wav", plan)
    before.add(first)
    known = journal.Journal(tmp_path / "x.jsonl", choice.plan_facts(plan)).start(resume=True, force=False)
    assert known == {"a.wav": first}
    audio.write(clips / "a.wav", speech[None, :12_000], RATE_HZ, overwrite=True)
    assert work.digest(clips / "a.wav") != first.sha256


def test_clip_that_kills_its_worker_is_named(clips, tiny_model, monkeypatch):
    deadly = work.Plan(clips, (work.System("nacre tiny", (1.0,), str(tiny_model)),), ("si_sdr_db",))
    monkeypatch.setattr(work, "measure_clip", ends_on_the_first)
    found: list[work.Result] = []
    run._spread_work(["a.wav", "c.wav"], deadly, 1, found.append)
    by_clip = {result.clip: result for result in found}
    assert "died" in by_clip["a.wav"].scores[0].failure
    assert by_clip["c.wav"].skipped == "measured"


def ends_on_the_first(clip: str, plan: work.Plan) -> work.Result:
    """What a worker does in place of measuring."""
    if clip == "a.wav":
        os._exit(9)
    return work.Result(clip, "", [], skipped="measured")


OBJECTS = '''
import numpy as np


class Eight:
    """Eight bits a sample at 8 kHz."""

    rates_kbps, version = (64.0, 128.0), "of the test"

    def encode(self, wave, rate_hz, kbps):
        assert rate_hz == 16_000
        return np.round(wave[:: 1 if kbps > 100 else 2] * 127).astype("i1").tobytes() + bytes([kbps > 100])

    def decode(self, data):
        return np.frombuffer(data[:-1], "i1") / np.float32(127), 16_000 if data[-1] else 8_000


class Short(Eight):
    def decode(self, data):
        return super().decode(data)[0][:-50], 16_000


nothing = 3
'''


def test_peers_may_be_python_objects(clips, tiny_model, tmp_path):
    (tmp_path / "mine.py").write_text(OBJECTS)
    place, table = tmp_path / "mine.py", tmp_path / "out.csv"
    objects = (f"eight={place}:Eight", f"short={place}:Short")
    evaluate(options(clips, tiny_model, csv=table, peer_objects=objects, peer_bitrates_kbps=(120,)))
    found = {(row["system"], row["clip"]): row for row in rows(table)}
    assert float(found["eight", "a.wav"]["si_sdr_db"]) > 10
    assert float(found["eight", "a.wav"]["target_kbps"]) == 128
    assert "decoded" in found["short", "a.wav"]["failure"]
    with pytest.raises(UsageError, match="rates_kbps, encode and decode"):
        evaluate(options(clips, tiny_model, peer_objects=(f"a={place}:nothing",)))
    for wrong in ("a", "a=b", "=b:c", f"a={tmp_path}/no.py:x"):
        with pytest.raises(UsageError, match="NAME=MODULE:OBJECT"):
            evaluate(options(clips, tiny_model, peer_objects=(wrong,)))
    good, said = evaluate(options(clips, tiny_model, peer_objects=("a=no_such_package.x:y",)))
    assert not good
    assert "no_such_package" in said


def test_nothing_to_evaluate(tmp_path, tiny_model):
    with pytest.raises(NacreError, match="no sound files"):
        evaluate(options(tmp_path, tiny_model))
    with pytest.raises(NacreError, match="is not a folder"):
        evaluate(options(tmp_path / "gone", tiny_model))


def test_only_unusable_clips(tmp_path, tiny_model):
    folder = tmp_path / "clips"
    folder.mkdir()
    audio.write(folder / "silent.wav", np.zeros((1, 16_000), np.float32), RATE_HZ)
    assert not evaluate(options(folder, tiny_model, json=tmp_path / "out.json"))[0]
    assert json.loads((tmp_path / "out.json").read_text())["scores"] == []


def test_missing_peer_is_named_with_its_package(clips, tiny_model, monkeypatch):
    monkeypatch.setenv("PATH", "")
    good, said = evaluate(options(clips, tiny_model, peers=("codec2",)))
    assert not good
    assert "c2enc, Debian package codec2" in said
    good, said = evaluate(options(clips, tiny_model, peers=None))  # nobody asked for them
    assert good
    assert "opus is left out" in said


def test_places_that_cannot_be_written(clips, tiny_model, tmp_path):
    with pytest.raises(NacreError, match="a folder that exists"):
        evaluate(options(clips, tiny_model, report=tmp_path / "gone" / "out.html"))
    with pytest.raises(NacreError, match=r"is a folder; name a file, such as .*report\.html"):
        evaluate(options(clips, tiny_model, report=tmp_path, force=True))
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(NacreError, match="--force"):
        evaluate(options(clips, tiny_model, csv=tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_rates_that_the_model_lacks(clips, tiny_model):
    with pytest.raises(UsageError, match="model tiny can do none of the bitrates"):
        evaluate(options(clips, tiny_model, bitrates_kbps=(900.0,)))
    with pytest.raises(UsageError, match=r"0\.1 to 1000"):
        evaluate(options(clips, tiny_model, bitrates_kbps=(math.nan,)))


def test_limit_spreads(clips):
    assert choice.find_clips(clips, 1) == ["c.wav"]
    assert choice.find_clips(clips, 9) == ["a.wav", "c.wav", "deep/b.flac"]


def test_page_gets_the_sound_of_the_examples(clips, tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("jinja2")
    from nacre.evaluate import report

    seen = {}
    monkeypatch.setattr(
        report, "write_page", lambda *args: seen.update(zip(("run", "sounds", "path"), args, strict=True))
    )
    chosen = options(clips, tiny_model, report=tmp_path / "out.html", examples=2)
    assert evaluate(chosen)[0]
    found, sounds = seen["run"], seen["sounds"]
    assert len(found.examples) == 2
    assert set(sounds) == {(clip, *key) for clip in found.examples for key in (("original", 0.0), ("nacre tiny", 1.0))}
    wave, rate_hz = sounds[found.examples[0], "nacre tiny", 1.0]
    assert (wave.dtype, rate_hz) == (np.float32, RATE_HZ)
    assert seen["path"] == chosen.report


@pytest.fixture(params=[24_000, 48_000])
def other_rate(request, tiny_model, tmp_path) -> tuple[Path, int]:
    """The tiny model as one for another rate, and that rate."""
    folder, tiny = tmp_path / "other", bundles.load(tiny_model)
    shutil.copytree(tiny_model, folder)
    bundles.save(folder, "other", tiny.kind, replace(tiny.config, rate_hz=request.param), tiny.metadata)
    return folder, request.param


def test_the_rate_is_the_models(clips, other_rate, fake, tmp_path, speech, monkeypatch):
    """All codecs get sound at the model's rate, one that knows 16 kHz only among them; metrics see it there."""
    pytest.importorskip("jinja2")
    pytest.importorskip("pystoi")
    from nacre.evaluate import report

    model, rate_hz = other_rate
    rng = np.random.default_rng(0)
    for name in ("a.wav", "c.wav"):
        audio.write(clips / name, 0.1 * rng.standard_normal((1, rate_hz)), rate_hz, overwrite=True)
    seen = {}
    monkeypatch.setattr(report, "write_page", lambda found, sounds, path: seen.update(sounds))
    commands = (fake("narrow"), fake("late", decode="late", delay=" ::: 320"))
    more = {"peer_commands": commands, "peer_bitrates_kbps": (6,), "metrics": f"{QUICK},estoi", "examples": 2}
    good, said = evaluate(
        options(clips, model, **more, report=tmp_path / "o.html", csv=tmp_path / "o.csv", json=tmp_path / "o.json")
    )
    assert good, said
    assert f"resampled to {rate_hz // 1000} kHz" in json.loads((tmp_path / "o.json").read_text())["facts"]["sound"]
    assert {rate for _, rate in seen.values()} == {rate_hz}
    lines = rows(tmp_path / "o.csv")
    assert all(math.isfinite(float(line["si_sdr_db"])) and math.isfinite(float(line["estoi"])) for line in lines)
    noise = [line for line in lines if line["clip"] == "a.wav" and line["system"] in ("narrow", "late")]
    assert all(float(line["si_sdr_db"]) < 5 for line in noise), "what is above 8 kHz counts"
    assert all(float(line["lag_samples"]) == 0 for line in noise)
    assert all(abs(float(line["seconds"]) - 1) < 0.01 for line in noise)


def test_codecs_that_take_any_rate_get_the_models(fake, speech):
    wave = audio.resampled(speech[:16_000], RATE_HZ, 48_000)
    peer = peers.custom(fake("wide").replace("{out}", "{out} {rate}", 1))
    coded = peer.code(wave, 6, 48_000)
    assert np.abs(coded.wave - wave).max() < 1e-4
    assert coded.file_bytes == 44 + 2 * 48_000
    assert peers.custom(fake("narrow")).code(wave, 6, 48_000).file_bytes == 44 + 2 * 16_000
    assert fill("x --rate {rate}", Path("a"), Path("b"), peer.mode(6), 48_000) == ["x", "--rate", "48000"]


def test_calls_at_the_rate_of_the_model(clips, other_rate):
    model, rate_hz = other_rate
    codec = nacre.load(model)
    points = loss.evaluate_loss(codec, clips, 1.0, [0.0, 0.2], [1.0], Console(quiet=True), metrics=QUICK, limit=1)
    assert {point.loss for point in points} == {0.0, 0.2}
    assert all(math.isfinite(value) for point in points for value in point.figures.values())
    assert loss.rate_of(codec) == rate_hz


def test_figures_at_other_rates_are_those_of_the_sound(speech):
    """Resampled sound has the log-mel distance it had, nearly; what is above 8 kHz adds to it."""
    noisy = speech + 0.02 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    plain = measures.logmel_db(Sound(speech), Sound(noisy))
    wide = [audio.resampled(sound, RATE_HZ, 48_000) for sound in (speech, noisy)]
    first, second = (Sound(wave, 48_000) for wave in wide)
    assert abs(measures.logmel_db(first, second) / plain - 1) < 0.35
    assert measures.si_sdr_db(Sound(speech), Sound(first.wave)) > 20  # but for what lies just below 8 kHz
    hiss = Sound(wide[0] + 0.02 * np.random.default_rng(1).standard_normal(len(wide[0])).astype(np.float32), 48_000)
    assert measures.logmel_db(first, hiss) > 1.5 * measures.logmel_db(Sound(first.wave), Sound(hiss.wave))


def test_command_line(clips, tiny_model, run):
    done = run(
        "evaluate", clips, "-m", tiny_model, "--bitrates", 1, "--metrics", QUICK, "--peers", "", "--csv", "o.csv"
    )
    assert done.rc == 0, done.stderr
    assert b"nacre tiny" in done.stdout
    assert run("evaluate", clips, "-m", tiny_model, "--peers", "flac").rc == 2
