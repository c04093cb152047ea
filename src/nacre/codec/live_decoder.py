"""Live decoder: RTP packets in, in any order, some of them never; sound out when it is due."""

from __future__ import annotations

import math

import numpy as np

from nacre.codec.live_inbox import JUMP_FRAMES, Inbox, LiveStats, unwrapped
from nacre.codec.live_packets import ForeignError
from nacre.codec.live_voice import Voice
from nacre.codec.playout import FRAME_S, Clock
from nacre.core.errors import StreamError, UsageError
from nacre.core.types import Array
from nacre.dsp.wave import check_shape
from nacre.format.live import Report, RtpPacket, unpack_rtp
from nacre.io.audio import Resampler
from nacre.model.model import Model

SETTLE = 2  # packets of another sender, one after the other, before it is followed
BEHIND = 15  # packets that come late in a row set the clock anew: the line or the sender has become slower
IDLE_S = 1.0  # a sender that has said nothing for so long gives way at once
MOST_AT_ONCE_S = 2.0  # of sound from one call: a clock that jumps further is set anew
ROUNDING_S = 1e-6
WARY_S = 2.0  # after damage that was noticed more is thought to come unnoticed
COPIES_COUNT_S = 10.0  # after a loss the clock waits for copies so long


class LiveDecoder:
    """Packets in, sound out. `push` never raises for what a packet holds and never waits."""

    def __init__(
        self, model: Model, rate_hz: int | None = None, depth_ms: float | None = None, announced: bool = False
    ):
        """`rate_hz` is by default the model's. `depth_ms` fixes the wait for late packets, which otherwise follows the
        line; `announced`: the packets are known to be of this model, so that sound may begin before one says so. Raises
        AudioError, UsageError."""
        if depth_ms is not None and not 0 <= depth_ms <= 1000:
            raise UsageError(f"depth must be 0 to 1000 ms, not {depth_ms:g} ms")
        self.model, self.stats = model, LiveStats()
        self.rate_hz = check_shape(model.config.rate_hz if rate_hz is None else rate_hz, 1)
        self._announced = announced
        self.clock = Clock(None if depth_ms is None else depth_ms / 1000)
        self._inbox, self._voice = Inbox(model, self.stats), Voice(model)
        self._resampler = Resampler(model.config.rate_hz, self.rate_hz, 1)
        self.first_sample = 0  # timestamp of the first frame that was played
        self._source: int | None = None
        self._stranger: tuple[int, int] | None = None  # another sender, and its packets so far
        self._jump: tuple[int, int] | None = None  # sequence number and frame of the last packet far from the others
        self._received_s = self._lost_s = self._damaged_s = -math.inf  # of the last packet, the last loss, damage
        self._sequence, self._timestamp = 0, 0  # newest, not wrapped
        self._late = self._behind = 0  # packets that came late, and how many of them in a row

    @property
    def depth_ms(self) -> float:
        """How long a packet waits that comes without delay."""
        return 1000 * self.clock.wait_s

    def push(self, packet: bytes | None, now: float) -> Array:
        """A packet that has just come, or None -> wave [N] float32 at the decoder's rate that is due by `now`.

        `now` is in seconds of any clock that does not go back. N is 0 before the first packet. Call it with None
        at least each 20 ms.
        """
        if packet is not None:
            self._accept(packet, now)
        if self._source is None:
            return np.zeros(0, np.float32)
        if now - self.clock.due_s(self._inbox.next_frame) > MOST_AT_ONCE_S:
            self.clock.start(self._inbox.next_frame, now)
        waves = []
        while self.clock.due_s(self._inbox.next_frame) <= now + ROUNDING_S:
            waves += self._frame(now)
        wave = np.concatenate(waves) if waves else np.zeros(0, np.float32)
        sound: Array = np.clip(self._resampler.push(wave[None])[0], -1, 1)
        return sound

    def report(self) -> Report:
        """For the sender: loss over the last packets, and its longest run. What is long ago is forgotten."""
        share, burst = self._inbox.recent_loss()
        return Report(self._source or 0, share, burst, self._sequence)

    def _accept(self, data: bytes, now: float) -> None:
        damaged = self.stats.damaged
        try:
            packet = unpack_rtp(data)
        except StreamError:
            self.stats.foreign += 1
            return
        try:
            if not self._follows(packet, now):
                self.stats.foreign += 1
                return
            self._place(packet, now)
        except ForeignError:
            self.stats.foreign += 1
            if not self._inbox.announced:
                self._source = None
        if self.stats.damaged > damaged:
            self._damaged_s = now

    def _follows(self, packet: RtpPacket, now: float) -> bool:
        """Whether the packet is of the sender that is listened to; a new one takes its place after a few packets."""
        if packet.source == self._source:
            self._stranger = None
            return True
        count = self._stranger[1] + 1 if self._stranger and self._stranger[0] == packet.source else 1
        self._stranger = packet.source, count
        if self._source is not None and count < SETTLE and now - self._received_s < IDLE_S:
            return False
        self._begin(packet, now)
        return True

    def _begin(self, packet: RtpPacket, now: float) -> None:
        """Listen to a sender from this packet on."""
        hop, announced = self.model.config.hop_samples, self._announced
        if self._source is not None:
            self.stats.restarts += 1
            announced |= packet.source == self._source and self._inbox.announced
        else:
            self.first_sample = packet.timestamp
        self._source, self._stranger = packet.source, None
        self._sequence, self._timestamp = packet.sequence + (1 << 16), packet.timestamp + (1 << 32)
        self._inbox = Inbox(self.model, self.stats)
        self._inbox.announced = announced
        self._inbox.skip_to(self._timestamp // hop)
        self.clock.start(self._timestamp // hop, now)

    def _place(self, packet: RtpPacket, now: float) -> None:
        hop = self.model.config.hop_samples
        sequence, timestamp = (
            unwrapped(packet.sequence, self._sequence, 16),
            unwrapped(packet.timestamp, self._timestamp, 32),
        )
        frame, lost = timestamp // hop, self.stats.lost
        ahead, step = sequence - self._sequence, frame - self._timestamp // hop
        far = max(abs(ahead), abs(frame - self._inbox.next_frame)) > JUMP_FRAMES
        if far or abs(step) < abs(ahead):  # each packet has a frame at least
            if not self._confirmed(sequence, frame, now):
                self.stats.foreign += 1
                return
            if abs(ahead) > JUMP_FRAMES or abs(step) < abs(ahead) or frame < self._inbox.next_frame:
                self._begin(packet, now)
                sequence, timestamp = self._sequence, self._timestamp
                frame = timestamp // hop
            else:  # time has jumped, or the sender's clock ran off
                self._inbox.skip_to(frame)
                self.clock.start(frame, now)
        self._sequence, self._timestamp = max(sequence, self._sequence), max(timestamp, self._timestamp)
        late = self.stats.late
        self._inbox.place(sequence, frame, packet)
        self._behind = self._behind + 1 if self.stats.late > late else 0
        if self._behind >= BEHIND:
            self._behind = 0
            self._inbox.skip_to(frame)
            self.clock.start(frame, now)
        self.clock.arrived(frame, now)
        self._received_s = now
        self.stats.payload_bytes += len(packet.payload)
        if self.stats.lost > lost:
            self._lost_s = now

    def _confirmed(self, sequence: int, frame: int, now: float) -> bool:
        """Whether numbers far from those expected are the sender's: a packet before said so, or none came for long."""
        before, self._jump = self._jump, (sequence, frame)
        near = before is not None and abs(sequence - before[0]) < BEHIND and abs(frame - before[1]) < JUMP_FRAMES
        return near or now - self._received_s >= IDLE_S

    def _frame(self, now: float) -> list[Array]:
        """The frame that is due; none where it is left out, two where one is put in."""
        late, reserve_s = self.stats.late, 0.0
        self._voice.wary = now - self._damaged_s < WARY_S
        if now - self._lost_s < COPIES_COUNT_S:
            reserve_s = self._inbox.copies_reach * FRAME_S
        move = self.clock.move(reserve_s, self._voice.pause, late > self._late)
        self._late = late
        if move > 0:
            self.stats.inserted += 1
            return [self._voice.guess(*self._inbox.coming())]
        if move < 0:
            self._inbox.take()
            self.stats.dropped += 1
            return []
        held = self._inbox.take()
        after, ahead = self._inbox.coming()
        if held is None:
            self.stats.concealed += 1
            return [self._voice.guess(after, ahead)]
        self.stats.restored += held.coarse
        self.stats.played += not held.coarse
        return [self._voice.play(held.group, after if ahead == 1 else None, held.coarse)]
