"""What is measured between an original and what a codec made of it: `METRICS`, by name, each with its blind spots.

    16 kHz mono [N] -> pieces of at most 20 s -> each metric on each piece -> mean over the pieces

Pieces bound the memory, and PESQ's C code, written for calls of some seconds, crashes on minutes of speech.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nacre.errors import NacreError, UsageError
from nacre.units import ceil_div

Array = np.ndarray[Any, np.dtype[Any]]

RATE_HZ = 16_000
PIECE_SAMPLES = 20 * RATE_HZ
HIGHEST_DB = 100.0  # SI-SDR of a perfect copy, which would be infinite
MEL_BANDS = {256: 20, 512: 40, 1024: 64, 2048: 80}  # by window in samples: 16 to 128 ms
MEL_RANGE_DB = 80.0  # what lies further below the loudest band of the original is not heard
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
PITCH_WINDOW, PITCH_HOP = 512, 160
PERIODIC = 0.2  # largest normalised difference between a voiced frame and itself one period later
LEAST_VOICED = 10  # frames of 10 ms
DNSMOS_SAMPLES, DNSMOS_FIT = 144_160, (-0.06766283, 1.11546468, 0.04602535)  # as published with the network


class Sound:
    """A piece [N] float32 at 16 kHz, with what several metrics or several codecs ask of it worked out once."""

    def __init__(self, wave: Array):
        self.wave = np.clip(wave, -1, 1).astype(np.float32)

    @cached_property
    def mels(self) -> list[Array]:
        """Mel band powers [T, bands], one for each window."""
        return [mel_powers(self.wave, window, bands) for window, bands in MEL_BANDS.items()]

    @cached_property
    def pitch(self) -> Array:
        """F0 in Hz [T] every 10 ms, 0 where unvoiced."""
        return pitch_hz(self.wave)

    @cached_property
    def words(self) -> str:
        """What the recogniser hears."""
        return transcript(self.wave)


@dataclass(frozen=True)
class Metric:
    """A figure for one clip. `better` is +1 where more is better, -1 where less is."""

    name: str
    title: str
    unit: str
    better: int
    meaning: str
    blind: str  # what it cannot see
    measure: Callable[[Sound, Sound], float]
    packages: tuple[str, ...] = ()
    usual: bool = True  # measured unless asked otherwise

    @property
    def label(self) -> str:
        """Title with unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def pieces(wave: Array) -> list[Sound]:
    """wave [N] as equal pieces of at most 20 s."""
    return [Sound(piece) for piece in np.array_split(wave, max(1, ceil_div(len(wave), PIECE_SAMPLES)))]


def score(original: list[Sound], decoded: Array, names: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """Figures of decoded [N], and why others are missing. What cannot be measured never becomes a number."""
    parts, figures, failures = pieces(decoded), {}, []
    for name in names:
        try:
            figures[name] = _mean(METRICS[name].measure, original, parts)
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


def choose(wanted: str | None, asr: bool) -> list[str]:
    """Names from 'pesq_wb,estoi', 'all', or None for the usual ones. Raises where a name or package is unknown."""
    if wanted == "all":
        names = [name for name in METRICS if name != "wer"]
    elif wanted is None:
        names = [metric.name for metric in METRICS.values() if metric.usual]
    else:
        names = list(dict.fromkeys(part.strip() for part in wanted.split(",") if part.strip()))
    names += ["wer"] if asr and "wer" not in names else []
    for name in names:
        if name not in METRICS:
            raise UsageError("metrics", found=name, wanted="all, or some of " + ", ".join(METRICS))
    if not names:
        raise UsageError("metrics", found="none", wanted="all, or some of " + ", ".join(METRICS))
    require(package for name in names for package in METRICS[name].packages)
    return names


def require(packages: Iterable[str]) -> None:
    """Raise NacreError, naming the extra, unless all of these can be imported."""
    missing = [package for package in dict.fromkeys(packages) if importlib.util.find_spec(package) is None]
    if missing:
        advice = "pip install 'nacre[evaluate]'"
        raise NacreError(f"packages {', '.join(missing)}", found="not installed", wanted="for evaluating", next=advice)


# ---------------------------------------------------------------- by packages


def pesq_wb(original: Sound, decoded: Sound) -> float:
    """ITU-T P.862.2."""
    from pesq import PesqError, pesq

    try:
        return float(pesq(RATE_HZ, original.wave, decoded.wave, "wb"))
    except PesqError as error:
        text = error.args[0] if error.args else "failed"
        raise ValueError(text.decode() if isinstance(text, bytes) else text) from error


def intelligibility(original: Sound, decoded: Sound, extended: bool) -> float:
    """STOI, or ESTOI where `extended`."""
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # it only warns where too little is left without pauses
        try:
            return float(stoi(original.wave, decoded.wave, RATE_HZ, extended=extended))
        except RuntimeWarning as warning:
            raise ValueError("too little speech") from warning


def dnsmos(_original: Sound, decoded: Sound) -> float:
    """Overall quality by DNSMOS P.835, as its authors run it: clips repeated to 9 s, then windows every second."""
    network, wave = _dnsmos_network(), decoded.wave
    while len(wave) < DNSMOS_SAMPLES:
        wave = np.concatenate([wave, wave])
    starts = range(0, len(wave) - DNSMOS_SAMPLES + 1, RATE_HZ)
    raw = [network.run(None, {"input_1": wave[None, at : at + DNSMOS_SAMPLES]})[0][0][2] for at in starts]
    return float(np.polyval(DNSMOS_FIT, raw).mean())


@functools.cache
def _dnsmos_network() -> Any:
    """The network in the package `speechmos`, whose own code asks for more packages than it names."""
    import onnxruntime

    found = importlib.util.find_spec("speechmos")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0], "dnsmos_models", "sig_bak_ovr.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def word_error(original: Sound, decoded: Sound) -> float:
    """Word error in percent against what the same recogniser hears in the original."""
    import jiwer

    if not original.words:
        raise ValueError("no words heard in the original")
    return 100 * float(jiwer.wer(original.words, decoded.words))


@functools.cache
def _recogniser() -> Any:
    """PocketSphinx with the English model of its package."""
    from pocketsphinx import Decoder

    return Decoder(loglevel="FATAL", samprate=RATE_HZ, cmn="batch")  # live means would depend on the clips before


def transcript(wave: Array) -> str:
    """Words in wave [N]."""
    recogniser = _recogniser()
    recogniser.start_utt()
    recogniser.process_raw((wave * 32767).astype("<i2").tobytes(), full_utt=True)
    recogniser.end_utt()
    heard = recogniser.hyp()
    return heard.hypstr if heard else ""


# ---------------------------------------------------------------- by our own hand


def si_sdr_db(original: Sound, decoded: Sound) -> float:
    """Scale-invariant signal-to-distortion ratio, within +-100 dB."""
    wanted, got = (sound.wave.astype(np.float64) - sound.wave.mean(dtype=np.float64) for sound in (original, decoded))
    part = (got @ wanted) / (wanted @ wanted) * wanted
    power, rest = float(part @ part), float((got - part) @ (got - part))
    if power == 0 or rest == 0:
        return -HIGHEST_DB if power == 0 else HIGHEST_DB
    return float(np.clip(10 * math.log10(power / rest), -HIGHEST_DB, HIGHEST_DB))


def logmel_db(original: Sound, decoded: Sound) -> float:
    """Mean distance of mel band levels, over bands, frames and four windows."""
    distances = []
    for before, after in zip(original.mels, decoded.mels, strict=True):
        floor = max(float(before.max()) * 10 ** (-MEL_RANGE_DB / 10), 1e-12)
        levels = [10 * np.log10(np.maximum(powers, floor)) for powers in (before, after)]
        distances.append(float(np.abs(levels[0] - levels[1]).mean()))
    return sum(distances) / len(distances)


def mel_powers(wave: Array, window: int, bands: int) -> Array:
    """Powers [T, bands] of wave [N], frames a quarter window apart."""
    padded = np.pad(wave.astype(np.float64), (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2  # [T, window / 2 + 1]
    result: Array = power @ mel_filters(window, bands)
    return result


@functools.cache
def mel_filters(window: int, bands: int) -> Array:
    """Triangles [window / 2 + 1, bands] from 0 to 8 kHz, each of sum 1."""
    edges_mel = np.linspace(0, 2595 * math.log10(1 + RATE_HZ / 2 / 700), bands + 2)
    low, middle, high = (700 * (10 ** (edges_mel[at : at + bands] / 2595) - 1) for at in range(3))
    hz = np.fft.rfftfreq(window, 1 / RATE_HZ)[:, None]
    slopes = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle))
    triangles: Array = np.maximum(slopes, 1e-9)  # a band between two bins gives the same for both sounds
    return triangles / triangles.sum(0)


def pitch_hz(wave: Array) -> Array:
    """F0 [T] every 10 ms by YIN (de Cheveigne and Kawahara, 2002); 0 where a frame does not repeat itself."""
    longest, shortest = math.ceil(RATE_HZ / LOWEST_HZ), math.floor(RATE_HZ / HIGHEST_HZ)
    size = PITCH_WINDOW + longest + 1
    padded = np.pad(wave.astype(np.float64), (0, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(wave) : PITCH_HOP]  # [T, size]
    transform = 1 << (size + PITCH_WINDOW).bit_length()
    spectra = np.fft.rfft(frames, transform) * np.conj(np.fft.rfft(frames[:, :PITCH_WINDOW], transform))
    products = np.fft.irfft(spectra)[:, : longest + 2]  # [T, lags]
    sums = np.pad(np.cumsum(frames**2, 1), ((0, 0), (1, 0)))
    energy = sums[:, PITCH_WINDOW : PITCH_WINDOW + longest + 2] - sums[:, : longest + 2]  # of the frame at each lag
    difference = energy[:, :1] + energy - 2 * products
    means = np.cumsum(difference[:, 1:], 1) / np.arange(1, longest + 2)
    normal = np.pad(difference[:, 1:] / np.maximum(means, 1e-12), ((0, 0), (1, 0)), constant_values=1)
    loud = energy[:, 0] > 1e-5 * energy[:, 0].max()  # within 50 dB
    return _periods(normal, shortest, loud)


def _periods(normal: Array, shortest: int, loud: Array) -> Array:
    """normal [T, lags] -> F0 [T]: the first valley below PERIODIC, its bottom between samples by a parabola."""
    rows, last = np.arange(len(normal)), normal.shape[1] - 2
    below = normal[:, :-1] < PERIODIC
    below[:, :shortest] = False
    first = below.argmax(1)
    rising = normal[:, 1:] >= normal[:, :-1]
    rising[:, -1] = True
    rising[np.arange(rising.shape[1])[None] < first[:, None]] = False
    lag = np.clip(rising.argmax(1), 1, last)
    left, middle, right = (normal[rows, lag + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, (left - right) / 2 / np.where(bend > 0, bend, 1), 0)
    voiced = below.any(1) & loud
    return np.where(voiced, RATE_HZ / (lag + np.clip(shift, -0.5, 0.5)), 0)


def f0_cents(original: Sound, decoded: Sound) -> float:
    """Root mean square difference of F0, over frames voiced in both."""
    both = (original.pitch > 0) & (decoded.pitch > 0)
    if both.sum() < LEAST_VOICED:
        raise ValueError(f"{both.sum()} frames voiced in both, wanted {LEAST_VOICED}")
    cents = 1200 * np.log2(decoded.pitch[both] / original.pitch[both])
    return float(np.sqrt(np.mean(cents**2)))


def voicing_percent(original: Sound, decoded: Sound) -> float:
    """Share of frames that are voiced in one and unvoiced in the other."""
    return float(100 * np.mean((original.pitch > 0) != (decoded.pitch > 0)))


_STOI = (
    "Speed, loudness and bandwidth above 5 kHz. It hears no hoarseness, no wrong speaker and little noise in pauses."
)
_TABLE = (
    Metric(
        "pesq_wb",
        "PESQ-WB",
        "",
        1,
        "predicted listening quality, 1.0 to 4.64 (P.862.2)",
        "It forgives lost bandwidth and aligns in time before it compares; it was fitted to telephone codecs, not to "
        "networks, which can invent plausible wrong sounds.",
        pesq_wb,
        ("pesq",),
    ),
    Metric(
        "stoi",
        "STOI",
        "",
        1,
        "predicted share of words understood, 0 to 1",
        _STOI,
        functools.partial(intelligibility, extended=False),
        ("pystoi",),
    ),
    Metric(
        "estoi",
        "ESTOI",
        "",
        1,
        "STOI that also follows the spectrum across bands, 0 to 1",
        _STOI,
        functools.partial(intelligibility, extended=True),
        ("pystoi",),
    ),
    Metric(
        "si_sdr_db",
        "SI-SDR",
        "dB",
        1,
        "waveform over error, whatever the gain",
        "The ear: a shift of phase that nobody hears ruins it. It says nothing about parametric codecs.",
        si_sdr_db,
    ),
    Metric(
        "logmel_db",
        "log-mel distance",
        "dB",
        -1,
        "mean difference of mel band levels over windows of 16, 32, 64 and 128 ms",
        "Phase, hence roughness and buzz; a loud band and a masked one count alike.",
        logmel_db,
    ),
    Metric(
        "f0_cents",
        "F0 error",
        "cents",
        -1,
        "root mean square pitch error over frames voiced in both, 100 cents to the semitone",
        "Frames that lost their voicing; one wrong octave outweighs a hundred good frames.",
        f0_cents,
    ),
    Metric(
        "voicing_percent",
        "voicing error",
        "%",
        -1,
        "frames voiced in one sound and unvoiced in the other",
        "Everything but periodicity, and noise beside the voice can look like lost voicing.",
        voicing_percent,
    ),
    Metric(
        "dnsmos",
        "DNSMOS",
        "",
        1,
        "overall quality as listeners would rate it without the original, 1 to 5 (P.835)",
        "The original: wrong words, a wrong speaker and removed background all pass. Trained on noise suppressors.",
        dnsmos,
        ("speechmos",),
        usual=False,
    ),
    Metric(
        "wer",
        "word error",
        "%",
        -1,
        "words that PocketSphinx hears otherwise than in the original",
        "Languages other than English. A weak recogniser: it errs on originals too, so read differences only.",
        word_error,
        ("pocketsphinx", "jiwer"),
        usual=False,
    ),
)
METRICS = {metric.name: metric for metric in _TABLE}
