"""Quality level <-> bitrate: which level the next group takes so that the file meets its target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nacre.units import kbps

Array = np.ndarray[Any, np.dtype[Any]]

HORIZON_S = 3.0  # rate control aims to be back on target after this long


@dataclass
class RatePlan:
    """Chooses the quality level of each group so that the file's mean rate meets the target.

    `rates_kbps` [L] is what the model spends on speech, all channels together; without a target the level stays.
    """

    rates_kbps: Array
    target_kbps: float | None
    level: int
    spent_bytes: int = 0  # the header of the file, to begin with
    duration_s: float = 0.0
    reach: int = 5  # levels above or below the first that a group may take
    plain_levels: int = 0  # from here on levels are refined: other sound costs more there than speech
    first: int = field(init=False)
    activity: Array = field(init=False)  # [L] what this sound costs against what the model expects

    def __post_init__(self) -> None:
        self.first = self.level
        self.activity = np.ones(len(self.rates_kbps))
        self._known = np.zeros(len(self.rates_kbps), bool)

    @property
    def highest(self) -> int:
        """The highest level that a group may take."""
        return self.level if self.target_kbps is None else min(self.first + self.reach, len(self.rates_kbps) - 1)

    def choose(self) -> int:
        """Level of the next group."""
        if self.target_kbps is None:
            return self.level
        goal_bytes = self.target_kbps * 125 * (self.duration_s + HORIZON_S)
        wanted_kbps = max(1e-3, (goal_bytes - self.spent_bytes) / 125 / HORIZON_S)
        level = int(np.abs(np.log(self.rates_kbps * self.activity / wanted_kbps)).argmin())
        self.level = int(np.clip(level, self.first - self.reach, self.first + self.reach))
        return self.level

    def record(self, size_bytes: int, duration_s: float) -> None:
        """Take note of what a group cost."""
        self.spent_bytes += size_bytes
        self.duration_s += duration_s
        cost = kbps(size_bytes, duration_s) / float(self.rates_kbps[self.level])
        found = float(np.clip(0.5 * self.activity[self.level] + 0.5 * cost, 0.2, 3.0))
        alike = (np.arange(len(self.rates_kbps)) < self.plain_levels) == (self.level < self.plain_levels)
        self._known |= alike
        self.activity[alike | ~self._known] = found  # levels of the other sort are thought alike until they are tried
