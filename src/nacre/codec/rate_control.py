"""Quality level <-> bitrate: which level the next group takes so that the file meets its target."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nacre.codec.packets import CONTEXT
from nacre.core.errors import UsageError
from nacre.core.types import Array
from nacre.core.units import kbps
from nacre.format.file import HEADER_BYTES
from nacre.model.model import Model

DEFAULT_KBPS = 6.0  # a channel
HORIZON_S = 3.0  # rate control aims to be back on target after this long
MASKED_DB, DB_A_LEVEL, MOST_LOWER = 20.0, 4.0, 6  # sound so far below the loudest of late takes lower levels
FORGET_DB = 0.5  # a group, of the loudest of late
TONES_REACH = 3  # below the residual levels: so much lower, tones still take one of those


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
    plain_levels: int = 0  # from here on levels have a residual layer: other sound costs more there than speech
    loudest_db: float = -120.0  # of late
    first: int = field(init=False)
    activity: Array = field(init=False)  # [L] what this sound costs against what the model expects

    def __post_init__(self) -> None:
        self.first = self.level
        self.activity = np.ones(len(self.rates_kbps))
        self._known = np.zeros(len(self.rates_kbps), bool)

    def expect(self, more_kbps: float) -> None:
        """Groups will cost so much more than the model expects."""
        self.activity += more_kbps / self.rates_kbps

    @property
    def highest(self) -> int:
        """The highest level that a group may take."""
        return self.level if self.target_kbps is None else min(self.first + self.reach, len(self.rates_kbps) - 1)

    @property
    def lifts_tones(self) -> bool:
        """Whether tones, which the networks do not know, take a residual level though others do not."""
        return self.plain_levels - TONES_REACH <= self.first < self.plain_levels < len(self.rates_kbps)

    def choose(self, loudness_db: float = 0.0, tonal: bool = False) -> int:
        """Level of the next group, whose active level this is: lower where it is hardly audible after what came."""
        self.loudest_db = max(loudness_db, self.loudest_db - FORGET_DB)
        if tonal and self.lifts_tones:
            self.level = self.plain_levels
            return self.level
        if self.target_kbps is None:
            self.level = self.first
            return self.level
        goal_bytes = self.target_kbps * 125 * (self.duration_s + HORIZON_S)
        wanted_kbps = max(1e-3, (goal_bytes - self.spent_bytes) / 125 / HORIZON_S)
        level = int(np.abs(np.log(self.rates_kbps * self.activity / wanted_kbps)).argmin())
        level = int(np.clip(level, self.first - self.reach, self.first + self.reach))
        below_db = self.loudest_db - loudness_db - MASKED_DB
        self.level = max(0, level - int(np.clip(below_db / DB_A_LEVEL, 0, MOST_LOWER)))
        return self.level

    def record(self, size_bytes: int, duration_s: float) -> None:
        """Take note of what a group cost."""
        self.spent_bytes += size_bytes
        self.duration_s += duration_s
        cost = kbps(size_bytes, duration_s) / float(self.rates_kbps[self.level])
        activity = float(np.clip(0.5 * self.activity[self.level] + 0.5 * cost, 0.2, 3.0))
        alike = (np.arange(len(self.rates_kbps)) < self.plain_levels) == (self.level < self.plain_levels)
        self._known |= alike
        untried = ~self._known  # levels of the other sort are thought alike until they are tried
        self.activity[alike | untried] = activity


def plan_rate(
    model: Model,
    channels: int,
    bitrate_kbps: float | None,
    quality: float | None,
    prior: str = CONTEXT,
    plain: bool = False,
) -> RatePlan:
    """The plan that the options request, of levels without residual layer if `plain`. Raises UsageError."""
    if bitrate_kbps is not None and quality is not None:
        raise UsageError("bitrate and quality exclude each other; give one of them")
    rates = (model.bundle.rates_kbps if prior == CONTEXT else model.bundle.static_rates_kbps) * channels
    if plain:
        rates = rates[: model.plain_levels]
    if quality is not None:
        if not 0 <= quality <= 100:
            raise UsageError(f"quality must be 0 to 100, not {quality:g}")
        level = round(quality / 100 * (len(rates) - 1))
        return RatePlan(rates, None, level, HEADER_BYTES, plain_levels=model.plain_levels)
    usual = float(np.clip(DEFAULT_KBPS * channels, rates[0], rates[-1]))
    target = usual if bitrate_kbps is None else bitrate_kbps
    if not rates[0] * 0.97 <= target <= rates[-1] * 1.03:
        form = f"{channels} channel{'s' * (channels > 1)}{' without residual layer' * plain}"
        span = f"{rates[0]:.1f} to {rates[-1]:.1f} kb/s for {form}"
        raise UsageError(f"bitrate {target:g} kb/s is outside what model {model.name} can do, {span}")
    level = int(np.abs(np.log(rates / target)).argmin())
    return RatePlan(rates, target, level, HEADER_BYTES, plain_levels=model.plain_levels)


def fixed_plan(model: Model, channels: int, level: int, prior: str = CONTEXT) -> RatePlan:
    """Every group at one level, tones too. Raises UsageError for a level that the model does not have."""
    rates = (model.bundle.rates_kbps if prior == CONTEXT else model.bundle.static_rates_kbps) * channels
    return RatePlan(rates, None, model.level(level), HEADER_BYTES)
