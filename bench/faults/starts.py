"""Stopped while they begin, commands end in a word and the exit code of the signal, without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import nacre

PACKAGE = Path(nacre.__file__).parent
NACRE = [sys.executable, "-m", "nacre"]
CODES = {"SIGINT": (130, -signal.SIGINT), "SIGTERM": (143, -signal.SIGTERM)}  # a shell sees 130 and 143 of both
COMMANDS = {  # in a folder with a.wav and a.nacre
    "encode": "encode a.wav -o out/a.nacre",
    "batch": "encode -r many -o out --jobs 2",
    "decode": "decode a.nacre -o out/a.wav",
    "info": "info a.nacre",
    "verify": "verify a.nacre",
    "evaluate": "evaluate many --bitrates 1 --peers  --metrics estoi --report out/page.html",
    "tokens": "tokens a.wav -o out/a.npz",
    "features": "features a.wav -k logmel -o out/a.npy",
    "inspect": "inspect a.nacre -o out/a.html",
    "conceal": "conceal a.wav --at 1-1.1 -o out/a.wav",
    "denoise": "denoise a.wav -o out/a.wav",
    "extend": "extend a.wav -o out/a.wav",
    "interpolate": "interpolate a.wav a.wav -o out/a.wav",
    "generate": "generate --seconds 1 -o out/a.wav",
    "demo": "demo -o out",
    "train": "train tiny --data many --out out",
    "simulate": "simulate a.wav -o out/a.wav",
    "corpus": "corpus encode many -o out/shards",
    "stream": "stream encode",
    "models": "models",
}


def trial(folder: Path, words: list[str], number: int, wait_s: float) -> tuple[int, str]:
    """Start, stop after `wait_s`: -> exit code and what it said."""
    process = subprocess.Popen(
        [*NACRE, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(wait_s)
    process.send_signal(number)
    return process.wait(60), process.communicate(timeout=60)[1].decode(errors="replace")


def main(
    trials: Annotated[int, typer.Option(help="of each command and signal")] = 20,
    most_s: Annotated[float, typer.Option(help="latest moment")] = 0.3,
    only: Annotated[str, typer.Option(help="commands, with commas")] = "",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """A line for each command: exit codes, and faults."""
    from nacre.io.audio import read, write

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    random, bad = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = np.resize(read(PACKAGE / "clips/english.flac")[0], (1, 16_000 * 20))
        write(folder / "a.wav", clip, 16_000)
        (folder / "a.nacre").write_bytes(nacre.load("speech-16k").encode(clip, 16_000))
        (folder / "many").mkdir()
        for index in range(4):
            write(folder / "many" / f"{index}.wav", clip, 16_000)
        for what in only.split(",") if only else COMMANDS:
            codes, faults = Counter[str](), []
            for index in range(2 * trials):
                how = list(CODES)[index % 2]
                wait_s = random.uniform(0.0, most_s)
                code, said = trial(folder, COMMANDS[what].split(" "), getattr(signal, how), wait_s)
                early = "Traceback" in said and f"{PACKAGE}/" not in said
                codes[f"{how} {'before a line of nacre ran' if early else code}"] += 1
                left = [path.name for path in folder.rglob(".nacre-*")]
                if not early and (code not in (*CODES[how], 0) or "Traceback" in said or left):
                    faults.append(f"{how} after {wait_s:.3f} s: {code} {left} {said[-1500:]}")
            bad += len(faults)
            print(f"{what:12} {dict(sorted(codes.items()))}; faults: {len(faults)}", *faults, sep="\n", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    typer.run(main)
