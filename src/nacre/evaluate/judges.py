"""Judges that other people trained on human votes: DistillMOS, ViSQOL, PLCMOS. Their weights lie in their packages.

None of them is ever a training loss: what is trained on stops being a judge.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from nacre.evaluate.measures import RATE_HZ, Array, Sound, speechmos_network

PLCMOS_WINDOW, PLCMOS_HOP, PLCMOS_RATERS = 512, 256, 15
PLCMOS_FLOOR_DB = -120.0  # below the least power above nothing


def distillmos(_original: Sound, decoded: Sound) -> float:
    """Mean opinion by DistillMOS (Stahl and Gamper, 2025), 1 to 5, without the original."""
    return float(_distillmos()(decoded.wave))


@functools.cache
def _distillmos() -> Callable[[Array], float]:
    """wave [N] -> score. The package prints where its weights are; a run has other things to say."""
    import torch

    with without_torchaudio(), contextlib.redirect_stdout(io.StringIO()):
        from distillmos import ConvTransformerSQAModel

        network = ConvTransformerSQAModel().eval()
    torch.set_num_threads(1)

    def judge(wave: Array) -> float:
        with torch.inference_mode():
            return float(network(torch.from_numpy(wave)[None]).item())

    return judge


@contextlib.contextmanager
def without_torchaudio() -> Iterator[None]:
    """An empty module in place of torchaudio, which DistillMOS imports and needs only to read files."""
    before = sys.modules.get("torchaudio")
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    try:
        yield
    finally:
        del sys.modules["torchaudio"]
        if before is not None:
            sys.modules["torchaudio"] = before


def visqol(original: Sound, decoded: Sound) -> float:
    """ViSQOL 3.3 in speech mode, 1 to about 4.8."""
    before, after = (sound.wave.astype(np.float64) for sound in (original, decoded))
    return float(_visqol().measure_from_arrays(before, after, RATE_HZ).moslqo)


@functools.cache
def _visqol() -> Any:
    """The package's own mapping without its network gives a point more, so the network must be there."""
    from visqol import VisqolApi

    logging.getLogger("visqol").setLevel(logging.ERROR)
    api = VisqolApi()
    with _quiet_stderr():
        api.create(mode="speech", use_lattice_model=True)
    return api


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence compiled code that writes to the error stream and has no setting for it."""
    sys.stderr.flush()
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def plcmos(_original: Sound, decoded: Sound) -> float:
    """Quality after packet loss by PLCMOS v2, 1 to 5, without the original: the mean of the same 15 random raters."""
    network = speechmos_network("plcmos_models", "plcmos_v2.onnx")
    features = plcmos_features(decoded.wave)[None, None]
    raters = np.random.default_rng(0).normal(size=(PLCMOS_RATERS, 1, 64)).astype(np.float32)
    votes = [network.run(None, {"degraded_audio": features, "rater_embed": rater})[0] for rater in raters]
    return float(np.mean(votes))


def plcmos_features(wave: Array) -> Array:
    """wave [N] -> log powers [T, 257] float32, as its authors take them: half a window before the sound."""
    count = -(-(len(wave) + PLCMOS_HOP) // PLCMOS_HOP)
    padded = np.zeros((count - 1) * PLCMOS_HOP + PLCMOS_WINDOW)
    padded[PLCMOS_HOP : PLCMOS_HOP + len(wave)] = wave
    frames = np.lib.stride_tricks.sliding_window_view(padded, PLCMOS_WINDOW)[::PLCMOS_HOP]
    power = np.abs(np.fft.rfft(frames * np.hamming(PLCMOS_WINDOW + 1)[:-1])) ** 2
    least = power.min(initial=np.inf, where=power > 0)
    if not np.isfinite(least):
        raise ValueError("the codec decoded silence only")
    logs: Array = np.log(np.where(power > 0, power, least * 10 ** (PLCMOS_FLOOR_DB / 10))) / 20
    return logs.astype(np.float32)
