"""WebDataset tars: files of one base name, one after another, are a sample; one of them is the sound."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from nacre.batch.sources import CODED
from nacre.core.errors import UsageError, reason
from nacre.corpus.recordings import InTar, Unreadable
from nacre.corpus.sources import Found, Source, Wanted, check_kept, type_of
from nacre.io.folders import ANY_SOUND

MOST_TEXT_BYTES = 1 << 20  # of a member that is kept


def webdataset(paths: list[str], path: str, wanted: Wanted) -> Source:
    """The samples of tars, in the order of their names. Raises UsageError."""
    suffixes = frozenset({f".{wanted.audio.lstrip('.')}"}) if wanted.audio else ANY_SOUND | CODED
    types = {}
    if wanted.keep:
        values: dict[str, Any] = next((found.values for found in _samples(paths, suffixes, True) if found.values), {})
        check_kept(path, list(values), wanted.keep)
        types = {name: type_of(path, name, values[name]) for name in wanted.keep}
    return Source("webdataset", path, types, lambda: _samples(paths, suffixes, bool(wanted.keep)))


def _samples(paths: list[str], suffixes: frozenset[str], with_values: bool) -> Iterator[Found]:
    for path in paths:
        yield from _inside(path, suffixes, with_values)


def _inside(path: str, suffixes: frozenset[str], with_values: bool) -> Iterator[Found]:
    """Samples of one tar; of one that is cut off those before the cut, then word of it."""
    held, key = list[tuple[tarfile.TarInfo, bytes | None]](), ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                    continue
                if (base := _base(member.name)) != key and held:
                    yield _sample(path, key, held, suffixes)
                    held = []
                key = base
                held.append((member, _text(tar, member) if with_values else None))
            if held:
                yield _sample(path, key, held, suffixes)
    except (tarfile.TarError, EOFError) as error:
        yield Found(
            f"{path}#end",
            Unreadable(f"{path} is damaged from here on, or compressed ({error}); nacre reads plain tars"),
        )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}") from error


def _base(name: str) -> str:
    """The name of a sample: all before the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".")[0]


def _suffix(name: str) -> str:
    return "." + name.rpartition("/")[2].partition(".")[2].lower()


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    if _suffix(member.name) not in (".json", ".txt", ".cls") or member.size > MOST_TEXT_BYTES:
        return None
    file = tar.extractfile(member)
    return file.read() if file else None


def _sample(path: str, key: str, held: list[tuple[tarfile.TarInfo, bytes | None]], suffixes: frozenset[str]) -> Found:
    values = _values(held)
    for member, _ in held:
        if any(_suffix(member.name).endswith(suffix) for suffix in suffixes):
            return Found(key, InTar(path, member.offset_data, member.size), member.size, values)
    names = ", ".join(_suffix(member.name) for member, _ in held)
    return Found(key, Unreadable(f"{path}#{key} has {names}, but no sound file"), values=values)


def _values(held: list[tuple[tarfile.TarInfo, bytes | None]]) -> dict[str, Any]:
    """Fields of a sample's .json; its .txt and .cls as text."""
    values: dict[str, Any] = {}
    for member, data in held:
        if data is None:
            continue
        text, suffix = data.decode(errors="replace"), _suffix(member.name)
        if suffix == ".json":
            try:
                read = json.loads(text)
            except ValueError:
                continue
            values |= read if isinstance(read, dict) else {}
        else:
            values[suffix[1:]] = text.strip()
    return values
