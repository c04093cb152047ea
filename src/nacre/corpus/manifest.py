"""The folder that a corpus goes to: its description, the list of whole shards, the table of what failed.

corpus.json     what was request for; a folder that was made otherwise is refused
manifest.jsonl  a line for each whole shard, with checksum; written as they come, in order when all are there
errors.csv      recordings that are missing from their shard, or incomplete there
runs.jsonl      a line for each run: speed, memory, how it was worked
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nacre.core.errors import AudioError, UsageError, reason
from nacre.corpus.columns import Column
from nacre.corpus.records import Record
from nacre.corpus.shards import sha256_of, shard_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DESCRIPTION, MANIFEST, ERRORS, RUNS, LOCK = "corpus.json", "manifest.jsonl", "errors.csv", "runs.jsonl", ".lock"
FORMAT = 1
ANOTHER = "choose another destination, or ask for the same"


class Manifest:
    """The whole shards of a destination."""

    def __init__(self, folder: str):
        self.folder = folder
        self.records: dict[int, Record] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """The destination for this process alone; what killed ones left half done is taken away. Raises AudioError."""
        with _no_room(self.folder):
            os.makedirs(self.folder, exist_ok=True)
            lock = open(self._path(LOCK), "wb")  # noqa: SIM115 - closed below, kept for as long as the work lasts
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise AudioError(f"another run is writing to {self.folder}; wait for it") from error
                except OSError:
                    pass  # a file system without locks
            for path in [*Path(self.folder).glob(".*.part"), *Path(self.folder).glob(".*.row")]:
                path.unlink(missing_ok=True)
            yield

    def begin(self, description: dict[str, Any]) -> None:
        """Describe a new destination, or go on with one of the same description. Raises UsageError."""
        path = self._path(DESCRIPTION)
        if os.path.exists(path):
            _check_same(self.folder, read_description(self.folder), description)
        else:
            if others := [name for name in os.listdir(self.folder) if not name.startswith(".")]:
                raise UsageError(f"{self.folder} holds other files ({sorted(others)[0]}); give an empty or new folder")
            with _no_room(self.folder), shard_file(self.folder, DESCRIPTION) as file:
                file.write((json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        self.records = {record.shard: record for record in read_records(self.folder)}

    def is_done(self, shard: int, plan: str, again: bool) -> bool:
        """Whether a shard is whole and there. Raises UsageError if of other recordings, unless it may be made again."""
        record = self.records.get(shard)
        if record is None:
            return False
        if record.plan != plan and not again:
            advice = "choose another destination, or --force to make such shards again"
            raise UsageError(f"{self.folder}: shard {shard} has other recordings than the source has now; {advice}")
        path = self._path(record.file)
        return record.plan == plan and os.path.exists(path) and os.path.getsize(path) == record.file_bytes

    def add(self, record: Record) -> None:
        """One more whole shard, on the disk before the next is begun."""
        self.records[record.shard] = record
        with _no_room(self.folder), open(self._path(MANIFEST), "ab") as file:
            file.write(_line(record.to_dict()))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, shards: int | None, lost: list[tuple[int, str]]) -> None:
        """Put the manifest in order, and the errors into their table. `shards`: how many there are, if that is known.

        `lost`: shards that could not be made, and why.
        """
        if shards is not None:
            for number in [number for number in self.records if number >= shards]:
                Path(self._path(self.records.pop(number).file)).unlink(missing_ok=True)
        records = [self.records[number] for number in sorted(self.records)]
        with _no_room(self.folder):
            with shard_file(self.folder, MANIFEST) as file:
                file.writelines(_line(record.to_dict()) for record in records)
            with shard_file(self.folder, ERRORS) as file:
                file.write(_errors(records, lost))

    def note_run(self, facts: dict[str, Any]) -> None:
        """Remember what a run took."""
        with _no_room(self.folder), open(self._path(RUNS), "ab") as file:
            file.write(_line(facts))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def describe(facts: dict[str, Any], to: str, columns: tuple[Column, ...], shard_rows: int, shard_mb: float) -> Any:
    """What a destination is compared by."""
    form = {"format": FORMAT, "to": to, "shard_rows": shard_rows, "shard_mb": shard_mb}
    return form | facts | {"columns": [column.to_dict() for column in columns]}


def _check_same(folder: str, there: dict[str, Any], request: dict[str, Any]) -> None:
    """Raise UsageError that names the first thing which differs."""
    request = json.loads(json.dumps(request))
    for name in dict.fromkeys([*request, *there]):
        if there.get(name) != request.get(name):
            if name == "columns":
                differ = [item["name"] for item in request[name] if item not in there.get(name, [])]
                differ += [item["name"] for item in there.get(name, []) if item not in request[name]]
                where = ", ".join(dict.fromkeys(differ)) or "order"
                raise UsageError(f"{folder} has columns of another schema, which differs in {where}; {ANOTHER}")
            was, is_now = there.get(name), request.get(name)
            raise UsageError(f"{folder} was made with {name} {was}, and this asks for {is_now}; {ANOTHER}")


def read_description(folder: str | Path) -> dict[str, Any]:
    """corpus.json of a destination. Raises UsageError."""
    try:
        description = json.loads(Path(folder, DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is no folder of `nacre corpus`: {reason(error)}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise UsageError(f"{folder}: {DESCRIPTION} is of another format than {FORMAT}; another version wrote it")
    return description


def read_records(folder: str | Path) -> list[Record]:
    """The whole shards by number; a last line that was cut off counts for nothing. Raises UsageError."""
    records: dict[int, Record] = {}
    with suppress(FileNotFoundError):
        lines = Path(folder, MANIFEST).read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1]):
            try:
                record = Record.from_dict(json.loads(line))
            except (ValueError, TypeError, LookupError) as error:
                raise UsageError(f"{folder}: {MANIFEST}, line {number + 1} is no record of a shard: {error}") from error
            records[record.shard] = record
    return [records[number] for number in sorted(records)]


def check(folder: str | Path) -> Iterator[tuple[Record, str]]:
    """Every shard with what is wrong with it, "" for one that is as it was written."""
    for record in read_records(folder):
        path = Path(folder, record.file)
        if not path.exists():
            yield record, "missing"
        else:
            yield record, "" if sha256_of(path) == record.sha256 else "damaged"


def _line(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _errors(records: list[Record], lost: list[tuple[int, str]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["shard", "row", "key", "status", "error"])
    for record in records:
        table.writerows([record.shard, item.row, item.key, item.status, item.error] for item in record.failures)
    table.writerows([number, "", "", "no shard", error] for number, error in sorted(lost))
    return text.getvalue().encode("utf-8", "replace")


@contextmanager
def _no_room(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(f"cannot write to {folder}: {reason(error)}; it must have room and be yours") from error
