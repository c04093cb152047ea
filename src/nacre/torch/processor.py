"""Sound of any rate and length to what `NacreCodec` takes, in the manner of the feature extractors of transformers."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import AudioError, NacreError, UsageError
from nacre.core.types import Array
from nacre.dsp.wave import as_sound, check_shape
from nacre.io.audio import resampled
from nacre.model import bundle as bundles


class Features(UserDict[str, Any]):
    """`input_values` [B, N] float32 and `padding_mask` [B, N] bool, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("data", {}):
            return self.data[name]
        raise AttributeError(name)

    @property
    def lengths(self) -> Any:
        """Samples of each item [B]."""
        return self.data["padding_mask"].sum(1)

    def to(self, device: torch.device | str) -> Features:
        """The same with its tensors on a device."""
        return Features({name: value.to(device) for name, value in self.data.items()})


class NacreProcessor:
    """Resamples to a model's rate, averages channels, pads to the longest and says what is padding."""

    model_input_names = ("input_values", "padding_mask")

    def __init__(self, sampling_rate: int = 16_000):
        self.sampling_rate = check_shape(sampling_rate, 1)

    @classmethod
    def from_pretrained(cls, model: str | Path = DEFAULT_MODEL) -> NacreProcessor:
        """For a model by name or folder. Raises UsageError, BundleError."""
        return cls(bundles.find(model).config.rate_hz)

    def __call__(
        self, raw_audio: Array | Sequence[Any], sampling_rate: int, return_tensors: str | None = "pt"
    ) -> Features:
        """A wave [N] or [C, N] of floats, or a list of them, at `sampling_rate` -> Features.

        An array of two axes is one sound of several channels. `return_tensors`: "pt", or "np". Raises AudioError, which
        names the item, and UsageError.
        """
        if return_tensors not in ("pt", "np"):
            raise UsageError(f'return_tensors is {return_tensors!r}; it must be "pt" or "np"')
        alone = isinstance(raw_audio, (np.ndarray, torch.Tensor)) or not _holds_sounds(raw_audio)
        items = [raw_audio] if alone else list(raw_audio)
        waves = [self._ready(index, item, sampling_rate) for index, item in enumerate(items)]
        if not waves:
            raise UsageError("raw_audio is an empty list; give one sound or more")
        values = np.zeros((len(waves), max(map(len, waves))), np.float32)
        mask = np.zeros(values.shape, bool)
        for index, wave in enumerate(waves):
            values[index, : len(wave)], mask[index, : len(wave)] = wave, True
        inputs: dict[str, Any] = {"input_values": values, "padding_mask": mask}
        if return_tensors == "pt":
            inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}
        return Features(inputs)

    def _ready(self, index: int, item: Any, sampling_rate: int) -> Array:
        """One sound as [N] at the model's rate."""
        try:
            sound = as_sound(np.asarray(item))
            rate_hz = check_shape(sampling_rate, len(sound))
            if not sound.shape[1]:
                raise AudioError("the wave has no samples")
            return resampled(sound.mean(0), rate_hz, self.sampling_rate)
        except NacreError as error:
            raise type(error)(f"item {index}: {error}") from error


def _holds_sounds(items: Sequence[Any]) -> bool:
    """Whether a list is one of sounds, not of samples."""
    return not len(items) or np.ndim(items[0]) > 0
