"""How a sound file of any kind is read: by parts, made of its bytes as they should have been written."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from nacre.io import aiff, flac, mpeg, ogg, plain, riff
from nacre.io.view import Part, Plan, read_at


def plan_of(file: BinaryIO, head: bytes, path: str | Path) -> Plan:
    """How a file that begins so is read."""
    plan: Plan | None = None
    if riff.is_riff(head):
        plan = riff.plan(file)
    elif aiff.is_aiff(head):
        plan = aiff.plan(file)
    elif head[:4] == b"OggS":
        plan = ogg.plan(file)
    elif head[:4] == flac.MAGIC or Path(path).suffix.lower() == ".flac":
        plan = flac.plan(file) or Plan(parts=[Part(kind="flac")])
    elif head[:4] in (b".snd", b"caff"):
        plan = plain.au(file) if head[:4] == b".snd" else plain.caf(file)
    elif head[:3] == b"ID3" and read_at(file, mpeg.behind_tags(file, 0), 4) == b"OggS":
        plan = ogg.plan(file)
    elif head[:3] == b"ID3" or mpeg.frame_at(file, 0) or Path(path).suffix.lower() == ".mp3":
        plan = mpeg.plan(file)
    return plan or Plan()
