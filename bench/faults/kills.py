"""Killed at random moments, commands leave whole files under final names, or none, and can go on."""

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

import nacre

PACKAGE = Path(nacre.__file__).parent  # a traceback without it comes from Python itself, before a line of nacre ran
NACRE = [sys.executable, "-m", "nacre"]
HOW = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def inputs(folder: Path, model: str) -> None:
    """A recording of two minutes, its `.nacre` file, and twenty short ones."""
    from nacre.io.audio import read, write

    clip = read(PACKAGE / "clips/english.flac")[0][0]
    write(folder / "long.wav", np.resize(clip, 120 * 16_000)[None], 16_000)
    (folder / "many").mkdir()
    for index in range(20):
        write(folder / "many" / f"{index}.wav", np.roll(clip, 999 * index)[None, : 16_000 * 4], 16_000)
    subprocess.run([*NACRE, "encode", "long.wav", "-o", "long.nacre", "-m", model, "-q"], cwd=folder, check=True)


def commands(model: str) -> dict[str, list[str]]:
    """What is killed; each writes below out/."""
    last = ["-m", model, "-q", "--skip-existing"]
    page = ["--bitrates", "1", "--peers", "", "--metrics", "estoi", "--report", "out/page.html", "--resume"]
    return {
        "encode": [*NACRE, "encode", "long.wav", "-o", "out/a.nacre", *last],
        "decode": [*NACRE, "decode", "long.nacre", "-o", "out/a.wav", *last],
        "batch": [*NACRE, "encode", "-r", "many", "-o", "out", "--jobs", "2", *last],
        "evaluate": [*NACRE, "evaluate", "many", "-m", model, *page, "-q"],
        "train": [*NACRE, "train", "tiny", "--data", "many", "--out", "out", "--resume", "-q"],
    }


def trial(folder: Path, command: list[str], number: int, wait_s: float, model: str) -> tuple[int, str]:
    """Start, kill after `wait_s`, start again: -> exit code of the first, and what was wrong, if anything."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    process = subprocess.Popen(
        command, cwd=folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(wait_s)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    wrong = ["workers live on"] * alive(process.pid) + ["a traceback"] * ("Traceback" in said and f"{PACKAGE}/" in said)
    if number != signal.SIGKILL and (folder / "out").exists():
        wrong += ["half a file"] * bool(list((folder / "out").rglob(".nacre-*")))
    done = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.suffix in (".nacre", ".wav")}
    again = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    wrong += [f"exit code {again.returncode} afterwards"] * (again.returncode != 0)
    wrong += ["done twice"] * any(path.stat().st_mtime_ns != then for path, then in done.items())
    wrong += ["half a file afterwards"] * bool(list((folder / "out").rglob(".nacre-*")))
    coded = [str(path) for path in (folder / "out").rglob("*.nacre")]
    if coded:
        verify = subprocess.run([*NACRE, "verify", *coded, "-q", "-m", model], cwd=folder, check=False)
        wrong += ["damaged"] * (verify.returncode != 0)
    return process.returncode, ", ".join(wrong)


def alive(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main(
    trials: Annotated[int, typer.Option(help="of each command and signal")] = 20,
    model: Annotated[str, typer.Option()] = "speech-16k",
    most_s: Annotated[float, typer.Option(help="latest moment")] = 2.5,
    seed: Annotated[int, typer.Option()] = 0,
    only: Annotated[str, typer.Option(help="of encode, decode, batch, evaluate, train, with commas")] = "",
    how: Annotated[str, typer.Option(help="signals, with commas")] = ",".join(HOW),
) -> None:
    """Half the moments lie in the first 0.3 s, while modules are still being imported."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
    random, bad = np.random.default_rng(seed), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs(folder, model)
        chosen = {what: command for what, command in commands(model).items() if what in (only or what).split(",")}
        for what, command in chosen.items():
            for name in how.split(","):
                codes, wrong = [], []
                for index in range(trials):
                    wait_s = random.uniform(0.03, 0.3 if index % 2 else most_s)
                    code, fault = trial(folder, command, HOW[name], wait_s, model)
                    codes.append(code)
                    wrong += [f"{fault} (after {wait_s:.3f} s)"] * bool(fault)
                bad += len(wrong)
                found = ", ".join(f"{code}: {codes.count(code)}" for code in sorted(set(codes)))
                print(f"{what:8} {name:8} {trials} times: exit codes {found}; faults: {wrong or 'none'}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    typer.run(main)
