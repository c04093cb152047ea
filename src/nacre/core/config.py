"""Frozen settings of a codec model. Contradictions fail on creation; a variant states only its difference."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from nacre.core.errors import BundleError
from nacre.core.units import Layout

DEFAULT_MODEL = "speech-16k"  # inside the package
LONGEST_WINDOW = 8192  # of a denoiser, samples
LATER = {
    "mel_bands": 0,
    "cleans": False,
    "noise": False,
}  # settings that came after the first models: left out of model.json where they are at rest


@dataclass(frozen=True)
class CodecConfig:
    """Everything encoder and decoder must agree on, stored in a bundle's model.json."""

    rate_hz: int = 16_000
    hop_samples: int = 320  # one latent frame
    window_samples: int = 640  # analysis and synthesis window, 40 ms
    step_samples: int = 160  # spectra inside a frame, 10 ms apart
    delay_samples: int = 640  # output lags the input by this much: overlap-add plus decoder look-ahead
    latent_dims: int = 64
    levels: int = 16
    group_frames: int = 50  # frames coded together and checked together, 1 s
    mel_bands: int = 0  # 0: complex spectra; above: log-mel bands, whose sound is found again from magnitudes alone
    cleans: bool = False  # the encoder has each level a second time, for noisy sound whose latents are to be clean
    noise: bool = False  # the decoder gives the level of noise beside its spectra, see nacre.dsp.noise

    def __post_init__(self) -> None:
        sizes = {name: size for name, size in asdict(self).items() if (name, size) not in LATER.items()}
        flags = {name for name, rest in LATER.items() if isinstance(rest, bool)}
        bad = [
            name
            for name, value in sizes.items()
            if not isinstance(value, int) or isinstance(value, bool) != (name in flags) or value <= 0
        ]
        if bad:
            kind = "true or false" if bad[0] in flags else "a whole number above 0"
            raise BundleError(f"codec setting {bad[0]} must be {kind}, not {sizes[bad[0]]!r}")
        if self.hop_samples % self.step_samples or self.window_samples % self.step_samples:
            wholes = f"hop_samples ({self.hop_samples}) and window_samples ({self.window_samples})"
            raise BundleError(f"step_samples must divide {wholes}, and {self.step_samples} does not")
        if self.levels > 16 or self.group_frames > 255:
            given = f"{self.levels} and {self.group_frames}"
            raise BundleError(f"levels and group_frames must be at most 16 and 255, not {given}")
        if self.noise and self.mel_bands:
            raise BundleError("noise does not go with mel_bands: log-mel frames have no noise")

    @property
    def frame_rate_hz(self) -> Fraction:
        """Latent frames a second."""
        return Fraction(self.rate_hz, self.hop_samples)

    @property
    def encoder_levels(self) -> int:
        """Levels that the encoder knows: those for denoising come after the others."""
        return 2 * self.levels if self.cleans else self.levels

    @property
    def steps_per_frame(self) -> int:
        """Spectra in one latent frame."""
        return self.hop_samples // self.step_samples

    @property
    def bins(self) -> int:
        """Complex bins of one spectrum."""
        return self.window_samples // 2 + 1

    @property
    def step_width(self) -> int:
        """Numbers of one spectrum: real and imaginary parts, or mel bands."""
        return self.mel_bands or 2 * self.bins

    @property
    def decoder_width(self) -> int:
        """Numbers that the decoder gives a step: the spectrum, and the level of noise in each bin."""
        return self.step_width + self.bins if self.noise else self.step_width

    @property
    def group_samples(self) -> int:
        """Samples of one full group at the model's rate."""
        return self.group_frames * self.hop_samples

    @property
    def latency_ms(self) -> float:
        """Algorithmic latency when frames are sent one by one: the frame itself and the output's lag."""
        return 1000 * (self.hop_samples + self.delay_samples) / self.rate_hz

    def frames_for(self, samples: int) -> int:
        """Latent frames that cover `samples` at the model's rate, the output's lag included; 0 for no samples."""
        return self.layout.frames_for(samples)

    @property
    def layout(self) -> Layout:
        """Frames and groups alone."""
        return Layout(self.rate_hz, self.hop_samples, self.delay_samples, self.group_frames)

    def to_dict(self) -> dict[str, int]:
        """Settings for a model.json."""
        return {name: size for name, size in asdict(self).items() if (name, size) not in LATER.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Settings from a model.json; raises BundleError on an unknown or missing name."""
        known = {field.name for field in fields(cls)}
        if missing := sorted(known - set(LATER) - set(values)):
            raise BundleError(f"the codec settings lack {', '.join(missing)}")
        if unknown := sorted(set(values) - known):
            raise BundleError(f"this nacre does not know the codec settings {', '.join(unknown)}; update it")
        return cls(**values)


@dataclass(frozen=True)
class DenoiserConfig:
    """How a model's denoiser sees sound; stored in model.json under "denoiser".

    Its graph is given spectra over the loudest level so far, which falls by `release_db` a second.
    """

    window_samples: int = 512
    step_samples: int = 160  # the denoised sound lags by this much
    release_db: float = 10.0

    def __post_init__(self) -> None:
        window, step = self.window_samples, self.step_samples
        whole = all(isinstance(size, int) and not isinstance(size, bool) for size in (window, step))
        if not whole or not 0 < 2 * step <= window <= LONGEST_WINDOW or window % 2:
            rule = f"an even window of at least two steps, up to {LONGEST_WINDOW} samples"
            raise BundleError(f"a denoiser needs {rule}, not window_samples {window!r} and step_samples {step!r}")
        number = isinstance(self.release_db, int | float) and not isinstance(self.release_db, bool)
        if not number or not 0 < self.release_db <= 1000:
            raise BundleError(f"a denoiser's release_db must be above 0 and at most 1000, not {self.release_db!r}")

    @property
    def bins(self) -> int:
        """Complex bins of one spectrum."""
        return self.window_samples // 2 + 1

    def fall(self, rate_hz: int) -> float:
        """Factor by which the level falls in a step."""
        return float(10 ** (-self.release_db * self.step_samples / rate_hz / 20))
