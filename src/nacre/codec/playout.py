"""When each frame is due: a clock that follows the sender's, later than the line's jitter, moved in pauses only."""

from __future__ import annotations

import math
from collections import deque

FRAME_S = 0.02
WINDOW = 250  # arrivals that the depth is judged by
LATE_SHARE = 0.98  # of arrivals that the depth is to cover
JUDGED_EVERY = 10  # frames
MOST_DEPTH_S = 1.2
SLACK_S = 0.030  # above what is needed before a frame is dropped
PATIENT = 50  # times that a depth is judged too large before a frame is dropped without a pause, once


class Clock:
    """Frame number -> time at which it is due. All times in seconds of the caller's clock."""

    def __init__(self, depth_s: float | None = None):
        self._fixed = depth_s
        self.origin_s: float | None = None  # time at which frame 0 would have arrived without delay
        self.depth_s = 0.0 if depth_s is None else depth_s
        self._delays: deque[float] = deque(maxlen=WINDOW)
        self._played = self._over = 0

    def start(self, frame: int, now: float) -> None:
        """The first frame of a sender, or of one that starts anew."""
        self.origin_s = now - frame * FRAME_S
        self._delays.clear()
        self.depth_s = self.depth_s if self._fixed is None else self._fixed

    def arrived(self, frame: int, now: float) -> None:
        """A packet whose first frame is this one came in."""
        assert self.origin_s is not None
        self._delays.append(now - self.origin_s - frame * FRAME_S)

    def due_s(self, frame: int) -> float:
        """When a frame is to be played."""
        assert self.origin_s is not None
        return self.origin_s + frame * FRAME_S + self.depth_s

    @property
    def wait_s(self) -> float:
        """How long a packet waits that came as fast as any of late."""
        return self.depth_s if self._fixed is not None else self.depth_s - min(self._delays, default=0.0)

    def move(self, reserve_s: float, pause: bool, late: bool) -> int:
        """After each frame: 1 where one more is to be put in, -1 where one is to be left out, else 0.

        `reserve_s` is what copies need on top of the jitter, `late` says that a packet came too late just now.
        """
        self._played += 1
        if self._fixed is not None or not self._delays or (not late and self._played % JUDGED_EVERY):
            return 0
        ordered = sorted(self._delays)
        covered = ordered[math.ceil(LATE_SHARE * len(ordered)) - 1]
        wanted = min(MOST_DEPTH_S, covered + reserve_s)
        if self.depth_s < wanted - 0.002 and (pause or late or reserve_s > 0 or wanted - self.depth_s > 2 * FRAME_S):
            self.depth_s += FRAME_S
            return 1
        self._over = self._over + 1 if self.depth_s > wanted + SLACK_S else 0
        if self._over and (pause or self._over > PATIENT or self.depth_s > wanted + 10 * SLACK_S):
            self.depth_s, self._over = self.depth_s - FRAME_S, 0
            return -1
        return 0
