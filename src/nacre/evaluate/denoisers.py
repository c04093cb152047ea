"""Other programs that denoise speech, if they are installed: waves at 16 kHz in and out, aligned."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np

from nacre.evaluate.measures import RATE_HZ, Array
from nacre.io.audio import resampled

Denoiser = Callable[[Array], Array]  # wave [N] float32 at 16 kHz -> [N]

RNNOISE_HZ, RNNOISE_LAG = 48_000, 960  # samples that it is late
WEBRTC_LAG, WEBRTC_LEVEL = 96, 3  # samples that it is late; of suppression, 0 to 4


def rnnoise(wave: Array) -> Array:
    """RNNoise (Valin 2018), which works at 48 kHz."""
    from pyrnnoise import RNNoise

    late = np.zeros(RNNOISE_LAG, np.float32)
    samples = _steps(np.concatenate([resampled(wave, RATE_HZ, RNNOISE_HZ), late]))
    frames = [frame for _, frame in RNNoise(RNNOISE_HZ).denoise_chunk(samples[None], partial=True)]
    denoised = np.concatenate(frames, 1)[0][RNNOISE_LAG:].astype(np.float32) / 32768
    return resampled(denoised, RNNOISE_HZ, RATE_HZ)[: len(wave)]


def spectral_gating(wave: Array) -> Array:
    """Spectral gating by noisereduce with its defaults."""
    import noisereduce

    denoised: Array = noisereduce.reduce_noise(y=wave, sr=RATE_HZ, n_jobs=1).astype(np.float32)
    return denoised


def webrtc(wave: Array) -> Array:
    """Noise suppression of WebRTC, level 3 of 4, in steps of 10 ms."""
    from webrtc_noise_gain import AudioProcessor

    processor, step = AudioProcessor(0, WEBRTC_LEVEL), RATE_HZ // 100
    samples = _steps(np.pad(wave, (0, WEBRTC_LAG + -(len(wave) + WEBRTC_LAG) % step)))
    parts = [processor.Process10ms(samples[at : at + step].tobytes()).audio for at in range(0, len(samples), step)]
    denoised = np.frombuffer(b"".join(parts), "<i2").astype(np.float32) / 32768
    return denoised[WEBRTC_LAG:][: len(wave)]


def speex(wave: Array) -> Array:
    """The preprocessor of SpeexDSP with its defaults, in steps of 20 ms."""
    from speexdsp_ns import NoiseSuppression

    step = RATE_HZ // 50  # it is as late
    suppression = NoiseSuppression.create(step, RATE_HZ)
    samples = _steps(np.pad(wave, (0, step + -len(wave) % step)))
    parts = [suppression.process(samples[at : at + step].tobytes()) for at in range(0, len(samples), step)]
    return np.frombuffer(b"".join(parts), "<i2").astype(np.float32)[step:][: len(wave)] / 32768


PEERS: dict[str, tuple[str, str, Denoiser]] = {  # by name: module, package
    "RNNoise": ("pyrnnoise", "pyrnnoise", rnnoise),
    "gating": ("noisereduce", "noisereduce", spectral_gating),
    "WebRTC": ("webrtc_noise_gain", "webrtc-noise-gain", webrtc),
    "Speex": ("speexdsp_ns", "speexdsp-ns", speex),
}


def installed(notes: list[str]) -> dict[str, Denoiser]:
    """Those that are here; of the others `notes` get what to install."""
    denoisers = {}
    for name, (module, package, denoiser) in PEERS.items():
        if importlib.util.find_spec(module):
            denoisers[name] = denoiser
        else:
            notes.append(f"{name} is left out: it is not installed; run pip install {package}")
    return denoisers


def _steps(wave: Array) -> Array:
    """wave as 16-bit samples."""
    steps: Array = np.rint(np.clip(wave, -1, 1) * 32767).astype("<i2")
    return steps
