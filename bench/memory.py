"""Peak memory of `nacre encode` and `nacre decode` on a recording of hours."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import soundfile
import typer
from common import RATE_HZ, looped_speech, wide_console
from rich.table import Table

from nacre.evaluate.programs import PeerError, peak_mb

LIMIT_MB = 300
LIMIT_S = 7200


def write_speech(path: Path, folder: Path, hours: float) -> int:
    """A 16 kHz mono WAV of looped speech, block by block -> [N] samples written."""
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for block in looped_speech(folder, hours * 3600):
            file.write(block)
        return file.tell()


def main(
    data: Annotated[Path, typer.Option(help="speech to repeat")],
    hours: Annotated[float, typer.Option(help="length of the recording")] = 2,
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    bitrate: Annotated[float, typer.Option(help="target kb/s")] = 6.0,
    folder: Annotated[Path | None, typer.Option(help="where the recording goes for the time being")] = None,
) -> None:
    """Run the two commands as a user would, and check that what comes back has the right length."""
    nacre = [sys.executable, "-m", "nacre"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wav, coded, decoded = (Path(scratch, name) for name in ("in.wav", "a.nacre", "out.wav"))
        samples = write_speech(wav, data, hours)
        options = ["--bitrate", f"{bitrate:g}", "--model", model]
        commands = {
            "nacre --help": ([*nacre, "--help"], wav),
            "nacre encode": ([*nacre, "encode", str(wav), "-o", str(coded), *options], coded),
            "nacre decode": ([*nacre, "decode", str(coded), "-o", str(decoded), "--model", model], decoded),
        }
        rows = []
        for what, (command, target) in commands.items():
            start = time.perf_counter()
            try:
                rows.append((what, peak_mb(command, target, LIMIT_S), time.perf_counter() - start))
            except PeerError as error:
                raise SystemExit(f"error: {error}") from error
        size, returned = coded.stat().st_size, soundfile.info(decoded).frames
    table = Table("command", "peak MB", "limit MB", "wall s", title=f"{hours:g} h at 16 kHz")
    for what, found_mb, wall_s in rows:
        table.add_row(what, f"{found_mb:.0f}", str(LIMIT_MB) if "code" in what else "", f"{wall_s:.1f}")
    console = wide_console()
    console.print(table)
    rate_kbps = 8 * size / (samples / RATE_HZ) / 1000
    console.print(f"{size} bytes, {rate_kbps:.2f} kb/s; {returned} samples came back of {samples}")
    good = max(found_mb for _, found_mb, _ in rows) <= LIMIT_MB and returned == samples
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
