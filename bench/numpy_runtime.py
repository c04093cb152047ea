"""Times real time with numpy in place of onnxruntime, on one core, and how far apart their sound is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import looped_speech

import nacre
from nacre.model import runtime

RATE_HZ = 16_000


def main(
    model: Annotated[str, typer.Option()] = "speech-16k",
    seconds: Annotated[float, typer.Option()] = 60,
    bitrate: Annotated[float, typer.Option(help="kb/s")] = 6,
) -> None:
    """The same speech by either, and the file of the first decoded by both."""
    wave = np.concatenate(list(looped_speech(Path(nacre.__file__).parent, seconds, RATE_HZ)))
    files, sounds = [], []
    for what, library in (("onnxruntime", runtime.ort), ("numpy", None)):
        runtime.ort = library
        codec = nacre.load(model)
        started = time.process_time()
        files.append(codec.encode(wave, RATE_HZ, bitrate_kbps=bitrate))
        encoded = time.process_time()
        sounds.append(codec.decode(files[0])[0])
        paces = seconds / (encoded - started), seconds / (time.process_time() - encoded)
        print(f"{what:12} encode {paces[0]:.0f} x, decode {paces[1]:.0f} x real time, by CPU time", flush=True)
    apart_db = 10 * np.log10(np.mean(sounds[0] ** 2) / np.mean((sounds[1] - sounds[0]) ** 2))
    print(f"files of {len(files[0])} and {len(files[1])} bytes; sound of the first {apart_db:.0f} dB apart")


if __name__ == "__main__":
    typer.run(main)
