"""One shard, made by one process: every recording a row or a failure, the file whole or not there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from nacre.core.errors import AudioError, NacreError, reason
from nacre.corpus.coders import Coder, Making, coder_of, open_networks
from nacre.corpus.columns import Row, columns_of, size_of
from nacre.corpus.opening import Counted, Opener
from nacre.corpus.recordings import Recording, Shard
from nacre.corpus.records import FAILED, PART, Failure, Record
from nacre.corpus.shards import SUFFIXES, check_destination, sha256_of, shard_file, writer_of


@dataclass(frozen=True)
class Job:
    """All that a process must know to make a shard. `fatal`: rows that ended a process before, and how."""

    shard: Shard
    making: Making
    to: str
    kept: dict[str, str]
    facts: dict[str, str]
    folder: str
    fatal: dict[int, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the shard's file."""
        return self.shard.name + SUFFIXES[self.to]

    @property
    def marker(self) -> str:
        """A file that holds the row that is being worked on: it survives the process."""
        return os.path.join(self.folder, f".{self.shard.name}.row")


@dataclass(frozen=True)
class Made:
    """A shard that is done, and what it took."""

    record: Record
    wall_s: float
    cpu_s: float
    peak_mb: float


_CODERS: dict[str, Coder] = {}


def coder(making: Making) -> Coder:
    """A coder, made once in each process."""
    if (key := repr(making)) not in _CODERS:
        _CODERS[key] = coder_of(making)
    return _CODERS[key]


def prepare(making: Making, to: str) -> None:
    """Open and import what every shard needs."""
    coder(making)
    open_networks(making)
    check_destination(to, making.what)


def make_shard(job: Job) -> Made:
    """Make a shard and put it in its place. Raises AudioError where it cannot be written."""
    started, cpu = time.perf_counter(), time.process_time()
    columns = columns_of(coder(job.making).columns, job.kept)
    record = Record(job.shard.number, job.file, job.shard.plan())
    try:
        with _marked(job) as mark, shard_file(job.folder, job.file) as file, Opener(job.making.model) as opener:
            writer = writer_of(job.to, file, columns, job.facts, job.folder)
            for recording in job.shard.recordings:
                mark(recording.row)
                if row := _row(job, record, recording, opener):
                    writer.add(row)
                    record.rows += 1
            writer.finish()
    except OSError as error:
        raise AudioError(f"cannot write {job.file}: {reason(error)}; its folder must have room and be yours") from error
    path = os.path.join(job.folder, job.file)
    record.file_bytes, record.sha256 = os.path.getsize(path), sha256_of(path)
    return Made(record, time.perf_counter() - started, time.process_time() - cpu, _peak_mb())


def _row(job: Job, record: Record, recording: Recording, opener: Opener) -> Row | None:
    """The row of a recording, or None and a failure in the record."""
    status, error = FAILED, job.fatal.get(recording.row, "")
    row: Row | None = None
    if not error:
        try:
            with opener.open(recording) as opened:
                sound = Counted(opened)
                making = coder(job.making)
                made = making.row(sound)
                assert all(column.holds(made[column.name]) for column in making.columns)
                row = sound.facts(recording) | made | dict(zip(job.kept, recording.kept, strict=True))
                record.seconds += sound.samples / sound.rate_hz
                record.payload_bytes += sum(map(size_of, made.values()))
                if loss := opened.loss():
                    status, error = PART, str(loss)
        except (NacreError, UnicodeError) as failure:
            error = str(failure)
        except OSError as failure:
            error = f"cannot be read: {reason(failure)}"
        except MemoryError:
            error = "there is too little memory for the whole recording"
    if error:
        record.failures.append(Failure(recording.row, recording.key, status, error))
    return row


@contextmanager
def _marked(job: Job) -> Iterator[Callable[[int], object]]:
    """Something to call with the row that is begun; the mark goes when the shard has ended, well or not."""
    with open(job.marker, "wb", buffering=0) as file:

        def mark(row: int) -> None:
            file.seek(0)
            file.write(b"%-20d" % row)

        try:
            yield mark
        finally:
            with suppress(OSError):
                os.unlink(job.marker)


def marked_row(job: Job) -> int | None:
    """The row at which a process that made this shard ended, None where it had not begun."""
    try:
        with open(job.marker, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _peak_mb() -> float:
    """The most memory that this process ever had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
