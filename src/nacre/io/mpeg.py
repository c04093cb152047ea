"""MP3: where one recording ends and another that was joined behind it begins, and which of them state a length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from nacre.io.view import Extent, Part, Plan, find_all, read_at, size_of

TAGS = (b"Xing", b"Info", b"VBRI")  # of a first frame that states the length
FRAMES, BYTES = 1, 2  # what a Xing tag says
VBRI_AT = 36
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version
KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
SEARCHED_BYTES = 1 << 16  # for the first frame
ID3V1_BYTES, APE_BYTES, ID3V2_BYTES = 128, 32, 10


class Frame(NamedTuple):
    """What the head of a frame of layer III says."""

    size: int
    tag_at: int  # where a Xing tag would be
    rate_hz: int


class Run(NamedTuple):
    """Frames one behind another; the last may go on behind the end of the file."""

    start: int
    stop: int
    frames: int


class Tag(NamedTuple):
    """A first frame that states a length; 0 for what it does not say."""

    start: int
    frames: int
    size: int


def plan(file: BinaryIO) -> Plan | None:
    """Parts of the recordings in an MP3, None where no frame is found. One that states its length stops there."""
    start, end = first_frame(file, 0), size_of(file)
    if start is None:
        return None
    tags = {tag.start: tag for tag in _tags(file, start)}
    starts = sorted({start, *tags, *_beginnings(file, tags, end)})
    plan = Plan(parts=[])
    for at, stop in pairwise([*starts, end]):
        _add(file, tags.get(at), at, stop, plan)
        if len(starts) == 1 and plan.parts[0].kind == "mp3":
            plan.parts[0] = Part(kind="mp3")
    return plan


def _add(file: BinaryIO, tag: Tag | None, at: int, stop: int, plan: Plan) -> None:
    """A recording from `at` to `stop`, in one part for each stretch of frames, and what is wrong with it."""
    runs = list(_runs(file, at, stop))
    frames, cut = sum(run.frames for run in runs), runs[-1].stop > stop
    if tag is not None and len(runs) == 1 and (tag.frames >= frames - 1 or not tag.frames):
        plan.parts.append(Part((Extent(at, stop - at),), "mp3"))
    else:  # libmpg123 gives up at a bad spot, and believes a first frame that states too few
        first = frame_at(file, at)
        start = at + first.size if tag is not None and first else at
        extents = [Extent(max(run.start, start), min(run.stop, stop) - max(run.start, start)) for run in runs]
        plan.parts += [Part((extent,), "mp3 unsized") for extent in extents if extent.size > 0]
    if len(runs) > 1:
        bad_bytes = sum(after.start - before.stop for before, after in pairwise(runs))
        plan.losses.append(f"{max(0, bad_bytes)} bad bytes in {len(runs) - 1} place{'s' * (len(runs) > 2)}")
    elif tag is not None and (cut or tag.frames > frames):
        plan.losses.append(f"{frames - cut} frames of {max(tag.frames, frames)}")


def _runs(file: BinaryIO, at: int, stop: int) -> Iterator[Run]:
    """Stretches in which frame follows frame."""
    frames, start = 0, at
    while at < stop:
        if frame := frame_at(file, at):
            frames, at = frames + 1, at + frame.size
            continue
        following = None if _is_tag(read_at(file, at, 3)) else first_frame(file, at)
        if following is None or following >= stop:
            break
        yield Run(start, at, frames)
        start, at, frames = following, following, 0
    yield Run(start, at, frames)


def _beginnings(file: BinaryIO, tags: dict[int, Tag], end: int) -> list[int]:
    """Where frames go on behind a recording that has stated its end."""
    beginnings = []
    for tag, limit in pairwise([*sorted(tags), end]):
        stop = _stop(file, tags[tag], limit)
        following = first_frame(file, stop) if stop < limit else None
        if following is not None and following < limit and _lasts(file, following, limit):
            beginnings.append(following)
    return beginnings


def _stop(file: BinaryIO, tag: Tag, limit: int) -> int:
    """Where a tagged recording stops: as it says, if frames or tags follow there, else frame by frame."""
    stop = tag.start + tag.size
    if tag.size and (stop >= limit or _is_tag(read_at(file, stop, 3)) or frame_at(file, stop)):
        return min(stop, limit)
    at, left = tag.start, tag.frames + 1
    while left and at < limit and tag.frames:
        frame = frame_at(file, at)
        if frame is None:
            break
        at, left = at + frame.size, left - 1
    return at if tag.frames and not left else limit


def _lasts(file: BinaryIO, at: int, limit: int) -> bool:
    """Whether at least three frames follow each other."""
    for _ in range(3):
        frame = frame_at(file, at)
        if frame is None or at >= limit:
            return False
        at += frame.size
    return True


def _is_tag(head: bytes) -> bool:
    return head[:3] in (b"TAG", b"ID3", b"APE", b"LYR")


def first_frame(file: BinaryIO, at: int) -> int | None:
    """Where the first of two frames in a row begins, behind tags and a little else; None where there is none."""
    at = behind_tags(file, at)
    block = read_at(file, at, SEARCHED_BYTES)
    place = block.find(b"\xff")
    while place >= 0:
        frame = frame_at(file, at + place)
        if frame and (frame_at(file, at + place + frame.size) or at + place + frame.size >= size_of(file)):
            return at + place
        place = block.find(b"\xff", place + 1)
    return None


def behind_tags(file: BinaryIO, at: int) -> int:
    """Where the ID3 tags at an offset stop."""
    while (head := read_at(file, at, ID3V2_BYTES))[:3] == b"ID3" and len(head) == ID3V2_BYTES:
        at += ID3V2_BYTES + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return at


def frame_at(file: BinaryIO, at: int) -> Frame | None:
    """The head of a frame at an offset, None where there is none."""
    head = read_at(file, at, 4)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0 or head[1] >> 1 & 3 != 1:
        return None
    version, kbps_code, rate_code, padding = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or kbps_code in (0, 15) or rate_code == 3:
        return None
    first, rate_hz = version == 3, RATES_HZ[version][rate_code]
    size = (144_000 if first else 72_000) * (KBPS_1 if first else KBPS_2)[kbps_code] // rate_hz + padding
    mono = head[3] >> 6 == 3
    side_bytes = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(size, 4 + side_bytes, rate_hz)


def _tags(file: BinaryIO, start: int) -> list[Tag]:
    """Every first frame that states a length, from `start` on."""
    tags = []
    for tag in TAGS:
        for at in find_all(file, tag, start):
            for back in (VBRI_AT,) if tag == b"VBRI" else (36, 21, 13):
                frame = frame_at(file, at - back) if at >= back else None
                if frame and (tag == b"VBRI" or frame.tag_at == back):
                    tags.append(_tag(at - back, read_at(file, at, 20)))
                    break
    return tags


def _tag(start: int, data: bytes) -> Tag:
    if data[:4] == b"VBRI":
        return Tag(start, int.from_bytes(data[14:18], "big"), int.from_bytes(data[10:14], "big"))
    flags, at = int.from_bytes(data[4:8], "big"), 8
    frames = int.from_bytes(data[at : at + 4], "big") if flags & FRAMES else 0
    at += 4 if flags & FRAMES else 0
    return Tag(start, frames, int.from_bytes(data[at : at + 4], "big") if flags & BYTES else 0)
