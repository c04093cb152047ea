"""Mutants by the million: what the readers of `.nacre` files, of sound files and of live packets make of bytes that
nobody meant to write. Each mutant follows from the seed and its number; `--first` and `--count` give one of them again.

Mutants run in a process of their own, so that a crash ends that process alone, is counted, and the rest goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from common import looped_speech, numbers
from mutants import accident, broken, hostile, lying, sounds

import nacre
from nacre.codec.codec import Codec
from nacre.core.errors import NacreError
from nacre.format.file import Contents
from nacre.io.audio import AudioReader, resampled

RATE_HZ, WIDE_HZ = 16_000, 48_000
SLOW_S, STUCK_S, LOUD = 5.0, 120.0, 1.5
TINY = Path(__file__).resolve().parents[1] / "tests/data/tiny"
WRONG = "groups wrong in silence"
BLOCK = 500  # mutants between two words to the parent
Case = tuple[str, Callable[[Counter[str]], float]]  # kind; work that gives the seconds of sound, or the loudest peak


class TooSlow(BaseException):
    """A mutant that took more than SLOW_S of CPU time."""


@dataclass
class Tally:
    """What came of mutants so far."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest_cpu_s: float = 0.0
    slowest: str = ""
    memory_mb: int = 0
    loudest_peak: float = 0.0
    longest_sound_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """What came of more of them."""
        self.counts.update(other.counts)
        if other.slowest_cpu_s > self.slowest_cpu_s:
            self.slowest_cpu_s, self.slowest = other.slowest_cpu_s, other.slowest
        self.memory_mb = max(self.memory_mb, other.memory_mb)
        self.loudest_peak = max(self.loudest_peak, other.loudest_peak)
        self.longest_sound_s = max(self.longest_sound_s, other.longest_sound_s)
        self.faults += other.faults


class Coded:
    """Mutants of `.nacre` files: rates, priors, one and two channels, packets of one size, silence, band layers."""

    def __init__(self, models: list[str], seconds: float, kbps: list[float], rendered: float):
        self.rendered, self.files = rendered, list[tuple[Codec, bytes, list[object]]]()
        for model in models:
            codec = nacre.load(model)
            for data in self._originals(codec, clip(2 * seconds), kbps):
                self.files.append((codec, data, symbols_of(codec, codec.parse(data))))

    @staticmethod
    def _originals(codec: Codec, wave: np.ndarray, kbps: list[float]) -> Iterator[bytes]:
        half, (low, high) = len(wave) // 2, codec.bundle.rates_kbps[[0, -1]]
        for rate in kbps:
            if low <= rate <= high:
                yield codec.encode(wave[:half], RATE_HZ, bitrate_kbps=rate)
        yield codec.encode(wave[:half], RATE_HZ, quality=50, prior="static")
        yield codec.encode(np.stack([wave[:half], 0.5 * wave[:half]]), RATE_HZ, quality=40)
        yield codec.encode(np.concatenate([wave[: half // 2], np.zeros(half, np.float32)]), 8_000, quality=30)
        yield codec.encode(wave[half:], RATE_HZ, packet_bytes=200)
        wide = hissed(wave[:half])
        yield codec.encode(wide, WIDE_HZ, quality=50, band_khz=20)
        yield codec.encode(np.stack([wide, 0.5 * wide]), WIDE_HZ, quality=100, band_khz=12)

    def case(self, random: np.random.Generator) -> Case:
        """A mutant and what to do with it."""
        codec, data, wanted = self.files[int(random.integers(len(self.files)))]
        by_chance, render = bool(random.integers(2)), random.random() < self.rendered
        if by_chance:
            mutant = accident(data, random)
        else:
            others = [file[1] for file in self.files if file[0] is codec]
            mutant = hostile(codec, data, others[int(random.integers(len(others)))], random)

        def work(counts: Counter[str]) -> float:
            contents = codec.parse(mutant)
            found = symbols_of(codec, contents)
            if by_chance and not contents.lost and len(found) == len(wanted):
                wrong = sum(a != b and a is not False for a, b in zip(found, wanted, strict=True))
                counts["damaged groups"] += sum(a is False for a in found) + wrong
                counts[WRONG] += wrong
            if not render:
                return 0.0
            counts["rendered"] += 1
            return max((float(np.abs(block).max(initial=0)) for block in codec.decoder(contents).blocks()), default=0.0)

        return "nacre, by accident" if by_chance else "nacre, on purpose", work


class Heard:
    """Mutants of sound files, read to their end by a file in memory."""

    def __init__(self, folder: str):
        self.folder, self.files = folder, sounds(clip(0.25))

    def case(self, random: np.random.Generator) -> Case:
        """A mutant and what to do with it."""
        suffix, data = self.files[int(random.integers(len(self.files)))]
        other = self.files[int(random.integers(len(self.files)))][1]
        by_chance = bool(random.integers(2))
        mutant = accident(data, random, 0) if by_chance else lying(data, other, random)

        def work(counts: Counter[str]) -> float:
            path = Path(self.folder, f"mutant{suffix}")
            path.write_bytes(mutant)
            with AudioReader(path) as reader:
                for _ in reader.blocks(1 << 14):
                    pass
                counts["sound: not all"] += reader.loss() is not None
                return reader.samples_read / reader.rate_hz

        return "sound, by accident" if by_chance else "sound, on purpose", work


class Lived:
    """Damaged packets in a call of a second, half of them, with copies and without."""

    def __init__(self, models: list[str]):
        self.calls = []
        for model in models:
            codec = nacre.load(model)
            for loss in (0.0, 0.1):
                encoder = codec.live_encoder(RATE_HZ, loss=loss, source=1)
                self.calls.append((codec, encoder.push(clip(1.0)) + encoder.flush()))

    def case(self, random: np.random.Generator) -> Case:
        """Ten packets from somewhere in a call."""
        codec, packets = self.calls[int(random.integers(len(self.calls)))]
        at = int(random.integers(len(packets) - 10))
        line = [broken(packet, random) if random.integers(2) else packet for packet in packets[at : at + 10]]

        def work(counts: Counter[str]) -> float:
            decoder = codec.live_decoder(depth_ms=20, announced=True)
            waves = [decoder.push(packet, 0.02 * index) for index, packet in enumerate(line)]
            return max(float(np.abs(wave).max(initial=0)) for wave in waves)

        return "live, ten packets", work


def clip(seconds: float) -> np.ndarray:
    """Speech [N] float32 at RATE_HZ."""
    return np.concatenate(list(looped_speech(Path(nacre.__file__).parent, seconds, RATE_HZ)))


def hissed(wave: np.ndarray) -> np.ndarray:
    """wave [N] at RATE_HZ -> [M] float32 at WIDE_HZ, with hiss that rises and falls with it."""
    wide = resampled(wave, RATE_HZ, WIDE_HZ)
    return wide + 0.3 * wide * np.random.default_rng(1).standard_normal(len(wide), np.float32)


def symbols_of(codec: Codec, contents: Contents) -> list[object]:
    """Symbols of every packet as bytes, True for silence, False for one that is lost or damaged."""
    found: list[object] = []
    for _, _, held in codec.decoder(contents).groups():
        for group in held:
            if isinstance(group, Exception):
                found.append(False)
            else:
                parts = [part.tobytes() for part in (group.symbols, group.residual, group.band) if part is not None]
                found.append(b"".join(parts) + bytes([group.code]) if parts else True)
    return found


def try_one(kind: str, work: Callable[[Counter[str]], float], name: str, tally: Tally) -> None:
    """One mutant, under the limit of time."""
    counts, began, value = tally.counts, time.process_time(), 0.0
    counts[kind] += 1
    wrong = counts[WRONG]
    signal.setitimer(signal.ITIMER_PROF, SLOW_S)
    try:
        value = work(counts)
    except NacreError:
        counts[f"{kind}: refused"] += 1
    except TooSlow:
        counts["over 5 CPU s"] += 1
        tally.faults.append(f"{name}: over {SLOW_S} CPU s")
    except BaseException as error:
        counts["foreign exceptions"] += 1
        tally.faults.append(f"{name}: {error!r}")
    signal.setitimer(signal.ITIMER_PROF, 0)
    if counts[WRONG] > wrong:
        tally.faults.append(f"{name}: {WRONG}")
    took = time.process_time() - began
    if took > tally.slowest_cpu_s:
        tally.slowest_cpu_s, tally.slowest = took, name
    if kind.startswith("sound"):
        tally.longest_sound_s = max(tally.longest_sound_s, value)
    else:
        tally.loudest_peak = max(tally.loudest_peak, value)
        counts["peaks over 1.5"] += value > LOUD


def worker(make: Callable[[], list], seed: int, first: int, stop: int, at, results) -> None:  # type: ignore[no-untyped-def]
    """Mutants `first` to `stop`; `at` says which one is being tried."""

    def end(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGPROF, end)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 talks
    subjects = make()
    for start in range(first, stop, BLOCK):
        tally = Tally()
        for number in range(start, min(start + BLOCK, stop)):
            at.value = number
            random = np.random.default_rng((seed, number))
            kind, work = subjects[int(random.integers(len(subjects)))].case(random)
            try_one(kind, work, f"mutant {number}, {kind}", tally)
        tally.memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        results.put((min(start + BLOCK, stop), tally))


def run(make: Callable[[], list], seed: int, first: int, stop: int, limit_s: float) -> Iterator[tuple[int, Tally]]:
    """(mutants done, what came of them) block by block; a process that crashes or is stuck is started again."""
    context, deadline = multiprocessing.get_context("fork"), time.monotonic() + limit_s
    while first < stop and time.monotonic() < deadline:
        at, results = context.Value("q", first), context.SimpleQueue()
        process = context.Process(target=worker, args=(make, seed, first, stop, at, results), daemon=True)
        process.start()
        moved, last, stuck = time.monotonic(), at.value, False
        while (process.is_alive() or not results.empty()) and time.monotonic() < deadline:
            if results.empty():
                time.sleep(0.05)
            else:
                first, tally = results.get()
                yield first, tally
            if at.value != last:
                moved, last = time.monotonic(), at.value
            if stuck := time.monotonic() - moved > STUCK_S and last > 0:
                break
        if process.is_alive():
            process.kill()
        process.join()
        if first < stop and time.monotonic() < deadline:
            word = "stuck" if stuck else f"process ended by {process.exitcode}"
            first = at.value + 1
            yield first, Tally(Counter({"crashes": 1}), faults=[f"mutant {at.value}: {word}"])


def main(
    count: Annotated[int, typer.Option(help="mutants")] = 1_000_000,
    first: Annotated[int, typer.Option(help="number of the first one")] = 0,
    seed: Annotated[int, typer.Option()] = 0,
    models: Annotated[str, typer.Option(help="names or folders, with commas")] = f"speech-16k,{TINY}",
    seconds: Annotated[float, typer.Option(help="of sound in each original")] = 1.2,
    kbps: Annotated[str, typer.Option()] = "1.5,3,6,12",
    sound: Annotated[float, typer.Option(help="share of the mutants whose sound is rendered, too")] = 0.02,
    only: Annotated[str, typer.Option(help="of nacre, sound, live, with commas")] = "nacre,sound,live",
    limit_s: Annotated[float, typer.Option(help="stop after so long")] = 3600,
    out: Annotated[Path | None, typer.Option(help="JSON, written after every block")] = None,
) -> None:
    """Try mutants and count what comes of them."""
    names = models.split(",")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        makers: dict[str, Callable[[], object]] = {
            "nacre": lambda: Coded(names, seconds, numbers(kbps), sound),
            "sound": lambda: Heard(folder),
            "live": lambda: Lived(names),
        }

        def make() -> list[object]:
            return [makers[name]() for name in only.split(",")]

        tally, began = Tally(), time.monotonic()
        for done, block in run(make, seed, first, first + count, limit_s):
            tally.add(block)
            for line in block.faults:
                print(line, flush=True)
            facts = {"mutants": done - first, "seed": seed, **vars(tally), "wall_s": round(time.monotonic() - began)}
            if out:
                out.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    typer.run(main)
