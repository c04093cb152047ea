"""Kinds of latents, by the numbers that stand in files, and what files begin with."""

from __future__ import annotations

import enum

MAGIC = b"NACR"  # what a .nacre file begins with


class Kind(enum.IntEnum):
    """Kind of latents, as written in the header."""

    SCALAR = 1
    GAUSSIAN = 2
    RVQ = 3
    FSQ = 4
