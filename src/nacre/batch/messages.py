"""Messages on standard error, plain or, on a terminal, in colour."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """Where progress is shown: standard error, since messages never mix with sound on standard output."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell(text: object, style: str = "") -> None:
    """Print a line on standard error, above the progress bar if there is one."""
    if is_terminal():
        console().print(str(text), style=style, markup=False, soft_wrap=True)
    elif sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning; the work goes on."""
    tell(text, "yellow")


def complain(error: object) -> None:
    """Print an error."""
    tell(f"error: {error}", "red")
