"""Matrix products on one thread: numpy's BLAS would wake a thread a core for the coder's small ones, and let it spin.

The number of threads belongs to the whole process, so it is counted who wants one, and put back by the last to leave.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, wraps
from importlib import import_module
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

Given = ParamSpec("Given")
Result = TypeVar("Result")


AFFIXES = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))  # of numpy's wheels, new and old; of others
NAMES = [(f"{head}openblas_get_num_threads{tail}", f"{head}openblas_set_num_threads{tail}") for head, tail in AFFIXES]
NAMES += [("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"), ("bli_thread_get_num_threads", "bli_thread_set_num_threads")]


class Threads:
    """Threads of numpy's BLAS in this process, one while anybody is inside the `with`."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 1

    @cached_property
    def _library(self) -> tuple[Callable[[], int], Callable[[int], object]]:
        """Functions that get and set the number of threads; both do nothing with an unknown library."""
        for handle in _handles():
            for get, put in NAMES:
                if hasattr(handle, get) and hasattr(handle, put):
                    return getattr(handle, get), getattr(handle, put)
        return lambda: 1, lambda count: None

    def count(self) -> int:
        """Threads that a product may use now."""
        return int(self._library[0]())

    def set(self, count: int) -> None:
        """Let products use so many."""
        self._library[1](count)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = self.count()
                self.set(1)
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self.set(self._before)

    def forked(self) -> None:
        """In a new process: other threads, which may have been inside, have stayed behind."""
        if self._inside:
            self.set(self._before)
        self._lock, self._inside = threading.Lock(), 0


def _handles() -> Iterator[ctypes.CDLL]:
    """Libraries in which numpy's BLAS can be found: numpy's own module, which names it, or a file beside numpy."""
    core = import_module("numpy._core._multiarray_umath" if hasattr(np, "_core") else "numpy.core._multiarray_umath")
    folder = Path(np.__file__).parent
    for path in (core.__file__, *folder.parent.glob("numpy.libs/*openblas*"), *folder.glob(".libs/*openblas*")):
        with suppress(OSError):
            yield ctypes.CDLL(str(path))


threads = Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=threads.forked)


def one_thread(work: Callable[Given, Result]) -> Callable[Given, Result]:
    """`work` with all its matrix products on one thread; not for generators, which would hold it between answers."""

    @wraps(work)
    def alone(*args: Given.args, **named: Given.kwargs) -> Result:
        with threads:
            return work(*args, **named)

    return alone
