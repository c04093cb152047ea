"""Log-mel spectra, MFCC, and a log-mel stream with its way back to sound.

    mel_power, log_mel, mfcc    a whole recording at once, with librosa's conventions and numbers
    LogMelAnalyser              samples -> causal log-mel frames, window by window as they come
    LogMelSynthesiser           log-mel frames -> samples, phases estimated on the way

Mel scale, band shapes and norm are those of Slaney's Auditory Toolbox (1998), librosa's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nacre.core.errors import AudioError, UsageError
from nacre.core.types import Array, State
from nacre.dsp.blas import one_thread
from nacre.dsp.wave import check_samples

LEAST_POWER = 1e-10  # librosa's amin
BREAK_HZ, BREAK_MEL = 1000.0, 15.0  # the mel scale is straight below, logarithmic above
LOG_STEP = np.log(6.4) / 27.0
BLOCK_FRAMES = 512  # spectra held at a time
COMPRESSION = 1000.0  # a streamed value is log1p(k x amplitude): straight below -60 dB, a logarithm above
LARGEST_LOG = 12.0  # streamed values are cut here, far above any sound, so that exp stays finite
UNMIX_ROUNDS = 12
PHASE_ROUNDS = 6
MOMENTUM = 0.6
TINY = np.float32(1e-8)


@dataclass(frozen=True)
class MelConfig:
    """What `mel_power`, `log_mel` and `mfcc` measure. Raises UsageError for settings that contradict each other.

    The window is Hann's, centred in the FFT; frames are `hop_samples` apart and centred on their samples, the
    sound padded with zeros. In librosa's names: sr, win_length, hop_length, n_fft, n_mels, fmin, fmax.
    """

    rate_hz: int = 16_000
    window_samples: int = 400  # 25 ms
    hop_samples: int = 160  # 10 ms
    fft_samples: int = 512
    bands: int = 80
    lowest_hz: float = 0.0
    highest_hz: float | None = None  # half the rate

    def __post_init__(self) -> None:
        for name in ("rate_hz", "window_samples", "hop_samples", "fft_samples", "bands"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number above 0, not {value!r}")
        if self.window_samples > self.fft_samples:
            longest = f"fft_samples ({self.fft_samples})"
            raise UsageError(f"window_samples must be at most {longest}, not {self.window_samples}")
        if not 0 <= self.lowest_hz < self.top_hz <= self.rate_hz / 2:
            given = f"{self.lowest_hz} and {self.top_hz}"
            raise UsageError(f"lowest_hz and highest_hz must rise within 0 to {self.rate_hz / 2:g} Hz, not {given}")

    @classmethod
    def at(cls, rate_hz: int, bands: int = 80) -> MelConfig:
        """Windows of 25 ms, 10 ms apart, at this rate."""
        window = round(rate_hz * 0.025)
        return cls(rate_hz, window, round(rate_hz * 0.01), 1 << (window - 1).bit_length(), bands)

    @property
    def top_hz(self) -> float:
        """Upper edge of the highest band."""
        return self.rate_hz / 2 if self.highest_hz is None else self.highest_hz

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.rate_hz / self.hop_samples


def hz_to_mel(frequency_hz: Array | float) -> Array:
    """Slaney's scale: 15 mel at 1 kHz, 200/3 Hz a mel below, 27 mel to a factor of 6.4 above."""
    hz = np.asarray(frequency_hz, np.float64)
    above = BREAK_MEL + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz * BREAK_MEL / BREAK_HZ, above)


def mel_to_hz(mel: Array | float) -> Array:
    """The way back from `hz_to_mel`."""
    mels = np.asarray(mel, np.float64)
    above = BREAK_HZ * np.exp(LOG_STEP * (np.maximum(mels, BREAK_MEL) - BREAK_MEL))
    return np.where(mels < BREAK_MEL, mels * BREAK_HZ / BREAK_MEL, above)


@lru_cache(maxsize=8)
def filters(config: MelConfig) -> Array:
    """Triangles [bands, bins] float32 of equal area over power spectra, read-only.

    Raises UsageError where a band falls between two bins: there are too many for the FFT.
    """
    mels = np.linspace(hz_to_mel(config.lowest_hz), hz_to_mel(config.top_hz), config.bands + 2)
    edges = mel_to_hz(mels)
    bins_hz = np.arange(config.fft_samples // 2 + 1) * config.rate_hz / config.fft_samples
    rising = (bins_hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins_hz) / np.diff(edges)[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    empty = np.count_nonzero(weights.max(1) == 0)
    if empty:
        place = f"fall between two bins of {config.rate_hz / config.fft_samples:g} Hz"
        raise UsageError(f"{empty} of {config.bands} bands {place}; take fewer bands or a longer FFT")
    bank: Array = weights.astype(np.float32)
    bank.setflags(write=False)
    return bank


def hann(size: int) -> Array:
    """The periodic Hann window, [size] float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


@one_thread
def mel_power(wave: Array, config: MelConfig | None = None) -> Array:
    """Band powers [T, bands] float32 of wave [N], T = 1 + N // hop; `librosa.feature.melspectrogram`, transposed.

    Raises AudioError unless wave is [N] of finite numbers.
    """
    c = config or MelConfig()
    sound = _as_mono(wave)
    before = (c.fft_samples - c.window_samples) // 2
    window = np.pad(hann(c.window_samples), (before, c.fft_samples - c.window_samples - before))
    padded = np.pad(sound, c.fft_samples // 2)
    padded = np.pad(padded, (0, max(0, c.fft_samples - len(padded))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, c.fft_samples)[:: c.hop_samples]
    frames = frames[: 1 + len(sound) // c.hop_samples]
    bank, out = filters(c).T, np.empty((len(frames), c.bands), np.float32)
    for at in range(0, len(frames), BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[at : at + BLOCK_FRAMES] * window)  # [t, bins]
        out[at : at + BLOCK_FRAMES] = (spectrum.real**2 + spectrum.imag**2) @ bank
    return out


def to_db(power: Array, range_db: float | None = 80.0) -> Array:
    """10 log10 of power, nothing lower than `range_db` below its loudest value; `librosa.power_to_db`."""
    level_db: Array = 10 * np.log10(np.maximum(power, np.float32(LEAST_POWER)))
    return level_db if range_db is None or not level_db.size else np.maximum(level_db, level_db.max() - range_db)


def log_mel(wave: Array, config: MelConfig | None = None, range_db: float | None = 80.0) -> Array:
    """Band levels [T, bands] float32 in dB of wave [N], full scale = 1."""
    return to_db(mel_power(wave, config), range_db)


@one_thread
def mfcc(wave: Array, config: MelConfig | None = None, coefficients: int = 20) -> Array:
    """Cepstrum [T, coefficients] float32 of wave [N]: the orthonormal DCT-II of `log_mel`; `librosa.feature.mfcc`."""
    c = config or MelConfig()
    if not 1 <= coefficients <= c.bands:
        raise UsageError(f"coefficients must be 1 to {c.bands}, the number of bands, not {coefficients}")
    return np.asarray(log_mel(wave, c) @ _cosines(c.bands, coefficients), np.float32)


def _cosines(bands: int, coefficients: int) -> Array:
    """The orthonormal DCT-II as a matrix [bands, coefficients] float32."""
    waves = np.cos(np.pi / bands * (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients))
    waves *= np.sqrt(np.where(np.arange(coefficients) == 0, 1, 2) / bands)
    return np.asarray(waves, np.float32)


def _as_mono(wave: Array) -> Array:
    sound = np.asarray(wave)
    if sound.ndim != 1 or sound.dtype.kind != "f":
        raise AudioError(f"wave must hold floats of shape [N], not {sound.dtype} of shape {sound.shape}")
    check_samples(sound)
    if not np.isfinite(sound).all():
        raise AudioError("wave holds NaN or infinite samples; make all of them finite")
    return sound.astype(np.float32, copy=False)


class _Stream:
    """What both directions share: sizes checked, window, bands whose weights sum to 1, [bins, bands] float32."""

    def __init__(
        self,
        rate_hz: int = 16_000,
        window_samples: int = 640,
        step_samples: int = 160,
        steps_per_frame: int = 2,
        bands: int = 80,
    ):
        config = MelConfig(rate_hz, window_samples, step_samples, window_samples, bands)
        if window_samples % step_samples or window_samples < 2 * step_samples:
            rule = f"divide window_samples ({window_samples}) and be at most half of it"
            raise UsageError(f"step_samples must {rule}, not {step_samples}")
        if steps_per_frame < 1:
            raise UsageError(f"steps_per_frame must be at least 1, not {steps_per_frame}")
        self.window_samples, self.step_samples = window_samples, step_samples
        self.steps_per_frame, self.bands = steps_per_frame, bands
        self.lag_samples = window_samples - step_samples
        self._window = hann(window_samples)
        bank = filters(config)
        self._bank = np.ascontiguousarray((bank / bank.sum(1, keepdims=True)).T)


class LogMelAnalyser(_Stream):
    """Samples to log-mel frames; a window ends where its step's samples end. State: the samples of later windows.

    A value is log1p(1000 a), a the root of a band's mean power under a Hann window and an orthonormal FFT: 0 for
    silence, about 4 for speech at -20 dB. Whatever the pieces, the values are the same to the last bit.
    """

    def start(self) -> State:
        """State before the first sample."""
        return (np.zeros(self.lag_samples, np.float32),)

    def step(self, wave: Array, state: State) -> tuple[Array, State]:
        """wave [N] float32, N a multiple of steps x step -> ([T, steps * bands] float32, state)."""
        frame = self.steps_per_frame * self.step_samples
        if wave.ndim != 1 or len(wave) % frame:
            raise AudioError(f"wave must have shape [N], N a multiple of {frame}, not {wave.shape}")
        if not len(wave):
            return np.zeros((0, self.steps_per_frame * self.bands), np.float32), state
        joined = np.concatenate([state[0], wave.astype(np.float32, copy=False)])
        windows = np.lib.stride_tricks.sliding_window_view(joined, self.window_samples)[:: self.step_samples]
        spectrum = np.fft.rfft(windows * self._window, norm="ortho")
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        values: Array = np.log1p(np.float32(COMPRESSION) * np.sqrt(_each(power, self._bank)))
        return values.reshape(-1, self.steps_per_frame * self.bands), (joined[len(wave) :].copy(),)


class LogMelSynthesiser(_Stream):
    """Log-mel steps to samples, lagging by window - step samples. State: the windows still under way.

        given       |====|====|====|                  three steps that have left, never touched again
        under way         a --------------
                               b --------------       four windows whose phases may still move
                                    c --------------
                                         d --------------   the newest
        leaves                           |====|       the only step that no later window reaches

    Each new window starts from the phases of the sound that the others make; then all windows under way are
    analysed and put together again some times over, each keeping the magnitude of its bands: real-time
    iterative spectrogram inversion (Zhu, Beauregard and Wyse, IEEE TASLP 15(5), 2007), its look-ahead taken from
    the overlap so that it costs no lag, with the momentum of Perraudin, Balazs and Søndergaard (WASPAA 2013).
    Bands become bins by the multiplicative updates of Lee and Seung (NIPS 2000) for the Kullback-Leibler divergence.
    Whatever the pieces, the samples are the same to the last bit.
    """

    def __init__(
        self,
        rate_hz: int = 16_000,
        window_samples: int = 640,
        step_samples: int = 160,
        steps_per_frame: int = 2,
        bands: int = 80,
    ):
        super().__init__(rate_hz, window_samples, step_samples, steps_per_frame, bands)
        overlap, step = window_samples // step_samples, step_samples
        self._spread = np.ascontiguousarray(self._bank.T / np.maximum(self._bank.sum(1), TINY))  # [bands, bins]
        squares = (self._window**2).reshape(overlap, step)
        cover = np.cumsum(squares[::-1], 0)[::-1]  # what the windows under way leave on each later step, [overlap, S]
        self._joint = 1 / np.maximum(cover, np.float32(1e-3))
        older = np.concatenate([cover[1:], np.zeros((1, step), np.float32)])  # without the newest
        self._start = np.where(older > 1e-2, 1 / np.maximum(older, TINY), 0).astype(np.float32)

    def start(self) -> State:
        """State before the first step: sum, windows and magnitudes of the windows under way."""
        overlap, step, bins = len(self._joint), self.step_samples, self.window_samples // 2 + 1
        total = np.zeros((2 * overlap - 1, step), np.float32)  # the picture above, from left to right
        return total, np.zeros((overlap, overlap, step), np.float32), np.zeros((overlap, bins), np.float32)

    def restart(self, state: State, skipped_steps: int) -> State:
        """A state that has forgotten what came before; so many more steps are left out."""
        return self.start()

    def parts(self, values: Array, state: State) -> tuple[Array, None, State]:
        """As `step`; there is no noise apart."""
        wave, state = self.step(values, state)
        return wave, None, state

    def step(self, values: Array, state: State) -> tuple[Array, State]:
        """values [T * steps, bands] float32 -> (wave [N] float32, N = T * steps * step, state)."""
        if values.ndim != 2 or values.shape[1] != self.bands or len(values) % self.steps_per_frame:
            shape = f"[T, {self.bands}], T a multiple of {self.steps_per_frame}"
            raise AudioError(f"log-mel values must have shape {shape}, not {values.shape}")
        total, windows, magnitudes = (part.copy() for part in state)
        pieces = [self._step(row, total, windows, magnitudes) for row in self._unmix(values)]
        return np.concatenate([np.zeros(0, np.float32), *pieces]), (total, windows, magnitudes)

    def _unmix(self, values: Array) -> Array:
        """Magnitudes [T, bins] float32, none below 0, whose bands are those of values [T, bands]."""
        amplitude = np.expm1(np.clip(values, 0, np.float32(LARGEST_LOG))) / np.float32(COMPRESSION)
        wanted = np.square(amplitude, dtype=np.float32)
        power = _each(wanted, self._spread)  # [T, bins]
        for _ in range(UNMIX_ROUNDS):
            power *= _each(wanted / (_each(power, self._bank) + np.float32(1e-12)), self._spread)
        magnitudes: Array = np.sqrt(power)
        return magnitudes

    def _step(self, magnitude: Array, total: Array, windows: Array, magnitudes: Array) -> Array:
        """The next step's samples [S] from the magnitudes [bins] of the window that it ends; the state moves on."""
        windows[:-1], magnitudes[:-1] = windows[1:], magnitudes[1:]
        total[:-1] = total[1:]
        windows[-1], magnitudes[-1] = 0, magnitude
        overlap = len(windows)
        _add_up(total, windows, self._start)
        sound = total[overlap - 1 :].reshape(1, -1)
        windows[-1:] = self._with_phases(self._spectra(sound), magnitudes[-1:])
        every = np.lib.stride_tricks.sliding_window_view(total.reshape(-1), self.window_samples)
        before = None
        for _ in range(PHASE_ROUNDS):
            _add_up(total, windows, self._joint)
            spectra = self._spectra(every[:: self.step_samples])
            ahead = spectra if before is None else spectra + np.float32(MOMENTUM) * (spectra - before)
            windows[:] = self._with_phases(ahead, magnitudes)
            before = spectra
        _add_up(total, windows, self._joint)
        return np.array(total[overlap - 1])

    def _spectra(self, sound: Array) -> Array:
        # never exactly 0, which has no phase
        return np.asarray(np.fft.rfft(sound * self._window, norm="ortho"), np.complex64) + TINY

    def _with_phases(self, spectra: Array, magnitudes: Array) -> Array:
        scaled = spectra * (magnitudes / np.maximum(np.abs(spectra), TINY))
        sound = np.fft.irfft(scaled, n=self.window_samples, norm="ortho") * self._window
        return sound.reshape(len(sound), -1, self.step_samples)


def _add_up(total: Array, windows: Array, scale: Array) -> None:
    """Overlap-add the windows under way behind the steps that have left."""
    overlap = len(windows)
    ahead = total[overlap - 1 :]  # [overlap, S]
    ahead[:] = windows[-1]
    for index in range(overlap - 1):
        ahead[: index + 1] += windows[index, overlap - 1 - index :]
    ahead *= scale


@one_thread
def _each(rows: Array, matrix: Array) -> Array:
    """rows [T, X] @ matrix [X, Y], a row at a time: all rows at once would round differently with their number."""
    product: Array = np.matmul(rows[:, None], matrix)
    return product[:, 0]
