"""Results as they come, one line of JSON per clip, so that a killed run can be resumed.

{"plan": {...}}                                     what was requested; a run is resumed only with the same
{"clip": "a.wav", "sha256": "...", "scores": [...]}  whole lines count; a torn last one is dropped
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nacre.core.errors import NacreError, UsageError, reason
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
                raise UsageError("--resume needs the --report, --json or --csv of the run that was stopped")
            return {}
        try:
            if resume and self.path.exists():
                return self._read(self.path)
            if self.path.exists() and not force:
                stopped = f"{self.path} holds results of a run that was stopped"
                raise NacreError(f"{stopped}; continue it with --resume, or start again with --force")
            self._write_line({"plan": self.plan}, "w")
        except OSError as error:
            advice = "choose a folder that exists and that you may write to"
            raise NacreError(f"{self.path} cannot be written ({reason(error)}); {advice}") from error
        return {}

    def _read(self, path: Path) -> dict[str, Result]:
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        try:
            head, *rows = map(json.loads, whole)
            results = [_result(row) for row in rows]
            plan = head["plan"]
        except (ValueError, KeyError, TypeError) as error:
            raise NacreError(f"{path} does not hold the results of a run; start again with --force") from error
        changed = [name for name in {**self.plan, **plan} if self.plan.get(name) != plan.get(name)]
        if changed:
            name = changed[0]
            differs = f"{path} is of a run with {name} {plan.get(name)}, not {self.plan.get(name)}"
            raise UsageError(f"{differs}; repeat its options, or start again with --force and without --resume")
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
