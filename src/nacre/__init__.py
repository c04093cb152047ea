"""nacre: speech and audio in very small files, by variational autoencoders.

>>> import nacre
>>> codec = nacre.load("speech-16k")  # doctest: +SKIP
>>> data = codec.encode(wave, rate_hz=48000, bitrate_kbps=6.0)  # doctest: +SKIP
>>> wave, rate_hz = codec.decode(data)  # doctest: +SKIP
"""

from nacre import features
from nacre.codec import Codec, load
from nacre.errors import AudioError, BundleError, NacreError, StreamError, TrainError, UsageError

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "BundleError",
    "Codec",
    "NacreError",
    "StreamError",
    "TrainError",
    "UsageError",
    "features",
    "load",
]
