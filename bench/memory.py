"""Peak memory of `nacre encode` and `nacre decode` on a recording of hours."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import soundfile
import typer
from common import RATE_HZ, looped_speech, wide_console, workers
from rich.table import Table

LIMIT_MB = 300


@dataclass
class Peak:
    what: str
    peak_mb: float
    wall_s: float
    exit_code: int


def write_speech(path: Path, folder: Path, hours: float) -> int:
    """A 16 kHz mono WAV of looped speech, block by block -> [N] samples written."""
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for block in looped_speech(folder, hours * 3600):
            file.write(block)
        return file.tell()


def peak(what: str, command: list[str]) -> Peak:
    """Run a command; ru_maxrss of that child alone (kB, on Apple systems bytes)."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Peak(what, usage.ru_maxrss * unit / 1e6, time.perf_counter() - start, child.returncode)


def main(
    data: Annotated[Path, typer.Option(help="speech to repeat")],
    hours: Annotated[float, typer.Option(help="length of the recording")] = 2,
    model: Annotated[str, typer.Option(help="bundled model or a model folder")] = "speech-16k",
    bitrate: Annotated[float, typer.Option(help="kb/s asked for")] = 6.0,
    folder: Annotated[Path | None, typer.Option(help="where the recording goes for the time being")] = None,
) -> None:
    """Run the two commands as a user would, and check that what comes back has the right length."""
    nacre = [sys.executable, "-m", "nacre"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wav, coded, decoded = (Path(scratch, name) for name in ("in.wav", "a.nacre", "out.wav"))
        with workers(1) as pool:  # in a child, since a command started from here shows at least our own size
            samples = pool.submit(write_speech, wav, data, hours).result()
        rows = [peak("python alone (least this can show)", [sys.executable, "-c", "pass"])]
        rows.append(peak("nacre --help", [*nacre, "--help"]))
        options = ["--bitrate", f"{bitrate:g}", "--model", model]
        rows.append(peak("nacre encode", [*nacre, "encode", str(wav), "-o", str(coded), *options]))
        rows.append(peak("nacre decode", [*nacre, "decode", str(coded), "-o", str(decoded), "--model", model]))
        size = coded.stat().st_size if coded.exists() else 0
        returned = soundfile.info(decoded).frames if decoded.exists() else 0
    table = Table("command", "peak MB", "limit MB", "wall s", "exit", title=f"{hours:g} h at 16 kHz")
    for row in rows:
        limit = str(LIMIT_MB) if "code" in row.what else ""
        table.add_row(row.what, f"{row.peak_mb:.0f}", limit, f"{row.wall_s:.1f}", str(row.exit_code))
    console = wide_console()
    console.print(table)
    rate_kbps = 8 * size / (samples / RATE_HZ) / 1000
    console.print(f"{size} bytes, {rate_kbps:.2f} kb/s; {returned} samples came back of {samples}")
    good = all(row.exit_code == 0 for row in rows) and max(row.peak_mb for row in rows) <= LIMIT_MB
    raise typer.Exit(0 if good and returned == samples else 1)


if __name__ == "__main__":
    typer.run(main)
