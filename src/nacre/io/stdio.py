"""Standard input and output as bytes, also where they are closed; what files begin with, and names as text."""

from __future__ import annotations

import sys
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from nacre.core.errors import AudioError
from nacre.core.kinds import MAGIC


def standard_input() -> BufferedReader:
    """Standard input. Raises AudioError where it is closed."""
    if sys.stdin is None:
        raise AudioError("standard input is closed; name a file")
    return cast("BufferedReader", sys.stdin.buffer)


def standard_output() -> BinaryIO:
    """Standard output. Raises AudioError where it is closed."""
    if sys.stdout is None:
        raise AudioError("standard output is closed; name a file with -o")
    return sys.stdout.buffer


def begins_coded(source: str | Path) -> bool:
    """Whether a file, or standard input for "-", begins as `.nacre` files do; it can be read from its start afterwards.

    False for what cannot be read, and for named pipes, which give their bytes only once.
    """
    try:
        if str(source) == "-":
            return standard_input().peek(len(MAGIC))[: len(MAGIC)] == MAGIC
        if Path(source).is_fifo():
            return False
        with open(source, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def printable(name: str) -> str:
    """A file's name without what is no UTF-8 in it, for places that take nothing else.

    >>> printable("caf\\udce9.wav")
    'caf\ufffd.wav'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
