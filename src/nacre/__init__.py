"""nacre: speech and audio in very small files, by variational autoencoders.

>>> import nacre
>>> codec = nacre.load("speech-16k")  # doctest: +SKIP
>>> data = codec.encode(wave, rate_hz=48000, bitrate_kbps=6.0)  # doctest: +SKIP
>>> wave, rate_hz = codec.decode(data)  # doctest: +SKIP
"""

from __future__ import annotations

TYPE_CHECKING = False  # as of typing, whose import takes longer than anything else here

if TYPE_CHECKING:
    from nacre.codec.codec import Codec
    from nacre.codec.latents import Latents
    from nacre.codec.tokens import Tokens
    from nacre.core.errors import AudioError, BundleError, NacreError, StreamError, TrainError, UsageError
    from nacre.music.codec import MusicCodec, load
    from nacre.tools import features

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "BundleError",
    "Codec",
    "Latents",
    "MusicCodec",
    "NacreError",
    "StreamError",
    "Tokens",
    "TrainError",
    "UsageError",
    "features",
    "load",
]
_HOMES = {
    "nacre.codec.codec": ("Codec",),
    "nacre.codec.latents": ("Latents",),
    "nacre.codec.tokens": ("Tokens",),
    "nacre.core.errors": ("AudioError", "BundleError", "NacreError", "StreamError", "TrainError", "UsageError"),
    "nacre.music.codec": ("MusicCodec", "load"),
}  # imported when asked for: `nacre --help` needs no numpy


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "features":
        return import_module("nacre.tools.features")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'nacre' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
