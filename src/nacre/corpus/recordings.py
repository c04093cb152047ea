"""What a corpus is made of: recordings in the order of their source, and the shards that this order alone makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Value = str | int | float | bool | None
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class InFile:
    """Sound in a file of its own, or a part of it in seconds, or some of its channels."""

    path: str
    start_s: float = 0.0
    duration_s: float | None = None
    channels: tuple[int, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether not all of the file is meant."""
        return self.start_s > 0 or self.duration_s is not None or bool(self.channels)


@dataclass(frozen=True, slots=True)
class InTar:
    """A sound file inside a tar."""

    path: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class InTable:
    """Sound in a cell of a Parquet file (block: its row group) or of an Arrow file (block: its record batch)."""

    path: str
    block: int
    index: int
    column: str
    rate_column: str = ""


@dataclass(frozen=True, slots=True)
class InCorpus:
    """A `.nacre` file that is a row of a corpus which was encoded."""

    path: str
    row: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row of the source that names no sound, and why."""

    reason: str


Place = InFile | InTar | InTable | InCorpus | Unreadable


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of a source. `kept` are the values of its columns that go into the shards."""

    row: int
    key: str
    place: Place
    size_bytes: int = 0  # as far as the source tells without reading it
    kept: tuple[Value, ...] = ()

    @property
    def where(self) -> str:
        """Its row and name, for messages."""
        return f"row {self.row}, {self.key}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Recordings that are worked on together and lie in one file."""

    number: int
    recordings: tuple[Recording, ...]

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        return f"shard-{self.number:06d}"

    def plan(self) -> str:
        """SHA-256 of what is requested of it: another one where the source has changed."""
        digest = hashlib.sha256()
        for item in self.recordings:
            part = (item.place.start_s, item.place.duration_s) if isinstance(item.place, InFile) else ()
            digest.update(json.dumps([item.row, item.key, item.size_bytes, item.kept, part]).encode())
        return digest.hexdigest()


def shards_of(recordings: Iterable[Recording], most_rows: int, most_mb: float) -> Iterator[Shard]:
    """Cut recordings into shards by their order, number and sizes alone, whoever works on them."""
    number, held, size_bytes = 0, list[Recording](), 0
    for recording in recordings:
        held.append(recording)
        size_bytes += recording.size_bytes
        if len(held) >= most_rows or size_bytes >= most_mb * MB:
            yield Shard(number, tuple(held))
            number, held, size_bytes = number + 1, [], 0
    if held:
        yield Shard(number, tuple(held))
