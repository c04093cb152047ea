"""A model of music ready for use: files in the same way as `nacre.codec.codec.Codec` has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from nacre.codec.codec import Codec
from nacre.codec.codec import load as load_codec
from nacre.codec.file_decoder import Damage, packet_count
from nacre.codec.settings import Settings
from nacre.codec.stream import file_of
from nacre.core.config import DEFAULT_MODEL
from nacre.core.errors import StreamError
from nacre.core.kinds import MUSIC
from nacre.core.types import Array
from nacre.dsp.stereo import AUTO
from nacre.dsp.wave import as_sound
from nacre.format import file as container
from nacre.format.file import Contents
from nacre.music.decoder import MusicDecoder
from nacre.music.encoder import MusicEncoder
from nacre.music.model import GROUP_FRAMES, LAYOUT, NAME, MusicModel, find, is_music


class MusicCodec:
    """Encodes and decodes files of music at 48 kHz. It keeps nothing between calls: threads may share it."""

    def __init__(self, model: MusicModel):
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, and copied, as the folder of its model."""
        return load_music, (str(self.model.folder),)

    def encode(
        self,
        wave: Array,
        rate_hz: float,
        *,
        bitrate_kbps: float | None = None,
        quality: float | None = None,
        stereo: str = AUTO,
    ) -> bytes:
        """A whole `.nacre` file from wave float32 [N] or [C, N]; raises AudioError, UsageError.

        `bitrate_kbps` is the rate of the file over all channels, 6 to 64 a channel, `quality` 0..100 keeps the quality
        constant instead; without either, 20 kb/s for one channel and 32 for two. `stereo` "left-right" codes two
        channels apart.
        """
        wave = as_sound(wave)
        stream = self.encoder(rate_hz, len(wave), bitrate_kbps=bitrate_kbps, quality=quality, stereo=stereo)
        return file_of(stream, wave)

    def decode(self, data: bytes) -> tuple[Array, int]:
        """(wave [C, N] float32, rate_hz) of a whole file; lost groups fade away. Raises StreamError."""
        stream = self.decoder(self.parse(data))
        return stream.whole(), stream.header.rate_hz

    def encoder(self, rate_hz: float, channels: int = 1, **settings: Any) -> MusicEncoder:
        """An encoder of pieces: push samples, get packets; options as in `encode`. Raises AudioError, UsageError."""
        return MusicEncoder(self.model, rate_hz, channels, Settings(**({"band_khz": None} | settings)))

    def decoder(self, contents: Contents, rate_hz: int | None = None) -> MusicDecoder:
        """A decoder over the packets of a file, at the file's rate or at `rate_hz`."""
        return MusicDecoder(self.model, contents, rate_hz)

    def parse(self, data: bytes) -> Contents:
        """Packets of a file, checked to be for this model. Raises StreamError."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise StreamError(f"a file must be given as bytes, not {type(data).__name__}")
        contents = container.unpack(bytes(data), partial(packet_count, LAYOUT))
        header = contents.header
        if (header.fingerprint, header.kind, header.group_frames) != (self.model.fingerprint, MUSIC, GROUP_FRAMES):
            models = f"{header.fingerprint.hex()}, not for {self.model.fingerprint.hex()} ({NAME})"
            raise StreamError(f"the file is for model {models}; leave --model out")
        return contents

    def verify(self, contents: Contents) -> list[Damage]:
        """The damaged groups of a file, found from the symbols alone, without rendering sound."""
        stream = self.decoder(contents)
        for group, held in stream.groups():
            for number, each in enumerate(held):
                if isinstance(each, StreamError):
                    stream.note_damage(number, group, str(each))
        return stream.damage


def load_music(model: str | Path = NAME) -> MusicCodec:
    """A codec by the name of a model of music in the package or by its folder. Raises UsageError, BundleError."""
    return MusicCodec(find(model))


@overload
def load(model: Literal["music-48k"], threads: int = 1) -> MusicCodec: ...  # type: ignore[overload-overlap]
@overload
def load(model: str | Path = DEFAULT_MODEL, threads: int = 1) -> Codec: ...
def load(model: str | Path = DEFAULT_MODEL, threads: int = 1) -> Codec | MusicCodec:
    """A codec by the name of a model in the package or by a model folder: "music-48k" is a MusicCodec.

    Raises UsageError, BundleError.
    """
    return load_music(model) if is_music(model) else load_codec(model, threads)
