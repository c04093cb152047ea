"""The measures behind the metrics: each takes an original and a decoded piece of sound and gives a number, or raises.

Some come from well-kept packages, imported when first used; levels and pitch are computed here, in numpy.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nacre.io.audio import resampled

Array = np.ndarray[Any, np.dtype[Any]]

RATE_HZ = 16_000  # of the metrics that are defined at one rate, and the lowest of an evaluation
HIGHEST_DB = 100.0  # SI-SDR of a perfect copy, which would be infinite
MEL_BANDS = {256: 20, 512: 40, 1024: 64, 2048: 80}  # to 8 kHz, by window in samples at 16 kHz: 16 to 128 ms
MEL_RANGE_DB = 80.0  # what lies further below the loudest band of the original is inaudible
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
PITCH_WINDOW, PITCH_HOP = 512, 160
PITCH_TRANSFORM = 800  # at least the window and the longest period together
PERIODIC = 0.2  # largest normalised difference between a voiced frame and itself one period later
LEAST_VOICED = 10  # frames of 10 ms
CLEAR = 0.5  # normalised correlation below which a waveform counts as not preserved
DNSMOS_SAMPLES, DNSMOS_FIT = 144_160, (-0.06766283, 1.11546468, 0.04602535)  # as published with the network


class NothingToMeasure(ValueError):
    """The original has nothing for this metric to measure, so it says nothing about the codec."""


class Sound:
    """A piece [N] float32, with what several metrics or several codecs need of it worked out once."""

    def __init__(self, wave: Array, rate_hz: int = RATE_HZ):
        self.full, self.rate_hz = np.clip(wave, -1, 1).astype(np.float32), rate_hz

    @cached_property
    def wave(self) -> Array:
        """[M] float32 at 16 kHz, for the metrics that are defined there."""
        return self.full if self.rate_hz == RATE_HZ else np.clip(resampled(self.full, self.rate_hz, RATE_HZ), -1, 1)

    @cached_property
    def mels(self) -> list[Array]:
        """Mel band powers [T, bands], one for each window."""
        return [mel_powers(self.full, window, bands, self.rate_hz) for window, bands in MEL_BANDS.items()]

    @cached_property
    def pitch(self) -> Array:
        """F0 in Hz [T] every 10 ms, 0 where unvoiced."""
        return pitch_hz(self.wave)

    @cached_property
    def words(self) -> str:
        """What the recogniser transcribes."""
        return transcript(self.wave)


# ---------------------------------------------------------------- by packages


def pesq_wb(original: Sound, decoded: Sound) -> float:
    """ITU-T P.862.2."""
    from pesq import PesqError, pesq

    if not decoded.wave.any():
        raise ValueError("the codec decoded silence only")
    try:
        return float(pesq(RATE_HZ, original.wave, decoded.wave, "wb"))
    except PesqError as error:
        text = error.args[0] if error.args else "failed"
        raise ValueError(text.decode() if isinstance(text, bytes) else text) from error


def intelligibility(original: Sound, decoded: Sound, extended: bool) -> float:
    """STOI, or ESTOI where `extended`."""
    from pystoi import stoi

    state = np.random.get_state()
    np.random.seed(0)  # it adds noise of 1e-16, which would otherwise show in the last digits
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # it only warns where too little is left without pauses
        try:
            return float(stoi(original.wave, decoded.wave, RATE_HZ, extended=extended))
        except RuntimeWarning as warning:
            raise ValueError("the clip has too little speech") from warning
        finally:
            np.random.set_state(state)


def dnsmos(_original: Sound, decoded: Sound) -> float:
    """Overall quality by DNSMOS P.835, as its authors run it: clips repeated to 9 s, then windows every second."""
    network, wave = speechmos_network("dnsmos_models", "sig_bak_ovr.onnx"), decoded.wave
    while len(wave) < DNSMOS_SAMPLES:
        wave = np.concatenate([wave, wave])
    starts = range(0, len(wave) - DNSMOS_SAMPLES + 1, RATE_HZ)
    raw = [network.run(None, {"input_1": wave[None, at : at + DNSMOS_SAMPLES]})[0][0][2] for at in starts]
    return float(np.polyval(DNSMOS_FIT, raw).mean())


@functools.cache
def speechmos_network(folder: str, name: str) -> Any:
    """A network in the package `speechmos`, whose own code imports more packages than it declares."""
    import onnxruntime

    package = importlib.util.find_spec("speechmos")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], folder, name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def word_error(original: Sound, decoded: Sound) -> float:
    """Word error in percent against the same recogniser's transcript of the original."""
    import jiwer

    if not original.words:
        raise ValueError("the recogniser finds no words in the original")
    return 100 * float(jiwer.wer(original.words, decoded.words))


def transcript(wave: Array) -> str:
    """Words in wave [N], by PocketSphinx with the English model of its package."""
    from pocketsphinx import Decoder

    recogniser = Decoder(loglevel="FATAL", samprate=RATE_HZ, cmn="batch")  # a used one remembers the clips before
    recogniser.start_utt()
    recogniser.process_raw((wave * 32767).astype("<i2").tobytes(), full_utt=True)
    recogniser.end_utt()
    hypothesis = recogniser.hyp()
    return hypothesis.hypstr if hypothesis else ""


# ---------------------------------------------------------------- by our own hand


def si_sdr_db(original: Sound, decoded: Sound) -> float:
    """Scale-invariant signal-to-distortion ratio, within +-100 dB."""
    clean, got = (sound.full.astype(np.float64) - sound.full.mean(dtype=np.float64) for sound in (original, decoded))
    part = (got @ clean) / (clean @ clean) * clean
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


def mel_powers(wave: Array, window: int, bands: int, rate_hz: int = RATE_HZ) -> Array:
    """Powers [T, bands'] of wave [N], frames a quarter window apart; the sizes are those of 16 kHz."""
    window, bands = window * rate_hz // RATE_HZ, round(bands * _mel(rate_hz / 2) / _mel(RATE_HZ / 2))
    padded = np.pad(wave.astype(np.float64), (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2  # [T, window / 2 + 1]
    result: Array = power @ mel_filters(window, bands, rate_hz)
    return result


@functools.cache
def mel_filters(window: int, bands: int, rate_hz: int = RATE_HZ) -> Array:
    """Triangles [window / 2 + 1, bands] from 0 to half the rate, each of sum 1."""
    edges_mel = np.linspace(0, _mel(rate_hz / 2), bands + 2)
    low, middle, high = (700 * (10 ** (edges_mel[at : at + bands] / 2595) - 1) for at in range(3))
    hz = np.fft.rfftfreq(window, 1 / rate_hz)[:, None]
    slopes = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle))
    triangles = np.maximum(slopes, 1e-9)  # a band between two bins gives the same for both sounds
    filters: Array = triangles / triangles.sum(0)
    return filters


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def pitch_hz(wave: Array) -> Array:
    """F0 [T] every 10 ms by YIN (de Cheveigne and Kawahara, 2002); 0 where a frame does not repeat itself."""
    longest, shortest = math.ceil(RATE_HZ / LOWEST_HZ), math.floor(RATE_HZ / HIGHEST_HZ)
    size = PITCH_WINDOW + longest + 1
    padded = np.pad(wave.astype(np.float64), (0, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(wave) : PITCH_HOP]  # [T, size]
    assert size <= PITCH_TRANSFORM, size
    spectra = np.fft.rfft(frames, PITCH_TRANSFORM) * np.conj(np.fft.rfft(frames[:, :PITCH_WINDOW], PITCH_TRANSFORM))
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
        raise ValueError(f"only {both.sum()} frames are voiced in both sounds; the metric needs {LEAST_VOICED}")
    cents = 1200 * np.log2(decoded.pitch[both] / original.pitch[both])
    return float(np.sqrt(np.mean(cents**2)))


def voicing_percent(original: Sound, decoded: Sound) -> float:
    """Share of frames that are voiced in one and unvoiced in the other."""
    return float(100 * np.mean((original.pitch > 0) != (decoded.pitch > 0)))


def lag_samples(original: Array, decoded: Array, most: int = 800) -> int | None:
    """How late decoded [N] is, within +-`most` samples; None where it does not follow the waveform."""
    size = 1 << (len(original) + most).bit_length()
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    both = np.fft.irfft(product, size)
    near = np.concatenate([both[-most:], both[: most + 1]])
    energy = float(
        np.sqrt(np.sum(np.square(original, dtype=np.float64)) * np.sum(np.square(decoded, dtype=np.float64)))
    )
    best = int(near.argmax())
    return best - most if energy > 0 and near[best] > CLEAR * energy else None
