"""Where recordings come from: a folder, a manifest, tars, Parquet or Arrow files; found out by what lies there.

| kind | SOURCE |
|---|---|
| folder | a tree with sound files, or without any and with .nacre files |
| corpus | a folder that `nacre corpus encode` wrote |
| manifest | .csv, .tsv, .jsonl, Lhotse cuts; each also .gz |
| webdataset | a .tar, or a folder of them |
| parquet | a .parquet, or a folder of them |
| arrow | a folder that `Dataset.save_to_disk` of Hugging Face wrote |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacre.batch.sources import CODED
from nacre.core.errors import UsageError
from nacre.corpus.recordings import InFile, Place, Recording, Unreadable, Value
from nacre.io.folders import ANY_SOUND, inside

SOUND_COLUMNS = (
    "audio",
    "audio_filepath",
    "audio_path",
    "path",
    "wav",
    "file",
    "filename",
    "flac",
    "mp3",
    "bytes",
    "nacre",
)
KEY_COLUMNS = ("id", "key", "__key__", "utt_id", "segment_id")
RATE_COLUMNS = ("sampling_rate", "sample_rate", "rate_hz", "rate")
TYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}


@dataclass(frozen=True)
class Wanted:
    """Columns of a source: that of the sound, that of names, and those that go into the shards."""

    audio: str | None = None
    key: str | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A row as a kind of source reads it; `values` are checked against the types of kept columns later."""

    key: str
    place: Place
    size_bytes: int = 0
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A source that can be read again and again, always in the same order. `types` are of the kept columns."""

    kind: str
    path: str
    types: dict[str, str]
    read: Callable[[], Iterator[Found]]

    def recordings(self) -> Iterator[Recording]:
        """Every row, from the first."""
        for row, recording in enumerate(self.read()):
            place, kept = recording.place, list[Value]()
            for name, kind in self.types.items():
                value = recording.values.get(name)
                if not _fits(value, kind):
                    place = Unreadable(f"column {name} is a {type(value).__name__} here, and {kind} in earlier rows")
                    value = None
                kept.append(_plain(value, kind))
            yield Recording(row, _text(recording.key), place, recording.size_bytes, tuple(kept))


def _fits(value: object, kind: str) -> bool:
    if value is None:
        return True
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return False
    return TYPES.get(type(value)) == kind or (kind == "float64" and type(value) is int)


def _plain(value: Any, kind: str) -> Value:
    if isinstance(value, str):
        return _text(value)
    plain: Value = float(value) if kind == "float64" and value is not None else value
    return plain


def _text(value: str) -> str:
    """Text that any file takes: names on a disk, and JSON, may hold what is no UTF-8."""
    return value.encode("utf-8", "replace").decode("utf-8")


def open_source(path: str, wanted: Wanted) -> Source:
    """The source at `path`. Raises UsageError."""
    from nacre.corpus import coded, manifests, tables, tars

    if not os.path.exists(path):
        raise UsageError(f"{path} is not there; give a folder, a manifest, a .tar or a .parquet")
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if os.path.isfile(path):
        if suffixes[-1:] == [".parquet"]:
            return tables.parquet([path], path, wanted)
        if suffixes[-1:] == [".tar"]:
            return tars.webdataset([path], path, wanted)
        if [suffix for suffix in suffixes if suffix != ".gz"][-1:] in ([".csv"], [".tsv"], [".jsonl"]):
            return manifests.manifest(path, wanted)
        raise UsageError(f"{path} is no source by its name; it must end in .csv, .tsv, .jsonl, .tar or .parquet")
    names = sorted(os.listdir(path))
    if "corpus.json" in names:
        return coded.corpus(path, wanted)
    if "state.json" in names or "dataset_dict.json" in names:
        return tables.arrow(path, wanted)
    for suffix, make in ((".parquet", tables.parquet), (".tar", tars.webdataset)):
        if held := [os.path.join(path, name) for name in names if name.endswith(suffix)]:
            return make(held, path, wanted)
    if wanted.audio or wanted.key or wanted.keep:
        raise UsageError(f"{path} is a folder of files, without columns; leave out --audio, --key and --keep")
    kinds = ANY_SOUND if any(True for _ in inside(path)) else CODED  # files beside what they were made of
    return Source("folder", path, {}, lambda: _files(path, kinds))


def _files(folder: str, kinds: frozenset[str]) -> Iterator[Found]:
    for path in inside(folder, kinds):
        yield Found(Path(os.path.relpath(path, folder)).as_posix(), InFile(path), size_of(path))


def size_of(path: str) -> int:
    """Bytes of a file, 0 where it cannot be told."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def column_of(path: str, names: list[str], named: str | None, known: tuple[str, ...], what: str) -> str:
    """The column that is named for, or the first that is known. Raises UsageError where there is none."""
    for name in [named] if named else known:
        if name in names:
            return name
    missing = f"column {named}" if named else f"column of {what}, such as {known[0]}"
    raise UsageError(f"{path} has no {missing}, only {', '.join(names)}; name one with --{what}")


def check_kept(path: str, names: list[str], keep: tuple[str, ...]) -> None:
    """Raise UsageError for columns that are to be kept and are not there."""
    if missing := [name for name in keep if name not in names]:
        raise UsageError(f"{path} has no column {', '.join(missing)} to --keep, only {', '.join(names)}")


def type_of(path: str, name: str, value: object) -> str:
    """The type of a kept column, by its first value. Raises UsageError."""
    if type(value) not in TYPES:
        raise UsageError(f"{path}: column {name} holds a {type(value).__name__}; --keep takes text and numbers")
    return TYPES[type(value)]
