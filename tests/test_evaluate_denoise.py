"""Speech in noise, by a model and by others: mixtures, rows, page, and what is missing said in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from nacre.core.errors import AudioError, UsageError
from nacre.evaluate import denoisers, denoising
from nacre.evaluate.denoising import Row, evaluate_denoising, means_of, mixtures, snrs_of
from nacre.io import audio

pytest.importorskip("jinja2")

RATE = 16_000


@pytest.fixture
def folders(tmp_path, speech):
    """Two clips and two noises."""
    random = np.random.default_rng(0)
    for index in range(2):
        audio.write(tmp_path / "speech" / f"{index}.wav", speech[None, index * RATE : (index + 1) * RATE], RATE)
        audio.write(tmp_path / "noise" / f"hiss-{index}.wav", 0.1 * random.standard_normal((1, 5000)), RATE)
    return tmp_path / "speech", tmp_path / "noise"


@pytest.fixture(autouse=True)
def _folders(tmp_path):
    for name in ("speech", "noise"):
        (tmp_path / name).mkdir()


def test_mixtures_have_the_snr_they_are_asked_for(folders):
    found = list(mixtures(*folders, ["0", "10", "clean"], None))
    assert [mixed.noise for mixed in found] == 3 * ["hiss-0.wav"] + 3 * ["hiss-1.wav"]
    for mixed in found:
        noise = mixed.noisy - mixed.wave
        if mixed.snr == "clean":
            assert not noise.any()
        else:
            assert 20 * np.log10(mixed.wave.std() / noise.std()) == pytest.approx(float(mixed.snr), abs=0.1)


def test_rows_table_and_page(folders, tmp_path, tiny, monkeypatch):
    half = {"<half>": ("numpy", "numpy", lambda wave: wave / 2), "gone": ("no_such_module", "no-such", np.copy)}
    monkeypatch.setattr(denoisers, "PEERS", half)
    monkeypatch.setattr(denoising, "JUDGES", ("si_sdr_db",))
    monkeypatch.setattr(denoising, "denoise", lambda codec, wave, rate_hz: wave)
    console = Console(record=True, width=200)
    target, page = tmp_path / "rows.json", tmp_path / "page.html"
    rows = evaluate_denoising(tiny, *folders, ["5"], console, target=target, report=page)
    assert [row.way for row in rows] == 2 * ["noisy", tiny.bundle.name, "<half>"]
    assert all(row.figures["si_sdr_db"] == pytest.approx(5, abs=0.5) for row in rows)
    assert [row["figures"] for row in json.loads(target.read_text())] == [row.figures for row in rows]
    assert "gone is left out: it is not installed; run pip install no-such" in console.export_text()
    text = page.read_text(encoding="utf-8")
    assert text.count("<audio") == text.count("<img") == 2 * 4
    assert "&lt;half&gt;" in text
    assert "<half>" not in text
    with pytest.raises(AudioError, match=r"rows\.json"):
        evaluate_denoising(tiny, *folders, ["5"], console, target=target)


def test_means_are_by_noise_and_of_all():
    rows = [Row("a", "rain", "0", "noisy", {"estoi": 0.2}), Row("b", "wind", "0", "noisy", {"estoi": 0.4})]
    means = means_of([*rows, Row("c", "wind", "0", "noisy", {})], ["estoi"])
    assert [(noise, ways["noisy"]) for (noise, _), ways in means.items()] == [
        ("rain", [0.2]),
        ("wind", [0.4]),
        ("mean", [pytest.approx(0.3)]),
    ]


@pytest.mark.parametrize("text", ["x", "nan", "1e9", "5,loud"])
def test_snrs_that_are_none_are_refused(text):
    with pytest.raises(UsageError):
        snrs_of(text)


@pytest.mark.parametrize(
    ("task", "words"), [("denoise", "--task denoise needs --noise FOLDER"), ("sing", "--task sing is unknown")]
)
def test_command_says_what_it_lacks(run, tmp_path, task, words):
    done = run("evaluate", "speech", "--task", task)
    assert (done.rc, words in done.stderr) == (2, True)


@pytest.mark.parametrize("name", denoisers.PEERS)
def test_peers_are_in_step(name, speech):
    """Whatever they leave out, what they keep stands where it stood."""
    module, _, clean = denoisers.PEERS[name]
    pytest.importorskip(module)
    wave = speech[:RATE]
    heard = clean(wave)
    assert heard.shape == wave.shape
    products = np.fft.irfft(np.fft.rfft(heard, 2 * RATE) * np.conj(np.fft.rfft(wave, 2 * RATE)))
    assert products.argmax() in (0, 1, 2 * RATE - 1)
