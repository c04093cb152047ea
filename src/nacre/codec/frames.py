"""What tokens and latents have in common: gains, levels and lengths, by which the sound comes back; files, batches.

Frames    values [T, X], of several channels [C, T, X], and for each group of frames its gain and quality level
Batch     several of them as padded arrays and masks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from nacre.core.errors import NacreError, StreamError, UsageError
from nacre.core.types import Array
from nacre.core.units import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, ceil_div
from nacre.dsp.gain import GAIN_CODES
from nacre.io.arrays import Members, read_arrays
from nacre.io.files import output_file
from nacre.model.model import Model

SILENT, LOST = -1, -2  # in place of a gain code: digital silence; a group that a damaged file has lost
VERSION = 1
MOST_BYTES = 1 << 30  # of one array in a file
HEAD = ("version", "rate_hz", "samples", "frames", "group_frames")

Item = TypeVar("Item", bound="Frames")
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Frames:
    """One recording in frames. Creation raises UsageError where sizes do not fit each other.

    `frames` of the T hold sound, frame t from sample t * hop on; those behind them bring out the last of it, since
    sound comes out late. `gains` are gain codes of groups of `group_frames`, SILENT or LOST, and `levels` their quality
    levels: [G], of several channels [C, G]. `samples` a channel at `rate_hz` went in, and come back. `fingerprint` is
    the model's own for static tables, whatever prior wrote a file.
    """

    gains: Array
    levels: Array
    rate_hz: int
    samples: int
    frames: int
    group_frames: int
    fingerprint: str

    VALUES: ClassVar[str]
    MEMBERS: ClassVar[Members] = {
        "gains": ("|i1", 2),
        "levels": ("|u1", 2),
        "head": ("<i8", 1),
        "fingerprint": ("|u1", 1),
    }

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and not 2 <= shape[0] <= MAX_CHANNELS):
            form = f"[T, X], or [C, T, X] with 2 to {MAX_CHANNELS} channels"
            raise UsageError(f"{self.VALUES} must have shape {form}, not {shape}")
        if not 1 <= self.group_frames <= 255:
            raise UsageError(f"group_frames must be 1 to 255, not {self.group_frames}")
        groups = (*shape[:-2], ceil_div(self.length, self.group_frames))
        if self.gains.shape != groups or self.levels.shape != groups:
            form = f"shape {groups}, one for {self.group_frames} frames"
            raise UsageError(f"gains and levels must have {form}, not {self.gains.shape} and {self.levels.shape}")
        if not ((self.gains >= LOST) & (self.gains < GAIN_CODES)).all():
            span = f"{self.gains.min()} to {self.gains.max()}"
            raise UsageError(f"gains must be {LOST} to {GAIN_CODES - 1}, not {span}")
        fits = MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ and self.samples > 0
        if not fits or not 1 <= self.frames <= self.length or len(self.fingerprint) != 8:
            facts = (self.rate_hz, self.samples, self.frames, self.fingerprint)
            names = "rate_hz, samples, frames and fingerprint"
            raise UsageError(f"{names} must be those of a recording of {self.length} frames, not {facts}")

    @property
    def values(self) -> Array:
        """The tokens or latents themselves."""
        values: Array = getattr(self, self.VALUES)
        return values

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    @property
    def length(self) -> int:
        """Frames, T."""
        return int(self.values.shape[-2])

    @property
    def channels(self) -> int:
        """Channels, C."""
        return 1 if self.values.ndim == 2 else int(self.values.shape[0])

    @property
    def sounding(self) -> Array:
        """The values of frames that hold sound, without those that only bring out the last of it."""
        return self.values[..., : self.frames, :]

    @property
    def frame_gains(self) -> Array:
        """The gain code of each frame, [T] or [C, T] int8."""
        return np.repeat(self.gains, self.group_frames, -1)[..., : self.length]

    @property
    def lost(self) -> int:
        """Groups that a damaged file has lost."""
        return int((self.gains == LOST).sum())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = self.values if dtype is None else self.values.astype(dtype, copy=False)
        return values.copy() if copy else values

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        facts = f"{self.VALUES} {list(self.shape)}, {self.samples} samples at {self.rate_hz} Hz, {self.fingerprint}"
        return f"{type(self).__name__}({facts})"

    def arrays(self) -> dict[str, Array]:
        """Everything as arrays with all axes, [C, T, X] and [C, G], for files and tables; `of_arrays` reads them."""
        head = np.array([VERSION, *(getattr(self, name) for name in HEAD[1:])], np.int64)
        fingerprint = np.frombuffer(bytes.fromhex(self.fingerprint), np.uint8)
        channels, last = self.channels, self.values.shape[-2:]
        return {
            self.VALUES: self.values.reshape(channels, *last),
            "gains": self.gains.reshape(channels, -1).astype(np.int8),
            "levels": self.levels.reshape(channels, -1).astype(np.uint8),
            "head": head,
            "fingerprint": fingerprint,
        }

    @classmethod
    def of_arrays(cls: type[Item], arrays: dict[str, Array]) -> Item:
        """What `arrays` gave. Raises UsageError."""
        head = arrays["head"].tolist()
        if len(head) != len(HEAD) or head[0] != VERSION:
            raise UsageError(f"head must hold {', '.join(HEAD)}, of version {VERSION}, not {head[:9]}")
        facts: dict[str, Any] = dict(zip(HEAD[1:], head[1:], strict=True))
        parts: dict[str, Any] = {name: arrays[name] for name in cls._parts()}
        if len(parts[cls.VALUES]) == 1:
            parts = {name: part[0] for name, part in parts.items()}
        return cls(**parts, **cls._more(arrays), **facts, fingerprint=arrays["fingerprint"].tobytes().hex())

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        """Fields with a channel axis."""
        return (cls.VALUES, "gains", "levels")

    @classmethod
    def _more(cls, arrays: dict[str, Array]) -> dict[str, Any]:
        """Fields that only this kind has."""
        return {}

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write an npz without pickle, whole or not at all; "-" is standard output. Raises AudioError."""
        arrays: dict[str, Any] = self.arrays()
        with output_file(path, overwrite) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls: type[Item], path: str | Path) -> Item:
        """What `save` wrote, read without trust. Raises StreamError."""
        try:
            return cls.of_arrays(read_arrays(path, cls.MEMBERS, MOST_BYTES))
        except NacreError as error:
            raise StreamError(f"{path} does not hold {cls.VALUES} as nacre saves them ({error})") from error

    def check_model(self, model: Model) -> None:
        """Raise UsageError unless the frames are of this very model."""
        c, fingerprints = model.config, [each.hex() for each in model.bundle.fingerprints]
        if self.fingerprint not in fingerprints:
            models = f"model {self.fingerprint}, not of {fingerprints[0]} ({model.name})"
            raise UsageError(f"the {self.VALUES} are of {models}; use the model that made them")
        if self.group_frames != c.group_frames:
            raise UsageError(f"group_frames must be {c.group_frames}, as in the model, not {self.group_frames}")
        if self.levels.max() >= c.levels:
            raise UsageError(f"level must be 0 to {c.levels - 1}, not {self.levels.max()}")


@dataclass(frozen=True, eq=False)
class Batch(Generic[Item]):
    """Recordings of one channel side by side, each to the bit what it is alone.

    Arrays are padded at the end: values with 0, gains with SILENT.
    """

    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]

    @cached_property
    def values(self) -> Array:
        """Tokens or latents [B, T, X]."""
        return _stacked([item.values for item in self.items], 0)

    @cached_property
    def gains(self) -> Array:
        """Gain codes [B, G] int8."""
        return _stacked([item.gains for item in self.items], SILENT)

    @property
    def lengths(self) -> Array:
        """Frames of each item [B]."""
        return np.array([item.length for item in self.items])

    @property
    def mask(self) -> Array:
        """Which frames [B, T] are an item's own."""
        return np.arange(self.values.shape[1]) < self.lengths[:, None]


def _stacked(parts: Sequence[Array], filler: int) -> Array:
    """parts [n, ...] of different lengths -> [B, N, ...], filled up at the end."""
    stacked = np.full((len(parts), max(map(len, parts)), *parts[0].shape[1:]), filler, parts[0].dtype)
    for row, part in zip(stacked, parts, strict=True):
        row[: len(part)] = part
    return stacked


def batch_of(
    work: Callable[[Array], Item], waves: Sequence[Array] | Array, lengths: Sequence[int] | None, threads: int
) -> Batch[Item]:
    """`work` of each wave as a batch; see `each_of`."""
    return Batch(tuple(each_of(work, waves, lengths, threads)))


def each_of(
    work: Callable[[Given], Made], waves: Sequence[Given] | Array, lengths: Sequence[int] | None, threads: int
) -> list[Made]:
    """`work` of each wave or file, on so many threads. Raises its errors, with the item's number, and UsageError."""
    from concurrent.futures import ThreadPoolExecutor  # here: every start would wait for it

    count = len(waves)
    if not count:
        raise UsageError("a batch needs one or more waves")
    if lengths is not None and len(lengths) != count:
        raise UsageError(f"a batch of {count} waves needs a length for each, not {len(lengths)} lengths")
    rows: Any = waves
    if lengths is not None and any(not 0 < length <= np.shape(rows[at])[-1] for at, length in enumerate(lengths)):
        raise UsageError(f"lengths must be from 1 to the samples of each wave, not {list(lengths)}")

    def one(index: int) -> Made:
        item = rows[index] if lengths is None else rows[index][..., : lengths[index]]
        try:
            return work(item)
        except NacreError as error:
            raise type(error)(f"item {index}: {error}") from error

    with ThreadPoolExecutor(max(1, threads)) as pool:
        return list(pool.map(one, range(count)))
