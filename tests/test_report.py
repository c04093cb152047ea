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
from test_demo import FETCHING, INSIDE, Page, png_pixels

pytest.importorskip("jinja2")
from base64 import b64decode

from nacre import audio
from nacre.errors import AudioError
from nacre.evaluate import charts, listening, report
from nacre.evaluate.results import Run, Score

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
    return Run(scores, facts, ["short.wav: 0.2 s, wanted 0.5 s"], list(clips[:2]))


def make_sounds(run: Run, seconds: float = 1.0) -> listening.Sounds:
    """A tone for each, at 8 kHz where codec2 made it, and the originals."""
    sounds = {(clip, listening.ORIGINAL, 0.0): (tone(440, RATE_HZ, seconds), RATE_HZ) for clip in run.examples}
    for score in run.scores:
        if score.clip in run.examples and not score.failure:
            rate_hz = 8_000 if score.system == "codec2" else RATE_HZ
            frequency_hz = 500 + 100 * score.target_kbps
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
