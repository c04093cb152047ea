"""What is said on standard error, plainly or, where somebody watches, in colour."""

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
    """Whether somebody watches standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell(text: object, style: str = "") -> None:
    """A line on standard error, above the progress where that is shown."""
    if is_terminal():
        console().print(str(text), style=style, markup=False, soft_wrap=True)
    elif sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say what is wrong with something that goes on all the same."""
    tell(text, "yellow")


def complain(error: object) -> None:
    """Say what failed."""
    tell(f"error: {error}", "red")
