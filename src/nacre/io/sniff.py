"""What a file is by its first bytes, in words people know: for messages, and to find the way to read it."""

from __future__ import annotations

HEAD_BYTES = 64
_BOXES = {
    b"M4A ": "M4A (AAC in MPEG-4)",
    b"M4B ": "M4B (AAC in MPEG-4)",
    b"qt  ": "a QuickTime film",
    b"3gp4": "3GP (AMR or AAC)",
    b"3gp5": "3GP (AMR or AAC)",
    b"3gp6": "3GP (AMR or AAC)",
}
_STARTS = [
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA or WMV (ASF)"),
    (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (b"#!AMR-WB\n", "AMR-WB"),
    (b"#!AMR", "AMR"),
    (b"MAC ", "Monkey's Audio"),
    (b"wvpk", "WavPack"),
    (b"TTA1", "True Audio"),
    (b"MPCK", "Musepack"),
    (b"MP+", "Musepack"),
    (b"DSD ", "DSD"),
    (b"FRM8", "DSD"),
    (b"FLV\1", "Flash video"),
    (b".RMF", "RealMedia"),
    (b"ADIF", "AAC"),
    (b"\x00\x00\x01\xba", "an MPEG film"),
    (b"\x0b\x77", "AC-3"),
]
_SILENT = [
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"MThd", "MIDI notes"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x93NUMPY", "a numpy array"),
    (b"SQLite format 3", "a database"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
]
_OGG = [
    (b"Speex   ", "Speex in Ogg"),
    (b"\x80theora", "Theora video in Ogg"),
    (b"OVP80", "VP8 video in Ogg"),
    (b"PCM     ", "PCM in Ogg"),
]


def foreign(head: bytes) -> str | None:
    """The name of a kind of file that is not read here, from its first HEAD_BYTES; None for all others.

    >>> foreign(bytes(4) + b"ftypM4A ")
    'M4A (AAC in MPEG-4)'
    """
    if head[4:8] == b"ftyp":
        return _BOXES.get(head[8:12], "MP4 (MPEG-4)")
    if head[4:8] in (b"moov", b"mdat", b"wide") and head[:2] == b"\0\0":
        return "a QuickTime film"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "an AVI film"
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "AAC (ADTS)"
    if head[:4] == b"OggS":
        start = 27 + head[26] if len(head) > 26 else 27
        return next((name for magic, name in _OGG if head[start : start + len(magic)] == magic), None)
    return next((name for magic, name in _STARTS if head.startswith(magic)), None)


def no_sound(head: bytes) -> str | None:
    """The name of a kind of file that holds no sound at all."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    return next((name for magic, name in _SILENT if head.startswith(magic)), None)


def unknown(head: bytes) -> str:
    """What bytes are that nothing here reads.

    >>> unknown(b"Not Found\\n")
    'text'
    """
    if not any(head):
        return "zeros at its start"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text"
    damaged = head[:4] in (b"RIFF", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff", b".snd") or head[:3] == b"ID3"
    return "a damaged head" if damaged else "bytes of an unknown kind"
