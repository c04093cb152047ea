"""Manifests: CSV and TSV with a header, JSON lines (NeMo's among them), Lhotse cuts; plain or as .gz."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from nacre.core.errors import UsageError, reason
from nacre.corpus.recordings import InFile, Place, Unreadable
from nacre.corpus.sources import (
    KEY_COLUMNS,
    SOUND_COLUMNS,
    Found,
    Source,
    Wanted,
    check_kept,
    column_of,
    size_of,
    type_of,
)

STARTS = ("start", "offset", "start_s")
DURATIONS = ("duration", "duration_s")
LONGEST_LINE = 1 << 24
LOOK = 1000  # rows that are looked into for the types of kept columns
Row = dict[str, Any]


def manifest(path: str, wanted: Wanted) -> Source:
    """The rows of a manifest; paths in it are relative to its folder. Raises UsageError."""
    rows = _rows(path)
    first = next((row for row in rows if isinstance(row, dict)), None)
    if first is None:
        raise UsageError(f"{path} has no rows; a manifest needs at least one")
    cuts = "recording" in first and not wanted.audio
    if cuts:
        types = {name: "string" for name in wanted.keep}
        return Source("lhotse", path, types, lambda: _cuts(path, wanted))
    names = list(first)
    audio = column_of(path, names, wanted.audio, SOUND_COLUMNS, "audio")
    key = column_of(path, names, wanted.key, KEY_COLUMNS, "key") if wanted.key else _known(names, KEY_COLUMNS)
    check_kept(path, names, wanted.keep)
    types = {name: _type(path, name) for name in wanted.keep}
    return Source("manifest", path, types, lambda: _listed(path, audio, key))


def _known(names: list[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in names), None)


def _type(path: str, name: str) -> str:
    for count, row in enumerate(_rows(path)):
        if isinstance(row, dict) and row.get(name) is not None:
            return type_of(path, name, row[name])
        if count >= LOOK:
            break
    return "string"


def _open(path: str) -> TextIO:
    if path.endswith(".gz"):
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8", newline="", errors="surrogateescape"))
    return open(path, encoding="utf-8-sig", newline="", errors="surrogateescape")


def _rows(path: str) -> Iterator[Row | Unreadable]:
    """Every row by its columns, or why it cannot be read."""
    try:
        with _open(path) as file:
            yield from _json_rows(file) if ".jsonl" in Path(path).suffixes else _csv_rows(path, file)
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read to its end: {reason(error)}") from error


def _json_rows(file: TextIO) -> Iterator[Row | Unreadable]:
    while line := file.readline(LONGEST_LINE):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Unreadable(f"this line is no JSON ({error})")
            continue
        yield row if isinstance(row, dict) else Unreadable(f"this line is a {type(row).__name__}, not a JSON object")


def _csv_rows(path: str, file: TextIO) -> Iterator[Row | Unreadable]:
    rows = csv.reader(file, delimiter="\t" if ".tsv" in Path(path).suffixes else ",")
    names = next(rows, [])
    if len(set(names)) < len(names):
        raise UsageError(f"{path} names a column twice ({', '.join(names)}); rename one of them")
    while True:
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Unreadable(f"this line is no CSV ({error})")
            continue
        if len(values) == len(names):
            yield {name: value or None for name, value in zip(names, values, strict=True)}
        elif values:
            yield Unreadable(f"this line has {len(values)} columns, the header {len(names)}")


def _listed(path: str, audio: str, key: str | None) -> Iterator[Found]:
    for number, row in enumerate(_rows(path)):
        if isinstance(row, Unreadable):
            yield Found(f"row {number}", row)
            continue
        name, start, duration = row.get(audio), *(_number(row, names) for names in (STARTS, DURATIONS))
        label = row.get(key) if key else name if start is None else f"{name}@{start}"
        label = str(label) if label is not None else f"row {number}"
        if not isinstance(name, str) or not name:
            yield Found(label, Unreadable(f"column {audio} has {name!r} in place of a path"), values=row)
        elif isinstance(start, str) or isinstance(duration, str):
            yield Found(label, Unreadable(_no_seconds(start, duration)), values=row)
        else:
            place = _place(path, name)
            if start is not None:  # a duration alone says how long the file is
                place = InFile(place.path, start, duration)
            yield Found(label, place, size_of(place.path) if start is None else _part_size(duration), row)


def _no_seconds(start: object, duration: object) -> str:
    return f"start {start} and duration {duration} must be numbers of seconds"


def _place(path: str, name: str) -> InFile:
    return InFile(os.path.join(os.path.dirname(path), name))


def _part_size(duration_s: float | None) -> int:
    """What a part counts in the size of a shard: 16-bit sound at 16 kHz."""
    return round(32_000 * (duration_s or 0))


def _number(row: Row, names: tuple[str, ...]) -> float | str | None:
    """The first of these that is there; its text where that is no number of seconds."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return str(value)
    return seconds if 0 <= seconds < 1e9 else str(value)


def _cuts(path: str, wanted: Wanted) -> Iterator[Found]:
    for number, row in enumerate(_rows(path)):
        if isinstance(row, Unreadable):
            yield Found(f"row {number}", row)
            continue
        label, values = str(row.get("id", f"row {number}")), _metadata(row, wanted.keep)
        place = _cut(path, row)
        yield Found(label, place, _part_size(place.duration_s) if isinstance(place, InFile) else 0, values)


def _cut(path: str, row: Row) -> Place:
    """The sound of a MonoCut or MultiCut over one file."""
    try:
        recording, kind = row["recording"], row.get("type", "MonoCut")
        source = recording["sources"][0]
        if kind not in ("MonoCut", "MultiCut") or source["type"] != "file" or len(recording["sources"]) > 1:
            return Unreadable(f"a {kind} over {source['type']} cannot be read; give MonoCuts or MultiCuts of one file")
        start, duration = _number(row, ("start",)), _number(row, ("duration",))
        if not isinstance(start, float) or not isinstance(duration, float):
            return Unreadable(_no_seconds(start, duration))
        channels = row.get("channel", 0)
        picked = tuple(int(channel) for channel in (channels if isinstance(channels, list) else [channels]))
        every = tuple(source.get("channels", picked))
        return InFile(_place(path, source["source"]).path, start, duration, () if picked == every else picked)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return Unreadable(f"this is no cut with a recording ({type(error).__name__}: {error})")


def _metadata(row: Row, keep: tuple[str, ...]) -> dict[str, str]:
    """Kept columns of a cut as text: of its first supervision, its custom fields, or the cut itself."""
    supervision = (row.get("supervisions") or [{}])[0]
    metadata = {}
    for name in keep:
        for held in (supervision, supervision.get("custom") or {}, row.get("custom") or {}, row):
            if isinstance(held, dict) and held.get(name) is not None:
                metadata[name] = str(held[name])
                break
    return metadata
