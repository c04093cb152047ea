"""The evaluation's page: whole in itself, everything of the run in it, and in a real browser its test counts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import HUNG_S
from test_demo import FETCHING, INSIDE, Page, png_pixels

pytest.importorskip("jinja2")
from base64 import b64decode

from nacre.core.errors import AudioError
from nacre.evaluate import charts, listening, report
from nacre.evaluate.results import Memory, Run, Score
from nacre.io import audio

RATE_HZ = 16_000
OURS, PEERS = "nacre tiny", ("opus", "codec2")
RATES = (3.0, 6.0)
CLIPS = ("a/one.wav", "two.wav", "three.wav", "four.wav")
NASTY = '<script>alert("x")</script>&{{ 7 }}'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def make_score(clip: str, system: str, target_kbps: float, rng: np.random.Generator) -> Score:
    """A clip of 1 s; opus is best and pays for its container."""
    gain = {"opus": 0.5, "codec2": -0.6}.get(system, 0.0)
    size_bytes = round(125 * target_kbps * rng.uniform(0.97, 1.03))
    metrics = {
        "pesq_wb": 1.2 + 0.25 * target_kbps + gain + rng.normal(0, 0.05),
        "estoi": 0.6 + 0.03 * target_kbps + gain / 10 + rng.normal(0, 0.005),
        "distillmos": 1.5 + 0.1 * target_kbps + gain + rng.normal(0, 0.05),
        "hiss_repeat": 0.8 - gain,
        "f0_cents": 60 - 4 * target_kbps - 10 * gain + rng.normal(0, 1),
    }
    file_bytes = size_bytes + (60 if system == "opus" else 0)
    return Score(clip, system, target_kbps, 1.0, file_bytes, size_bytes, 0.005, 0.002, metrics)


def make_run(clips: tuple[str, ...] = CLIPS, rates: tuple[float, ...] = RATES) -> Run:
    """All clips by all systems at all rates; codec2 fails once."""
    rng = np.random.default_rng(0)
    scores = [make_score(*key, rng) for clip in clips for key in ((clip, s, t) for s in (OURS, *PEERS) for t in rates)]
    at = next(i for i, score in enumerate(scores) if score.system == "codec2")
    scores[at] = replace(scores[at], metrics={}, failure="c2dec: crashed <badly>")
    facts = {"command": "nacre evaluate speech --peers opus,codec2", "date": "2026-01-02", "fingerprint": "00ff"}
    memory = [Memory("codec2", 6.0, 1.0, 2.4, 2.5), Memory(OURS, 6.0, 1.0, 120.0, 125.0)]
    return Run(scores, facts, ["short.wav is only 0.20 s long; clips need 0.5 s or more"], list(clips[:2]), memory)


def make_sounds(run: Run, seconds: float = 1.0) -> listening.Sounds:
    """A tone for each, at 8 kHz where codec2 made it, and the originals."""
    sounds = {(clip, listening.ORIGINAL, 0.0): (tone(440, RATE_HZ, seconds), RATE_HZ) for clip in run.examples}
    for score in run.scores:
        if score.clip in run.examples and not score.failure:
            rate_hz = 8_000 if score.system == "codec2" else RATE_HZ
            frequency_hz = 500 + 100 * score.target_kbps + 7 * len(score.system)
            sounds[score.clip, score.system, score.target_kbps] = tone(frequency_hz, rate_hz, seconds), rate_hz
    return sounds


def tone(frequency_hz: float, rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)  # [N]


def written(run: Run, sounds: listening.Sounds, folder: Path) -> str:
    path = folder / "report.html"
    report.write_page(run, sounds, path)
    return path.read_text(encoding="utf-8")


def without_data(text: str) -> str:
    return re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = make_run()
    sounds = make_sounds(run)
    return run, sounds, written(run, sounds, tmp_path_factory.mktemp("report"))


def pairs_in(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="pairs">(.*?)</script>', text, re.S)[1])


def cells(text: str, name: str) -> list[list[str]]:
    """Texts of the table of this name, by row."""
    body = re.search(rf'aria-label="{re.escape(name)}">(.*?)</table>', text, re.S)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [
        [re.sub(r"<.*?>", " ", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in rows
    ]


def test_page_needs_no_network(made):
    text = made[2]
    assert not re.search(r"https?://|url\(|@import|//\w+\.\w+/", without_data(text))
    for _, attributes in Page(text).elements:
        for name in FETCHING:
            assert (attributes.get(name) or "#").startswith(INSIDE), attributes[name][:80]
    assert not re.search(r"\{\{|\{%|%\}", without_data(text))
    assert len(text) < 1_000_000


def test_every_sound_has_a_player_and_pictures(made, tmp_path):
    _, sounds, text = made
    page = Page(text)
    players = [player for player in page.all("audio") if "src" in player]
    assert len(players) == len(sounds)
    assert len({player["id"] for player in players}) == len({player["aria-label"] for player in players}) == len(sounds)
    pictures = [picture for picture in page.all("img") if "width" in picture]
    assert len(pictures) == 2 * len(sounds) - 2  # an original has no difference
    assert len({picture["alt"] for picture in pictures}) == len(pictures)
    for picture in pictures:
        pixels = png_pixels(b64decode(picture["src"].removeprefix("data:image/png;base64,")))
        assert pixels.shape == (int(picture["height"]), int(picture["width"]))
    first = tmp_path / "first.flac"
    first.write_bytes(b64decode(players[0]["src"].removeprefix("data:audio/flac;base64,")))
    wave, rate_hz = audio.read(first)
    assert rate_hz == RATE_HZ
    assert np.abs(wave[0] - sounds["a/one.wav", listening.ORIGINAL, 0.0][0]).max() <= 2**-15


def test_tables_hold_every_setting_and_failure(made):
    run, _, text = made
    settings = {(score.system, f"{score.target_kbps:g}") for score in run.scores}
    for name in ("Quality by system and rate", "Rate, speed and failures"):
        rows = cells(text, name)[1:]
        assert {tuple(row[:2]) for row in rows} == settings
    by_setting = {tuple(row[:2]): row for row in cells(text, "Rate, speed and failures")[1:]}
    opus = [score for score in run.scores if (score.system, score.target_kbps) == ("opus", 6.0)]
    assert by_setting["opus", "6"][2] == f"{8 * sum(score.file_bytes for score in opus) / len(opus) / 1000:.2f}"
    assert by_setting["opus", "6"][4:8] == ["200 x", "1", "500 x", "1"]
    memory = cells(text, "Peak memory of the programs")[1:]
    assert memory == [[OURS, "6", "120.0", "1", "125.0", "1"], ["codec2", "6", "2.4", "0.02", "2.5", "0.02"]]
    assert f"MB, encoding and decoding: codec2 2 and 2; {OURS} 120 and 125." in text
    assert cells(text, "Failures")[1:] == [["a/one.wav", "codec2", "3", "c2dec: crashed &lt;badly&gt;"]]
    assert "short.wav is only 0.20 s long; clips need 0.5 s or more" in text
    for name, value in run.facts.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    savings = cells(text, f"Bits of {OURS} at equal quality")
    assert [row[0] for row in savings[1:]] == ["opus", "opus, whole files", "codec2", "codec2, whole files"]
    assert cells(text, f"{OURS} minus others, clip by clip")[1:]
    assert {row[0].split()[0] for row in cells(text, "Worst files")[1:]} <= set(CLIPS)
    assert text.count("Blind spots:") == len(run.scores[-1].metrics)


def test_front_has_all_judges_with_what_they_cannot_hear(made):
    run, _, text = made
    head, *rows = cells(text, "Judges")
    assert head[4:] == ["DistillMOS", "PESQ-WB", "ESTOI", "hiss repeat"]
    assert {tuple(row[:2]) for row in rows} == {(score.system, f"{score.target_kbps:g}") for score in run.scores}
    assert {row[0]: row[7] for row in rows} == {OURS: "0.80", "opus": "0.30", "codec2": "1.40"}
    assert text.count("Cannot hear:") == 4
    assert "0 is ideal" in text
    assert text.index('id="judges"') < text.index('id="curves"')
    assert "hiss repeat" not in cells(text, f"Bits of {OURS} at equal quality")[0]


def test_page_without_a_judge_has_no_empty_table(tmp_path):
    run = make_run()
    scores = [replace(score, metrics={"f0_cents": 10.0}, failure="") for score in run.scores]
    assert "judges" not in without_data(written(replace(run, scores=scores), {}, tmp_path))


def test_curves_have_a_mark_for_every_mean(made):
    run, _, text = made
    drawings = re.findall(r'<figure class="panel">.*?</figure>', text, re.S)
    assert len(drawings) == 2 * len(run.scores[-1].metrics)  # by file and by payload
    for drawing in drawings:
        assert drawing.count('class="spot"') == 3 * len(RATES)
        assert drawing.count('class="band') == 3
        assert drawing.count("<title>") == 3 * len(RATES) + 3
        assert "nan" not in drawing
    whole, payload = (re.findall(r"<title>opus: ([\d.]+) kb/s", drawings[at])[0] for at in (0, len(drawings) // 2))
    assert float(whole) > float(payload) + 0.4


@pytest.mark.parametrize(("ours", "theirs", "words"), [(1.0, 0.0, "fewer"), (0.0, 1.0, "more")])
def test_summary_says_who_wins(ours, theirs, words, tmp_path):
    run = make_run(rates=(3.0, 6.0, 12.0))
    gain = {OURS: ours, "opus": theirs, "codec2": -0.3}
    scores = [
        replace(score, failure="", metrics={"pesq_wb": 1.2 + 0.25 * score.target_kbps + gain[score.system]})
        for score in run.scores
    ]
    text = written(replace(run, scores=scores), {}, tmp_path)
    lead = re.search(r'<p class="lead">(.*?)</p>', text, re.S)[1]
    assert re.match(rf"For the same PESQ-WB, {OURS} needs .*{words} bits than opus, its strongest rival here", lead)
    assert "There is no pair to compare" in text


def test_summary_when_all_of_a_peer_is_better(tmp_path):
    run = make_run()
    scores = [
        replace(score, failure="", metrics={"pesq_wb": {"opus": 4.0}.get(score.system, 1.0) + 0.1 * score.target_kbps})
        for score in run.scores
    ]
    text = written(replace(run, scores=scores), {}, tmp_path)
    lead = re.search(r'<p class="lead">(.*?)</p>', text, re.S)[1]
    assert re.match(rf"Every mean PESQ-WB of opus \([\d.]+ to [\d.]+ kb/s\) is better than the best of {OURS} \(", lead)
    assert "strongest" not in lead


def test_names_are_escaped(tmp_path):
    scores = [replace(score, clip=NASTY, system=score.system + NASTY, failure=NASTY) for score in make_run().scores]
    run = Run(scores, {NASTY: NASTY}, [NASTY], [NASTY])
    text = written(run, make_sounds(replace(run, scores=[replace(s, failure="") for s in scores])), tmp_path)
    Page(text)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;{{ 7 }}" in text
    assert pairs_in(text)["sounds"]["s0-0"]["clip"] == NASTY


@pytest.mark.parametrize(
    "change",
    [
        lambda run: Run([], {}, [], []),
        lambda run: Run([], {}, ["a.wav: silence"], ["a.wav"]),
        lambda run: replace(
            run, scores=[replace(s, metrics={}, file_bytes=0, failure="codec: no") for s in run.scores]
        ),
        lambda run: replace(run, scores=run.scores[:1]),
        lambda run: replace(run, scores=[s for s in run.scores if s.system != OURS]),
        lambda run: replace(run, scores=[s for s in run.scores if s.system == OURS], memory=[]),
        lambda run: replace(run, scores=[replace(s, encode_s=0.0, decode_s=0.0) for s in run.scores]),
    ],
    ids=["nothing", "all skipped", "all failed", "one row", "peers only", "nacre only", "no times"],
)
def test_poor_runs_make_a_page(change, tmp_path):
    run = change(make_run())
    text = written(
        run, {key: sound for key, sound in make_sounds(make_run()).items() if key[0] in run.examples}, tmp_path
    )
    Page(text)
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", without_data(text), flags=re.S)


@pytest.mark.parametrize(
    "wave",
    [np.zeros(4000), np.full(4000, np.nan), np.zeros(0), np.full(10, 3.0), np.zeros(200_000)],
    ids=["silence", "not a number", "empty", "short and loud", "long"],
)
@pytest.mark.parametrize("place", [(CLIPS[0], OURS, 3.0), (CLIPS[0], listening.ORIGINAL, 0.0)])
def test_odd_sounds_make_a_page(wave, place, tmp_path):
    run = make_run()
    sounds = make_sounds(run) | {place: (wave.astype(np.float32), RATE_HZ)}
    text = written(run, sounds, tmp_path)
    Page(text)
    if place[1] == listening.ORIGINAL:
        assert ("its original is missing" in text) == (len(wave) == 0)
        assert ("the first 10 s of 12.5 s" in text) == (len(wave) == 200_000)


def test_examples_that_do_not_fit_are_named():
    run = make_run()
    whole = report.render(run, make_sounds(run), 10_000_000)
    one = report.render(run, make_sounds(run), len(whole) - 1000)
    assert len(one.encode()) < len(whole) - 1000
    assert "two.wav is not shown, to keep this page small." in one
    assert len(report.render(run, make_sounds(run), 0)) < 200_000


def test_page_of_a_whole_evaluation_stays_small(tmp_path):
    rates = (1.5, 3.0, 6.0, 9.0, 12.0)
    run = make_run(CLIPS, rates)
    random = np.random.default_rng(0)
    noise = {
        key: (random.normal(0, 0.1, 5 * rate_hz).astype(np.float32), rate_hz)
        for key, (_, rate_hz) in make_sounds(run).items()
    }  # which neither FLAC nor PNG makes small
    report.write_page(run, noise, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 15_000_000


def test_two_pages_of_one_run_are_the_same(made, tmp_path):
    run, sounds, text = made
    assert written(run, sounds, tmp_path) == text


def test_place_that_cannot_be_written(made, tmp_path):
    run, sounds, _ = made
    for path in (tmp_path, tmp_path / "no" / "such" / "report.html"):
        with pytest.raises(AudioError, match=re.escape(str(path))):
            report.write_page(run, sounds, path)
    assert not list(tmp_path.iterdir())


def test_pairs_are_near_in_rate_and_with_the_original(made):
    found = pairs_in(made[2])
    sounds = found["sounds"]
    assert {pair["group"] for pair in found["pairs"]} == {
        f"{OURS} with {other}" for other in ("opus", "codec2", "the original")
    }
    for pair in found["pairs"]:
        one, two = sounds[pair["one"]], sounds[pair["two"]]
        assert one["system"] == OURS
        assert one["clip"] == two["clip"]
        assert two["system"] == listening.ORIGINAL or 0.75 < float(one["kbps"]) / float(two["kbps"]) < 1.3


def test_difference_is_dark_where_sound_is_missing_and_bright_where_it_was_added():
    loud, quiet = np.full((4, 5), 0.0), np.full((4, 5), -60.0)
    middle = listening.DIFFERENCE_SHADES // 2
    for decoded, original, shade in ((quiet, loud, 0), (loud, quiet, 2 * middle), (loud, loud, middle)):
        picture = listening._pictures(decoded, original, 0.0)[1]
        assert (png_pixels(b64decode(picture.uri.partition(",")[2])) == shade).all()


@pytest.mark.parametrize(("low", "high"), [(1.2, 3.9), (0.5, 0.5), (-31.0, 18.5), (0.0, 0.0), (1e-9, 2e-9), (3, 1e6)])
def test_value_ticks_enclose_and_are_few(low, high):
    ticks = charts.value_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_looks_differ_without_colour():
    looks = [charts.look(number) for number in range(35)]
    assert len({(look.mark, look.dash) for look in looks}) == 35


# ---------------------------------------------------------------- in a browser

SAYS = "PAGE SAYS "
DRIVER = """
(async () => {
const said = {};
const wait = ms => new Promise(done => setTimeout(done, ms));
const seen = item => item.checkVisibility() && item.getBoundingClientRect().width > 0;
const at = id => document.getElementById(id);
const key = name => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
try {
  for (const item of document.querySelectorAll("details")) item.open = true;
  const players = [...document.querySelectorAll("audio[src]")];
  for (let i = 0; i < 100 && !players.every(p => p.readyState >= 1); i++) await wait(50);
  said.errors = players.filter(p => p.error || !(p.duration > 0.9)).length;
  said.pictures = [...document.images].every(i => i.complete && i.naturalWidth > 0);
  const lines = () => [...document.querySelectorAll("path.curve")].filter(p => p.closest(".panel") && seen(p));
  said.curves = lines().length;
  said.long = lines().every(p => p.getTotalLength() > 30);
  at("axis-payload").click();
  said.curvesByPayload = lines().length;
  said.wide = document.documentElement.scrollWidth <= innerWidth;

  at("count").value = "8";
  at("start").click();
  said.hidden = !/opus|codec2|original|kb\\/s/.test(at("trial").textContent);
  const same = (one, two) => at("play-" + one).src === at("play-" + two).src;
  said.three = !same("A", "B") && (same("X", "A") || same("X", "B"));
  key("x");
  for (let i = 0; i < 100 && !(at("play-X").currentTime > 0.05); i++) await wait(20);
  said.played = at("play-X").currentTime > 0.05;
  key("a");
  const moved = () => at("play-X").paused && !at("play-A").paused && at("play-A").currentTime > 0.05;
  for (let i = 0; i < 40 && !moved(); i++) await wait(20);
  said.switched = moved();
  for (let i = 0; i < 8; i++) {
    const truth = same("X", "A") ? "1" : "2";
    const press = i < 6 ? truth : truth === "1" ? "2" : "1";
    document.querySelector('input[name="better"][value="B"]').click();
    if (i % 2) key(press); else at(press === "1" ? "is-A" : "is-B").click();
  }
  said.tally = at("tally").textContent;
  said.rows = at("by-trial").children.length;
  said.right = [...at("by-trial").children].filter(r => r.textContent.includes("right")).length;
  said.revealed = /kb\\/s/.test(at("by-trial").textContent);
  let file = null;
  URL.createObjectURL = blob => { file = blob; return "#"; };
  at("download").click();
  said.csv = (await file.text()).trim().split("\\r\\n");
  said.kept = Object.keys(localStorage).length;
  at("again").click();
  said.reset = !at("setup").hidden && at("result").hidden && Object.keys(localStorage).length === 0;
  at("start").click();
  at("finish").click();
  said.nothing = !at("setup").hidden;
} catch (error) { said.failure = String(error.stack); }
console.log("PAGE SAYS " + JSON.stringify(said));
})();
"""


def browse(text: str, folder: Path, width: int) -> dict:
    """What the driver says after it has used the page in a window of this width."""
    inside = folder / "inside.html"
    inside.write_text(text.replace("</body>", f"<script>{DRIVER}</script></body>"), encoding="utf-8")
    outside = folder / "outside.html"  # windows have a least width, frames have not
    frame = f'<iframe style="border:0;width:{width}px;height:800px" allow="autoplay" src="inside.html"></iframe>'
    outside.write_text(f"<!doctype html>{frame}", encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--enable-logging=stderr"]
    flags += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={folder / 'profile'}"]
    flags += ["--window-size=1400,900"]
    command = [CHROMIUM, *flags, outside.as_uri()]
    environment = os.environ | {"HOME": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    limit = threading.Timer(90, process.kill)
    limit.start()
    log = []
    try:
        for line in process.stderr:
            log.append(line.decode(errors="replace"))
            if SAYS in log[-1]:
                found = log[-1].partition(SAYS)[2].rpartition('", source: ')[0]
                return json.loads(found)
    finally:
        limit.cancel()
        process.terminate()
        process.communicate(timeout=HUNG_S)
    raise AssertionError("".join(log[-30:]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_page_works_in_a_browser(made, tmp_path, width):
    run, _, text = made
    said = browse(text, tmp_path, width)
    assert "failure" not in said, said["failure"]
    curves = 3 * len(run.scores[-1].metrics)
    head, *lines = said.pop("csv")
    assert head.startswith('"trial","clip","a","b"')
    assert [line.split(",")[-2] for line in lines] == ['"1"'] * 6 + ['"0"'] * 2
    assert said == {
        "errors": 0,
        "pictures": True,
        "curves": curves,
        "long": True,
        "curvesByPayload": curves,
        "wide": True,
        "hidden": True,
        "three": True,
        "played": True,
        "switched": True,
        "tally": "6 of 8 right, p = 0.145",
        "rows": 8,
        "right": 6,
        "revealed": True,
        "kept": 1,
        "reset": True,
        "nothing": True,
    }
