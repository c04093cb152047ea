"""Hours of sound both ways: memory stays flat and the length exact."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import soundfile as sf
import typer


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """-> wall seconds and peak memory in MB of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main(hours: Annotated[float, typer.Option()] = 6.0, model: Annotated[str, typer.Option()] = "speech-16k") -> None:
    """Speech of the package's clips, repeated."""
    import nacre
    from nacre.io.audio import read

    clip = read(Path(nacre.__file__).parent / "clips/german.flac")[0][0]
    with tempfile.TemporaryDirectory() as name:
        folder, left = Path(name), round(hours * 3600 * 16_000) + 7
        with sf.SoundFile(folder / "long.flac", "w", 16_000, 1) as file:
            while left > 0:
                file.write(clip[:left])
                left -= len(clip[:left])
        samples = sf.info(folder / "long.flac").frames
        for what, source, target in (("encode", "long.flac", "long.nacre"), ("decode", "long.nacre", "back.flac")):
            wall_s, memory_mb = timed(
                [sys.executable, "-m", "nacre", what, source, "-o", target, "-m", model, "-q"], folder
            )
            pace = f"{hours * 3600 / wall_s:.0f} x real time"
            print(f"{what} {hours:g} h: {wall_s:.0f} s, {pace}, peak {memory_mb:.0f} MB", flush=True)
        size_mb = os.path.getsize(folder / "long.nacre") / 1e6
        print(f"length exact: {sf.info(folder / 'back.flac').frames == samples}; {size_mb:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
