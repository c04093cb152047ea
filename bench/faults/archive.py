"""600 mixed files in nested folders: the time of the batch beside that of the coding alone, killed twice on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

SUFFIXES = ("wav", "flac", "ogg", "opus", "mp3")


def make_tree(folder: Path, count: int, seconds: float) -> float:
    """-> seconds of sound in so many files of all formats, three folders deep."""
    import nacre
    from nacre.io.audio import read, write

    clips = np.concatenate(
        [read(path)[0][0] for path in sorted((Path(nacre.__file__).parent / "clips").glob("*.flac"))]
    )
    random, total = np.random.default_rng(0), 0.0
    for index in range(count):
        length = round(16_000 * random.uniform(0.5, 1.5) * seconds)
        wave = np.resize(np.roll(clips, int(random.integers(len(clips)))), length)
        path = folder / f"{index % 7}" / f"{index % 5}" / f"take-{index}.{SUFFIXES[index % 5]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, wave[None], 16_000)
        total += length / 16_000
    return total


def coding_alone(folder: Path, model: str) -> float:
    """CPU seconds of reading and coding everything in this process."""
    import nacre
    from nacre.io.audio import AudioReader

    codec, started = nacre.load(model), time.process_time()
    for path in sorted(folder.rglob("*.*")):
        with AudioReader(path) as reader:
            encoder = codec.encoder(reader.rate_hz, reader.channels)
            for block in reader.blocks(reader.rate_hz):
                encoder.push(block)
            encoder.flush()
    return time.process_time() - started


def run_batch(command: list[str], folder: Path, kills: list[float]) -> tuple[float, float]:
    """-> wall and CPU seconds of a batch that is killed at these shares of its files, and started again each time."""
    out, count = folder / "coded", len(list((folder / "in").rglob("*.*")))
    before, started = os.times(), time.perf_counter()
    for share in [*kills, 2.0]:
        process = subprocess.Popen(command, cwd=folder, start_new_session=True)
        while process.poll() is None and len(list(out.rglob("*.nacre"))) < share * count:
            time.sleep(0.05)
        if share <= 1:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    after = os.times()
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - started, cpu_s


def main(
    count: Annotated[int, typer.Option()] = 600,
    seconds: Annotated[float, typer.Option(help="mean length")] = 10,
    jobs: Annotated[int, typer.Option()] = 2,
    model: Annotated[str, typer.Option()] = "speech-16k",
) -> None:
    """Encode, killed twice; decode to the same tree; encode once more without kills."""
    nacre_ = [sys.executable, "-m", "nacre"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        total_s = make_tree(folder / "in", count, seconds)
        alone_s = coding_alone(folder / "in", model)
        encode = [
            *nacre_,
            "encode",
            "-r",
            "in",
            "-o",
            "coded",
            "-m",
            model,
            "--jobs",
            str(jobs),
            "-q",
            "--skip-existing",
        ]
        wall_s, cpu_s = run_batch(encode, folder, [])
        print(f"{count} files, {total_s:.0f} s of sound, {jobs} jobs")
        print(f"coding alone: {alone_s:.1f} CPU s, {total_s / alone_s:.0f} x real time a core")
        pace = f"{cpu_s / alone_s:.2f} x the coding, {total_s / wall_s:.0f} x real time"
        print(f"batch: {wall_s:.1f} s wall, {cpu_s:.1f} CPU s: {pace}", flush=True)
        whole = {path.relative_to(folder): path.read_bytes() for path in (folder / "coded").rglob("*.nacre")}
        shutil.rmtree(folder / "coded")
        wall_s, cpu_s = run_batch(encode, folder, [0.3, 0.7])
        again = {path.relative_to(folder): path.read_bytes() for path in (folder / "coded").rglob("*.*")}
        times = f"{wall_s:.1f} s wall, {cpu_s:.1f} CPU s, those of killed workers left out"
        print(f"killed twice: {times}; same files: {again == whole}", flush=True)
        subprocess.run(
            [*nacre_, "decode", "-r", "coded", "-o", "back", "--jobs", str(jobs), "-q", "-m", model],
            cwd=folder,
            check=True,
        )
        trees = [
            sorted(path.relative_to(folder / top).with_suffix("") for path in (folder / top).rglob("*.*"))
            for top in ("in", "back")
        ]
        print(f"same tree back: {trees[0] == trees[1]}")


if __name__ == "__main__":
    typer.run(main)
