"""Encode every recording of a folder; say what became of its size: python examples/folder.py RECORDINGS OUT."""

from __future__ import annotations

import argparse
from pathlib import Path

import nacre
from nacre.io import audio

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bitrate", type=float, default=6.0, help="kb/s of one channel")
    given = parser.parse_args()
    codec, before, after = nacre.load("speech-16k"), 0, 0
    given.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(given.recordings.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            wave, rate_hz = audio.read(path)
        except nacre.NacreError as error:
            print(f"left out: {error}")
            continue
        data = codec.encode(wave, rate_hz, bitrate_kbps=given.bitrate * len(wave))
        (given.out / f"{path.name}.nacre").write_bytes(data)
        before, after = before + path.stat().st_size, after + len(data)
    print(f"{before} bytes became {after}")


if __name__ == "__main__":
    main()
