"""Results of a batch: a summary for people, and a row per file as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nacre.core.errors import NacreError, UsageError
from nacre.core.units import kbps

DONE, SKIPPED, FAILED, PART = "done", "skipped", "failed", "incomplete"
SUFFIXES = (".csv", ".json")


@dataclass
class Result:
    """The result of one file. The `error` of an incomplete one says what is missing."""

    text: str = ""  # for people
    seconds: float = 0.0  # of sound
    bytes_in: int = 0
    bytes_out: int = 0
    error: NacreError | None = None
    kept: bool = False  # something was written all the same
    source: str = ""
    target: str = ""
    work_s: float = 0.0
    skipped: bool = False

    @property
    def status(self) -> str:
        """One word."""
        if self.skipped:
            return SKIPPED
        return (PART if self.kept else FAILED) if self.error else DONE


@dataclass(frozen=True)
class Row:
    """A line of a report."""

    source: str
    target: str
    status: str
    seconds: float
    bytes_in: int
    bytes_out: int
    kbps: float
    work_s: float
    error: str


def check_report(path: str | None) -> None:
    """Raise UsageError for a report of another kind."""
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--report {path} must end in {' or '.join(SUFFIXES)}; rename it")


def rows(results: list[Result]) -> list[Row]:
    """A row for each result."""
    return [
        Row(
            r.source,
            r.target,
            r.status,
            round(r.seconds, 3),
            r.bytes_in,
            r.bytes_out,
            round(kbps(r.bytes_out, r.seconds), 3),
            round(r.work_s, 3),
            str(r.error or ""),
        )
        for r in results
    ]


def report_text(path: str, results: list[Result]) -> bytes:
    """The report in the format of its suffix."""
    table = [asdict(row) for row in rows(results)]
    if Path(path).suffix.lower() == ".json":
        return (json.dumps(table, indent=1) + "\n").encode("utf-8", "surrogateescape")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode("utf-8", "surrogateescape")


def summary(results: list[Result], count: int, wall_s: float, word: str) -> list[str]:
    """Lines on a batch of `count` files: numbers, then every failure."""
    kinds = Counter(result.status for result in results)
    done = [result for result in results if result.status in (DONE, PART)]
    seconds = sum(result.seconds for result in done)
    bytes_in, bytes_out = sum(result.bytes_in for result in done), sum(result.bytes_out for result in done)
    parts = [f"{kinds[kind]} {kind}" for kind in (DONE, SKIPPED, PART, FAILED) if kinds[kind]]
    if count > len(results):
        parts.append(f"{count - len(results)} not started")
    line = f"{count} files: {', '.join(parts)}"
    if done and bytes_out:
        ratio = f" ({bytes_in / bytes_out:.1f} : 1)" if word == "encode" else ""
        line += f"  {duration(seconds)} of sound  {size(bytes_in)} to {size(bytes_out)}{ratio}"
    if seconds and wall_s > 0:
        line += f"  {wall_s:.1f} s, {seconds / wall_s:.0f} x real time"
    failed = [result for result in results if result.error]
    lines = [line]
    if failed:
        lines += [f"{len(failed)} of {count} files have errors:", *(f"  {result.error}" for result in failed)]
    return lines


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss.

    >>> duration(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def size(count: float) -> str:
    """Bytes in a unit that people read.

    >>> size(1234567)
    '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
