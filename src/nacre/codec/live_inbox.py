"""Packets as they arrive, in any order, to frames in their places: what a live decoder has in hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from nacre.codec.live_packets import Context, ForeignError, Mode, Payload, PayloadCoder
from nacre.codec.packets import Group
from nacre.core.errors import StreamError
from nacre.format.live import RtpPacket
from nacre.model.model import Model

KEPT = 256  # packets and contexts that are remembered, and that reports of loss are about
ON_THE_WAY = 10  # the newest packets of which reports say nothing: some may only be out of order
LOOK_AHEAD = 4  # frames in which the end of a gap is looked for
COPIES_STOP = 50  # packets without copies after which none are waited for
JUMP_FRAMES = 250  # further than this from what is expected a sender has started anew
MOST_FRAMES_AHEAD = 2 * JUMP_FRAMES


@dataclass
class LiveStats:
    """Counts since the start."""

    received: int = 0
    lost: int = 0  # packets that never came, as far as the numbers of later ones show
    late: int = 0  # came after their sound was due
    duplicate: int = 0
    foreign: int = 0  # of another model, version, sender, or no packets at all
    damaged: int = 0
    orphaned: int = 0  # arrived, but what they go by was lost
    played: int = 0  # frames as they were sent
    restored: int = 0  # frames from a coarse copy
    concealed: int = 0  # frames guessed
    inserted: int = 0
    dropped: int = 0
    restarts: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Held:
    """One frame in hand."""

    group: Group
    coarse: bool = False


class Inbox:
    """Frames by number, from packets of one sender. `take` gives them out in order."""

    def __init__(self, model: Model, stats: LiveStats):
        self.stats, self._coder, self._hop = stats, PayloadCoder(model), model.config.hop_samples
        self._per_frame = model.residual.per_frame if model.residual else 0
        self.frames: dict[int, Held] = {}
        self.next_frame = 0  # what is given out next
        self._copies = 0, 0  # frames that the last copies reach back, and the number of their packet
        self._contexts: dict[int, Context | None] = {}  # by number of the packet behind which they stand
        self._waiting: dict[int, tuple[int, bytes]] = {}  # packets that lack their context: frame, payload
        self._seen: set[int] = set()
        self.newest = self._first = -1  # sequence numbers
        self.announced = False

    def place(self, sequence: int, frame: int, packet: RtpPacket) -> None:
        """Take in a packet whose numbers no longer wrap. Raises ForeignError; what is damaged is counted."""
        stats = self.stats
        if sequence in self._seen or sequence < self.newest - KEPT:
            stats.duplicate += 1
            return
        self._seen.add(sequence)
        self._count(sequence)
        try:
            payload = self._read(sequence, frame, packet.payload)
        except ForeignError:
            self._seen.discard(sequence)
            raise
        except StreamError:
            stats.damaged += 1
            return
        self._follow(sequence)
        if frame + payload.frames <= self.next_frame:
            stats.late += 1
        self._forget()

    @property
    def copies_reach(self) -> int:
        """Frames that copies reach back; 0 where none have come of late."""
        reach, sequence = self._copies
        return reach if self.newest - sequence < COPIES_STOP else 0

    def recent_loss(self) -> tuple[float, int]:
        """Of the packets of late: the share that never came, and its longest run."""
        judged = range(max(self._first, self.newest - KEPT), self.newest - ON_THE_WAY + 1)
        missing = [at not in self._seen for at in judged]
        runs = [sum(run) for lost, run in groupby(missing) if lost]
        return (sum(runs) / len(missing) if missing else 0.0), max(runs, default=0)

    def take(self) -> Held | None:
        """The next frame, None where it is not in hand."""
        held = self.frames.pop(self.next_frame, None)
        self.next_frame += 1
        return held

    def coming(self) -> tuple[Group | None, int]:
        """The nearest frame in hand that was not given out yet, and how many frames after the last one it is."""
        for ahead in range(1, LOOK_AHEAD + 1):
            if held := self.frames.get(self.next_frame + ahead - 1):
                return held.group, ahead
        return None, 0

    def skip_to(self, frame: int) -> None:
        """Go on from another frame."""
        self.next_frame = frame
        self.frames = {at: held for at, held in self.frames.items() if at >= frame}

    def _read(self, sequence: int, frame: int, data: bytes) -> Payload:
        payload = self._coder.unpack(data, self._contexts.get(sequence - 1))
        if payload.mode == Mode.ANNOUNCE:
            self.announced = True
        if not self.announced:
            raise ForeignError("no packet has named its model yet; wait for one that does")
        for index, copy in enumerate(payload.copies):
            at = frame - payload.reach - len(payload.copies) + 1 + index
            group = Group(copy.level, 1, copy.symbols, copy.code)
            if at >= self.next_frame and at not in self.frames:
                self.frames[at] = Held(group, coarse=True)
        if payload.copies:
            self._copies = payload.reach + len(payload.copies) - 1, sequence
        if not payload.known:
            self._waiting[sequence] = frame, data
            return payload
        self._waiting.pop(sequence, None)
        if payload.context is not None:
            self._contexts[sequence] = payload.context
        self._put(frame, payload)
        return payload

    def _put(self, frame: int, payload: Payload) -> None:
        for index in range(payload.frames):
            if frame + index < self.next_frame:
                continue
            symbols = None if payload.symbols is None else payload.symbols[index : index + 1]
            part = slice(index * self._per_frame, (index + 1) * self._per_frame)
            residual = None if payload.residual is None else payload.residual[part]
            self.frames[frame + index] = Held(Group(payload.level, 1, symbols, payload.code, residual))

    def _follow(self, sequence: int) -> None:
        """Packets behind this one that were waiting for it."""
        while sequence in self._contexts and (waiting := self._waiting.get(sequence + 1)):
            sequence += 1
            try:
                self._read(sequence, *waiting)
            except StreamError:
                self._waiting.pop(sequence, None)
                self.stats.damaged += 1
                return

    def _count(self, sequence: int) -> None:
        stats = self.stats
        stats.received += 1
        self._first = sequence if self._first < 0 else min(self._first, sequence)
        if self.newest >= 0 and sequence > self.newest:
            stats.lost += sequence - self.newest - 1
        elif self.newest >= 0:
            stats.lost = max(0, stats.lost - 1)  # it was only out of order
        self.newest = max(self.newest, sequence)

    def _forget(self) -> None:
        oldest = self.newest - KEPT
        if len(self._seen) > 2 * KEPT:
            self._seen = {at for at in self._seen if at >= oldest}
            self._contexts = {at: context for at, context in self._contexts.items() if at >= oldest}
            self.stats.orphaned += sum(at < oldest for at in self._waiting)
            self._waiting = {at: held for at, held in self._waiting.items() if at >= oldest}
        if len(self.frames) > MOST_FRAMES_AHEAD:
            self.frames = {at: held for at, held in self.frames.items() if at < self.next_frame + MOST_FRAMES_AHEAD}


def unwrapped(low_bits: int, expected: int, bits: int) -> int:
    """The number with these low bits that lies nearest to the expected one.

    >>> unwrapped(2, 65534, 16), unwrapped(65535, 65537, 16)
    (65538, 65535)
    """
    size = 1 << bits
    return expected + ((low_bits - expected + size // 2) % size - size // 2)
