"""What every test may ask for: the tiny model, some speech, the command line as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nacre
from nacre import audio
from nacre.codec import Codec

TINY = Path(__file__).parent / "data" / "tiny"
PACKAGE = Path(nacre.__file__).parent


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    rc: int
    stdout: bytes
    stderr: str


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Folder of an 8-dim model with 4 levels and groups of 10 frames, 0.2 s; it sounds like nothing."""
    return TINY


@pytest.fixture(scope="session")
def tiny(tiny_model) -> Codec:
    """The tiny model, loaded."""
    return nacre.load(tiny_model)


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

    def start(*arguments: object, stdin: bytes = b"", timeout_s: float = 60) -> Ran:
        command = [sys.executable, "-m", "nacre", *map(str, arguments)]
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=environment, cwd=tmp_path, timeout=timeout_s, check=False
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    return start
