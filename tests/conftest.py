"""What every test may ask for: the tiny model, some speech, the command line as a user starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nacre
from nacre.cli.main import main
from nacre.codec.codec import Codec
from nacre.entropy import context_prior
from nacre.entropy.context_prior import ContextPrior, Sizes
from nacre.io import audio
from nacre.model import bundle as bundles

TINY = Path(__file__).parent / "data" / "tiny"
PACKAGE = Path(nacre.__file__).parent
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored in what it starts with "&"
HUNG_S = 1200  # a process that hangs, not one that is slow on a busy machine


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    rc: int
    stdout: bytes
    stderr: str


def small_prior(seed=0, levels=3, dims=9, used=7, blocks=3, hidden=20, small=10, depth=2, others=3) -> ContextPrior:
    """A prior of random weights whose places, widths and mixtures vary much."""
    rng = np.random.default_rng(seed)
    sizes = Sizes(levels, dims, used, blocks, hidden, small, depth, others)
    a = {}
    for name, (kind, shape) in sizes.arrays.items():
        a[name] = rng.integers(-127, 128, shape) if kind == "|i1" else np.zeros(shape)
    a["order"] = rng.permutation(dims)[:used]
    a["ends"] = np.sort(rng.permutation(used - 1)[: blocks - 1] + 1).tolist() + [used]
    a["reach"] = rng.integers(2, 20, blocks)
    a["ratio"] = rng.integers(100, 4000, (levels, used))
    a["logs"] = np.round(16 * np.log2(1 + np.arange(context_prior.LOGS) / 16)).clip(0, 127)
    for name, low in (("b_in", -3000), ("b_mid", -3000), ("b_block", -3000), ("b_out", -3000)):
        a[name] = rng.integers(low, 3000, a[name].shape)
    for name, shift in (("s_in", 6), ("s_mid", 7), ("s_block", 8), ("s_out", 8)):
        a[name] = np.full(a[name].shape, shift)
    a["mult"] = rng.integers(-400, 400, a["mult"].shape)
    a["base"][:, 1::2] = (20 << context_prior.FINE) + rng.integers(-(9 << 12), 9 << 12, a["base"][:, 1::2].shape)
    a["base"][:, 2] = 30 << context_prior.FINE
    a["follow"] = rng.integers(-4000, 40000, a["follow"].shape)
    a["start"] = rng.integers(-3, 4, a["start"].shape)
    a["curve"] = np.round((1 << 20) / (1 + np.exp(np.arange(context_prior.CURVE) / 128)))
    a["curve"][-1] = 0
    a["narrow"] = np.round(4096 * 2 ** (4.5 - np.arange(context_prior.WIDTHS) / 4))
    a["weight"] = np.round(256 / (1 + np.exp((32 - np.arange(context_prior.WEIGHTS)) / 4)))
    a["tables"][...] = 5
    a["tables"][..., others // 2] += context_prior.TABLE - 5 * (others + 1)
    return ContextPrior(sizes, {name: np.asarray(a[name]).astype(kind) for name, (kind, _) in sizes.arrays.items()})


def once(processor, values: np.ndarray) -> np.ndarray:
    """What an analyser or synthesiser makes of all that it is given at once."""
    return processor.step(values, processor.start())[0]


def in_turn(processor, pieces: Iterable[np.ndarray]) -> list[np.ndarray]:
    """What an analyser or synthesiser makes of pieces, one after another."""
    state, made = processor.start(), []
    for piece in pieces:
        out, state = processor.step(piece, state)
        made.append(out)
    return made


def damaged(good: bytes, trials: int) -> Iterator[bytes]:
    """Copies of a file, some cut short, most with up to three bytes changed, some whole."""
    rng = np.random.default_rng(11)
    for trial in range(trials):
        data = bytearray(good[: rng.integers(len(good))] if trial % 4 == 0 else good)
        for place in rng.integers(len(data), size=trial % 4) if data else ():
            data[place] = rng.integers(256)
        yield bytes(data)


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Folder of an 8-dim model with 4 levels and groups of 10 frames, 0.2 s; it sounds like nothing."""
    return TINY


@pytest.fixture(scope="session")
def tiny(tiny_model) -> Codec:
    """The tiny model, loaded."""
    return nacre.load(tiny_model)


@pytest.fixture(scope="session")
def both_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with a context prior of random weights."""
    folder = tmp_path_factory.mktemp("both") / "both"
    shutil.copytree(tiny_model, folder)
    small_prior(levels=4, dims=8, used=6, blocks=2).save(folder / bundles.CONTEXT)
    plain = bundles.load(tiny_model)
    facts = plain.metadata
    facts |= {"static_rates_kbps": plain.rates_kbps.tolist()}
    bundles.save(folder, "both", plain.kind, plain.config, facts)
    return folder


@pytest.fixture(scope="session")
def both(both_model) -> Codec:
    """The same, loaded."""
    return nacre.load(both_model)


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Five seconds of a bundled recording, float32 [N] at 16 kHz, read-only."""
    wave, rate_hz = audio.read(PACKAGE / "clips" / "english.flac")
    assert rate_hz == 16_000
    wave.setflags(write=False)
    return wave[0]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables for a process that finds this very package."""
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""}  # buffered, as for users


@pytest.fixture
def run(environment, tmp_path) -> Callable[..., Ran]:
    """`run("info", "a.nacre", stdin=b"...")` starts `python -m nacre` in the test's folder."""

    def start(*arguments: object, stdin: bytes = b"", timeout_s: float = HUNG_S) -> Ran:
        command = [sys.executable, "-m", "nacre", *map(str, arguments)]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=environment, cwd=tmp_path, timeout=timeout_s, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    return start


@pytest.fixture(name="nacre")
def in_process(monkeypatch, capfd, tmp_path) -> Callable[..., Ran]:
    """`nacre("info", "a.nacre")` runs in this process, through the real entry point, in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def start(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["nacre", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            rc = 0
        except SystemExit as done:
            rc = done.code if isinstance(done.code, int) else int(done.code is not None)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Ran(rc, captured.out.encode(), captured.err)

    return start
