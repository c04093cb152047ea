"""What is measured between an original and what a codec made of it: `METRICS`, by name, each with its blind spots.

    mono [N] -> pieces of at most 20 s -> each metric on each piece -> mean over the pieces

SI-SDR and log-mel distance are taken at the sound's own rate, all others at 16 kHz, where they are defined.

Pieces bound the memory, and PESQ's C code, written for calls of some seconds, crashes on minutes of speech.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from nacre.core.errors import NacreError, UsageError
from nacre.core.units import ceil_div
from nacre.evaluate import hiss, judges, measures
from nacre.evaluate.measures import RATE_HZ, Array, NothingToMeasure, Sound

PIECE_S = 20
EVALUATE = "pip install 'nacre[evaluate]'"


@dataclass(frozen=True)
class Metric:
    """A figure for one clip. `better` is +1 where more is better, -1 where less is, whether of it or of the distance
    to `aim`, its value for the original."""

    name: str
    title: str
    unit: str
    better: int
    meaning: str
    blind: str  # what it cannot see
    measure: Callable[[Sound, Sound], float]
    packages: tuple[str, ...] = ()  # modules that it imports
    usual: bool = True  # measured unless others are chosen
    aim: float | None = None
    install: str = EVALUATE

    @property
    def label(self) -> str:
        """Title with unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def merit(self, value: float) -> float:
        """The figure so that more is better."""
        return self.better * (value if self.aim is None else abs(value - self.aim))

    def missing(self) -> list[str]:
        """Packages that cannot be imported."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


def pieces(wave: Array, rate_hz: int = RATE_HZ) -> list[Sound]:
    """wave [N] as equal pieces of at most 20 s."""
    count = max(1, ceil_div(len(wave), PIECE_S * rate_hz))
    return [Sound(piece, rate_hz) for piece in np.array_split(wave, count)]


def score(original: list[Sound], decoded: Array, names: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """Figures of decoded [N] at the original's rate, and why others are missing. Nothing unmeasured becomes a number.

    A metric that has nothing to measure in the original is left out without a note: no codec failed there.
    """
    parts, figures, failures = pieces(decoded, original[0].rate_hz), {}, []
    for name in names:
        try:
            figures[name] = _mean(METRICS[name].measure, original, parts)
        except NothingToMeasure:
            continue
        except Exception as error:
            failures.append(f"{name}: {str(error).strip() or type(error).__name__}")
    return figures, failures


def _mean(measure: Callable[[Sound, Sound], float], original: list[Sound], decoded: list[Sound]) -> float:
    """Mean over the pieces that can be measured; raises where there are none."""
    values, problem = [], None
    for before, after in zip(original, decoded, strict=True):
        try:
            values.append(float(measure(before, after)))
        except Exception as error:  # a pause in a long recording
            problem = error
    if problem and not values:
        raise problem
    mean = math.fsum(values) / len(values)
    if not math.isfinite(mean):
        raise ValueError("not a finite number")
    return mean


def choose(listed: str | None, asr: bool) -> list[str]:
    """Names from 'pesq_wb,estoi', 'all', or None for the usual ones. Raises UsageError where a name is unknown."""
    if listed == "all":
        names = [name for name in METRICS if name != "wer"]
    elif listed is None:
        names = [metric.name for metric in METRICS.values() if metric.usual]
    else:
        names = list(dict.fromkeys(part.strip() for part in listed.split(",") if part.strip()))
    names += ["wer"] if asr and "wer" not in names else []
    for name in names:
        if name not in METRICS:
            raise UsageError(f"--metrics {name} is unknown; give all, or some of {', '.join(METRICS)}")
    if not names:
        raise UsageError(f"--metrics names none; give all, or some of {', '.join(METRICS)}")
    return names


def available(names: Iterable[str], notes: list[str]) -> list[str]:
    """Those that can be measured here; `notes` get what the others need. Raises NacreError where none is left."""
    kept, first = [], len(notes)
    for name in names:
        if missing := METRICS[name].missing():
            listed = " and ".join(missing)
            notes.append(f"{name} is left out: it needs {listed}; run {METRICS[name].install}")
        else:
            kept.append(name)
    if not kept:
        raise NacreError(f"none of the metrics can be measured here: {'; '.join(notes[first:])}")
    return kept


def require(packages: Iterable[str]) -> None:
    """Raise NacreError, naming the extra, unless all of these can be imported."""
    missing = [package for package in dict.fromkeys(packages) if importlib.util.find_spec(package) is None]
    if missing:
        lacks = f"packages that are not installed: {', '.join(missing)}"
        raise NacreError(f"evaluation needs {lacks}; run {EVALUATE}")


_STOI = "Loudness, what lies above 5 kHz, hoarseness, a wrong speaker, and noise in pauses, which it cuts out."
_HISS = "Everything but hissing frames of the original, 4 to 8 kHz; clips with less than 160 ms of them are left out."
_TABLE = (
    Metric(
        "distillmos",
        "DistillMOS",
        "",
        1,
        "opinion that listeners would give without the original, 1 to 5; originals about 4",
        "The original: wrong words, a wrong speaker and a removed background all pass; loudness, which it evens out.",
        judges.distillmos,
        ("torch", "distillmos", "xls_r_sqa"),
        install="pip install 'nacre[judges]', then pip install --no-deps distillmos xls-r-sqa",
    ),
    Metric(
        "visqol",
        "ViSQOL",
        "",
        1,
        "similarity to the original as a listening score, speech mode, 1 to about 4.8",
        "Hiss that repeats: it compares levels in bands over patches of 0.4 s, not the fine structure within a band.",
        judges.visqol,
        ("scipy", "ai_edge_litert", "visqol"),
        install="pip install 'nacre[judges]', then pip install --no-deps visqol-python",
    ),
    Metric(
        "pesq_wb",
        "PESQ-WB",
        "",
        1,
        "predicted listening quality, 1.0 to 4.64 (P.862.2)",
        "It forgives lost bandwidth and aligns in time before it compares; it was fitted to telephone codecs, not to "
        "networks, which can invent plausible wrong sounds.",
        measures.pesq_wb,
        ("pesq",),
        install="pip install 'nacre[pesq]' (it is compiled on the way, so a C compiler must be there)",
    ),
    Metric(
        "estoi",
        "ESTOI",
        "",
        1,
        "predicted share of words understood, following the spectrum across bands, 0 to 1",
        _STOI,
        functools.partial(measures.intelligibility, extended=True),
        ("pystoi",),
    ),
    Metric(
        "hiss_repeat",
        "hiss repeat",
        "",
        -1,
        "correlation of decoded hiss with itself 20 ms later, 0 for real hiss, 1 for a buzz",
        _HISS + " Repeats after another time than 20 ms.",
        hiss.repeat,
        ("scipy",),
        aim=0.0,
    ),
    Metric(
        "hiss_level_db",
        "hiss level",
        "dB",
        -1,
        "level of decoded hiss relative to the original's, ideally 0",
        _HISS + " One clip too loud and one too weak make a good mean.",
        hiss.gain_db,
        aim=0.0,
    ),
    Metric(
        "hiss_flicker",
        "hiss flicker",
        "",
        -1,
        "change of hiss from frame to frame relative to the original's, ideally 1; less sounds frozen",
        _HISS + " A wave that repeats and yet changes within 32 ms.",
        hiss.flicker,
        aim=1.0,
    ),
    Metric(
        "stoi",
        "STOI",
        "",
        1,
        "predicted share of words understood, 0 to 1",
        _STOI,
        functools.partial(measures.intelligibility, extended=False),
        ("pystoi",),
    ),
    Metric(
        "si_sdr_db",
        "SI-SDR",
        "dB",
        1,
        "waveform over error, whatever the gain",
        "What people hear: an inaudible phase shift ruins it. It says nothing about parametric codecs.",
        measures.si_sdr_db,
    ),
    Metric(
        "logmel_db",
        "log-mel distance",
        "dB",
        -1,
        "mean difference of mel band levels over windows of 16, 32, 64 and 128 ms",
        "Phase, hence roughness and buzz; a loud band and a masked one count alike.",
        measures.logmel_db,
    ),
    Metric(
        "f0_cents",
        "F0 error",
        "cents",
        -1,
        "root mean square pitch error over frames voiced in both, 100 cents to the semitone",
        "Frames that lost their voicing; one wrong octave outweighs a hundred good frames.",
        measures.f0_cents,
    ),
    Metric(
        "voicing_percent",
        "voicing error",
        "%",
        -1,
        "frames voiced in one sound and unvoiced in the other",
        "Everything but periodicity, and noise beside the voice can look like lost voicing.",
        measures.voicing_percent,
    ),
    Metric(
        "dnsmos",
        "DNSMOS",
        "",
        1,
        "overall quality as listeners would rate it without the original, 1 to 5 (P.835)",
        "The original: wrong words, a wrong speaker and removed background all pass. Trained on noise suppressors.",
        measures.dnsmos,
        ("speechmos",),
        usual=False,
    ),
    Metric(
        "plcmos",
        "PLCMOS",
        "",
        1,
        "quality after concealed packet loss as listeners would rate it without the original, 1 to 5",
        "The original, and the slow faults of a codec: it was trained on gaps and what fills them.",
        judges.plcmos,
        ("speechmos",),
        usual=False,
    ),
    Metric(
        "wer",
        "word error",
        "%",
        -1,
        "words that PocketSphinx recognises differently than in the original",
        "Languages other than English. A weak recogniser: it errs on originals too, so read differences only.",
        measures.word_error,
        ("pocketsphinx", "jiwer"),
        usual=False,
    ),
)
METRICS = {metric.name: metric for metric in _TABLE}
