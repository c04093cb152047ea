"""What settings of training must satisfy: one check, one wording."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from nacre.core.errors import TrainError


def check(settings: Any, section: str, wanted: str, fits: Callable[[Any], bool], *names: str) -> None:
    """Raise TrainError for the first of the named settings that does not fit.

    >>> from types import SimpleNamespace
    >>> check(SimpleNamespace(batch=0), "data", "above 0", lambda value: value > 0, "batch")
    Traceback (most recent call last):
    nacre.core.errors.TrainError: data.batch is 0; it must be above 0; change it in the recipe
    """
    for name in names:
        key, value = f"{section}.{name}" if section else name, getattr(settings, name)
        if not fits(value):
            raise TrainError(f"{key} is {value}; it must be {wanted}; change it in the recipe")


def one_of(settings: Any, section: str, known: Iterable[str], *names: str) -> None:
    """Raise TrainError, with the nearest of the `known` values, for the first of the named settings that is none.

    >>> from types import SimpleNamespace
    >>> one_of(SimpleNamespace(norm="bach"), "net", ("layer", "batch"), "norm")
    Traceback (most recent call last):
    nacre.core.errors.TrainError: net.norm is bach; it must be layer or batch; did you mean batch?
    """
    for name in names:
        key, value, choices = f"{section}.{name}" if section else name, getattr(settings, name), list(known)
        if value not in choices:
            near = difflib.get_close_matches(value, choices, 1, 0.0)[0]
            raise TrainError(f"{key} is {value}; it must be {' or '.join(choices)}; did you mean {near}?")


def above_zero(value: float) -> bool:
    """Whether a number is above 0."""
    return value > 0


def not_negative(value: float) -> bool:
    """Whether a number is 0 or more."""
    return value >= 0


def share(value: float) -> bool:
    """Whether a number is in 0..1."""
    return 0 <= value <= 1


def rising(value: tuple[float, float]) -> bool:
    """Whether a range goes from less to more."""
    return value[0] <= value[1]
