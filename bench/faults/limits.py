"""Little memory, no room, no file handles, links, pipes, inputs that change: a word and an exit code."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

NACRE = [sys.executable, "-m", "nacre"]
MB = 1 << 20


class Bench:
    """A folder with inputs, and commands run in it."""

    def __init__(self, folder: Path, model: str):
        import nacre
        from nacre.io.audio import read, write

        self.folder, self.model = folder, ["-m", model]
        clip = read(Path(nacre.__file__).parent / "clips/english.flac")[0][0]
        write(folder / "a.wav", np.resize(clip, 60 * 16_000)[None], 16_000)
        self.run("encode", "a.wav", "-o", "a.nacre")

    def run(self, *arguments: str, limits: dict[int, int] | None = None, **more) -> subprocess.CompletedProcess:
        """One command, under limits of the system."""

        def set_limits() -> None:
            for what, most in (limits or {}).items():
                resource.setrlimit(what, (most, most))

        command = [*NACRE, *arguments, *self.model, "-f", "-q"]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, preexec_fn=set_limits, **more
        )

    def outcome(self, done: subprocess.CompletedProcess, codes: tuple[int, ...] = (1,)) -> str:
        """The outcome, good if it ended in one of these codes without a traceback or half a file."""
        left = [path.name for path in self.folder.rglob(".nacre-*")]
        good = done.returncode in codes and "Traceback" not in done.stderr and not left
        word = done.stderr.strip().splitlines()[-1][-150:] if done.stderr.strip() else ""
        return f"{'good' if good else 'BAD '}  exit {done.returncode}  {word} {left or ''}"


def no_room(b: Bench) -> str:
    """Files may grow to 4 kB."""
    return b.outcome(b.run("encode", "a.wav", "-o", "x.nacre", limits={resource.RLIMIT_FSIZE: 4_000}))


def no_room_to_decode(b: Bench) -> str:
    """Files may grow to 500 kB."""
    return b.outcome(b.run("decode", "a.nacre", "-o", "x.wav", limits={resource.RLIMIT_FSIZE: 500_000}))


def full_disk(b: Bench) -> str:
    """A file system of 256 kB, too small for what is decoded; what is smaller is written to it."""
    with mounted(b.folder / "small", "size=256k") as place:
        if place is None:
            return "not tried: needs the right to mount"
        said = b.outcome(b.run("decode", "a.nacre", "-o", "small/a.wav"))
        again = b.outcome(b.run("encode", "a.wav", "-o", "small/a.nacre"), (0,))
        return f"{said}; what fits is written all the same: {again}"


def read_only_folder(b: Bench) -> str:
    """A file system that may not be written, also as the place of the report."""
    with mounted(b.folder / "closed", "ro") as place:
        if place is None:
            return "not tried: needs the right to mount"
        said = b.outcome(b.run("encode", "a.wav", "-o", "closed/x.nacre"))
        report = b.outcome(b.run("encode", "a.wav", "-o", "y.nacre", "--report", "closed/x.csv"))
        return f"{said}; {report}, sound kept: {(b.folder / 'y.nacre').is_file()}"


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path | None]:
    """A file system in memory at `place`; None where this user may not mount one."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    try:
        yield place if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", place], check=True)


def no_handles(b: Bench) -> str:
    """Twelve open files."""
    return b.outcome(b.run("encode", "a.wav", "-o", "x.nacre", limits={resource.RLIMIT_NOFILE: 12}), (0, 1))


def little_memory(b: Bench) -> str:
    """An address space of 600 MB."""
    return b.outcome(b.run("encode", "a.wav", "-o", "x.nacre", limits={resource.RLIMIT_AS: 600 * MB}), (0, 1))


def links(b: Bench) -> str:
    """Through a link to a file and a link to nowhere; the links stay."""
    (b.folder / "l.nacre").symlink_to("real.nacre")
    (b.folder / "n.wav").symlink_to("nowhere.wav")
    good = b.outcome(b.run("encode", "a.wav", "-o", "l.nacre"), (0,))
    kept = (b.folder / "l.nacre").is_symlink() and (b.folder / "real.nacre").is_file()
    return f"{good} link kept: {kept}; " + b.outcome(b.run("encode", "n.wav", "-o", "x.nacre"))


def named_pipe(b: Bench) -> str:
    """From one named pipe into another."""
    for name in ("in.fifo", "out.fifo"):
        os.mkfifo(b.folder / name)
    data: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: (b.folder / "in.fifo").write_bytes((b.folder / "a.wav").read_bytes())),
        threading.Thread(target=lambda: data.append((b.folder / "out.fifo").read_bytes())),
    ]
    for thread in threads:
        thread.start()
    done = b.run("encode", "in.fifo", "-o", "out.fifo")
    for thread in threads:
        thread.join(20)
    return f"{b.outcome(done, (0,))} {len(data[0])} bytes, {(b.folder / 'a.nacre').stat().st_size} in a file"


def growing(b: Bench) -> str:
    """The input grows while it is read."""
    path = b.folder / "g.wav"
    path.write_bytes((b.folder / "a.wav").read_bytes())
    process = subprocess.Popen([*NACRE, "encode", "g.wav", "-o", "g.nacre", *b.model, "-q"], cwd=b.folder)
    for _ in range(40):
        with open(path, "ab") as file:
            file.write(bytes(32_000))
        time.sleep(0.02)
    return f"{'good' if process.wait() == 0 else 'BAD '}  exit {process.returncode}, the sound that the head states"


def vanishing(b: Bench) -> str:
    """The input is emptied while it is read, then removed."""
    path = b.folder / "v.wav"
    path.write_bytes((b.folder / "a.wav").read_bytes() * 1)
    process = subprocess.Popen(
        [*NACRE, "encode", "v.wav", "-o", "v.nacre", *b.model, "-q"], cwd=b.folder, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(b.folder.glob(".nacre-*")):
        time.sleep(0.005)
    os.truncate(path, 400_000)
    path.unlink()
    _, said = process.communicate()
    good = process.returncode in (0, 1) and "Traceback" not in said
    return f"{'good' if good else 'BAD '}  exit {process.returncode}  {said.strip()[-150:]}"


def two_writers(b: Bench) -> str:
    """Two processes write one output: one wins, the other says that it is there."""
    command = [*NACRE, "encode", "a.wav", "-o", "w.nacre", *b.model, "-q"]
    both = [subprocess.Popen(command, cwd=b.folder, stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = sorted(process.wait() for process in both)
    same = (b.folder / "w.nacre").read_bytes() == (b.folder / "a.nacre").read_bytes()
    return f"{'good' if codes in ([0, 1], [0, 0]) and same else 'BAD '}  exit {codes}, the file is whole: {same}"


def reader_gone(b: Bench) -> str:
    """The reader of a pipe goes away."""
    command = f"{' '.join(NACRE)} decode a.nacre -o - {' '.join(b.model)} -q"
    shell = f"{command} | head -c 1000 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=b.folder, capture_output=True, text=True, check=False)
    good = "good" if "Traceback" not in done.stderr else "BAD "
    return f"{good}  exit {done.stdout.strip()}  {done.stderr.strip()[-100:]}"


def threads_and_forks(b: Bench) -> str:
    """Four threads share a codec while processes are forked, served and spawned from it."""
    code = f"""
import multiprocessing, threading, numpy as np, nacre
codec, wave = nacre.load({b.model[1]!r}), np.sin(np.arange(48_000) / 9).astype("float32")
wanted = codec.encode(wave, 16_000)
found = []
def work(*_): found.append(codec.encode(wave, 16_000) == wanted); return found[-1]
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]
with multiprocessing.get_context("fork").Pool(2) as pool: forked = pool.map(work, range(4))
[t.join() for t in threads]
if __name__ == "__main__":
    spawned = []
    for way in ("forkserver", "spawn"):
        with multiprocessing.get_context(way).Pool(2) as pool: spawned += pool.map(codec.decode, [wanted] * 2)
    print(all(found), all(forked), len(spawned) == 4)
"""
    (b.folder / "t.py").write_text(code)
    command, options = [sys.executable, "t.py"], {"cwd": b.folder, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, timeout=120, **options)
    good = "good" if done.stdout.split() == ["True"] * 3 else "BAD "
    return f"{good}  {done.stdout.strip()} {done.stderr.strip()[-100:]}"


FAULTS: tuple[Callable[[Bench], str], ...] = (
    no_room,
    no_room_to_decode,
    full_disk,
    read_only_folder,
    no_handles,
    little_memory,
    links,
    named_pipe,
    growing,
    vanishing,
    two_writers,
    reader_gone,
    threads_and_forks,
)


def main(model: Annotated[str, typer.Option()] = "speech-16k", only: Annotated[str, typer.Option()] = "") -> None:
    """Each fault in a folder of its own."""
    bad = 0
    for fault in FAULTS:
        if only in fault.__name__:
            with tempfile.TemporaryDirectory() as name:
                result = fault(Bench(Path(name), model))
            bad += "BAD" in result
            print(f"{fault.__name__:18} {result}", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    typer.run(main)
