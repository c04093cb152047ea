"""Results as they come, one line of JSON for each clip, so that a killed run goes on where it stood.

{"plan": {...}}                                     what was requested; a run goes on only with the same
{"clip": "a.wav", "sha256": "...", "scores": [...]}  whole lines count; a torn last one is dropped
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nacre.core.errors import NacreError, UsageError
from nacre.evaluate.results import Score
from nacre.evaluate.work import Result


class Journal:
    """A file of results; without a path nothing is kept."""

    def __init__(self, path: Path | None, plan: dict[str, Any]):
        self.path, self.plan = path, plan

    def start(self, resume: bool, force: bool) -> dict[str, Result]:
        """Open, new or where it was left; gives the results it holds, by clip. Raises UsageError, NacreError."""
        if self.path is None:
            if resume:
                raise UsageError("resume", found="no report", wanted="the --report of the run that was stopped")
            return {}
        try:
            if resume and self.path.exists():
                return self._read(self.path)
            if self.path.exists() and not force:
                advice = "go on with --resume or begin again with --force"
                raise NacreError(str(self.path), found="results of a run that was stopped", next=advice)
            self._write_line({"plan": self.plan}, "w")
        except OSError as error:
            wanted = "a folder that exists and may be written"
            raise NacreError(f"{self.path}: cannot write", found=error.strerror, wanted=wanted) from error
        return {}

    def _read(self, path: Path) -> dict[str, Result]:
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        try:
            head, *rows = map(json.loads, whole)
            results = [_result(row) for row in rows]
            plan = head["plan"]
        except (ValueError, KeyError, TypeError) as error:
            advice = "begin again with --force"
            raise NacreError(str(path), found="something else", wanted="results of a run", next=advice) from error
        changed = [name for name in {**self.plan, **plan} if self.plan.get(name) != plan.get(name)]
        if changed:
            advice = "repeat its options, or begin again with --force and without --resume"
            raise UsageError(
                f"{path}: {changed[0]}", found=self.plan.get(changed[0]), wanted=plan.get(changed[0]), next=advice
            )
        with path.open("r+b") as file:
            file.truncate(sum(map(len, whole)))
        return {result.clip: result for result in results}

    def add(self, result: Result) -> None:
        """Keep a result, on the disk before anything else happens."""
        if self.path is not None:
            self._write_line(asdict(result), "a")

    def _write_line(self, row: dict[str, Any], mode: str) -> None:
        assert self.path is not None
        with self.path.open(mode, encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """All is done and written elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _result(row: dict[str, Any]) -> Result:
    return Result(**row | {"scores": [Score(**score) for score in row["scores"]]})
