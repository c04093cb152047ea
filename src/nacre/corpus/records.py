"""What the manifest says of a shard, and of what could not be made in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FAILED, PART = "failed", "incomplete"


@dataclass(frozen=True)
class Failure:
    """A recording that is missing from its shard, or incomplete there."""

    row: int
    key: str
    status: str
    error: str


@dataclass
class Record:
    """What the manifest says of a shard."""

    shard: int
    file: str
    plan: str
    rows: int = 0
    seconds: float = 0.0
    payload_bytes: int = 0  # of .nacre files or arrays
    file_bytes: int = 0
    sha256: str = ""
    failures: list[Failure] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """From a line of JSON."""
        return cls(**values | {"failures": [Failure(**item) for item in values["failures"]]})
